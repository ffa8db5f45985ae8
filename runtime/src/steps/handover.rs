//! # What the kernel offers
//! execve(2) replaces the program of a process and keeps the process: its number, its namespaces,
//! its cgroup, its credentials, and, unless told otherwise, its open files and ignored signals.
//!
//! # What we do
//! Look for the program while there is somebody to tell; make every other descriptor close itself;
//! give every signal its default meaning; enter the working directory as the user, and check that it
//! is inside; then become the program.
//!
//! # What goes wrong without it
//! A descriptor of a host directory that stays open is a way out of the container
//! (CVE-2024-21626). An ignored SIGPIPE makes `yes | head` run for ever.
//!
//! # By hand
//! ```sh
//! sh -c 'exec 9</; exec ls /proc/self/fd' | grep -x 9
//! sh -c 'echo $$; exec sh -c "echo \$\$"' | uniq | wc -l | grep -x 1
//! ```
//! See execve(2), close_range(2), runtime-spec config.md, "Process".

use std::path::{Path, PathBuf};

use linux::clone::{Strings, execute};
use linux::path::Root;
use linux::{Errno, OFlag, fd, mount, signal};

use super::diagnose;
use crate::error::Cause;
use crate::plan::{Process, environment_value};

/// Where programs are looked for when the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a password file is read, in bytes: it is the image's, and we are not.
const LONGEST_PASSWD: u64 = 1 << 20;

/// Finds the program in the root that this process is in, so that a typing error is told by
/// `create` and not by `start`.
pub(crate) fn find_program(process: &Process) -> Result<PathBuf, Cause> {
    let name = process.arguments.first().map(String::as_str).unwrap_or_default();
    if name.contains('/') {
        let path = process.working_directory.join(name);
        return match runnable(&path) {
            Ok(()) => Ok(path),
            Err(errno) => Err(not_runnable(errno)),
        };
    }
    let search = environment_value(&process.environment, "PATH").unwrap_or(DEFAULT_PATH);
    let mut denied = None;
    for dir in search.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let path = process.working_directory.join(dir).join(name);
        match runnable(&path) {
            Ok(()) => return Ok(path),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => denied = denied.or(Some(errno)),
        }
    }
    Err(denied.map_or_else(
        || {
            Cause::new("executable file not found in $PATH: no such file or directory")
                .remedy(format!("PATH in the container is {search}"))
        },
        not_runnable,
    ))
}

fn runnable(path: &Path) -> Result<(), Errno> {
    let metadata = std::fs::metadata(path)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc_eio())))?;
    use std::os::unix::fs::PermissionsExt;
    if metadata.is_dir() {
        return Err(Errno::EISDIR);
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    Ok(())
}

fn libc_eio() -> i32 {
    Errno::EIO as i32
}

fn not_runnable(errno: Errno) -> Cause {
    let remedy = match errno {
        Errno::EACCES => Some("the file is not executable: chmod +x it in the image".to_owned()),
        _ => None,
    };
    let mut text = errno.desc().to_lowercase();
    if errno == Errno::EISDIR {
        // What execve(2) would answer, and what older Dockers make the exit code 126 of.
        text += ": permission denied";
    }
    Cause { text, errno: errno as i32, remedy }
}

/// Enters the working directory, as the user that the program runs as.
pub(crate) fn enter_working_directory(dir: &Path) -> Result<(), Cause> {
    mount::enter_path(dir).map_err(|error| {
        Cause::from(error).remedy(format!("the user cannot enter cwd {}", dir.display()))
    })?;
    // A directory of the host that leaked in has no path from here (CVE-2024-21626).
    match std::env::current_dir() {
        Ok(path) if path.is_absolute() => Ok(()),
        _ => Err(Cause::new(format!("cwd {} is not inside the container", dir.display()))),
    }
}

/// The environment with `HOME` in it, from the container's own password file.
pub(crate) fn with_home(process: &Process) -> Option<Strings> {
    if environment_value(&process.environment, "HOME").is_some() {
        return None;
    }
    let passwd = diagnose::head_of(Path::new("/etc/passwd"), LONGEST_PASSWD).unwrap_or_default();
    let passwd = String::from_utf8_lossy(&passwd);
    let home = home_of(&passwd, process.user.user).unwrap_or("/");
    let list = process.environment.iter().cloned().chain([format!("HOME={home}")]);
    Strings::new(list)
}

/// The home directory of a user in a passwd(5) file.
fn home_of(passwd: &str, user: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let number = fields.nth(2)?;
        let home = fields.nth(2)?;
        (number.parse() == Ok(user) && home.starts_with('/')).then_some(home)
    })
}

/// Makes every descriptor but the standard streams and `preserved` more close itself at execve, and
/// gives the signals that our caller ignored their default meaning.
pub(crate) fn leave_nothing(preserved: u32, ignored: signal::Set) -> Result<(), Cause> {
    fd::close_on_exec_from(3 + i32::try_from(preserved).unwrap_or(0))?;
    Ok(signal::reset(ignored)?)
}

/// Becomes the program. Returns only with the reason why not.
pub(crate) fn become_program(program: &Path, arguments: &Strings, environment: &Strings) -> Cause {
    let error = execute(program, arguments, environment);
    let (errno, text) = (error.errno, error.errno.desc().to_lowercase());
    let Some(reason) = diagnose::why(program, errno) else {
        return Cause { text, errno: errno as i32, remedy: None };
    };
    // The errno's text stays at the end: engines derive exit codes from it.
    Cause { text: format!("{reason}: {text}"), errno: errno as i32, remedy: None }
}

/// Makes the working directory when the image has none: engines expect that of `WORKDIR`.
pub(crate) fn make_working_directory(root: &Root, dir: &Path) -> Result<(), Cause> {
    match root.in_root(dir, OFlag::O_PATH | OFlag::O_DIRECTORY) {
        Err(error) if error.errno == Errno::ENOENT => {}
        // What else is wrong with it is told when it is entered.
        _ => return Ok(()),
    }
    match root.make_missing_dir(dir, 0o755) {
        Err(error) if error.errno == Errno::EROFS => Err(Cause::from(error)
            .remedy(format!("cwd {} is missing and the root is read-only", dir.display()))),
        made => Ok(made.map(drop)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:1000:1000::/srv/web:/bin/sh\n";
        assert_eq!(home_of(passwd, 1000), Some("/srv/web"));
        assert_eq!(home_of(passwd, 0), Some("/root"));
        assert_eq!(home_of(passwd, 7), None);
    }
}
