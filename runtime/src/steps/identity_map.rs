//! # What the kernel offers
//! A user namespace maps ranges of user and group numbers: what is 0 inside can be 100000 outside.
//! Whoever is root inside has all capabilities over what belongs to the namespace, and none over
//! anything else. The maps are written once, to `/proc/PID/uid_map` and `gid_map`, from outside.
//!
//! # What we do
//! The parent writes the maps of the new init, which waits for that and then becomes 0 inside. A
//! user without privileges may map only their own number, and must first give up setgroups(2);
//! for more, newuidmap(1) and newgidmap(1) write what `/etc/subuid` and `/etc/subgid` allow.
//!
//! # What goes wrong without it
//! Root in the container is root on the host: one hole in the kernel's other walls and it is over.
//! And where setgroups stays allowed to an unprivileged user, dropping a group can *give* access
//! that membership in it denied.
//!
//! # By hand
//! ```sh
//! unshare --user --map-root-user sh -c 'id -u; cat /proc/self/uid_map' | grep -x 0
//! unshare --user sh -c 'id -u' | grep -x 65534
//! unshare --user --map-root-user cat /proc/self/setgroups | grep -x deny
//! ```
//! See user_namespaces(7), newuidmap(1).

use std::path::Path;
use std::process::Command;

use linux::{OFlag, Pid, credentials, fd, path};

use crate::error::Cause;
use crate::plan::{IdMap, IdentityMap};

/// Writes the maps of process `pid`.
pub(crate) fn write(map: &IdentityMap, pid: Pid) -> Result<(), Cause> {
    if map.by_helper {
        call_helper("newuidmap", pid, &map.users)?;
        return call_helper("newgidmap", pid, &map.groups);
    }
    let process =
        path::open(Path::new(&format!("/proc/{pid}")), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    use std::os::fd::AsFd;
    let process = process.as_fd();
    if map.deny_setgroups {
        fd::write_file_at(process, Path::new("setgroups"), b"deny")?;
    }
    fd::write_file_at(process, Path::new("uid_map"), lines(&map.users).as_bytes())
        .map_err(explained)?;
    fd::write_file_at(process, Path::new("gid_map"), lines(&map.groups).as_bytes())
        .map_err(explained)
}

fn lines(ranges: &[IdMap]) -> String {
    ranges.iter().map(|r| format!("{} {} {}\n", r.inside, r.outside, r.count)).collect()
}

fn explained(error: linux::Error) -> Cause {
    Cause::from(error).remedy(
        "you may map only your own user and group, or ranges of /etc/subuid and /etc/subgid with \
         newuidmap and newgidmap (Debian package uidmap) installed",
    )
}

fn call_helper(program: &str, pid: Pid, ranges: &[IdMap]) -> Result<(), Cause> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for range in ranges {
        command.args([range.inside, range.outside, range.count].map(|n| n.to_string()));
    }
    let output = command.output().map_err(|error| {
        Cause::new(format!("{program}: {error}"))
            .remedy("install newuidmap and newgidmap (Debian package uidmap)")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Cause::new(format!("{program}: {}", said.trim()))
        .remedy("the ranges must be yours in /etc/subuid and /etc/subgid"))
}

/// Becomes 0 inside, where 0 exists: until now this process is nobody here, and what it makes would
/// belong to nobody.
pub(crate) fn become_root_inside(map: &IdentityMap) -> linux::Result<()> {
    let maps_zero = |ranges: &[IdMap]| ranges.iter().any(|range| range.inside == 0);
    if maps_zero(&map.groups) {
        if !map.deny_setgroups {
            credentials::set_groups(&[])?;
        }
        credentials::set_group(0)?;
    }
    if maps_zero(&map.users) {
        credentials::set_user(0)?;
    }
    Ok(())
}

/// The same in a user namespace that exists. Gives whether it allows setgroups(2).
pub(crate) fn become_root_of_existing() -> Result<bool, Cause> {
    let text = std::fs::read_to_string("/proc/self/setgroups").unwrap_or_default();
    let may_set_groups = text.trim() != "deny";
    if may_set_groups {
        credentials::set_groups(&[])?;
    }
    let unmapped = |error: linux::Error| {
        Cause::from(error).remedy("the user namespace that linux.namespaces names has no user 0")
    };
    credentials::set_group(0).map_err(unmapped)?;
    credentials::set_user(0).map_err(unmapped)?;
    Ok(may_set_groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_written_as_the_kernel_reads_them() {
        let ranges = [
            IdMap { inside: 0, outside: 1000, count: 1 },
            IdMap { inside: 1, outside: 100_000, count: 65_535 },
        ];
        assert_eq!(lines(&ranges), "0 1000 1\n1 100000 65535\n");
    }
}
