//! `cargo xtask clients`: what Docker, Podman and containerd do with runc, crun and minirun.
//!
//! Each engine has a guest of its own, one after the other: an emulated processor is enough for one.
//! The tables that the tests print are those of `docs/operating/clients.md`. It takes about two
//! hours where guests are emulated, and is therefore no part of `cargo xtask test`.

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

/// How long one engine may take, in seconds.
const SECONDS: &str = "14400";

/// Runs the named engines, or all.
pub(crate) fn run(names: &[&str]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| !ENGINES.contains(name)) {
        bail!("there are no tests of {unknown}; there are {}", ENGINES.join(", "));
    }
    let artefacts = artefacts(&["minirun", "rootfs-tools"])?;
    let mut behind = Vec::new();
    for name in if names.is_empty() { &ENGINES[..] } else { names } {
        let mut guest = Command::new(artefacts.join("vm"));
        guest.args(["run", "--kernel", "6.12", "--profile", "docker", "--memory", "3072"]);
        // Everything with everything, and what a person asks for on top of it.
        guest.args(["--timeout", SECONDS, "--env", "MINIRUN_TESTS_ALL=1"]);
        if let Ok(operation) = std::env::var("MINIRUN_TESTS_OPERATION") {
            guest.args(["--env", &format!("MINIRUN_TESTS_OPERATION={operation}")]);
        }
        guest.arg("--share").arg(&artefacts).arg("--").arg(artefacts.join("minirun-tests"));
        guest.args(["--exact", &format!("clients::{name}")]);
        let status = guest.status().with_context(|| format!("run {guest:?}"))?;
        if !status.success() {
            behind.push(*name);
        }
    }
    match behind.as_slice() {
        [] => Ok(()),
        names => bail!("minirun is behind, or the engine did not run: {}", names.join(", ")),
    }
}
