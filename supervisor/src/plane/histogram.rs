//! How long answers take, as counts that can be added up.
//!
//! Log-linear: each power of two of microseconds has eight buckets of equal width, so a value is
//! known to an eighth, from a microsecond to half an hour, in 2 KiB. Histograms of replicas, of
//! services and of intervals are added or subtracted bucket by bucket; no quantile is ever
//! averaged.

use std::time::Duration;

/// Buckets per power of two, as a power of two.
const FINE: u32 = 3;
/// The powers of two.
const POWERS: u32 = 31;
const BUCKETS: usize = ((POWERS - FINE + 1) << FINE) as usize;

/// Counts of durations.
#[derive(Clone, Debug)]
pub(crate) struct Histogram(Box<[u64; BUCKETS]>);

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram(Box::new([0; BUCKETS]))
    }
}

/// The bucket of a duration in microseconds.
fn bucket(us: u64) -> usize {
    let us = us.min((1 << POWERS) - 1);
    let power = us.max(1).ilog2();
    let place = match power.checked_sub(FINE) {
        None => us,
        Some(shift) => (u64::from(shift) << FINE) + (us >> shift),
    };
    usize::try_from(place).unwrap_or(0).min(BUCKETS - 1)
}

/// The first duration, in microseconds, that belongs to a later bucket.
fn end(bucket: u16) -> u64 {
    let bucket = u64::from(bucket) + 1;
    match (bucket >> FINE).checked_sub(1) {
        None | Some(0) => bucket,
        Some(shift) => ((1 << FINE) + (bucket & ((1 << FINE) - 1))) << shift,
    }
}

impl Histogram {
    /// Counts one.
    pub(crate) fn count(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0[bucket(us)] += 1;
    }

    /// The buckets that are not empty, with their counts.
    pub(crate) fn sparse(&self) -> Vec<(u16, u64)> {
        let numbered = (0u16..).zip(self.0.iter().copied());
        numbered.filter(|(_, count)| *count > 0).collect()
    }
}

/// The duration in microseconds that a share (in thousandths) of all stay below, rounded up to a
/// bucket's end; `None` if nothing was counted.
pub(crate) fn quantile(sparse: &[(u16, u64)], permille: u64) -> Option<u64> {
    let all: u64 = sparse.iter().map(|(_, count)| count).sum();
    let wanted = (all * permille).div_ceil(1000).max(1);
    let mut seen = 0;
    sparse.iter().find_map(|(bucket, count)| {
        seen += count;
        (seen >= wanted).then(|| end(*bucket))
    })
}

/// One histogram of several.
pub(crate) fn add(into: &mut Vec<(u16, u64)>, other: &[(u16, u64)]) {
    for (bucket, count) in other {
        match into.binary_search_by_key(bucket, |(bucket, _)| *bucket) {
            Ok(place) => into[place].1 += count,
            Err(place) => into.insert(place, (*bucket, *count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_known_to_an_eighth() {
        for us in (1..5000).chain([1 << 20, (1 << 20) + 12_345, 999_999_999]) {
            let place = u16::try_from(bucket(us)).unwrap();
            assert!(end(place) > us, "{us}");
            assert!(place == 0 || end(place - 1) <= us, "{us}");
            assert!(end(place) - us <= us / 8 + 1, "{us}: {}", end(place));
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket(0), 0);
    }

    #[test]
    fn histograms_add_up() {
        let (mut a, mut b, mut both) =
            (Histogram::default(), Histogram::default(), Histogram::default());
        for us in 0..3000 {
            let half = if us % 3 == 0 { &mut a } else { &mut b };
            half.count(Duration::from_micros(us));
            both.count(Duration::from_micros(us));
        }
        let mut sum = a.sparse();
        add(&mut sum, &b.sparse());
        assert_eq!(sum, both.sparse());
        assert_eq!(sum.iter().map(|(_, count)| count).sum::<u64>(), 3000);
    }

    #[test]
    fn quantiles_are_bucket_ends() {
        let mut histogram = Histogram::default();
        (0..99).for_each(|_| histogram.count(Duration::from_micros(100)));
        histogram.count(Duration::from_millis(50));
        let sparse = histogram.sparse();
        assert_eq!(quantile(&sparse, 500), Some(104));
        assert_eq!(quantile(&sparse, 990), Some(104));
        assert_eq!(quantile(&sparse, 1000), Some(53_248));
        assert_eq!(quantile(&[], 500), None);
    }
}
