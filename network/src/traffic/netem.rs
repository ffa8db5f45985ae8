//! The network emulator, tc-netem(8).

use netlink_bindings::tc::{PushNetemAttrs, TcNetemQopt, TcNetemRate, TcNetemReorder};

use crate::netlink::Qdisc;
use crate::traffic::fault::Faults;

/// Packets in flight at most. The kernel's default of 1000 loses packets of its own from 10 ms and
/// 1 Gbit/s on.
const PACKETS: u32 = 100_000;

/// A queue with these faults.
pub(super) fn queue(faults: &Faults) -> Qdisc {
    // A packet overtakes when it is the next of a row of `gap`; every one may.
    let gap = u32::from(faults.reorder_ppm > 0);
    let mut header = TcNetemQopt::new();
    header.limit = PACKETS;
    header.loss = share(faults.loss_ppm);
    header.gap = gap;
    header.duplicate = share(faults.duplicate_ppm);
    let mut options = header.as_slice().to_vec();
    // The header has the two times in ticks, so they are given in nanoseconds instead.
    let nanoseconds =
        |time: std::time::Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    let mut attributes = PushNetemAttrs::new(&mut options)
        .push_latency64(nanoseconds(faults.latency))
        .push_jitter64(nanoseconds(faults.jitter));
    if faults.reorder_ppm > 0 {
        let mut reorder = TcNetemReorder::new();
        reorder.probability = share(faults.reorder_ppm);
        attributes = attributes.push_reorder(reorder);
    }
    if let Some(rate) = faults.rate {
        let per_second = rate.bytes_per_second();
        let mut bytes = TcNetemRate::new();
        bytes.rate = u32::try_from(per_second).unwrap_or(u32::MAX);
        attributes = attributes.push_rate(bytes).push_rate64(per_second);
    }
    drop(attributes);
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
