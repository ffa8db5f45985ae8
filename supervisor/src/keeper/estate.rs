//! What a keeper leaves to the program that it becomes.
//!
//! execve(2) keeps the process: its number, its children (the containers and the data plane), its
//! place as their subreaper, the signals that are blocked and those that wait, and every
//! descriptor that is not marked to be closed. What the old program knew besides is written into a
//! file without a name, whose descriptor the new one is given.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, Result};
use linux::clone::{Strings, execute_fd};
use linux::pidfd::Exit;
use linux::{Pid, fd, pidfd};
use serde::{Deserialize, Serialize};

use super::Keeper;
use crate::layout::Layout;

/// The numbers of descriptors and processes.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Estate {
    /// The file whose lock makes this process the project's only keeper.
    lock: i32,
    /// The line to the brain that waits until ours has everything.
    heritage: Option<i32>,
    kept: BTreeMap<String, i32>,
    /// Processes that ended while nobody listened: the status, and whether that is a signal.
    ended: Vec<(i32, i32, bool)>,
    plane: Option<i32>,
    #[serde(default)]
    retired: Vec<i32>,
}

/// What has been taken over.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) lock: File,
    pub(super) heritage: Option<OwnedFd>,
    pub(super) kept: BTreeMap<String, OwnedFd>,
    pub(super) ended: VecDeque<(Pid, Exit)>,
    pub(super) plane: Option<(i32, OwnedFd)>,
    pub(super) retired: Vec<(i32, OwnedFd)>,
}

impl Inherited {
    /// What a keeper has that begins.
    pub(super) fn nothing(lock: File) -> Inherited {
        Inherited {
            lock,
            heritage: None,
            kept: BTreeMap::new(),
            ended: VecDeque::new(),
            plane: None,
            retired: Vec::new(),
        }
    }
}

/// Takes over what the old program has left at that descriptor.
pub(super) fn take(number: i32) -> Result<Inherited> {
    let mut file = File::from(fd::inherited(number)?);
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).context("read the estate")?;
    let estate: Estate = serde_json::from_str(&text).context("the estate cannot be understood")?;
    let ours = |number: i32| {
        let fd = fd::inherited(number)?;
        fd::close_on_exec(fd.as_fd())?;
        anyhow::Ok(fd)
    };
    let process = |pid: i32| Some((pid, pidfd::open(Pid::from_raw(pid)).ok()?));
    let kept = estate.kept.into_iter().map(|(name, number)| Ok((name, ours(number)?)));
    let ended = estate.ended.into_iter().map(|(pid, status, is_signal)| {
        let exit = if is_signal { Exit::Signal(status) } else { Exit::Code(status) };
        (Pid::from_raw(pid), exit)
    });
    Ok(Inherited {
        lock: ours(estate.lock)?.into(),
        heritage: estate.heritage.map(ours).transpose()?,
        kept: kept.collect::<Result<_>>()?,
        ended: ended.collect(),
        plane: estate.plane.and_then(process),
        retired: estate.retired.into_iter().filter_map(process).collect(),
    })
}

impl Keeper {
    /// Becomes another program. Returns only if that failed; then nothing has changed.
    pub(super) fn become_program(&self, program: BorrowedFd<'_>) -> anyhow::Error {
        let failed = self.try_to_become(program);
        for fd in self.lasting() {
            // What fails here is another program's problem at most: our children get one more.
            let _ = fd::close_on_exec(fd);
        }
        match failed {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    fn try_to_become(&self, program: BorrowedFd<'_>) -> Result<std::convert::Infallible> {
        let file = self.bequeath()?;
        for fd in self.lasting().chain([file.as_fd()]) {
            fd::keep_on_exec(fd)?;
        }
        let number = file.as_raw_fd().to_string();
        let words = ["minisup", "keeper", &self.project, "--estate-fd", &number];
        let variables = std::env::vars_os()
            .map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
        let (words, variables) = (Strings::new(words), Strings::new(variables));
        let (Some(words), Some(variables)) = (words, variables) else {
            anyhow::bail!("a word with a zero byte in it");
        };
        // Not by `Command`, which would let signals through that wait for the new program.
        Err(execute_fd(program, &words, &variables).into())
    }

    /// The descriptors that the new program gets.
    fn lasting(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let own = [Some(self.lock.as_fd()), self.heritage.as_ref().map(AsFd::as_fd)];
        own.into_iter().flatten().chain(self.kept.values().map(AsFd::as_fd))
    }

    fn bequeath(&self) -> Result<File> {
        let estate = Estate {
            lock: self.lock.as_raw_fd(),
            heritage: self.heritage.as_ref().map(AsRawFd::as_raw_fd),
            kept: self.kept.iter().map(|(name, fd)| (name.clone(), fd.as_raw_fd())).collect(),
            ended: self.ended.iter().map(|(pid, exit)| of_exit(*pid, *exit)).collect(),
            plane: Some(self.plane.pid()).filter(|pid| *pid != 0),
            retired: self.retired.iter().map(|(pid, _)| *pid).collect(),
        };
        let path = Layout::of(&self.project)?.run().join("estate");
        let mut options = File::options();
        let mut file = options
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .context("make the estate")?;
        std::fs::remove_file(&path).context("take the estate's name away")?;
        file.write_all(&serde_json::to_vec(&estate)?).context("write the estate")?;
        Ok(file)
    }
}

fn of_exit(pid: Pid, exit: Exit) -> (i32, i32, bool) {
    match exit {
        Exit::Code(code) => (pid.as_raw(), code, false),
        Exit::Signal(signal) => (pid.as_raw(), signal, true),
    }
}
