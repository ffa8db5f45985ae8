//! One command in the guest: its output to the host while it runs, its status at the end.

use std::os::unix::{
    fs::OpenOptionsExt,
    process::{CommandExt, ExitStatusExt},
};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use anyhow::{Context, Result, bail};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::OFlags,
    process::{Pid, PidfdFlags, Signal},
    pty::OpenptFlags,
    termios::Winsize,
};

use super::{INSTALLED, serve};
use crate::protocol::{Exec, Kind, Status, WindowSize, decode, receive, send, send_json};

/// Frames of this size keep the port busy without holding much in memory.
const CHUNK: usize = 64 * 1024;

/// Runs a command to its end. `alone` says that this guest runs nothing but the command, so that
/// killing it may mean killing everything.
pub(super) fn run(port: &mut File, exec: &Exec, alone: bool) -> Result<()> {
    let mut running = start(exec)?;
    let pidfd = rustix::process::pidfd_open(running.pid()?, PidfdFlags::empty())?;
    loop {
        let mut fds = vec![PollFd::new(&*port, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(running.outputs.iter().map(|(_, from)| PollFd::new(from, PollFlags::IN)));
        poll(&mut fds, None)?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        // Output before the end: what a command wrote comes before its status.
        for index in (2..ready.len()).rev().filter(|index| ready[*index]) {
            let (kind, from) = &mut running.outputs[index - 2];
            if !forward(port, *kind, from)? {
                running.outputs.remove(index - 2);
            }
        }
        if ready[1] {
            break;
        }
        if ready[0] {
            let Some((kind, payload)) = receive(port)? else { bail!("the host is gone") };
            running.obey(kind, payload, alone)?;
        }
    }
    running.finish(port)
}

struct Running {
    child: Child,
    outputs: Vec<(Kind, File)>,
    stdin: Option<mpsc::Sender<Vec<u8>>>,
    terminal: Option<File>,
}

fn start(exec: &Exec) -> Result<Running> {
    let mut environment = serve::environment();
    environment.extend(exec.env.clone());
    let [program, arguments @ ..] = exec.argv.as_slice() else { bail!("no command") };
    let path = environment.get("PATH").map_or("", String::as_str);
    let program = serve::resolve(program, path);
    let mut command = match exec.terminal {
        None => Command::new(&program),
        Some(_) => {
            let mut command = Command::new(INSTALLED);
            command.arg("terminal").arg(&program);
            command
        }
    };
    command.args(arguments).env_clear().envs(&environment).current_dir(&exec.cwd);
    let (child, terminal) = match exec.terminal {
        Some(size) => {
            let (master, slave) = terminal(size)?;
            command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
            (command.spawn(), Some(master))
        }
        None => {
            // A group of its own: a timeout ends the command with its children.
            command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.stdin(if exec.stdin { Stdio::piped() } else { Stdio::null() });
            (command.spawn(), None)
        }
    };
    let mut child =
        child.with_context(|| format!("cannot run {} in {}", program.display(), exec.cwd))?;
    let mut outputs: Vec<(Kind, File)> = Vec::new();
    let mut stdin: Option<File> = child.stdin.take().map(|pipe| OwnedFd::from(pipe).into());
    if let Some(master) = &terminal {
        outputs.push((Kind::Stdout, master.try_clone()?));
        stdin = Some(master.try_clone()?);
    }
    let pipes = [
        (Kind::Stdout, child.stdout.take().map(OwnedFd::from)),
        (Kind::Stderr, child.stderr.take().map(OwnedFd::from)),
    ];
    outputs.extend(pipes.into_iter().filter_map(|(kind, fd)| Some((kind, fd?.into()))));
    Ok(Running { child, outputs, stdin: stdin.map(writer), terminal })
}

impl Running {
    fn pid(&self) -> Result<Pid> {
        Pid::from_raw(i32::try_from(self.child.id())?).context("a child without a pid")
    }

    fn obey(&mut self, kind: Kind, payload: Vec<u8>, alone: bool) -> Result<()> {
        match kind {
            Kind::Stdin => {
                if let Some(stdin) = &self.stdin
                    && stdin.send(payload).is_err()
                {
                    // The command closed its input: it does not want the rest.
                    self.stdin = None;
                }
            }
            Kind::StdinEnd => self.stdin = None,
            Kind::Resize => {
                if let Some(terminal) = &self.terminal {
                    rustix::termios::tcsetwinsize(terminal, winsize(decode(&payload)?))?;
                }
            }
            // Negated, 1 means every process but process 1 and this one: also those that left
            // the command's group.
            Kind::Kill if alone => {
                rustix::process::kill_process_group(Pid::INIT, Signal::KILL)?;
            }
            Kind::Kill => rustix::process::kill_process_group(self.pid()?, Signal::KILL)?,
            other => bail!("the host sent {other:?} while a command runs"),
        }
        Ok(())
    }

    /// Sends what is left in the pipes, not waiting for children that keep them open, and the
    /// status.
    fn finish(mut self, port: &mut File) -> Result<()> {
        for (kind, from) in &mut self.outputs {
            let flags = rustix::fs::fcntl_getfl(&*from)?;
            rustix::fs::fcntl_setfl(&*from, flags | OFlags::NONBLOCK)?;
            while forward(port, *kind, from)? {}
        }
        let status = self.child.wait()?;
        let status = match (status.code(), status.signal()) {
            (Some(code), _) => Status::Exited(code),
            (None, Some(signal)) => Status::Signaled(signal),
            (None, None) => bail!("the command neither exited nor was killed: {status}"),
        };
        Ok(send_json(port, Kind::Exit, &status)?)
    }
}

/// Passes on what is there; says whether there may be more.
fn forward(port: &mut File, kind: Kind, from: &mut File) -> Result<bool> {
    let mut buffer = vec![0; CHUNK];
    match from.read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(length) => {
            send(port, kind, &buffer[..length])?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        // How a terminal says that nobody has it open any more.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes a command's input in a thread: a command that does not read must not stop its output.
fn writer(mut to: File) -> mpsc::Sender<Vec<u8>> {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        for bytes in receiver {
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
    });
    sender
}

fn terminal(size: WindowSize) -> Result<(File, File)> {
    let master =
        rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .context("no terminal")?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    rustix::termios::tcsetwinsize(master.as_fd(), winsize(size))?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let slave = File::options()
        .read(true)
        .write(true)
        .custom_flags(i32::try_from(OFlags::NOCTTY.bits())?)
        .open(name.to_str()?)
        .with_context(|| format!("cannot open {}", name.to_string_lossy()))?;
    Ok((master.into(), slave))
}

fn winsize(size: WindowSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}
