// SPDX-License-Identifier: GPL-2.0

//! Error codes of sockets that the kernel crate does not name, and constants that bindgen cannot evaluate.
//!
//! C headers: `include/uapi/asm-generic/errno.h`, `include/uapi/asm-generic/ioctls.h`, `include/net/tcp.h`.

use kernel::error::Error;
use net_sys as bindings;

/// Operation not supported on this socket.
pub(crate) fn eopnotsupp() -> Error {
    Error::from_errno(-(bindings::EOPNOTSUPP as i32))
}

/// The socket has no peer, or no descriptor.
pub(crate) fn enotconn() -> Error {
    Error::from_errno(-(bindings::ENOTCONN as i32))
}

/// `SIOCINQ`: how many bytes are unread.
pub(crate) const SIOCINQ: i32 = 0x541b;

/// `SIOCOUTQ`: how many bytes are not acknowledged.
pub(crate) const SIOCOUTQ: i32 = 0x5411;

/// `SIOCOUTQNSD`: how many bytes are not sent.
pub(crate) const SIOCOUTQNSD: i32 = 0x894b;

/// `SIOCATMARK`: whether the next byte is the urgent one.
pub(crate) const SIOCATMARK: i32 = 0x8905;

/// `TCPHDR_FIN`: the flag of a segment that ends the stream.
pub(crate) const TCPHDR_FIN: u16 = 1 << 0;
