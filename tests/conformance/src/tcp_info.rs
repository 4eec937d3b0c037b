// SPDX-License-Identifier: GPL-2.0

//! The states that TCP_INFO tells.

use std::{mem, os::fd::RawFd};

use nix::errno::Errno;

/// The names of the states, by their numbers.
const NAMES: [&str; 12] = [
    "?",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
];

/// The name of a state.
pub(crate) fn name(state: u8) -> &'static str {
    NAMES.get(usize::from(state)).copied().unwrap_or("?")
}

/// The name of the connection's state.
pub(crate) fn state(fd: RawFd) -> Result<&'static str, Errno> {
    get(fd).map(|info| name(info.tcpi_state))
}

/// The number of the congestion control's state.
pub(crate) fn congestion_state(fd: RawFd) -> Result<i32, Errno> {
    get(fd).map(|info| info.tcpi_ca_state.into())
}

/// All of it.
pub(crate) fn get(fd: RawFd) -> Result<libc::tcp_info, Errno> {
    // SAFETY: All fields may be zero, and both pointers are valid for writes of their sizes.
    unsafe {
        let mut info: libc::tcp_info = mem::zeroed();
        let mut size = size_of_val(&info) as libc::socklen_t;
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        let result = libc::getsockopt(fd, level, name, (&raw mut info).cast(), &mut size);
        Errno::result(result).map(|_| info)
    }
}
