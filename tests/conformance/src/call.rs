// SPDX-License-Identifier: GPL-2.0

//! System calls as they are: one call, one result, no retries, as the cases are about them.

use std::{
    mem,
    net::SocketAddr,
    os::fd::RawFd,
    ptr, //
};

use nix::{
    errno::Errno,
    sys::socket::{SockaddrLike, SockaddrStorage},
};

use crate::log::Events;

/// Most bytes of a call that is one of many.
pub(crate) const PIECE: usize = 64 << 10;

/// The result of a call that returns a number, or -1.
pub(crate) fn check(result: isize) -> Result<usize, Errno> {
    Errno::result(result).map(|value| value as usize)
}

/// A TCP socket for an address's family.
pub(crate) fn socket(address: &SocketAddr) -> Result<RawFd, Errno> {
    socket_of(address, libc::SOCK_STREAM)
}

/// A socket of a kind (`SOCK_STREAM`, …) for an address's family.
pub(crate) fn socket_of(address: &SocketAddr, kind: i32) -> Result<RawFd, Errno> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: No memory is passed.
    Errno::result(unsafe { libc::socket(family, kind, 0) })
}

/// connect(2).
pub(crate) fn connect(fd: RawFd, address: &SocketAddr) -> Result<(), Errno> {
    let raw = SockaddrStorage::from(*address);
    // SAFETY: The address is valid for reads of its length.
    Errno::result(unsafe { libc::connect(fd, raw.as_ptr(), raw.len()) }).map(drop)
}

/// bind(2), with SO_REUSEADDR.
pub(crate) fn bind(fd: RawFd, address: &SocketAddr) -> Result<(), Errno> {
    set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1i32)?;
    bind_strictly(fd, address)
}

/// bind(2) without SO_REUSEADDR.
pub(crate) fn bind_strictly(fd: RawFd, address: &SocketAddr) -> Result<(), Errno> {
    let raw = SockaddrStorage::from(*address);
    // SAFETY: The address is valid for reads of its length.
    Errno::result(unsafe { libc::bind(fd, raw.as_ptr(), raw.len()) }).map(drop)
}

/// bind(2) and listen(2).
pub(crate) fn listen(fd: RawFd, address: &SocketAddr, backlog: i32) -> Result<(), Errno> {
    bind(fd, address)?;
    // SAFETY: No memory is passed.
    Errno::result(unsafe { libc::listen(fd, backlog) }).map(drop)
}

/// accept(2).
pub(crate) fn accept(fd: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: Null pointers say that nobody wants the address.
    Errno::result(unsafe { libc::accept(fd, ptr::null_mut(), ptr::null_mut()) })
}

/// fstat(2).
pub(crate) fn status(fd: RawFd) -> Result<libc::stat, Errno> {
    // SAFETY: All fields may be zero, and the kernel fills them in.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        Errno::result(libc::fstat(fd, &mut status)).map(|_| status)
    }
}

/// getsockname(2).
pub(crate) fn local(fd: RawFd) -> Result<SocketAddr, Errno> {
    address(fd, libc::getsockname)
}

/// getpeername(2).
pub(crate) fn remote(fd: RawFd) -> Result<SocketAddr, Errno> {
    address(fd, libc::getpeername)
}

type AddressCall =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn address(fd: RawFd, call: AddressCall) -> Result<SocketAddr, Errno> {
    // SAFETY: All fields may be zero, and the storage holds any address.
    let (raw, len) = unsafe {
        let mut raw: libc::sockaddr_storage = mem::zeroed();
        let mut len = size_of_val(&raw) as libc::socklen_t;
        Errno::result(call(fd, (&raw mut raw).cast(), &mut len))?;
        (raw, len)
    };
    // SAFETY: The kernel has filled in so many bytes.
    let storage = unsafe { SockaddrStorage::from_raw((&raw const raw).cast(), Some(len)) };
    let storage = storage.ok_or(Errno::EAFNOSUPPORT)?;
    let v4 = storage
        .as_sockaddr_in()
        .map(|v4| SocketAddr::V4((*v4).into()));
    let v6 = storage
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::V6((*v6).into()));
    v4.or(v6).ok_or(Errno::EAFNOSUPPORT)
}

/// send(2).
pub(crate) fn send(fd: RawFd, bytes: &[u8], flags: i32) -> Result<usize, Errno> {
    // SAFETY: `bytes` is valid for reads of its length.
    check(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// recv(2) of at most `size` bytes.
pub(crate) fn recv(fd: RawFd, size: usize, flags: i32) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; size];
    // SAFETY: `bytes` is valid for writes of its length.
    let count = check(unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), size, flags) })?;
    // With MSG_TRUNC the count may be more than what there is room for.
    bytes.truncate(count);
    Ok(bytes)
}

