//! Block I/O: how important, and how much per second on which device.
//!
//! See: Documentation/admin-guide/cgroup-v2.rst "IO", block/bfq-iosched.rst.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::super::Error;
use super::super::host::{Controller, Version};
use super::{Setting, only_v1};

/// A property of config.json, the key of `io.max` in version 2, the file of version 1.
type Throttle = (&'static str, &'static str, &'static str);

const READ_BYTES: Throttle = ("throttleReadBpsDevice", "rbps", "blkio.throttle.read_bps_device");
const WRITE_BYTES: Throttle = ("throttleWriteBpsDevice", "wbps", "blkio.throttle.write_bps_device");
const READS: Throttle = ("throttleReadIOPSDevice", "riops", "blkio.throttle.read_iops_device");
const WRITES: Throttle = ("throttleWriteIOPSDevice", "wiops", "blkio.throttle.write_iops_device");

pub(super) fn settings(io: &LinuxBlockIo, version: Version) -> Result<Vec<Setting>, Error> {
    let mut all = weights(io, version)?;
    let throttles = [
        (io.throttle_read_bps_device(), READ_BYTES),
        (io.throttle_write_bps_device(), WRITE_BYTES),
        (io.throttle_read_iops_device(), READS),
        (io.throttle_write_iops_device(), WRITES),
    ];
    for (devices, throttle) in throttles {
        let devices = devices.as_deref().unwrap_or_default();
        all.extend(devices.iter().map(|device| ceiling(device, throttle, version)));
    }
    Ok(all)
}

/// A rate of 0 takes the ceiling away, in both versions.
fn ceiling(device: &LinuxThrottleDevice, throttle: Throttle, version: Version) -> Setting {
    let (property, key, file) = throttle;
    let (major, minor, rate) = (device.major(), device.minor(), device.rate());
    let asked = format!("blockIO.{property}");
    match version {
        Version::V2 => {
            let rate = if rate == 0 { "max".to_owned() } else { rate.to_string() };
            let value = format!("{major}:{minor} {key}={rate}");
            Setting::new((Controller::Io, version), asked, "io.max", value)
        }
        Version::V1 => {
            let value = format!("{major}:{minor} {rate}");
            Setting::new((Controller::Io, version), asked, file, value)
        }
    }
}

/// Weights work with the BFQ scheduler, which has its own file where it is built in; version 2 has
/// its own weight (for iocost) besides, on another scale.
fn weights(io: &LinuxBlockIo, version: Version) -> Result<Vec<Setting>, Error> {
    let here = (Controller::Io, version);
    let mut all = Vec::new();
    if let Some(weight) = checked(io.weight(), "blockIO.weight")? {
        all.push(match version {
            Version::V2 => Setting::new(here, "blockIO.weight", "io.bfq.weight", weight)
                .or("io.weight", format!("default {}", scaled(weight))),
            Version::V1 => Setting::new(here, "blockIO.weight", "blkio.bfq.weight", weight)
                .or("blkio.weight", weight),
        });
    }
    if let Some(weight) = checked(io.leaf_weight(), "blockIO.leafWeight")? {
        all.push(leaf("blkio.leaf_weight", weight.to_string(), version)?);
    }
    for device in io.weight_device().as_deref().unwrap_or_default() {
        let (major, minor) = (device.major(), device.minor());
        if let Some(weight) = checked(device.weight(), "blockIO.weightDevice")? {
            let value = format!("{major}:{minor} {weight}");
            all.push(match version {
                Version::V2 => Setting::new(here, "blockIO.weightDevice", "io.bfq.weight", value)
                    .or("io.weight", format!("{major}:{minor} {}", scaled(weight))),
                Version::V1 => {
                    let file = "blkio.bfq.weight_device";
                    Setting::new(here, "blockIO.weightDevice", file, value.clone())
                        .or("blkio.weight_device", value)
                }
            });
        }
        if let Some(weight) = checked(device.leaf_weight(), "blockIO.weightDevice")? {
            let value = format!("{major}:{minor} {weight}");
            all.push(leaf("blkio.leaf_weight_device", value, version)?);
        }
    }
    Ok(all)
}

/// A group's weight against its own children: only the CFQ scheduler had that, until Linux 5.0.
fn leaf(file: &'static str, value: String, version: Version) -> Result<Setting, Error> {
    match version {
        Version::V1 => {
            Ok(Setting::new((Controller::Io, version), "blockIO.leafWeight", file, value))
        }
        Version::V2 => Err(only_v1("blockIO.leafWeight", "use blockIO.weight")),
    }
}

/// Zero is what callers send for "not set".
fn checked(weight: Option<u16>, property: &str) -> Result<Option<u16>, Error> {
    match weight {
        None | Some(0) => Ok(None),
        Some(weight @ 10..=1000) => Ok(Some(weight)),
        Some(weight) => {
            let why = format!("{weight} is not between 10 and 1000");
            Err(Error::invalid(format!("linux.resources.{property}"), why))
        }
    }
}

/// 10 to 1000 stretched to the 1 to 10000 of `io.weight`, as runc and crun do it.
fn scaled(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::super::testing::{resources, writes};
    use super::*;

    #[test]
    fn ceilings_are_lines_of_one_file_or_of_four() {
        let json = r#"{"blockIO":{
            "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1048576},
                                     {"major":8,"minor":16,"rate":0}],
            "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":50}]}}"#;
        assert_eq!(
            writes(json, Version::V2).unwrap(),
            ["io.max=8:0 rbps=1048576", "io.max=8:16 rbps=max", "io.max=8:0 wiops=50"]
        );
        assert_eq!(
            writes(json, Version::V1).unwrap(),
            [
                "blkio.throttle.read_bps_device=8:0 1048576",
                "blkio.throttle.read_bps_device=8:16 0",
                "blkio.throttle.write_iops_device=8:0 50"
            ]
        );
    }

    #[test]
    fn a_weight_is_scaled_only_where_the_scale_is_another() {
        assert_eq!([10, 1000].map(scaled), [1, 10_000]);
        let resources = resources(r#"{"blockIO":{"weight":500}}"#);
        let io = resources.block_io().as_ref().unwrap();
        let setting = settings(io, Version::V2).unwrap().remove(0);
        assert_eq!((setting.file.as_ref(), setting.value.as_str()), ("io.bfq.weight", "500"));
        assert_eq!(setting.instead, Some(("io.weight".into(), "default 4950".into())));
    }

    #[test]
    fn weights_out_of_range_are_refused() {
        for json in [
            r#"{"blockIO":{"weight":9}}"#,
            r#"{"blockIO":{"weight":1001}}"#,
            r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":5}]}}"#,
        ] {
            assert!(writes(json, Version::V2).is_err(), "{json}");
            assert!(writes(json, Version::V1).is_err(), "{json}");
        }
        let leaf = r#"{"blockIO":{"leafWeight":500}}"#;
        assert!(writes(leaf, Version::V2).is_err());
        assert_eq!(writes(leaf, Version::V1).unwrap(), ["blkio.leaf_weight=500"]);
    }
}
