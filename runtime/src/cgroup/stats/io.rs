//! Reads and writes of block devices.

use serde::Serialize;

use super::super::host::Version;
use super::read::Files;
use super::{Pressure, is_zero};

/// Reads and writes of block devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// How long it was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// A number about one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    /// The device's driver.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    /// Which of the driver's devices.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// `Read`, `Write`, `Discard`, and in version 1 `Sync`, `Async`, `Total`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// How many or how much.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

pub(super) fn usage(files: Files<'_>, unified: Files<'_>) -> Blkio {
    let psi = unified.pressure("io.pressure");
    if files.version() == Version::V2 {
        let text = files.text("io.stat").unwrap_or_default();
        return Blkio {
            io_service_bytes_recursive: of_v2(&text, ["rbytes", "wbytes", "dbytes"]),
            io_serviced_recursive: of_v2(&text, ["rios", "wios", "dios"]),
            psi,
        };
    }
    // With the BFQ scheduler the group's own numbers are there; those of throttling always are.
    let read = |name: &str| {
        let of = |policy: &str| {
            let text = files.text(&format!("blkio.{policy}.{name}_recursive"));
            of_v1(&text.unwrap_or_default())
        };
        Some(of("bfq")).filter(|entries| !entries.is_empty()).unwrap_or_else(|| of("throttle"))
    };
    Blkio {
        io_service_bytes_recursive: read("io_service_bytes"),
        io_serviced_recursive: read("io_serviced"),
        psi,
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
fn of_v2(text: &str, keys: [&str; 3]) -> Vec<BlkioEntry> {
    let mut all = Vec::new();
    for line in text.lines() {
        let Some((major, minor, fields)) = device(line) else { continue };
        for (key, op) in keys.iter().zip(["Read", "Write", "Discard"]) {
            let value = fields
                .split(' ')
                .filter_map(|field| field.split_once('='))
                .find_map(|(name, value)| (name == *key).then(|| value.parse().ok())?);
            all.extend(value.map(|value| BlkioEntry { major, minor, op: op.into(), value }));
        }
    }
    all
}

/// `8:0 Read 1`, and one line `Total 1` for all devices at the end.
fn of_v1(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let (major, minor, rest) = device(line)?;
        let (op, value) = rest.split_once(' ')?;
        Some(BlkioEntry { major, minor, op: op.to_owned(), value: value.trim().parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// The numbers of the device that a line begins with, and the rest of it.
fn device(line: &str) -> Option<(u64, u64, &str)> {
    let (numbers, rest) = line.split_once(' ')?;
    let (major, minor) = numbers.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(op: &str, value: u64) -> BlkioEntry {
        BlkioEntry { major: 8, minor: 16, op: op.into(), value }
    }

    #[test]
    fn both_versions_tell_the_same() {
        let v2 = "8:16 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n254:0\n";
        let bytes = of_v2(v2, ["rbytes", "wbytes", "dbytes"]);
        assert_eq!(bytes, [entry("Read", 10), entry("Write", 20), entry("Discard", 0)]);
        let v1 = "8:16 Read 10\n8:16 Write 20\nTotal 30\n";
        assert_eq!(of_v1(v1), [entry("Read", 10), entry("Write", 20)]);
    }
}
