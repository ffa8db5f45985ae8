//! Quantities as Compose writes them: durations, bytes, CPUs, percentages, file modes.
//!
//! Each type prints itself in the form that it reads back, so that the canonical output of a
//! project loads to the same project.

use std::fmt;

use serde::{Serialize, Serializer};

/// A span of time in milliseconds: `500ms`, `1m30s`, `2h`, `1.5s`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

/// A number of bytes: `512m`, `1.5gb`, `64k`, `1024`. Units are powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub u64);

/// CPUs in units of 10⁻⁹, as `nano_cpus` of the engines: `"0.5"` is 500 000 000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cpus(pub u64);

/// A share in parts per million: `99.99%` is 999 900.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Percent(pub u32);

/// A ratio from 0 to 1 in parts per million, written as a decimal: `0.25` is 250 000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ratio(pub u32);

/// Permission bits, written in octal: `"0440"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileMode(pub u32);

impl From<Millis> for std::time::Duration {
    fn from(millis: Millis) -> Self {
        Self::from_millis(millis.0)
    }
}

/// Units of time in microseconds, largest first.
const TIME: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1000),
    ("us", 1),
];

/// Units of memory, largest first.
const MEMORY: [(&str, u64); 5] =
    [("t", 1 << 40), ("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10), ("b", 1)];

/// A decimal number without sign or exponent, times `scale`; `None` when it is not one, has
/// digits below 1/scale, or is too large.
fn scaled(text: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let divisor = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parse = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let part = parse(fraction)?.checked_mul(u128::from(scale))?;
    if part % divisor != 0 {
        return None;
    }
    let total = parse(whole)?.checked_mul(u128::from(scale))?.checked_add(part / divisor)?;
    u64::try_from(total).ok()
}

impl Millis {
    pub(crate) const FORM: &str = "a duration, as in `500ms`, `10s`, `1m30s` or `2h`";

    pub(crate) fn parse(text: &str) -> Option<Self> {
        // `0` alone is a duration in every language's library.
        if text == "0" {
            return Some(Self(0));
        }
        let mut rest = text;
        let mut micros: u64 = 0;
        while !rest.is_empty() {
            let number = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
            let (value, after) = rest.split_at(number);
            let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let (unit, next) = after.split_at(unit);
            let unit = if unit == "µs" { "us" } else { unit };
            let (_, scale) = TIME.iter().find(|(name, _)| *name == unit)?;
            micros = micros.checked_add(scaled(value, *scale)?)?;
            rest = next;
        }
        let whole = !text.is_empty() && micros.is_multiple_of(1000);
        whole.then_some(Self(micros / 1000))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut left = self.0;
        for (unit, micros) in TIME.iter().filter(|(_, micros)| *micros >= 1000) {
            let (count, rest) = (left / (micros / 1000), left % (micros / 1000));
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
            left = rest;
        }
        Ok(())
    }
}

impl Bytes {
    pub(crate) const FORM: &str = "a number of bytes, as in `512m`, `1.5gb`, `64k` or `1048576`";

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let number = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (value, unit) = text.split_at(number);
        let unit = unit
            .strip_suffix("ib")
            .or(unit.strip_suffix('b').filter(|u| !u.is_empty()))
            .unwrap_or(unit);
        let scale =
            if unit.is_empty() { 1 } else { MEMORY.iter().find(|(name, _)| *name == unit)?.1 };
        scaled(value.trim_end(), scale).map(Self)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = MEMORY.iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        match unit {
            Some((unit, size)) if self.0 > 0 => write!(f, "{}{unit}", self.0 / size),
            _ => write!(f, "{}b", self.0),
        }
    }
}

impl Cpus {
    pub(crate) const FORM: &str = "a number of CPUs, as in `0.5` or `2`";

    pub(crate) fn parse(text: &str) -> Option<Self> {
        scaled(text, 1_000_000_000).map(Self)
    }
}

/// `value / scale` as a decimal number without needless zeros.
fn decimal(f: &mut fmt::Formatter<'_>, value: u64, scale: u64, digits: usize) -> fmt::Result {
    let fraction = format!("{:0digits$}", value % scale);
    match fraction.trim_end_matches('0') {
        "" => write!(f, "{}", value / scale),
        fraction => write!(f, "{}.{fraction}", value / scale),
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal(f, self.0, 1_000_000_000, 9)
    }
}

impl Percent {
    pub(crate) const FORM: &str = "a percentage, as in `60%` or `99.95%`";

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts = scaled(text.strip_suffix('%')?, 10_000)?;
        u32::try_from(parts).ok().map(Self)
    }

    /// The share as a fraction: `60%` is 0.6.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 1_000_000.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal(f, u64::from(self.0), 10_000, 4)?;
        f.write_str("%")
    }
}

