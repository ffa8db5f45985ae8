//! The brain's side of the keeper's line.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use linux::poll::{self, Ready};
use linux::{Pid, fd, pidfd, socket};
use minisup_core::restart::ExitCause;

use super::MESSAGE;
use crate::brain::{Baton, Stage, Upgrade};

/// How long the keeper of another program may take until its brain has everything.
const SETTLE: Duration = Duration::from_secs(10);
const SIGKILL: i32 = 9;
/// The pause before another keeper is started when one could not be.
const START_PAUSE: Duration = Duration::from_secs(1);

/// The line, and what is kept at its other end. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    line: Arc<OwnedFd>,
    /// Our copies of what is kept, to hand to the next keeper.
    kept: Arc<Mutex<BTreeMap<String, Arc<OwnedFd>>>>,
}

/// What the keeper says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// A process of its own, or an orphan, has ended.
    Exited {
        /// The process.
        pid: i32,
        /// How.
        cause: ExitCause,
    },
    /// The keeper is gone.
    Gone,
}

/// What a keeper has for a brain that starts.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// Processes that ended while nobody listened.
    pub(crate) exited: Vec<(i32, ExitCause)>,
    /// The data plane's process; 0 if there is none.
    pub(crate) plane: i32,
}

impl Keeper {
    /// Takes the line over that the keeper gave this process, and asks what there is.
    pub(crate) fn attach(number: i32) -> Result<(Keeper, Inventory)> {
        let line = fd::inherited(number).context("the keeper gave no line")?;
        fd::close_on_exec(line.as_fd())?;
        let keeper = Keeper { line: Arc::new(line), kept: Arc::default() };
        socket::send(&*keeper.line, b"list", &[])?;
        let mut inventory = Inventory::default();
        loop {
            let mut buffer = [0; MESSAGE];
            let message = socket::receive(&*keeper.line, &mut buffer)?;
            if message.length == 0 {
                bail!("the keeper was killed before it had told what there is");
            }
            let text = String::from_utf8_lossy(&buffer[..message.length]).into_owned();
            match text.split_once(' ') {
                Some(("have", name)) => {
                    let fd = message.fds.into_iter().next().map(Arc::new);
                    keeper.copies().extend(fd.map(|fd| (name.to_string(), fd)));
                }
                Some(("end", plane)) => {
                    inventory.plane = plane.parse().unwrap_or(0);
                    return Ok((keeper, inventory));
                }
                _ => {
                    if let Some(Word::Exited { pid, cause }) = word(&text) {
                        inventory.exited.push((pid, cause));
                    }
                }
            }
        }
    }

