//! A service: one image, some replicas, everything they share.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::{
    Attachment, BlkioConfig, Build, CgroupMode, Deploy, Device, DeviceRule, ExposedPort, Grant,
    Healthcheck, Hook, HostAddress, IpcMode, Logging, Mount, NetworkMode, PidMode, PublishedPort,
    SecurityOption, Swap, Tmpfs, Ulimit, unset,
};
use crate::minisup::ServiceExtension;
use crate::quantity::{Bytes, Millis};

/// An entry of the top-level `services`. Field names are the keys of Compose.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Service {
    /// An image of the store, an archive or a bundle directory. With `build` and no `image` it is
    /// `PROJECT-SERVICE`, as other tools name what they build.
    pub image: String,
    /// How the image is made when the store has none.
    #[serde(skip_serializing_if = "unset")]
    pub build: Option<Build>,
    /// Replaces the command of the image; `None` is that of the image, empty is none.
    #[serde(skip_serializing_if = "unset")]
    pub command: Option<Vec<String>>,
    /// Replaces the entry point of the image.
    #[serde(skip_serializing_if = "unset")]
    pub entrypoint: Option<Vec<String>>,
    /// Variables of the process: `environment` over `env_file`.
    #[serde(skip_serializing_if = "unset")]
    pub environment: BTreeMap<String, String>,
    /// What is published on the host.
    #[serde(skip_serializing_if = "unset")]
    pub ports: Vec<PublishedPort>,
    /// What other services use.
    #[serde(skip_serializing_if = "unset")]
    pub expose: Vec<ExposedPort>,
    /// Replicas, resources, restarts, updates.
    pub deploy: Deploy,
    /// `None` is the check of the image.
    #[serde(skip_serializing_if = "unset")]
    pub healthcheck: Option<Healthcheck>,
    /// Default: that of the image, else `SIGTERM`.
    #[serde(skip_serializing_if = "unset")]
    pub stop_signal: Option<String>,
    /// Between that signal and SIGKILL. Default 10 s.
    pub stop_grace_period: Millis,
    /// Labels of the containers: `labels` over `label_file`.
    #[serde(skip_serializing_if = "unset")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the OCI bundle.
    #[serde(skip_serializing_if = "unset")]
    pub annotations: BTreeMap<String, String>,
    /// Services that must be up, or done, before this one.
    #[serde(skip_serializing_if = "unset")]
    pub depends_on: BTreeMap<String, Dependency>,
    /// By the key of the network; `default` where the file names none. Empty with `network_mode`.
    #[serde(skip_serializing_if = "unset")]
    pub networks: BTreeMap<String, Attachment>,
    /// Instead of `networks`.
    #[serde(skip_serializing_if = "unset")]
    pub network_mode: Option<NetworkMode>,
    /// Mounts.
    #[serde(skip_serializing_if = "unset")]
    pub volumes: Vec<Mount>,
    /// Empty directories in memory.
    #[serde(skip_serializing_if = "unset")]
    pub tmpfs: Vec<Tmpfs>,
    /// Below `/run/secrets` unless a target is given.
    #[serde(skip_serializing_if = "unset")]
    pub secrets: Vec<Grant>,
    /// Below `/` unless a target is given.
    #[serde(skip_serializing_if = "unset")]
    pub configs: Vec<Grant>,
    /// Whether `minisup up` in the foreground shows its output. Default true.
    #[serde(skip_serializing_if = "unset")]
    pub attach: Option<bool>,
    /// Block devices.
    #[serde(skip_serializing_if = "unset")]
    pub blkio_config: Option<BlkioConfig>,
    /// Capabilities beyond the usual ones, without `CAP_`.
    #[serde(skip_serializing_if = "unset")]
    pub cap_add: Vec<String>,
    /// Capabilities taken away.
    #[serde(skip_serializing_if = "unset")]
    pub cap_drop: Vec<String>,
    /// The cgroup namespace. Default private.
    #[serde(skip_serializing_if = "unset")]
    pub cgroup: Option<CgroupMode>,
    /// The cgroup that the containers' cgroups are in.
    #[serde(skip_serializing_if = "unset")]
    pub cgroup_parent: Option<String>,
    /// The name of the only container.
    #[serde(skip_serializing_if = "unset")]
    pub container_name: Option<String>,
    /// Share of CPU time, 2 to 262144; 1024 is usual.
    #[serde(skip_serializing_if = "unset")]
    pub cpu_shares: Option<u64>,
    /// CPU time in each period, in microseconds; -1 is without limit.
    #[serde(skip_serializing_if = "unset")]
    pub cpu_quota: Option<i64>,
    /// The period of `cpu_quota`, in microseconds.
    #[serde(skip_serializing_if = "unset")]
    pub cpu_period: Option<u64>,
    /// CPUs it may run on, as `0-3,5`.
    #[serde(skip_serializing_if = "unset")]
    pub cpuset: Option<String>,
    /// Devices it may use beyond `devices`.
    #[serde(skip_serializing_if = "unset")]
    pub device_cgroup_rules: Vec<DeviceRule>,
    /// Device files of the host.
    #[serde(skip_serializing_if = "unset")]
    pub devices: Vec<Device>,
    /// Name servers asked for names that are not of the project.
    #[serde(skip_serializing_if = "unset")]
    pub dns: Vec<IpAddr>,
    /// Options of resolv.conf(5).
    #[serde(skip_serializing_if = "unset")]
    pub dns_opt: Vec<String>,
    /// Search list of resolv.conf(5).
    #[serde(skip_serializing_if = "unset")]
    pub dns_search: Vec<String>,
    /// NIS domain name.
    #[serde(skip_serializing_if = "unset")]
    pub domainname: Option<String>,
    /// Lines of /etc/hosts.
    #[serde(skip_serializing_if = "unset")]
    pub extra_hosts: BTreeMap<String, Vec<HostAddress>>,
    /// Groups of the process beside its own.
    #[serde(skip_serializing_if = "unset")]
    pub group_add: Vec<String>,
    /// Default: the name of the container.
    #[serde(skip_serializing_if = "unset")]
    pub hostname: Option<String>,
    /// A small process 1 that passes signals on and reaps.
    #[serde(skip_serializing_if = "unset")]
    pub init: Option<bool>,
    /// The IPC namespace. Default private.
    #[serde(skip_serializing_if = "unset")]
    pub ipc: Option<IpcMode>,
    /// Files and their rotation.
    pub logging: Logging,
    /// 0 to 100; cgroup v1 only.
    #[serde(skip_serializing_if = "unset")]
    pub mem_swappiness: Option<u8>,
    /// Memory and swap together.
    #[serde(skip_serializing_if = "unset")]
    pub memswap_limit: Option<Swap>,
    /// No OOM killer; only without a memory limit, and with cgroup v1.
    #[serde(skip_serializing_if = "unset")]
    pub oom_kill_disable: bool,
    /// -1000 to 1000, proc_pid_oom_score_adj(5).
    #[serde(skip_serializing_if = "unset")]
    pub oom_score_adj: Option<i16>,
    /// The PID namespace. Default private.
    #[serde(skip_serializing_if = "unset")]
    pub pid: Option<PidMode>,
    /// `linux/ARCH`; that of the host.
    #[serde(skip_serializing_if = "unset")]
    pub platform: Option<String>,
    /// Run in the container when it has started.
    #[serde(skip_serializing_if = "unset")]
    pub post_start: Vec<Hook>,
    /// Run in the container before it is stopped.
    #[serde(skip_serializing_if = "unset")]
    pub pre_stop: Vec<Hook>,
    /// All capabilities and devices, nothing hidden.
    #[serde(skip_serializing_if = "unset")]
    pub privileged: bool,
    /// The service is left out unless one of these is active.
    #[serde(skip_serializing_if = "unset")]
    pub profiles: Vec<String>,
    /// When a missing image is fetched.
    #[serde(skip_serializing_if = "unset")]
    pub pull_policy: PullPolicy,
    /// No writable layer.
    #[serde(skip_serializing_if = "unset")]
    pub read_only: bool,
    /// An OCI runtime: a name in the path, or a path. Default minirun.
    #[serde(skip_serializing_if = "unset")]
    pub runtime: Option<String>,
    /// Seccomp, AppArmor, no_new_privs, hidden paths.
    #[serde(skip_serializing_if = "unset")]
    pub security_opt: Vec<SecurityOption>,
    /// Size of /dev/shm. Default 64 MiB.
    #[serde(skip_serializing_if = "unset")]
    pub shm_size: Option<Bytes>,
    /// Kernel parameters of its namespaces.
    #[serde(skip_serializing_if = "unset")]
    pub sysctls: BTreeMap<String, String>,
    /// An open standard input.
    #[serde(skip_serializing_if = "unset")]
    pub stdin_open: bool,
    /// A terminal.
    #[serde(skip_serializing_if = "unset")]
    pub tty: bool,
    /// Limits of the process.
    #[serde(skip_serializing_if = "unset")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// `USER[:GROUP]`, names of the image or numbers.
    #[serde(skip_serializing_if = "unset")]
    pub user: Option<String>,
    /// Without a user namespace of its own (`userns_mode: host`).
    #[serde(skip_serializing_if = "unset", rename = "userns_mode", serialize_with = "as_host")]
    pub userns_host: bool,
    /// With the host's name (`uts: host`).
    #[serde(skip_serializing_if = "unset", rename = "uts", serialize_with = "as_host")]
    pub uts_host: bool,
    /// Absolute.
    #[serde(skip_serializing_if = "unset")]
    pub working_dir: Option<String>,
    /// What Compose has no word for.
    #[serde(skip_serializing_if = "unset", rename = "x-minisup")]
    pub minisup: ServiceExtension,
    /// Extensions of other tools.
    #[serde(flatten)]
    pub extensions: BTreeMap<String, serde_json::Value>,
    /// Whether the file says when to restart; the project decides otherwise.
    #[serde(skip)]
    pub(super) restart_given: bool,
}

fn as_host<S: serde::Serializer>(_: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("host")
}

/// An entry of `depends_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// What is waited for.
    pub condition: Condition,
    /// Restart this service when the other one is replaced by `minisup up` (not when it crashes).
    #[serde(skip_serializing_if = "unset")]
    pub restart: bool,
    /// Without it, a missing or failing dependency is only reported.
    pub required: bool,
}

/// `condition` of a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Condition {
    /// It has started.
    #[serde(rename = "service_started")]
    Started,
    /// Its health check succeeds.
    #[serde(rename = "service_healthy")]
    Healthy,
    /// It has ended with exit code 0.
    #[serde(rename = "service_completed_successfully")]
    CompletedSuccessfully,
}

/// `pull_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// When the image is not in the store.
    #[default]
    Missing,
    /// Each time; recovery never waits for it.
    Always,
    /// Not at all.
    Never,
    /// It is built each time; steps whose result is known are not done again.
    Build,
}
