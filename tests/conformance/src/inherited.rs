// SPDX-License-Identifier: GPL-2.0

//! This program, begun anew by a case, with a socket that was open before.

use std::{convert::Infallible, ffi::CString, os::fd::RawFd};

use nix::{errno::Errno, unistd};

use crate::{call, log::Observed, tcp_info};

/// What the program reads and writes there.
pub(crate) fn run(fd: RawFd) {
    let state = tcp_info::state(fd).text();
    let sent = call::send(fd, b"from the new program", libc::MSG_NOSIGNAL).text();
    let received = call::recv(fd, 100, 0).text();
    print!("{state}, sent {sent}, received {received}");
}

/// Begins the program in this process; it reports to `report`.
pub(crate) fn exec(fd: RawFd, report: RawFd) -> Result<Infallible, Errno> {
    let path = c"/proc/self/exe";
    let number = CString::new(fd.to_string()).expect("a number");
    // SAFETY: No memory is passed; this process's output is nobody else's.
    Errno::result(unsafe { libc::dup2(report, libc::STDOUT_FILENO) })?;
    unistd::execv(path, &[path, c"inherited", &number])
}
