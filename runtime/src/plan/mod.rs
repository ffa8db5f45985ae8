//! The plan of a container: everything decided and checked before anything is done.
//!
//! config.json describes; a plan prescribes. Making one is pure but for a few looks at the host
//! (which files exist), so that it can be tested, printed by `minirun check`, and trusted: after
//! it, only the kernel can say no.

mod confinement;
mod devices;
mod mounts;
mod namespaces;
mod process;
mod resctrl;
mod rootfs;
mod scheduling;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hook, Hooks, LinuxResources, Spec};

pub use confinement::{CORE_ANNOTATION, LANDLOCK_ANNOTATION, Landlock};
pub use devices::{DEFAULT as DEFAULT_DEVICES, Device};
pub use mounts::{Mount, Owners, Source};
pub use namespaces::{IdMap, IdentityMap, NamespacePlan, config_name as namespace_name};
pub(crate) use process::environment_value;
pub use process::{Process, User};
pub use resctrl::Resctrl;
pub(crate) use resctrl::lines_of as schemata_lines;
pub use rootfs::{LOWERDIRS_ANNOTATION, Overlay, Rootfs, UPPER_ANNOTATION};
pub use scheduling::{MemoryPolicy, Scheduling};

use crate::error::{Error, Result};

/// Everything that will be done for one container.
#[derive(Debug)]
pub struct Plan {
    /// The container's name.
    pub id: String,
    /// The bundle's directory, absolute.
    pub bundle: PathBuf,
    /// The root file system.
    pub rootfs: Rootfs,
    /// Namespaces, new and joined.
    pub namespaces: NamespacePlan,
    /// How numbers of users map, with a new user namespace.
    pub identity_map: Option<IdentityMap>,
    /// What to mount, in order.
    pub mounts: Vec<Mount>,
    /// Device nodes beside those of every container.
    pub devices: Vec<Device>,
    /// Paths that must not be seen.
    pub masked: Vec<PathBuf>,
    /// Paths that must not be written.
    pub read_only: Vec<PathBuf>,
    /// The host name.
    pub host_name: Option<String>,
    /// The NIS domain name.
    pub domain_name: Option<String>,
    /// Kernel parameters of the container's namespaces, by path below `/proc/sys`.
    pub sysctl: BTreeMap<String, String>,
    /// Interfaces of the host that it gets, by their names there; and their names inside.
    pub net_devices: BTreeMap<String, String>,
    /// The execution domain, personality(2).
    pub personality: Option<u64>,
    /// What it may use of the processor's cache and memory bandwidth.
    pub resctrl: Option<Resctrl>,
    /// Whether nobody else may run on the processor cores that it runs on.
    pub cores_alone: bool,
    /// The first process.
    pub process: Process,
    /// Where in the cgroup tree, as configured.
    pub cgroups_path: Option<PathBuf>,
    /// What it may use.
    pub resources: LinuxResources,
    /// Programs of others to run at certain moments.
    pub hooks: Hooks,
    /// The configuration's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whether it gets a socket to tell that it is ready.
    pub notifies: bool,
    /// What is not as asked and no reason to fail.
    pub warnings: Vec<String>,
}

/// What the plan depends on beside the configuration.
#[derive(Debug, Clone)]
pub struct Circumstances<'a> {
    /// The container's name.
    pub id: &'a str,
    /// The bundle's directory, absolute.
    pub bundle: &'a Path,
    /// Our effective user.
    pub user: u32,
    /// Whether we hold `CAP_SYS_ADMIN` over the host's namespaces.
    pub privileged: bool,
}

