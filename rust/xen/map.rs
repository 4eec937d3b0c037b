// SPDX-License-Identifier: GPL-2.0

//! Mapping a peer's pages.
//!
//! C headers: [`include/xen/grant_table.h`](srctree/include/xen/grant_table.h),
//! [`include/xen/xen.h`](srctree/include/xen/xen.h)

use crate::{
    copy::PageAddress,
    domain::DomId,
    word::{
        PeerWord,
        PeerWords, //
    },
};
use core::{
    mem::{
        size_of,
        take, //
    },
    ptr::{
        null_mut,
        NonNull, //
    },
};
use kernel::{
    error::to_result,
    iov::IovIterDest,
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// Pages that are mapped in one go, at most; a bound of what is allocated for a list of grants.
const MAX_PAGES: usize = 1024;

/// The status of an operation that Xen did not come to.
const NOT_DONE: i16 = 1;

/// How many pages [`Unpopulated`] has taken and not given back.
static TAKEN: Atomic<usize> = Atomic::new(0);

const FLAGS: u32 = xen_sys::GNTMAP_host_map | xen_sys::GNTMAP_readonly;

/// Pages of a peer, mapped read-only until this is dropped.
///
/// The peer can change what is in them at any time, and can vanish: what is mapped stays readable.
/// Whoever learns that a domain is gone drops its pages soon, since until then Xen cannot forget
/// that domain.
///
/// # Invariants
///
/// The three lists are equally long, one at least. `pages[i]` came from `xen_alloc_unpopulated_pages`, is mapped
/// to a page of the peer by the handle in `unmap[i]`, and can be read at `addresses[i]`.
pub struct PeerPages {
    pages: KVec<*mut xen_sys::page>,
    unmap: KVec<xen_sys::gnttab_unmap_grant_ref>,
    addresses: KVec<PageAddress>,
}

// SAFETY: Mappings belong to no thread.
unsafe impl Send for PeerPages {}
// SAFETY: With a shared reference the pages can only be read, by means that allow for changes.
unsafe impl Sync for PeerPages {}

impl PeerPages {
    /// Maps the pages that `peer` granted as `grefs`, all or none, with one hypercall. Process
    /// context.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the list is empty or longer than 1024; `ENOMEM`, also if Xen has no room to note
    /// another mapping; `EACCES` if it refused any of them otherwise.
    pub fn map(peer: DomId, grefs: &[u32]) -> Result<Self> {
        if grefs.is_empty() || grefs.len() > MAX_PAGES {
            return Err(EINVAL);
        }
        let mut room = Unpopulated::new(grefs.len())?;
        let mut ops = KVec::with_capacity(grefs.len(), GFP_KERNEL)?;
        let mut unmap = KVec::with_capacity(grefs.len(), GFP_KERNEL)?;
        let mut addresses = KVec::with_capacity(grefs.len(), GFP_KERNEL)?;
        for (page, gref) in room.0.iter().zip(grefs) {
            // SAFETY: `page` is a page of the kernel's, with a place in the direct mapping.
            let address = unsafe { xen_sys::page_address(*page) };
            let address = NonNull::new(address).ok_or(EFAULT)?;
            let mut op = xen_sys::gnttab_map_grant_ref::default();
            let mut undo = xen_sys::gnttab_unmap_grant_ref::default();
            // SAFETY: `op` and `undo` are valid for writes.
            unsafe {
                let addr = address.as_ptr() as u64;
                xen_sys::gnttab_set_map_op(&mut op, addr, FLAGS, *gref, peer.get());
                xen_sys::gnttab_set_unmap_op(&mut undo, addr, FLAGS, 0);
            }
            op.status = NOT_DONE;
            undo.status = NOT_DONE;
            ops.push(op, GFP_KERNEL)?;
            unmap.push(undo, GFP_KERNEL)?;
            // SAFETY: The page is the caller's for as long as it is mapped; it is read only after
            // the mapping succeeded.
            addresses.push(unsafe { PageAddress::from_raw(address.cast()) }, GFP_KERNEL)?;
        }

        // The return value says nothing about a single page, and a failed call may have mapped
        // some: the status of each operation is what counts.
        //
        // SAFETY: Both arrays are valid and `ops.len()` long; the addresses are those of the pages,
        // which hold nothing.
        unsafe {
            xen_sys::gnttab_map_refs(
                ops.as_mut_ptr(),
                null_mut(),
                room.0.as_mut_ptr(),
                ops.len() as u32,
            )
        };
        for (undo, op) in unmap.iter_mut().zip(&ops) {
            undo.handle = op.handle;
        }
        if !ops.iter().all(is_mapped) {
            for (index, op) in ops.iter().enumerate() {
                if is_mapped(op) {
                    room.unmap_one(index, &mut unmap[index]);
                }
            }
            let is_full = |op: &xen_sys::gnttab_map_grant_ref| {
                i32::from(op.status) == xen_sys::GNTST_no_device_space
            };
            return Err(if ops.iter().any(is_full) {
                ENOMEM
            } else {
                EACCES
            });
        }
        // INVARIANT: All were mapped; the lists were filled side by side. The pages are given back
        // by `drop`.
        Ok(Self {
            pages: take(&mut room.0),
            unmap,
            addresses,
        })
    }

    /// Returns the number of pages.
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Returns the word at byte `offset` of page `page`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such page or word, or the word is not aligned.
    #[inline]
    pub fn word(&self, page: usize, offset: usize) -> Result<PeerWord<'_>> {
        let address = self.addresses.get(page).ok_or(EINVAL)?;
        let ptr = address.words(offset, size_of::<u32>())?;
        // SAFETY: By the type invariant the page, which the aligned word is in, is mapped for as
        // long as `self` lives.
        Ok(unsafe { PeerWord::from_raw(ptr) })
    }

    /// Returns the `len` bytes from byte `offset` of page `page` on as words, such as a connection
    /// slot.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such page, or they are not aligned, none, or not all inside one
    /// page.
    #[inline]
    pub fn words(&self, page: usize, offset: usize, len: usize) -> Result<PeerWords<'_>> {
        let ptr = self.addresses.get(page).ok_or(EINVAL)?.words(offset, len)?;
        // SAFETY: By the type invariant the page, which the aligned words are in, is mapped for as
        // long as `self` lives.
        Ok(unsafe { PeerWords::from_raw(ptr, len) })
    }

    /// Returns the whole first page as words.
    #[inline]
    pub fn first(&self) -> PeerWords<'_> {
        // SAFETY: By the type invariant there is a first page, mapped for as long as `self` lives.
        unsafe { PeerWords::from_raw(self.addresses.get_unchecked(0).start(), PAGE_SIZE) }
    }

    /// Copies from byte `offset` of page `page` to `out`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not all inside one page.
    pub fn read(&self, page: usize, offset: usize, out: &mut [u8]) -> Result {
        self.addresses.get(page).ok_or(EINVAL)?.read(offset, out)
    }

    /// Copies up to `len` bytes from byte `offset` of page `page` to `iter` and returns how many:
    /// fewer if `iter` ends or faults, 0 also if they are not all inside one page.
    #[inline]
    pub fn copy_to_iter(
        &self,
        page: usize,
        offset: usize,
        len: usize,
        iter: &mut IovIterDest<'_>,
    ) -> usize {
        match self.addresses.get(page) {
            Some(address) => address.copy_to_iter(offset, len, iter),
            None => 0,
        }
    }
}

