//! A place where something is taken: an address, and TCP or UDP, which do not disturb each other.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use linux::inet::{self, Transport};
use serde::{Deserialize, Serialize};

/// An address and its transport; in words `0.0.0.0:8080` or `0.0.0.0:53/udp`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Door {
    pub(crate) at: SocketAddr,
    pub(crate) transport: Transport,
}

impl Door {
    /// Opens it, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Somebody else has it, or the address is not the host's.
    pub(crate) fn open(self) -> linux::Result<OwnedFd> {
        inet::listen_at(self.transport, self.at)
    }

    /// Opens it beside a data plane that is about to go, in the network namespace of the calling
    /// thread.
    pub(crate) fn open_beside(self) -> linux::Result<OwnedFd> {
        inet::listen_beside(self.transport, self.at)
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            Transport::Tcp => write!(f, "{}", self.at),
            Transport::Udp => write!(f, "{}/udp", self.at),
        }
    }
}

impl FromStr for Door {
    type Err = String;

    fn from_str(text: &str) -> Result<Door, String> {
        let (at, transport) = match text.strip_suffix("/udp") {
            Some(at) => (at, Transport::Udp),
            None => (text, Transport::Tcp),
        };
        let at = at.parse().map_err(|error| format!("{text:?}: {error}"))?;
        Ok(Door { at, transport })
    }
}

impl From<Door> for String {
    fn from(door: Door) -> String {
        door.to_string()
    }
}

impl TryFrom<String> for Door {
    type Error = String;

    fn try_from(text: String) -> Result<Door, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_doors_are_the_same() {
        for text in ["0.0.0.0:8080", "[::1]:53/udp"] {
            assert_eq!(text.parse::<Door>().map(|door| door.to_string()), Ok(text.to_string()));
        }
        assert!("53/udp".parse::<Door>().is_err());
        let tcp: Door = "127.0.0.1:53".parse().unwrap();
        assert_ne!(Ok(tcp), "127.0.0.1:53/udp".parse());
    }
}
