// SPDX-License-Identifier: GPL-2.0

//! Single words of shared memory, and the barrier between domains.
//!
//! C header: [`include/asm-generic/barrier.h`](srctree/include/asm-generic/barrier.h)
//!
//! The `virt_*` forms are used throughout: they order against another domain also where the kernel
//! itself was built for one processor.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use xenvmc_core::{
    Fence,
    SharedLoad,
    SharedStore,
    Words, //
};

/// A word in our own granted memory, which the peer may read at any time.
///
/// # Invariants
///
/// `0` points to an aligned word that is valid for reads and writes for `'a`, and that is accessed
/// as a word or by C code only.
#[derive(Clone, Copy)]
pub struct Word<'a>(NonNull<u32>, PhantomData<&'a ()>);

/// A word in a peer's memory, which is mapped read-only and may change at any time.
///
/// # Invariants
///
/// `0` points to an aligned word that is valid for reads for `'a`.
#[derive(Clone, Copy)]
pub struct PeerWord<'a>(NonNull<u32>, PhantomData<&'a ()>);

// SAFETY: A word can be accessed from any thread; all accesses are single copies of the whole word.
unsafe impl Send for Word<'_> {}
// SAFETY: As for `Send`.
unsafe impl Sync for Word<'_> {}
// SAFETY: As for `Word`.
unsafe impl Send for PeerWord<'_> {}
// SAFETY: As for `Word`.
unsafe impl Sync for PeerWord<'_> {}

impl Word<'_> {
    /// Wraps the word at `ptr`.
    ///
    /// # Safety
    ///
    /// `ptr` must be aligned and valid for reads and writes for the lifetime that the caller gives
    /// the result, and be accessed in no other way than as a word or by C code.
    pub(crate) unsafe fn from_raw(ptr: NonNull<u32>) -> Self {
        // INVARIANT: The caller's promise.
        Self(ptr, PhantomData)
    }
}

impl PeerWord<'_> {
    /// Wraps the word at `ptr`.
    ///
    /// # Safety
    ///
    /// `ptr` must be aligned and valid for reads for the lifetime that the caller gives the result.
    pub(crate) unsafe fn from_raw(ptr: NonNull<u32>) -> Self {
        // INVARIANT: The caller's promise.
        Self(ptr, PhantomData)
    }
}

impl SharedLoad for Word<'_> {
    #[inline]
    fn load_relaxed(&self) -> u32 {
        // SAFETY: By the type invariant the word is aligned and valid for reads.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    #[inline]
    fn load_acquire(&self) -> u32 {
        // SAFETY: By the type invariant the word is aligned and valid for reads.
        unsafe { xen_sys::virt_load_acquire(self.0.as_ptr()) }
    }
}

impl SharedStore for Word<'_> {
    #[inline]
    fn store_relaxed(&self, value: u32) {
        // SAFETY: By the type invariant the word is aligned and valid for writes.
        unsafe { self.0.as_ptr().write_volatile(value) }
    }

    #[inline]
    fn store_release(&self, value: u32) {
        // SAFETY: By the type invariant the word is aligned and valid for writes.
        unsafe { xen_sys::virt_store_release(self.0.as_ptr(), value) }
    }
}

impl SharedLoad for PeerWord<'_> {
    #[inline]
    fn load_relaxed(&self) -> u32 {
        // SAFETY: By the type invariant the word is aligned and valid for reads.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    #[inline]
    fn load_acquire(&self) -> u32 {
        // SAFETY: By the type invariant the word is aligned and valid for reads.
        unsafe { xen_sys::virt_load_acquire(self.0.as_ptr()) }
    }
}

/// Part of a page of ours, as words.
///
/// # Invariants
///
/// `0` points to aligned words, one at least, that fill `1` bytes, with what [`Word`] wants of
/// each.
#[derive(Clone, Copy)]
pub struct OwnWords<'a>(NonNull<u32>, usize, PhantomData<&'a ()>);

/// Part of a page of a peer, as words.
///
/// # Invariants
///
/// `0` points to aligned words, one at least, that fill `1` bytes, with what [`PeerWord`] wants of
/// each.
#[derive(Clone, Copy)]
pub struct PeerWords<'a>(NonNull<u32>, usize, PhantomData<&'a ()>);

// SAFETY: As for `Word`.
unsafe impl Send for OwnWords<'_> {}
// SAFETY: As for `Word`.
unsafe impl Sync for OwnWords<'_> {}
// SAFETY: As for `Word`.
unsafe impl Send for PeerWords<'_> {}
// SAFETY: As for `Word`.
unsafe impl Sync for PeerWords<'_> {}

impl OwnWords<'_> {
    /// Wraps `len` bytes of words at `ptr`.
    ///
    /// # Safety
    ///
    /// What [`Word::from_raw`] wants must hold for each word, and `len` must be at least that of
    /// one.
    pub(crate) unsafe fn from_raw(ptr: NonNull<u32>, len: usize) -> Self {
        // INVARIANT: The caller's promise.
        Self(ptr, len, PhantomData)
    }
}

impl PeerWords<'_> {
    /// Wraps `len` bytes of words at `ptr`.
    ///
    /// # Safety
    ///
    /// What [`PeerWord::from_raw`] wants must hold for each word, and `len` must be at least that
    /// of one.
    pub(crate) unsafe fn from_raw(ptr: NonNull<u32>, len: usize) -> Self {
        // INVARIANT: The caller's promise.
        Self(ptr, len, PhantomData)
    }
}

/// Returns the index of the word at byte `offset`, or that of the last one: the answer to a wrong
/// offset must be some word of the same piece.
#[inline]
fn index(offset: u32, len: usize) -> usize {
    let size = core::mem::size_of::<u32>();
    (offset as usize / size).min(len / size - 1)
}

impl<'a> Words for OwnWords<'a> {
    type Word = Word<'a>;

    #[inline]
    fn word(&self, offset: u32) -> Word<'a> {
        // SAFETY: The index is that of a word of `self`, which is what `Word` wants by the type
        // invariant.
        unsafe { Word::from_raw(self.0.add(index(offset, self.1))) }
    }
}

impl<'a> Words for PeerWords<'a> {
    type Word = PeerWord<'a>;

    #[inline]
    fn word(&self, offset: u32) -> PeerWord<'a> {
        // SAFETY: The index is that of a word of `self`, which is what `PeerWord` wants by the type
        // invariant.
        unsafe { PeerWord::from_raw(self.0.add(index(offset, self.1))) }
    }
}

/// The full barrier between domains, `virt_mb()`.
pub struct VirtFence;

impl Fence for VirtFence {
    #[inline]
    fn full() {
        // SAFETY: A barrier has no preconditions.
        unsafe { xen_sys::virt_mb() }
    }
}
