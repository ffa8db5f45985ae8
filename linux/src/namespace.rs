//! The eight kinds of namespaces, namespaces(7).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;

use crate::trace::{answer, observe};
use crate::{Error, Result, path};

/// `CLONE_NEWTIME` of linux/sched.h; libc has it, nix's flags do not.
const CLONE_NEWTIME: u64 = 0x80;

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// User and group IDs and the capabilities over everything else, user_namespaces(7).
    User,
    /// The view of the cgroup tree, cgroup_namespaces(7).
    Cgroup,
    /// System V IPC and POSIX message queues, ipc_namespaces(7).
    Ipc,
    /// Host and domain name, uts_namespaces(7).
    Uts,
    /// Interfaces, addresses, routes, ports, network_namespaces(7).
    Network,
    /// Process numbers, pid_namespaces(7).
    Pid,
    /// Monotonic and boot clocks, time_namespaces(7).
    Time,
    /// The mount table, mount_namespaces(7).
    Mount,
}

impl Kind {
    /// Every kind, in the order in which existing ones are entered: the user namespace first,
    /// because it gives the right to the others; the mount namespace last, because paths change.
    pub const ALL: [Self; 8] = [
        Self::User,
        Self::Cgroup,
        Self::Ipc,
        Self::Uts,
        Self::Network,
        Self::Pid,
        Self::Time,
        Self::Mount,
    ];

    /// The name below `/proc/PID/ns`.
    pub fn proc_name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Network => "net",
            Self::Pid => "pid",
            Self::Time => "time",
            Self::Mount => "mnt",
        }
    }

    /// The flag of clone(2) that makes one.
    pub fn flag(self) -> u64 {
        let flag = match self {
            Self::User => libc::CLONE_NEWUSER,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Network => libc::CLONE_NEWNET,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Time => return CLONE_NEWTIME,
            Self::Mount => libc::CLONE_NEWNS,
        };
        u64::from(flag.cast_unsigned())
    }

    /// That flag's name.
    pub fn flag_name(self) -> &'static str {
        match self {
            Self::User => "CLONE_NEWUSER",
            Self::Cgroup => "CLONE_NEWCGROUP",
            Self::Ipc => "CLONE_NEWIPC",
            Self::Uts => "CLONE_NEWUTS",
            Self::Network => "CLONE_NEWNET",
            Self::Pid => "CLONE_NEWPID",
            Self::Time => "CLONE_NEWTIME",
            Self::Mount => "CLONE_NEWNS",
        }
    }
}

/// A set of namespace kinds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    /// The flags of clone(2).
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether `kind` is in the set.
    pub fn contains(self, kind: Kind) -> bool {
        self.0 & kind.flag() != 0
    }

    /// Adds a kind.
    pub fn insert(&mut self, kind: Kind) {
        self.0 |= kind.flag();
    }

    /// Takes a kind out.
    pub fn remove(&mut self, kind: Kind) {
        self.0 &= !kind.flag();
    }

    /// The kinds, in entering order.
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}

impl FromIterator<Kind> for Namespaces {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |bits, kind| bits | kind.flag()))
    }
}

/// Puts this process into new namespaces, unshare(2).
pub fn unshare(namespaces: Namespaces) -> Result<()> {
    let flags = i32::try_from(namespaces.bits()).unwrap_or(0);
    let result = nix::sched::unshare(CloneFlags::from_bits_retain(flags));
    observe("unshare", || names(namespaces), result)
}

/// Enters the namespace behind `file` and checks that it is of that kind, setns(2).
pub fn enter(file: BorrowedFd<'_>, kind: Kind) -> Result<()> {
    enter_all(file, Namespaces::from_iter([kind]))
}

/// Enters several namespaces of the process behind a pidfd in one step, setns(2).
pub fn enter_all(pidfd: BorrowedFd<'_>, namespaces: Namespaces) -> Result<()> {
    let flags = i32::try_from(namespaces.bits()).unwrap_or(0);
    let result = nix::sched::setns(pidfd, CloneFlags::from_bits_retain(flags));
    observe("setns", || format!("{}, {}", pidfd.as_raw_fd(), names(namespaces)), result)
}

