// SPDX-License-Identifier: GPL-2.0

//! Grants that we want back while the peer still has the page mapped.
//!
//! There is one list per [`Grants`](crate::grant::Grants). A page on it is neither freed nor used
//! again before Xen says that nobody maps it. The kernel has such a list of its own, but one that
//! tells no numbers and frees ten pages a second; it gets what is left when the module goes.

use crate::{
    domain::DomId,
    work::{
        Run,
        Task, //
    },
};
use core::mem::ManuallyDrop;
use kernel::{
    new_mutex,
    page::Page,
    prelude::*,
    sync::Mutex, //
};

/// Milliseconds between two attempts at what is pending.
pub(crate) const RETRY_MS: u32 = 100;

/// A granted page, and its place on the list. Made with the grant, so that giving back needs no
/// memory. It is given to [`Pending::end`]; a node that is only dropped keeps grant and page for
/// ever.
///
/// # Invariants
///
/// `gref` grants `page` to `peer`, and only this node ends it.
pub(crate) struct Node {
    page: ManuallyDrop<Page>,
    gref: u32,
    peer: DomId,
    next: Option<KBox<Node>>,
}

impl Node {
    /// Makes the node of a grant.
    ///
    /// # Safety
    ///
    /// `gref` must be a grant of `page` to `peer` that nobody else ends.
    pub(crate) unsafe fn new(page: Page, gref: u32, peer: DomId) -> Self {
        // INVARIANT: The caller's promise.
        Self {
            page: ManuallyDrop::new(page),
            gref,
            peer,
            next: None,
        }
    }

    /// Ends the grant and frees the page; gives the node back if the peer has the page mapped.
    fn try_end(mut node: KBox<Self>) -> core::result::Result<(), KBox<Self>> {
        // SAFETY: By the type invariant `gref` is a grant of ours.
        if unsafe { xen_sys::gnttab_try_end_foreign_access(node.gref) } == 0 {
            return Err(node);
        }
        // SAFETY: The page is dropped once: the node ends here.
        unsafe { ManuallyDrop::drop(&mut node.page) };
        Ok(())
    }

    /// Leaves grant and page to the kernel, which ends and frees them when it can.
    fn leave_to_kernel(node: KBox<Self>) {
        // SAFETY: By the type invariant `gref` is a grant of ours, of the page, which has order 0.
        // The function frees the page, which we never do from here on.
        unsafe { xen_sys::gnttab_end_foreign_access(node.gref, node.page.as_ptr()) };
    }
}

/// The fields of [`Pending`] protected by its lock.
struct PendingInner {
    head: Option<KBox<Node>>,
    len: usize,
}

impl PendingInner {
    fn push(&mut self, mut node: KBox<Node>) {
        node.next = self.head.take();
        self.head = Some(node);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<KBox<Node>> {
        let mut node = self.head.take()?;
        self.head = node.next.take();
        self.len -= 1;
        Some(node)
    }
}

/// The list.
#[pin_data]
pub(crate) struct Pending {
    #[pin]
    inner: Mutex<PendingInner>,
}

impl Pending {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_mutex!(PendingInner { head: None, len: 0 }, "xenvmc_pending"),
        })
    }

    /// Ends the grant now, or puts it on the list and returns true.
    pub(crate) fn end(&self, node: KBox<Node>) -> bool {
        let Err(node) = Node::try_end(node) else {
            return false;
        };
        self.inner.lock().push(node);
        true
    }

    /// Returns the number of pages on the list.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().len
    }

    /// Returns the number of pages on the list that `peer` holds.
    pub(crate) fn len_of(&self, peer: DomId) -> usize {
        let inner = self.inner.lock();
        let mut count = 0;
        let mut next = inner.head.as_deref();
        while let Some(node) = next {
            count += usize::from(node.peer == peer);
            next = node.next.as_deref();
        }
        count
    }

    /// Leaves all of it to the kernel.
    pub(crate) fn finish(&self) {
        let mut inner = self.inner.lock();
        while let Some(node) = inner.pop() {
            Node::leave_to_kernel(node);
        }
    }
}

impl Run for Pending {
    /// Tries each once, and again later while any is left.
    fn run(&self, task: &Task<Self>) {
        let mut inner = self.inner.lock();
        let mut kept = None;
        while let Some(node) = inner.pop() {
            if let Err(mut node) = Node::try_end(node) {
                node.next = kept;
                kept = Some(node);
            }
        }
        while let Some(mut node) = kept {
            kept = node.next.take();
            inner.push(node);
        }
        if inner.len > 0 {
            task.kick_after(RETRY_MS);
        }
    }
}
