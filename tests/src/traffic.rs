//! Clients of a published port that never pause and forgive nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// An answer takes at most so long, also from an emulated guest.
const PATIENCE: Duration = Duration::from_secs(60);

/// Clients under way. The first failure ends the one that saw it.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Traffic {
    /// Starts `count` clients, each with one connection.
    pub(crate) fn begin(port: u16, count: usize) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let clients = (0..count).map(|_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut client = Client::connect(port)?;
                while !stop.load(Ordering::Relaxed) {
                    client.get("/")?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        Self { clients: clients.collect(), stop, answered }
    }

    /// Answers so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends; every request must have been answered.
    #[track_caller]
    pub(crate) fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            assert_eq!(client.join().expect("a client does not panic"), Ok(()));
        }
        self.answered.load(Ordering::Relaxed)
    }
}

/// A client with one connection at a time.
pub(crate) struct Client {
    port: u16,
    connection: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    pub(crate) fn connect(port: u16) -> Result<Self, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(in_words)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(in_words)?;
        Ok(Self { port, connection: BufReader::new(stream) })
    }

    /// Asks, and gives the body of an answer with status 200.
    pub(crate) fn get(&mut self, path: &str) -> Result<String, String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        self.connection.get_mut().write_all(request.as_bytes()).map_err(in_words)?;
        let (mut status, mut length, mut is_last) = (String::new(), 0, false);
        self.connection.read_line(&mut status).map_err(in_words)?;
        loop {
            let mut line = String::new();
            if self.connection.read_line(&mut line).map_err(in_words)? == 0 {
                return Err(format!("broke off after {status:?}"));
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(number) = line.strip_prefix("content-length:") {
                length = number.trim().parse().map_err(|_| line.clone())?;
            }
            is_last |= line == "connection: close";
        }
        let mut body = vec![0; length];
        self.connection.read_exact(&mut body).map_err(in_words)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        if is_last {
            *self = Self::connect(self.port)?;
        }
        match status.starts_with("HTTP/1.1 200") {
            true => Ok(body),
            false => Err(format!("{status} {body}")),
        }
    }
}

fn in_words(error: std::io::Error) -> String {
    error.to_string()
}
