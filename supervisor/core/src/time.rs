//! Time as the core knows it: a number that the caller passes in.
//!
//! [`Mono`] is milliseconds on the host's `CLOCK_BOOTTIME`: it never jumps when somebody sets the
//! clock, it goes on while the machine sleeps, and two processes of one boot agree on it. So a
//! deadline written down by one supervisor is still right for the next one.

use std::fmt;
use std::ops::{Add, Mul, Sub};

use serde::{Deserialize, Serialize};

/// An instant: milliseconds since the host booted (`CLOCK_BOOTTIME`, see `clock_gettime(2)`).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Mono(u64);

/// A length of time in milliseconds.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Span(u64);

impl Mono {
    /// The moment the host booted; earlier than anything that happens.
    pub const BOOT: Mono = Mono(0);

    /// The instant `ms` milliseconds after boot.
    pub const fn from_ms(ms: u64) -> Mono {
        Mono(ms)
    }

    /// Milliseconds since boot.
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    pub const fn since(self, earlier: Mono) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// A span of `ms` milliseconds.
    pub const fn from_ms(ms: u64) -> Span {
        Span(ms)
    }

    /// A span of `secs` seconds.
    pub const fn from_secs(secs: u64) -> Span {
        Span(secs.saturating_mul(1000))
    }

    /// The span in milliseconds.
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// `percent` hundredths of this span, rounded down.
    pub const fn percent(self, percent: u64) -> Span {
        Span(self.0.saturating_mul(percent) / 100)
    }
}

impl Add<Span> for Mono {
    type Output = Mono;
    fn add(self, span: Span) -> Mono {
        Mono(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Mono {
    type Output = Mono;
    fn sub(self, span: Span) -> Mono {
        Mono(self.0.saturating_sub(span.0))
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

impl Mul<u32> for Span {
    type Output = Span;
    fn mul(self, times: u32) -> Span {
        Span(self.0.saturating_mul(u64::from(times)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms < 1000 => write!(f, "{ms}ms"),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{}.{:03}s", ms / 1000, ms % 1000),
        }
    }
}

impl fmt::Display for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Mono::from_ms(5).since(Mono::from_ms(9)), Span::ZERO);
        assert_eq!(Mono::from_ms(u64::MAX) + Span::from_secs(1), Mono::from_ms(u64::MAX));
        assert_eq!(Mono::BOOT - Span::from_ms(1), Mono::BOOT);
        assert_eq!(Span::from_ms(150).percent(25), Span::from_ms(37));
    }

    #[test]
    fn spans_print_as_people_write_them() {
        assert_eq!(Span::from_ms(250).to_string(), "250ms");
        assert_eq!(Span::from_secs(10).to_string(), "10s");
        assert_eq!(Span::from_ms(1500).to_string(), "1.500s");
    }
}
