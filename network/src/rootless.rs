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
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use linux::fd;
use linux::inet::Transport;

use crate::error::{During, Error, Result};
use crate::process::Process;
use crate::publish::{HostPort, Publication};

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

    /// The arguments that connect that namespace.
    pub fn arguments(self, place: &Place, publications: &[Publication]) -> Result<Vec<String>> {
        match self {
            Self::Pasta => pasta(place, publications),
            Self::Slirp4netns => slirp4netns(place, publications),
        }
    }
}

/// Where the container is: files that stand for its namespaces.
///
/// Not the number of its process: one that is being made into a container may not be dumped, and
/// the kernel then keeps `/proc/PID/ns` to root. Nor descriptors of ours: the programs enter the
/// user namespace first, and from there nobody may look at us. So they inherit the namespaces, as
/// their standard input and output, which is what they do not close when they start.
#[derive(Debug)]
pub struct Place {
    user: String,
    network: String,
    inherited: Option<(OwnedFd, OwnedFd)>,
}

impl Place {
    /// The namespaces behind these descriptors.
    pub fn of_descriptors(user: OwnedFd, network: OwnedFd) -> Self {
        let path = |number| format!("/proc/self/fd/{number}");
        Self { user: path(0), network: path(1), inherited: Some((user, network)) }
    }

    /// The namespaces of a process that lets itself be looked at.
    pub fn of_process(pid: u32) -> Self {
        let path = |kind| format!("/proc/{pid}/ns/{kind}");
        Self { user: path("user"), network: path("net"), inherited: None }
    }

    /// Standard input and output of a program that is to enter it.
    fn streams(self) -> (Stdio, Stdio) {
        match self.inherited {
            Some((user, network)) => (user.into(), network.into()),
            None => (Stdio::null(), Stdio::null()),
        }
    }
}

fn pasta(place: &Place, publications: &[Publication]) -> Result<Vec<String>> {
    // Into the background when all is set up, so that its exit status is the answer. The address
    // of the host's gateway shall not mean the host itself inside; ports that the container
    // listens on and nobody published stay inside, and so do the host's. It would take the files of
    // the namespaces for files that somebody removes at the container's end.
    let mut arguments: Vec<String> =
        ["--config-net", "--quiet", "--no-map-gw", "--no-netns-quit"].map(String::from).into();
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
    arguments.extend(["--userns", &place.user, "--netns", &place.network].map(String::from));
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

fn slirp4netns(place: &Place, publications: &[Publication]) -> Result<Vec<String>> {
    if !publications.is_empty() {
        return Err(Error::Unsupported {
            what: "publishing a port".into(),
            needs: "pasta (Debian and Fedora: package passt)".into(),
        });
    }
    let arguments = ["--configure", "--mtu=65520", "--disable-host-loopback", "--enable-ipv6"];
    let user = format!("--userns-path={}", place.user);
    let place = [user, "--netns-type=path".into(), place.network.clone(), "tap0".into()];
    Ok(arguments.into_iter().map(String::from).chain(place).collect())
}

/// Connects a namespace with one of the programs, and returns when the network is there. `home` is
/// the container's directory, whose path marks the program as the container's.
///
/// The program does not notice the end of the namespace, so whoever keeps the container's state
/// [ends](end) it when the container has ended; where nobody knows it, [`end_those_of`] does.
pub fn start(
    program: Program,
    place: Place,
    publications: &[Publication],
    home: &Path,
) -> Result<Process> {
    match program {
        Program::Pasta => start_pasta(place, publications, &home.join("pasta.pid")),
        Program::Slirp4netns => start_slirp4netns(place, publications, home),
    }
}

/// pasta goes into the background when all is done.
fn start_pasta(place: Place, publications: &[Publication], pid_file: &Path) -> Result<Process> {
    let arguments = Program::Pasta.arguments(&place, publications)?;
    let (input, stdout) = place.streams();
    let output = Command::new("pasta")
        .arg("--pid")
        .arg(pid_file)
        .args(&arguments)
        .stdin(input)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| cannot_start(Program::Pasta, &error))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(does_not_work(Program::Pasta, &words));
    }
    let text = std::fs::read_to_string(pid_file).map_err(Error::file("reading", pid_file))?;
    let process = text.trim().parse().ok().and_then(Process::of);
    process.ok_or_else(|| does_not_work(Program::Pasta, "it has ended at once"))
}

/// slirp4netns stays this process's child, and says by a byte that the network is there.
fn start_slirp4netns(place: Place, publications: &[Publication], home: &Path) -> Result<Process> {
    let program = Program::Slirp4netns;
    let mut arguments = program.arguments(&place, publications)?;
    let log = home.join("slirp4netns.log");
    let words = File::create(&log).map_err(Error::file("making", &log))?;
    let (mut ready, told) = std::io::pipe().map_err(Error::file("making a pipe for", &log))?;
    fd::keep_on_exec(told.as_fd()).during(|| "starting slirp4netns".into())?;
    arguments.insert(0, format!("--ready-fd={}", told.as_raw_fd()));
    let mut command = Command::new(program.name());
    // What ps shows, and what `end_those_of` finds.
    command.arg0(format!("{} {}", program.name(), home.display())).args(&arguments);
    let (input, output) = place.streams();
    command.stdin(input).stdout(output).stderr(words);
    let child = command.spawn().map_err(|error| cannot_start(program, &error))?;
    drop((told, command));
    let mut byte = [0];
    let is_ready = ready.read(&mut byte).is_ok_and(|length| length == 1);
    let process = Process::of(child.id()).filter(|_| is_ready);
    process.ok_or_else(|| {
        let words = std::fs::read_to_string(&log).unwrap_or_default();
        does_not_work(program, &words)
    })
}

/// Ends the programs that connected the container in `home`, whoever started them and died before
/// that was written down.
pub fn end_those_of(home: &Path) -> Result<()> {
    let of_pasta = home.join("pasta.pid");
    let of_slirp = format!("{} {}", Program::Slirp4netns.name(), home.display());
    for name in crate::store::entries(Path::new("/proc"))? {
        let Some(process) = name.parse().ok().and_then(Process::of) else { continue };
        let line = std::fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        let program = words.next().unwrap_or_default();
        let is_pasta = program.ends_with(b"pasta") || program.ends_with(b"pasta.avx2");
        let is_its = words.any(|word| word == of_pasta.as_os_str().as_encoded_bytes());
        if (is_pasta && is_its) || program == of_slirp.as_bytes() {
            process.kill()?;
        }
    }
    Ok(())
}

fn does_not_work(program: Program, words: &str) -> Error {
    let words = words.trim().replace('\n', "; ");
    let name = program.name();
    Error::Unsupported { what: format!("--net {name}"), needs: format!("{name} to work: {words}") }
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
        let place = Place::of_process(7);
        let arguments = Program::Pasta.arguments(&place, &publications).unwrap().join(" ");
        let end = "-t 127.0.0.1/8080:80 -u 53:53 -T none -U none --userns /proc/7/ns/user \
                   --netns /proc/7/ns/net";
        assert!(arguments.ends_with(end), "{arguments}");
        let nothing = Program::Pasta.arguments(&place, &[]).unwrap().join(" ");
        assert!(nothing.contains("-t none -u none"), "{nothing}");
        assert!(Program::Pasta.arguments(&place, &parse("80").unwrap()).is_err());
        assert!(Program::Slirp4netns.arguments(&place, &publications).is_err());
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(find("sh", &OsString::from("/nowhere:/bin:/usr/bin")).is_some());
        assert!(find("passwd", &OsString::from("/etc")).is_none(), "not executable");
    }
}
