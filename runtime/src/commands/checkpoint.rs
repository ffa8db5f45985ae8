//! `minirun checkpoint`: save a running container as files.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command};

use super::arguments::{flag, id_argument, path_of, path_value, text_of, value};
use super::create::plan_of;
use super::verb::{Global, Verb, container};
use crate::container::checkpoint::{Asked, What, checkpoint};
use crate::container::state::Status;
use crate::criu::CgroupMode;
use crate::criu::message::Options;
use crate::error::{Error, Result};

pub(super) const VERB: Verb = Verb {
    name: "checkpoint",
    about: "Save a running container as files, with CRIU",
    arguments,
    run,
    enters_containers: false,
    failure_status: 1,
};

/// Where the images are without `--image-path`.
const IMAGES: &str = "checkpoint";

fn arguments(command: Command) -> Command {
    command
        .args(common_arguments())
        .arg(path_value("parent-path", "DIR", "A checkpoint of memory that this one continues"))
        .arg(flag("leave-running", "Let the container go on afterwards"))
        .arg(flag("pre-dump", "Save memory only, ahead of the checkpoint; the container goes on"))
        .arg(flag("tcp-skip-in-flight", "Leave TCP connections out that are being made"))
        .arg(value("page-server", "ADDRESS:PORT", "Not supported: write to files"))
        .arg(value("status-fd", "FD", "Not supported: only used with --lazy-pages"))
        .arg(id_argument())
        .after_help(
            "The container ends and is deleted, unless --leave-running or --pre-dump is given. \
             With an overlay root its writable layer is kept in the bundle for `restore`.",
        )
}

/// The options that `checkpoint` and `restore` share.
pub(super) fn common_arguments() -> Vec<Arg> {
    vec![
        path_value("image-path", "DIR", "Where the files of the checkpoint are [./checkpoint]"),
        path_value("work-path", "DIR", "Where CRIU's log goes [the same directory]"),
        flag("tcp-established", "Keep TCP connections"),
        flag("ext-unix-sk", "Allow Unix sockets that are connected to others outside"),
        flag("shell-job", "Allow a terminal of the host"),
        flag("file-locks", "Keep file locks"),
        flag("link-remap", "Allow files that have been deleted and have other names"),
        flag("auto-dedup", "Remove memory from a parent checkpoint that is in this one"),
        flag("lazy-pages", "Not supported: memory is saved and restored at once"),
        value("manage-cgroups-mode", "MODE", "How CRIU treats cgroups [ignore: minirun does]")
            .value_parser(["ignore", "soft", "full", "strict"]),
        value("empty-ns", "KIND", "Leave the content of this namespace out")
            .value_parser(["network"]),
        value("network-lock", "BY", "How connections are held meanwhile")
            .value_parser(["iptables", "nftables"]),
    ]
}

/// What the shared options mean.
pub(super) fn asked(matches: &ArgMatches) -> Result<Asked> {
    let unsupported = |what: &str, instead: &str| {
        Err(Error::Unsupported(format!("{what} is not supported by minirun: {instead}")))
    };
    if matches.get_flag("lazy-pages") {
        return unsupported("--lazy-pages", "memory is saved and restored at once");
    }
    let images = path_of(matches, "image-path").map_or_else(|| PathBuf::from(IMAGES), Into::into);
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).map_err(Error::file(format!("find {}", path.display())))
    };
    let criu = Options {
        tcp_established: matches.get_flag("tcp-established"),
        ext_unix_sk: matches.get_flag("ext-unix-sk"),
        shell_job: matches.get_flag("shell-job"),
        file_locks: matches.get_flag("file-locks"),
        link_remap: matches.get_flag("link-remap"),
        auto_dedup: matches.get_flag("auto-dedup"),
        network_lock: text_of(matches, "network-lock")
            .map(|by| if by == "nftables" { 2 } else { 1 }),
        ..Options::default()
    };
    Ok(Asked {
        images: absolute(images)?,
        work: path_of(matches, "work-path").map(|path| absolute(path.into())).transpose()?,
        parent: None,
        cgroups: text_of(matches, "manage-cgroups-mode").map(CgroupMode::named),
        empty_network: text_of(matches, "empty-ns").is_some(),
        criu,
    })
}

fn run(global: &Global, matches: &ArgMatches) -> Result<i32> {
    let mut asked = asked(matches)?;
    for (name, instead) in
        [("page-server", "write to files"), ("status-fd", "wait for the command's end")]
    {
        if text_of(matches, name).is_some() {
            let text = format!("--{name} is not supported by minirun: {instead}");
            return Err(Error::Unsupported(text));
        }
    }
    asked.criu.tcp_skip_in_flight = matches.get_flag("tcp-skip-in-flight");
    asked.parent = parent_of(matches)?;
    let (home, mut state) = container(global, matches)?;
    let _lock = home.lock()?;
    let status = state.status(&home);
    if !matches!(status, Status::Running | Status::Paused) {
        return Err(Error::WrongState(format!("cannot checkpoint a container that is {status}")));
    }
    let what = if matches.get_flag("pre-dump") { What::Memory } else { What::Everything };
    asked.criu.leave_running = matches.get_flag("leave-running") || what == What::Memory;
    if !asked.criu.leave_running && state.bundle.starts_with(home.path()) {
        return Err(Error::Unsupported(format!(
            "the bundle of {} would be removed with the container: use --leave-running, or a \
             bundle of your own (rootfs-tools bundle)",
            home.id()
        )));
    }
    let config = home.path().join("config.json");
    let bytes =
        std::fs::read(&config).map_err(Error::file(format!("read {}", config.display())))?;
    let (spec, _) = crate::spec::parse(&bytes, &config)?;
    let plan = plan_of(&spec, home.id(), &state.bundle)?;
    checkpoint(&state, &plan, &asked, what)?;
    if !asked.criu.leave_running {
        // What the program has written belongs to the checkpoint.
        state.writable = None;
        home.save(&state)?;
        // CRIU has killed it; its last moment may not be over.
        state.init.and_then(|init| init.open()).map_or(Ok(()), |init| super::delete::end(&init))?;
        super::delete::remove(global, &home, Some(&state), None)?;
    }
    Ok(0)
}

/// The parent of a checkpoint is named by its path below the images, as CRIU wants it.
fn parent_of(matches: &ArgMatches) -> Result<Option<String>> {
    let Some(path) = path_of(matches, "parent-path") else { return Ok(None) };
    match path.to_str() {
        Some(text) if path.is_relative() => Ok(Some(text.to_owned())),
        _ => Err(Error::Config(format!(
            "--parent-path {}: it must be relative to --image-path",
            path.display()
        ))),
    }
}
