//! A group below a container's own, for `exec --cgroup`.

use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use linux::{OFlag, Pid, path};

use super::group::{Cgroup, Member};
use super::host::{Controller, Version};
use super::{Error, place};

const OPTION: &str = "--cgroup";

impl Cgroup {
    /// The groups below this one that `asked` names: `PATH` in every tree, or `CONTROLLERS:PATH` in
    /// the trees of version 1 that have them. They must exist, and no path leads out.
    pub fn within(mut self, asked: &[String]) -> Result<Self, Error> {
        let mut everywhere = false;
        for text in asked {
            match text.split_once(':') {
                None => {
                    if asked.len() > 1 {
                        let why =
                            format!("{text:?}: with more than one, each names its controllers");
                        return Err(Error::invalid(OPTION, why));
                    }
                    everywhere = true;
                    let path = below(text)?;
                    self.descend(|_| true, &path)?;
                }
                Some((controllers, path)) => {
                    let path = below(path)?;
                    for name in controllers.split(',') {
                        self.descend_in(name, &path)?;
                    }
                }
            }
        }
        debug_assert!(everywhere || asked.iter().all(|text| text.contains(':')));
        Ok(self)
    }

    /// The group in version 2 in which process `init` is, where that is below this one: a container
    /// that manages groups itself (systemd does) has moved its processes into leaves, and the
    /// kernel lets nobody be born above them.
    pub fn leaf_of(mut self, init: Pid) -> Result<Self, Error> {
        let text = super::host::read(&format!("/proc/{init}/cgroup"))?;
        let leaf = place::own_group(&text);
        let path = leaf.as_deref().and_then(|leaf| leaf.strip_prefix(&self.record().path).ok());
        if let Some(path) = path.filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned) {
            self.descend(|member| member.version == Version::V2, &path)?;
        }
        Ok(self)
    }

    fn descend_in(&mut self, name: &str, path: &Path) -> Result<(), Error> {
        let known = Controller::ALL.into_iter().find(|controller| controller.v1_name() == name);
        let has = |member: &Member| match known {
            Some(controller) => member.controllers.contains(&controller),
            None => member.name == name,
        };
        if !self.legacy().iter().any(&has) {
            let why =
                format!("no tree of version 1 has the controller {name:?}: give a path alone");
            return Err(Error::invalid(OPTION, why));
        }
        self.descend(has, path)
    }

    fn descend(&mut self, chosen: impl Fn(&Member) -> bool, path: &Path) -> Result<(), Error> {
        for member in self.members_mut().filter(|member| chosen(member)) {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            let shown = member.path.join(path);
            member.dir = path::open_beneath(member.dir.as_fd(), path, flags).map_err(|cause| {
                Error::kernel(format!("open cgroup {}", shown.display()), cause)
            })?;
            member.path = shown;
        }
        Ok(())
    }
}

/// A path below the container's group: a leading slash means that group, `..` is refused.
fn below(text: &str) -> Result<PathBuf, Error> {
    let mut path = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                let why = format!("{text:?} leads out of the container's cgroup");
                return Err(Error::invalid(OPTION, why));
            }
        }
    }
    if path.as_os_str().is_empty() {
        path.push(".");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out() {
        assert_eq!(below("/a//b").unwrap(), Path::new("a/b"));
        assert_eq!(below("/").unwrap(), Path::new("."));
        assert!(below("../x").is_err());
        assert!(below("a/../../x").is_err());
    }
}
