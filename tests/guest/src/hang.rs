// SPDX-License-Identifier: GPL-2.0

//! Calls whose memory does not come: a task that copies from or to it waits in the middle of the call, as for a network file system whose server
//! is gone.
//!
//! C header: `include/uapi/linux/userfaultfd.h`.

use std::{
    os::fd::RawFd,
    ptr,
    sync::{Mutex, PoisonError},
};

use crate::{order::Answer, sys};

/// Bytes of such memory.
const LEN: usize = 4096;

/// `UFFD_API`.
const API: u64 = 0xaa;
/// `UFFDIO_API`.
const IOCTL_API: libc::c_ulong = 0xc018_aa3f;
/// `UFFDIO_REGISTER`.
const IOCTL_REGISTER: libc::c_ulong = 0xc020_aa00;
/// `UFFDIO_REGISTER_MODE_MISSING`.
const MODE_MISSING: u64 = 1;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// Who could bring the memory of the calls that hang.
static WARDENS: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Maps memory that nobody brings, until [`release`].
fn missing_memory() -> Result<*mut u8, sys::Errno> {
    // SAFETY: New memory, of nobody's address space.
    let start = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(
            ptr::null_mut(),
            LEN,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(libc::ENOMEM);
    }
    // SAFETY: No memory is passed.
    let warden = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
    let warden = sys::check(warden as isize)? as RawFd;
    WARDENS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(warden);
    let mut api = Api {
        api: API,
        features: 0,
        ioctls: 0,
    };
    // SAFETY: `api` is what the call reads and writes.
    sys::check(unsafe { libc::ioctl(warden, IOCTL_API, &mut api) } as isize)?;
    let mut register = Register {
        start: start as u64,
        len: LEN as u64,
        mode: MODE_MISSING,
        ioctls: 0,
    };
    // SAFETY: `register` is what the call reads and writes; the memory was mapped above.
    sys::check(unsafe { libc::ioctl(warden, IOCTL_REGISTER, &mut register) } as isize)?;
    Ok(start.cast())
}

/// recv(2), or send(2), with memory that nobody brings: the bytes that it moved, or its error, after [`release`].
pub(crate) fn call(fd: RawFd, sends: bool) -> Result<Answer, String> {
    let start = missing_memory().map_err(sys::name)?;
    // SAFETY: Mapped above for this call alone; only the kernel touches it.
    let result = unsafe {
        match sends {
            true => libc::send(fd, start.cast(), LEN, libc::MSG_NOSIGNAL),
            false => libc::recv(fd, start.cast(), LEN, 0),
        }
    };
    Ok(match sys::check(result) {
        Ok(bytes) => Answer::default().with("bytes", bytes),
        Err(errno) => Answer::default().with("error", sys::name(errno)),
    })
}

/// Lets all calls that hang go on, with zeroes.
pub(crate) fn release() -> Result<Answer, String> {
    for warden in WARDENS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .drain(..)
    {
        sys::close(warden).map_err(sys::name)?;
    }
    Ok(Answer::default())
}
