//! What is measured: the same bundle and the same operations for everybody.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use linux::seccomp::SockFilter;
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use crate::peers::Peer;

/// The file with the floor's filter.
const FILTER: &str = "filter.bpf";

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Run,
    Lifecycle,
    Exec,
    State,
    Kill,
}

impl Operation {
    pub(crate) const ALL: [Self; 5] =
        [Self::Run, Self::Lifecycle, Self::Exec, Self::State, Self::Kill];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Lifecycle => "create + start + delete",
            Self::Exec => "exec",
            Self::State => "state",
            Self::Kill => "kill",
        }
    }

    /// Whether it needs a container that runs.
    fn needs_container(self) -> bool {
        matches!(self, Self::Exec | Self::State | Self::Kill)
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let first = |operation: Self| operation.name().split(' ').next().unwrap_or_default();
        let found = Self::ALL.into_iter().find(|operation| first(*operation) == text);
        found
            .or((text == "lifecycle").then_some(Self::Lifecycle))
            .ok_or_else(|| "one of run, lifecycle, exec, state, kill".to_owned())
    }
}

/// A directory with the programs and a bundle for each peer, removed at the end.
#[derive(Debug)]
pub(crate) struct Workshop {
    directory: PathBuf,
    config: Value,
}

impl Workshop {
    /// Compiles the C programs and asks minirun for its default configuration, which everybody
    /// gets.
    pub(crate) fn open(minirun: &Path) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("minirun-bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
        for name in ["noop", "pause", "floor"] {
            let built = option_env_dir().map(|dir| dir.join(name)).filter(|file| file.exists());
            match built {
                Some(file) => drop(std::fs::copy(file, directory.join(name))?),
                None => call(
                    Command::new("cc")
                        .args(["-O2", "-static", "-o"])
                        .arg(directory.join(name))
                        .arg(sources.join(format!("{name}.c"))),
                )?,
            }
        }
        call(Command::new(minirun).arg("spec").arg("--bundle").arg(&directory))?;
        let text = std::fs::read(directory.join("config.json"))?;
        let config: Value = serde_json::from_slice(&text)?;
        std::fs::write(directory.join(FILTER), filter(&config)?)?;
        Ok(Self { directory, config })
    }

    pub(crate) fn floor(&self) -> PathBuf {
        self.directory.join("floor")
    }

    /// Makes a peer's bundle and runs it once.
    pub(crate) fn try_out(&self, peer: &Peer) -> Result<()> {
        self.bundle(peer, "noop")?;
        self.bundle(peer, "pause")?;
        call(&mut self.run(peer))
    }

    /// A bundle with the program that does nothing.
    pub(crate) fn make_bundle(&self, peer: &Peer) -> Result<PathBuf> {
        self.bundle(peer, "noop")?;
        Ok(self.bundle_dir(peer, "noop"))
    }

