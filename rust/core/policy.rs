// SPDX-License-Identifier: GPL-2.0

//! When a connection is worth a ring, and how long to look before sleeping.

/// From when on a connection is worth a ring: whichever comes first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Threshold {
    /// Number of calls that moved bytes; 0 = at once.
    pub calls: u32,
    /// Number of bytes moved; 0 = at once.
    pub bytes: u64,
}

impl Threshold {
    /// Whether a connection that moved `bytes` bytes in `calls` calls over TCP, either way, is worth asking for. One
    /// that carries a single request must not pay for a ring.
    ///
    /// ```
    /// use xenvmc_core::policy::Threshold;
    ///
    /// let threshold = Threshold { calls: 3, bytes: 1000 };
    /// assert!(!threshold.is_reached(2, 999));
    /// assert!(threshold.is_reached(3, 2));
    /// assert!(threshold.is_reached(1, 1000));
    /// ```
    pub const fn is_reached(&self, calls: u32, bytes: u64) -> bool {
        calls >= self.calls || bytes >= self.bytes
    }

    /// The threshold of a connection that was refused so often: each time, sixteen times as much has to be moved before it
    /// is asked for again, and more than nothing.
    ///
    /// ```
    /// use xenvmc_core::policy::Threshold;
    ///
    /// let threshold = Threshold { calls: 3, bytes: 0 };
    /// assert_eq!(threshold.after(0), threshold);
    /// assert_eq!(threshold.after(2), Threshold { calls: 768, bytes: 256 });
    /// assert_eq!(threshold.after(99), Threshold { calls: u32::MAX, bytes: u64::MAX });
    /// ```
    pub const fn after(self, refusals: u32) -> Self {
        if refusals == 0 {
            return self;
        }
        let calls = if self.calls == 0 { 1 } else { self.calls };
        let bytes = if self.bytes == 0 { 1 } else { self.bytes };
        Self {
            calls: calls.saturating_mul(16_u32.saturating_pow(refusals)),
            bytes: bytes.saturating_mul(16_u64.saturating_pow(refusals)),
        }
    }
}

/// How long to look for something before sleeping, in a unit of the caller's (say nanoseconds).
///
/// It is learnt from how long one had to wait before. To wait for something that comes soon is
/// worth a look, up to a cap; so is to wait for something that comes not much later than that,
/// because the peer, if it also stops sleeping, will be so much faster. If it takes much longer the
/// looks become shorter, and soon there are none; until a sleep was short again.
///
/// # Invariants
///
/// `budget` is at most the cap that was passed last, or the largest number at the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Spin {
    budget: u32,
}

/// Part of the cap below which a budget counts as none.
const FLOOR_SHIFT: u32 = 3;

/// A sleep of up to this many caps is short: about what two wake-ups cost, which looking saves.
const SHORT_SLEEP_CAPS: u32 = 10;

impl Spin {
    /// No experience yet: the whole cap.
    ///
    /// ```
    /// use xenvmc_core::policy::Spin;
    ///
    /// let mut spin = Spin::new();
    /// assert_eq!(spin.budget(0, false), 0);
    /// assert_eq!(spin.budget(800, true), 0);
    /// assert_eq!(spin.budget(800, false), 800);
    /// spin.handle_sleep(1_000_000, 800);
    /// assert!(spin.budget(800, false) < 800);
    /// ```
    pub const fn new() -> Self {
        Self { budget: u32::MAX }
    }

    /// The experience as a number, for who keeps it in one atomic word.
    pub const fn to_bits(self) -> u32 {
        self.budget
    }

    /// The experience that [`Self::to_bits`] gave.
    pub const fn from_bits(bits: u32) -> Self {
        Self { budget: bits }
    }

    /// How long to look now; 0 = not at all.
    ///
    /// `cap` 0 turns it off; `overcommitted` does so for now, because a virtual CPU that looks
    /// would keep the peer's from running.
    pub fn budget(&self, cap: u32, overcommitted: bool) -> u32 {
        if overcommitted || self.budget < floor(cap) {
            return 0;
        }
        self.budget.min(cap)
    }

    /// A look found something.
    pub fn handle_hit(&mut self, cap: u32) {
        self.budget = cap;
    }

    /// After a look that found nothing, or none at all, one slept for `slept`.
    pub fn handle_sleep(&mut self, slept: u32, cap: u32) {
        let known = self.budget.min(cap);
        self.budget = if slept <= cap.saturating_mul(SHORT_SLEEP_CAPS) {
            known.saturating_mul(2).max(cap.wrapping_shr(1)).min(cap)
        } else {
            known.wrapping_shr(1)
        };
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
