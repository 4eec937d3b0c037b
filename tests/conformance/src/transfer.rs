// SPDX-License-Identifier: GPL-2.0

//! The calls that receive, and those that send: alike in what they do, not in how they do it.

use std::{mem, os::fd::RawFd, ptr};

use nix::errno::Errno;

use crate::call;

/// A call that receives at most so many bytes.
pub(crate) type Receive = fn(RawFd, usize) -> Result<Vec<u8>, Errno>;

/// A call that sends bytes.
pub(crate) type Send = fn(RawFd, &[u8]) -> Result<usize, Errno>;

/// Those that receive.
pub(crate) const RECEIVES: &[(&str, Receive)] = &[
    ("recv", |fd, size| call::recv(fd, size, 0)),
    ("read", call::read),
    ("readv", readv),
    ("recvmsg", recvmsg),
    ("recvmmsg", recvmmsg),
    ("splice", splice_from),
    ("peek", peek),
];

/// Those that send.
pub(crate) const SENDS: &[(&str, Send)] = &[
    ("send", |fd, bytes| {
        call::send(fd, bytes, libc::MSG_NOSIGNAL)
    }),
    ("write", call::write),
    ("writev", writev),
    ("sendmsg", sendmsg),
    ("sendmmsg", sendmmsg),
    ("sendfile", |fd, bytes| {
        sendfile(fd, memory_file(bytes), bytes.len())
    }),
    ("splice", splice_to),
];

/// Two parts of a buffer.
fn halves(bytes: *mut u8, len: usize) -> [libc::iovec; 2] {
    let half = len / 2;
    [
        libc::iovec {
            iov_base: bytes.cast(),
            iov_len: half,
        },
        libc::iovec {
            iov_base: bytes.wrapping_add(half).cast(),
            iov_len: len - half,
        },
    ]
}

fn message(parts: &mut [libc::iovec; 2]) -> libc::msghdr {
    // SAFETY: All fields may be zero.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    message
}

fn readv(fd: RawFd, size: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; size];
    let parts = halves(bytes.as_mut_ptr(), size);
    // SAFETY: The parts are valid for writes of their lengths.
    let count = call::check(unsafe { libc::readv(fd, parts.as_ptr(), 2) })?;
    bytes.truncate(count);
    Ok(bytes)
}

fn recvmsg(fd: RawFd, size: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; size];
    let mut parts = halves(bytes.as_mut_ptr(), size);
    // SAFETY: The parts are valid for writes of their lengths.
    let count = call::check(unsafe { libc::recvmsg(fd, &mut message(&mut parts), 0) })?;
    bytes.truncate(count);
    Ok(bytes)
}

/// One message, for the calls that move several.
fn messages(parts: &mut [libc::iovec; 2]) -> [libc::mmsghdr; 1] {
    [libc::mmsghdr {
        msg_hdr: message(parts),
        msg_len: 0,
    }]
}

fn recvmmsg(fd: RawFd, size: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; size];
    let mut parts = halves(bytes.as_mut_ptr(), size);
    let mut messages = messages(&mut parts);
    // SAFETY: The parts are valid for writes of their lengths, and a null pointer says that there is no limit of time.
    let result = unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), 1, 0, ptr::null_mut()) };
    Errno::result(result)?;
    bytes.truncate(messages[0].msg_len as usize);
    Ok(bytes)
}

/// recv(2) that peeks, and once more to take what it saw.
fn peek(fd: RawFd, size: usize) -> Result<Vec<u8>, Errno> {
    let seen = call::recv(fd, size, libc::MSG_PEEK)?;
    match seen.len() {
        0 => Ok(seen),
        len => call::recv(fd, len, 0),
    }
}

/// splice(2) into a pipe, which is then read.
fn splice_from(fd: RawFd, size: usize) -> Result<Vec<u8>, Errno> {
    let [from, to] = call::pipe()?;
    // SAFETY: Null pointers say that these have no position.
    let count = unsafe { libc::splice(fd, ptr::null_mut(), to, ptr::null_mut(), size, 0) };
    let count = call::check(count);
    let bytes = count.and_then(|count| match count {
        0 => Ok(Vec::new()),
        count => call::read(from, count),
    });
    call::close(from)?;
    call::close(to)?;
    bytes
}

fn writev(fd: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    let parts = halves(bytes.as_ptr().cast_mut(), bytes.len());
    // SAFETY: The parts are valid for reads of their lengths.
    call::check(unsafe { libc::writev(fd, parts.as_ptr(), 2) })
}

fn sendmsg(fd: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    let mut parts = halves(bytes.as_ptr().cast_mut(), bytes.len());
    // SAFETY: The parts are valid for reads of their lengths.
    call::check(unsafe { libc::sendmsg(fd, &message(&mut parts), libc::MSG_NOSIGNAL) })
}

fn sendmmsg(fd: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    let mut parts = halves(bytes.as_ptr().cast_mut(), bytes.len());
    let mut messages = messages(&mut parts);
    // SAFETY: The parts are valid for reads of their lengths.
    let result = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), 1, libc::MSG_NOSIGNAL) };
    Errno::result(result)?;
    Ok(messages[0].msg_len as usize)
}

/// A file in memory with these bytes, to be read from its beginning.
pub(crate) fn memory_file(bytes: &[u8]) -> RawFd {
    let name = c"bytes".to_bytes_with_nul();
    // SAFETY: The name is a string that ends with zero.
    let fd = Errno::result(unsafe { libc::memfd_create(name.as_ptr().cast(), 0) }).expect("memfd");
    let mut written = 0;
    while written < bytes.len() {
        written += call::write(fd, &bytes[written..]).expect("write");
    }
    // SAFETY: No memory is passed.
    let at = unsafe { libc::lseek(fd, 0, libc::SEEK_SET) };
    assert!(at == 0, "lseek: {}", Errno::last());
    fd
}

/// sendfile(2) from where the file is.
pub(crate) fn sendfile(fd: RawFd, file: RawFd, size: usize) -> Result<usize, Errno> {
    // SAFETY: A null pointer says that the file's own position counts.
    call::check(unsafe { libc::sendfile(fd, file, ptr::null_mut(), size) })
}

/// splice(2) out of a pipe that holds the bytes; they must fit into one.
fn splice_to(fd: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    let [from, to] = call::pipe()?;
    assert!(call::write(to, bytes)? == bytes.len());
    let size = bytes.len();
    // SAFETY: Null pointers say that these have no position.
    let count = unsafe { libc::splice(from, ptr::null_mut(), fd, ptr::null_mut(), size, 0) };
    let count = call::check(count);
    call::close(from)?;
    call::close(to)?;
    count
}
