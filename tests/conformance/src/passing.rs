// SPDX-License-Identifier: GPL-2.0

//! Descriptors on their way to another process.

use std::{io::IoSlice, io::IoSliceMut, os::fd::RawFd};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

/// A pair of UNIX sockets.
pub(crate) fn pair() -> [RawFd; 2] {
    let mut ends = [0; 2];
    let (family, kind) = (libc::AF_UNIX, libc::SOCK_STREAM);
    // SAFETY: `ends` is valid for writes of two descriptors.
    let result = unsafe { libc::socketpair(family, kind, 0, ends.as_mut_ptr()) };
    Errno::result(result).expect("socketpair");
    ends
}

/// Sends a descriptor by SCM_RIGHTS.
pub(crate) fn give(over: RawFd, fd: RawFd) -> Result<(), Errno> {
    let (bytes, fds) = ([IoSlice::new(b"!")], [fd]);
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(over, &bytes, &rights, MsgFlags::empty(), None).map(drop)
}

/// Receives a descriptor.
pub(crate) fn take(over: RawFd) -> Result<RawFd, Errno> {
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!(RawFd);
    let message = recvmsg::<()>(over, &mut bytes, Some(&mut space), MsgFlags::empty())?;
    let fd = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    fd.ok_or(Errno::ENOMSG)
}

/// A descriptor of another process, by pidfd_getfd(2).
pub(crate) fn fetch(process: i32, fd: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: No memory is passed.
    unsafe {
        let pidfd = Errno::result(libc::syscall(libc::SYS_pidfd_open, process, 0))?;
        let result = Errno::result(libc::syscall(libc::SYS_pidfd_getfd, pidfd, fd, 0));
        libc::close(pidfd as RawFd);
        result.map(|fd| fd as RawFd)
    }
}
