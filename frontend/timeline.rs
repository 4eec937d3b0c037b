// SPDX-License-Identifier: GPL-2.0

//! When each step was reached that leads from the start of the module, or from the end of a suspend, to the ring: one [`Timeline`] in
//! the module.

use core::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use kernel::time::{
    Instant,
    Monotonic, //
};
use xenvmc_net::lock::BhSpinLock;
use xenvmc_net::new_bh_spinlock;

/// A step that is not reached yet.
const NEVER: i64 = -1;

/// Makes [`Step`] with the names that the user sees.
macro_rules! steps {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A step. The first of its kind counts: the first peer, the first channel, the first connection.
        #[derive(Clone, Copy)]
        pub(crate) enum Step {
            $($(#[$doc])* $variant,)*
        }

        /// The names of the steps, in their order.
        const NAMES: &[&str] = &[$($name,)*];
    };
}

steps! {
    /// The announcement was written.
    Announced = "announced",
    /// The backend had said something to us.
    Backend = "backend",
    /// A peer was there.
    Peer = "peer",
    /// A peer was offered a channel, or had offered one.
    Offer = "offer",
    /// A channel was open.
    Channel = "channel",
    /// A connection was asked for, by us or by a peer.
    Asked = "asked",
    /// Both ends of a connection agreed.
    Agreed = "agreed",
    /// A peer may send through its ring.
    Ready = "ready",
    /// We sent through our ring.
    Ring = "ring",
}

/// When each step was reached.
#[pin_data]
pub(crate) struct Timeline {
    #[pin]
    start: BhSpinLock<Instant<Monotonic>>,
    /// Milliseconds after the start.
    reached: [Atomic<i64>; NAMES.len()],
}

impl Timeline {
    /// Begins now.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            start <- new_bh_spinlock!(Instant::now(), "xenvmc_timeline"),
            reached: [const { Atomic::new(NEVER) }; NAMES.len()],
        })
    }

    /// Begins anew.
    pub(crate) fn restart(&self) {
        let mut start = self.start.lock();
        *start = Instant::now();
        for reached in &self.reached {
            reached.store(NEVER, Relaxed);
        }
    }

    /// Notes that `step` is reached. Any context but hard interrupts.
    #[inline]
    pub(crate) fn note(&self, step: Step) {
        if let Some(reached) = self.reached.get(step as usize) {
            if reached.load(Relaxed) == NEVER {
                self.reach(reached);
            }
        }
    }

    #[cold]
    fn reach(&self, reached: &Atomic<i64>) {
        let start = self.start.lock();
        if reached.load(Relaxed) == NEVER {
            reached.store(start.elapsed().as_millis(), Relaxed);
        }
    }
}

/// A line for each step that is reached: name and milliseconds.
impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, reached) in NAMES.iter().zip(&self.reached) {
            match reached.load(Relaxed) {
                NEVER => {}
                milliseconds => writeln!(f, "{name} {milliseconds}")?,
            }
        }
        Ok(())
    }
}
