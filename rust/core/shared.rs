// SPDX-License-Identifier: GPL-2.0

//! Words of shared memory: the only way in which this crate reaches memory that a peer can see.
//!
//! The kernel crates implement these traits for pages that were granted or mapped, the tests for
//! atomics of the host and of the model checker.

/// One aligned 32-bit little-endian word of shared memory that can be read.
///
/// Each call is one load of the whole word: a peer that writes at the same time can make it old or
/// new, but never torn.
pub trait SharedLoad {
    /// Loads the word, without any order.
    fn load_relaxed(&self) -> u32;

    /// Loads the word /before/ all that follows.
    fn load_acquire(&self) -> u32;
}

/// One aligned 32-bit little-endian word in our own memory, which the peer can read.
pub trait SharedStore: SharedLoad {
    /// Stores the word, without any order.
    fn store_relaxed(&self, value: u32);

    /// Stores the word after all that precedes, loads included.
    fn store_release(&self, value: u32);
}

/// The full barrier between a store to one's own memory and a load of the peer's.
///
/// It must order against another virtual CPU, so it may not vanish on a guest with only one.
pub trait Fence {
    /// Completes all loads and stores /before/ all that follow.
    fn full();
}

/// A piece of shared memory seen as words, such as one connection slot or a root page.
pub trait Words {
    /// What a word of it is reached through.
    type Word: SharedLoad;

    /// The word at byte `offset`, a multiple of four.
    ///
    /// This crate asks only for the offsets that [`crate::wire`] names.
    fn word(&self, offset: u32) -> Self::Word;
}
