//! A running guest, and commands in it.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{ChildStdin, ExitStatus},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};

use crate::{
    accel::Accelerator,
    cache::Cache,
    initrd,
    kernel::{self, Kernel},
    machine::{Machine, Plan, share_tag},
    protocol::{Exec, Kind, Ready, Setup, Status, WindowSize, decode, receive, send, send_json},
    rootfs::{self, Profile},
};

/// A host directory that the guest sees, read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The directory on the host.
    pub host: PathBuf,
    /// The absolute path where the guest has it.
    pub guest: String,
}

impl Share {
    /// The same path inside as outside, so that paths compiled into tests are right in both.
    ///
    /// # Errors
    /// When it is not a directory, or its name is not UTF-8.
    pub fn same_path(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let host =
            directory.canonicalize().ok().filter(|path| path.is_dir()).with_context(|| {
                format!("cannot share {}: not a directory", directory.display())
            })?;
        let guest = host.to_str().context("the name of a shared directory is not UTF-8")?.into();
        Ok(Self { host, guest })
    }
}

/// The guest to boot.
#[derive(Debug, Clone)]
pub struct Config {
    /// The kernel series.
    pub kernel: Kernel,
    /// What is in it.
    pub profile: Profile,
    /// Processors. Emulated, more than one is a little less reliable.
    pub smp: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Host directories to show.
    pub shares: Vec<Share>,
    /// How long the boot may take on real hardware; ten times that when emulated.
    pub boot_timeout: Duration,
    /// How long a command may take by default, likewise.
    pub command_timeout: Duration,
    /// Whether to print the guest's console on standard error.
    pub console: bool,
}

impl Config {
    /// The usual guest of this kernel and profile.
    #[must_use]
    pub fn new(kernel: Kernel, profile: Profile) -> Self {
        Self {
            kernel,
            profile,
            smp: 1,
            memory_mib: if profile == Profile::Quick { 1024 } else { 2048 },
            shares: Vec::new(),
            boot_timeout: Duration::from_secs(if profile.has_systemd() { 20 } else { 10 }),
            command_timeout: Duration::from_secs(60),
            console: false,
        }
    }

    /// With one more directory, at the same path inside.
    ///
    /// # Errors
    /// As [`Share::same_path`].
    pub fn share(mut self, directory: impl AsRef<Path>) -> Result<Self> {
        self.shares.push(Share::same_path(directory)?);
        Ok(self)
    }
}

