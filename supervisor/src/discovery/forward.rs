//! Questions about the rest of the world: passed on to whom the host asks, byte by byte.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer.
const LONGEST: usize = 65_535;

/// The servers that the host asks, at most three as in resolv.conf(5).
pub(super) fn servers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let addresses = lines.filter_map(|rest| rest.trim().parse::<IpAddr>().ok());
    addresses.take(3).map(|ip| SocketAddr::new(ip, 53)).collect()
}

fn of_host() -> Vec<SocketAddr> {
    servers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

/// The answer of the first server that gives one: of those given, or else of the host's.
pub(super) async fn ask(question: &[u8], by_tcp: bool, given: &[IpAddr]) -> Option<Vec<u8>> {
    let given: Vec<SocketAddr> = given.iter().map(|ip| SocketAddr::new(*ip, 53)).collect();
    for server in if given.is_empty() { of_host() } else { given } {
        let asked = async {
            if by_tcp {
                by_stream(server, question).await
            } else {
                by_datagram(server, question).await
            }
        };
        if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, asked).await {
            return Some(answer);
        }
    }
    None
}

async fn by_datagram(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    // A socket of its own for each question: a fresh port, and answers only from that server.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut answer).await?;
        if length >= 2 && answer[..2] == question[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn by_stream(server: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_resolv_conf_says() {
        let text = "# nameserver 9.9.9.9\nsearch x\nnameserver 192.0.2.1\n nameserver\t::1\n\
                    nameserver nonsense\nnameserver 1.1.1.1\nnameserver 8.8.8.8\n";
        let expected = ["192.0.2.1:53", "[::1]:53", "1.1.1.1:53"];
        assert_eq!(servers(text), expected.map(|server| server.parse().unwrap()));
    }
}
