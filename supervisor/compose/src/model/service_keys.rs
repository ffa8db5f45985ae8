//! Reading a service: each key once, in groups.

use std::collections::BTreeMap;

use super::deploy::{RestartPolicy, Written, read_pids};
use super::network::Attachment;
use super::port::read_ip;
use super::process::{read_hosts, read_signal, read_ulimits};
use super::security::read_capabilities;
use super::{
    BlkioConfig, Build, CgroupMode, Condition, Dependency, Deploy, Device, DeviceRule, ExposedPort,
    Grant, Healthcheck, Hook, IpcMode, Logging, Mode, Mount, NetworkMode, PidMode, PublishedPort,
    PullPolicy, RestartCondition, SecurityOption, Service, Swap, Tmpfs,
};
use crate::field::{Field, Fields};
use crate::findings::Findings;
use crate::minisup::ServiceExtension;
use crate::quantity::Millis;

/// Between the stop signal and SIGKILL, unless the file says otherwise.
const STOP_GRACE: Millis = Millis(10_000);

impl Service {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings, name: &str, project: &str) -> Self {
        let mut f = Fields::open(field, cx);
        let mut service = Self::default();
        service.read_process(&mut f, cx);
        service.read_life(&mut f, cx);
        service.read_networks(&mut f, cx);
        service.read_files(&mut f, cx);
        service.read_confinement(&mut f, cx);
        service.read_resources(&mut f, cx);
        service.read_deploy(&mut f, cx);
        let image = f.get("image", cx, Field::word);
        service.build = f.get("build", cx, Build::read);
        let built = f.map_keys(&["build"]).is_some();
        if image.is_none() && f.map_keys(&["image"]).is_none() && !built {
            let remedy = "add `image:` with a name of the store, an archive or a bundle directory";
            field.error(cx, "the service has no image", remedy);
        }
        service.image = image.unwrap_or_else(|| format!("{project}-{name}"));
        service.minisup =
            f.list("x-minisup", cx, |x, cx| ServiceExtension::read(x, cx).unwrap_or_default());
        service.extensions = f.extensions();
        f.close(cx);
        service
    }

    fn read_process(&mut self, f: &mut Fields<'_>, cx: &mut Findings) {
        self.command = f.get("command", cx, |x, cx| Some(x.texts(cx)));
        self.entrypoint = f.get("entrypoint", cx, |x, cx| Some(x.texts(cx)));
        self.environment = f.list("environment", cx, Field::pairs);
        self.working_dir = f.get("working_dir", cx, Field::word);
        self.user = f.get("user", cx, Field::word);
        self.group_add = f.list("group_add", cx, Field::unique);
        self.hostname = f.get("hostname", cx, read_hostname);
        self.domainname = f.get("domainname", cx, read_hostname);
        self.init = f.get("init", cx, Field::boolean);
        self.tty = f.get("tty", cx, Field::boolean).unwrap_or(false);
        self.stdin_open = f.get("stdin_open", cx, Field::boolean).unwrap_or(false);
        self.platform = f.get("platform", cx, Field::word);
        self.runtime = f.get("runtime", cx, Field::word);
        self.container_name = f.get("container_name", cx, |x, cx| {
            x.parsed(cx, "letters, digits, `_`, `.` and `-`", |text| {
                let word = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
                let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
                (starts && text.chars().all(word)).then(|| text.to_owned())
            })
        });
        self.labels = f.list("labels", cx, Field::pairs);
        self.annotations = f.list("annotations", cx, Field::pairs);
        self.attach = f.get("attach", cx, Field::boolean);
        self.logging = f.list("logging", cx, |x, cx| Logging::read(x, cx).unwrap_or_default());
        self.pull_policy = f.list("pull_policy", cx, read_pull_policy);
    }

    fn read_life(&mut self, f: &mut Fields<'_>, cx: &mut Findings) {
        self.healthcheck = f.get("healthcheck", cx, Healthcheck::read);
        self.stop_signal = f.get("stop_signal", cx, read_signal);
        self.stop_grace_period =
            f.get("stop_grace_period", cx, Field::millis).unwrap_or(STOP_GRACE);
        let hooks = |x: &Field<'_>, cx: &mut Findings| {
            x.items(cx).iter().filter_map(|item| Hook::read(item, cx)).collect()
        };
        self.post_start = f.list("post_start", cx, hooks);
        self.pre_stop = f.list("pre_stop", cx, hooks);
        self.profiles = f.list("profiles", cx, Field::unique);
        self.depends_on = f.list("depends_on", cx, |x, cx| {
            x.named(cx).into_iter().map(|(n, x)| (n.to_owned(), Dependency::read(&x, cx))).collect()
        });
    }

    fn read_networks(&mut self, f: &mut Fields<'_>, cx: &mut Findings) {
        let networks = f.take("networks", cx);
        let mode = f.take("network_mode", cx);
        self.network_mode = mode.as_ref().and_then(|x| NetworkMode::read(x, cx));
        self.networks = match (&networks, &mode) {
            (Some(_), Some(mode)) => {
                let message = "`network_mode` and `networks` exclude each other";
                mode.error(cx, message, "keep one of the two");
                BTreeMap::new()
            }
            (Some(networks), None) => networks
                .named(cx)
                .into_iter()
                .map(|(name, x)| (name.to_owned(), Attachment::read(&x, cx)))
                .collect(),
            (None, _) if self.network_mode.is_some() => BTreeMap::new(),
            (None, _) => BTreeMap::from([("default".to_owned(), Attachment::default())]),
        };
        self.ports = f.list("ports", cx, |x, cx| {
            x.items(cx).iter().filter_map(|item| PublishedPort::read(item, cx)).collect()
        });
        self.expose = f.list("expose", cx, |x, cx| {
            x.items(cx).iter().filter_map(|item| ExposedPort::read(item, cx)).collect()
        });
        self.extra_hosts = f.list("extra_hosts", cx, read_hosts);
        self.dns = f.list("dns", cx, |x, cx| {
            x.items(cx).iter().filter_map(|item| read_ip(item, cx)).collect()
        });
        self.dns_opt = f.list("dns_opt", cx, Field::unique);
        self.dns_search = f.list("dns_search", cx, Field::unique);
    }

    fn read_files(&mut self, f: &mut Fields<'_>, cx: &mut Findings) {
        self.volumes = f.list("volumes", cx, |x, cx| {
            x.items(cx).iter().filter_map(|item| Mount::read(item, cx)).collect()
        });
        self.tmpfs = f.list("tmpfs", cx, |x, cx| {
            x.items(cx).iter().filter_map(|item| Tmpfs::read(item, cx)).collect()
        });
        self.secrets = f.list("secrets", cx, |x, cx| read_grants(x, cx, "/run/secrets"));
        self.configs = f.list("configs", cx, |x, cx| read_grants(x, cx, ""));
        self.devices = f.list("devices", cx, |x, cx| {
            x.items(cx).iter().filter_map(|item| Device::read(item, cx)).collect()
        });
        self.device_cgroup_rules = f.list("device_cgroup_rules", cx, |x, cx| {
            x.items(cx).iter().filter_map(|item| DeviceRule::read(item, cx)).collect()
        });
        self.shm_size = f.get("shm_size", cx, Field::bytes);
        self.read_only = f.get("read_only", cx, Field::boolean).unwrap_or(false);
    }

    fn read_confinement(&mut self, f: &mut Fields<'_>, cx: &mut Findings) {
        self.privileged = f.get("privileged", cx, Field::boolean).unwrap_or(false);
        self.cap_add = f.list("cap_add", cx, read_capabilities);
        self.cap_drop = f.list("cap_drop", cx, read_capabilities);
        self.security_opt = f.list("security_opt", cx, |x, cx| {
            x.items(cx).iter().filter_map(|item| SecurityOption::read(item, cx)).collect()
        });
        self.sysctls = f.list("sysctls", cx, Field::pairs);
        self.ulimits = f.list("ulimits", cx, read_ulimits);
        self.ipc = f.get("ipc", cx, IpcMode::read);
        self.pid = f.get("pid", cx, PidMode::read);
        let cgroups = [("host", CgroupMode::Host), ("private", CgroupMode::Private)];
        self.cgroup = f.get("cgroup", cx, |x, cx| x.one_of(cx, &cgroups));
        self.cgroup_parent = f.get("cgroup_parent", cx, Field::word);
        let host = [("host", true)];
        self.uts_host = f.get("uts", cx, |x, cx| x.one_of(cx, &host)).unwrap_or(false);
        self.userns_host = f.get("userns_mode", cx, |x, cx| x.one_of(cx, &host)).unwrap_or(false);
    }

    fn read_resources(&mut self, f: &mut Fields<'_>, cx: &mut Findings) {
        self.blkio_config = f.get("blkio_config", cx, BlkioConfig::read);
        self.cpu_shares = f.get("cpu_shares", cx, |x, cx| x.number(cx, 2, 262_144));
        self.cpu_quota = f.get("cpu_quota", cx, |x, cx| x.number(cx, -1, i64::MAX));
        self.cpu_period = f.get("cpu_period", cx, |x, cx| x.number(cx, 1000, 1_000_000));
        self.cpuset = f.get("cpuset", cx, |x, cx| {
            x.parsed(cx, "CPU numbers, as in `0-3,5`", |text| {
                cpu_list(text).then(|| text.to_owned())
            })
        });
        self.mem_swappiness = f.get("mem_swappiness", cx, |x, cx| x.number(cx, 0, 100));
        self.memswap_limit = f.get("memswap_limit", cx, Swap::read);
        self.oom_kill_disable = f.get("oom_kill_disable", cx, Field::boolean).unwrap_or(false);
        self.oom_score_adj = f.get("oom_score_adj", cx, |x, cx| x.number(cx, -1000, 1000));
    }

    /// `deploy`, and the older keys that say the same.
    fn read_deploy(&mut self, f: &mut Fields<'_>, cx: &mut Findings) {
        let mut deploy = f.get("deploy", cx, Written::read).unwrap_or_default();
        let limits = &mut deploy.resources.limits;
        let (cpus, memory) = (f.take("cpus", cx), f.take("mem_limit", cx));
        one_of_two(&mut limits.cpus, cpus, "deploy.resources.limits.cpus", cx, Field::cpus);
        one_of_two(&mut limits.memory, memory, "deploy.resources.limits.memory", cx, Field::bytes);
        let pids = f.take("pids_limit", cx);
        one_of_two(&mut limits.pids, pids, "deploy.resources.limits.pids", cx, read_pids);
        let promised = f.take("mem_reservation", cx);
        let reserved = &mut deploy.resources.reservations.memory;
        one_of_two(reserved, promised, "deploy.resources.reservations.memory", cx, Field::bytes);
        let scale = f.take("scale", cx);
        one_of_two(&mut deploy.replicas, scale, "deploy.replicas", cx, |x, cx| {
            x.number(cx, 0, 10_000)
        });
        let restart = f.get("restart", cx, read_restart);
        let (restart, attempts) = restart.unzip();
        let job = matches!(deploy.mode, Mode::ReplicatedJob | Mode::GlobalJob);
        let default = if job { RestartCondition::OnFailure } else { RestartCondition::Any };
        let global = matches!(deploy.mode, Mode::Global | Mode::GlobalJob);
        self.deploy = Deploy {
            mode: deploy.mode,
            replicas: if global { 1 } else { deploy.replicas.unwrap_or(1) },
            endpoint_mode: deploy.endpoint_mode,
            labels: deploy.labels,
            update_config: deploy.update_config,
            rollback_config: deploy.rollback_config,
            restart_policy: RestartPolicy {
                condition: deploy.condition.or(restart).unwrap_or(default),
                delay: deploy.delay,
                max_attempts: deploy.max_attempts.or(attempts.flatten()),
                window: deploy.window,
            },
            placement: deploy.placement,
            resources: deploy.resources,
        };
        // Remembered for the rule on services that others wait for; see `Project`.
        self.restart_given = restart.is_some() || deploy.condition.is_some() || job;
    }
}

