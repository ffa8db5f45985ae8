//! `cri`: a small client of the Container Runtime Interface, by which Kubernetes' kubelet drives
//! containerd and CRI-O. The tests use it in guests, for which Debian packages no such client.
//!
//! - `cri runp HANDLER NAME [CGROUP]` runs a pod in the node's network, and prints its id
//! - `cri create POD NAME IMAGE [OPTION…] -- COMMAND…` prints the id of a container; the options are
//!   `memory=BYTES cpu=QUOTA oom=SCORE user=UID read-only no-new-privs share=DIR` (a directory of the
//!   node, at `/v`, that passes mounts both ways)
//! - `cri start ID`, `cri stop ID SECONDS`, `cri rm ID`, `cri stopp POD`, `cri rmp POD`
//! - `cri exec ID COMMAND…` prints what it prints, and ends as it ends
//! - `cri update ID memory=BYTES cpu=QUOTA`
//! - `cri status ID` prints `running`, or `exited STATUS REASON`
//! - `cri stats ID` prints processor time (ns) and memory in use (bytes)
//!
//! `CRI` names the socket.

mod api;
mod call;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use api::{
    ContainerConfig, ContainerLinux, ContainerName, ContainerSecurity, CreateRequest, ExecAnswer,
    ExecRequest, Image, Metadata, Mount, Named, NamespaceOption, Nothing, Number, PodConfig,
    PodLinux, PodSecurity, Resources, RunPodRequest, StatsAnswer, StatusAnswer, StopRequest,
    UpdateRequest, Usage,
};
use prost::Message;

const SOCKET: &str = "/run/containerd/containerd.sock";
/// Where the engine writes what containers say: `POD/NAME.log`.
const LOGS: &str = "/run/cri-logs";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("cri: {error}");
            ExitCode::from(125)
        }
    }
}

fn ask<A: Message + Default>(method: &str, question: &impl Message) -> Result<A, String> {
    let socket = std::env::var_os("CRI").map_or_else(|| PathBuf::from(SOCKET), PathBuf::from);
    call::call(&socket, method, question)
}

fn tell(method: &str, id: &str) -> Result<u8, String> {
    ask::<Nothing>(method, &Named { id: id.into() }).map(|_| 0)
}

fn run(words: &[&str]) -> Result<u8, String> {
    match words {
        ["runp", handler, name, rest @ ..] => {
            let config = Some(pod(name, rest.first().copied().unwrap_or_default()));
            let question = RunPodRequest { config, runtime_handler: (*handler).into() };
            say(&ask::<Named>("RunPodSandbox", &question)?.id)
        }
        ["create", pod, name, image, rest @ ..] => create(pod, name, image, rest),
        ["start", id] => tell("StartContainer", id),
        ["stop", id, seconds] => {
            let timeout = seconds.parse().map_err(|_| format!("{seconds}: no number"))?;
            let question = StopRequest { id: (*id).into(), timeout };
            ask::<Nothing>("StopContainer", &question).map(|_| 0)
        }
        ["rm", id] => tell("RemoveContainer", id),
        ["stopp", id] => tell("StopPodSandbox", id),
        ["rmp", id] => tell("RemovePodSandbox", id),
        ["exec", id, command @ ..] => exec(id, command),
        ["update", id, options @ ..] => {
            let linux = Some(settings(options)?.0);
            let question = UpdateRequest { id: (*id).into(), linux };
            ask::<Nothing>("UpdateContainerResources", &question).map(|_| 0)
        }
        ["status", id] => status(id),
        ["stats", id] => stats(id),
        other => Err(format!("unknown command {other:?}")),
    }
}

fn say(text: &str) -> Result<u8, String> {
    writeln!(std::io::stdout(), "{text}").map(|()| 0).map_err(|error| error.to_string())
}

