//! Which devices a container may use.
//!
//! # What the kernel offers
//! Version 1 has a controller with a list of exceptions. Version 2 asks a BPF program at each open
//! and mknod of a device: type, numbers and access in, yes or no out.
//!
//! # What we do
//! Rules have one meaning in both: for each kind of access the last rule that matches decides, and
//! where none does, the answer is no. After the rules of the configuration come those that every
//! container needs ([`rules::always`]).
//!
//! # What goes wrong without it
//! Root in a container makes a node for the host's disk with mknod(2), and reads or writes it.
//!
//! See: bpf(2), Documentation/admin-guide/cgroup-v1/devices.rst, cgroup-v2.rst "Device controller".

mod exceptions;
mod program;
mod rules;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use linux::{Errno, OFlag, bpf, fd, path};
use oci_spec::runtime::LinuxDeviceCgroup;

use super::Error;
use super::group::Cgroup;
use super::host::{Controller, Version};

const ASKED: &str = "linux.resources.devices";

/// Confines the group to the devices that `configured` and the defaults allow.
///
/// An unprivileged caller may not do that, and need not: in a user namespace nobody can make a
/// device node, and the modes of the host's nodes hold.
pub(super) fn apply(group: &Cgroup, configured: &[LinuxDeviceCgroup]) -> Result<(), Error> {
    let rules = rules::complete(configured)?;
    let member = group.member_of(Controller::Devices);
    match member.version {
        Version::V1 => {
            let writes = exceptions::writes(&rules)?;
            writes.chunk_by(|(one, _), (next, _)| one == next).try_for_each(|writes| {
                write_all(member.dir.as_fd(), writes).map_err(|cause| refused(cause, ""))
            })
        }
        Version::V2 => {
            let Some(program) = program::assemble(&rules) else { return Ok(()) };
            let attached = bpf::load_device_program(&program).and_then(|program| {
                bpf::attach_device_program(member.dir.as_fd(), program.as_fd())
            });
            match attached {
                Err(cause) if cause.errno == Errno::EPERM && !group.record().is_roots() => Ok(()),
                Err(cause) if cause.errno == Errno::EPERM => Err(refused(
                    cause,
                    "; it takes CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN) in the first user \
                     namespace",
                )),
                result => result.map_err(|cause| refused(cause, "")),
            }
        }
    }
}

/// Makes writes to one and the same file.
fn write_all(
    group: BorrowedFd<'_>,
    writes: &[(&'static str, impl AsRef<str>)],
) -> linux::Result<()> {
    let Some((name, _)) = writes.first() else { return Ok(()) };
    let file = path::open_at(group, Path::new(name), OFlag::O_WRONLY)?;
    writes.iter().try_for_each(|(_, value)| {
        fd::write_at_once(file.as_fd(), value.as_ref().as_bytes()).map_err(|mut error| {
            error.arguments = format!("{name:?}, {:?}", value.as_ref());
            error
        })
    })
}

fn refused(cause: linux::Error, remedy: &str) -> Error {
    Error::Refused { asked: ASKED.to_owned(), cause: Box::new(cause), remedy: remedy.to_owned() }
}
