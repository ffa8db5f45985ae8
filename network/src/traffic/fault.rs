//! What can be wrong with a network: `latency=50ms,jitter=5ms,loss=1%,…`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::traffic::rate::{self, Rate};

/// What is wrong in one direction. Nothing by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Every packet comes that much later.
    pub latency: Duration,
    /// The delay varies by that much up and down.
    pub jitter: Duration,
    /// Packets of a million that are lost.
    pub loss_ppm: u32,
    /// Packets of a million that come twice.
    pub duplicate_ppm: u32,
    /// Packets of a million that overtake the others (needs a latency).
    pub reorder_ppm: u32,
    /// The bandwidth.
    pub rate: Option<Rate>,
}

impl Faults {
    /// Reads `latency=50ms,jitter=5ms,loss=1%,duplicate=1%,reorder=25%,rate=1mbit`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut faults = Self::default();
        for (key, value) in rate::pairs("fault", text)? {
            match key {
                "latency" => faults.latency = rate::time(value)?,
                "jitter" => faults.jitter = rate::time(value)?,
                "loss" => faults.loss_ppm = rate::parts_per_million(value)?,
                "duplicate" => faults.duplicate_ppm = rate::parts_per_million(value)?,
                "reorder" => faults.reorder_ppm = rate::parts_per_million(value)?,
                "rate" => faults.rate = Some(value.parse()?),
                _ => {
                    let known = "latency, jitter, loss, duplicate, reorder, rate";
                    return Err(rate::unknown("fault", text, key, known));
                }
            }
        }
        let wrong = |why| Err(Error::invalid("fault", text, why));
        if faults.reorder_ppm > 0 && faults.latency.is_zero() {
            return wrong("reorder lets packets overtake delayed ones, so it needs a delay");
        }
        if faults.jitter > faults.latency {
            return wrong("the jitter is larger than the delay");
        }
        Ok(faults)
    }

    /// The same in words, as [`parse`](Self::parse) reads it; nothing when nothing is wrong.
    pub fn text(&self) -> String {
        let time = |name, time: Duration| {
            (!time.is_zero())
                .then(|| format!("{name}={}us", time.as_micros()).replace("000us", "ms"))
        };
        let share =
            |name, ppm: u32| (ppm > 0).then(|| format!("{name}={}%", f64::from(ppm) / 10_000.0));
        let parts = [
            time("latency", self.latency),
            time("jitter", self.jitter),
            share("loss", self.loss_ppm),
            share("duplicate", self.duplicate_ppm),
            share("reorder", self.reorder_ppm),
            self.rate.map(|rate| format!("rate={rate}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(",")
    }

    /// Whether nothing is wrong.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the packet filter and `tbf` can do it, without netem.
    pub(super) fn is_only_loss_and_rate(&self) -> bool {
        let Self { loss_ppm, rate, .. } = *self;
        *self == Self { loss_ppm, rate, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_written_as_they_are_read() {
        for text in ["latency=50ms,jitter=500us,loss=1.5%,reorder=25%", "rate=1mbit", ""] {
            let faults = match text {
                "" => Faults::default(),
                text => Faults::parse(text).unwrap(),
            };
            assert_eq!(faults.text(), text);
        }
    }

    #[test]
    fn faults_are_read_and_nonsense_is_refused() {
        let faults = Faults::parse("latency=50ms,jitter=5ms,loss=1.5%,rate=1mbit").unwrap();
        assert_eq!((faults.latency.as_millis(), faults.loss_ppm), (50, 15_000));
        assert!(!faults.is_only_loss_and_rate() && !faults.is_none());
        assert!(Faults::parse("loss=1%,rate=1mbit").unwrap().is_only_loss_and_rate());
        for text in ["", "loss=1", "jitter=5ms", "reorder=5%", "delay=5ms", "loss=1%,loss=2%"] {
            assert!(Faults::parse(text).is_err(), "{text:?}");
        }
    }
}
