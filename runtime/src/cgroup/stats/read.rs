//! The forms in which the kernel shows numbers.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

use linux::fd;

use super::super::group::Member;
use super::super::host::Version;
use super::{Pressure, PressureLine};

/// The files of a group in one tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files<'a>(pub(super) &'a Member);

impl Files<'_> {
    pub(super) fn version(self) -> Version {
        self.0.version
    }

    pub(super) fn text(self, file: &str) -> Option<String> {
        fd::read_file_at(self.0.dir.as_fd(), Path::new(file)).ok()
    }

    pub(super) fn has(self, file: &str) -> bool {
        self.text(file).is_some()
    }

    /// A file that holds one number, or `max`; 0 when there is none.
    pub(super) fn number(self, file: &str) -> u64 {
        self.text(file).map_or(0, |text| number(&text))
    }

    /// A file of lines `key number`.
    pub(super) fn keyed(self, file: &str) -> BTreeMap<String, u64> {
        self.text(file).map_or_else(BTreeMap::new, |text| keyed(&text))
    }

    /// A pressure file; `None` where the kernel does not measure it.
    pub(super) fn pressure(self, file: &str) -> Option<Pressure> {
        pressure(&self.text(file)?)
    }
}

pub(super) fn number(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        // Version 1 shows −1 for some "no limit".
        text if text.starts_with('-') => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

pub(super) fn keyed(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(key, value)| (key.to_owned(), number(value)))
        .collect()
}

/// A list such as `0-2,7`.
pub(super) fn list(text: &str) -> Vec<u16> {
    let mut all = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            all.extend(first..=last);
        }
    }
    all
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same with `full`.
fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    let mut is_known = false;
    for line in text.lines() {
        let Some((kind, fields)) = line.split_once(' ') else { continue };
        let target = match kind {
            "some" => &mut pressure.some,
            "full" => &mut pressure.full,
            _ => continue,
        };
        *target = pressure_line(fields);
        is_known = true;
    }
    is_known.then_some(pressure)
}

fn pressure_line(fields: &str) -> PressureLine {
    let mut line = PressureLine::default();
    for (key, value) in fields.split(' ').filter_map(|field| field.split_once('=')) {
        match key {
            "avg10" => line.avg10 = value.parse().unwrap_or(0.0),
            "avg60" => line.avg60 = value.parse().unwrap_or(0.0),
            "avg300" => line.avg300 = value.parse().unwrap_or(0.0),
            "total" => line.total = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lists_and_pressure_are_read() {
        assert_eq!([number("max\n"), number("-1\n"), number("42\n")], [u64::MAX, u64::MAX, 42]);
        assert_eq!(list("0-2,7\n"), [0, 1, 2, 7]);
        assert!(list("\n").is_empty());
        let text = "some avg10=1.50 avg60=0.20 avg300=0.03 total=77\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let pressure = pressure(text).unwrap();
        assert_eq!((pressure.some.avg10, pressure.some.total, pressure.full.total), (1.5, 77, 5));
        assert_eq!(super::pressure("nonsense\n"), None);
    }
}
