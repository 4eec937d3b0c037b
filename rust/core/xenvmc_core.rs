// SPDX-License-Identifier: GPL-2.0

//! The protocol without I/O.

#![forbid(unsafe_code)]

/// One aligned word of shared memory.
pub trait SharedLoad {
    /// Loads without ordering.
    fn load_relaxed(&self) -> u32;
    /// Loads with acquire ordering.
    fn load_acquire(&self) -> u32;
}

/// One aligned word of shared memory that is ours to write.
pub trait SharedStore: SharedLoad {
    /// Stores without ordering.
    fn store_relaxed(&self, value: u32);
    /// Stores with release ordering.
    fn store_release(&self, value: u32);
}

/// A full memory barrier.
pub trait Fence {
    /// Orders all accesses before it and all after it.
    fn full();
}

/// A piece of shared memory seen as words.
pub trait Words {
    /// What a word of it is reached through.
    type Word: SharedLoad;

    /// The word at byte `offset`, a multiple of four.
    fn word(&self, offset: u32) -> Self::Word;
}