impl Plan {
    /// Decides everything.
    pub fn decide(spec: &Spec, at: &Circumstances<'_>) -> Result<Self> {
        let linux = spec.linux().clone().unwrap_or_default_empty();
        let namespaces = NamespacePlan::decide(&linux)?;
        let identity_map = namespaces::identity_map(&linux, &namespaces, at)?;
        let rootfs = Rootfs::decide(spec, &linux, (&namespaces, identity_map.as_ref()), at)?;
        let process = spec
            .process()
            .as_ref()
            .ok_or_else(|| Error::Config("config.json: process is missing".into()))?;
        let configured = process;
        let mut process = Process::decide(configured, Some(&linux))?;
        process.landlock = Landlock::decide(spec.annotations().as_ref())?;
        let mounts = mounts::decide(spec, (&namespaces, identity_map.as_ref()), at)?;
        let plan = Self {
            id: at.id.to_owned(),
            bundle: at.bundle.to_owned(),
            devices: devices::decide(&linux)?,
            masked: container_paths("linux.maskedPaths", linux.masked_paths().as_deref())?,
            read_only: container_paths("linux.readonlyPaths", linux.readonly_paths().as_deref())?,
            host_name: spec.hostname().clone().filter(|name| !name.is_empty()),
            domain_name: spec.domainname().clone().filter(|name| !name.is_empty()),
            sysctl: namespaces::sysctl(&linux, &namespaces)?,
            net_devices: namespaces::net_devices(&linux, &namespaces)?,
            personality: process::personality(&linux)?,
            resctrl: Resctrl::decide(linux.intel_rdt().as_ref())?,
            cores_alone: confinement::wants_cores_alone(spec.annotations().as_ref())?,
            cgroups_path: linux.cgroups_path().clone().filter(|p| !p.as_os_str().is_empty()),
            resources: linux.resources().clone().unwrap_or_default(),
            hooks: spec.hooks().clone().unwrap_or_default(),
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
            notifies: false,
            warnings: process::without_effect(configured, &process).into_iter().collect(),
            rootfs,
            namespaces,
            identity_map,
            mounts,
            process,
        };
        plan.check_names()?;
        plan.check_hooks()?;
        Ok(plan)
    }

    /// A name needs a namespace of its own to be set in, or it would rename the host.
    fn check_names(&self) -> Result<()> {
        use linux::namespace::Kind;
        for (field, value) in [("hostname", &self.host_name), ("domainname", &self.domain_name)] {
            if value.is_some() && !self.namespaces.has(Kind::Uts) {
                return Err(Error::Config(format!(
                    "config.json: {field} is set, and there is no uts namespace in \
                     linux.namespaces to set it in (it would rename the host)"
                )));
            }
            if value.as_ref().is_some_and(|name| name.len() > 64) {
                return Err(Error::Config(format!(
                    "config.json: {field} is longer than 64 bytes, the kernel's limit"
                )));
            }
        }
        let changes_mounts = !self.mounts.is_empty()
            || !self.masked.is_empty()
            || !self.read_only.is_empty()
            || self.rootfs.read_only;
        if changes_mounts && !self.namespaces.has(Kind::Mount) {
            return Err(Error::Config(
                "config.json: mounts, maskedPaths, readonlyPaths and root.readonly need a mount \
                 namespace in linux.namespaces (they would change the host)"
                    .into(),
            ));
        }
        Ok(())
    }

