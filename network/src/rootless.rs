//! Networks without root: a program in user space that speaks for the container.
//!
//! # What the kernel offers
//! Somebody who is not root may make a network namespace (inside a user namespace), but no cable
//! out of it: the host's end would be an interface of the host. What is allowed is a tap device
//! inside, whose other end is a file.
//!
//! # What we do
//! pasta(1) reads packets from the tap and makes ordinary sockets of the host's out of them, and
//! the other way round. It takes the host's addresses and routes over, so the container needs no
//! translation. slirp4netns(1) does the same with a TCP/IP stack of its own; it is the fallback.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use linux::inet::Transport;

use crate::error::{During, Error, Result};
use crate::process::Process;
use crate::publish::{HostPort, Publication};

const SIGTERM: i32 = 15;

/// A program that connects a container without root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// pasta, of passt.
    Pasta,
    /// slirp4netns.
    Slirp4netns,
}

impl Program {
    /// Its name in `PATH`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// The best one that is installed.
    pub fn find_any() -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self::choose(|program| find(program.name(), &path).is_some())
    }

    fn choose(installed: impl Fn(Self) -> bool) -> Result<Self> {
        let best = [Self::Pasta, Self::Slirp4netns].into_iter().find(|program| installed(*program));
        best.ok_or_else(|| Error::Unsupported {
            what: "a network without root".into(),
            needs: "pasta (Debian and Fedora: package passt) or slirp4netns; \
                    --net none and --net host work without"
                .into(),
        })
    }

    /// The arguments that connect the namespace of the process `pid`.
    pub fn arguments(self, pid: u32, publications: &[Publication]) -> Result<Vec<String>> {
        match self {
            Self::Pasta => pasta(pid, publications),
            Self::Slirp4netns => slirp4netns(pid, publications),
        }
    }
}

fn pasta(pid: u32, publications: &[Publication]) -> Result<Vec<String>> {
    // Into the background when all is set up, so that its exit status is the answer. The address
    // of the host's gateway shall not mean the host itself inside; ports that the container
    // listens on and nobody published stay inside, and so do the host's.
    let mut arguments: Vec<String> =
        ["--config-net", "--quiet", "--no-map-gw"].map(String::from).into();
    for (flag, transport) in [("-t", Transport::Tcp), ("-u", Transport::Udp)] {
        let mut none = true;
        for publication in publications.iter().filter(|one| one.transport == transport) {
            arguments.extend([flag.to_owned(), pasta_port(publication)?]);
            none = false;
        }
        if none {
            arguments.extend([flag.to_owned(), "none".to_owned()]);
        }
    }
    arguments.extend(["-T", "none", "-U", "none"].map(String::from));
    arguments.push(pid.to_string());
    Ok(arguments)
}

fn pasta_port(publication: &Publication) -> Result<String> {
    let HostPort::Exactly(port) = publication.host else {
        return Err(Error::Unsupported {
            what: "a published port that the kernel chooses, or a choice of ports".into(),
            needs: "a bridge network (root); with pasta write HOST:CONTAINER".into(),
        });
    };
    let address = publication.ip.map_or_else(String::new, |ip| format!("{ip}/"));
    Ok(format!("{address}{port}:{}", publication.container))
}

fn slirp4netns(pid: u32, publications: &[Publication]) -> Result<Vec<String>> {
    if !publications.is_empty() {
        return Err(Error::Unsupported {
            what: "publishing a port".into(),
            needs: "pasta (Debian and Fedora: package passt)".into(),
        });
    }
    let arguments = ["--configure", "--mtu=65520", "--disable-host-loopback", "--enable-ipv6"];
    let process = [pid.to_string(), "tap0".to_owned()];
    Ok(arguments.into_iter().map(String::from).chain(process).collect())
}

