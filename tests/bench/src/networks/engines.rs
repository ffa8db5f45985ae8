//! The engines, and how each is asked for a container with and without its bridge.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::call;
use crate::peers::Peer;
use crate::work::Workshop;

/// How long Docker's daemon may take to start, also in an emulated guest.
const PATIENCE: Duration = Duration::from_secs(240);

/// One way to start a container.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) name: String,
    program: String,
    /// The words before the network.
    before: Vec<String>,
    /// What chooses loopback only, and the bridge.
    networks: [&'static str; 2],
    after: Vec<String>,
}

impl Engine {
    /// A start and an end of the program that does nothing.
    pub(crate) fn command(&self, network: bool) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.before).arg(self.networks[usize::from(network)]).args(&self.after);
        command
    }
}

/// Docker's daemon, as long as this value lives.
#[derive(Debug)]
pub(crate) struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // SIGTERM, so that it ends what it has started.
        drop(Command::new("kill").arg(self.0.id().to_string()).status());
        drop(self.0.wait());
    }
}

/// The engines that work here; the others are named.
pub(crate) fn find(minirun: &Path, workshop: &Workshop) -> Result<(Vec<Engine>, Option<Daemon>)> {
    let peer = Peer {
        name: "minirun",
        program: minirun.to_owned(),
        version: String::new(),
        is_runtime: true,
    };
    let bundle = workshop.make_bundle(&peer)?;
    let directory = bundle.parent().context("a bundle is in a directory")?.to_owned();
    let mut wanted = vec![Engine {
        name: "minirun".into(),
        program: text(minirun),
        before: words(&["--root", &text(&directory.join("net-state")), "run"]),
        networks: ["--net=none", "--net=bridge"],
        after: words(&["--name", "noop", &text(&bundle)]),
    }];
    let runtimes = [text(minirun), "crun".into(), "runc".into()];
    wanted.extend(runtimes.iter().map(|runtime| podman(runtime, &directory, &bundle)));
    let daemon = match docker(minirun, &directory, &bundle) {
        Ok((daemon, engines)) => {
            wanted.extend(engines);
            Some(daemon)
        }
        Err(error) => {
            println!("{:<16} cannot run here: {error:#}", "docker");
            None
        }
    };
    let mut able = Vec::new();
    for engine in wanted {
        let tried = [false, true].into_iter().try_for_each(|on| call(&mut engine.command(on)));
        match tried {
            Ok(()) => able.push(engine),
            Err(error) if engine.name == "minirun" => return Err(error).context("try minirun"),
            Err(error) => println!("{:<16} cannot run here: {error:#}", engine.name),
        }
    }
    Ok((able, daemon))
}

fn podman(runtime: &str, directory: &Path, bundle: &Path) -> Engine {
    let below = |name: &str| text(&directory.join(name));
    let name = Path::new(runtime).file_name().unwrap_or_default().to_string_lossy();
    let state = ["--root", &below("podman"), "--runroot", &below("podman-run")];
    // Nothing of systemd's is to be seen in the namespaces.
    let quiet = ["--cgroup-manager", "cgroupfs", "--events-backend", "none", "--storage-driver"];
    // Its own default is more than root may have on every machine.
    let ulimits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
    let how = ["vfs", "--runtime", runtime, "run", "--rm"];
    Engine {
        name: format!("podman, {name}"),
        program: "podman".into(),
        before: words(&[&state[..], &quiet, &how, &ulimits].concat()),
        networks: ["--network=none", "--network=bridge"],
        after: words(&["--rootfs", &text(&bundle.join("rootfs")), "/bin/noop"]),
    }
}

/// A daemon of our own, which sees only this host.
fn docker(minirun: &Path, directory: &Path, bundle: &Path) -> Result<(Daemon, Vec<Engine>)> {
    let below = |name: &str| text(&directory.join(name));
    let socket = format!("unix://{}", below("docker.sock"));
    let child = Command::new("dockerd")
        .args(["--host", &socket, "--data-root", &below("docker"), "--storage-driver", "vfs"])
        .args(["--exec-root", &below("docker-run"), "--pidfile", &below("docker.pid")])
        .args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--add-runtime"])
        .arg(format!("minirun={}", minirun.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(directory.join("docker.log"))?)
        .spawn()
        .context("dockerd")?;
    let mut daemon = Daemon(child);
    let client = || {
        let mut command = Command::new("docker");
        command.args(["--host", &socket]);
        command
    };
    let begun = Instant::now();
    while call(client().arg("version")).is_err() {
        if begun.elapsed() > PATIENCE {
            bail!("dockerd does not answer after {PATIENCE:?}");
        }
        if let Some(status) = daemon.0.try_wait()? {
            let log = std::fs::read_to_string(directory.join("docker.log")).unwrap_or_default();
            bail!("dockerd: {status}: {}", log.lines().last().unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let archive = below("image.tar");
    call(Command::new("tar").args(["-C", &text(&bundle.join("rootfs")), "-cf", &archive, "."]))?;
    call(client().args(["import", &archive, "noop"]))?;
    let engine = |runtime: &str| Engine {
        name: format!("docker, {runtime}"),
        program: "docker".into(),
        before: words(&["--host", &socket, "run", "--rm", "--runtime", runtime]),
        networks: ["--network=none", "--network=bridge"],
        after: words(&["noop", "/bin/noop"]),
    };
    Ok((daemon, ["minirun", "runc"].map(engine).into()))
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|word| (*word).to_owned()).collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
