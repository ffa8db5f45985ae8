//! Quantities as people write them.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A rate of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate {
    bytes_per_second: u64,
}

impl Rate {
    /// Bytes per second.
    pub fn bytes_per_second(self) -> u64 {
        self.bytes_per_second
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = self.bytes_per_second * 8;
        match bits {
            _ if bits.is_multiple_of(1_000_000_000) => write!(f, "{}gbit", bits / 1_000_000_000),
            _ if bits.is_multiple_of(1_000_000) => write!(f, "{}mbit", bits / 1_000_000),
            _ if bits.is_multiple_of(1000) => write!(f, "{}kbit", bits / 1000),
            _ => write!(f, "{bits}bit"),
        }
    }
}

impl FromStr for Rate {
    type Err = Error;

    /// Reads `50mbit`. `mbps` is refused: tc(8) takes it for megabytes and everybody else for
    /// megabits.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::invalid("rate", text, why);
        let (number, unit) = split(text);
        let unit = match unit {
            "bit" => 1.0,
            "kbit" => 1e3,
            "mbit" => 1e6,
            "gbit" => 1e9,
            _ => return Err(wrong("is a number with bit, kbit, mbit or gbit (per second)")),
        };
        let bits = positive(number).ok_or_else(|| wrong("is not a positive number"))? * unit;
        // From one packet in a second to what the kernel's 64 bits hold with room to spare.
        if !(8e3..=1e13).contains(&bits) {
            return Err(wrong("must be 8kbit to 10000gbit"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be between 8e3 and 1e13"
        )]
        let bytes_per_second = (bits / 8.0) as u64;
        Ok(Self { bytes_per_second })
    }
}

/// Reads a number of bytes: `64k`, `1m`, `1500`; k and m are 1024 and 1024².
pub(super) fn bytes(text: &str) -> Result<u32> {
    let (number, unit) = split(text);
    let unit: u32 = match unit {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        _ => return Err(Error::invalid("size", text, "is a number of bytes, or with k or m")),
    };
    let value = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    value
        .filter(|bytes| (2048..=1 << 30).contains(bytes))
        .ok_or_else(|| Error::invalid("size", text, "must be 2k to 1024m"))
}

/// Reads `5%` or `0.5%` as parts in a million.
pub(super) fn parts_per_million(text: &str) -> Result<u32> {
    let wrong = || Error::invalid("share", text, "is a percentage from 0% to 100%");
    let number = text.strip_suffix('%').ok_or_else(wrong)?;
    let number: f64 = number.parse().map_err(|_| wrong())?;
    if !(0.0..=100.0).contains(&number) {
        return Err(wrong());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be between 0 and 100"
    )]
    let parts = (number * 10_000.0).round() as u32;
    Ok(parts)
}

/// Reads `50ms`, `200us`, `1s`.
pub(super) fn time(text: &str) -> Result<Duration> {
    let wrong = |why| Error::invalid("time", text, why);
    let (number, unit) = split(text);
    let unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err(wrong("is a number with us, ms or s")),
    };
    let number: f64 = number.parse().map_err(|_| wrong("is not a number"))?;
    if !(0.0..=3600.0).contains(&(number * unit)) {
        return Err(wrong("must be 0s to 3600s"));
    }
    Ok(Duration::from_secs_f64(number * unit))
}

/// Takes `a=1,b=2` apart; a key may come once.
pub(super) fn pairs<'a>(what: &'static str, text: &'a str) -> Result<Vec<(&'a str, &'a str)>> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for part in text.split(',') {
        let pair = part.split_once('=').filter(|(_, value)| !value.is_empty());
        let pair = pair.ok_or_else(|| Error::invalid(what, text, "is KEY=VALUE,KEY=VALUE"))?;
        if pairs.iter().any(|(key, _)| *key == pair.0) {
            return Err(Error::invalid(what, text, format!("has {} twice", pair.0)));
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

pub(super) fn unknown(what: &'static str, text: &str, key: &str, known: &str) -> Error {
    Error::invalid(what, text, format!("has an unknown key {key:?}; there are {known}"))
}

fn positive(number: &str) -> Option<f64> {
    number.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0)
}

/// A number and what follows it.
fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_as_they_are_read() {
        for text in ["8kbit", "50mbit", "1gbit", "2500mbit"] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.to_string(), text);
        }
        for text in ["", "mbit", "-1mbit", "1e3mbit", "infbit", "1kbit", "99999gbit", "1 mbit"] {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn shares_times_and_sizes() {
        assert_eq!(parts_per_million("0.5%").unwrap(), 5_000);
        assert_eq!(parts_per_million("100%").unwrap(), 1_000_000);
        assert_eq!(time("1.5ms").unwrap(), Duration::from_micros(1500));
        assert_eq!(bytes("64k").unwrap(), 65_536);
        assert!(parts_per_million("5").is_err() && parts_per_million("101%").is_err());
        assert!(time("5").is_err() && time("-1s").is_err() && time("2h").is_err());
        assert!(bytes("1").is_err() && bytes("9999999k").is_err() && bytes("x").is_err());
    }
}
