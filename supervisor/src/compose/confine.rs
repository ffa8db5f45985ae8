//! What a service says about rights, devices and namespaces.

use std::path::Path;

use anyhow::Result;
use minisup_compose::model::{
    BlkioConfig, CgroupMode, HostAddress, IpcMode, LogDriver, NetworkMode, PidMode, Seccomp,
    SecurityOption, Service,
};
use serde_json::Value;

use super::Place;
use crate::settings::{DeviceFile, Devices, Filter, LogRules, Network, Resolver, Rule, Settings};

/// Where cgroup v1 keeps limits of memory.
const MEMORY_V1: &str = "/sys/fs/cgroup/memory";

impl Place<'_> {
    /// Adds to the settings what the service says about these.
    pub(super) fn confine(&self, service: &Service, settings: &mut Settings) -> Result<()> {
        settings.privileged = service.privileged;
        for option in &service.security_opt {
            match option {
                SecurityOption::NoNewPrivileges(value) => settings.no_new_privileges = Some(*value),
                SecurityOption::AppArmor(name) => settings.apparmor = Some(name.clone()),
                SecurityOption::SystemPathsUnconfined => settings.unhidden = true,
                SecurityOption::Seccomp(Seccomp::Builtin) => settings.filter = Filter::Given,
                SecurityOption::Seccomp(Seccomp::Unconfined) => {
                    settings.filter = Filter::Unconfined;
                }
                SecurityOption::Seccomp(Seccomp::File(file)) => {
                    settings.filter = Filter::Profile(self.profile(file)?);
                }
            }
        }
        settings.devices = self.devices(service)?;
        self.namespaces(service, settings);
        self.names(service, settings)?;
        if service.logging.compress && service.logging.max_file < 2 {
            let message = "with one file there is none that could be compressed";
            let remedy = "write `max-file: \"2\"` or more, or remove `compress`";
            return Err(self.refuse("logging.options.compress", message, remedy));
        }
        settings.log = LogRules {
            keep: service.logging.driver != LogDriver::None,
            longest: service.logging.max_size.0,
            files: service.logging.max_file,
            compress: service.logging.compress,
        };
        settings.init = service.init.unwrap_or(false);
        settings.stdin_open = service.stdin_open;
        settings.terminal = service.tty;
        settings.cpu_quota =
            service.cpu_quota.map(|quota| (quota, service.cpu_period.unwrap_or(100_000)));
        let of_v1 = [
            ("mem_swappiness", service.mem_swappiness.is_some()),
            ("oom_kill_disable", service.oom_kill_disable),
        ];
        for (key, _) in of_v1.into_iter().filter(|(_, asked)| *asked) {
            if !Path::new(MEMORY_V1).is_dir() {
                let message = "this host has cgroup v2, which knows no such thing";
                return Err(self.refuse(key, message, "leave it out"));
            }
        }
        settings.swappiness = service.mem_swappiness;
        settings.oom_kill_disable = service.oom_kill_disable;
        Ok(())
    }

    /// A filter of system calls, as config.json has it.
    fn profile(&self, file: &Path) -> Result<Value> {
        let refuse = |message: &str, remedy: &str| {
            let message = format!("{}: {message}", file.display());
            Err(self.refuse("security_opt", &message, remedy))
        };
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => return refuse(&error.to_string(), "name a file that can be read"),
        };
        let remedy = "write `linux.seccomp` of a config.json";
        let profile: Value = match serde_json::from_str(&text) {
            Ok(profile) => profile,
            Err(error) => return refuse(&error.to_string(), remedy),
        };
        if !profile["defaultAction"].is_string() {
            return refuse("it has no defaultAction", remedy);
        }
        let rules = profile["syscalls"].as_array().into_iter().flatten();
        let conditions = ["includes", "excludes"];
        let is_conditional = |rule: &Value| {
            let filled = |key: &str| rule[key].as_object().is_some_and(|map| !map.is_empty());
            conditions.into_iter().any(filled)
        };
        if !profile["archMap"].is_null() || rules.into_iter().any(is_conditional) {
            // Taken without its conditions it would allow, or forbid, something else.
            let message = "a profile with archMap, includes or excludes is not supported";
            return refuse(message, remedy);
        }
        Ok(profile)
    }

    fn devices(&self, service: &Service) -> Result<Devices> {
        for device in &service.devices {
            if !device.source.exists() {
                let message = format!("there is no {}", device.source.display());
                return Err(self.refuse("devices", &message, "name a device of this host"));
            }
        }
        let file = |device: &minisup_compose::model::Device| DeviceFile {
            source: device.source.clone(),
            target: device.target.clone(),
            access: device.permissions.clone(),
        };
        let rule = |rule: &minisup_compose::model::DeviceRule| Rule {
            kind: rule.kind,
            major: rule.major,
            minor: rule.minor,
            access: rule.access.clone(),
        };
        let block = service.blkio_config.clone().unwrap_or_default();
        let BlkioConfig { weight, weight_device, .. } = &block;
        let rates = [
            ("throttleReadBpsDevice", &block.device_read_bps),
            ("throttleReadIOPSDevice", &block.device_read_iops),
            ("throttleWriteBpsDevice", &block.device_write_bps),
            ("throttleWriteIOPSDevice", &block.device_write_iops),
        ];
        let rates = rates.into_iter().flat_map(|(key, list)| {
            list.iter().map(move |one| (key.to_string(), one.path.clone(), one.rate))
        });
        Ok(Devices {
            files: service.devices.iter().map(file).collect(),
            rules: service.device_cgroup_rules.iter().map(rule).collect(),
            weight: *weight,
            weights: weight_device
                .iter()
                .map(|one| (one.path.clone(), u64::from(one.weight)))
                .collect(),
            rates: rates.collect(),
        })
    }

    fn namespaces(&self, service: &Service, settings: &mut Settings) {
        let (hosts, joins) = (&mut settings.of_host, &mut settings.joins);
        let mut host = |kind: &str| hosts.extend([kind.to_string()]);
        let mut join = |kind: &str, of: &String| joins.extend([(kind.to_string(), of.clone())]);
        match &service.pid {
            None => {}
            Some(PidMode::Host) => host("pid"),
            Some(PidMode::Service(other)) => join("pid", other),
        }
        if service.uts_host {
            host("uts");
        }
        if service.userns_host {
            host("user");
        }
        match &service.network_mode {
            None => {}
            Some(NetworkMode::None) => settings.network = Network::None,
            Some(NetworkMode::Host) => {
                host("network");
                settings.network = Network::Host;
            }
            Some(NetworkMode::Service(other)) => {
                join("network", other);
                settings.network = Network::Joined;
            }
        }
        match service.cgroup {
            None => {}
            Some(CgroupMode::Host) => host("cgroup"),
            Some(CgroupMode::Private) => settings.own.extend(["cgroup".to_string()]),
        }
        match &service.ipc {
            None | Some(IpcMode::Private) => {}
            Some(IpcMode::Shareable) => settings.shares_memory = true,
            Some(IpcMode::Host) => host("ipc"),
            Some(IpcMode::None) => settings.without_shm = true,
            Some(IpcMode::Service(other)) => join("ipc", other),
        }
    }

    /// Refuses `host-gateway` where nothing leads to the host.
    fn check_way_to_host(&self, service: &Service) -> Result<()> {
        let is_internal = |key: &String| self.nets.get(key).is_none_or(|net| net.internal);
        let (message, remedy) = match service.network_mode {
            Some(NetworkMode::None) => (
                "without a network there is no way to the host",
                "remove `host-gateway`, or `network_mode`",
            ),
            None if service.networks.keys().all(is_internal) => (
                "there is no way to the host: every network of the service is internal",
                "give it one more network that is not, or remove `host-gateway`",
            ),
            _ => return Ok(()),
        };
        Err(self.refuse("extra_hosts", message, remedy))
    }

    fn names(&self, service: &Service, settings: &mut Settings) -> Result<()> {
        for (name, addresses) in &service.extra_hosts {
            for address in addresses {
                match address {
                    HostAddress::Ip(ip) => {
                        settings.hosts.entry(name.clone()).or_default().push(*ip);
                    }
                    HostAddress::Gateway => {
                        self.check_way_to_host(service)?;
                        settings.host_names.insert(name.clone());
                    }
                }
            }
        }
        settings.resolver = Resolver {
            servers: service.dns.clone(),
            options: service.dns_opt.clone(),
            search: service.dns_search.clone(),
        };
        if settings.network != Network::Joined {
            settings.aliases.extend(service.container_name.clone());
        }
        Ok(())
    }
}
