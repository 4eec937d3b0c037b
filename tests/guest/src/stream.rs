// SPDX-License-Identifier: GPL-2.0

//! The bytes that travel: a function of a seed and of the position in the stream, so that either end
//! can make or check any part of it alone.

/// Bytes that are made at once.
const WORD: u64 = 8;

/// Returns eight bytes of the stream `seed`; `word` counts them.
fn word(seed: u64, word: u64) -> [u8; 8] {
    mix(seed ^ word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()
}

/// A bijection of the 64-bit words that leaves no pattern (the finaliser of splitmix64).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Fills `bytes` with what the stream `seed` has from position `at` on.
pub(crate) fn fill(seed: u64, at: u64, bytes: &mut [u8]) {
    let (mut at, mut rest) = (at, bytes);
    while !rest.is_empty() {
        let skip = (at % WORD) as usize;
        let source = word(seed, at / WORD);
        let count = (source.len() - skip).min(rest.len());
        let (now, later) = rest.split_at_mut(count);
        now.copy_from_slice(&source[skip..skip + count]);
        at += count as u64;
        rest = later;
    }
}

/// Returns the position of the first byte that is not what the stream `seed` has from `at` on.
pub(crate) fn first_difference(seed: u64, at: u64, bytes: &[u8]) -> Option<u64> {
    let mut expected = vec![0; bytes.len()];
    fill(seed, at, &mut expected);
    let differs = |index: &usize| bytes[*index] != expected[*index];
    if bytes == expected {
        None
    } else {
        (0..bytes.len())
            .find(differs)
            .map(|index| at + index as u64)
    }
}

/// Random numbers that are the same in each run.
pub(crate) struct Random(u64);

impl Random {
    /// Numbers that depend on `seed` alone.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A size from 1 to `max`; small ones are as frequent as large ones.
    pub(crate) fn size(&mut self, max: usize) -> usize {
        let bits = u64::from(usize::BITS - max.leading_zeros());
        let limit = (1usize << self.below(bits)).min(max) * 2;
        1 + self.below(limit.min(max) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_whole() {
        let mut whole = [0; 100];
        fill(7, 1000, &mut whole);
        for at in 0..100 {
            assert_eq!(first_difference(7, 1000 + at as u64, &whole[at..]), None);
        }
        whole[50] ^= 1;
        assert_eq!(first_difference(7, 1000, &whole), Some(1050));
    }

    #[test]
    fn sizes_are_in_their_range() {
        let mut random = Random::new(1);
        assert!(
            (0..10_000)
                .map(|_| random.size(1000))
                .all(|size| (1..=1000).contains(&size))
        );
    }
}