    fn bundle(&self, peer: &Peer, program: &str) -> Result<()> {
        let bundle = self.bundle_dir(peer, program);
        std::fs::create_dir_all(bundle.join("rootfs/bin"))?;
        for file in ["noop", "pause"] {
            std::fs::copy(self.directory.join(file), bundle.join("rootfs/bin").join(file))?;
        }
        let mut config = self.config.clone();
        config["process"]["args"] = json!([format!("/bin/{program}")]);
        // runc and youki would put a relative path below the caller's own group.
        config["linux"]["cgroupsPath"] = json!(format!("/minirun-bench/{}-{program}", peer.name));
        // What every peer of the last years accepts.
        config["ociVersion"] = json!("1.0.2");
        config["linux"]["resources"]["memory"] = json!({"limit": 512 << 20});
        std::fs::write(bundle.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
        Ok(())
    }

    fn bundle_dir(&self, peer: &Peer, program: &str) -> PathBuf {
        self.directory.join(format!("{}-{program}", peer.name))
    }

    fn command(&self, peer: &Peer, verb: &str) -> Command {
        let mut command = Command::new(&peer.program);
        command.arg("--root").arg(self.directory.join(format!("{}-state", peer.name))).arg(verb);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// A whole run of the no-op program.
    pub(crate) fn run(&self, peer: &Peer) -> Command {
        if !peer.is_runtime {
            let mut command = Command::new(&peer.program);
            let rootfs = self.directory.join("minirun-noop/rootfs");
            command.arg(rootfs).args(["/bin/noop", "bench"]).arg(self.directory.join(FILTER));
            return command;
        }
        let mut command = self.command(peer, "run");
        command.arg("--bundle").arg(self.bundle_dir(peer, "noop")).arg("noop");
        // What engines' form of `run` does anyway: the network namespace of config.json, no more.
        command.env("MINIRUN_NET", "none");
        command
    }

    /// The command whose memory and syscalls are counted for an operation.
    pub(crate) fn typical(&self, operation: Operation, peer: &Peer) -> Option<Command> {
        match operation {
            Operation::Run => Some(self.run(peer)),
            Operation::Lifecycle => None,
            _ => Some(self.on_container(operation, peer)),
        }
    }

    fn on_container(&self, operation: Operation, peer: &Peer) -> Command {
        match operation {
            Operation::Exec => {
                let mut command = self.command(peer, "exec");
                command.args(["pause", "/bin/noop"]);
                command
            }
            Operation::State => {
                let mut command = self.command(peer, "state");
                command.arg("pause");
                command
            }
            _ => {
                let mut command = self.command(peer, "kill");
                // A signal that a running process does not notice.
                command.args(["pause", "CONT"]);
                command
            }
        }
    }

    /// Starts what the operation needs.
    pub(crate) fn prepare(&self, operation: Operation, peer: &Peer) -> Result<()> {
        if !operation.needs_container() {
            return Ok(());
        }
        let mut command = self.command(peer, "run");
        command.arg("--detach").arg("--bundle").arg(self.bundle_dir(peer, "pause")).arg("pause");
        // Its streams would keep a pipe of ours open.
        call(command.stderr(Stdio::null()))
    }

    /// Ends what was started.
    pub(crate) fn clean_up(&self, operation: Operation, peer: &Peer) -> Result<()> {
        if !operation.needs_container() {
            return Ok(());
        }
        call(self.command(peer, "delete").args(["--force", "pause"]))
    }

    /// Does it once and gives the time that it took.
    pub(crate) fn once(&self, operation: Operation, peer: &Peer) -> Result<Duration> {
        match operation {
            Operation::Run => timed(&mut self.run(peer)),
            Operation::Lifecycle => {
                let mut create = self.command(peer, "create");
                create.arg("--bundle").arg(self.bundle_dir(peer, "noop")).arg("noop");
                let created = timed(create.stderr(Stdio::null()))?;
                let started = timed(self.command(peer, "start").arg("noop"))?;
                let deleted = timed(self.command(peer, "delete").args(["--force", "noop"]))?;
                Ok(created + started + deleted)
            }
            _ => timed(&mut self.on_container(operation, peer)),
        }
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// The configuration's system call filter as the kernel takes it, for the floor, which reads no
/// configuration.
fn filter(config: &Value) -> Result<Vec<u8>> {
    let profile: LinuxSeccomp = serde_json::from_value(config["linux"]["seccomp"].clone())
        .context("the default configuration has no system call filter")?;
    let compiled = minirun::seccomp::compile(&profile)?;
    let bytes = |one: &SockFilter| {
        let (code, operand) = (one.code.to_ne_bytes(), one.k.to_ne_bytes());
        [code[0], code[1], one.jt, one.jf, operand[0], operand[1], operand[2], operand[3]]
    };
    Ok(compiled.program.instructions.iter().flat_map(bytes).collect())
}

/// Programs that were compiled before, for a guest that has no compiler.
fn option_env_dir() -> Option<PathBuf> {
    std::env::var_os("MINIRUN_BENCH_PROGRAMS").map(PathBuf::from)
}

fn timed(command: &mut Command) -> Result<Duration> {
    let begun = Instant::now();
    call(command)?;
    Ok(begun.elapsed())
}

fn call(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", output.status, said.trim());
    }
    Ok(())
}
