// SPDX-License-Identifier: GPL-2.0

//! When a connection is worth a ring, and how long to look before sleeping.

/// When to ask for the acceleration of a connection; one per connection, under its socket lock.
///
/// A connection that carries one request must not pay for a ring, so some sends or some bytes have
/// to come first, in either direction.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade {
    calls: u32,
    bytes: u64,
}

/// From when on a connection is worth a ring: whichever comes first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Threshold {
    /// Number of calls that moved bytes; 0 = at once.
    pub calls: u32,
    /// Number of bytes moved; 0 = at once.
    pub bytes: u64,
}

impl Upgrade {
    /// A connection that carried nothing yet.
    ///
    /// ```
    /// use xenvmc_core::policy::{Threshold, Upgrade};
    ///
    /// let mut upgrade = Upgrade::new();
    /// let threshold = Threshold { calls: 3, bytes: 1000 };
    /// assert!(!upgrade.handle_bytes(10, threshold));
    /// assert!(upgrade.handle_bytes(990, threshold));
    /// ```
    pub const fn new() -> Self {
        Self { calls: 0, bytes: 0 }
    }

    /// Notes a call that moved `bytes` bytes; true = the connection is worth asking for.
    pub fn handle_bytes(&mut self, bytes: u64, threshold: Threshold) -> bool {
        self.calls = self.calls.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        self.is_due(threshold)
    }

    /// Whether the connection is worth asking for.
    pub const fn is_due(&self, threshold: Threshold) -> bool {
        self.calls >= threshold.calls || self.bytes >= threshold.bytes
    }
}

impl Default for Upgrade {
    fn default() -> Self {
        Self::new()
    }
}

/// How long to look for something before sleeping, in a unit of the caller's (say nanoseconds).
///
/// It is learnt from what happened before: a look that found something makes the next ones longer,
/// up to a cap; one that did not makes them shorter. After enough misses most sleeps come at once,
/// and only every eighth looks for a moment, to find out whether the times have changed.
///
/// # Invariants
///
/// `budget` is at most the cap that was passed last.
#[derive(Clone, Copy, Debug)]
pub struct Spin {
    budget: u32,
    skipped: u8,
}

/// Sleeps that go by without a look while the budget is down.
const SKIP: u8 = 7;

/// Part of the cap with which a budget begins, and below which it counts as down.
const FLOOR_SHIFT: u32 = 3;

impl Spin {
    /// No experience yet.
    ///
    /// ```
    /// use xenvmc_core::policy::Spin;
    ///
    /// let mut spin = Spin::new();
    /// assert_eq!(spin.budget(0, false), 0);
    /// assert_eq!(spin.budget(800, true), 0);
    /// let first = spin.budget(800, false);
    /// spin.handle_hit(first, 800);
    /// assert!(spin.budget(800, false) > first);
    /// ```
    pub const fn new() -> Self {
        Self {
            budget: u32::MAX,
            skipped: 0,
        }
    }

    /// How long to look now; 0 = not at all.
    ///
    /// `cap` 0 turns it off; `overcommitted` does so for now, because a virtual CPU that looks
    /// would keep the peer's from running.
    pub fn budget(&mut self, cap: u32, overcommitted: bool) -> u32 {
        if cap == 0 || overcommitted {
            return 0;
        }
        let floor = floor(cap);
        if self.budget == u32::MAX {
            self.budget = cap.wrapping_shr(1).max(floor);
        }
        if self.budget >= floor {
            return self.budget.min(cap);
        }
        if self.skipped < SKIP {
            self.skipped = self.skipped.wrapping_add(1);
            return 0;
        }
        self.skipped = 0;
        floor
    }

    /// A look found something after `waited`.
    pub fn handle_hit(&mut self, waited: u32, cap: u32) {
        // Twice what was needed, approached by halves: one lucky look does not raise it for long.
        let aim = waited.saturating_mul(2).min(cap).max(floor(cap));
        let known = self.budget.min(cap);
        self.budget = if aim > known {
            known.wrapping_add(aim.wrapping_sub(known).wrapping_add(1).wrapping_shr(1))
        } else {
            known.wrapping_sub(known.wrapping_sub(aim).wrapping_shr(3))
        };
        self.skipped = 0;
    }

    /// A look found nothing in the time it had.
    pub fn handle_miss(&mut self, cap: u32) {
        let known = self.budget.min(cap);
        self.budget = known.wrapping_sub(known.wrapping_add(3).wrapping_shr(2));
    }
}

impl Default for Spin {
    fn default() -> Self {
        Self::new()
    }
}

/// The shortest look that makes sense, at least 1 and at most `cap` (or 1).
fn floor(cap: u32) -> u32 {
    cap.wrapping_shr(FLOOR_SHIFT).max(1)
}
