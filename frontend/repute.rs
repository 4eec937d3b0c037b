// SPDX-License-Identifier: GPL-2.0

//! What is remembered of a guest beyond one instance of it: one [`Repute`] for each that announces itself.

use crate::distrust::Distrust;
use kernel::prelude::*;
use kernel::sync::Arc;
use xenvmc_net::{
    lock::BhSpinLock,
    new_bh_spinlock, //
};
use xenvmc_xen::budget::Budget;

/// Lines that a guest may cause in our log at once; and milliseconds until one of them may be written again. Each channel that it
/// opens and closes is two.
const LINES: (u32, u32) = (64, 10_000);

/// How long its claims are not believed at most.
const LIMIT_MS: u32 = 300_000;

/// A guest's standing.
#[pin_data]
pub(crate) struct Repute {
    /// Whether its claims of addresses are believed.
    pub(crate) claims: Distrust,
    #[pin]
    lines: BhSpinLock<Budget>,
}

impl Repute {
    /// Nothing is known.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                claims: Distrust::none(LIMIT_MS),
                lines <- new_bh_spinlock!(Budget::new(LINES.0, LINES.1), "xenvmc_peer_lines"),
            }),
            GFP_KERNEL,
        )
    }

    /// Whether a line about it may be written; counts as written. Process or softirq context.
    pub(crate) fn may_log(&self) -> bool {
        self.lines.lock().take()
    }

    /// Whether it is to be remembered when the guest's announcement goes away.
    pub(crate) fn is_bad(&self) -> bool {
        self.claims.is_on() || !self.lines.lock().is_full()
    }
}
