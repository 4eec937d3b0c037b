// SPDX-License-Identifier: GPL-2.0

//! Messages of sendmsg(2) and recvmsg(2): bytes in several pieces, and control data.

use std::{mem, os::fd::RawFd, ptr};

use nix::errno::Errno;

use crate::{call::check, log::Observed};

/// What recvmsg(2) returned.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// The bytes, of all pieces.
    pub(crate) bytes: Vec<u8>,
    /// The control messages: level, type, and data.
    pub(crate) control: Vec<(i32, i32, Vec<u8>)>,
    flags: i32,
    control_len: usize,
    name_len: u32,
}

impl Observed for Received {
    fn text(&self) -> String {
        let mut text = format!(
            "{}, flags {:#x}, name of {}, control of {}",
            self.bytes.text(),
            self.flags,
            self.name_len,
            self.control_len
        );
        for (level, kind, data) in &self.control {
            text += &format!(" [{level} {kind} {}]", data.text());
        }
        text
    }
}

/// A control message.
pub(crate) fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let len = size_of::<libc::cmsghdr>() + data.len();
    let mut bytes = Vec::new();
    bytes.extend(len.to_ne_bytes());
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(len.next_multiple_of(size_of::<usize>()), 0);
    bytes
}

/// The pieces of a message to send.
pub(crate) fn pieces(parts: &[&[u8]]) -> Vec<libc::iovec> {
    let piece = |part: &&[u8]| libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    };
    parts.iter().map(piece).collect()
}

/// Room for the pieces of a message.
pub(crate) fn rooms(parts: &mut [Vec<u8>]) -> Vec<libc::iovec> {
    let room = |part: &mut Vec<u8>| libc::iovec {
        iov_base: part.as_mut_ptr().cast(),
        iov_len: part.len(),
    };
    parts.iter_mut().map(room).collect()
}

/// The header of a message that has these pieces and nothing else.
pub(crate) fn header(pieces: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: All fields may be zero.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = pieces.as_mut_ptr();
    header.msg_iovlen = pieces.len();
    header
}

/// sendmsg(2).
pub(crate) fn send(fd: RawFd, parts: &[&[u8]], control: &[u8], flags: i32) -> Result<usize, Errno> {
    let mut pieces = pieces(parts);
    let mut header = header(&mut pieces);
    if !control.is_empty() {
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len();
    }
    // SAFETY: All that the header points to is valid for reads.
    check(unsafe { libc::sendmsg(fd, &header, flags) })
}

/// recvmsg(2) of pieces of at most these sizes, with room for so many bytes of control data.
pub(crate) fn recv(
    fd: RawFd,
    sizes: &[usize],
    control_size: usize,
    flags: i32,
) -> Result<Received, Errno> {
    let mut parts: Vec<_> = sizes.iter().map(|size| vec![0; *size]).collect();
    let mut rooms = rooms(&mut parts);
    let mut header = header(&mut rooms);
    // Numbers, as these are aligned for what the kernel writes.
    let mut room = vec![0u64; control_size.div_ceil(8)];
    if control_size > 0 {
        header.msg_control = room.as_mut_ptr().cast();
        header.msg_controllen = control_size;
    }
    // SAFETY: All fields may be zero.
    let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of_val(&name) as u32;
    // SAFETY: All that the header points to is valid for writes.
    let count = check(unsafe { libc::recvmsg(fd, &mut header, flags) })?;
    let mut bytes = parts.concat();
    bytes.truncate(count);
    Ok(Received {
        bytes,
        control: control_messages(&header),
        flags: header.msg_flags,
        control_len: header.msg_controllen,
        name_len: header.msg_namelen,
    })
}

/// readv(2) into pieces of at most these sizes.
pub(crate) fn readv(fd: RawFd, sizes: &[usize]) -> Result<Vec<u8>, Errno> {
    let mut parts: Vec<_> = sizes.iter().map(|size| vec![0; *size]).collect();
    let rooms = rooms(&mut parts);
    // SAFETY: The pieces are valid for writes.
    let count = check(unsafe { libc::readv(fd, rooms.as_ptr(), rooms.len() as i32) })?;
    let mut bytes = parts.concat();
    bytes.truncate(count);
    Ok(bytes)
}

/// writev(2).
pub(crate) fn writev(fd: RawFd, parts: &[&[u8]]) -> Result<usize, Errno> {
    let pieces = pieces(parts);
    // SAFETY: The pieces are valid for reads.
    check(unsafe { libc::writev(fd, pieces.as_ptr(), pieces.len() as i32) })
}

/// preadv2(2) of at most `size` bytes.
pub(crate) fn preadv2(fd: RawFd, size: usize, at: i64, flags: i32) -> Result<Vec<u8>, Errno> {
    let mut parts = [vec![0; size]];
    let rooms = rooms(&mut parts);
    // SAFETY: The piece is valid for writes.
    let count = check(unsafe { libc::preadv2(fd, rooms.as_ptr(), 1, at, flags) })?;
    parts[0].truncate(count);
    Ok(mem::take(&mut parts[0]))
}

/// pwritev2(2).
pub(crate) fn pwritev2(fd: RawFd, bytes: &[u8], at: i64, flags: i32) -> Result<usize, Errno> {
    let pieces = pieces(&[bytes]);
    // SAFETY: The piece is valid for reads.
    check(unsafe { libc::pwritev2(fd, pieces.as_ptr(), 1, at, flags) })
}

fn control_messages(header: &libc::msghdr) -> Vec<(i32, i32, Vec<u8>)> {
    let mut all = Vec::new();
    if header.msg_control.is_null() {
        return all;
    }
    // SAFETY: The kernel has filled in so many bytes, which are valid headers, each with its data.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while !next.is_null() {
            let message = ptr::read(next);
            let len = message.cmsg_len - size_of::<libc::cmsghdr>();
            let data = std::slice::from_raw_parts(libc::CMSG_DATA(next), len).to_vec();
            all.push((message.cmsg_level, message.cmsg_type, data));
            next = libc::CMSG_NXTHDR(header, next);
        }
    }
    all
}
