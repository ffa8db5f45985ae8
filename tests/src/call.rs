//! One call of a program, and what came of it.
//!
//! Output goes to files and not to pipes: a detached container keeps the streams of its creator
//! open, and whoever reads a pipe to its end would wait for the container.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;

/// How long a call may take before it is taken to hang. An emulated guest is slow.
const PATIENCE: Duration = Duration::from_secs(180);

/// A program about to be called.
pub(crate) struct Call {
    command: Command,
    output: PathBuf,
}

impl Call {
    /// `output` is where its output goes, and beside it (`….err`) what it says on standard error.
    pub(crate) fn new(program: PathBuf, output: PathBuf, directory: PathBuf) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).current_dir(directory);
        Self { command, output }
    }

    /// More arguments.
    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// One more environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.command.env(name, value.into());
        self
    }

    /// The working directory.
    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Standard input.
    pub(crate) fn input(mut self, input: impl Into<Stdio>) -> Self {
        self.command.stdin(input);
        self
    }

    /// Standard input, as text.
    pub(crate) fn input_text(self, text: &str) -> Self {
        let path = self.output.with_extension("in");
        std::fs::write(&path, text).expect("write the input");
        self.input(File::open(path).expect("open the input"))
    }

    /// As an ordinary user, without any other group.
    pub(crate) fn user(mut self, user: u32) -> Self {
        self.command.uid(user).gid(user);
        self
    }

    /// Starts it.
    pub(crate) fn spawn(mut self) -> Running {
        let errors = self.output.with_extension("err");
        let create = |path: &Path| File::create(path).expect("make a file for output");
        self.command.stdout(create(&self.output)).stderr(create(&errors));
        let shown = format!("{:?}", self.command);
        let child = self.command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        Running { child, shown, output: self.output, errors }
    }

    /// Starts it on a terminal, which becomes its controlling one.
    pub(crate) fn spawn_on(self, terminal: &File) -> Running {
        let Self { command, output } = self;
        let mut on_it = Command::new("setsid");
        on_it.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        if let Some(directory) = command.get_current_dir() {
            on_it.current_dir(directory);
        }
        on_it.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let same = || terminal.try_clone().expect("another descriptor");
        on_it.stdin(same()).stdout(same()).stderr(same());
        let shown = format!("{on_it:?}");
        let child = on_it.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        Running { child, shown, errors: output.with_extension("err"), output }
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Ran {
        self.spawn().wait()
    }
}

/// A program that runs.
pub(crate) struct Running {
    child: Child,
    shown: String,
    output: PathBuf,
    errors: PathBuf,
}

impl Running {
    /// Its number.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("send a signal");
    }

    /// What it has written so far.
    pub(crate) fn output(&self) -> String {
        read(&self.output)
    }

    /// Waits until it has written `text`.
    pub(crate) fn wait_for(&self, text: &str) {
        let found = wait_until(|| self.output().contains(text) || !self.is_alive());
        let said = self.output();
        assert!(
            found && said.contains(text),
            "{}: {text:?} did not come: {said:?} {}",
            self.shown,
            read(&self.errors)
        );
    }

    /// Whether it has not ended.
    pub(crate) fn is_alive(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        stat.is_ok_and(|stat| {
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
        })
    }

    /// Waits for its end; it hangs when it has been silent for too long.
    pub(crate) fn wait(mut self) -> Ran {
        let process = pidfd_open(self.pid(), PidfdFlags::empty()).expect("open a process");
        let mut ready = [PollFd::new(&process, PollFlags::IN)];
        let patience = Timespec::try_from(PATIENCE).expect("it fits");
        let mut said = 0;
        while poll(&mut ready, Some(&patience)).expect("wait") == 0 {
            let length = read(&self.output).len();
            if std::mem::replace(&mut said, length) < length {
                continue;
            }
            drop(self.child.kill());
            drop(self.child.wait());
            panic!("{} hangs: {} {}", self.shown, read(&self.output), read(&self.errors));
        }
        let status = self.child.wait().expect("reap it");
        Ran {
            status: status.code().unwrap_or_else(|| 1000 + status.signal().unwrap_or(0)),
            output: read(&self.output),
            errors: read(&self.errors),
            shown: self.shown,
        }
    }
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit status; 1000 and the signal's number when a signal killed it.
    pub(crate) status: i32,
    /// What it wrote on standard output.
    pub(crate) output: String,
    /// What it wrote on standard error.
    pub(crate) errors: String,
    shown: String,
}

impl Ran {
    /// It must have succeeded, without a word on standard error.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 0, "{}: {}{}", self.shown, self.output, self.errors);
        assert_eq!(self.errors, "", "{}: unexpected words", self.shown);
        self
    }

    /// It must have ended with that status.
    #[track_caller]
    pub(crate) fn exits(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{}: {}{}", self.shown, self.output, self.errors);
        self
    }

    /// It must have failed with status 1 and those words.
    #[track_caller]
    pub(crate) fn fails(self, words: &str) -> Self {
        self.exits(1).says(words)
    }

    /// It must have written that on standard error.
    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Self {
        assert!(self.errors.contains(words), "{}: {words:?} not in: {}", self.shown, self.errors);
        self
    }

    /// It must have written exactly that on standard output.
    #[track_caller]
    pub(crate) fn prints(self, text: &str) -> Self {
        assert_eq!(self.output, text, "{}: {}", self.shown, self.errors);
        self
    }

    /// Its standard output, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.output);
        parsed.unwrap_or_else(|e| panic!("{}: {e}: {} {}", self.shown, self.output, self.errors))
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// Waits until something is so; `false` when it does not come to be in a time in which it should.
pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool) -> bool {
    let begun = std::time::Instant::now();
    while !is_so() {
        if begun.elapsed() > PATIENCE * 2 / 3 {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// How long a test goes on that does the same again and again: as long as it says, or as long as
/// `MINIRUN_TESTS_SECONDS` says.
pub(crate) fn length_of_loop(usual: Duration) -> Duration {
    let asked = std::env::var("MINIRUN_TESTS_SECONDS").ok().and_then(|text| text.parse().ok());
    asked.map_or(usual, Duration::from_secs)
}
