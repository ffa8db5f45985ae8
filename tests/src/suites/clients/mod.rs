//! Real clients: Docker, Podman and containerd drive `runc`, `crun` and minirun through the same
//! operations. minirun must do everything that either of the others does.
//!
//! ```text
//! engines.ops       what Docker and Podman are asked to do, and what is right
//! containerd.ops    the same for ctr
//! cri.ops           the same for containerd's CRI, which Kubernetes speaks
//! operations.rs     how those files are read
//! matrix.rs         each operation with each runtime: the table
//! engines.rs        the engines themselves: configured, started, given an image
//! daemons.rs        how their daemons are started, with systemd and without
//! swarm.rs          Docker Swarm on minirun
//! images.rs         images that Docker made
//! ```
//! They run in a guest (`cargo xtask clients`), where nothing else uses the engines; some also in
//! namespaces of their own on the host (`cargo xtask clients --here`).

mod daemons;
mod engines;
mod images;
mod matrix;
mod operations;
mod swarm;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::needs::Need;
use crate::world::World;
use crate::{Test, programs, test};
use matrix::Client;

pub(super) fn tests() -> Vec<Test> {
    let engine = |name, program, body: fn(&World)| {
        let alone = move |world: &World| {
            let _alone = alone();
            body(world);
        };
        let test = test(name, alone).needs(Need::Program(program));
        // Those of xtask's `--here`, which has prepared everything.
        match std::env::var_os("MINIRUN_TESTS_HERE") {
            Some(_) => test,
            None => test.needs(Need::Systemd),
        }
    };
    vec![
        engine("docker_swarm", "dockerd", swarm::heals),
        engine("containerd", "ctr", containerd),
        engine("containerd_cri", "ctr", containerd_cri),
        engine("docker", "dockerd", docker),
        engine("docker_remapped", "dockerd", docker_remapped),
        engine("docker_images", "dockerd", images::saved_and_loaded),
        engine("podman", "podman", podman),
    ]
}

/// One test at a time: they share the daemons of the machine, and its processor.
fn alone() -> MutexGuard<'static, ()> {
    static DAEMONS: Mutex<()> = Mutex::new(());
    DAEMONS.lock().unwrap_or_else(PoisonError::into_inner)
}

const DOCKER_OR_PODMAN: &str = include_str!("engines.ops");
const CONTAINERD: &str = include_str!("containerd.ops");
const CRI: &str = include_str!("cri.ops");

/// The version of the cgroup trees, as some operations have it for their engine.
fn cgroups() -> &'static str {
    if Need::CgroupV2.is_met() { "v2" } else { "v1" }
}

fn docker(world: &World) {
    // What is experimental is `docker checkpoint`.
    let _docker = engines::docker(world, "\"default-runtime\": \"runc\", \"experimental\": true");
    let mut kinds = vec!["docker", cgroups()];
    kinds.extend(Need::Criu.is_met().then_some("docker with criu"));
    let operations = operations::of(DOCKER_OR_PODMAN, &kinds, true);
    matrix::compare(world, "Docker", &operations, docker_client);
}

/// Docker has one user namespace for all of a daemon's containers.
fn docker_remapped(world: &World) {
    let _docker = engines::docker(world, "\"userns-remap\": \"user\"");
    let operations = operations::of(DOCKER_OR_PODMAN, &["docker-remapped"], false);
    matrix::compare(world, "Docker, userns-remap", &operations, docker_client);
}

fn docker_client(runtime: &str) -> Client {
    Client {
        engine: "docker".to_owned(),
        isolated: format!("--runtime {runtime} --network none"),
        networked: format!("--runtime {runtime}"),
        remove: "docker rm -f".to_owned(),
    }
}

fn podman(world: &World) {
    engines::podman(world);
    let mut kinds = vec!["podman", cgroups()];
    kinds.extend(daemons::has_systemd().then_some("podman with systemd"));
    kinds.extend(Need::Criu.is_met().then_some("podman with criu"));
    let operations = operations::of(DOCKER_OR_PODMAN, &kinds, true);
    matrix::compare(world, "Podman", &operations, |runtime| Client {
        // Podman takes the runtime before the verb.
        engine: format!("podman --runtime {runtime}"),
        isolated: "--network none".to_owned(),
        networked: String::new(),
        remove: "podman rm -f -t 0".to_owned(),
    });
}

fn containerd(world: &World) {
    let _docker = engines::docker(world, "\"default-runtime\": \"runc\"");
    engines::image_for_containerd(world);
    let mut kinds = vec!["containerd", cgroups()];
    kinds.extend(Need::Criu.is_met().then_some("containerd with criu"));
    let operations = operations::of(CONTAINERD, &kinds, true);
    matrix::compare(world, "containerd (ctr)", &operations, |runtime| {
        let program = match runtime {
            "minirun" => programs::minirun(),
            other => programs::find(other).expect("it is installed"),
        };
        Client {
            engine: "ctr".to_owned(),
            isolated: format!("--runc-binary {}", program.display()),
            networked: String::new(),
            remove: "remove_task".to_owned(),
        }
    });
}

fn containerd_cri(world: &World) {
    let _containerd = engines::containerd_with_cri(world);
    let operations = operations::of(CRI, &["containerd", cgroups()], true);
    matrix::compare(world, "containerd (CRI)", &operations, |runtime| Client {
        engine: programs::cri().display().to_string(),
        isolated: runtime.to_owned(),
        networked: String::new(),
        remove: "remove_pods".to_owned(),
    });
}
