//! Starting a created container: a call to its init, which has been waiting for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use linux::{Errno, pidfd, socket};

use super::agent::Agent;
use super::create::START_SOCKET;
use super::handshake::{Heard, Line, Message};
use super::readiness::Readiness;
use super::state::{Home, Init, Lock, State, Status};
use crate::error::{Cause, Error, Failure, Result};
use crate::explain::Journal;
use crate::plan::Plan;
use crate::steps::{Step, hooks};

/// What [`start`] leaves open. The end of this process closes all of it at once.
#[derive(Debug)]
pub(crate) struct Started {
    _lock: Lock,
    _line: Line,
    _process: OwnedFd,
}

/// Starts the container in `home`, and returns when its program runs.
pub(crate) fn start(home: &Home) -> Result<Option<Started>> {
    let lock = home.lock()?;
    let state = home.load()?.ok_or_else(|| Error::NotFound(home.id().to_owned()))?;
    let Some(process) = state.init.as_ref().and_then(Init::open) else {
        return Err(wrong(STOPPED));
    };
    if state.is_frozen() {
        return Err(already(Status::Paused));
    }
    let connected = socket::connect_in(home.path(), START_SOCKET);
    let line = Line::new(connected.map_err(|error| match error.errno {
        // The name is gone with the first start.
        Errno::ENOENT => already(Status::Running),
        Errno::ECONNREFUSED => wrong(STOPPED),
        _ => Error::Kernel { doing: "call init".into(), source: error },
    })?);
    // Removed before the word is given: if we die in between, init sees the line end and ends too,
    // so that a container never waits with nobody able to call it.
    let name = home.start_socket();
    std::fs::remove_file(&name).map_err(Error::file(format!("remove {}", name.display())))?;
    let readiness = Readiness::listen(home, state.init.map_or(0, |init| init.pid))?;
    line.say(&Message::Release).map_err(Error::kernel("talk to init"))?;
    wait_for_program(&line, &mut Journal::parent(None), agent_of(&state, Some(&process)))?;
    run_poststart(home, &state)?;
    let Some(readiness) = readiness else {
        return Ok(Some(Started { _lock: lock, _line: line, _process: process }));
    };
    // Others may stop it while it makes itself ready.
    drop(lock);
    readiness.wait(&process).map(|()| None)
}

const STOPPED: &str = "cannot start a container that has stopped";

fn already(status: Status) -> Error {
    wrong(&format!("cannot start an already running container: it is {status}"))
}

/// The agent of a filter, with the process that loads it.
pub(crate) type AgentOf<'a> = Option<(&'a Agent, BorrowedFd<'a>, i32)>;

pub(crate) fn agent_of<'a>(state: &'a State, process: Option<&'a OwnedFd>) -> AgentOf<'a> {
    let pid = state.init.map_or(0, |init| init.pid);
    Some((state.agent.as_ref()?, process?.as_fd(), pid))
}

/// Listens until the line ends (the program runs) or init says why it does not.
pub(crate) fn wait_for_program(
    line: &Line,
    journal: &mut Journal<'_>,
    agent: AgentOf<'_>,
) -> Result<(), Failure> {
    let at = |step, object: &str, cause: Cause| Failure {
        step,
        object: object.to_owned(),
        cause: cause.text,
        errno: cause.errno,
        remedy: cause.remedy,
    };
    loop {
        match line.hear() {
            Ok(Heard::End) => return Ok(()),
            Ok(Heard::Message(Message::Told(record), _)) => journal.tell(record),
            Ok(Heard::Message(Message::Failed(failure), _)) => return Err(failure),
            Ok(Heard::Message(Message::Listening(number), _)) => {
                let given = match agent {
                    Some((agent, process, pid)) => agent.give(process, pid, number),
                    None => Err(Cause::new("nobody is known to decide")),
                };
                given
                    .and_then(|()| Ok(line.say(&Message::Release)?))
                    .map_err(|cause| at(Step::Filter, "the filter's agent", cause))?;
            }
            Ok(Heard::Message(..)) => {}
            Err(cause) => return Err(at(Step::Handover, "program", cause)),
        }
    }
}

/// The hooks of the moment after the start. One that fails ends the container.
pub(crate) fn run_poststart(home: &Home, state: &State) -> Result<()> {
    if !state.late_hooks {
        return Ok(());
    }
    let result = run_hooks(home, state, "poststart", Status::Running);
    if result.is_err()
        && let Some(process) = state.init.as_ref().and_then(Init::open)
    {
        drop(pidfd::signal(&process, 9));
    }
    result
}

/// Runs the hooks of one late moment, from the configuration as it was when the container was made.
pub(crate) fn run_hooks(home: &Home, state: &State, moment: &str, status: Status) -> Result<()> {
    let file = home.path().join("config.json");
    let bytes = std::fs::read(&file).map_err(Error::file(format!("read {}", file.display())))?;
    let (spec, _) = crate::spec::parse(&bytes, &file)?;
    let lists = spec.hooks().clone().unwrap_or_default();
    let list = match moment {
        "poststart" => lists.poststart().clone(),
        _ => lists.poststop().clone(),
    };
    let pid = match status {
        Status::Stopped => 0,
        _ => state.init.map_or(0, |init| init.pid),
    };
    let told = Plan::state_for_hooks(
        &state.id,
        &status.to_string(),
        pid,
        &state.bundle,
        &state.annotations,
    );
    hooks::keep_descriptors_from_hooks()?;
    for hook in list.unwrap_or_default() {
        let ran = hooks::run(&hook, &told, &state.bundle);
        ran.map_err(|cause| Failure {
            step: Step::Hooks,
            object: format!("{moment} {}", hook.path().display()),
            cause: cause.text,
            errno: cause.errno,
            remedy: cause.remedy,
        })?;
    }
    Ok(())
}

fn wrong(text: &str) -> Error {
    Error::WrongState(text.to_owned())
}