/// Compose has two keys for one value; both may be given when they agree.
fn one_of_two<'a, T: PartialEq + Clone>(
    value: &mut Option<T>,
    other: Option<Field<'a>>,
    name: &str,
    cx: &mut Findings,
    read: impl Fn(&Field<'a>, &mut Findings) -> Option<T>,
) {
    let Some(field) = other else { return };
    let Some(given) = read(&field, cx) else { return };
    if value.as_ref().is_some_and(|value| *value != given) {
        field.error(cx, format!("says something else than `{name}`"), "keep one of the two");
    }
    *value = Some(given);
}

fn read_grants(field: &Field<'_>, cx: &mut Findings, below: &str) -> Vec<Grant> {
    field.items(cx).iter().filter_map(|item| Grant::read(item, cx, below)).collect()
}

/// `no`, `always`, `unless-stopped`, `on-failure[:ATTEMPTS]`.
fn read_restart(field: &Field<'_>, cx: &mut Findings) -> Option<(RestartCondition, Option<u32>)> {
    let text = field.any_text(cx)?;
    let (policy, attempts) = match text.split_once(':') {
        Some((policy, attempts)) => (policy, Some(attempts.parse::<u32>().ok())),
        None => (text.as_str(), None),
    };
    match (policy, attempts) {
        // YAML 1.1 reads `no` as a boolean; people then write `false`.
        ("no" | "false", None) => Some((RestartCondition::None, None)),
        ("always", None) => Some((RestartCondition::Any, None)),
        ("unless-stopped", None) => Some((RestartCondition::UnlessStopped, None)),
        ("on-failure", None) => Some((RestartCondition::OnFailure, None)),
        ("on-failure", Some(Some(attempts))) => Some((RestartCondition::OnFailure, Some(attempts))),
        _ => {
            let remedy = "write `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:5`";
            field.error(cx, format!("`{text}` is not a restart policy"), remedy);
            None
        }
    }
}

