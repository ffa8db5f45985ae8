//! What the host must have: the programs that build and run a guest.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{cache::Cache, debian};

/// A file that must exist, and the Debian package that brings it.
const NEEDED: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("setpriv", "util-linux"),
    (KEYRING, "debian-archive-keyring"),
];

/// Debian's keys: what is installed in the guest is verified against them.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Sees to it that everything needed to build and run guests is on this host.
///
/// As root on a Debian system missing packages are installed, without their recommended ones.
///
/// # Errors
/// Names the packages to install when it may not or cannot install them itself.
pub fn ensure_host_packages() -> Result<()> {
    ensure_packages(NEEDED)
}

/// The same for other needs: pairs of a file or program that must exist, and the Debian package
/// that brings it.
///
/// # Errors
/// As [`ensure_host_packages`].
pub fn ensure_packages(needed: &[(&str, &str)]) -> Result<()> {
    let missing = missing(needed);
    if missing.is_empty() {
        return Ok(());
    }
    let command = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if !rustix::process::geteuid().is_root() {
        bail!("programs are missing here: run, as root, {command}");
    }
    if find("apt-get").is_none() {
        bail!("Debian's packages {} are needed, and here is no apt-get", missing.join(" "));
    }
    // One at a time: apt gives up when another one is at work. Who waited may find all of it there.
    let cache = Cache::open()?;
    let _alone = cache.lock_for("host")?;
    let missing = self::missing(needed);
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("vm: {command}");
    let apt = |arguments: &[&str]| {
        run(Command::new("apt-get")
            .args(["-q", "-y", "--no-install-recommends"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null()))
    };
    let mut install = vec!["install"];
    install.extend(&missing);
    // Fresh lists are only fetched when the old ones do not do: that takes a while.
    let installed = apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)));
    // A host that has a part of QEMU from the backports can have the rest from there only.
    installed.or_else(|error| debian::install_from_backports(&cache, &missing).context(error))
}

fn missing<'a>(needed: &[(&str, &'a str)]) -> Vec<&'a str> {
    let missing = needed.iter().filter(|(file, _)| find(file).is_none());
    let names: BTreeSet<_> = missing.map(|(_, package)| *package).collect();
    names.into_iter().collect()
}

/// Looks a program up in `PATH` and where administration programs live.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// A command by its full path, so that a user without `/usr/sbin` in `PATH` has it too.
pub(crate) fn command(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| program.into()))
}

/// Runs a command to its end; an error carries what it printed on standard error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a command to its end and gives its standard output.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let shown = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<_> = errors.lines().rev().take(15).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        bail!("{shown}: {}\n{}", output.status, tail.join("\n"));
    }
    Ok(output.stdout)
}

/// Reads a whole file, naming it in the error.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_path_or_not_at_all() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
    }

    #[test]
    fn missing_packages_are_named_once() {
        let needed =
            [("no-such-b", "bravo"), ("sh", "dash"), ("no-such-a", "alpha"), ("/no/file", "bravo")];
        assert_eq!(missing(&needed), ["alpha", "bravo"]);
    }

    #[test]
    fn a_failure_shows_the_last_words() {
        let error = run(Command::new("sh").args(["-c", "echo alas >&2; exit 3"])).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("exit status: 3") && error.contains("alas"), "{error}");
        assert!(run(&mut Command::new("no-such-program-anywhere")).is_err());
    }
}
