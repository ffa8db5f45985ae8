//! Device nodes that the configuration asks for, beside those that every container has.

use std::path::{Path, PathBuf};

use linux::device::{Kind, Number};
use oci_spec::runtime::{Linux, LinuxDeviceType};

use crate::error::{Error, Result};

/// A device node inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where, inside the container; absolute.
    pub path: PathBuf,
    /// Character, block or fifo.
    pub kind: Kind,
    /// Which device.
    pub number: Number,
    /// Permission bits.
    pub mode: u32,
    /// The owner.
    pub user: u32,
    /// The group.
    pub group: u32,
}

/// The devices of every container, runtime-spec config-linux.md, "Default Devices".
pub const DEFAULT: [(&str, Number); 6] = [
    ("null", Number { major: 1, minor: 3 }),
    ("zero", Number { major: 1, minor: 5 }),
    ("full", Number { major: 1, minor: 7 }),
    ("random", Number { major: 1, minor: 8 }),
    ("urandom", Number { major: 1, minor: 9 }),
    ("tty", Number { major: 5, minor: 0 }),
];

pub(super) fn decide(linux: &Linux) -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        let wrong =
            |what: &str| Error::Config(format!("config.json: linux.devices[{index}]: {what}"));
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => Kind::Character,
            LinuxDeviceType::B => Kind::Block,
            LinuxDeviceType::P => Kind::Fifo,
            LinuxDeviceType::A => return Err(wrong("type \"a\" is for cgroup rules only")),
        };
        if !device.path().is_absolute() || device.path().file_name().is_none() {
            return Err(wrong("path is not an absolute file name"));
        }
        if device.path() == Path::new("/dev/ptmx") {
            // Privileged containers list every device of the host. This one would make terminals of
            // the host; the container has its own, `pts/ptmx`.
            continue;
        }
        let part = |value: i64| u32::try_from(value).map_err(|_| wrong("numbers are not in range"));
        let number = match kind {
            Kind::Fifo => Number::default(),
            _ => Number { major: part(device.major())?, minor: part(device.minor())? },
        };
        devices.push(Device {
            path: device.path().clone(),
            kind,
            number,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            user: device.uid().unwrap_or(0),
            group: device.gid().unwrap_or(0),
        });
    }
    Ok(devices)
}