impl Drop for PeerPages {
    fn drop(&mut self) {
        let mut room = Unpopulated(take(&mut self.pages));
        // SAFETY: By the type invariant each page is mapped by the handle in its operation, and
        // nothing refers to it: words borrow `self`.
        unsafe {
            xen_sys::gnttab_unmap_refs(
                self.unmap.as_mut_ptr(),
                null_mut(),
                room.0.as_mut_ptr(),
                self.unmap.len() as u32,
            )
        };
        for (page, op) in room.0.iter_mut().zip(&self.unmap) {
            if !is_unmapped(op) {
                *page = null_mut();
            }
        }
    }
}

/// Returns the number of pages without memory behind them that mappings have, and of those that are lost. Any context.
pub fn unpopulated() -> usize {
    TAKEN.load(Relaxed)
}

/// Pages without memory behind them, given back when dropped. A null pointer is in the place of a
/// page that is still mapped and must not be used for anything else.
struct Unpopulated(KVec<*mut xen_sys::page>);

impl Unpopulated {
    fn new(count: usize) -> Result<Self> {
        let mut pages = KVec::from_elem(null_mut(), count, GFP_KERNEL)?;
        // SAFETY: `pages` has room for `count` pointers.
        to_result(unsafe {
            xen_sys::xen_alloc_unpopulated_pages(count as u32, pages.as_mut_ptr())
        })?;
        TAKEN.add(count, Relaxed);
        Ok(Self(pages))
    }

    /// Unmaps page `index`, or forgets it where that fails.
    fn unmap_one(&mut self, index: usize, op: &mut xen_sys::gnttab_unmap_grant_ref) {
        // SAFETY: The page is mapped by the handle in `op`, and nothing refers to it.
        unsafe { xen_sys::gnttab_unmap_refs(op, null_mut(), &mut self.0[index], 1) };
        if !is_unmapped(op) {
            self.0[index] = null_mut();
        }
    }
}

impl Drop for Unpopulated {
    fn drop(&mut self) {
        let all = self.0.len();
        self.0.retain(|page| !page.is_null());
        if self.0.len() < all {
            pr_warn!(
                "{} pages could not be unmapped and are lost\n",
                all - self.0.len()
            );
        }
        TAKEN.fetch_sub(self.0.len(), Relaxed);
        // SAFETY: What is left in the list came from `xen_alloc_unpopulated_pages` and is not
        // mapped.
        unsafe { xen_sys::xen_free_unpopulated_pages(self.0.len() as u32, self.0.as_mut_ptr()) };
    }
}

/// Returns whether Xen mapped the page of `op`.
fn is_mapped(op: &xen_sys::gnttab_map_grant_ref) -> bool {
    i32::from(op.status) == xen_sys::GNTST_okay as i32
}

/// Returns whether the page of `op` is not mapped: it was unmapped, or its handle is none of this
/// domain's, as after a restore.
fn is_unmapped(op: &xen_sys::gnttab_unmap_grant_ref) -> bool {
    let status = i32::from(op.status);
    status == xen_sys::GNTST_okay as i32 || status == xen_sys::GNTST_bad_handle
}
