//! What becomes of a packet: nothing here waits, or knows what time it is.
//!
//! The words mean what they mean to `netem` (net/sched/sch_netem.c): a packet is doubled or not and
//! lost or not, independently; one that is both comes once. A second copy has a fate of its own,
//! but is not doubled again. A delay is anything from `latency - jitter` to `latency + jitter`, all
//! equally likely. A share of the packets (`reorder`) does not wait at all, and so overtakes.

use std::time::Duration;

use crate::traffic::Faults;

const MILLION: u64 = 1_000_000;

/// Random numbers that follow from a seed: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// The numbers of that seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one.
    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Whether something happens that happens so often in a million times.
    fn is_one_of(&mut self, parts: u32) -> bool {
        self.number() % MILLION < parts.into()
    }
}

/// How long each copy of the next packet has to wait. None is left of one that is lost.
pub(super) fn fate(faults: &Faults, random: &mut Random) -> impl Iterator<Item = Duration> + use<> {
    let doubled = random.is_one_of(faults.duplicate_ppm);
    let lost = random.is_one_of(faults.loss_ppm);
    let first = (doubled || !lost).then(|| delay(faults, random));
    let second = doubled && !lost && !random.is_one_of(faults.loss_ppm);
    let second = second.then(|| delay(faults, random));
    first.into_iter().chain(second)
}

fn delay(faults: &Faults, random: &mut Random) -> Duration {
    if faults.reorder_ppm > 0 && random.is_one_of(faults.reorder_ppm) {
        return Duration::ZERO;
    }
    let jitter = u64::try_from(faults.jitter.as_nanos()).unwrap_or(u64::MAX / 4);
    if jitter == 0 {
        return faults.latency;
    }
    let more = Duration::from_nanos(random.number() % (2 * jitter + 1));
    // The jitter is never larger than the latency, see `Faults::parse`.
    (faults.latency + more).saturating_sub(faults.jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKETS: usize = 100_000;

    fn fates(text: &str) -> Vec<Vec<Duration>> {
        let faults = Faults::parse(text).unwrap();
        let mut random = Random::new(7);
        (0..PACKETS).map(|_| fate(&faults, &mut random).collect()).collect()
    }

    /// Of a hundred thousand; the seed is always the same, so these never differ between runs.
    fn share(all: &[Vec<Duration>], is_so: impl Fn(&[Duration]) -> bool) -> f64 {
        all.iter().filter(|one| is_so(one)).count() as f64 / PACKETS as f64
    }

    fn is_about(share: f64, expected: f64) -> bool {
        (share - expected).abs() < 0.005
    }

    #[test]
    fn a_latency_is_that_of_every_packet() {
        assert!(fates("latency=50ms").iter().all(|one| *one == [Duration::from_millis(50)]));
        assert!(fates("latency=0ms").iter().all(|one| *one == [Duration::ZERO]));
    }

    #[test]
    fn a_jitter_goes_both_ways_evenly_and_not_further() {
        let all = fates("latency=50ms,jitter=5ms");
        let (low, high) = (Duration::from_millis(45), Duration::from_millis(55));
        assert!(all.iter().all(|one| one.len() == 1 && one[0] >= low && one[0] <= high));
        for (below, expected) in [(46, 0.1), (50, 0.5), (53, 0.8)] {
            let below = Duration::from_millis(below);
            let share = share(&all, |one| one[0] < below);
            assert!(is_about(share, expected), "{share} below {below:?}");
        }
        let all = fates("latency=5ms,jitter=5ms");
        assert!(all.iter().all(|one| one[0] <= Duration::from_millis(10)));
    }

    #[test]
    fn shares_are_met() {
        let lost = fates("loss=1.5%");
        assert!(is_about(share(&lost, <[_]>::is_empty), 0.015));
        let doubled = fates("duplicate=25%");
        assert!(is_about(share(&doubled, |one| one.len() == 2), 0.25));
        assert!(doubled.iter().all(|one| !one.is_empty()));
        let early = fates("latency=50ms,reorder=25%");
        assert!(is_about(share(&early, |one| one[0].is_zero()), 0.25));
        assert!(is_about(share(&early, |one| one[0] == Duration::from_millis(50)), 0.75));
    }

    #[test]
    fn all_and_nothing_are_exact() {
        assert!(fates("loss=100%").iter().all(Vec::is_empty));
        assert!(fates("duplicate=100%").iter().all(|one| one.len() == 2));
        // Doubled and lost is once.
        assert!(fates("loss=100%,duplicate=100%").iter().all(|one| one.len() == 1));
        assert!(fates("latency=1s,reorder=100%").iter().all(|one| one[0].is_zero()));
    }

    #[test]
    fn a_copy_has_a_delay_of_its_own() {
        let all = fates("latency=50ms,jitter=5ms,duplicate=100%");
        assert!(share(&all, |one| one[0] != one[1]) > 0.99);
        let all = fates("loss=50%,duplicate=100%");
        // Lost: once. Not lost: the copy may be.
        assert!(is_about(share(&all, |one| one.len() == 2), 0.25));
    }

    #[test]
    fn one_seed_is_one_story() {
        let of = |seed| {
            let mut random = Random::new(seed);
            (0..4).map(|_| random.number()).collect::<Vec<_>>()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
