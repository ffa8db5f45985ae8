//! What host and guest say to each other over the virtio-serial port.
//!
//! ```text
//! frame   = kind (1 byte) · length of payload (4 bytes, little endian) · payload
//! host  → guest   Setup · Exec · Stdin · StdinEnd · Resize · Kill
//! guest → host    Ready · Done · Stdout · Stderr · Exit · Refused
//! ```
//! One command runs at a time. Output frames carry raw bytes; requests carry JSON, because they
//! are few and a person reads them when something is wrong.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The name of the virtio-serial port, as the guest sees it in `/sys/class/virtio-ports/*/name`.
pub(crate) const PORT: &str = "minirun.vm";

/// A frame that claims more than this is not ours: the port carries something else.
const MAX_PAYLOAD: u32 = 1 << 20;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Mount shares (JSON [`Setup`]); answered by `Done` or `Refused`.
    Setup = 1,
    /// Start a command (JSON [`Exec`]); answered by output, then `Exit`, or by `Refused`.
    Exec,
    /// Bytes for the command's standard input.
    Stdin,
    /// The end of the command's standard input.
    StdinEnd,
    /// The terminal's new size (JSON [`WindowSize`]).
    Resize,
    /// Kill the running command; its `Exit` follows.
    Kill,
    /// The guest is up (JSON [`Ready`]).
    Ready,
    /// The last request has been carried out.
    Done,
    /// Bytes of standard output.
    Stdout,
    /// Bytes of standard error.
    Stderr,
    /// The command ended (JSON [`Status`]). Everything it wrote came before.
    Exit,
    /// The request cannot be carried out: the reason as text.
    Refused,
}

impl Kind {
    const ALL: [Self; 12] = [
        Self::Setup,
        Self::Exec,
        Self::Stdin,
        Self::StdinEnd,
        Self::Resize,
        Self::Kill,
        Self::Ready,
        Self::Done,
        Self::Stdout,
        Self::Stderr,
        Self::Exit,
        Self::Refused,
    ];
}

/// Directories to be mounted in the guest.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// 9p tag and the absolute path where it is to appear.
    pub(crate) shares: Vec<(String, String)>,
    /// Seconds since the epoch: the guest's clock starts wherever the emulated one stands.
    pub(crate) now: u64,
}

/// A command to be run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Exec {
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Added to the guest's own environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Working directory; created by nobody.
    pub(crate) cwd: String,
    /// Whether `Stdin` frames will come; otherwise standard input is `/dev/null`.
    pub(crate) stdin: bool,
    /// With a size, the command gets a terminal of that size.
    pub(crate) terminal: Option<WindowSize>,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WindowSize {
    /// Height in lines.
    pub(crate) rows: u16,
    /// Width in columns.
    pub(crate) columns: u16,
}

/// The guest's greeting.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// What `uname -r` says in the guest.
    pub(crate) release: String,
    /// Time since the guest's kernel started.
    pub(crate) uptime: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

impl Status {
    /// Whether the command exited with 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }

    /// The code a shell would report: the exit code, or 128 + signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

/// Writes one frame in one `write`, so that frames of several threads do not mix under a lock.
pub(crate) fn send(to: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|length| *length <= MAX_PAYLOAD)
        .ok_or_else(|| invalid(format!("a payload of {} bytes is too long", payload.len())))?;
    let mut frame = Vec::with_capacity(5 + payload.len());
    frame.push(kind as u8);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(payload);
    to.write_all(&frame)?;
    to.flush()
}

/// Writes one frame whose payload is JSON.
pub(crate) fn send_json(to: &mut impl Write, kind: Kind, value: &impl Serialize) -> io::Result<()> {
    send(to, kind, &serde_json::to_vec(value)?)
}

/// Reads the next frame; `None` at the end of the stream, an error in the middle of a frame.
pub(crate) fn receive(from: &mut impl Read) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut kind = [0];
    if from.read(&mut kind)? == 0 {
        return Ok(None);
    }
    let kind = Kind::ALL
        .into_iter()
        .find(|known| *known as u8 == kind[0])
        .ok_or_else(|| invalid(format!("no frame begins with byte {}", kind[0])))?;
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MAX_PAYLOAD {
        return Err(invalid(format!("a {kind:?} frame claims {length} bytes")));
    }
    let mut payload = vec![0; length as usize];
    from.read_exact(&mut payload)?;
    Ok(Some((kind, payload)))
}

/// Reads a JSON payload.
pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8]) -> io::Result<T> {
    Ok(serde_json::from_slice(payload)?)
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for kind in Kind::ALL {
            let mut wire = Vec::new();
            send(&mut wire, kind, b"abc").unwrap();
            send(&mut wire, kind, b"").unwrap();
            let mut wire = wire.as_slice();
            assert_eq!(receive(&mut wire).unwrap(), Some((kind, b"abc".to_vec())));
            assert_eq!(receive(&mut wire).unwrap(), Some((kind, Vec::new())));
            assert_eq!(receive(&mut wire).unwrap(), None);
        }
    }

    #[test]
    fn kinds_have_distinct_bytes() {
        let mut bytes = Kind::ALL.map(|kind| kind as u8).to_vec();
        bytes.dedup();
        assert_eq!(bytes.len(), Kind::ALL.len());
    }

    #[test]
    fn a_torn_frame_is_an_error() {
        let mut wire = Vec::new();
        send(&mut wire, Kind::Stdout, b"hello").unwrap();
        for length in 1..wire.len() {
            assert!(receive(&mut &wire[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert!(receive(&mut b"\x00abcdefgh".as_slice()).is_err());
        assert!(receive(&mut b"Welcome to Debian".as_slice()).is_err());
        assert!(receive(&mut [Kind::Stdout as u8, 0, 0, 0, 255].as_slice()).is_err());
        assert!(send(&mut Vec::new(), Kind::Stdin, &vec![0; (1 << 20) + 1]).is_err());
    }

    #[test]
    fn requests_are_json() {
        let exec = Exec {
            argv: vec!["printf".into(), "a b\n\"c\"".into()],
            env: BTreeMap::from([("K".into(), "ü".into())]),
            cwd: "/".into(),
            stdin: false,
            terminal: Some(WindowSize { rows: 24, columns: 80 }),
        };
        let mut wire = Vec::new();
        send_json(&mut wire, Kind::Exec, &exec).unwrap();
        let (_, payload) = receive(&mut wire.as_slice()).unwrap().unwrap();
        let back: Exec = decode(&payload).unwrap();
        assert_eq!(back.argv, exec.argv);
        assert_eq!(back.env, exec.env);
        assert_eq!(back.terminal, exec.terminal);
    }

    #[test]
    fn codes_are_a_shells() {
        assert_eq!(Status::Exited(3).code(), 3);
        assert_eq!(Status::Signaled(9).code(), 137);
        assert!(!Status::Signaled(9).success());
        assert!(Status::Exited(0).success());
    }
}
