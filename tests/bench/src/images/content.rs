//! What is in the files: the same bytes each time, and about as compressible as real ones.

/// Numbers that look random and are the same each time (xorshift64*, Vigna 2016).
#[derive(Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    /// The numbers that begin with a seed, which is not 0.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap_or_default() % end.max(1)
    }

    /// A size between two, small ones as often as large ones by their order of magnitude.
    pub(crate) fn size(&mut self, least: usize, most: usize) -> usize {
        let share = self.below(1 << 20) as f64 / f64::from(1 << 20);
        let (least, most) = (least as f64, most as f64);
        // Positive and far below 2^53: nothing is lost.
        (least * (most / least).powf(share)) as usize
    }
}

/// Words that texts are made of.
#[derive(Debug)]
pub(crate) struct Words(Vec<Vec<u8>>);

impl Words {
    /// Four thousand of them.
    pub(crate) fn new(numbers: &mut Numbers) -> Self {
        let letter =
            |numbers: &mut Numbers| b"etaoinshrdlucmfwypvbgkjqxz_-./<>(){}0123"[numbers.below(40)];
        let word = |numbers: &mut Numbers| {
            let length = 2 + numbers.below(9);
            (0..length).map(|_| letter(numbers)).chain([b' ']).collect()
        };
        Self((0..4000).map(|_| word(numbers)).collect())
    }

    /// A file of so many bytes: a text, or something like a program.
    pub(crate) fn file(&self, numbers: &mut Numbers, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 16);
        let is_text = numbers.below(3) > 0;
        while bytes.len() < size {
            if bytes.len() > 400 && numbers.below(14) == 0 {
                // Real files repeat themselves.
                let from = bytes.len() - 200 - numbers.below(bytes.len().min(8000) - 200);
                let length = 30 + numbers.below(150);
                bytes.extend_from_within(from..from + length);
            } else if is_text || numbers.below(4) > 0 {
                // Few words are frequent and many are rare.
                let rank = numbers.below(64) * numbers.below(64);
                bytes.extend_from_slice(&self.0[rank]);
            } else {
                // Instructions and addresses: some bytes that vary, some that do not.
                bytes.extend_from_slice(&numbers.next().to_le_bytes()[..3]);
                bytes.extend_from_slice(&[0x48, 0x8b, 0, 0, 0]);
            }
        }
        bytes.truncate(size);
        bytes
    }
}
