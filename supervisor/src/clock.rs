//! The two clocks: one that decisions use, one that people read.

use std::time::{SystemTime, UNIX_EPOCH};

use minisup_core::time::Mono;

/// Milliseconds since the host booted, asleep or not: the first field of `/proc/uptime` is the
/// same `CLOCK_BOOTTIME`, in hundredths.
pub(crate) fn now() -> Mono {
    Mono::from_ms(linux::clock::boot_time_ms())
}

/// Milliseconds since 1970. For people only: it may jump.
pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
