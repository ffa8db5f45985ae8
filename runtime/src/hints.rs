//! Which setting of the host is in the way, when the kernel says no more than `EPERM`.
//!
//! After a failure, and only then, a few facts are read; [`remedy`] is a function of them, so that
//! every combination can be tested.

use linux::Errno;

use crate::error::{Error, Failure};
use crate::steps::Step;

/// What is known about this process and its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Facts {
    /// Our effective user.
    user: u32,
    /// Our effective capabilities, as a mask.
    capabilities: u64,
    /// Whether execve(2) gives us no privileges (newuidmap has none then).
    no_new_privileges: bool,
    /// Whether a seccomp filter is on us: that of an outer container.
    filtered: bool,
    /// Whether we are in a user namespace other than the first.
    in_user_namespace: bool,
    /// `user.max_user_namespaces`.
    most_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone`, a setting of Debian's kernels.
    user_namespaces_for_all: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, a setting of Ubuntu's kernels.
    restricted_by_apparmor: Option<u64>,
    /// Whether `/proc/sys` is mounted read-only.
    parameters_read_only: bool,
    /// Whether `/sys/fs/cgroup` is mounted read-only.
    cgroups_read_only: bool,
    /// The AppArmor profile that we run under.
    profile: Option<String>,
}

const CAP_SETUID: u32 = 7;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;
const CAP_MKNOD: u32 = 27;

impl Facts {
    fn has(&self, capability: u32) -> bool {
        self.capabilities >> capability & 1 == 1
    }

    fn read() -> Self {
        let text = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let number = |file: &str| text(file).trim().parse().ok();
        let (status, mounts) = (text("/proc/self/status"), text("/proc/self/mounts"));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).unwrap_or_default().to_owned()
        };
        let profile = text("/proc/self/attr/apparmor/current");
        let profile = profile.trim().to_owned();
        Self {
            user: linux::credentials::effective_user(),
            capabilities: u64::from_str_radix(&field("CapEff:"), 16).unwrap_or(u64::MAX),
            no_new_privileges: field("NoNewPrivs:") == "1",
            filtered: field("Seccomp:") == "2",
            in_user_namespace: is_inner(&text("/proc/self/uid_map")),
            most_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            user_namespaces_for_all: number("/proc/sys/kernel/unprivileged_userns_clone"),
            restricted_by_apparmor: number(
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            ),
            parameters_read_only: is_read_only(&mounts, "/proc/sys"),
            cgroups_read_only: is_read_only(&mounts, "/sys/fs/cgroup"),
            profile: (!profile.is_empty() && profile != "unconfined").then_some(profile),
        }
    }
}

/// Whether a map of users is not that of the first user namespace, which maps all to themselves.
fn is_inner(map: &str) -> bool {
    !map.is_empty() && map.split_whitespace().ne(["0", "0", "4294967295"])
}

/// Whether the last mount at `place` is read-only, in a table as of proc_pid_mounts(5).
fn is_read_only(mounts: &str, place: &str) -> bool {
    let last = mounts.lines().rev().map(|line| line.split(' ')).find_map(|mut fields| {
        let here = fields.nth(1)? == place;
        here.then(|| fields.nth(1).unwrap_or_default().split(',').any(|option| option == "ro"))
    });
    last.unwrap_or(false)
}

/// The same error, with what to do about it where nothing better is known.
pub(crate) fn explain(error: Error) -> Error {
    match error {
        Error::Step(failure) if failure.remedy.is_none() && failure.errno != 0 => {
            let remedy = remedy(failure.step, Errno::from_raw(failure.errno), &Facts::read());
            Error::Step(Failure { remedy, ..failure })
        }
        other => other,
    }
}

/// What is in the way of `step`, by what the kernel answered and what is known.
fn remedy(step: Step, errno: Errno, facts: &Facts) -> Option<String> {
    match (step, errno) {
        (Step::Clone | Step::Namespaces, Errno::EPERM) => Some(no_namespace(facts)),
        (Step::Clone | Step::Namespaces, Errno::ENOSPC) => Some(no_more_namespaces(facts)),
        (Step::IdentityMap, Errno::EPERM | Errno::EACCES) => Some(no_map(facts)),
        (Step::Cgroup | Step::Limits, Errno::EROFS) if facts.cgroups_read_only => Some(
            "/sys/fs/cgroup is read-only, as in a container: start that one with a writable \
             cgroup tree (Docker: --privileged, or --cgroupns=private and a writable mount)"
                .into(),
        ),
        (Step::Cgroup, Errno::EPERM | Errno::EACCES) => Some(no_group(facts)),
        (Step::Limits, Errno::EPERM | Errno::EACCES) if !facts.has(CAP_SYS_RESOURCE) => Some(
            "raising a limit above ours needs CAP_SYS_RESOURCE: lower it in process.rlimits, or \
             raise ours first (ulimit, LimitNOFILE= and its like of systemd)"
                .into(),
        ),
        (Step::Identity, Errno::EROFS | Errno::EACCES | Errno::EPERM)
            if facts.parameters_read_only =>
        {
            Some(
                "/proc/sys is read-only, as in a container: kernel parameters can only be set \
                 where it is not (Docker: --privileged)"
                    .into(),
            )
        }
        (Step::Devices, Errno::EPERM) if !facts.has(CAP_MKNOD) || facts.in_user_namespace => Some(
            "device nodes need CAP_MKNOD over the host: leave linux.devices out, or run as root \
             outside of any user namespace"
                .into(),
        ),
        (Step::Rootfs | Step::Mounts | Step::Hide | Step::Pivot, Errno::EPERM | Errno::EACCES) => {
            no_mount(facts)
        }
        (Step::Filter, Errno::EPERM | Errno::EACCES) if !facts.has(CAP_SYS_ADMIN) => Some(
            "a filter needs process.noNewPrivileges, or CAP_SYS_ADMIN to be loaded without it"
                .into(),
        ),
        (Step::Credentials, Errno::EPERM) if facts.in_user_namespace => Some(
            "the user or group is not mapped in this user namespace: see linux.uidMappings and \
             linux.gidMappings"
                .into(),
        ),
        _ => outer_container(facts).filter(|_| [Errno::EPERM, Errno::ENOSYS].contains(&errno)),
    }
}

fn no_namespace(facts: &Facts) -> String {
    if !facts.has(CAP_SYS_ADMIN) {
        if facts.user_namespaces_for_all == Some(0) {
            return "this host forbids user namespaces to users: as root, sysctl \
                    kernel.unprivileged_userns_clone=1"
                .into();
        }
        if facts.restricted_by_apparmor == Some(1) {
            return "AppArmor forbids user namespaces to programs without a profile: give minirun \
                    one with `userns,`, or, as root, sysctl \
                    kernel.apparmor_restrict_unprivileged_userns=0"
                .into();
        }
    }
    outer_container(facts).unwrap_or_else(|| {
        "new namespaces need CAP_SYS_ADMIN: run as root, or with a user namespace".into()
    })
}

fn no_more_namespaces(facts: &Facts) -> String {
    match facts.most_user_namespaces {
        Some(0) => "this host allows no user namespaces: as root, sysctl \
                    user.max_user_namespaces=15000"
            .into(),
        _ => "a limit below /proc/sys/user is reached: too many namespaces of this user, or \
              nested too deep (32)"
            .into(),
    }
}

fn no_map(facts: &Facts) -> String {
    if facts.no_new_privileges && facts.user != 0 {
        return "newuidmap gets no privileges, because this process has no_new_privs: see \
                NoNewPrivileges= of the unit that started it"
            .into();
    }
    if facts.in_user_namespace {
        return "this process is in a user namespace itself: only its own users can be mapped, see \
                /proc/self/uid_map"
            .into();
    }
    if facts.has(CAP_SETUID) {
        return "the kernel refuses these ranges: they overlap, or one is above 4294967294".into();
    }
    "mapping other users than oneself needs newuidmap and newgidmap (package uidmap) and ranges in \
     /etc/subuid and /etc/subgid"
        .into()
}

fn no_group(facts: &Facts) -> String {
    if facts.user == 0 && !facts.in_user_namespace {
        return outer_container(facts).unwrap_or_else(|| {
            "this part of the cgroup tree is not ours: it must be delegated (Delegate=yes)".into()
        });
    }
    "no part of the cgroup tree is delegated to you: run under `systemd-run --user --scope -p \
     Delegate=yes …`, or with --systemd-cgroup"
        .into()
}

fn no_mount(facts: &Facts) -> Option<String> {
    if facts.in_user_namespace {
        return Some(
            "in a user namespace, proc and sysfs can be mounted only where those of the outer \
             one are not masked (Docker: --security-opt systempaths=unconfined), and the source \
             of a bind mount must be whole"
                .into(),
        );
    }
    outer_container(facts)
}

/// What an outer container may forbid.
fn outer_container(facts: &Facts) -> Option<String> {
    if facts.filtered {
        return Some(
            "this process is under a seccomp filter of others, an outer container's perhaps: \
             start that one with --security-opt seccomp=unconfined, or a profile that allows \
             namespaces and mounts"
                .into(),
        );
    }
    if let Some(profile) = &facts.profile {
        return Some(format!(
            "this process is under the AppArmor profile {profile}: see `dmesg | grep apparmor`"
        ));
    }
    (facts.user == 0 && !facts.has(CAP_SYS_ADMIN)).then(|| {
        "this root has no CAP_SYS_ADMIN, as in a container: start that one with --privileged, or \
         --cap-add SYS_ADMIN"
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root of the host, with nothing in the way.
    fn root() -> Facts {
        Facts { capabilities: u64::MAX, most_user_namespaces: Some(100), ..Facts::default() }
    }

    fn user() -> Facts {
        Facts { user: 1000, capabilities: 0, ..root() }
    }

    #[track_caller]
    fn says(step: Step, errno: Errno, facts: &Facts, words: &str) {
        let text = remedy(step, errno, facts).unwrap_or_default();
        assert!(text.contains(words), "{text:?}");
    }

    #[test]
    fn namespaces_name_the_setting() {
        let (clone, eperm) = (Step::Clone, Errno::EPERM);
        let debian = Facts { user_namespaces_for_all: Some(0), ..user() };
        says(clone, eperm, &debian, "kernel.unprivileged_userns_clone=1");
        let ubuntu = Facts { restricted_by_apparmor: Some(1), ..user() };
        says(clone, eperm, &ubuntu, "apparmor_restrict_unprivileged_userns=0");
        says(clone, eperm, &Facts { filtered: true, ..user() }, "seccomp=unconfined");
        says(clone, eperm, &user(), "CAP_SYS_ADMIN");
        // Root is not held back by what is for users.
        let root_there = Facts { user_namespaces_for_all: Some(0), filtered: true, ..root() };
        says(clone, eperm, &root_there, "seccomp=unconfined");
        let none = Facts { most_user_namespaces: Some(0), ..user() };
        says(clone, Errno::ENOSPC, &none, "user.max_user_namespaces=15000");
        says(clone, Errno::ENOSPC, &user(), "too many namespaces");
    }

    #[test]
    fn maps_name_what_is_missing() {
        let (map, eperm) = (Step::IdentityMap, Errno::EPERM);
        says(map, eperm, &Facts { no_new_privileges: true, ..user() }, "no_new_privs");
        says(map, eperm, &user(), "/etc/subuid");
        says(map, eperm, &Facts { in_user_namespace: true, ..root() }, "/proc/self/uid_map");
        says(map, eperm, &root(), "overlap");
    }

    #[test]
    fn outer_containers_are_recognised() {
        let docker = Facts { capabilities: 0xa804_25fb, ..root() };
        says(Step::Mounts, Errno::EPERM, &docker, "--cap-add SYS_ADMIN");
        let profile = Facts { profile: Some("docker-default (enforce)".into()), ..root() };
        says(Step::Pivot, Errno::EACCES, &profile, "docker-default");
        let parameters = Facts { parameters_read_only: true, ..root() };
        says(Step::Identity, Errno::EROFS, &parameters, "/proc/sys is read-only");
        let groups = Facts { cgroups_read_only: true, ..root() };
        says(Step::Cgroup, Errno::EROFS, &groups, "/sys/fs/cgroup is read-only");
        says(Step::Cgroup, Errno::EACCES, &user(), "Delegate=yes");
        let nested = Facts { in_user_namespace: true, ..root() };
        says(Step::Mounts, Errno::EPERM, &nested, "systempaths=unconfined");
        says(Step::Devices, Errno::EPERM, &nested, "CAP_MKNOD");
        says(Step::Credentials, Errno::EPERM, &nested, "linux.uidMappings");
        says(Step::Filter, Errno::EACCES, &user(), "noNewPrivileges");
        says(Step::Limits, Errno::EPERM, &user(), "process.rlimits");
    }

    #[test]
    fn where_nothing_is_known_nothing_is_said() {
        assert_eq!(remedy(Step::Mounts, Errno::ENOENT, &user()), None);
        assert_eq!(remedy(Step::Mounts, Errno::EPERM, &root()), None);
        assert_eq!(remedy(Step::Handover, Errno::EACCES, &root()), None);
    }

    #[test]
    fn tables_of_the_kernel_are_understood() {
        assert!(!is_inner("         0          0 4294967295\n"));
        assert!(is_inner("0 100000 65536\n"));
        let mounts = "p /proc proc rw 0 0\np /proc/sys proc ro,nosuid 0 0\nt /x y rw 0 0\n";
        assert!(is_read_only(mounts, "/proc/sys"));
        assert!(!is_read_only(mounts, "/proc"));
        assert!(!is_read_only(mounts, "/sys/fs/cgroup"));
    }
}
