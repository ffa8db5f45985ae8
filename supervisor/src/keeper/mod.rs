//! The keeper: the process that must not die, and therefore does almost nothing.
//!
//! ```text
//!    keeper ──┬── brain          decides; may crash, is started again
//!             ├── data plane     carries requests; may crash, is started again
//!             ├── web.1.1        containers: their creator (minirun) has exited, and the kernel
//!             └── web.2.1        gives orphans to the nearest subreaper (prctl(2))
//! ```
//!
//! It keeps three things that would die with the brain: descriptors (log pipes, listening
//! sockets), under names that mean nothing to it; the exit statuses of containers; and the other
//! two processes themselves. It reads no configuration and knows nothing about services. One
//! loop, one poll, no threads.
//!
//! When the keeper itself is killed, the brain notices at once, starts another one, hands it
//! everything it holds, and exits when the brain of the new one has all of it, so that the tree is
//! right again ([`client`]). The containers and the data plane notice nothing. And when another
//! version is to keep the project, the keeper becomes that program and goes on ([`estate`]).

pub(crate) mod client;
mod estate;
mod line;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use estate::Inherited;
use linux::pidfd::Exit;
use linux::poll::{self, Ready};
use linux::signal::Signals;
use linux::{Pid, child, fd, pidfd, prctl, socket};

use line::{Heard, Line, Word};

use crate::layout::{Layout, is_at};

/// Exit statuses kept until somebody asks; the oldest are forgotten.
const STATUSES: usize = 4096;
/// The longest message, in bytes.
pub(crate) const MESSAGE: usize = 4096;
/// The least time between two starts of the same process.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// How long a predecessor may take to end.
const PREDECESSOR: Duration = Duration::from_secs(1);
/// The time between two looks whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// A process that the keeper starts again when it ends.
struct Ward {
    role: &'static str,
    /// It runs and is our child.
    child: Option<Child>,
    /// It runs and was there before us.
    inherited: Option<(i32, OwnedFd)>,
    started: Option<Instant>,
}

struct Keeper {
    project: String,
    /// Held: there is no other.
    lock: File,
    signals: Signals,
    brain: Ward,
    plane: Ward,
    /// Data planes that finish what they have begun, while another one takes what comes.
    retired: Vec<(i32, OwnedFd)>,
    /// Our end of the brain's line.
    line: Option<Line>,
    /// The line to a brain that handed over to us, until our own brain has everything.
    heritage: Option<OwnedFd>,
    /// Our own brain has asked what there is.
    listed: bool,
    kept: BTreeMap<String, OwnedFd>,
    ended: VecDeque<(Pid, Exit)>,
    leaving: bool,
}

/// Runs the keeper of `project` until the brain says goodbye.
///
/// `heritage` is the line to a brain whose keeper has died and that hands over what it holds;
/// `plane` is the data plane that is already there. `estate` is what this process had when it was
/// another program.
pub(crate) fn run(
    project: &str,
    heritage: Option<i32>,
    plane: Option<i32>,
    estate: Option<i32>,
) -> Result<()> {
    prctl::set_name(c"minisup-keeper")?;
    linux::rlimit::raise_open_files()?;
    prctl::set_child_subreaper(true)?;
    let signals = Signals::capture()?;
    let inherited = match estate {
        Some(number) => estate::take(number)?,
        None => {
            let Some(lock) = only_one(project)? else {
                bail!("another keeper of this project is at work");
            };
            let open = |pid: i32| Some((pid, pidfd::open(Pid::from_raw(pid)).ok()?));
            Inherited { plane: plane.and_then(open), ..Inherited::nothing(lock) }
        }
    };
    let mut keeper = Keeper::new(project, signals, inherited);
    if let Some(number) = heritage {
        let line = fd::inherited(number)?;
        // Its end tells the old brain that ours has everything, so nobody else may hold it.
        fd::close_on_exec(line.as_fd())?;
        keeper.inherit(line)?;
    }
    keeper.serve()
}

/// The lock of the project's only keeper; `None` if another one stays. With two of them, the brain
/// of the second would begin anew when that of the first has ended everything.
fn only_one(project: &str) -> Result<Option<File>> {
    let path = Layout::of(project)?.keeper();
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) if is_at(&file, &path) => return Ok(Some(file)),
            Ok(()) => bail!("the project has gone"),
            // One that is being killed lets go of its files one by one.
            Err(TryLockError::WouldBlock) if since.elapsed() < PREDECESSOR => {
                std::thread::sleep(LOOK);
            }
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).context("lock keeper.lock"),
        }
    }
}

