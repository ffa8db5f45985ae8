//! The way to an instance: a connection made in its network namespace.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Port, proxy_protocol};

/// Connects to the port of an instance, and says for whom if that is asked for.
pub(crate) async fn connect(
    namespace: BorrowedFd<'_>,
    port: &Port,
    client: SocketAddr,
    limit: Duration,
) -> std::io::Result<TcpStream> {
    let mut stream = crate::netns::connect(namespace, port.publish.port, limit).await?;
    if let Some(version) = port.service.rules().send_proxy {
        let head = proxy_protocol::write(version, client, port.publish.host);
        stream.write_all(&head).await?;
    }
    Ok(stream)
}
