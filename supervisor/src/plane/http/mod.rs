//! HTTP/1.1: requests find an instance, survive its death, and wait when there is none.
//!
//! A request may be sent again when that cannot do harm: it was never sent, or it is idempotent
//! (RFC 9110, 9.2.2), its body is at hand, and no byte of an answer has reached the client. Answers
//! up to 64 KiB are read whole before they are passed on, so that a death in the middle of one is
//! not seen either. A POST whose answer is lost is not sent again, unless the application said that
//! it may be: nobody else can know whether it was done.
//!
//! Heads are read by `httparse` and written again ([`head`]), bodies pass as they were framed
//! ([`framing`]). A request costs two reads, two writes, and no allocation; what was tried and
//! measured on the way there stands in docs/reference/data-plane.md.

mod answer;
mod attempt;
pub(crate) mod framing;
pub(crate) mod head;
mod pool;
mod request;
mod stream;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::Port;
use super::backend::InFlight;
use super::buffer::Buffer;
use head::{Origin, Refusal};
pub(crate) use pool::{FRESH, Pool};

/// Bodies up to this size are kept at hand, requests to repeat them, answers to complete them.
const AT_HAND: u64 = 64 << 10;
/// The longest head; longer ones are refused with 431.
const HEAD: usize = 32 << 10;

/// A client's connection, as any kind of stream.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

/// What follows a request.
enum Next {
    /// The next one.
    Request,
    /// The end of the connection.
    End,
    /// Another protocol, spoken with that instance.
    Switch(Box<(TcpStream, Buffer, InFlight)>),
}

/// One client's connection.
struct Client<'a, S> {
    port: &'a Port,
    address: SocketAddr,
    stream: S,
    input: Buffer,
    origin: Origin,
    /// The one timer of the connection. Pushing a timer on costs nothing, making one does.
    alarm: Pin<&'a mut Sleep>,
}

/// Serves one client connection, of which `input` has been read already.
pub(crate) async fn serve<S: Duplex>(
    stream: S,
    input: Buffer,
    address: SocketAddr,
    tls: bool,
    port: &Port,
) {
    let alarm = pin!(tokio::time::sleep(Duration::from_secs(60)));
    let origin = Origin::of(address, tls);
    let mut client = Client { port, address, stream, input, origin, alarm };
    loop {
        let request = match client.request().await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(refusal) => return client.refuse(refusal).await,
        };
        match client.exchange(request).await {
            Next::Request => {}
            Next::End => return,
            Next::Switch(switched) => {
                let (mut server, ahead, _in_flight) = *switched;
                let (mut stream, input) = (client.stream, client.input);
                return super::tcp::carry(&mut stream, input, &mut server, ahead).await;
            }
        }
    }
}

impl<S: Duplex> Client<'_, S> {
    async fn refuse(&mut self, Refusal(status, text): Refusal) {
        let _ = self.say(status, text, true).await;
        let _ = self.stream.shutdown().await;
        // Closing with unread bytes would be a reset, which could overtake the answer.
        let drained = async {
            self.input.consume(usize::MAX);
            while let Ok(1..) = self.input.fill(&mut self.stream).await {
                self.input.consume(usize::MAX);
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(200), drained).await;
    }

    /// An answer of our own.
    async fn say(&mut self, status: &str, text: &str, close: bool) -> std::io::Result<()> {
        let later = if status.starts_with("503") { "Retry-After: 1\r\n" } else { "" };
        let end = if close { "Connection: close\r\n" } else { "" };
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
             {later}{end}\r\n{text}"
        );
        self.stream.write_all(answer.as_bytes()).await
    }
}

/// Waits for `work`, but not beyond the alarm; `None` is the alarm.
async fn before<T>(alarm: Pin<&mut Sleep>, work: impl Future<Output = T>) -> Option<T> {
    let (mut alarm, mut work) = (alarm, pin!(work));
    std::future::poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        alarm.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// Sets the alarm.
fn set(alarm: Pin<&mut Sleep>, at: Instant) {
    alarm.reset(at.into());
}