impl Ratio {
    pub(crate) const FORM: &str = "a ratio from 0 to 1, as in `0.25`";

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts = u32::try_from(scaled(text, 1_000_000)?).ok()?;
        (parts <= 1_000_000).then_some(Self(parts))
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        decimal(f, u64::from(self.0), 1_000_000, 6)
    }
}

impl FileMode {
    pub(crate) const FORM: &str = "permission bits in octal, as in `\"0440\"`";

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
            return None;
        }
        u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777).map(Self)
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0{:03o}", self.0)
    }
}

macro_rules! serialize_as_text {
    ($($type:ty => $kinds:tt, $pattern:literal, $example:literal;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        #[cfg(test)]
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": $kinds,
                    "pattern": $pattern,
                    "examples": [$example],
                })
            }
        }
    )*};
}

serialize_as_text! {
    Millis => ["string"], r"^([0-9.]+(d|h|m|s|ms|us|µs))+$|^0$|\$", "1m30s";
    Bytes => ["string", "integer"], r"^[0-9.]+ *([kKmMgGtT]?([iI]?[bB])?)$|\$", "512m";
    Cpus => ["string", "number"], r"^[0-9.]+$|\$", "0.5";
    Percent => ["string"], r"^[0-9.]+%$|\$", "99.95%";
    Ratio => ["string", "number"], r"^(0(\.[0-9]+)?|1(\.0+)?)$|\$", "0.25";
    FileMode => ["string"], r"^(0o)?[0-7]{1,4}$|\$", "0440";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("500ms", 500),
            ("1.5s", 1500),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("0", 0),
            ("0s", 0),
            ("5000us", 5),
        ];
        for (text, millis) in cases {
            assert_eq!(Millis::parse(text), Some(Millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "1x", "-1s", "1e3s", "10us", "1s 2s", "1..5s", "99999999999999d"]
        {
            assert_eq!(Millis::parse(text), None, "{text}");
        }
        assert_eq!(Millis(90_061_500).to_string(), "1d1h1m1s500ms");
    }

    #[test]
    fn bytes() {
        let cases = [
            ("512m", 512 << 20),
            ("512MB", 512 << 20),
            ("1.5g", 3 << 29),
            ("64 k", 64 << 10),
            ("2GiB", 2 << 30),
            ("100", 100),
            ("1b", 1),
            ("0", 0),
        ];
        for (text, bytes) in cases {
            assert_eq!(Bytes::parse(text), Some(Bytes(bytes)), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1.5b", "1e3", "99999999999t", "512mbb"] {
            assert_eq!(Bytes::parse(text), None, "{text}");
        }
        assert_eq!((Bytes(1536).to_string(), Bytes(0).to_string()), ("1536b".into(), "0b".into()));
    }

    #[test]
    fn cpus_percentages_and_modes() {
        assert_eq!(Cpus::parse("0.5"), Some(Cpus(500_000_000)));
        assert_eq!(Cpus::parse("0.0000000001"), None);
        assert_eq!(Cpus(1_250_000_000).to_string(), "1.25");
        assert_eq!(Percent::parse("99.995%"), Some(Percent(999_950)));
        assert_eq!(Percent::parse("60"), None);
        assert_eq!(Percent(999_950).to_string(), "99.995%");
        assert_eq!(FileMode::parse("0o440"), Some(FileMode(0o440)));
        assert_eq!((FileMode::parse("0888"), FileMode::parse("17777")), (None, None));
        assert_eq!(FileMode(0o1777).to_string(), "01777");
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_reads_back(n in proptest::num::u64::ANY, p in proptest::num::u32::ANY) {
            let millis = Millis(n / 1000);
            assert_eq!(Millis::parse(&millis.to_string()), Some(millis));
            assert_eq!(Bytes::parse(&Bytes(n).to_string()), Some(Bytes(n)));
            assert_eq!(Cpus::parse(&Cpus(n).to_string()), Some(Cpus(n)));
            let ratio = Ratio(p % 1_000_001);
            assert_eq!(Ratio::parse(&ratio.to_string()), Some(ratio));
            assert_eq!(Percent::parse(&Percent(p).to_string()), Some(Percent(p)));
        }
    }
}
