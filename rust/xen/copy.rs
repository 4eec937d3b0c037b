// SPDX-License-Identifier: GPL-2.0

//! Copies between a shared page and private memory or user space, with the bounds checked.
//!
//! Memory that is shared with another domain, or between tasks of ours, has no Rust reference: C
//! code copies it, which the compiler cannot look into. A race gives old, new or mixed bytes, and
//! nothing worse.

use core::ptr::NonNull;
use kernel::{
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

/// The address of a page that stays accessible for as long as its owner lives.
///
/// # Invariants
///
/// `0` is page aligned and valid for reads of [`PAGE_SIZE`] bytes through volatile accesses and C
/// code while the owner of the `PageAddress` lives.
#[derive(Clone, Copy)]
pub(crate) struct PageAddress(NonNull<u8>);

// SAFETY: The address itself can be used from any thread; the contents are only accessed as
// described above.
unsafe impl Send for PageAddress {}
// SAFETY: As for `Send`.
unsafe impl Sync for PageAddress {}

impl PageAddress {
    /// Wraps the address of a page.
    ///
    /// # Safety
    ///
    /// `ptr` must be page aligned and valid for reads of `PAGE_SIZE` bytes until the owner of the
    /// result is dropped.
    pub(crate) unsafe fn from_raw(ptr: NonNull<u8>) -> Self {
        // INVARIANT: The caller's promise.
        Self(ptr)
    }

    /// Returns the address of the page's first word.
    #[inline]
    pub(crate) fn start(self) -> NonNull<u32> {
        self.0.cast()
    }

    /// Returns the address of `len` bytes from byte `offset` on.
    ///
    /// # Errors
    ///
    /// `EINVAL` if they are not all inside the page.
    #[inline]
    pub(crate) fn span(self, offset: usize, len: usize) -> Result<NonNull<u8>> {
        let end = offset.checked_add(len).ok_or(EINVAL)?;
        if end > PAGE_SIZE {
            return Err(EINVAL);
        }
        // SAFETY: `offset` is at most `PAGE_SIZE`, so the result is in the page or one past its
        // end.
        Ok(unsafe { self.0.add(offset) })
    }

    /// Returns the address of `len` bytes of aligned words from byte `offset` on, one word at
    /// least.
    ///
    /// # Errors
    ///
    /// `EINVAL` if they are not all inside the page, or not aligned.
    #[inline]
    pub(crate) fn words(self, offset: usize, len: usize) -> Result<NonNull<u32>> {
        let word = core::mem::size_of::<u32>();
        if offset % word != 0 || len % word != 0 || len == 0 {
            return Err(EINVAL);
        }
        Ok(self.span(offset, len)?.cast())
    }

    /// Copies `out.len()` bytes from byte `offset` on.
    pub(crate) fn read(self, offset: usize, out: &mut [u8]) -> Result {
        let src = self.span(offset, out.len())?;
        // SAFETY:
        // - `src` is valid for reads of `out.len()` bytes by the type invariant and the check
        //   above.
        // - `out` is valid for writes of its length, and cannot overlap a page that has no Rust
        //   reference.
        unsafe { xen_sys::copy_bytes(out.as_mut_ptr().cast(), src.as_ptr().cast(), out.len()) };
        Ok(())
    }

    /// Copies up to `len` bytes from byte `offset` on to `iter` and returns how many; 0 if they are
    /// not all in the page.
    #[inline]
    pub(crate) fn copy_to_iter(
        self,
        offset: usize,
        len: usize,
        iter: &mut IovIterDest<'_>,
    ) -> usize {
        let Ok(src) = self.span(offset, len) else {
            return 0;
        };
        // SAFETY:
        // - `src` is valid for reads of `len` bytes by the type invariant and the check above.
        // - `iter` is a valid destination by its own invariants.
        unsafe { xen_sys::_copy_to_iter(src.as_ptr().cast(), len, iter.as_raw()) }
    }

    /// Copies `data` to byte `offset` on.
    ///
    /// # Safety
    ///
    /// The page must be valid for writes.
    pub(crate) unsafe fn write(self, offset: usize, data: &[u8]) -> Result {
        let dst = self.span(offset, data.len())?;
        // SAFETY:
        // - `dst` is valid for writes of `data.len()` bytes by the caller's promise and the check
        //   above.
        // - `data` is valid for reads of its length, and cannot overlap a page that has no Rust
        //   reference.
        unsafe { xen_sys::copy_bytes(dst.as_ptr().cast(), data.as_ptr().cast(), data.len()) };
        Ok(())
    }

    /// Copies up to `len` bytes from `iter` to byte `offset` on and returns how many; 0 if they are
    /// not all in the page.
    ///
    /// # Safety
    ///
    /// The page must be valid for writes.
    #[inline]
    pub(crate) unsafe fn copy_from_iter(
        self,
        offset: usize,
        len: usize,
        iter: &mut IovIterSource<'_>,
    ) -> usize {
        let Ok(dst) = self.span(offset, len) else {
            return 0;
        };
        // SAFETY:
        // - `dst` is valid for writes of `len` bytes by the caller's promise and the check above.
        // - `iter` is a valid source by its own invariants.
        unsafe { xen_sys::_copy_from_iter(dst.as_ptr().cast(), len, iter.as_raw()) }
    }
}
