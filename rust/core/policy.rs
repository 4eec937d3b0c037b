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

/// How long a thread looks that does so only while nobody else wants the processor, in a unit of the caller's.
///
/// It learns as [`Spin`] does. But where the threads of both ends sleep, each of them waits for the other one's sleep to end, which takes
/// longer than any look: both would go on like that, though neither would have to wait long if both looked. So after a short sleep it looks once
/// for as long as such a sleep may take. If what it looks for then comes soon from there on, that was worth it; if not, such looks become rare.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    spin: Spin,
    /// The next look is a long one.
    is_long: bool,
    /// Long looks that it may have one after the other.
    credit: u8,
    /// Short sleeps without a long look.
    sleeps: u8,
}

/// Long looks that may be in vain before they become rare.
const LONG_LOOKS: u8 = 8;

/// Length of a long look in caps: about what a transaction takes with both ends asleep, on a busy host.
const LONG_LOOK_CAPS: u32 = 20;

/// Part of a long look in which what comes has been worth it.
const WORTH_SHIFT: u32 = 3;

/// Of how many short sleeps one is followed by a long look then.
const SLEEPS_PER_LONG_LOOK: u8 = 64;

impl Patience {
    /// No experience yet.
    ///
    /// ```
    /// use xenvmc_core::policy::Patience;
    ///
    /// let mut patience = Patience::new();
    /// assert_eq!(patience.budget(400), 400);
    /// patience.handle_sleep(1_000, 400);
    /// assert_eq!(patience.budget(400), 8_000);
    /// patience.handle_hit(300, 400);
    /// assert_eq!(patience.budget(400), 400);
    /// assert_eq!(patience.budget(0), 0);
    /// ```
    pub const fn new() -> Self {
        Self {
            spin: Spin::new(),
            is_long: false,
            credit: LONG_LOOKS,
            sleeps: 0,
        }
    }

    /// The experience as a number, for who keeps it in one atomic word.
    pub const fn to_bits(self) -> u64 {
        let [credit, sleeps, is_long] = [self.credit, self.sleeps, self.is_long as u8];
        self.spin.to_bits() as u64
            | ((credit as u64) << 32)
            | ((sleeps as u64) << 40)
            | ((is_long as u64) << 48)
    }

    /// The experience that [`Self::to_bits`] gave.
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            spin: Spin::from_bits(bits as u32),
            is_long: (bits >> 48) & 1 == 1,
            credit: (bits >> 32) as u8,
            sleeps: (bits >> 40) as u8,
        }
    }

    /// How long to look now; 0 = not at all.
    pub fn budget(&self, cap: u32) -> u32 {
        match self.is_long {
            true => long_look(cap),
            false => self.spin.budget(cap, false),
        }
    }

    /// A look found something after `waited`.
    pub fn handle_hit(&mut self, waited: u32, cap: u32) {
        if waited <= cap {
            self.spin.handle_hit(cap);
            (self.is_long, self.credit) = (false, LONG_LOOKS);
        } else if waited <= long_look(cap) >> WORTH_SHIFT {
            // Sooner than with a sleep.
            self.is_long = true;
        } else {
            self.handle_long_wait();
        }
    }

    /// After a look that found nothing, or none at all, it slept for `slept`.
    pub fn handle_sleep(&mut self, slept: u32, cap: u32) {
        self.spin.handle_sleep(slept, cap);
        if slept <= long_look(cap) {
            self.handle_long_wait();
        } else {
            self.is_long = false;
        }
    }

    /// As [`Self::handle_sleep`], for who has something better to do than to look: it came `late` after the look. Only what comes so soon that a
    /// look twice as long had found it is worth one, but for the long ones.
    pub fn handle_late(&mut self, late: u32, cap: u32) {
        let long = long_look(cap).saturating_add(1);
        self.spin
            .handle_sleep(if late <= cap { late } else { long }, cap);
        match late < long {
            true => self.handle_long_wait(),
            false => self.is_long = false,
        }
    }

    /// What comes takes longer than an ordinary look, but not very long.
    fn handle_long_wait(&mut self) {
        self.sleeps = self.sleeps.wrapping_add(1);
        self.is_long = self.credit > 0 || self.sleeps % SLEEPS_PER_LONG_LOOK == 0;
        self.credit = self.credit.saturating_sub(1);
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
    }
}

fn long_look(cap: u32) -> u32 {
    cap.saturating_mul(LONG_LOOK_CAPS)
}

/// The shortest look that makes sense, at least 1 and at most `cap` (or 1).
fn floor(cap: u32) -> u32 {
    cap.wrapping_shr(FLOOR_SHIFT).max(1)
}
