//! `minirun run`: create, start, stand in front of it, delete.
//!
//! Two faces. Engines call `run --bundle DIR ID`; people write `run [--memory 512m] BUNDLE|IMAGE
//! [COMMAND…]`.

use std::os::fd::OwnedFd;

use clap::{Arg, ArgMatches, Command};
use linux::clone::Child;
use linux::pidfd::{self, Exit};
use linux::signal::Signals;
use oci_spec::runtime::Spec;

use super::arguments::{flag, path_of, path_value, value};
use super::connect::{self, Network};
use super::create::{common_arguments, plan_of, preserved};
use super::flags;
use super::target::{Target, is_named_by_us};
use super::verb::{Global, Verb};
use crate::cgroup::{Cgroup, OomReport};
use crate::container::create::{Created, Options, create};
use crate::container::handshake::Message;
use crate::container::readiness::{self, Readiness};
use crate::container::state::{Home, Lock, State, StateRoot};
use crate::container::{blocked, foreground, start};
use crate::error::{Error, Result};
use crate::explain::{Journal, Narrator};
use crate::plan::Plan;
use crate::steps::Step;
use crate::steps::network::Connected;
use crate::{report, spec};

pub(super) const VERB: Verb = Verb {
    name: "run",
    about: "Create and start a container, and wait for its end",
    arguments,
    run,
    enters_containers: true,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command
        .arg(
            Arg::new("target")
                .value_name("BUNDLE|IMAGE|ID")
                .required(true)
                .help("A bundle's directory, or an image; with --bundle, the container's name"),
        )
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .num_args(0..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .help(
                    "The program and its arguments, instead of the configured ones; for an image \
                     the arguments of its entry point",
                ),
        )
        .args(common_arguments())
        .arg(flag("detach", "Return when the program runs").short('d'))
        .arg(flag("keep", "Do not delete the container after its end"))
        .arg(value("name", "NAME", "The container's name [the bundle directory's]"))
        .arg(path_value("store", "DIR", "Where rootfs-tools keeps images [its usual place]"))
        .arg(flag("explain", "Show how the container is built, step by step"))
        .arg(path_value("trace", "FILE", "Append the steps to a file, as JSON lines"))
        .args(flags::arguments())
        .args(connect::arguments())
        .after_help(
            "A target with a `/` in it (or `.`), or a directory with a config.json while this one has none, \
             is a bundle. Where this directory has one, any other target is a container's name, and \
             the bundle is this directory. Otherwise it is an image: its name in the store of \
             rootfs-tools, an archive or an OCI layout; the bundle is then made in the state \
             directory and removed with the container.",
        )
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let root = global.state_root()?;
    loop {
        let run = |mut target| run_target(global, matches, &root, &mut target);
        match Target::of(matches, &root).and_then(run) {
            // Somebody has taken the name since we looked: there are others.
            Err(Error::AlreadyExists(_)) if is_named_by_us(matches) => {}
            result => return result,
        }
    }
}

fn run_target(
    global: &Global,
    matches: &ArgMatches,
    root: &StateRoot,
    target: &mut Target,
) -> Result<i32> {
    let narrator = Narrator::new(matches.get_flag("explain"), path_of(matches, "trace"))?;
    let mut narrator = narrator;
    if let Some(narrator) = &mut narrator {
        narrator.open(&target.id, &target.bundle);
    }
    let mut journal = Journal::parent(narrator.as_mut());
    let mut network = Network::of(matches)?;
    let (mut plan, config) = decide(global, matches, target, &mut network, &mut journal)?;
    if let Some(network) = &mut network {
        prepare_network(global, network, &mut journal)?;
        network.mount_files(&mut plan, root);
    }
    let files = network.as_ref().map_or(Ok(Vec::new()), Network::files)?;
    let detach = matches.get_flag("detach");
    check_terminal(&plan, detach, matches)?;
    let capture = || Signals::capture().map_err(Error::kernel("capture signals"));
    let signals = if detach { None } else { Some(capture()?) };
    let options = Options {
        home: target.home.take().map_or_else(|| root.make(&target.id), Ok)?,
        config: &config,
        files: &files,
        wait_for_start: false,
        foreground: !detach,
        console_socket: path_of(matches, "console-socket"),
        pidfd_socket: path_of(matches, "pidfd-socket"),
        pid_file: path_of(matches, "pid-file"),
        no_pivot: matches.get_flag("no-pivot"),
        no_new_keyring: matches.get_flag("no-new-keyring"),
        preserve_fds: preserved(matches),
        manager: global.manager,
        keep_namespaces: network.as_ref().is_some_and(Network::needs_program),
    };
    let mut created = create(&plan, &options, &mut journal)?;
    plan.warnings.iter().for_each(|warning| global.log.warning(warning));
    created.warnings.iter().for_each(|warning| global.log.warning(warning));
    created.terminal.iter().for_each(foreground::pass_size);
    let readiness = Readiness::listen(&created.home, created.child.pid.as_raw())?;
    let started = connect_to_networks(global, &mut created, network.as_ref(), &mut journal)
        .and_then(|()| start_program(&created, &mut journal));
    if let Err(error) = started {
        drop(pidfd::signal(&created.child.pidfd, 9));
        drop(pidfd::wait(&created.child.pidfd));
        let Created { home, state, cgroup, .. } = &mut created;
        drop(super::delete::remove(global, home, Some(state), cgroup.take()));
        return Err(error);
    }
    if let Some(narrator) = &mut narrator {
        narrator.close(&target.id);
    }
    match (signals, readiness) {
        (None, None) => Ok(0),
        (None, Some(readiness)) => {
            let Created { lock, child, .. } = created;
            drop(lock);
            readiness.wait(&child.pidfd).map(|()| 0)
        }
        (Some(signals), readiness) => {
            let Created { home, lock, state, child, terminal, cgroup, line, .. } = created;
            drop(line);
            let attended = Attended { home, lock, state, child, terminal, cgroup };
            stand_by(global, attended, (&signals, readiness), matches.get_flag("keep"))
        }
    }
}