/// Why a guest cannot go on. Each carries the last lines of its console.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// It did not get as far as taking commands.
    #[error("the guest did not boot within {timeout:?}; its console:\n{console}")]
    BootTimeout {
        /// How long it had.
        timeout: Duration,
        /// The console's last lines.
        console: String,
    },
    /// Its kernel panicked.
    #[error("the guest's kernel panicked; its console:\n{console}")]
    Panicked {
        /// The console's last lines.
        console: String,
    },
    /// QEMU ended.
    #[error("the guest ended ({status}); its console:\n{console}")]
    Ended {
        /// How QEMU ended.
        status: String,
        /// The console's last lines.
        console: String,
    },
    /// A command took too long and was killed. The guest can go on.
    #[error("the command {command} took longer than {timeout:?} and was killed")]
    CommandTimeout {
        /// The command, quoted as for a shell.
        command: String,
        /// How long it had.
        timeout: Duration,
    },
    /// A command took too long and the guest did not even kill it.
    #[error("the guest hangs in the command {command} ({timeout:?}); its console:\n{console}")]
    Hung {
        /// The command, quoted as for a shell.
        command: String,
        /// How long it had.
        timeout: Duration,
        /// The console's last lines.
        console: String,
    },
    /// The guest refused a request, most often: no such program.
    #[error("in the guest: {0}")]
    Refused(String),
    /// The port carries something else than the protocol.
    #[error("the port to the guest is broken: {0}")]
    Port(#[from] io::Error),
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: Status,
    /// What it wrote on standard output.
    pub stdout: Vec<u8>,
    /// What it wrote on standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

pub(crate) enum Event {
    Frame(Kind, Vec<u8>),
    Broken(io::Error),
    Ended(ExitStatus),
}

/// A running guest; it ends when this is dropped.
#[derive(Debug)]
pub struct Guest {
    machine: Machine,
    accelerator: Accelerator,
    port: ChildStdin,
    events: Receiver<Event>,
    command_timeout: Duration,
    release: String,
    boot_time: Duration,
}

impl Guest {
    /// Builds what is missing, boots, waits until the guest takes commands.
    ///
    /// # Errors
    /// When a part cannot be built, or the guest does not come up; then with its last words
    /// (a [`GuestError`]).
    pub fn boot(config: &Config) -> Result<Self> {
        Self::boot_from(&Cache::open()?, config)
    }

    /// As [`Guest::boot`], with the parts of this cache.
    ///
    /// # Errors
    /// As [`Guest::boot`].
    pub fn boot_from(cache: &Cache, config: &Config) -> Result<Self> {
        let plan = plan(cache, config)?;
        let started = Instant::now();
        let (sender, events) = mpsc::channel();
        let ended = sender.clone();
        let (machine, (port, mut from)) = Machine::start(&plan, config.console, move |status| {
            // Nobody listens any more when the guest has been dropped.
            let _ = ended.send(Event::Ended(status));
        })?;
        thread::Builder::new().name("port".into()).spawn(move || {
            loop {
                let event = match receive(&mut from) {
                    Ok(Some((kind, payload))) => Event::Frame(kind, payload),
                    Ok(None) => return,
                    Err(error) => Event::Broken(error),
                };
                let broken = matches!(event, Event::Broken(_));
                if sender.send(event).is_err() || broken {
                    return;
                }
            }
        })?;
        let mut guest = Self {
            machine,
            accelerator: plan.accelerator,
            port,
            events,
            command_timeout: config.command_timeout,
            release: String::new(),
            boot_time: Duration::ZERO,
        };
        guest.greet(config, started)?;
        Ok(guest)
    }

    fn greet(&mut self, config: &Config, started: Instant) -> Result<()> {
        let timeout = self.accelerator.patience(config.boot_timeout);
        let deadline = started + timeout;
        let late = |guest: &Self| GuestError::BootTimeout {
            timeout,
            console: guest.machine.console.tail(),
        };
        let ready: Ready = match self.next(deadline)? {
            Some((Kind::Ready, payload)) => decode(&payload)?,
            Some((other, _)) => bail!("the guest began with {other:?}"),
            None => return Err(late(self).into()),
        };
        let shares = config.shares.iter().enumerate();
        let shares = shares.map(|(index, share)| (share_tag(index), share.guest.clone())).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        send_json(&mut self.port, Kind::Setup, &Setup { shares, now })?;
        match self.next(deadline)? {
            Some((Kind::Done, _)) => {}
            Some((Kind::Refused, reason)) => return Err(refused(&reason).into()),
            Some((other, _)) => bail!("the guest answered {other:?} to its set-up"),
            None => return Err(late(self).into()),
        }
        self.release = ready.release;
        self.boot_time = started.elapsed();
        Ok(())
    }

    /// The kernel's release, as `uname -r`.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// From the start of QEMU to the first command.
    #[must_use]
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// The process id of QEMU on the host.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.machine.pid
    }

    /// The last lines of the guest's console.
    #[must_use]
    pub fn console(&self) -> String {
        self.machine.console.tail()
    }

    /// Runs a command to its end and collects what it wrote.
    ///
    /// Its standard input is empty; a status other than 0 is not an error. Children that outlive
    /// it stay in the guest, but what they write after its end is lost.
    ///
    /// # Errors
    /// When the command cannot be started or the guest cannot go on.
    pub fn run<S: AsRef<str>>(&mut self, argv: &[S]) -> Result<Output, GuestError> {
        self.command(argv).run()
    }

    /// A command with more to say about it.
    pub fn command<S: AsRef<str>>(&mut self, argv: &[S]) -> Command<'_> {
        let timeout = self.accelerator.patience(self.command_timeout);
        let exec = Exec {
            argv: argv.iter().map(|word| word.as_ref().to_owned()).collect(),
            env: BTreeMap::new(),
            cwd: "/".into(),
            stdin: false,
            terminal: None,
        };
        Command { guest: self, exec, timeout: Some(timeout), stream: false }
    }

    /// A command's start with a terminal; the caller does the talking.
    pub(crate) fn start(&mut self, exec: &Exec) -> Result<(), GuestError> {
        Ok(send_json(&mut self.port, Kind::Exec, exec)?)
    }

    pub(crate) fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<(), GuestError> {
        Ok(send(&mut self.port, kind, payload)?)
    }

    /// A second hand on the port, for what a person types.
    pub(crate) fn port(&self) -> io::Result<std::fs::File> {
        use std::os::fd::AsFd;
        Ok(self.port.as_fd().try_clone_to_owned()?.into())
    }

    /// The next frame; `None` after the deadline.
    pub(crate) fn next_frame(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Option<(Kind, Vec<u8>)>, GuestError> {
        let event = match deadline {
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => {
                self.events.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
        };
        let console = || self.machine.console.tail();
        match event {
            Ok(Event::Frame(kind, payload)) => Ok(Some((kind, payload))),
            Ok(Event::Broken(error)) => Err(error.into()),
            Ok(Event::Ended(status)) => Err(ended(status.to_string(), console())),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(ended("before".into(), console())),
        }
    }

    fn next(&mut self, deadline: Instant) -> Result<Option<(Kind, Vec<u8>)>, GuestError> {
        self.next_frame(Some(deadline))
    }
}

fn ended(status: String, console: String) -> GuestError {
    if console.contains("Kernel panic - not syncing") {
        return GuestError::Panicked { console };
    }
    GuestError::Ended { status, console }
}

pub(crate) fn refused(reason: &[u8]) -> GuestError {
    GuestError::Refused(String::from_utf8_lossy(reason).into_owned())
}

fn plan(cache: &Cache, config: &Config) -> Result<Plan> {
    let kernel = kernel::build(cache, config.kernel, false)?;
    let root = rootfs::build(cache, config.profile, false)?;
    let initrd = initrd::build(cache, &kernel, &initrd::this_program()?)?;
    Ok(Plan {
        accelerator: Accelerator::choose(cache, &kernel.vmlinux())?,
        vmlinux: kernel.vmlinux(),
        initrd,
        root,
        modules: kernel.modules(),
        shares: config.shares.iter().map(|share| share.host.clone()).collect(),
        smp: config.smp,
        memory_mib: config.memory_mib,
        boot: if config.profile.has_systemd() { "full" } else { "quick" },
        verbose: config.console,
    })
}

/// A command that is about to run.
#[derive(Debug)]
#[must_use = "a command does nothing until it is run"]
pub struct Command<'guest> {
    guest: &'guest mut Guest,
    exec: Exec,
    timeout: Option<Duration>,
    stream: bool,
}

