//! Devices of the host: files of `/dev` in the container, rules, and rates of block devices.
//!
//! What a device is called stays, its numbers may not (a USB device comes back with others), so they
//! are looked up at each start.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{array, object};

/// Directories below `/dev` that are file systems or belong to nobody's hardware.
const OWN: [&str; 5] = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/hugepages", "/dev/fd"];
/// How deep `/dev` is looked through.
const DEPTH: usize = 4;

/// Devices that a container may use.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Devices {
    /// Device files of the host, or directories of such.
    pub(crate) files: Vec<DeviceFile>,
    /// What it may use beyond those, as cgroup rules.
    pub(crate) rules: Vec<Rule>,
    /// Its share of block devices' time, 10 to 1000.
    pub(crate) weight: Option<u16>,
    /// The same for single devices.
    pub(crate) weights: Vec<(PathBuf, u64)>,
    /// Limits per second: the key of OCI's `blockIO`, the device, the number.
    pub(crate) rates: Vec<(String, PathBuf, u64)>,
}

/// A device file, or all in a directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct DeviceFile {
    /// On the host.
    pub(crate) source: PathBuf,
    /// In the container.
    pub(crate) target: String,
    /// Some of `r`, `w` and `m`.
    pub(crate) access: String,
}

/// A rule of the device controller.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// `a`, `b` or `c`.
    pub(crate) kind: char,
    /// `None` is every number.
    pub(crate) major: Option<u32>,
    /// `None` is every number.
    pub(crate) minor: Option<u32>,
    /// Some of `r`, `w` and `m`.
    pub(crate) access: String,
}

impl Devices {
    /// Writes them into the `linux` part of a configuration.
    ///
    /// # Errors
    /// A device is not there, or none.
    pub(super) fn write(&self, linux: &mut Map<String, Value>) -> Result<()> {
        for file in &self.files {
            add(linux, &file.source, &file.target, &file.access)?;
        }
        for rule in &self.rules {
            let mut entry = json!({"allow": true, "access": rule.access});
            if rule.kind != 'a' {
                entry["type"] = json!(rule.kind.to_string());
            }
            for (key, number) in [("major", rule.major), ("minor", rule.minor)] {
                if let Some(number) = number {
                    entry[key] = json!(number);
                }
            }
            array(object(linux, "resources"), "devices").push(entry);
        }
        self.write_rates(linux)
    }

    fn write_rates(&self, linux: &mut Map<String, Value>) -> Result<()> {
        if self.weight.is_none() && self.weights.is_empty() && self.rates.is_empty() {
            return Ok(());
        }
        let block = object(object(linux, "resources"), "blockIO");
        if let Some(weight) = self.weight {
            block.insert("weight".into(), json!(weight));
        }
        for (path, weight) in &self.weights {
            let (major, minor) = numbers(&look(path)?);
            let entry = json!({"major": major, "minor": minor, "weight": weight});
            array(block, "weightDevice").push(entry);
        }
        for (key, path, rate) in &self.rates {
            let (major, minor) = numbers(&look(path)?);
            array(block, key).push(json!({"major": major, "minor": minor, "rate": rate}));
        }
        Ok(())
    }
}

/// Gives a container every device of the host.
pub(super) fn add_all(linux: &mut Map<String, Value>) {
    // What has gone since it was listed is not missed.
    let _ = walk(linux, Path::new("/dev"), "/dev", "rwm", DEPTH);
    array(object(linux, "resources"), "devices").push(json!({"allow": true, "access": "rwm"}));
}

fn add(linux: &mut Map<String, Value>, source: &Path, target: &str, access: &str) -> Result<()> {
    let found = look(source)?;
    if found.is_dir() {
        return walk(linux, source, target, access, DEPTH);
    }
    let Some(kind) = kind(&found) else {
        bail!("{} is not a device", source.display());
    };
    push(linux, &found, kind, target, access);
    Ok(())
}

fn push(linux: &mut Map<String, Value>, found: &Metadata, kind: &str, target: &str, access: &str) {
    let (major, minor) = numbers(found);
    let devices = array(linux, "devices");
    devices.retain(|entry| entry["path"] != json!(target));
    devices.push(json!({
        "path": target, "type": kind, "major": major, "minor": minor,
        "fileMode": found.mode() & 0o777, "uid": found.uid(), "gid": found.gid(),
    }));
    array(object(linux, "resources"), "devices").push(json!({
        "allow": true, "type": kind, "major": major, "minor": minor, "access": access,
    }));
}

fn walk(
    linux: &mut Map<String, Value>,
    dir: &Path,
    target: &str,
    access: &str,
    depth: usize,
) -> Result<()> {
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let (Ok(found), Some(name)) =
            (entry.metadata(), entry.file_name().to_str().map(String::from))
        else {
            continue;
        };
        let target = format!("{target}/{name}");
        match kind(&found) {
            Some(kind) => push(linux, &found, kind, &target, access),
            None if found.is_dir()
                && depth > 0
                && !OWN.iter().any(|own| path == Path::new(own)) =>
            {
                walk(linux, &path, &target, access, depth - 1)?;
            }
            None => {}
        }
    }
    Ok(())
}

fn look(path: &Path) -> Result<Metadata> {
    std::fs::metadata(path).with_context(|| format!("there is no device {}", path.display()))
}

/// The type of a device as config.json has it.
fn kind(found: &Metadata) -> Option<&'static str> {
    match found.file_type() {
        kind if kind.is_char_device() => Some("c"),
        kind if kind.is_block_device() => Some("b"),
        _ => None,
    }
}

fn numbers(found: &Metadata) -> (u64, u64) {
    (linux::device::major(found.rdev()), linux::device::minor(found.rdev()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(devices: &Devices) -> Result<Value> {
        let mut linux = Map::new();
        devices.write(&mut linux)?;
        Ok(Value::Object(linux))
    }

    fn file(source: &str, target: &str) -> Devices {
        let one = DeviceFile { source: source.into(), target: target.into(), access: "rw".into() };
        Devices { files: vec![one], ..Devices::default() }
    }

    #[test]
    fn a_device_is_made_and_allowed() {
        let made = written(&file("/dev/null", "/dev/nothing")).unwrap();
        assert_eq!(made["devices"][0]["path"], "/dev/nothing");
        assert_eq!(
            (&made["devices"][0]["major"], &made["devices"][0]["minor"]),
            (&1.into(), &3.into())
        );
        let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"});
        assert_eq!(made["resources"]["devices"][0], rule);
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let refused = |path: &str| written(&file(path, "/dev/x")).unwrap_err().to_string();
        assert_eq!(refused("/etc/hostname"), "/etc/hostname is not a device");
        assert_eq!(refused("/dev/no-such"), "there is no device /dev/no-such");
    }

    #[test]
    fn rules_and_rates_are_written_with_numbers() {
        let rule = Rule { kind: 'a', major: None, minor: None, access: "m".into() };
        let rates = vec![("throttleReadBpsDevice".into(), "/dev/null".into(), 4096)];
        let made =
            written(&Devices { rules: vec![rule], rates, weight: Some(300), ..Devices::default() });
        let resources = &made.unwrap()["resources"];
        assert_eq!(resources["devices"][0], json!({"allow": true, "access": "m"}));
        let rate = json!({"major": 1, "minor": 3, "rate": 4096});
        assert_eq!(resources["blockIO"]["throttleReadBpsDevice"][0], rate);
        assert_eq!(resources["blockIO"]["weight"], 300);
    }
}
