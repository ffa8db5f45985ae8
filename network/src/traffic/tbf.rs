//! The token bucket filter, tc-tbf(8): a rate, and a burst after each pause.

use netlink_bindings::tc::{PushTbfAttrs, TcTbfQopt};

use crate::netlink::Qdisc;
use crate::traffic::rate::Rate;

const TC_LINKLAYER_ETHERNET: u8 = 1;

/// How long a packet may wait at most: longer queues only add delay.
const QUEUE_MS: u64 = 50;
/// Half of the largest packet that the kernel cuts by itself (64 KiB): smaller bursts make it cut
/// all of them.
const SMALLEST_BURST_BYTES: u64 = 32 << 10;
/// A queue shorter than some full packets loses those of one write.
const SMALLEST_QUEUE_BYTES: u64 = 128 << 10;

/// A queue that lets packets pass at `rate`.
pub(super) fn queue(rate: Rate, burst_bytes: Option<u32>) -> Qdisc {
    let per_second = rate.bytes_per_second();
    let burst =
        burst_bytes.unwrap_or_else(|| saturated((per_second / 100).max(SMALLEST_BURST_BYTES)));
    let waiting = (per_second * QUEUE_MS / 1000).max(SMALLEST_QUEUE_BYTES);
    let limit = saturated(waiting).saturating_add(burst);
    let mut parameters = TcTbfQopt::new();
    parameters.rate.linklayer = TC_LINKLAYER_ETHERNET;
    parameters.rate.rate = saturated(per_second);
    parameters.limit = limit;
    let mut options = Vec::new();
    // The buffer is given in bytes instead of, as the parameters would have it, in ticks.
    PushTbfAttrs::new(&mut options)
        .push_parms(parameters)
        .push_burst(burst)
        .push_rate64(per_second);
    let shown = format!("tbf rate {rate} burst {burst} limit {limit}");
    Qdisc { kind: "tbf", options, shown }
}

fn saturated(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        let queue = queue("100mbit".parse().unwrap(), None);
        let parameters = &queue.options[4..4 + 36];
        assert_eq!(&queue.options[..2], 40_u16.to_ne_bytes());
        assert_eq!(parameters[1], TC_LINKLAYER_ETHERNET);
        assert_eq!(parameters[8..12], 12_500_000_u32.to_ne_bytes());
        assert_eq!(queue.shown, "tbf rate 100mbit burst 125000 limit 750000");
    }
}