impl Keeper {
    fn new(project: &str, signals: Signals, inherited: Inherited) -> Keeper {
        let ward = |role| Ward { role, child: None, inherited: None, started: None };
        Keeper {
            project: project.to_string(),
            lock: inherited.lock,
            signals,
            brain: ward("brain"),
            plane: Ward { inherited: inherited.plane, ..ward("plane") },
            retired: inherited.retired,
            line: None,
            heritage: inherited.heritage,
            listed: false,
            kept: inherited.kept,
            ended: inherited.ended,
            leaving: false,
        }
    }

    /// Takes everything from a brain whose keeper has died. It waits at the other end of the line
    /// until our own brain has everything.
    fn inherit(&mut self, line: OwnedFd) -> Result<()> {
        loop {
            let mut buffer = [0; MESSAGE];
            let message = socket::receive(&line, &mut buffer)?;
            let text = String::from_utf8_lossy(&buffer[..message.length]).into_owned();
            if message.length == 0 || text == "over" {
                self.heritage = Some(line);
                return Ok(());
            }
            self.take(&text, message.fds);
        }
    }

    fn serve(&mut self) -> Result<()> {
        // What another program was told by a signal, and had no time for.
        self.reap()?;
        while !self.leaving {
            let pause = self.start_what_is_missing();
            let want = Ready { readable: true, ..Ready::default() };
            let mut fds: Vec<(BorrowedFd<'_>, Ready)> = vec![(self.signals.as_fd(), want)];
            fds.extend(self.line.as_ref().map(Line::interest));
            fds.extend(self.plane.inherited.as_ref().map(|(_, plane)| (plane.as_fd(), want)));
            let ready = poll::wait(&fds, pause)?;
            let line_ready = self.line.is_some() && ready.get(1).is_some_and(is_ready);
            let plane_ended = self.plane.inherited.is_some() && ready.last().is_some_and(is_ready);
            // What the brain has said comes before its end: the last word may be goodbye.
            if line_ready {
                self.listen();
            }
            while let Some(signal) = self.signals.next()? {
                self.signalled(signal);
                self.listen();
            }
            self.reap()?;
            if plane_ended {
                self.plane.inherited = None;
            }
            if let Some(line) = &mut self.line {
                line.flush(&self.kept);
                if self.listed && line.is_quiet() {
                    self.heritage = None;
                }
            }
        }
        self.end_plane();
        Ok(())
    }

    /// Starts brain and data plane if they do not run; the answer is how long to wait before the
    /// next try, if one has to wait.
    fn start_what_is_missing(&mut self) -> Option<Duration> {
        let mut pause = None;
        for is_brain in [true, false] {
            let ward = if is_brain { &self.brain } else { &self.plane };
            if ward.child.is_some() || ward.inherited.is_some() {
                continue;
            }
            let rested = ward.started.map_or(RESTART_PAUSE, |started| started.elapsed());
            if rested < RESTART_PAUSE {
                pause = Some(RESTART_PAUSE - rested);
                continue;
            }
            let started = match is_brain {
                true => self.start_brain(),
                false => self.plane.start(&self.project, &[]),
            };
            // No room for another process, say: that passes, and everything hangs on this one.
            if let Err(error) = started {
                eprintln!("minisup keeper: {error:#}");
                pause = Some(RESTART_PAUSE);
            }
        }
        pause
    }

    fn start_brain(&mut self) -> Result<()> {
        let (ours, theirs) = socket::pair()?;
        fd::keep_on_exec(theirs.as_fd())?;
        let number = theirs.as_raw_fd().to_string();
        let line = Line::new(ours)?;
        self.brain.start(&self.project, &["--keeper-fd", &number])?;
        self.line = Some(line);
        self.listed = false;
        Ok(())
    }

    fn signalled(&mut self, signal: i32) {
        const SIGTERM: i32 = 15;
        const SIGINT: i32 = 2;
        // Asked to go (a service manager stops us): the brain is told, and containers stay. It
        // decides nothing here; `down` is a command of its own.
        if signal == SIGTERM || signal == SIGINT {
            for child in [&mut self.brain.child, &mut self.plane.child].into_iter().flatten() {
                let _ = child.kill();
            }
            self.leaving = true;
        }
    }

    /// Notes the end of every child, and tells the brain.
    fn reap(&mut self) -> Result<()> {
        while let Some((pid, exit)) = child::reap_any()? {
            let mut ours = false;
            for ward in [&mut self.brain, &mut self.plane] {
                if ward.child.as_ref().is_some_and(|child| child.id().cast_signed() == pid.as_raw())
                {
                    ward.child = None;
                    ours = true;
                }
            }
            let retired = self.retired.len();
            self.retired.retain(|(known, _)| *known != pid.as_raw());
            if ours || self.retired.len() < retired {
                continue;
            }
            if self.ended.len() == STATUSES {
                self.ended.pop_front();
            }
            self.ended.push_back((pid, exit));
            self.tell(Word::Text(ended(pid, exit)));
        }
        Ok(())
    }

    /// Hears everything that has been said so far.
    fn listen(&mut self) {
        let mut buffer = [0; MESSAGE];
        while let Some(line) = &self.line {
            match line.hear(&mut buffer) {
                Heard::Said(text, fds) => self.take(&text, fds),
                Heard::Nothing => return,
                // The brain is gone; its end as a child will follow.
                Heard::Gone => self.line = None,
            }
        }
    }

    /// Does what one message says.
    fn take(&mut self, text: &str, fds: Vec<OwnedFd>) {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        match verb {
            "put" => {
                if let Some(fd) = fds.into_iter().next() {
                    self.kept.insert(rest.to_string(), fd);
                }
            }
            "drop" => {
                self.kept.remove(rest);
            }
            "list" => {
                let kept = self.kept.keys().cloned().map(Word::Have);
                let ends = self.ended.iter().map(|(pid, exit)| Word::Text(ended(*pid, *exit)));
                let last = Word::Text(format!("end {}", self.plane.pid()));
                let words: Vec<Word> = kept.chain(ends).chain([last]).collect();
                words.into_iter().for_each(|word| self.tell(word));
                self.listed = true;
            }
            "forget" => self.ended.retain(|(pid, _)| pid.to_string() != rest),
            "bye" => self.leaving = true,
            "become" => {
                if let Some(program) = fds.into_iter().next() {
                    self.go_on_as(program.as_fd(), rest == "and renew the plane");
                }
            }
            _ => {}
        }
    }

    /// Goes on as another program, or as this one if that fails: in either case with another brain,
    /// for which the one that asks waits.
    fn go_on_as(&mut self, program: BorrowedFd<'_>, renew_plane: bool) {
        self.heritage = self.line.take().map(Line::into_socket);
        self.brain.child = None;
        if renew_plane {
            let pid = self.plane.pid();
            let retired = pidfd::open(Pid::from_raw(pid)).ok().filter(|_| pid != 0);
            self.retired.extend(retired.map(|pidfd| (pid, pidfd)));
            self.plane = Ward { child: None, inherited: None, started: None, ..self.plane };
        }
        let error = self.become_program(program);
        eprintln!("minisup keeper: goes on with the old program: {error:#}");
    }

    /// Tells the brain, if it is there. What it misses it asks for when it is back.
    fn tell(&mut self, word: Word) {
        if let Some(line) = &mut self.line {
            line.tell(word, &self.kept);
        }
    }

    fn end_plane(&mut self) {
        if let Some(plane) = &mut self.plane.child {
            let _ = plane.kill();
            let _ = plane.wait();
        }
        for (_, plane) in self.plane.inherited.iter().chain(&self.retired) {
            let _ = pidfd::signal(plane, 9);
        }
    }
}

impl Ward {
    /// Its process; 0 if it does not run.
    fn pid(&self) -> i32 {
        let inherited = self.inherited.as_ref().map(|(pid, _)| *pid);
        self.child.as_ref().map(|child| child.id().cast_signed()).or(inherited).unwrap_or(0)
    }

    fn start(&mut self, project: &str, more: &[&str]) -> Result<()> {
        self.started = Some(Instant::now());
        let child = Command::new("/proc/self/exe")
            .arg0("minisup")
            .arg(self.role)
            .arg(project)
            .args(more)
            .stdin(std::process::Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start the {}", self.role))?;
        self.child = Some(child);
        Ok(())
    }
}

fn is_ready(ready: &Ready) -> bool {
    ready.readable || ready.hung_up
}

/// How an end is told: `exited PID code N` or `exited PID signal N`.
fn ended(pid: Pid, exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited {pid} code {code}"),
        Exit::Signal(signal) => format!("exited {pid} signal {signal}"),
    }
}
