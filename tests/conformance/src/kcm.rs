// SPDX-License-Identifier: GPL-2.0

//! The kernel's connection multiplexor (Documentation/networking/kcm.rst in Linux): it takes messages out of TCP's queue itself, by
//! callbacks in the socket.

use std::os::fd::RawFd;

use nix::errno::Errno;

use crate::bpf;

/// From linux/socket.h and linux/kcm.h.
const AF_KCM: i32 = 41;
const SIOCKCMATTACH: libc::Ioctl = 0x89e0;
const SIOCKCMUNATTACH: libc::Ioctl = 0x89e1;

/// Length of each message, bytes.
pub(crate) const MESSAGE: usize = 1000;

/// `struct kcm_attach`; `struct kcm_unattach` is its beginning.
#[repr(C)]
struct Attach {
    fd: i32,
    parser: i32,
}

/// A multiplexor.
///
/// # Panics
///
/// The kernel has none.
pub(crate) fn open() -> RawFd {
    // SAFETY: The call takes no pointers.
    let fd = Errno::result(unsafe { libc::socket(AF_KCM, libc::SOCK_DGRAM, 0) });
    fd.expect("a multiplexor")
}

/// Gives a TCP socket to the multiplexor, which cuts its stream into messages of [`MESSAGE`] bytes.
pub(crate) fn attach(kcm: RawFd, fd: RawFd) -> Result<(), Errno> {
    let parser = bpf::always(MESSAGE as i32)?;
    let request = Attach { fd, parser };
    // SAFETY: The request outlives the call.
    Errno::result(unsafe { libc::ioctl(kcm, SIOCKCMATTACH, &raw const request) }).map(drop)
}

/// Takes it out again.
pub(crate) fn detach(kcm: RawFd, fd: RawFd) -> Result<(), Errno> {
    let request = Attach { fd, parser: 0 };
    // SAFETY: The request outlives the call.
    Errno::result(unsafe { libc::ioctl(kcm, SIOCKCMUNATTACH, &raw const request) }).map(drop)
}
