//! Limits as properties of a unit.
//!
//! systemd owns the files of the units that it starts, and writes them again when it reloads: what
//! it was not told would be taken back then. So it is told every limit for which it has a property;
//! all of them are then written to the files as well, because systemd rounds some and knows not
//! all.
//!
//! See: systemd.resource-control(5), org.freedesktop.systemd1(5).

use super::super::limits::Setting;
use super::message::{Properties, Value};

/// The properties that the writes of version 2 stand for.
pub(super) fn of(settings: &[Setting]) -> Properties {
    let mut all = Properties::new();
    for Setting { file, value, .. } in settings {
        let number = |name| number(value).map(|number| (name, Value::U64(number)));
        let one = match file.as_ref() {
            "memory.max" => number("MemoryMax"),
            "memory.high" => number("MemoryHigh"),
            "memory.low" => number("MemoryLow"),
            "memory.min" => number("MemoryMin"),
            "memory.swap.max" => number("MemorySwapMax"),
            "cpu.weight" => number("CPUWeight"),
            // To systemd, 0 is no number of tasks; the file takes it.
            "pids.max" => number("TasksMax").filter(|(_, value)| *value != Value::U64(0)),
            "cpuset.cpus" => mask(value).map(|mask| ("AllowedCPUs", Value::Bytes(mask))),
            "cpuset.mems" => mask(value).map(|mask| ("AllowedMemoryNodes", Value::Bytes(mask))),
            "cpu.max" => {
                all.extend(quota(value));
                None
            }
            _ => None,
        };
        all.extend(one);
    }
    all
}

/// systemd's "infinity" is the largest number.
fn number(value: &str) -> Option<u64> {
    match value {
        "max" => Some(u64::MAX),
        value => value.parse().ok(),
    }
}

/// `150000 100000` is one and a half second of CPU per second, in periods of 100 ms.
fn quota(value: &str) -> Properties {
    let mut parts = value.split_whitespace();
    let (quota, period) = (parts.next().unwrap_or("max"), parts.next());
    let period: Option<u64> = period.and_then(|period| period.parse().ok());
    let per_second = match number(quota) {
        None | Some(u64::MAX) => u64::MAX,
        // systemd keeps whole percents. Rounded up it never allows less than what was asked for.
        Some(quota) => {
            let exact = quota.saturating_mul(1_000_000) / period.unwrap_or(100_000).max(1);
            exact.next_multiple_of(10_000)
        }
    };
    let mut all = vec![("CPUQuotaPerSecUSec", Value::U64(per_second))];
    all.extend(period.map(|period| ("CPUQuotaPeriodUSec", Value::U64(period))));
    all
}

/// A list such as `0-2,7` as a bit mask, lowest bit of the first byte first.
fn mask(list: &str) -> Option<Vec<u8>> {
    /// More CPUs than any kernel is built for.
    const MOST: usize = 65_536;
    let mut mask = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        for bit in first..=last.min(MOST) {
            if mask.len() <= bit / 8 {
                mask.resize(bit / 8 + 1, 0);
            }
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::super::super::host::Version;
    use super::super::super::limits::{settings, testing::resources};
    use super::*;

    #[test]
    fn each_limit_that_systemd_knows_is_told_to_it() {
        let json = r#"{"memory":{"limit":8388608,"swap":-1},
            "cpu":{"shares":1024,"quota":33333,"period":50000,"cpus":"0-2,9","mems":"1"},
            "pids":{"limit":7},"unified":{"memory.high":"max"}}"#;
        let settings = settings(&resources(json), |_| Version::V2, &|_| None).unwrap();
        assert_eq!(
            of(&settings),
            [
                ("MemorySwapMax", Value::U64(u64::MAX)),
                ("MemoryMax", Value::U64(8_388_608)),
                ("CPUWeight", Value::U64(100)),
                ("CPUQuotaPerSecUSec", Value::U64(670_000)),
                ("CPUQuotaPeriodUSec", Value::U64(50_000)),
                ("AllowedCPUs", Value::Bytes(vec![0b111, 0b10])),
                ("AllowedMemoryNodes", Value::Bytes(vec![0b10])),
                ("TasksMax", Value::U64(7)),
                ("MemoryHigh", Value::U64(u64::MAX)),
            ]
        );
    }

    #[test]
    fn no_quota_is_infinity() {
        assert_eq!(quota("max"), [("CPUQuotaPerSecUSec", Value::U64(u64::MAX))]);
        assert_eq!(mask("x"), None);
        assert_eq!(mask("0-99999999").map(|mask| mask.len()), Some(8193));
    }
}
