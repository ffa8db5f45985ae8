//! Who is measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::work::{Operation, Workshop};

/// A runtime, or the C program that does only the syscalls.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) version: String,
    /// Whether it speaks OCI; the floor does not.
    pub(crate) is_runtime: bool,
}

impl Peer {
    /// Whether it can do that at all.
    pub(crate) fn can(&self, operation: Operation) -> bool {
        self.is_runtime || operation == Operation::Run
    }
}

/// The peers that work on this host. One that does not is named with its own error message.
pub(crate) fn find(minirun: &Path, workshop: &Workshop) -> Result<Vec<Peer>> {
    let mut peers = vec![Peer {
        name: "floor (C)",
        program: workshop.floor(),
        version: "only the syscalls, see tests/bench/programs/floor.c".into(),
        is_runtime: false,
    }];
    let candidates = [
        ("minirun", minirun.to_path_buf()),
        ("crun", "crun".into()),
        ("runc", "runc".into()),
        ("youki", "youki".into()),
    ];
    for (name, program) in candidates {
        let Ok(output) = Command::new(&program).arg("--version").output() else {
            println!("{name:<10} not installed");
            continue;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().next().unwrap_or_default().to_owned();
        let peer = Peer { name, program, version, is_runtime: true };
        match workshop.try_out(&peer) {
            Ok(()) => peers.push(peer),
            Err(error) => println!("{name:<10} cannot run here: {error:#}"),
        }
    }
    Ok(peers)
}
