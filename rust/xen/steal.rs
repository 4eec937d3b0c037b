// SPDX-License-Identifier: GPL-2.0

//! Whether virtual CPUs wait for physical ones.
//!
//! C header: [`include/linux/kernel_stat.h`](srctree/include/linux/kernel_stat.h)

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// How often the clocks are compared.
const PERIOD_MS: i64 = 100;

/// Stolen time in a period, as a part of it, from which on the host counts as over-committed: one eighth.
const PART: u64 = 8;

/// The stolen time of this CPU at the last comparison, in nanoseconds.
static STOLEN: Atomic<u64> = Atomic::new(0);

/// When the last comparison was, in milliseconds.
static COMPARED_MS: Atomic<i64> = Atomic::new(0);

/// What it came to.
static OVERCOMMITTED: Atomic<bool> = Atomic::new(false);

/// Returns whether this guest's CPUs were kept waiting for an eighth of the last tenth of a second or more. Any context.
///
/// Of several CPUs the one that asks is looked at: a sample, which is enough for a hint.
pub fn is_overcommitted() -> bool {
    // SAFETY: Reads a counter of this CPU; that the task may move meanwhile makes it another one's.
    let stolen = unsafe { xen_sys::stolen_ns() };
    // SAFETY: Reads a counter.
    let now_ms = unsafe { xen_sys::now_ms() };
    let then_ms = COMPARED_MS.load(Relaxed);
    let passed_ms = now_ms - then_ms;
    if passed_ms >= PERIOD_MS && COMPARED_MS.cmpxchg(then_ms, now_ms, Relaxed).is_ok() {
        let before = STOLEN.xchg(stolen, Relaxed);
        let part = stolen.saturating_sub(before).saturating_mul(PART);
        let over = part > passed_ms as u64 * 1_000_000;
        OVERCOMMITTED.store(over && passed_ms < 10 * PERIOD_MS, Relaxed);
    }
    OVERCOMMITTED.load(Relaxed)
}
