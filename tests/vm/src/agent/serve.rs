//! The server: one request after the other from the port.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::{
    mount::{MountFlags, mount},
    time::{ClockId, Timespec},
};

use super::command;
use crate::protocol::{Kind, PORT, Ready, Setup, decode, receive, send, send_json};

/// Greets the host and answers it until it goes away.
pub(super) fn serve(profile: &str) -> Result<Infallible> {
    let mut port = open_port()?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    let uptime = uptime.split_whitespace().next().and_then(|seconds| seconds.parse().ok());
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let uptime = Duration::from_secs_f64(uptime.unwrap_or_default());
    send_json(&mut port, Kind::Ready, &Ready { release, uptime })?;
    while let Some((kind, payload)) = receive(&mut port)? {
        let answered = match kind {
            Kind::Setup => decode(&payload)
                .map_err(Into::into)
                .and_then(|setup| set_up(&setup))
                .and_then(|()| Ok(send(&mut port, Kind::Done, b"")?)),
            Kind::Exec => decode(&payload)
                .map_err(Into::into)
                .and_then(|exec| command::run(&mut port, &exec, profile == "quick")),
            // What was meant for a command that ended meanwhile.
            Kind::Stdin | Kind::StdinEnd | Kind::Resize | Kind::Kill => Ok(()),
            other => bail!("the host sent {other:?}"),
        };
        if let Err(error) = answered {
            if error.downcast_ref::<io::Error>().is_some_and(is_broken_port) {
                return Err(error);
            }
            send(&mut port, Kind::Refused, format!("{error:#}").as_bytes())?;
        }
    }
    // The host is gone: nobody would ever end this guest.
    rustix::system::reboot(rustix::system::RebootCommand::Restart)?;
    bail!("the guest goes on after its end")
}

fn is_broken_port(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::BrokenPipe)
}

/// Opens the port by its name: its number depends on the order of devices, and without udev
/// there is no link.
fn open_port() -> Result<File> {
    for entry in fs::read_dir("/sys/class/virtio-ports").context("no virtio-serial port")? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT {
            let device = Path::new("/dev").join(entry.file_name());
            return File::options()
                .read(true)
                .write(true)
                .open(&device)
                .with_context(|| format!("cannot open {}", device.display()));
        }
    }
    bail!("no virtio-serial port is named {PORT}")
}

fn set_up(setup: &Setup) -> Result<()> {
    let now = Timespec { tv_sec: i64::try_from(setup.now)?, tv_nsec: 0 };
    rustix::time::clock_settime(ClockId::Realtime, now).context("cannot set the clock")?;
    for (tag, at) in &setup.shares {
        fs::create_dir_all(at).with_context(|| format!("cannot make {at}"))?;
        // The host's files may be cached: what is shared is not changed while a guest runs.
        let data = c"trans=virtio,version=9p2000.L,msize=512000,cache=loose";
        mount(&**tag, &**at, "9p", MountFlags::RDONLY, Some(data))
            .with_context(|| format!("cannot mount {tag} on {at}"))?;
    }
    Ok(())
}

/// The environment of every command before its own variables.
pub(super) fn environment() -> BTreeMap<String, String> {
    [
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("USER", "root"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Where the program is, as a shell would find it.
pub(super) fn resolve(program: &str, path: &str) -> PathBuf {
    if program.contains('/') {
        return program.into();
    }
    let found = path.split(':').map(|directory| Path::new(directory).join(program));
    found.into_iter().find(|candidate| candidate.is_file()).unwrap_or_else(|| program.into())
}
