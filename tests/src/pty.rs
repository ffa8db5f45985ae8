//! A pseudo-terminal, as a terminal emulator has it: the tests type on it and read what it shows.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// The side of the emulator, and where the other side is.
pub(crate) struct Pty {
    master: File,
    shown: String,
}

impl Pty {
    /// A new one of that size, and the side that programs get.
    pub(crate) fn open(rows: u16, columns: u16) -> (Self, File) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        unlockpt(&master).expect("unlock it");
        let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("UTF-8");
        let slave = File::options().read(true).write(true).open(name).expect("open it");
        let pty = Self::of(master);
        pty.resize(rows, columns);
        (pty, slave)
    }

    /// Around a master that somebody else has made.
    pub(crate) fn of(master: OwnedFd) -> Self {
        Self { master: File::from(master), shown: String::new() }
    }

    /// Changes its size, as a window does.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("set its size");
    }

    /// Types.
    pub(crate) fn write(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("type");
    }

    /// Reads until it has shown `text` since the last call, and gives all that it has shown since.
    #[track_caller]
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
            let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
            let count = poll(&mut ready, Some(&patience)).expect("wait");
            assert_eq!(count, 1, "{text:?} never came after {:?}", self.shown);
            let mut buffer = [0; 4096];
            let length = self.master.read(&mut buffer).unwrap_or(0);
            assert_ne!(length, 0, "it was closed before {text:?} came, after {:?}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }
}