    fn copies(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<OwnedFd>>> {
        // A poisoned map is still a map: no operation on it can stop halfway.
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The line, to wait for words on.
    pub(crate) fn line(&self) -> Arc<OwnedFd> {
        self.line.clone()
    }

    /// Reads one word; call it when the line is readable.
    pub(crate) fn hear(&self) -> Option<Word> {
        let mut buffer = [0; MESSAGE];
        match socket::receive(&*self.line, &mut buffer) {
            Ok(message) if message.length > 0 => {
                word(&String::from_utf8_lossy(&buffer[..message.length]))
            }
            Ok(_) | Err(_) => Some(Word::Gone),
        }
    }

    /// Has a descriptor kept under a name.
    pub(crate) fn put(&self, name: &str, fd: OwnedFd) -> Arc<OwnedFd> {
        let fd = Arc::new(fd);
        // If the keeper is gone the next one gets it from our copies.
        let _ = socket::send(&*self.line, format!("put {name}").as_bytes(), &[fd.as_fd()]);
        self.copies().insert(name.to_string(), fd.clone());
        fd
    }

    /// A descriptor that is kept.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<OwnedFd>> {
        self.copies().get(name).cloned()
    }

    /// The names of what is kept that begin with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Vec<String> {
        self.copies().keys().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// Lets a descriptor go.
    pub(crate) fn release(&self, name: &str) {
        if self.copies().remove(name).is_some() {
            let _ = socket::send(&*self.line, format!("drop {name}").as_bytes(), &[]);
        }
    }

    /// The exit status of a process has been understood.
    pub(crate) fn forget(&self, pid: i32) {
        let _ = socket::send(&*self.line, format!("forget {pid}").as_bytes(), &[]);
    }

    /// Nothing is left to keep.
    pub(crate) fn bye(&self) {
        let _ = socket::send(&*self.line, b"bye", &[]);
    }

    /// The keeper has died: hands everything over to another, and returns when the brain that
    /// this one starts has all of it. Whichever of the two is killed before, there is one more.
    pub(crate) fn hand_over(
        &self,
        project: &str,
        plane: Option<i32>,
        baton: &mut Baton,
    ) -> Result<()> {
        loop {
            baton.give_up()?;
            match self.start_another(project, plane) {
                // It lets our line go when its brain has everything; or it has been killed.
                Ok(line) => drop(poll::wait_readable(&line, None)),
                Err(error) => {
                    eprintln!("minisup brain: {error:#}");
                    std::thread::sleep(START_PAUSE);
                }
            }
            if !baton.comes_back_before(Stage::Settled)? {
                return Ok(());
            }
        }
    }

    /// Has the keeper become another program, and returns when the brain that it starts has
    /// everything. If the keeper ends on the way, or no brain of it comes up, one of this program
    /// follows it, as in [`hand_over`].
    ///
    /// [`hand_over`]: Keeper::hand_over
    pub(crate) fn replace(
        &self,
        project: &str,
        upgrade: &Upgrade,
        baton: &mut Baton,
    ) -> Result<()> {
        let word: &[u8] = match upgrade.plane {
            Some(_) => b"become",
            None => b"become and renew the plane",
        };
        let keeper = self.process()?;
        // It may have ended.
        let end = || keeper.as_ref().map(|keeper| pidfd::signal(keeper, SIGKILL));
        baton.give_up()?;
        let _ = socket::send(&*self.line, word, &[upgrade.program.as_fd()]);
        // The line is the keeper's until its brain has everything; who is gone lets go as well.
        let mut limit = Some(SETTLE);
        loop {
            if !poll::wait_readable(&*self.line, limit)? {
                limit = None;
                end(); // it has no brain
            } else if self.hear() == Some(Word::Gone) {
                break;
            }
        }
        if baton.comes_back_before(Stage::AtWork)? {
            eprintln!("minisup brain: the new program does not come up; this one goes on");
            end(); // with a brain that cannot live
            return self.hand_over(project, upgrade.plane, baton);
        }
        Ok(())
    }

    /// The keeper's process, as long as it lives.
    fn process(&self) -> Result<Option<OwnedFd>> {
        let parent = std::os::unix::process::parent_id().cast_signed();
        let parent = pidfd::open(Pid::from_raw(parent));
        // Only then: our parent was the keeper if the keeper still is there.
        let ready = poll::wait(&[(self.line.as_fd(), Ready::default())], Some(Duration::ZERO))?;
        let is_gone = ready.iter().any(|ready| ready.hung_up);
        Ok(parent.ok().filter(|_| !is_gone))
    }

    /// Starts a keeper and gives it everything; our end of the line to it.
    fn start_another(&self, project: &str, plane: Option<i32>) -> Result<OwnedFd> {
        let (ours, theirs) = socket::pair()?;
        fd::keep_on_exec(theirs.as_fd())?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("minisup").args([
            "keeper",
            project,
            "--heritage-fd",
            &theirs.as_raw_fd().to_string(),
        ]);
        if let Some(plane) = plane {
            command.args(["--plane-pid", &plane.to_string()]);
        }
        command.stdin(Stdio::null()).spawn().context("cannot start another keeper")?;
        drop(theirs);
        for (name, fd) in self.copies().iter() {
            socket::send(&ours, format!("put {name}").as_bytes(), &[fd.as_fd()])?;
        }
        socket::send(&ours, b"over", &[])?;
        Ok(ours)
    }
}

fn word(text: &str) -> Option<Word> {
    let mut parts = text.split(' ');
    if parts.next() != Some("exited") {
        return None;
    }
    let pid = parts.next()?.parse().ok()?;
    let kind = parts.next()?;
    let number = parts.next()?.parse().ok()?;
    let cause = match kind {
        "code" => ExitCause::Code(number),
        _ => ExitCause::Signal(number),
    };
    Some(Word::Exited { pid, cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_understood() {
        let code = Word::Exited { pid: 7, cause: ExitCause::Code(3) };
        assert_eq!(word("exited 7 code 3"), Some(code));
        let signal = Word::Exited { pid: 7, cause: ExitCause::Signal(9) };
        assert_eq!(word("exited 7 signal 9"), Some(signal));
        assert_eq!(word("have x"), None);
    }
}
