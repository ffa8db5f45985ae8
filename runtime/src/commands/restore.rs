//! `minirun restore`: make a container of the files of a checkpoint.

use clap::{ArgMatches, Command};
use linux::signal::Signals;

use super::arguments::{
    bundle_argument, flag, id_argument, id_of, path_of, path_value, text_of, value,
};
use super::checkpoint::{asked, common_arguments};
use super::create::{bundle_of, plan_of};
use super::run::{Attended, stand_by};
use super::verb::{Global, Verb};
use crate::container::create::Options;
use crate::container::restore::{check_profile, restore};
use crate::error::{Error, Result};
use crate::spec;

pub(super) const VERB: Verb = Verb {
    name: "restore",
    about: "Make a container of the files of a checkpoint, with CRIU",
    arguments,
    run,
    enters_containers: false,
    failure_status: 1,
};

fn arguments(command: Command) -> Command {
    command
        .arg(bundle_argument())
        .args(common_arguments())
        .arg(path_value("console-socket", "SOCKET", "Send the terminal's master to this socket"))
        .arg(path_value("pid-file", "FILE", "Write the first process's number to this file"))
        .arg(flag("detach", "Return when the program runs").short('d'))
        .arg(flag("keep", "Do not delete the container after its end"))
        .arg(flag("no-subreaper", "Accepted: minirun never becomes a subreaper"))
        .arg(flag("no-pivot", "Accepted: CRIU changes the root in its own way"))
        .arg(flag("tcp-close", "Close TCP connections that the checkpoint holds"))
        .arg(value("lsm-profile", "KIND:NAME", "Another profile of AppArmor or SELinux"))
        .arg(value("lsm-mount-context", "CONTEXT", "Another SELinux context for mounts"))
        .arg(id_argument())
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let mut asked = asked(matches)?;
    asked.criu.tcp_close = matches.get_flag("tcp-close");
    asked.criu.lsm_profile = text_of(matches, "lsm-profile").map(str::to_owned);
    asked.criu.lsm_mount_context = text_of(matches, "lsm-mount-context").map(str::to_owned);
    check_profile(asked.criu.lsm_profile.as_deref())?;
    let bundle = bundle_of(path_of(matches, "bundle"))?;
    let loaded = spec::load(&bundle)?;
    loaded.warnings.iter().for_each(|warning| global.log.warning(warning));
    let plan = plan_of(&loaded.spec, id_of(matches), &bundle)?;
    let detach = matches.get_flag("detach");
    let console_socket = path_of(matches, "console-socket");
    if plan.process.terminal && detach && console_socket.is_none() {
        return Err(Error::Config(
            "cannot allocate tty if minirun will detach without setting console socket".into(),
        ));
    }
    let capture = || Signals::capture().map_err(Error::kernel("capture signals"));
    let signals = if detach { None } else { Some(capture()?) };
    let options = Options {
        home: global.state_root()?.make(&plan.id)?,
        config: &loaded.bytes,
        files: &[],
        wait_for_start: false,
        keep_namespaces: false,
        foreground: !detach,
        console_socket,
        pidfd_socket: None,
        pid_file: path_of(matches, "pid-file"),
        no_pivot: false,
        no_new_keyring: false,
        preserve_fds: 0,
        manager: global.manager,
    };
    let restored = restore(&plan, &options, &asked)?;
    plan.warnings.iter().for_each(|warning| global.log.warning(warning));
    let Some(signals) = signals else { return Ok(0) };
    let attended = Attended {
        home: restored.home,
        lock: restored.lock,
        state: restored.state,
        child: restored.child,
        terminal: restored.terminal,
        cgroup: restored.cgroup,
    };
    stand_by(global, attended, (&signals, None), matches.get_flag("keep"))
}