/// Opens a namespace file and refuses what is not a namespace of that kind, ioctl_nsfs(2).
///
/// A file of another kind, or no namespace at all, would make setns fail late or, worse, enter
/// something else; here it is refused with its path in hand.
pub fn open(file: &Path, kind: Kind) -> Result<OwnedFd> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    let fd = path::open(file, OFlag::O_RDONLY)?;
    // SAFETY: NS_GET_NSTYPE takes no argument; on a file that is no namespace it fails with ENOTTY.
    #[expect(unsafe_code, reason = "ioctl_nsfs(2) is not wrapped by nix")]
    let value = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    let result = answer(value.into()).and_then(|found| {
        if u64::from(found.cast_unsigned()) == kind.flag() { Ok(()) } else { Err(Errno::EINVAL) }
    });
    observe(
        "ioctl",
        || format!("\"{}\", NS_GET_NSTYPE /* wants {} */", file.display(), kind.flag_name()),
        result,
    )?;
    Ok(fd)
}

/// Opens the namespace of that kind that this thread is in.
pub fn current(kind: Kind) -> Result<OwnedFd> {
    let file = format!("/proc/thread-self/ns/{}", kind.proc_name());
    path::open(Path::new(&file), OFlag::O_RDONLY)
}

/// Runs `work` in the network namespace behind `file`, and comes back.
///
/// Only this thread goes there. Sockets that `work` opens keep talking to that namespace
/// afterwards, which is how a container's interfaces are configured without a process in it. An
/// error after `work` has run means that this thread is still there: give up then.
pub fn visit_network<T>(file: BorrowedFd<'_>, work: impl FnOnce() -> T) -> Result<T> {
    let home = current(Kind::Network)?;
    enter(file, Kind::Network)?;
    let result = work();
    enter(home.as_fd(), Kind::Network)?;
    Ok(result)
}

/// Whether this process and `pid` are in the same namespace of that kind, by inode.
pub fn shared_with(pid: nix::unistd::Pid, kind: Kind) -> Result<bool> {
    let inode = |who: &str| {
        let file = format!("/proc/{who}/ns/{}", kind.proc_name());
        nix::sys::stat::stat(Path::new(&file))
            .map(|stat| (stat.st_dev, stat.st_ino))
            .map_err(|errno| Error::new("stat", format!("\"{file}\""), errno))
    };
    Ok(inode("self")? == inode(&pid.to_string())?)
}

/// Sets the host name of the current UTS namespace, sethostname(2).
pub fn set_host_name(name: &str) -> Result<()> {
    observe("sethostname", || format!("{name:?}"), nix::unistd::sethostname(name))
}

/// Sets the NIS domain name of the current UTS namespace, setdomainname(2).
pub fn set_domain_name(name: &str) -> Result<()> {
    // SAFETY: the pointer and the length are those of a live string.
    #[expect(unsafe_code, reason = "nix has no setdomainname")]
    let value = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    observe("setdomainname", || format!("{name:?}"), answer(value.into()).map(drop))
}

fn names(namespaces: Namespaces) -> String {
    namespaces.iter().map(Kind::flag_name).collect::<Vec<_>>().join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_keeps_entering_order() {
        let set = Namespaces::from_iter([Kind::Mount, Kind::User, Kind::Time]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Kind::User, Kind::Time, Kind::Mount]);
    }

    #[test]
    fn files_of_the_wrong_kind_are_refused() {
        open(Path::new("/proc/self/ns/net"), Kind::Network).unwrap();
        let wrong = open(Path::new("/proc/self/ns/net"), Kind::Ipc).unwrap_err();
        assert_eq!(wrong.errno, Errno::EINVAL);
        let none = open(Path::new("/etc/passwd"), Kind::Ipc).unwrap_err();
        assert_eq!(none.errno, Errno::ENOTTY);
    }
}
