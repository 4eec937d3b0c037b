// SPDX-License-Identifier: GPL-2.0

//! Memory that is not all there.

use std::{os::fd::RawFd, ptr};

use nix::errno::Errno;

use crate::call::check;

/// Size of a page.
pub(crate) const PAGE: usize = 4096;

/// An address that belongs to the kernel.
pub(crate) const KERNEL: *mut u8 = ptr::without_provenance_mut(0xffff_8880_0000_0000);

/// Pages of which the first ones can be used, and those behind them cannot. They stay for as long as
/// the process.
pub(crate) struct Pages {
    start: *mut u8,
    good: usize,
}

impl Pages {
    /// So many good bytes, in whole pages, and as many bad ones.
    pub(crate) fn new(good: usize) -> Self {
        let size = good.next_multiple_of(PAGE);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: New memory is mapped.
        let start = unsafe { libc::mmap(ptr::null_mut(), 2 * size, access, flags, -1, 0) };
        assert!(start != libc::MAP_FAILED, "mmap: {}", Errno::last());
        let pages = Self {
            start: start.cast(),
            good: size,
        };
        // SAFETY: Nobody refers to this memory.
        let result = unsafe { libc::mprotect(pages.bad().cast(), size, libc::PROT_NONE) };
        assert!(result == 0, "mprotect: {}", Errno::last());
        pages
    }

    /// Where the last so many good bytes begin.
    pub(crate) fn last(&self, bytes: usize) -> *mut u8 {
        assert!(bytes <= self.good);
        self.start.wrapping_add(self.good - bytes)
    }

    /// Where the bad ones begin.
    pub(crate) fn bad(&self) -> *mut u8 {
        self.start.wrapping_add(self.good)
    }

    /// Puts bytes where the last good ones are.
    pub(crate) fn put(&self, bytes: &[u8]) {
        // SAFETY: They are good, and nobody refers to them.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.last(bytes.len()), bytes.len()) };
    }

    /// The first of the last so many good bytes.
    pub(crate) fn get(&self, last: usize, count: usize) -> Vec<u8> {
        assert!(count <= last);
        // SAFETY: They are good, and nobody writes to them meanwhile.
        unsafe { std::slice::from_raw_parts(self.last(last), count) }.to_vec()
    }

    /// Makes the good ones readable only.
    pub(crate) fn protect(&self) {
        // SAFETY: Nobody refers to this memory.
        let result = unsafe { libc::mprotect(self.start.cast(), self.good, libc::PROT_READ) };
        assert!(result == 0, "mprotect: {}", Errno::last());
    }
}

/// send(2) from an address.
pub(crate) fn send(fd: RawFd, from: *const u8, len: usize, flags: i32) -> Result<usize, Errno> {
    // SAFETY: The kernel refuses what is not valid for reads.
    check(unsafe { libc::send(fd, from.cast(), len, flags) })
}

/// recv(2) to an address, at which nothing is that anybody refers to.
pub(crate) fn recv(fd: RawFd, to: *mut u8, len: usize, flags: i32) -> Result<usize, Errno> {
    // SAFETY: The kernel refuses what is not valid for writes.
    check(unsafe { libc::recv(fd, to.cast(), len, flags) })
}