/// write(2).
pub(crate) fn write(fd: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: `bytes` is valid for reads of its length.
    check(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })
}

/// read(2) of at most `size` bytes.
pub(crate) fn read(fd: RawFd, size: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; size];
    // SAFETY: `bytes` is valid for writes of its length.
    let count = check(unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), size) })?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Sends all of `bytes`; for what is not what the case is about.
pub(crate) fn send_all(fd: RawFd, bytes: &[u8]) {
    let mut sent = 0;
    while sent < bytes.len() {
        sent += send(fd, &bytes[sent..], libc::MSG_NOSIGNAL).expect("send");
    }
}

/// Fills `bytes`; for what is not what the case is about.
pub(crate) fn receive_all(fd: RawFd, bytes: &mut [u8]) {
    let mut received = 0;
    while received < bytes.len() {
        let part = recv(fd, PIECE.min(bytes.len() - received), 0).expect("recv");
        assert!(!part.is_empty(), "the stream ends after {received} bytes");
        bytes[received..received + part.len()].copy_from_slice(&part);
        received += part.len();
    }
}

/// close(2).
pub(crate) fn close(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: No memory is passed, and nothing in this program relies on a descriptor being open.
    Errno::result(unsafe { libc::close(fd) }).map(drop)
}

/// dup(2).
pub(crate) fn duplicate(fd: RawFd) -> RawFd {
    // SAFETY: No memory is passed.
    Errno::result(unsafe { libc::dup(fd) }).expect("dup")
}

/// Lets close(2) wait so many seconds for what is unsent; with 0 it resets the connection.
pub(crate) fn linger(fd: RawFd, seconds: i32) -> Result<(), Errno> {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: seconds,
    };
    set(fd, libc::SOL_SOCKET, libc::SO_LINGER, linger)
}

/// shutdown(2).
pub(crate) fn shutdown(fd: RawFd, how: i32) -> Result<(), Errno> {
    // SAFETY: No memory is passed.
    Errno::result(unsafe { libc::shutdown(fd, how) }).map(drop)
}

/// pipe(2): the end to read from, and that to write to.
pub(crate) fn pipe() -> Result<[RawFd; 2], Errno> {
    let mut ends = [0; 2];
    // SAFETY: `ends` is valid for writes of two descriptors.
    Errno::result(unsafe { libc::pipe(ends.as_mut_ptr()) })?;
    Ok(ends)
}

/// setsockopt(2) with a value of any plain type.
pub(crate) fn set<T: Copy>(fd: RawFd, level: i32, name: i32, value: T) -> Result<(), Errno> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is valid for reads of its size.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size) };
    Errno::result(result).map(drop)
}

/// getsockopt(2) of a number.
pub(crate) fn get(fd: RawFd, level: i32, name: i32) -> Result<i32, Errno> {
    let (mut value, mut size) = (0i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: Both are valid for writes of their sizes.
    let result = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut size) };
    Errno::result(result)?;
    Ok(value)
}

/// ioctl(2) that returns a number, such as `FIONREAD`.
pub(crate) fn ioctl(fd: RawFd, request: libc::Ioctl) -> Result<i32, Errno> {
    let mut value = 0i32;
    // SAFETY: `value` is valid for writes of the number that these requests return.
    Errno::result(unsafe { libc::ioctl(fd, request, &raw mut value) })?;
    Ok(value)
}

/// Makes calls for `fd` return `EAGAIN` instead of waiting, or not.
pub(crate) fn set_nonblocking(fd: RawFd, on: bool) -> Result<(), Errno> {
    // SAFETY: No memory is passed.
    unsafe {
        let flags = Errno::result(libc::fcntl(fd, libc::F_GETFL))?;
        let flags = if on {
            flags | libc::O_NONBLOCK
        } else {
            flags & !libc::O_NONBLOCK
        };
        Errno::result(libc::fcntl(fd, libc::F_SETFL, flags)).map(drop)
    }
}

/// poll(2) of one descriptor; `timeout` in milliseconds, negative: for ever.
pub(crate) fn poll(fd: RawFd, events: i32, timeout: i32) -> Result<Events, Errno> {
    let mut entry = libc::pollfd {
        fd,
        events: events as i16,
        revents: 0,
    };
    // SAFETY: `entry` is valid for reads and writes.
    Errno::result(unsafe { libc::poll(&mut entry, 1, timeout) })?;
    Ok(Events(entry.revents as u16 as u32))
}

/// So many bytes of a stream, from the position `at`: no period that a lost piece could fit.
pub(crate) fn pattern(at: usize, len: usize) -> Vec<u8> {
    let byte = |at: usize| ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    (at..at + len).map(byte).collect()
}
