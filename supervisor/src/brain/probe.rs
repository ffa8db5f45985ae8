//! One probe of one instance, from within its namespaces.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use linux::OFlag;
use linux::fd::read_kernel_record;
use linux::path::Root;
use minisup_core::input::Outcome;
use minisup_core::time::Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::container::Running;
use super::exec::{self, Ended};
use super::grpc;
use super::runtime::Runtime;
use crate::model::Probe;
use crate::netns;
use crate::settings::Hook;

/// What is kept of a failing command's output.
const OUTPUT: usize = 200;

/// How long an answer may take before one looks why it does not come.
const PROMPT: Duration = Duration::from_millis(50);

/// Makes the probe; takes at most `timeout`.
///
/// A container whose first process is stopped (SIGSTOP) fails at once: the kernel goes on accepting
/// connections in its name, so that a mere connection would never notice, and a command is a
/// process of its own. Who answers a request is not stopped: it is looked at only when the answer
/// does not come.
pub(crate) async fn run(
    probe: &Probe,
    running: Option<Running>,
    runtime: &Runtime,
    container: &str,
    timeout: Span,
) -> Outcome {
    let Some(running) = running else {
        return Outcome::Impossible("its process is unknown".to_string());
    };
    let answers = matches!(probe, Probe::Http { .. } | Probe::Grpc { .. });
    if !answers && is_stopped(running.pid) {
        return stopped();
    }
    // Paused by people, which is no fault of its own. A command would be frozen as it enters; of
    // the others most pass, so they are not asked about it before.
    if matches!(probe, Probe::Exec(_)) && is_frozen(running.pid) {
        return Outcome::Impossible("it is paused".to_string());
    }
    let asked = ask(probe, &running, runtime, container, timeout);
    let outcome = match answers {
        true => unless_stopped(asked, running.pid).await,
        false => asked.await,
    };
    match outcome {
        Outcome::Fail(_) if is_frozen(running.pid) => {
            Outcome::Impossible("it is paused".to_string())
        }
        outcome => outcome,
    }
}

/// What comes of it, unless it takes its time and the process is stopped.
async fn unless_stopped(asked: impl Future<Output = Outcome>, pid: i32) -> Outcome {
    let mut asked = std::pin::pin!(asked);
    match tokio::time::timeout(PROMPT, &mut asked).await {
        Ok(outcome) => outcome,
        Err(_) if is_stopped(pid) => stopped(),
        Err(_) => asked.await,
    }
}

fn stopped() -> Outcome {
    Outcome::Fail("its first process is stopped by a signal".to_string())
}

/// Asks the container, whatever state it is in.
async fn ask(
    probe: &Probe,
    running: &Running,
    runtime: &Runtime,
    container: &str,
    timeout: Span,
) -> Outcome {
    let limit = Duration::from_millis(timeout.ms());
    let asked = async {
        match probe {
            Probe::Exec(command) => exec(runtime, container, command, limit).await,
            Probe::Tcp { port } => {
                match netns::connect(running.namespace.as_fd(), *port, limit).await {
                    Ok(_) => Outcome::Pass,
                    Err(error) => Outcome::Fail(format!("port {port}: {error}")),
                }
            }
            Probe::Grpc { port, service } => {
                match netns::connect(running.namespace.as_fd(), *port, limit).await {
                    Err(error) => Outcome::Fail(format!("port {port}: {error}")),
                    Ok(stream) => match grpc::check(TokioIo::new(stream), *port, service).await {
                        Ok(()) => Outcome::Pass,
                        Err(why) => Outcome::Fail(format!("gRPC at port {port}: {why}")),
                    },
                }
            }
            Probe::Unix { path } => match unix(running.pid, path).await {
                Ok(()) => Outcome::Pass,
                Err(error) => Outcome::Fail(format!("{path}: {error}")),
            },
            Probe::Http { port, path, host } => {
                let usual = format!("localhost:{port}");
                let host = host.as_deref().unwrap_or(&usual);
                match http(&running.namespace, *port, path, host, limit).await {
                    Ok(200..=399) => Outcome::Pass,
                    Ok(status) => Outcome::Fail(format!("GET {path}: status {status}")),
                    Err(error) => Outcome::Fail(format!("GET {path}: {error}")),
                }
            }
        }
    };
    if matches!(probe, Probe::Exec(_)) {
        return asked.await; // it keeps the limit itself, because it has to tidy up
    }
    let answer = tokio::time::timeout(limit, asked).await;
    answer.unwrap_or_else(|_| Outcome::Fail(format!("no answer within {timeout}")))
}

