//! A short number that changes when a text changes: FNV-1a, 64 bits.
//!
//! It tells "the rules are those that I would write" from "they are not"; nobody gains by a
//! collision, so it need not be cryptographic, and it must be the same in every version of minirun.

/// The fingerprint of `bytes`.
pub fn of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn published_values() {
        // From the test vectors of the FNV authors.
        assert_eq!(super::of(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(super::of(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