/// Connects the namespace of the process `pid` with pasta, which goes into the background when the
/// network is there. `pid_file` is where it leaves its number (a path of the caller's).
///
/// Versions from 2023 do not notice the end of the namespace of a process, so whoever keeps the
/// container's state [ends](end) the result when the container has ended.
pub fn start_pasta(pid: u32, publications: &[Publication], pid_file: &Path) -> Result<Process> {
    let arguments = Program::Pasta.arguments(pid, publications)?;
    let output = Command::new("pasta")
        .arg("--pid")
        .arg(pid_file)
        .args(&arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| cannot_start(Program::Pasta, &error))?;
    let cannot = |words: &str| Error::Unsupported {
        what: "--net pasta".into(),
        needs: format!("pasta to work: {words}"),
    };
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(cannot(&words.trim().replace('\n', "; ")));
    }
    let text = std::fs::read_to_string(pid_file).map_err(Error::file("reading", pid_file))?;
    let process = text.trim().parse().ok().and_then(Process::of);
    process.ok_or_else(|| cannot("it has ended at once"))
}

/// Ends a program that connected a container. One that is gone already is no error.
pub fn end(process: Process) -> Result<()> {
    let Ok(pid) = i32::try_from(process.pid) else { return Ok(()) };
    let step = || format!("ending process {pid}");
    let Ok(pidfd) = linux::pidfd::open(linux::Pid::from_raw(pid)) else { return Ok(()) };
    // Asked after the descriptor was opened: from here on the number cannot be somebody else's.
    if !process.is_alive() {
        return Ok(());
    }
    match linux::pidfd::signal(&pidfd, SIGTERM) {
        Err(error) if error.errno == linux::Errno::ESRCH => Ok(()),
        other => other.during(step),
    }
}

/// Connects the namespace of the process `pid` with slirp4netns. It stays this process's child and
/// must be ended when the container has: it does not notice by itself.
pub fn start_slirp4netns(pid: u32) -> Result<std::process::Child> {
    let arguments = Program::Slirp4netns.arguments(pid, &[])?;
    Command::new("slirp4netns")
        .args(&arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| cannot_start(Program::Slirp4netns, &error))
}

fn cannot_start(program: Program, error: &std::io::Error) -> Error {
    let what = format!("--net {}", program.name());
    Error::Unsupported { what, needs: format!("the program {}: {error}", program.name()) }
}

/// The file of that name in the directories of `path` that can be executed.
fn find(name: &str, path: &OsString) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    std::env::split_paths(path).map(|dir| dir.join(name)).find(|file: &PathBuf| {
        let executable = |file: &Path| {
            file.metadata()
                .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        };
        executable(file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::parse;

    #[test]
    fn pasta_comes_first_and_without_both_there_is_a_hint() {
        assert_eq!(Program::choose(|_| true).unwrap(), Program::Pasta);
        let only = |wanted| move |program: Program| program == wanted;
        assert_eq!(Program::choose(only(Program::Slirp4netns)).unwrap(), Program::Slirp4netns);
        let hint = Program::choose(|_| false).unwrap_err().to_string();
        assert!(hint.contains("passt") && hint.contains("--net host"), "{hint}");
    }

    #[test]
    fn published_ports_become_arguments() {
        let publications: Vec<_> =
            ["127.0.0.1:8080:80", "53:53/udp"].iter().flat_map(|p| parse(p).unwrap()).collect();
        let arguments = Program::Pasta.arguments(7, &publications).unwrap().join(" ");
        assert!(arguments.ends_with("-t 127.0.0.1/8080:80 -u 53:53 -T none -U none 7"));
        let nothing = Program::Pasta.arguments(7, &[]).unwrap().join(" ");
        assert!(nothing.contains("-t none -u none"), "{nothing}");
        assert!(Program::Pasta.arguments(7, &parse("80").unwrap()).is_err());
        assert!(Program::Slirp4netns.arguments(7, &publications).is_err());
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(find("sh", &OsString::from("/nowhere:/bin:/usr/bin")).is_some());
        assert!(find("passwd", &OsString::from("/etc")).is_none(), "not executable");
    }
}
