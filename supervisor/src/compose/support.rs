//! What a service may say here: what has an effect, what is refused, what is warned about.
//!
//! Everything that is not listed is refused at its place in the file.

use anyhow::Result;
use minisup_compose::model::{self, Deploy, IpcMode, Mode, NetworkMode, PortMode, Rollout};

use super::Place;

/// The keys of a service that have an effect here, or need none.
const KEYS: [&str; 66] = [
    "annotations",
    "attach",
    "blkio_config",
    "build",
    "cap_add",
    "cap_drop",
    "cgroup",
    "cgroup_parent",
    "command",
    "configs",
    "container_name",
    "cpu_period",
    "cpu_quota",
    "cpu_shares",
    "cpuset",
    "depends_on",
    "deploy",
    "device_cgroup_rules",
    "devices",
    "dns",
    "dns_opt",
    "dns_search",
    "domainname",
    "entrypoint",
    "environment",
    "expose",
    "extra_hosts",
    "group_add",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "ipc",
    "labels",
    "logging",
    "mem_swappiness",
    "memswap_limit",
    "network_mode",
    "networks",
    "oom_kill_disable",
    "oom_score_adj",
    "pid",
    "platform",
    "ports",
    "post_start",
    "pre_stop",
    "privileged",
    "profiles",
    "pull_policy",
    "read_only",
    "runtime",
    "secrets",
    "security_opt",
    "shm_size",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "user",
    "userns_mode",
    "uts",
    "volumes",
    "working_dir",
];
/// The keys of `deploy` that have an effect here, or need none.
const DEPLOY_KEYS: [&str; 9] = [
    "endpoint_mode",
    "labels",
    "mode",
    "placement",
    "replicas",
    "resources",
    "restart_policy",
    "rollback_config",
    "update_config",
];

impl Place<'_> {
    /// Refuses what the service says and this supervisor cannot do.
    pub(super) fn check(&self, service: &model::Service) -> Result<()> {
        let said = serde_json::to_value(service)?;
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().into_iter().flat_map(|map| map.keys().cloned()).collect()
        };
        let unknown = |key: &&String| !KEYS.contains(&key.as_str()) && !key.starts_with("x-");
        let mut missing: Vec<String> = keys(&said).iter().filter(unknown).cloned().collect();
        let deploy = keys(&said["deploy"]);
        missing.extend(
            deploy
                .iter()
                .filter(|key| !DEPLOY_KEYS.contains(&key.as_str()))
                .map(|key| format!("deploy.{key}")),
        );
        self.check_extension(&service.minisup)?;
        if service.runtime.as_ref().is_some_and(|name| name != "minirun") {
            let remedy = "leave it out, and give `up --runtime` for the whole project";
            return Err(self.refuse("runtime", "one runtime serves all of a project", remedy));
        }
        if !matches!(service.deploy.mode, Mode::Replicated | Mode::Global) {
            missing.push("deploy.mode".to_string());
        }
        match missing.first() {
            None => Ok(()),
            Some(key) => Err(self.refuse(key, "is not supported yet", "leave it out")),
        }
    }

    /// What is understood and does nothing.
    pub(super) fn without_effect(&self, service: &model::Service) -> Vec<String> {
        const STILL: &str = "an update that fails stands still";
        let bare = |asked: &Rollout| Rollout { parallelism: 1, order: None, ..asked.clone() };
        let deploy = &service.deploy;
        let mut found = Vec::new();
        let mut warn = |key: &str, message: &str, remedy: &str| {
            found.push(self.project.warning_at(&self.path(key), message, remedy).to_string());
        };
        if bare(&deploy.update_config) != bare(&Rollout::default()) {
            let message = "only parallelism and order have an effect yet";
            warn("deploy.update_config", message, STILL);
        }
        if deploy.rollback_config != Deploy::default().rollback_config {
            warn("deploy.rollback_config", "has no effect yet", STILL);
        }
        if let Some(NetworkMode::Service(other)) = &service.network_mode
            && service.container_name.is_some()
        {
            let message = format!("is no name in the network, which belongs to `{other}`");
            warn("container_name", &message, "give `aliases` to the service that has the network");
        }
        if service.ipc == Some(IpcMode::Shareable) && service.shm_size.is_some() {
            let message =
                "has no effect with `ipc: shareable`: that memory has no limit of its own";
            warn("shm_size", message, "limit the memory of the containers; it counts for them");
        }
        if service.ports.iter().any(|port| port.mode == PortMode::Host) {
            let remedy = "the client's address is in X-Forwarded-For, or comes with `send_proxy`";
            warn("ports", "on one host `mode: host` is a port like any other", remedy);
        }
        found
    }
}
