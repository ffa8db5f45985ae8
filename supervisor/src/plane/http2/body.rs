//! Bytes on their way: answers, and what was read of a connection before its kind was known.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pool::Sender;
use crate::plane::backend::InFlight;
use crate::plane::buffer::Buffer;

/// An answer's body: at hand, or still coming. As long as it comes, its request is in flight, and
/// when it has come its connection is free for the next.
pub(super) struct Answer(Inner);

enum Inner {
    Whole(Full<Bytes>),
    Streamed { body: Incoming, sender: Option<Sender>, in_flight: InFlight, port: u16 },
}

impl Answer {
    /// A body that has been read.
    pub(super) fn whole(bytes: Bytes) -> Answer {
        Answer(Inner::Whole(Full::new(bytes)))
    }

    /// A body that is passed on as it comes.
    pub(super) fn streamed(
        body: Incoming,
        sender: Sender,
        in_flight: InFlight,
        port: u16,
    ) -> Answer {
        Answer(Inner::Streamed { body, sender: Some(sender), in_flight, port })
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Inner::Whole(body) => {
                Pin::new(body).poll_frame(context).map_err(|never| match never {})
            }
            Inner::Streamed { body, sender, in_flight, port } => {
                let polled = Pin::new(body).poll_frame(context);
                if let Poll::Ready(None) = polled
                    && let Some(sender) = sender.take()
                {
                    in_flight.0.pool2.put(*port, sender);
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Whole(body) => body.is_end_stream(),
            Inner::Streamed { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(body) => body.size_hint(),
            Inner::Streamed { body, .. } => body.size_hint(),
        }
    }
}

/// A stream of which something has been read already.
#[derive(Debug)]
pub(super) struct Ahead<S> {
    stream: S,
    input: Buffer,
}

impl<S> Ahead<S> {
    pub(super) fn new(stream: S, input: Buffer) -> Ahead<S> {
        Ahead { stream, input }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.input.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let count = into.remaining().min(self.input.bytes().len());
        into.put_slice(&self.input.bytes()[..count]);
        self.input.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