impl Command<'_> {
    /// Adds a variable to its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.exec.env.insert(name.into(), value.into());
        self
    }

    /// Sets its working directory.
    pub fn current_dir(mut self, directory: &str) -> Self {
        self.exec.cwd = directory.into();
        self
    }

    /// How long it may take on real hardware; ten times that when emulated.
    pub fn timeout(mut self, native: Duration) -> Self {
        self.timeout = Some(self.guest.accelerator.patience(native));
        self
    }

    /// How long it may take by the clock on the wall; `None`: as long as it likes.
    pub fn deadline(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Also prints its output here while it runs.
    pub fn stream(mut self) -> Self {
        self.stream = true;
        self
    }

    /// Gives it bytes to read.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn run_with_input(mut self, input: &[u8]) -> Result<Output, GuestError> {
        self.exec.stdin = true;
        self.guest.start(&self.exec)?;
        for chunk in input.chunks(64 * 1024) {
            self.guest.send(Kind::Stdin, chunk)?;
        }
        self.guest.send(Kind::StdinEnd, b"")?;
        self.collect()
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub fn run(self) -> Result<Output, GuestError> {
        self.guest.start(&self.exec)?;
        self.collect()
    }

    fn collect(self) -> Result<Output, GuestError> {
        let started = Instant::now();
        let mut deadline = self.timeout.map(|timeout| started + timeout);
        let mut killed = false;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.guest.next_frame(deadline)? {
                Some((Kind::Stdout, bytes)) => {
                    if self.stream {
                        let mut to = io::stdout().lock();
                        to.write_all(&bytes).and_then(|()| to.flush())?;
                    }
                    stdout.extend(bytes);
                }
                Some((Kind::Stderr, bytes)) => {
                    if self.stream {
                        io::stderr().lock().write_all(&bytes)?;
                    }
                    stderr.extend(bytes);
                }
                Some((Kind::Exit, status)) if !killed => {
                    return Ok(Output { status: decode(&status)?, stdout, stderr });
                }
                Some((Kind::Exit, _)) => {
                    return Err(GuestError::CommandTimeout {
                        command: quote(&self.exec.argv),
                        timeout: self.timeout.unwrap_or_default(),
                    });
                }
                Some((Kind::Refused, reason)) => return Err(refused(&reason)),
                Some((other, _)) => {
                    let message = format!("{other:?} while a command ran");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message).into());
                }
                None if killed => {
                    return Err(GuestError::Hung {
                        command: quote(&self.exec.argv),
                        timeout: self.timeout.unwrap_or_default(),
                        console: self.guest.console(),
                    });
                }
                None => {
                    killed = true;
                    let grace = self.guest.accelerator.patience(Duration::from_secs(3));
                    deadline = Some(Instant::now() + grace);
                    self.guest.send(Kind::Kill, b"")?;
                }
            }
        }
    }

    pub(crate) fn with_terminal(mut self, size: WindowSize) -> Exec {
        self.exec.terminal = Some(size);
        self.exec
    }
}

