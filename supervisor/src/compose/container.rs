//! What a service says about its containers beside the image: identity, limits, files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use minisup_compose::model::{
    self, EndpointMode, Grant, MountKind, Propagation, Recursive, SecretSource, Service, Swap,
    Tmpfs,
};

use super::Place;
use crate::accounts::Accounts;
use crate::layout::Layout;
use crate::secrets::{self, Owner};
use crate::settings::{Hook, Mount, Settings};

impl Place<'_> {
    /// The settings of the containers. Volumes are made, secrets written into memory, on the way.
    pub(super) fn settings(
        &self,
        service: &Service,
        layout: &Layout,
        bundle: &Path,
    ) -> Result<Settings> {
        let accounts = Accounts::of(bundle)?;
        let mut mounts = Vec::new();
        for mount in &service.volumes {
            mounts.push(self.mount(mount, layout)?);
        }
        mounts.extend(service.tmpfs.iter().map(in_memory));
        for grant in &service.secrets {
            mounts.push(self.granted("secrets", grant, layout, &accounts)?);
        }
        for grant in &service.configs {
            mounts.push(self.granted("configs", grant, layout, &accounts)?);
        }
        let capability = |name: &String| match name.as_str() {
            "ALL" => name.clone(),
            other => format!("CAP_{other}"),
        };
        let mut annotations = service.labels.clone();
        annotations.extend(service.annotations.clone());
        let groups = service.group_add.iter().map(|text| accounts.group(text));
        let mut settings = Settings {
            user: self.user(service, &accounts)?,
            groups: self.account("group_add", groups.collect::<Result<_>>())?,
            working_dir: service.working_dir.clone(),
            hostname: service.hostname.clone(),
            domainname: service.domainname.clone(),
            read_only: service.read_only,
            annotations,
            mounts,
            cap_add: service.cap_add.iter().map(capability).collect(),
            cap_drop: service.cap_drop.iter().map(capability).collect(),
            sysctls: service.sysctls.clone(),
            ulimits: service
                .ulimits
                .iter()
                .map(|(name, limit)| (name.clone(), (limit.soft, limit.hard)))
                .collect(),
            shm_bytes: service.shm_size.map(|bytes| bytes.0),
            cpuset: service.cpuset.clone(),
            cpu_shares: service.cpu_shares,
            swap_bytes: service.memswap_limit.as_ref().map(|swap| match swap {
                Swap::Unlimited => -1,
                Swap::Limit(bytes) => i64::try_from(bytes.0).unwrap_or(i64::MAX),
            }),
            oom_score_adj: service.oom_score_adj,
            cgroup_parent: self.cgroup_parent(service)?,
            post_start: self.hooks("post_start", &service.post_start, &accounts)?,
            pre_stop: self.hooks("pre_stop", &service.pre_stop, &accounts)?,
            direct: service.deploy.endpoint_mode == EndpointMode::Dnsrr,
            ..Settings::default()
        };
        self.confine(service, &mut settings)?;
        Ok(settings)
    }

    /// `USER[:GROUP]` in numbers.
    fn user(&self, service: &Service, accounts: &Accounts) -> Result<Option<(u32, u32)>> {
        let Some(text) = &service.user else { return Ok(None) };
        self.account("user", accounts.user(text)).map(Some)
    }

    /// A path below the hierarchy's root; as with Docker it may be written without its first `/`.
    fn cgroup_parent(&self, service: &Service) -> Result<Option<String>> {
        let Some(text) = &service.cgroup_parent else { return Ok(None) };
        let path = text.strip_prefix('/').unwrap_or(text);
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            let message = format!("`{text}` is no path of a cgroup");
            return Err(self.refuse("cgroup_parent", &message, "write it as `/apps/shop`"));
        }
        Ok(Some(format!("/{path}")))
    }

    fn account<T>(&self, key: &str, found: Result<T>) -> Result<T> {
        let remedy = "name one of the image's, or write numbers: \"1000:1000\"";
        found.map_err(|error| self.refuse(key, &format!("{error:#}"), remedy))
    }

    fn hooks(&self, key: &str, asked: &[model::Hook], accounts: &Accounts) -> Result<Vec<Hook>> {
        let hook = |asked: &model::Hook| {
            let user = asked.user.as_ref().map(|text| self.account(key, accounts.user(text)));
            Ok(Hook {
                command: asked.command.clone(),
                user: user.transpose()?,
                working_dir: asked.working_dir.clone(),
                env: asked.environment.iter().map(|(k, v)| format!("{k}={v}")).collect(),
                privileged: asked.privileged,
            })
        };
        asked.iter().map(hook).collect()
    }

    fn mount(&self, mount: &model::Mount, layout: &Layout) -> Result<Mount> {
        let (target, is_read_only) = (mount.target.as_str(), mount.read_only);
        match &mount.kind {
            MountKind::Bind { source, bind } => {
                if !bind.create_host_path && !source.exists() {
                    let message = format!("there is no {}", source.display());
                    let remedy = "make it, or write `bind: {create_host_path: true}`";
                    return Err(self.refuse("volumes", &message, remedy));
                }
                let mut made = Mount::bind(source.clone(), target, is_read_only);
                made.is_made = bind.create_host_path;
                if let Some(propagation) = bind.propagation {
                    made.options.retain(|option| option != "rprivate");
                    made.options.push(word(propagation).to_string());
                }
                match bind.recursive {
                    // What is mounted below it is read-only, too, or keeps its own rights.
                    Recursive::Enabled | Recursive::Readonly => {
                        replace(&mut made.options, "ro", "rro");
                    }
                    Recursive::Writable => {}
                    Recursive::Disabled => replace(&mut made.options, "rbind", "bind"),
                }
                Ok(made)
            }
            MountKind::Volume { source, volume } => {
                let Some(key) = source else {
                    let name = target.trim_matches('/').replace('/', "-");
                    let made = Mount::bind(PathBuf::from(name), target, is_read_only);
                    return Ok(Mount { of_slot: true, ..made });
                };
                let within = volume.subpath.as_ref().map(PathBuf::from);
                Ok(Mount { within, ..self.volume(key, layout, target, is_read_only)? })
            }
            MountKind::Tmpfs { tmpfs } => {
                let mut options = vec!["nosuid".to_string(), "nodev".to_string()];
                options.extend(tmpfs.size.map(|bytes| format!("size={}", bytes.0)));
                options.extend(tmpfs.mode.map(|mode| format!("mode={:o}", mode.0)));
                options.extend(is_read_only.then(|| "ro".to_string()));
                Ok(Mount::tmpfs(target, options))
            }
        }
    }

    /// A named volume: a directory of ours, or what its options say.
    fn volume(&self, key: &str, layout: &Layout, target: &str, read_only: bool) -> Result<Mount> {
        let Some(volume) = self.project.volumes.get(key) else {
            let message = format!("there is no volume {key}");
            return Err(self.refuse("volumes", &message, "add it to the top-level `volumes`"));
        };
        if !volume.driver_opts.is_empty() {
            return self.bound_volume(key, &volume.driver_opts, target, read_only);
        }
        let dir = layout.volume(&volume.name);
        if volume.external && !dir.is_dir() {
            let message = format!("the external volume {} does not exist", volume.name);
            let remedy = format!("make it: mkdir -p {}", dir.display());
            return Err(self.refuse("volumes", &message, &remedy));
        }
        Ok(Mount { is_made: !volume.external, ..Mount::bind(dir, target, read_only) })
    }

    /// A volume with options as of mount(8), which has to be a bind mount.
    fn bound_volume(
        &self,
        key: &str,
        options: &BTreeMap<String, String>,
        target: &str,
        read_only: bool,
    ) -> Result<Mount> {
        let option = |name: &str| options.get(name).map_or("", String::as_str);
        let (kind, device) = (option("type"), PathBuf::from(option("device")));
        let words: Vec<&str> = option("o").split(',').filter(|word| !word.is_empty()).collect();
        let is_bind = words.iter().any(|word| matches!(*word, "bind" | "rbind"));
        let others = words.iter().any(|word| !matches!(*word, "bind" | "rbind" | "ro" | "rw"));
        if !matches!(kind, "" | "none" | "bind") || !is_bind || others {
            let message = format!("driver_opts of the volume {key} are not those of a bind mount");
            let remedy = "write `type: none, o: bind, device: /PATH`, or mount it on the host                           (fstab(5)) and name that path";
            return Err(self.refuse("volumes", &message, remedy));
        }
        if !device.is_absolute() || !device.exists() {
            let message = format!("there is no {}", device.display());
            return Err(self.refuse("volumes", &message, "make it, and name it by its whole path"));
        }
        Ok(Mount::bind(device, target, read_only || words.contains(&"ro")))
    }

    /// A secret or config as a file in memory, shown read-only.
    fn granted(
        &self,
        kind: &str,
        grant: &Grant,
        layout: &Layout,
        accounts: &Accounts,
    ) -> Result<Mount> {
        let table = if kind == "secrets" { &self.project.secrets } else { &self.project.configs };
        let Some(secret) = table.get(&grant.source) else {
            let message = format!("there is no {}", grant.source);
            let remedy = format!("add it to the top-level `{kind}`");
            return Err(self.refuse(kind, &message, &remedy));
        };
        let value = match &secret.source {
            SecretSource::File(path) => std::fs::read(path).map_err(|error| {
                let message = format!("{}: {error}", path.display());
                self.refuse(kind, &message, "name a file that can be read")
            })?,
            SecretSource::Environment { value, .. } => value.reveal().as_bytes().to_vec(),
            SecretSource::Content(text) => text.clone().into_bytes(),
            SecretSource::External => {
                let file = layout.external(kind, &secret.name);
                std::fs::read(&file).map_err(|error| {
                    let message =
                        format!("{} is external: {}: {error}", secret.name, file.display());
                    let remedy = format!("make it: install -D -m 600 FILE {}", file.display());
                    self.refuse(kind, &message, &remedy)
                })?
            }
        };
        let user = |text: &String| self.account(kind, accounts.user(text)).map(|(uid, _)| uid);
        let group = |text: &String| self.account(kind, accounts.group(text));
        let owner = Owner {
            uid: grant.uid.as_ref().map_or(Ok(0), user)?,
            gid: grant.gid.as_ref().map_or(Ok(0), group)?,
            mode: grant.mode.map_or(0o444, |mode| mode.0),
        };
        let file = secrets::keep(layout, &grant.source, &value, owner)?;
        Ok(Mount::bind(file, &grant.target, true))
    }
}

fn in_memory(tmpfs: &Tmpfs) -> Mount {
    Mount::tmpfs(&tmpfs.target, tmpfs.options.clone())
}

fn replace(options: &mut [String], old: &str, new: &str) {
    for option in options.iter_mut().filter(|option| *option == old) {
        *option = new.to_string();
    }
}

fn word(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Shared => "shared",
        Propagation::Slave => "slave",
        Propagation::Private => "private",
        Propagation::Rshared => "rshared",
        Propagation::Rslave => "rslave",
        Propagation::Rprivate => "rprivate",
    }
}
