//! A running guest.

use std::{
    collections::BTreeMap,
    io,
    process::{ChildStdin, ExitStatus},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, bail};

use crate::{
    accel::Accelerator,
    cache::Cache,
    command::{Command, Output},
    config::Config,
    error::{GuestError, ended, refused},
    initrd, kernel,
    machine::{Machine, Plan, share_tag},
    protocol::{Exec, Kind, Ready, Setup, decode, receive, send, send_json},
    rootfs,
};

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
        Command::new(self, exec, timeout)
    }

    /// Scales a time that is generous on real hardware to this guest.
    pub(crate) fn patience(&self, native: Duration) -> Duration {
        self.accelerator.patience(native)
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