/// A pod in the node's network, so that no plugin for networks is needed.
fn pod(name: &str, cgroup: &str) -> PodConfig {
    let namespaces = NamespaceOption { network: api::NODE, pid: api::CONTAINER };
    PodConfig {
        metadata: Some(Metadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
        }),
        log_directory: format!("{LOGS}/{name}"),
        linux: Some(PodLinux {
            cgroup_parent: cgroup.into(),
            security: Some(PodSecurity { namespaces: Some(namespaces) }),
        }),
    }
}

/// Limits and the rest of what may be said of a container.
fn settings(options: &[&str]) -> Result<(Resources, ContainerSecurity), String> {
    let namespaces = NamespaceOption { network: api::NODE, pid: api::CONTAINER };
    let mut resources = Resources::default();
    let mut security = ContainerSecurity {
        namespaces: Some(namespaces),
        seccomp: Some(Nothing {}),
        ..ContainerSecurity::default()
    };
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option, "0"));
        let value: i64 = value.parse().map_err(|_| format!("{option}: no number"))?;
        match name {
            "memory" => resources.memory = value,
            "cpu" => (resources.cpu_period, resources.cpu_quota) = (100_000, value),
            "oom" => resources.oom_score_adj = value,
            "user" => security.user = Some(Number { value }),
            "read-only" => security.read_only_root = true,
            "no-new-privs" => security.no_new_privileges = true,
            _ => return Err(format!("unknown option {option}")),
        }
    }
    Ok((resources, security))
}

/// The pod's name is that of the container up to its last dash.
fn create(id: &str, name: &str, image: &str, rest: &[&str]) -> Result<u8, String> {
    let at = rest.iter().position(|word| *word == "--").ok_or("no -- before the command")?;
    let (shared, options): (Vec<&str>, Vec<&str>) =
        rest[..at].iter().partition(|option| option.starts_with("share="));
    let mounts = shared.iter().map(|option| Mount {
        inside: "/v".into(),
        on_node: option.trim_start_matches("share=").into(),
        propagation: api::BIDIRECTIONAL,
    });
    let (resources, security) = settings(&options)?;
    let linux = ContainerLinux { resources: Some(resources), security: Some(security) };
    let config = ContainerConfig {
        metadata: Some(ContainerName { name: name.into() }),
        image: Some(Image { image: image.into() }),
        command: rest[at + 1..].iter().map(|word| (*word).into()).collect(),
        mounts: mounts.collect(),
        log_path: format!("{name}.log"),
        linux: Some(linux),
    };
    let of_pod = name.rsplit_once('-').map_or(name, |(pod, _)| pod);
    let question =
        CreateRequest { pod: id.into(), config: Some(config), pod_config: Some(pod(of_pod, "")) };
    say(&ask::<Named>("CreateContainer", &question)?.id)
}

fn exec(id: &str, command: &[&str]) -> Result<u8, String> {
    let command = command.iter().map(|word| (*word).into()).collect();
    let question = ExecRequest { id: id.into(), command, timeout: 60 };
    let answer: ExecAnswer = ask("ExecSync", &question)?;
    let written = std::io::stdout().write_all(&answer.output);
    let written = written.and_then(|()| std::io::stderr().write_all(&answer.errors));
    written.map_err(|error| error.to_string())?;
    Ok(u8::try_from(answer.status).unwrap_or(255))
}

fn status(id: &str) -> Result<u8, String> {
    let answer: StatusAnswer = ask("ContainerStatus", &Named { id: id.into() })?;
    let status = answer.status.ok_or("no status")?;
    match status.state {
        0 => say("created"),
        1 => say("running"),
        _ => say(&format!("exited {} {}", status.exit_code, status.reason)),
    }
}

fn stats(id: &str) -> Result<u8, String> {
    let answer: StatsAnswer = ask("ContainerStats", &Named { id: id.into() })?;
    let stats = answer.stats.ok_or("no statistics")?;
    let value = |usage: Option<Usage>| usage.and_then(|u| u.value).map_or(0, |v| v.value);
    say(&format!("{} {}", value(stats.cpu), value(stats.memory)))
}