fn read_pull_policy(field: &Field<'_>, cx: &mut Findings) -> PullPolicy {
    let Some(text) = field.text(cx) else { return PullPolicy::Missing };
    let every =
        text.starts_with("every_") || matches!(text.as_str(), "daily" | "weekly" | "refresh");
    match text.as_str() {
        "always" => return PullPolicy::Always,
        "never" => return PullPolicy::Never,
        "missing" | "if_not_present" => {}
        "build" => return PullPolicy::Build,
        _ if every => {
            let remedy = "write `missing`, or pull the image by a timer of your own";
            field.warn(cx, "images are not refreshed by age: read as `missing`", remedy);
        }
        _ => {
            let message = format!("`{text}` is not a pull policy");
            field.error(cx, message, "write `missing`, `always`, `never` or `build`");
        }
    }
    PullPolicy::Missing
}

fn read_hostname(field: &Field<'_>, cx: &mut Findings) -> Option<String> {
    let form = "a host name of at most 64 letters, digits, `-` and `.`";
    field.parsed(cx, form, |text| {
        let word = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let good = !text.is_empty() && text.len() <= 64 && text.chars().all(word);
        good.then(|| text.to_owned())
    })
}

fn cpu_list(text: &str) -> bool {
    text.split(',').all(|item| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => first <= last,
            _ => false,
        }
    })
}

impl Dependency {
    fn read(field: &Field<'_>, cx: &mut Findings) -> Self {
        let mut f = Fields::open(field, cx);
        let conditions = [
            ("service_started", Condition::Started),
            ("service_healthy", Condition::Healthy),
            ("service_completed_successfully", Condition::CompletedSuccessfully),
        ];
        let dependency = Self {
            condition: f
                .get("condition", cx, |x, cx| x.one_of(cx, &conditions))
                .unwrap_or(Condition::Started),
            restart: f.get("restart", cx, Field::boolean).unwrap_or(false),
            required: f.get("required", cx, Field::boolean).unwrap_or(true),
        };
        f.close(cx);
        dependency
    }
}
