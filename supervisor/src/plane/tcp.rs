//! Connections: bytes in both directions until both sides are done.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::backend::InFlight;
use super::buffer::Buffer;
use super::http::Duplex;
use super::{Port, reach, turn};
use crate::model::Protocol;

/// Gives the client a connection to an instance, whichever accepts one, and carries it.
pub(crate) async fn serve(
    mut client: impl Duplex,
    input: Buffer,
    address: SocketAddr,
    port: &Port,
) {
    let Some((mut server, in_flight)) = connect(address, port).await else { return };
    carry(&mut client, input, &mut server, Buffer::default()).await;
    drop(in_flight);
}

/// As [`serve`], for the kind of stream whose two halves cost nothing.
pub(crate) async fn serve_plain(
    mut client: TcpStream,
    input: Buffer,
    address: SocketAddr,
    port: &Port,
) {
    let Some((mut server, in_flight)) = connect(address, port).await else { return };
    if input.is_empty() && port.publish.protocol == Protocol::Auto {
        port.greets.set(greets(&client, &server).await);
    }
    let ((mut from, mut to), (mut back, mut there)) = (client.split(), server.split());
    let onward = copy(&mut from, &mut there, input);
    let backward = copy(&mut back, &mut to, Buffer::default());
    let _ = tokio::try_join!(onward, backward);
    drop(in_flight);
}

/// Whether the server is the first to say something.
async fn greets(client: &TcpStream, server: &TcpStream) -> bool {
    let mut first = [0];
    tokio::select! {
        biased;
        _ = client.readable() => false,
        length = server.peek(&mut first) => matches!(length, Ok(1..)),
    }
}

async fn connect(address: SocketAddr, port: &Port) -> Option<(TcpStream, InFlight)> {
    let rules = port.service.rules();
    let begun = Instant::now();
    port.service.budget.request(begun);
    let deadline = begun + Duration::from_millis(rules.queue_ms);
    let limit = Duration::from_millis(rules.connect_ms);
    let mut tried = turn::Tried::default();
    loop {
        let now = Instant::now();
        let (backend, in_flight) =
            turn::next(&port.service, &mut tried, now, deadline).await.ok()?;
        match reach::connect(backend.namespace.as_fd(), port, address, limit).await {
            Ok(server) => {
                let done = Instant::now();
                backend.answered(0, done - now, done);
                return Some((server, in_flight));
            }
            Err(_) => {
                backend.refused(Instant::now());
                tried.passed(&backend.id);
                if Instant::now() >= deadline {
                    return None;
                }
            }
        }
    }
}

/// Connects two streams with each other. What has been read ahead of either is passed on first.
pub(crate) async fn carry(
    client: &mut impl Duplex,
    input: Buffer,
    server: &mut TcpStream,
    ahead: Buffer,
) {
    let (mut from, mut to) = tokio::io::split(client);
    let (mut back, mut there) = server.split();
    // An end by reset is an end: both sides see it, nobody else has to.
    let _ = tokio::try_join!(copy(&mut from, &mut there, input), copy(&mut back, &mut to, ahead));
}

/// One direction, with its end.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: Buffer,
) -> std::io::Result<()> {
    loop {
        if !bytes.is_empty() {
            to.write_all(bytes.bytes()).await?;
            to.flush().await?;
            bytes.consume(usize::MAX);
        }
        if bytes.fill(from).await? == 0 {
            return to.shutdown().await;
        }
    }
}
