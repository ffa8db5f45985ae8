//! Time that nobody can set, clock_gettime(2).

use nix::time::{ClockId, clock_gettime};

/// Milliseconds since the host booted, time asleep included (`CLOCK_BOOTTIME`). Every process of
/// one boot agrees on it, and setting the date does not move it.
pub fn boot_time_ms() -> u64 {
    // The call fails only for a clock that does not exist; this one does since Linux 2.6.39.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from);
    now.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_agrees_with_proc_uptime() {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
        let read = (seconds * 1000.0) as u64;
        assert!(super::boot_time_ms() + 20 >= read, "{read}");
    }
}
