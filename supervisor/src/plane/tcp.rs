//! Connections: bytes in both directions until both sides are done.

use std::time::Duration;

use minisup_core::input::Evidence;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::table::InFlight;
use super::{Port, QUEUE};
use crate::netns;

/// How long an instance may take to accept a connection.
pub(crate) const CONNECT: Duration = Duration::from_secs(1);
/// Bytes moved at a time and direction.
const BUFFER: usize = 64 << 10;

/// Gives the client a connection to an instance, whichever accepts one, and carries it.
pub(crate) async fn serve(mut client: TcpStream, port: &Port) {
    let deadline = Instant::now() + QUEUE;
    let mut tried = Vec::new();
    while Instant::now() < deadline {
        let changed = port.service.changed.notified();
        let Some(backend) = port.table.pick(&port.service, &tried) else {
            tried.clear();
            let pause = Duration::from_millis(25);
            let _ = tokio::time::timeout(pause, changed).await;
            continue;
        };
        let namespace = std::os::fd::AsFd::as_fd(&backend.namespace);
        let in_flight = InFlight::at(&backend);
        match netns::connect(namespace, port.publish.port, CONNECT).await {
            Ok(mut server) => {
                // An end by reset is an end: both sides see it, nobody else has to.
                let _ =
                    copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await;
                drop(in_flight);
                return;
            }
            Err(_) => {
                backend.rest();
                backend.doubt(Evidence::Refused);
                tried.push(backend.id.clone());
            }
        }
    }
}
