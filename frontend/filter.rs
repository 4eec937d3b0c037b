// SPDX-License-Identifier: GPL-2.0

//! Which addresses may be those of peers, for who asks without a lock: one [`Filter`], in [`crate::peers::Peers`].

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use xenvmc_core::message::Address;

/// Words of 64 bits. With so many, few addresses of others look like those of peers.
const WORDS: usize = 64;

/// A bit for each address, which it may share with others.
///
/// Whoever asks may see a change a moment later, as if it had asked a moment before: what counts is decided under locks.
pub(crate) struct Filter {
    /// Nobody else knows it, so that no peer can choose addresses that look like those of others.
    seed: u64,
    words: [Atomic<u64>; WORDS],
}

impl Filter {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            seed: xenvmc_xen::random::u64(),
            words: [const { Atomic::new(0) }; WORDS],
        }
    }

    /// Whether `address` may be among them. Any context.
    #[inline]
    pub(crate) fn may_have(&self, address: Address) -> bool {
        let (word, bit) = self.bit(address);
        self.words
            .get(word)
            .is_some_and(|word| word.load(Relaxed) & bit != 0)
    }

    /// Takes `addresses` in. One caller at a time.
    pub(crate) fn add(&self, addresses: impl Iterator<Item = Address>) {
        for address in addresses {
            let (word, bit) = self.bit(address);
            if let Some(word) = self.words.get(word) {
                word.store(word.load(Relaxed) | bit, Relaxed);
            }
        }
    }

    /// Takes all others out. As [`Self::add`].
    pub(crate) fn set(&self, addresses: impl Iterator<Item = Address>) {
        let mut new = [0; WORDS];
        for address in addresses {
            let (word, bit) = self.bit(address);
            if let Some(word) = new.get_mut(word) {
                *word |= bit;
            }
        }
        for (word, new) in self.words.iter().zip(new) {
            word.store(new, Relaxed);
        }
    }

    fn bit(&self, address: Address) -> (usize, u64) {
        let hash = hash(self.seed, &address) >> 32;
        ((hash / 64) as usize % WORDS, 1 << (hash % 64))
    }
}

/// A number for `address`, other for each `seed`.
pub(crate) fn hash(seed: u64, address: &Address) -> u64 {
    match address {
        Address::V4(bytes) => hash_bytes(seed, bytes),
        Address::V6(bytes) => hash_bytes(seed, bytes),
    }
}

/// The same for any bytes.
pub(crate) fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(seed, fold)
}
