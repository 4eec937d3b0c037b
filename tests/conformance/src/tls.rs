// SPDX-License-Identifier: GPL-2.0

//! The kernel's TLS: keys of a session that was agreed upon elsewhere.

use std::os::fd::RawFd;

use nix::errno::Errno;

use crate::call;

const SOL_TLS: i32 = 282;
const VERSION_1_2: u16 = 0x0303;
const AES_GCM_128: u16 = 51;

/// The direction of a key.
#[derive(Clone, Copy)]
pub(crate) enum Direction {
    /// What is sent
    Transmit = 1,
    /// What is received
    Receive = 2,
}

/// `struct tls12_crypto_info_aes_gcm_128`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Keys {
    version: u16,
    cipher: u16,
    iv: [u8; 8],
    key: [u8; 16],
    salt: [u8; 4],
    sequence: [u8; 8],
}

/// Lets TLS take over the socket. A case about TLS fails where the kernel has none: it would show nothing.
pub(crate) fn take_over(fd: RawFd) -> Result<(), Errno> {
    let result = call::set(fd, libc::IPPROTO_TCP, libc::TCP_ULP, *b"tls");
    assert_ne!(result, Err(Errno::ENOENT), "the kernel has no TLS");
    result
}

/// Sets the keys of a direction, which are the same for everybody.
pub(crate) fn set_keys(fd: RawFd, direction: Direction) -> Result<(), Errno> {
    let keys = Keys {
        version: VERSION_1_2,
        cipher: AES_GCM_128,
        iv: [1; 8],
        key: [2; 16],
        salt: [3; 4],
        sequence: [0; 8],
    };
    call::set(fd, SOL_TLS, direction as i32, keys)
}