fn decide(
    global: &Global,
    matches: &ArgMatches,
    target: &Target,
    network: &mut Option<Network>,
    journal: &mut Journal<'_>,
) -> Result<(Plan, Vec<u8>)> {
    let mut decided = None;
    let what = || "config.json and decide everything".into();
    let result = journal.step(Step::Plan, what, || -> std::result::Result<(), crate::Cause> {
        decided = Some(decide_now(global, matches, target, network));
        match &decided {
            Some(Err(error)) => Err(crate::Cause::new(error.to_string())),
            _ => Ok(()),
        }
    });
    match (decided, result) {
        (Some(decided), _) => decided,
        (None, Err(failure)) => Err(failure.into()),
        (None, Ok(())) => Err(Error::Config("nothing was decided".into())),
    }
}

fn decide_now(
    global: &Global,
    matches: &ArgMatches,
    target: &Target,
    network: &mut Option<Network>,
) -> Result<(Plan, Vec<u8>)> {
    let loaded = spec::load(&target.bundle)?;
    loaded.warnings.iter().for_each(|warning| global.log.warning(warning));
    let mut config = loaded.spec;
    let mut changed = flags::apply(&mut config, matches, target.command.clone())?;
    if linux::credentials::effective_user() != 0 {
        changed |= without_privileges(&mut config);
    }
    let root = global.state_root()?;
    if network.is_none() {
        *network = Network::by_default(matches, target, &config)?;
    }
    if let Some(network) = network {
        network.shape(&mut config, &root, &target.id)?;
        changed |= !network.is_default();
    }
    let mut plan = plan_of(&config, &target.id, &target.bundle)?;
    readiness::pass_on(&mut plan, &root);
    let bytes = if changed { spec::to_text(&config)?.into_bytes() } else { loaded.bytes };
    Ok((plan, bytes))
}

/// A user without privileges gets a user namespace in which they are root, where the configuration
/// has none: it could not run otherwise.
fn without_privileges(config: &mut Spec) -> bool {
    let (user, group) =
        (linux::credentials::effective_user(), linux::credentials::effective_group());
    spec::make_rootless(config, user, group)
}

fn check_terminal(plan: &Plan, detach: bool, matches: &ArgMatches) -> Result<()> {
    let socket = path_of(matches, "console-socket").is_some();
    let text = match (plan.process.terminal, detach, socket) {
        (true, true, false) => {
            "cannot allocate tty if minirun will detach without setting console socket"
        }
        (false, _, true) => "cannot use console socket if process.terminal is not set",
        _ => return Ok(()),
    };
    Err(Error::Config(text.into()))
}

/// Makes sure that the network which nobody had to ask for can be had, or tells that it cannot.
fn prepare_network(
    global: &Global,
    network: &mut Network,
    journal: &mut Journal<'_>,
) -> Result<()> {
    if !network.is_default() {
        return Ok(());
    }
    let what = || "is there a network for the container?".into();
    let step = || network.prepare().map_err(|e| crate::Cause::new(network::in_one_line(&e)));
    match journal.step(Step::Network, what, step) {
        Ok(()) => Ok(()),
        Err(failure) if network.has_wishes() => Err(failure.into()),
        Err(failure) => {
            global.log.notice(&without_network(&failure.cause));
            Ok(())
        }
    }
}

