// SPDX-License-Identifier: GPL-2.0

//! Wake-ups by event index: who sleeps says from where on it wants to be woken (protocol §4).
//!
//! Beside each index that one side advances there is an *event* word of the other side. The
//! sleeper stores the index value that it has seen, and looks once more; who advances the index
//! looks at the event afterwards, and notifies only if the step went past it. Nothing has to be
//! cleared, so that it works with memory that the other side can only read.
//!
//! Both sides store, have a full barrier, and load what the other stores. So one of the two sees
//! the other's store: either the sleeper finds the new index and does not sleep, or the other finds
//! the event and notifies.

use crate::shared::{
    Fence,
    SharedLoad,
    SharedStore, //
};

/// Whether the step of an index from `old` to `new` goes past `event`.
///
/// All three run freely and wrap. `event` is the last value that the sleeper has seen, or a later
/// one if it wants more than the next step.
///
/// ```
/// use xenvmc_core::wake::crosses;
///
/// assert!(crosses(7, 8, 7));
/// assert!(!crosses(7, 8, 8));
/// assert!(!crosses(7, 7, 7));
/// assert!(crosses(u32::MAX, 1, 0));
/// ```
#[inline]
pub const fn crosses(old: u32, new: u32, event: u32) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Publishes `new` in `index`, which held `old`; true = the other side wants a notification.
///
/// What the other side will find up to `new` must have been written before.
#[inline]
pub fn publish<F: Fence>(
    index: &impl SharedStore,
    old: u32,
    new: u32,
    event: &impl SharedLoad,
) -> bool {
    // The data /before/ the index, so that who sees the index sees the data. Partner: the acquire
    // load of the index by the other side.
    index.store_release(new);
    // The index /before/ the look at the event. Partner: the barrier in `arm_at`.
    F::full();
    crosses(old, new, event.load_relaxed())
}

/// Asks to be woken when `index` goes past `seen`; true = it has not yet, the caller may sleep.
///
/// If false, there is something new, or the peer wrote nonsense: look again.
#[inline]
pub fn arm<F: Fence>(event: &impl SharedStore, seen: u32, index: &impl SharedLoad) -> bool {
    arm_at::<F>(event, seen, seen, index)
}

/// Asks to be woken when `index`, last seen as `seen`, goes past `at`; true = it has not yet.
///
/// `at` must be reachable by the other side without help, or nobody will wake the caller.
#[inline]
pub fn arm_at<F: Fence>(
    event: &impl SharedStore,
    at: u32,
    seen: u32,
    index: &impl SharedLoad,
) -> bool {
    event.store_relaxed(at);
    // The event /before/ the second look at the index. Partner: the barrier in `publish`.
    F::full();
    index.load_acquire().wrapping_sub(seen) <= at.wrapping_sub(seen)
}
