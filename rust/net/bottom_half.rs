// SPDX-License-Identifier: GPL-2.0

//! Keeping this processor's softirqs off for a while.
//!
//! C header: `include/linux/bottom_half.h`.

use kernel::types::NotThreadSafe;
use net_sys as bindings;

/// No softirq runs on this processor, and the task stays on it and is not preempted (with PREEMPT_RT only the first). Process
/// context. Softirqs that were raised meanwhile run when it is dropped.
pub struct BottomHalvesOff(NotThreadSafe);

impl BottomHalvesOff {
    /// Turns them off.
    pub fn new() -> Self {
        // SAFETY: process context; `drop` turns them on again, on the same processor, as the guard cannot be sent.
        unsafe { bindings::local_bh_disable() };
        Self(NotThreadSafe)
    }
}

impl Default for BottomHalvesOff {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for BottomHalvesOff {
    fn drop(&mut self) {
        // SAFETY: undoes `new`.
        unsafe { bindings::local_bh_enable() };
    }
}
