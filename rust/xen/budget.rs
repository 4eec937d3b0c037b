// SPDX-License-Identifier: GPL-2.0

//! How much somebody may ask for: one [`Budget`] per asker and purpose.

use kernel::time::{
    Instant,
    Monotonic, //
};

/// A number of tokens that refills with time.
pub struct Budget {
    burst: u32,
    refill_ms: i64,
    left: u32,
    since: Instant<Monotonic>,
}

impl Budget {
    /// Makes a full budget of `burst` tokens, of which one comes back every `refill_ms`.
    pub fn new(burst: u32, refill_ms: u32) -> Self {
        Self {
            burst,
            refill_ms: i64::from(refill_ms.max(1)),
            left: burst,
            since: Instant::now(),
        }
    }

    /// Takes a token and returns whether there was one.
    pub fn take(&mut self) -> bool {
        self.refill();
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }

    /// Returns whether no token is missing.
    pub fn is_full(&mut self) -> bool {
        self.refill();
        self.left == self.burst
    }

    fn refill(&mut self) {
        let passed = self.since.elapsed().as_millis();
        let back = passed.checked_div(self.refill_ms).unwrap_or(0);
        if back > 0 {
            let back = u32::try_from(back).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(back).min(self.burst);
            self.since = Instant::now();
        }
    }
}
