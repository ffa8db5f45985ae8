//! Namespaces of other instances, from the brain's side: opened before a container is made that
//! joins them, so that a process number that is used again leads nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use linux::namespace::{self, Kind};
use linux::pidfd;
use minisup_core::name::InstanceId;

use super::container::Running;
use super::engine::Brain;
use crate::model::ServiceSpec;
use crate::settings::{Mount, Settings};

/// What a container gets of others.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// Where the runtime finds the namespaces, by the names of config.json: descriptors of ours.
    pub(crate) paths: BTreeMap<String, PathBuf>,
    open: Vec<Arc<OwnedFd>>,
    owners: BTreeSet<InstanceId>,
    /// The gateway of the first network, if a network is joined.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// How whoever has the network asks for names.
    pub(crate) names: Option<Settings>,
    /// The directory in memory that is its `/dev/shm`.
    memory: Option<PathBuf>,
}

impl Brain {
    /// Opens the namespaces that an instance is to be put into.
    ///
    /// # Errors
    /// One of those that have them has ended meanwhile.
    pub(super) fn joined(
        &mut self,
        instance: &InstanceId,
        spec: &ServiceSpec,
        owners: &BTreeSet<InstanceId>,
    ) -> Result<Joined> {
        let mut joined = Joined { owners: owners.clone(), ..Joined::default() };
        if spec.settings.shares_memory {
            joined.memory = Some(self.layout.shared_memory(&instance.to_string()));
        }
        for (kind, service) in &spec.settings.joins {
            let owner = owners.iter().find(|owner| owner.slot.service.as_str() == service);
            let owner = owner.with_context(|| format!("no instance of {service} was chosen"))?;
            let running = self.running.get(owner).with_context(|| format!("{owner} is gone"))?;
            let opened = open(kind, running).with_context(|| format!("cannot join {owner}"))?;
            // Ours, not the process's own: its number may be another's when the runtime looks.
            let path = format!("/proc/{}/fd/{}", std::process::id(), opened.as_raw_fd());
            joined.paths.insert(kind.clone(), path.into());
            joined.open.push(opened);
            match kind.as_str() {
                "network" => self.take_names(owner, &mut joined),
                "ipc" => joined.memory = Some(self.layout.shared_memory(&owner.to_string())),
                _ => {}
            }
        }
        Ok(joined)
    }

    fn take_names(&mut self, owner: &InstanceId, joined: &mut Joined) {
        let revision = self.state.instance(owner).map(|instance| instance.revision.clone());
        let spec = revision.and_then(|revision| self.spec(revision.as_str()));
        joined.names = spec.map(|spec| spec.settings);
        let first = self.attached(owner).into_iter().next();
        // Without an address it is in no network, whatever was asked for.
        let there = first.filter(|one| self.addresses.of(owner).contains_key(&one.net.key()));
        joined.gateway = there.map(|one| one.net.gateway);
    }
}

impl Joined {
    /// Gives the container its `/dev/shm`, if that is shared, below what the file mounts itself.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub(crate) fn share_memory(&self, settings: &mut Settings) -> Result<()> {
        let Some(dir) = &self.memory else { return Ok(()) };
        let make = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        let open = make
            .and_then(|()| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o1777)));
        open.context("cannot make the memory that is shared")?;
        let mut mount = Mount::bind(dir.clone(), "/dev/shm", false);
        mount.options.extend(["nosuid", "noexec", "nodev"].map(String::from));
        settings.shm_bytes = None;
        settings.mounts.insert(0, mount);
        Ok(())
    }

    /// What the bundle says of it, for the brain that comes after us.
    pub(crate) fn note(&self) -> Result<String> {
        Ok(serde_json::to_string(&self.owners)?)
    }
}

/// Whose namespaces a container is in, as its bundle says.
pub(super) fn noted(bundle: &Path) -> BTreeSet<InstanceId> {
    let text = std::fs::read_to_string(bundle.join("joined")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn open(kind: &str, running: &Running) -> Result<Arc<OwnedFd>> {
    let (file, is) = match kind {
        "network" => return Ok(running.namespace.clone()),
        "ipc" => ("ipc", Kind::Ipc),
        "pid" => ("pid", Kind::Pid),
        other => bail!("a namespace of kind {other} cannot be joined"),
    };
    let opened = namespace::open(Path::new(&format!("/proc/{}/ns/{file}", running.pid)), is)?;
    // Looked at after it was opened: if it still runs, this is what it has.
    if pidfd::has_ended(&running.pidfd)? {
        bail!("process {} has ended", running.pid);
    }
    Ok(Arc::new(opened))
}
