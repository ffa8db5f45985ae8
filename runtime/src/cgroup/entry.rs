//! Another process for a group that has some already: `exec`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::{Errno, OFlag, Pid, path};

use super::Error;
use super::group::{Cgroup, Member};
use super::host;
use super::place;

/// What a new process of a container needs to get into its groups.
#[derive(Debug)]
pub struct Entry {
    /// The directory that it is born into.
    pub birth: OwnedFd,
    /// The files to [`join`](super::join).
    pub join: Vec<OwnedFd>,
}

impl Cgroup {
    /// The way into the groups that lie at `below` the container's, for `exec --cgroup`; an empty
    /// path is the container's own group.
    ///
    /// `below` is asked once for each tree, by its name (`unified`, or controllers as in
    /// `cpu,cpuacct`). The path cannot lead out of the container's group, neither by `..` nor by a
    /// name that only starts like it (CVE-class: runc 1.5.2, crun 1.29).
    pub fn entry(&self, below: impl Fn(&str) -> PathBuf) -> Result<Entry, Error> {
        let open = |member: &Member, file: &str, flags: OFlag| {
            let path = below(&member.name);
            let path = Path::new(".").join(path.strip_prefix("/").unwrap_or(&path)).join(file);
            path::open_beneath(member.dir.as_fd(), &path, flags).map_err(|cause| {
                let group = member.path.join(path.parent().unwrap_or(Path::new("")));
                let remedy = match cause.errno {
                    Errno::ENOENT => "; the container has no such group",
                    Errno::EXDEV => "; it would lead out of the container's group",
                    _ => "",
                };
                let step = format!("enter cgroup {}", group.display());
                Error::Kernel { step, cause: Box::new(cause), remedy: remedy.to_owned() }
            })
        };
        let birth = open(self.unified(), ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let join = self.legacy().iter().map(|member| open(member, "tasks", OFlag::O_WRONLY));
        Ok(Entry { birth, join: join.collect::<Result<_, _>>()? })
    }

    /// Where process `pid` of the container is, below its group, in version 2.
    ///
    /// A container that manages groups itself (systemd in a container) moves its processes into
    /// leaves and enables controllers; then nothing can be born in its group any more (`EBUSY`),
    /// and `exec` goes where the first process is. `None` when the process is elsewhere.
    pub fn below_of(&self, pid: Pid) -> Result<Option<PathBuf>, Error> {
        let text = host::read(&format!("/proc/{pid}/cgroup"))?;
        let path = place::own_group(&text).unwrap_or_default();
        Ok(path.strip_prefix(&self.record().path).ok().map(Path::to_path_buf))
    }
}
