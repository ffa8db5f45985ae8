//! # What the kernel offers
//! Landlock: a process puts itself, and all that come from it, under rules about files and TCP
//! ports. What the rules do not allow is refused, whatever permission bits and mounts say.
//!
//! # What we do
//! What the annotation `org.minirun.landlock` says, for the first program and for those of `exec`,
//! as the last but one act before the system call filter: opening the paths of the rules is the
//! last thing that needs them all.
//!
//! # What goes wrong without it
//! Nothing that the specification knows of. But a program that is taken over can write to whatever
//! is mounted writable, and call whomever its network reaches.
//!
//! # By hand
//! ```sh
//! grep -q landlock_create_ruleset /proc/kallsyms && echo known || echo unknown
//! ```
//! See landlock(7).

use std::os::fd::AsFd;
use std::path::Path;

use linux::landlock::{self, Ruleset, files, ports};
use linux::path::Root;
use linux::{Errno, OFlag};

use crate::error::Cause;
use crate::plan::{LANDLOCK_ANNOTATION, Landlock};

/// Reading files and listing directories.
const READ: u64 = files::READ_FILE | files::READ_DIR;

/// Puts this process under the rules; its root is the container's.
pub(crate) fn enforce(rules: &Landlock) -> Result<(), Cause> {
    let version = version()?;
    let wanted = ports_of(rules, version)?;
    let known = files::known(version);
    let set = Ruleset::new(known, wanted)?;
    let root = Root::open(Path::new("/"))?;
    for (paths, allowed) in
        [(&rules.read, READ), (&rules.execute, READ | files::EXECUTE), (&rules.write, known)]
    {
        paths.iter().try_for_each(|path| allow(&set, &root, path, allowed))?;
    }
    for (list, allowed) in [(&rules.bind_tcp, ports::BIND), (&rules.connect_tcp, ports::CONNECT)] {
        list.iter().flatten().try_for_each(|port| set.allow_port(*port, allowed))?;
    }
    Ok(set.enforce()?)
}

/// What the kernel knows, or what to do where it knows nothing.
pub(crate) fn version() -> Result<u32, Cause> {
    landlock::version().map_err(|error| {
        Cause::from(error).remedy(format!(
            "{LANDLOCK_ANNOTATION} needs a kernel with Landlock (5.13) that is switched on: see \
             the boot parameter lsm="
        ))
    })
}

fn ports_of(rules: &Landlock, version: u32) -> Result<u64, Cause> {
    let of = |list: &Option<Vec<u16>>, right| if list.is_some() { right } else { 0 };
    let wanted = of(&rules.bind_tcp, ports::BIND) | of(&rules.connect_tcp, ports::CONNECT);
    if wanted != 0 && version < 4 {
        return Err(Cause::new(format!("this kernel's Landlock (version {version}) has no ports"))
            .remedy("bindTcp and connectTcp need Linux 6.7"));
    }
    Ok(wanted)
}

fn allow(set: &Ruleset, root: &Root, path: &Path, allowed: u64) -> Result<(), Cause> {
    let place = root.in_root(path, OFlag::O_PATH).map_err(|error| match error.errno {
        Errno::ENOENT => Cause::from(error)
            .remedy(format!("{LANDLOCK_ANNOTATION} names a path that the container lacks")),
        _ => error.into(),
    })?;
    let allowed = match super::mounts::is_directory(place.as_fd())? {
        true => allowed,
        false => allowed & files::OF_A_FILE,
    };
    Ok(set.allow_beneath(place.as_fd(), allowed)?)
}
