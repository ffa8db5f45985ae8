//! The network emulator, tc-netem(8).

use crate::netlink::{Qdisc, attribute};
use crate::traffic::fault::Faults;

const TCA_NETEM_REORDER: u16 = 3;
const TCA_NETEM_RATE: u16 = 6;
const TCA_NETEM_RATE64: u16 = 8;
const TCA_NETEM_LATENCY64: u16 = 10;
const TCA_NETEM_JITTER64: u16 = 11;

/// Packets in flight at most. The kernel's default of 1000 loses packets of its own from 10 ms and
/// 1 Gbit/s on.
const PACKETS: u32 = 100_000;

/// A queue with these faults.
pub(super) fn queue(faults: &Faults) -> Qdisc {
    // A packet overtakes when it is the next of a row of `gap`; every one may.
    let gap = u32::from(faults.reorder_ppm > 0);
    // struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter. The two times are in
    // ticks there, so they are given in nanoseconds by attributes of their own instead.
    let mut options = Vec::new();
    let (loss, duplicate) = (share(faults.loss_ppm), share(faults.duplicate_ppm));
    for value in [0, PACKETS, loss, gap, duplicate, 0] {
        options.extend(value.to_ne_bytes());
    }
    let nanoseconds =
        |time: std::time::Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    options.extend(attribute(TCA_NETEM_LATENCY64, &nanoseconds(faults.latency).to_ne_bytes()));
    options.extend(attribute(TCA_NETEM_JITTER64, &nanoseconds(faults.jitter).to_ne_bytes()));
    if faults.reorder_ppm > 0 {
        // struct tc_netem_reorder: the share of packets that go at once, and its correlation.
        let mut reorder = share(faults.reorder_ppm).to_ne_bytes().to_vec();
        reorder.extend([0; 4]);
        options.extend(attribute(TCA_NETEM_REORDER, &reorder));
    }
    if let Some(rate) = faults.rate {
        // struct tc_netem_rate: rate, packet_overhead, cell_size, cell_overhead.
        let per_second = rate.bytes_per_second();
        let mut bytes = u32::try_from(per_second).unwrap_or(u32::MAX).to_ne_bytes().to_vec();
        bytes.extend([0; 12]);
        options.extend(attribute(TCA_NETEM_RATE, &bytes));
        options.extend(attribute(TCA_NETEM_RATE64, &per_second.to_ne_bytes()));
    }
    Qdisc { kind: "netem", options, shown: format!("netem {faults:?}") }
}

/// A share of a million in the kernel's measure: of 2^32 - 1.
fn share(parts: u32) -> u32 {
    let scaled = u64::from(parts) * u64::from(u32::MAX) / 1_000_000;
    u32::try_from(scaled).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        let faults = Faults::parse("latency=50ms,loss=50%,reorder=1%,rate=8mbit").unwrap();
        let options = queue(&faults).options;
        let word = |at: usize| u32::from_ne_bytes(options[at..at + 4].try_into().unwrap());
        assert_eq!((word(4), word(8), word(12)), (PACKETS, u32::MAX / 2, 1));
        assert_eq!(options[24..28], [12, 0, 10, 0]);
        assert_eq!(options[28..36], 50_000_000_i64.to_ne_bytes());
        assert_eq!(share(1_000_000), u32::MAX);
    }
}