/// A command as one would type it.
#[must_use]
pub fn quote<S: AsRef<str>>(argv: &[S]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    let words = argv.iter().map(|word| match word.as_ref() {
        word if !word.is_empty() && word.chars().all(plain) => word.to_owned(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_a_shell() {
        let argv = ["printf", "%s|", "", "a b", "it's", "$HOME", "new\nline", "*", "ü"];
        let output = std::process::Command::new("sh").args(["-c", &quote(&argv)]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "|a b|it's|$HOME|new\nline|*|ü|");
        assert_eq!(quote(&["crun", "--root=/x", "a.b"]), "crun --root=/x a.b");
    }

    #[test]
    fn a_panic_is_told_from_another_end() {
        let console = "  | [ 1.0] Kernel panic - not syncing: Attempted to kill init!\n";
        let error = ended("exit status: 0".into(), console.into());
        assert!(matches!(error, GuestError::Panicked { .. }));
        let error = ended("exit status: 1".into(), "  | qemu: no such file\n".into());
        assert!(error.to_string().contains("exit status: 1"));
        assert!(error.to_string().contains("no such file"));
    }

    #[test]
    fn only_directories_are_shared() {
        let share = Share::same_path("/usr/../tmp").unwrap();
        assert_eq!((share.host, share.guest), ("/tmp".into(), "/tmp".into()));
        assert!(Share::same_path("/etc/passwd").is_err());
        assert!(Share::same_path("/no/such/directory").is_err());
    }
}