fn without_network(why: &str) -> String {
    format!("the container has no network: {} (--net none asks for none)", why.replace('\n', "; "))
}

/// Gives the waiting container what `--net` and its kin ask for.
fn connect_to_networks(
    global: &Global,
    created: &mut Created,
    network: Option<&Network>,
    journal: &mut Journal<'_>,
) -> Result<()> {
    let Some(network) = network else { return Ok(()) };
    let Created { home, state, child, namespaces, .. } = created;
    if network.needs_program() {
        // Before it exists, so that it is found whatever happens next.
        state.network = Some(Connected { awaits_program: true, ..Connected::default() });
        home.save(state)?;
    }
    let what = || network.wanted.mode.to_string();
    let connected = journal.step(Step::Network, what, || {
        let tell = |error: &network::Error| {
            global.log.notice(&without_network(&network::in_one_line(error)));
        };
        network
            .connect((home.id(), home.path()), child, namespaces.take(), tell)
            .map_err(|error| crate::Cause::new(network::in_one_line(&error)))
    })?;
    for change in &connected.attachment.changes {
        global.log.notice(&format!("changed a setting of this host: {change}"));
    }
    connected.attachment.warnings.iter().for_each(|warning| global.log.warning(warning));
    if network.chooses_ports() {
        for port in &connected.published {
            global.log.notice(&format!("published {port}"));
        }
    }
    network.complete(home.path(), &connected)?;
    state.network = Some(connected);
    home.save(state)
}

fn start_program(created: &Created, journal: &mut Journal<'_>) -> Result<()> {
    created.line.say(&Message::Release).map_err(Error::kernel("talk to init"))?;
    let agent = start::agent_of(&created.state, Some(&created.child.pidfd));
    start::wait_for_program(&created.line, journal, agent)?;
    start::run_poststart(&created.home, &created.state)
}

/// A container that somebody stands in front of until its end.
pub(super) struct Attended {
    pub(super) home: Home,
    pub(super) lock: Lock,
    pub(super) state: State,
    pub(super) child: Child,
    pub(super) terminal: Option<OwnedFd>,
    pub(super) cgroup: Option<Cgroup>,
}

/// Waits for the end, tells when memory was the reason, cleans up.
pub(super) fn stand_by(
    global: &Global,
    attended: Attended,
    (signals, readiness): (&Signals, Option<Readiness>),
    keep: bool,
) -> Result<i32> {
    let Attended { home, lock, state, child, terminal, cgroup } = attended;
    // From here on others may look at the container, and end it.
    drop(lock);
    let exit = foreground::wait(&child.pidfd, (signals, readiness), terminal.as_ref())?;
    if let Some(oom) = cgroup.as_ref().and_then(Cgroup::oom_if_any) {
        global.log.notice(&oom_text(home.id(), exit, &oom));
    }
    if let Some(why) = blocked::explain(home.id(), exit, child.pid.as_raw()) {
        global.log.notice(&why);
    }
    if !keep {
        // Others may have deleted it meanwhile, and even made another of that name.
        if let Ok(_lock) = home.lock()
            && !matches!(home.load(), Ok(Some(now)) if now.created != state.created)
        {
            super::delete::remove(global, &home, Some(&state), cgroup)?;
        }
    }
    Ok(exit.status())
}

fn oom_text(id: &str, exit: Exit, oom: &OomReport) -> String {
    let limit = oom
        .limit_bytes
        .map_or("of its cgroup".to_owned(), |limit| format!("of {}", report::bytes(limit)));
    let peak =
        oom.peak_bytes.map_or(String::new(), |peak| format!(" (peak {})", report::bytes(peak)));
    if exit == Exit::Signal(9) {
        return format!("container {id} was killed: it exceeded its memory limit {limit}{peak}");
    }
    let (processes, verb) =
        if oom.kills == 1 { ("a process", "was") } else { ("processes", "were") };
    format!(
        "{processes} of container {id} {verb} killed: it exceeded its memory limit {limit}{peak}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_about_memory_names_limit_and_peak() {
        let oom = OomReport { kills: 1, limit_bytes: Some(512 << 20), peak_bytes: Some(512 << 20) };
        assert_eq!(
            oom_text("web", Exit::Signal(9), &oom),
            "container web was killed: it exceeded its memory limit of 512 MiB (peak 512 MiB)"
        );
        let survived = oom_text("web", Exit::Code(0), &OomReport { peak_bytes: None, ..oom });
        assert!(survived.starts_with("a process of container web"), "{survived}");
    }
}