async fn exec(runtime: &Runtime, container: &str, command: &[String], limit: Duration) -> Outcome {
    let call = Hook { command: command.to_vec(), ..Hook::default() };
    match exec::run(runtime, container, &call, limit).await {
        Ok(Ended::Overdue) => {
            Outcome::Fail(format!("no end within {limit:?}; killed with all that it started"))
        }
        Ok(Ended::Status(0, _)) => Outcome::Pass,
        Ok(Ended::Status(status, text)) => {
            let text: String = text.trim().chars().take(OUTPUT).collect();
            Outcome::Fail(format!("status {status}: {text}"))
        }
        Err(error) => Outcome::Impossible(format!("{error:#}")),
    }
}

/// Asks once and reads the status line. Written out by hand, because a probe needs no more.
async fn http(
    namespace: &OwnedFd,
    port: u16,
    path: &str,
    host: &str,
    limit: Duration,
) -> std::io::Result<u16> {
    let mut stream = netns::connect(namespace.as_fd(), port, limit).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: minisup-probe\r\n\
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

/// Connects to a socket in the container's file system. No link of the container leads out of it.
async fn unix(pid: i32, path: &str) -> std::io::Result<()> {
    let root =
        Root::open(Path::new(&format!("/proc/{pid}/root"))).map_err(std::io::Error::other)?;
    let socket = root.in_root(Path::new(path), OFlag::O_PATH).map_err(std::io::Error::other)?;
    UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await.map(drop)
}

/// Whether the process is stopped, by a signal or a debugger: the state in `/proc/PID/stat`.
fn is_stopped(pid: i32) -> bool {
    let stat = read_kernel_record(Path::new(&format!("/proc/{pid}/stat"))).unwrap_or_default();
    matches!(state(&stat), Some('T' | 't'))
}

/// Whether the container is paused: frozen by its cgroup, which only people do. That is no fault of
/// its own, so a probe of it counts nothing.
fn is_frozen(pid: i32) -> bool {
    let groups = Path::new("/proc").join(pid.to_string()).join("cgroup");
    let groups = read_kernel_record(&groups).unwrap_or_default();
    let state = |file: PathBuf| read_kernel_record(&file).unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    groups.lines().any(|line| match freezer(line) {
        Some((true, path)) => {
            let state = state(root.join("freezer").join(path).join("freezer.state"));
            ["FROZEN", "FREEZING"].contains(&state.trim())
        }
        // On hybrid hosts the unified tree is beside the others.
        Some((false, path)) => [root, &root.join("unified")]
            .iter()
            .any(|root| state(root.join(path).join("cgroup.freeze")).trim() == "1"),
        None => false,
    })
}

/// The path of the group that can freeze, of a line of `/proc/PID/cgroup`, and whether it is of v1.
fn freezer(line: &str) -> Option<(bool, &str)> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let path = path.trim_start_matches('/');
    match controllers {
        "" => Some((false, path)),
        "freezer" => Some((true, path)),
        _ => None,
    }
}

/// The state letter of a stat line. The name before it is in brackets, and may hold anything.
fn state(stat: &str) -> Option<char> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.trim_start().chars().next()
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
    use super::{freezer, state, status};

    #[test]
    fn the_group_that_freezes_is_found() {
        assert_eq!(freezer("0::/minisup/web"), Some((false, "minisup/web")));
        assert_eq!(freezer("7:freezer:/minisup/web"), Some((true, "minisup/web")));
        assert_eq!(freezer("4:memory:/m"), None);
    }

    #[test]
    fn the_state_is_found_behind_any_name() {
        assert_eq!(state("7 (srv) T 1 7"), Some('T'));
        assert_eq!(state("7 (a) S (b)) R 1 7"), Some('R'));
        assert_eq!(state(""), None);
    }

    #[test]
    fn status_lines_are_read() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\nA: b\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(503));
        assert_eq!(status(b"SSH-2.0-OpenSSH\r\n"), None);
        assert_eq!(status(b""), None);
    }
}
