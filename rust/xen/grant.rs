// SPDX-License-Identifier: GPL-2.0

//! The grants of this module: one [`Grants`] object, which each granted page holds on to.
//!
//! C header: [`include/xen/grant_table.h`](srctree/include/xen/grant_table.h)

use crate::{
    domain::DomId,
    new_task,
    revoke::{
        Node,
        Pending, //
    },
    work::{
        Queue,
        Task, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};

/// Pages that one peer may hold on to after we wanted them back. More, and it gets no new ones: it
/// can pin pages for as long as it lives.
pub const PENDING_LIMIT_PER_PEER: usize = 16384;

/// What became of the pages that were granted.
pub struct Grants {
    pending: Arc<Pending>,
    retry: Arc<Task<Pending>>,
    granted: Atomic<usize>,
}

impl Grants {
    /// Makes the object. Dropping it, which happens after all of its pages are dropped, leaves what
    /// peers still hold to the kernel, which waits for them.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Arc<Self>> {
        let pending = Arc::pin_init(Pending::new(), GFP_KERNEL)?;
        let retry = new_task!(Queue::Unbound, pending.clone(), "xenvmc_revoke")?;
        Ok(Arc::new(
            Self {
                pending,
                retry,
                granted: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    /// Returns the number of pages that are granted and in use.
    pub fn granted(&self) -> usize {
        self.granted.load(Relaxed)
    }

    /// Returns the number of pages that we want back and that peers still have mapped.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Returns the number of pages that we want back from `peer`.
    pub fn pending_of(&self, peer: DomId) -> usize {
        self.pending.len_of(peer)
    }

    /// Checks that `peer` may get one more page, and counts it.
    pub(crate) fn begin(&self, peer: DomId) -> Result {
        // The sum is a bound of each peer's share, so that the list is rarely walked.
        if self.pending() >= PENDING_LIMIT_PER_PEER
            && self.pending_of(peer) >= PENDING_LIMIT_PER_PEER
        {
            return Err(EBUSY);
        }
        self.granted.add(1, Relaxed);
        Ok(())
    }

    /// Takes back what [`Grants::begin`] counted, for a page that was not granted after all.
    pub(crate) fn undo_begin(&self) {
        self.granted.fetch_sub(1, Relaxed);
    }

    /// Ends a grant, now or when the peer has unmapped the page.
    pub(crate) fn end(&self, node: KBox<Node>) {
        self.granted.fetch_sub(1, Relaxed);
        if self.pending.end(node) {
            self.retry.kick_after(crate::revoke::RETRY_MS);
        }
    }
}

impl Drop for Grants {
    fn drop(&mut self) {
        self.retry.stop();
        self.pending.finish();
    }
}
