//! Asking a container's web application from inside its network, which has only a loopback interface.
//!
//! Namespaces are entered by a process of its own: a user namespace is entered by processes of one
//! thread only, and nobody comes back from there.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use linux::namespace::{self, Kind};

/// How long an answer may take; a busy machine is slow, a broken application does not answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The port of the example applications.
const PORT: u16 = 3000;

/// `GET path` in the network namespace of the process `pid`: the answer's body.
pub(crate) fn get(pid: i64, path: &str) -> Result<String> {
    let mut asking = Command::new(std::env::current_exe()?);
    let output = asking.args(["ask", &pid.to_string(), path]).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The other half of [`get`], in the process of its own.
pub(crate) fn run(pid: &str, path: &str) -> Result<()> {
    let namespaces = Path::new("/proc").join(pid).join("ns");
    let network = namespaces.join("net");
    if linux::credentials::effective_user() != 0 {
        // Whoever made a user namespace may do everything in it.
        enter(&namespaces.join("user"), Kind::User)?;
    }
    enter(&network, Kind::Network)?;
    let mut stream = TcpStream::connect(("127.0.0.1", PORT))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    print!("{body}");
    Ok(())
}

fn enter(file: &Path, kind: Kind) -> Result<()> {
    let namespace = namespace::open(file, kind)?;
    namespace::enter(namespace.as_fd(), kind)
        .with_context(|| format!("enter the namespace {}", file.display()))
}
