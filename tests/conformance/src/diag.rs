// SPDX-License-Identifier: GPL-2.0

//! What the kernel tells `ss` of a TCP connection (sock_diag(7), linux/inet_diag.h).

use std::{
    fs, mem,
    net::{IpAddr, SocketAddr},
    ptr,
};

use nix::errno::Errno;

use crate::{
    call::{self, check},
    tcp_info, //
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

/// All that may be asked for.
const EXTENSIONS: u8 = 0xff;

/// Room for an answer.
const ANSWER: usize = 4096;

/// `struct inet_diag_sockid`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Id {
    source_port: [u8; 2],
    destination_port: [u8; 2],
    source: [u8; 16],
    destination: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// A message with `struct inet_diag_req_v2`.
#[repr(C)]
struct Request {
    header: libc::nlmsghdr,
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: u32,
    id: Id,
}

/// `struct inet_diag_msg`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Told {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: Id,
    expires: u32,
    unread: u32,
    unacknowledged: u32,
    user: u32,
    inode: u32,
}

/// What was told of a connection.
pub(crate) struct Connection {
    /// The name of its state.
    pub(crate) state: &'static str,
    /// Its addresses: this end's, the other end's.
    pub(crate) addresses: [SocketAddr; 2],
    /// Bytes that were received and not read, and those that were written and not acknowledged, as TCP has them.
    pub(crate) queues: [u32; 2],
    /// The user who made the socket.
    pub(crate) user: u32,
    /// The socket's inode.
    pub(crate) inode: u32,
    /// The kinds of the attributes that came with it, in order.
    pub(crate) attributes: Vec<u16>,
}

/// Asks for the connection between two addresses of this network namespace: this end's, the other end's.
pub(crate) fn find(ends: [SocketAddr; 2]) -> Result<Connection, Errno> {
    let answer = exchange(SOCK_DIAG_BY_FAMILY, 0, ends)?;
    let at = size_of::<libc::nlmsghdr>();
    assert!(answer.len() >= at + size_of::<Told>(), "a short answer");
    // SAFETY: It is there, and all its values are valid.
    let told: Told = unsafe { ptr::read_unaligned(answer[at..].as_ptr().cast()) };
    let is_v4 = i32::from(told.family) == libc::AF_INET;
    let address = |bytes: [u8; 16], port: [u8; 2]| {
        let [a, b, c, d, ..] = bytes;
        let ip = match is_v4 {
            true => IpAddr::from([a, b, c, d]),
            false => IpAddr::from(bytes),
        };
        SocketAddr::new(ip, u16::from_be_bytes(port))
    };
    let id = told.id;
    Ok(Connection {
        state: tcp_info::name(told.state),
        addresses: [
            address(id.source, id.source_port),
            address(id.destination, id.destination_port),
        ],
        queues: [told.unread, told.unacknowledged],
        user: told.user,
        inode: told.inode,
        attributes: attributes(&answer[at + size_of::<Told>()..]),
    })
}

/// Ends a connection, as `ss --kill` does.
pub(crate) fn destroy(ends: [SocketAddr; 2]) -> Result<(), Errno> {
    exchange(SOCK_DESTROY, libc::NLM_F_ACK as u16, ends).map(drop)
}

/// The state that the line about an inode in /proc/net/tcp or /proc/net/tcp6 has; none without such a line.
pub(crate) fn state_in_proc(inode: u32) -> Option<&'static str> {
    let text = ["tcp", "tcp6"].map(|file| fs::read_to_string(format!("/proc/net/{file}")));
    let text: String = text.into_iter().flatten().collect();
    let inode = inode.to_string();
    text.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let state = u8::from_str_radix(words.get(3)?, 16).ok()?;
        (*words.get(9)? == inode).then(|| tcp_info::name(state))
    })
}

/// Sends a request, and returns the answer.
fn exchange(kind: u16, flags: u16, ends: [SocketAddr; 2]) -> Result<Vec<u8>, Errno> {
    let [ours, theirs] = ends;
    // SAFETY: All fields may be zero.
    let mut request: Request = unsafe { mem::zeroed() };
    request.header.nlmsg_len = size_of::<Request>() as u32;
    request.header.nlmsg_type = kind;
    request.header.nlmsg_flags = libc::NLM_F_REQUEST as u16 | flags;
    let family = match ours {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    request.family = family as u8;
    request.protocol = libc::IPPROTO_TCP as u8;
    request.extensions = EXTENSIONS;
    request.states = u32::MAX;
    request.id.cookie = [u32::MAX; 2];
    for (end, to, port) in [
        (ours, &mut request.id.source, &mut request.id.source_port),
        (
            theirs,
            &mut request.id.destination,
            &mut request.id.destination_port,
        ),
    ] {
        match end.ip() {
            IpAddr::V4(ip) => to[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => *to = ip.octets(),
        }
        *port = end.port().to_be_bytes();
    }
    // SAFETY: No memory is passed.
    let fd = Errno::result(unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG)
    })?;
    let (at, len) = ((&raw const request).cast(), size_of_val(&request));
    // SAFETY: The request is valid for reads of its size.
    let sent = check(unsafe { libc::send(fd, at, len, 0) });
    let answer = sent.and_then(|_| call::recv(fd, ANSWER, 0));
    call::close(fd)?;
    let answer = answer?;
    assert!(
        answer.len() >= size_of::<libc::nlmsghdr>(),
        "a short answer"
    );
    // SAFETY: It is there, and all its values are valid.
    let header: libc::nlmsghdr = unsafe { ptr::read_unaligned(answer.as_ptr().cast()) };
    if i32::from(header.nlmsg_type) == libc::NLMSG_ERROR {
        let at = size_of::<libc::nlmsghdr>();
        let number = answer.get(at..at + 4).expect("an error number");
        let number = i32::from_ne_bytes(number.try_into().expect("4"));
        if number != 0 {
            return Err(Errno::from_raw(-number));
        }
    }
    Ok(answer)
}

/// The kinds of attributes, in order.
fn attributes(mut bytes: &[u8]) -> Vec<u16> {
    let mut kinds = Vec::new();
    while let [a, b, c, d, ..] = *bytes {
        let len = usize::from(u16::from_ne_bytes([a, b]));
        kinds.push(u16::from_ne_bytes([c, d]));
        bytes = bytes
            .get(len.max(4).next_multiple_of(4)..)
            .unwrap_or_default();
    }
    kinds.sort();
    kinds
}
