//! `cargo xtask clients`: what Docker, Podman and containerd do with runc, crun and minirun.
//!
//! Each engine has a guest of its own, one after the other: an emulated processor is enough for one.
//! The tables that the tests print are those of `docs/operating/clients.md`. It takes hours where
//! guests are emulated, and is therefore no part of `cargo xtask test`.
//!
//! With `--here` those that need no systemd run on this machine instead, in minutes: in a mount and
//! a network namespace of their own, so that the host's own engines, networks and files are left
//! alone. Only control groups are the host's; those that the engines leave are removed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::test::artefacts;

/// The tests of the suite `clients`.
const ENGINES: [&str; 7] = [
    "containerd",
    "containerd_cri",
    "docker_swarm",
    "docker_remapped",
    "docker_images",
    "podman",
    "docker",
];

/// Those of `--here`.
const HERE: [&str; 3] = ["containerd", "podman", "docker"];

/// Makes the place for an engine on this machine, runs the test in it, and tidies up.
const PLACE: &str = r#"
ip link set lo up
for dir in /run /var/lib; do mount -t tmpfs tmpfs $dir; done
mkdir -p /run/etc/upper /run/etc/work /run/tmp
export TMPDIR=/run/tmp
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc
# crun refuses v1 groups while it sees a v2 tree with a controller beside them.
if test -d /sys/fs/cgroup/unified; then
    mkdir /run/unified
    mount --bind /sys/fs/cgroup/unified /run/unified
    mount -t tmpfs tmpfs /sys/fs/cgroup/unified
fi
# The parents of the engines' groups; a host's own engine may have them too.
groups() {
    for name in docker libpod_parent default; do
        ls -d /sys/fs/cgroup/$name /sys/fs/cgroup/*/$name /run/unified/$name 2>/dev/null || true
    done
}
before=$(groups)
status=0
"$@" || status=$?
for group in $(groups); do
    echo "$before" | grep -qx "$group" && continue
    find $group -depth -type d -exec rmdir {} + 2>/dev/null || true
done
exit $status
"#;

/// How long one engine may take, in seconds.
const SECONDS: &str = "14400";

/// Runs the named engines, or all.
pub(crate) fn run(names: &[&str]) -> Result<()> {
    let (here, names) = match names.split_first() {
        Some((&"--here", names)) => (true, names),
        _ => (false, names),
    };
    let engines = if here { &HERE[..] } else { &ENGINES[..] };
    if let Some(unknown) = names.iter().find(|name| !engines.contains(name)) {
        bail!("there are no such tests of {unknown}; there are {}", engines.join(", "));
    }
    let names = if names.is_empty() { engines } else { names };
    if here {
        for name in names {
            let program = if *name == "podman" { "podman" } else { "dockerd" };
            let path = std::env::var_os("PATH").unwrap_or_default();
            if !std::env::split_paths(&path).any(|directory| directory.join(program).exists()) {
                bail!("{program} is not installed: apt-get install docker.io podman crun runc");
            }
        }
    }
    let artefacts = artefacts(&["minirun", "rootfs-tools"])?;
    let mut behind = Vec::new();
    for name in names {
        let mut run = if here { on_this_machine() } else { in_a_guest(&artefacts) };
        run.arg(artefacts.join("minirun-tests")).args(["--exact", &format!("clients::{name}")]);
        let status = run.status().with_context(|| format!("run {run:?}"))?;
        if !status.success() {
            behind.push(*name);
        }
    }
    match behind.as_slice() {
        [] => Ok(()),
        names => bail!("minirun is behind, or the engine did not run: {}", names.join(", ")),
    }
}

/// What a test is run with to have everything with everything, and what a person asks for on top.
fn wishes() -> Vec<(&'static str, String)> {
    let mut wishes = vec![("MINIRUN_TESTS_ALL", "1".to_string())];
    let only = std::env::var("MINIRUN_TESTS_OPERATION").ok();
    wishes.extend(only.map(|operation| ("MINIRUN_TESTS_OPERATION", operation)));
    wishes
}

fn on_this_machine() -> Command {
    let mut place = Command::new("unshare");
    place.args(["--mount", "--net", "--propagation", "private"]);
    // Whatever the engines leave running ends with the first process.
    place.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", PLACE, "sh"]);
    place.envs(wishes()).env("MINIRUN_TESTS_HERE", "1");
    place
}

fn in_a_guest(artefacts: &Path) -> Command {
    let mut guest = Command::new(artefacts.join("vm"));
    guest.args(["run", "--kernel", "6.12", "--profile", "docker", "--memory", "3072"]);
    guest.args(["--timeout", SECONDS]);
    for (name, value) in wishes() {
        guest.args(["--env", &format!("{name}={value}")]);
    }
    guest.arg("--share").arg(artefacts).arg("--");
    guest
}
