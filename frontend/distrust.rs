// SPDX-License-Identifier: GPL-2.0

//! Not believing a peer for a time: one [`Distrust`] for the addresses that it claims, one for its word that it reads datagrams.

use core::cmp::min;
use kernel::{
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::{
        Instant,
        Monotonic, //
    },
};

/// How long a peer is not believed after its first false claim; each further one doubles it, up to a limit, unless
/// the one before was over for longer than that.
const FIRST_MS: u32 = 1_000;

/// What became of a peer's claims. Any context; races between those who find a claim false are
/// harmless.
pub(crate) struct Distrust {
    epoch: Instant<Monotonic>,
    /// When it ends, in ms since `epoch`; 0 = there is none.
    until_ms: Atomic<u64>,
    /// How long the last one was; 0 = there was none.
    length_ms: Atomic<u32>,
    /// How long one is at most.
    limit_ms: u32,
}

impl Distrust {
    /// Nothing was found false. `limit_ms` is how long the peer is not believed at most.
    pub(crate) fn none(limit_ms: u32) -> Self {
        Self {
            epoch: Instant::now(),
            until_ms: Atomic::new(0),
            length_ms: Atomic::new(0),
            limit_ms,
        }
    }

    /// A claim was found false.
    pub(crate) fn begin(&self) {
        let (now, until) = (self.now_ms(), self.until_ms.load(Relaxed));
        if now < until {
            return;
        }
        let is_long_ago = now - until > u64::from(self.limit_ms);
        let length = match self.length_ms.load(Relaxed) {
            last if last == 0 || is_long_ago => FIRST_MS,
            last => min(last.saturating_mul(2), self.limit_ms),
        };
        self.length_ms.store(length, Relaxed);
        self.until_ms.store(now + u64::from(length), Relaxed);
    }

    /// Returns whether the peer is not believed for now.
    pub(crate) fn is_on(&self) -> bool {
        let until = self.until_ms.load(Relaxed);
        until != 0 && self.now_ms() < until
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(0)
    }
}