    fn check_hooks(&self) -> Result<()> {
        for (name, hooks) in self.hook_lists() {
            for hook in hooks {
                if !hook.path().is_absolute() {
                    return Err(Error::Config(format!(
                        "config.json: hooks.{name}: path {:?} is not absolute",
                        hook.path()
                    )));
                }
                if hook.timeout().is_some_and(|timeout| timeout <= 0) {
                    return Err(Error::Config(format!(
                        "config.json: hooks.{name}: timeout must be greater than 0"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Who owns the container's cgroup and may make groups in it: root of a user namespace that
    /// sees its cgroup as the root, and may write there.
    pub(crate) fn owner_of_groups(&self) -> Option<(u32, u32)> {
        use linux::namespace::Kind;
        let is_writable = |mount: &Mount| {
            let read_only = linux::mount::Attributes::READ_ONLY;
            mount.source == Source::Cgroup && mount.options.attributes.set & read_only == 0
        };
        if !self.namespaces.new.contains(Kind::Cgroup) || !self.mounts.iter().any(is_writable) {
            return None;
        }
        let map = self.identity_map.as_ref()?;
        let root = |ranges: &[IdMap]| {
            ranges.iter().find(|range| range.inside == 0).map(|range| range.outside)
        };
        Some((root(&map.users)?, root(&map.groups)?))
    }

    /// Whether the destination is a bind mount of something of the host.
    pub(crate) fn binds(&self, destination: &str) -> bool {
        self.mounts.iter().any(|mount| {
            mount.destination == Path::new(destination) && matches!(mount.source, Source::Bind(..))
        })
    }

    /// Whether init has to stop for hooks before it changes its root (or for what they are told).
    pub(crate) fn has_early_hooks(&self) -> bool {
        let late = ["poststart", "poststop"];
        self.hook_lists().iter().any(|(name, list)| !list.is_empty() && !late.contains(name))
    }

    /// The hooks of one moment.
    pub(crate) fn hooks_of(&self, moment: &str) -> &[Hook] {
        let lists = self.hook_lists();
        lists.into_iter().find(|(name, _)| *name == moment).map_or(&[], |(_, list)| list)
    }

    /// What a hook reads from its standard input, runtime-spec runtime.md, "State".
    pub(crate) fn hook_state(&self, status: &str, pid: i32) -> String {
        Self::state_for_hooks(&self.id, status, pid, &self.bundle, &self.annotations)
    }

    /// The same, from what the state file knows.
    pub(crate) fn state_for_hooks(
        id: &str,
        status: &str,
        pid: i32,
        bundle: &Path,
        annotations: &BTreeMap<String, String>,
    ) -> String {
        Self::state_value(id, status, pid, bundle, annotations).to_string()
    }

    /// The same, untyped.
    pub(crate) fn state_value(
        id: &str,
        status: &str,
        pid: i32,
        bundle: &Path,
        annotations: &BTreeMap<String, String>,
    ) -> serde_json::Value {
        serde_json::json!({
            "ociVersion": crate::spec::VERSION,
            "id": id,
            "status": status,
            "pid": pid,
            "bundle": bundle,
            "annotations": annotations,
        })
    }

    /// The hooks by name.
    pub(crate) fn hook_lists(&self) -> [(&'static str, &[Hook]); MOMENTS.len()] {
        MOMENTS.map(|(name, list)| (name, list(&self.hooks).as_deref().unwrap_or_default()))
    }
}

/// Where the hooks of one moment are.
type HookList = fn(&Hooks) -> &Option<Vec<Hook>>;

/// The moments that have hooks, in the order in which they come; `minirun features` lists them.
pub(crate) const MOMENTS: [(&str, HookList); 6] = [
    ("prestart", Hooks::prestart),
    ("createRuntime", Hooks::create_runtime),
    ("createContainer", Hooks::create_container),
    ("startContainer", Hooks::start_container),
    ("poststart", Hooks::poststart),
    ("poststop", Hooks::poststop),
];

/// Paths inside the container must be absolute.
fn container_paths(field: &str, paths: Option<&[String]>) -> Result<Vec<PathBuf>> {
    let paths = paths.unwrap_or_default().iter();
    let checked = paths.map(|path| {
        let path = PathBuf::from(path);
        if path.is_absolute() {
            return Ok(path);
        }
        Err(Error::Config(format!("config.json: {field}: {path:?} is not an absolute path")))
    });
    checked.collect()
}

/// oci-spec's default for a missing section is a full container; ours is an empty section.
trait OrEmpty<T> {
    fn unwrap_or_default_empty(self) -> T;
}

impl OrEmpty<oci_spec::runtime::Linux> for Option<oci_spec::runtime::Linux> {
    fn unwrap_or_default_empty(self) -> oci_spec::runtime::Linux {
        self.unwrap_or_else(|| crate::json::read(b"{}").unwrap_or_default())
    }
}

/// Whether `id` may name a container: letters, digits and `_+-.`, but not `.` or `..`.
pub fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() || id == "." || id == ".." || id.len() > 255 || !id.bytes().all(allowed) {
        return Err(Error::InvalidId(id.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
