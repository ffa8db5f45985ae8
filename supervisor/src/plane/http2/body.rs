//! The body of an answer on its way to the client.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::pool::Sender;
use crate::plane::backend::InFlight;

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
