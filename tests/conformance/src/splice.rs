// SPDX-License-Identifier: GPL-2.0

//! Calls that move bytes between descriptors.

use std::{
    os::fd::{IntoRawFd, RawFd},
    ptr, //
};

use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
};

use crate::call::{self, check};

/// splice(2) without positions.
pub(crate) fn splice(from: RawFd, to: RawFd, len: usize, flags: u32) -> Result<usize, Errno> {
    // SAFETY: Null pointers say that there are no positions.
    check(unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), len, flags) })
}

/// tee(2).
pub(crate) fn tee(from: RawFd, to: RawFd, len: usize, flags: u32) -> Result<usize, Errno> {
    // SAFETY: No memory is passed.
    check(unsafe { libc::tee(from, to, len, flags) })
}

/// vmsplice(2) of bytes, which must stay as they are until all who get them have read them.
pub(crate) fn vmsplice(to: RawFd, bytes: &'static [u8]) -> Result<usize, Errno> {
    let piece = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: The bytes are valid for reads for ever.
    check(unsafe { libc::vmsplice(to, &piece, 1, 0) })
}

/// sendfile(2), from a position, or from the file's own.
pub(crate) fn sendfile(
    to: RawFd,
    from: RawFd,
    at: Option<&mut i64>,
    len: usize,
) -> Result<usize, Errno> {
    let at = at.map_or(ptr::null_mut(), ptr::from_mut);
    // SAFETY: The position is valid for writes, or null.
    check(unsafe { libc::sendfile(to, from, at, len) })
}

/// A file in memory, at its beginning.
pub(crate) fn file(bytes: &[u8]) -> RawFd {
    let file = memfd_create("conformance", MFdFlags::empty());
    let fd = file.expect("memfd_create").into_raw_fd();
    assert_eq!(call::write(fd, bytes), Ok(bytes.len()));
    // SAFETY: No memory is passed.
    unsafe { libc::lseek(fd, 0, libc::SEEK_SET) };
    fd
}
