//! A request whose body is not at hand: both directions at the same time.
//!
//! An instance may answer before it has read everything, and may read no further until its answer
//! is read: whoever does one after the other waits for ever.

use std::pin::pin;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::answer::{Waiter, forward};
use super::attempt::{Lack, Server};
use super::framing::Framing;
use super::request::Request;
use super::{Client, Duplex, Next};
use crate::plane::backend::InFlight;
use crate::plane::buffer::Buffer;

/// How the sending of a body ended.
#[derive(PartialEq, Eq)]
enum Sent {
    Whole,
    /// The client broke off.
    NoMore,
    /// The instance takes no more; perhaps it has answered.
    Unwanted,
}

impl<S: Duplex> Client<'_, S> {
    /// Sends the rest of the body while the answer is passed on.
    pub(super) async fn stream_both_ways(
        &mut self,
        mut server: Server,
        in_flight: InFlight,
        request: &mut Request,
    ) -> Result<Next, Lack> {
        let mut body = request.body;
        let (sent, passed) = {
            let (mut from, mut to) = tokio::io::split(&mut self.stream);
            let (mut reader, mut writer) = server.stream.split();
            let waiter = Waiter {
                port: self.port,
                backend: &in_flight.0,
                asked: &request.asked,
                begun: Instant::now(),
                may_leave: false,
            };
            let sending = send(&mut from, &mut self.input, &mut body, &mut writer);
            let alarm = self.alarm.as_mut();
            let passing = waiter.pass(&mut reader, &mut server.input, &mut to, alarm);
            let (mut sending, mut passing) = (pin!(sending), pin!(passing));
            tokio::select! {
                biased;
                passed = &mut passing => (None, passed?),
                sent = &mut sending => match sent {
                    Sent::NoMore => return Err(Lack::Over),
                    sent => (Some(sent), passing.await?),
                },
            }
        };
        // A body of which a part is still to come cannot be followed by a request.
        let cut = sent != Some(Sent::Whole);
        // It was given away piece by piece, whatever became of it.
        request.body = Framing::UntilEnd;
        Ok(self.after(passed, server, in_flight, request, cut))
    }
}

async fn send(
    from: &mut (impl AsyncRead + Unpin),
    input: &mut Buffer,
    body: &mut Framing,
    to: &mut (impl AsyncWrite + Unpin),
) -> Sent {
    while !body.is_done() {
        if input.is_empty() && !matches!(input.fill(from).await, Ok(1..)) {
            return Sent::NoMore;
        }
        if forward(input, body, false, to).await.is_err() {
            return Sent::Unwanted;
        }
    }
    Sent::Whole
}
