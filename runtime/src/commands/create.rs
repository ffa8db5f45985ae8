//! `minirun create`: everything up to the program, which `start` starts.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};
use linux::capability;

use super::arguments::{bundle_argument, flag, id_argument, id_of, path_of, path_value};
use super::verb::{Global, Verb};
use crate::container::create::{Options, create};
use crate::container::handshake::{Heard, Message};
use crate::container::readiness;
use crate::error::{Error, Result};
use crate::explain::Journal;
use crate::plan::{Circumstances, Plan};
use crate::spec;

pub(super) const VERB: Verb = Verb {
    name: "create",
    about: "Create a container that waits to be started",
    arguments,
    run,
    enters_containers: true,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command.args(common_arguments()).arg(id_argument())
}

/// The options that `create` and `run` share.
pub(super) fn common_arguments() -> Vec<Arg> {
    vec![
        bundle_argument(),
        path_value("console-socket", "SOCKET", "Send the terminal's master to this socket"),
        path_value("pidfd-socket", "SOCKET", "Send a pidfd of the first process to this socket"),
        path_value("pid-file", "FILE", "Write the first process's number to this file"),
        flag("no-pivot", "Use chroot instead of pivot_root (for a root on an initramfs)"),
        flag("no-new-keyring", "Leave the session keyring as it is"),
        flag("no-subreaper", "Accepted: minirun never becomes a subreaper"),
        Arg::new("preserve-fds")
            .long("preserve-fds")
            .value_name("N")
            .value_parser(value_parser!(u32))
            .default_value("0")
            .help("Pass N more descriptors to the container"),
    ]
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let bundle = bundle_of(path_of(matches, "bundle"))?;
    let loaded = spec::load(&bundle)?;
    loaded.warnings.iter().for_each(|warning| global.log.warning(warning));
    let mut plan = plan_of(&loaded.spec, id_of(matches), &bundle)?;
    let has_socket = path_of(matches, "console-socket").is_some();
    if plan.process.terminal && !has_socket {
        return Err(Error::Config(
            "cannot allocate tty if minirun will detach without setting console socket".into(),
        ));
    }
    if !plan.process.terminal && has_socket {
        return Err(Error::Config(
            "cannot use console socket if process.terminal is not set".into(),
        ));
    }
    let root = global.state_root()?;
    readiness::pass_on(&mut plan, &root);
    let options = Options {
        home: root.make(&plan.id)?,
        config: &loaded.bytes,
        files: &[],
        wait_for_start: true,
        foreground: false,
        console_socket: path_of(matches, "console-socket"),
        pidfd_socket: path_of(matches, "pidfd-socket"),
        pid_file: path_of(matches, "pid-file"),
        no_pivot: matches.get_flag("no-pivot"),
        no_new_keyring: matches.get_flag("no-new-keyring"),
        preserve_fds: preserved(matches),
        manager: global.manager,
        keep_namespaces: false,
    };
    let created = create(&plan, &options, &mut Journal::parent(None))?;
    plan.warnings.iter().for_each(|warning| global.log.warning(warning));
    created.warnings.iter().for_each(|warning| global.log.warning(warning));
    created.line.say(&Message::Release).map_err(Error::kernel("talk to init"))?;
    // Its end of the line means that it stands on its own feet.
    if let Ok(Heard::Message(Message::Failed(failure), _)) = created.line.hear() {
        return Err(failure.into());
    }
    // This process ends now, which closes everything in one go.
    std::mem::forget(created);
    Ok(0)
}

/// How many descriptors the program keeps: those that were asked for, and systemd's.
pub(super) fn preserved(matches: &ArgMatches) -> u32 {
    let listening = std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok());
    matches.get_one::<u32>("preserve-fds").copied().unwrap_or(0) + listening.unwrap_or(0)
}

/// The bundle's directory, absolute and without links.
pub(super) fn bundle_of(asked: Option<&Path>) -> Result<PathBuf> {
    let path = asked.unwrap_or(Path::new("."));
    linux::path::real_directory(path).map_err(|error| {
        let why = error.errno.desc().to_lowercase();
        Error::Config(format!("bundle {}: {why}", path.display()))
    })
}

/// Decides what the configuration means here and now.
pub(super) fn plan_of(config: &oci_spec::runtime::Spec, id: &str, bundle: &Path) -> Result<Plan> {
    crate::plan::check_id(id)?;
    let privileged = capability::effective()
        .map_err(Error::kernel("read our capabilities"))?
        .contains("CAP_SYS_ADMIN");
    let user = linux::credentials::starting_user();
    Plan::decide(config, &Circumstances { id, bundle, user, privileged })
}
