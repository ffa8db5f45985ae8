//! One probe of one instance, from within its namespaces.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use minisup_core::input::Outcome;
use minisup_core::time::Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::runtime::Runtime;
use crate::model::Probe;
use crate::netns;

/// What is kept of a failing command's output.
const OUTPUT: usize = 200;

/// Makes the probe; takes at most `timeout`.
pub(crate) async fn run(
    probe: &Probe,
    namespace: Option<Arc<OwnedFd>>,
    runtime: &Runtime,
    container: &str,
    timeout: Span,
) -> Outcome {
    let limit = Duration::from_millis(timeout.ms());
    let asked = async {
        match (probe, namespace) {
            (Probe::Exec(command), _) => exec(runtime, container, command).await,
            (Probe::Tcp { port }, Some(namespace)) => {
                match netns::connect(namespace.as_fd(), *port, limit).await {
                    Ok(_) => Outcome::Pass,
                    Err(error) => Outcome::Fail(format!("port {port}: {error}")),
                }
            }
            (Probe::Http { port, path }, Some(namespace)) => {
                match http(&namespace, *port, path, limit).await {
                    Ok(200..=399) => Outcome::Pass,
                    Ok(status) => Outcome::Fail(format!("GET {path}: status {status}")),
                    Err(error) => Outcome::Fail(format!("GET {path}: {error}")),
                }
            }
            (_, None) => Outcome::Impossible("its network namespace is unknown".to_string()),
        }
    };
    let answer = tokio::time::timeout(limit, asked).await;
    answer.unwrap_or_else(|_| Outcome::Fail(format!("no answer within {timeout}")))
}

async fn exec(runtime: &Runtime, container: &str, command: &[String]) -> Outcome {
    match runtime.exec(container, command).await {
        Ok((0, _)) => Outcome::Pass,
        Ok((status, text)) => {
            let text: String = text.trim().chars().take(OUTPUT).collect();
            Outcome::Fail(format!("status {status}: {text}"))
        }
        Err(error) => Outcome::Impossible(format!("{error:#}")),
    }
}

/// Asks once and reads the status line. Written out by hand, because a probe needs no more.
async fn http(namespace: &OwnedFd, port: u16, path: &str, limit: Duration) -> std::io::Result<u16> {
    let mut stream = netns::connect(namespace.as_fd(), port, limit).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: minisup-probe\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut line = Vec::new();
    let mut chunk = [0; 256];
    while !line.contains(&b'\n') && line.len() < 4096 {
        match stream.read(&mut chunk).await? {
            0 => break,
            count => line.extend_from_slice(&chunk[..count]),
        }
    }
    status(&line).ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer.split(|byte| *byte == b'\r').next()?).ok()?;
    let mut words = line.split(' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn status_lines_are_read() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\nA: b\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(503));
        assert_eq!(status(b"SSH-2.0-OpenSSH\r\n"), None);
        assert_eq!(status(b""), None);
    }
}
