//! Inputs that are nearly valid: a seeded random source and what it does to bytes.

/// xorshift64*: the same inputs for the same seed, on every machine.
pub(crate) struct Random(u64);

/// Numbers at which lengths and counts go wrong.
const EDGES: [u64; 9] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; 0 if that is 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end.max(1)
    }

    /// One of the seeds, changed in one to eight ways; at times bytes from nowhere.
    pub(crate) fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        if self.below(16) == 0 {
            let length = self.below(300);
            return (0..length).map(|_| self.next() as u8).collect();
        }
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(8) {
            let other = &seeds[self.below(seeds.len())];
            self.change(&mut input, other);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let (at, length) = (self.below(input.len()), 1 + self.below(24));
        let end = (at + length).min(input.len());
        match self.below(9) {
            0 | 1 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            2 if !input.is_empty() => input[at] = self.next() as u8,
            3 => input.truncate(at),
            4 => drop(input.drain(at..end)),
            5 => {
                let piece: Vec<u8> = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            6 => input[at..end].fill(0),
            7 => {
                let from = self.below(other.len());
                let piece = &other[from..(from + length).min(other.len())];
                input.splice(at..end, piece.iter().copied());
            }
            _ => {
                let number = EDGES[self.below(EDGES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][self.below(4)];
                for (byte, new) in input[at..].iter_mut().zip(&number[..width]) {
                    *byte = *new;
                }
            }
        }
    }
}
