// SPDX-License-Identifier: GPL-2.0

//! Pages that two domains share: ours, granted to one peer for reading, and the peer's, mapped for
//! reading.
//!
//! C headers: [`include/xen/grant_table.h`](srctree/include/xen/grant_table.h),
//! [`include/xen/page.h`](srctree/include/xen/page.h)
//!
//! All offsets are in bytes, and are checked. All functions need process context, except for words
//! and copies, which need none (copies to and from user space may sleep).

use crate::{
    copy::PageAddress,
    domain::DomId,
    grant::Grants,
    revoke::Node,
    word::{
        OwnWords,
        Word, //
    },
};
use core::{
    mem::size_of,
    ptr::NonNull, //
};
use kernel::{
    iov::IovIterSource,
    page::{
        Page,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::Arc, //
};

pub use crate::map::{
    unpopulated,
    PeerPages, //
};

// A grant is of a frame of 4096 bytes, and the protocol's pages have that size.
const _: () = assert!(PAGE_SIZE == 4096);

/// A page of ours that one peer can map, and only read.
///
/// Dropping it ends the grant; the page is freed when the peer has unmapped it, see [`Grants`].
///
/// # Invariants
///
/// `node` is `Some` until drop, and `address` is that of its page in the kernel's direct mapping,
/// valid for reads and writes.
pub struct OwnPage {
    node: Option<KBox<Node>>,
    gref: u32,
    address: PageAddress,
    grants: Arc<Grants>,
}

impl OwnPage {
    /// Allocates a page of zeroes and grants it to `peer`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENOSPC` if there is no grant left; `EBUSY` if `peer` holds on to too many pages
    /// that we want back.
    pub fn new(grants: &Arc<Grants>, peer: DomId) -> Result<Self> {
        grants.begin(peer)?;
        Self::grant(grants, peer).inspect_err(|_| grants.undo_begin())
    }

    fn grant(grants: &Arc<Grants>, peer: DomId) -> Result<Self> {
        let place = KBox::<Node>::new_uninit(GFP_KERNEL)?;
        let page = Page::alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;
        // SAFETY: `page` is an allocated page.
        let address = unsafe { xen_sys::page_address(page.as_ptr()) };
        let address = NonNull::new(address).ok_or(EFAULT)?;
        // SAFETY: `page` is an allocated page, zeroed; the grant is for reading only, and ended
        // before the page is freed.
        let gref = unsafe {
            let frame = xen_sys::xen_page_to_gfn(page.as_ptr());
            xen_sys::gnttab_grant_foreign_access(peer.get(), frame, 1)
        };
        let gref = u32::try_from(gref).map_err(|_| ENOSPC)?;
        // SAFETY: The grant was made above, and nobody else knows it.
        let node = KBox::write(place, unsafe { Node::new(page, gref, peer) });
        // INVARIANT: The address is that of the node's page. It stays valid: the node frees the
        // page when `self` is dropped.
        Ok(Self {
            node: Some(node),
            gref,
            // SAFETY: A page in the direct mapping is page aligned and valid for reads of its size
            // for as long as it is allocated.
            address: unsafe { PageAddress::from_raw(address.cast()) },
            grants: grants.clone(),
        })
    }

    /// Returns the grant reference, which the peer needs to map the page.
    pub fn gref(&self) -> u32 {
        self.gref
    }

    /// Returns the word at `offset`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not aligned or not inside the page.
    #[inline]
    pub fn word(&self, offset: usize) -> Result<Word<'_>> {
        let ptr = self.address.words(offset, size_of::<u32>())?;
        // SAFETY: The word is aligned, in a page that is valid for reads and writes for as long as
        // `self` lives.
        Ok(unsafe { Word::from_raw(ptr) })
    }

    /// Returns the `len` bytes from `offset` on as words, such as a connection slot.
    ///
    /// # Errors
    ///
    /// `EINVAL` if they are not aligned, none, or not all inside the page.
    #[inline]
    pub fn words(&self, offset: usize, len: usize) -> Result<OwnWords<'_>> {
        let ptr = self.address.words(offset, len)?;
        // SAFETY: The words are aligned, in a page that is valid for reads and writes for as long
        // as `self` lives.
        Ok(unsafe { OwnWords::from_raw(ptr, len) })
    }

    /// Returns the whole page as words.
    #[inline]
    pub fn all(&self) -> OwnWords<'_> {
        // SAFETY: A page begins aligned, and is valid for reads and writes for as long as `self`
        // lives.
        unsafe { OwnWords::from_raw(self.address.start(), PAGE_SIZE) }
    }

    /// Copies `data` to `offset`, before or after anything else in no defined order: a release
    /// store publishes it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not all inside the page.
    pub fn write(&self, offset: usize, data: &[u8]) -> Result {
        // SAFETY: By the type invariant the page is valid for writes.
        unsafe { self.address.write(offset, data) }
    }

    /// Copies from `offset` to `out`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not all inside the page.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result {
        self.address.read(offset, out)
    }

    /// Copies up to `len` bytes from `iter` to `offset` and returns how many: fewer if `iter` ends
    /// or faults, 0 also if they are not all inside the page.
    #[inline]
    pub fn copy_from_iter(&self, offset: usize, len: usize, iter: &mut IovIterSource<'_>) -> usize {
        // SAFETY: By the type invariant the page is valid for writes.
        unsafe { self.address.copy_from_iter(offset, len, iter) }
    }
}

impl Drop for OwnPage {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            self.grants.end(node);
        }
    }
}
