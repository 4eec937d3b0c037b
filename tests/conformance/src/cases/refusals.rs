// SPDX-License-Identifier: GPL-2.0

//! Options that there are not, values of wrong sizes and at wrong places: errors that change nothing.

use nix::errno::Errno;

use super::options::still_there;
use crate::{call, case::cases};

const SOCKET: i32 = libc::SOL_SOCKET;
const TCP: i32 = libc::IPPROTO_TCP;
const IP: i32 = libc::IPPROTO_IP;

cases! {
    /// Names and levels that there are not.
    unknown: |left| {
        for (level, name) in [(SOCKET, 9999), (TCP, 9999), (IP, 9999), (999, 1), (-1, 1), (TCP, -1)] {
            left.see(&format!("set {level} {name}"), call::set(left.fd, level, name, 1i32));
            left.see(&format!("get {level} {name}"), call::get(left.fd, level, name));
        }
        still_there(left);
    }, |right| {
        still_there(right);
    };

    /// Values of too few and too many bytes.
    wrong_sizes: |left| {
        for (what, level, name) in [
            ("NODELAY", TCP, libc::TCP_NODELAY),
            ("KEEPALIVE", SOCKET, libc::SO_KEEPALIVE),
            ("TOS", IP, libc::IP_TOS),
            ("LINGER", SOCKET, libc::SO_LINGER),
            ("RCVTIMEO", SOCKET, libc::SO_RCVTIMEO),
        ] {
            for size in [0, 1, 3, 4, 8, 16, 64, -1] {
                let mut bytes = [0u8; 64];
                // SAFETY: There are 64 bytes, for the kernel to read and to write.
                unsafe {
                    let at = bytes.as_mut_ptr().cast::<libc::c_void>();
                    let set = libc::setsockopt(left.fd, level, name, at, size as u32);
                    left.see(&format!("set {what} {size}"), Errno::result(set));
                    let mut len = size as libc::socklen_t;
                    let get = libc::getsockopt(left.fd, level, name, at, &mut len);
                    left.see(&format!("get {what} {size}"), Errno::result(get));
                    left.see("size", len as i32);
                }
            }
        }
        still_there(left);
    }, |right| {
        still_there(right);
    };

    /// Values that are nowhere.
    bad_addresses: |left| {
        for (what, level, name) in [
            ("NODELAY", TCP, libc::TCP_NODELAY),
            ("KEEPALIVE", SOCKET, libc::SO_KEEPALIVE),
            ("LINGER", SOCKET, libc::SO_LINGER),
            ("INFO", TCP, libc::TCP_INFO),
            ("CONGESTION", TCP, libc::TCP_CONGESTION),
            ("TTL", IP, libc::IP_TTL),
            ("ULP", TCP, libc::TCP_ULP),
        ] {
            for address in [0usize, 1, usize::MAX] {
                let at = std::ptr::without_provenance_mut::<libc::c_void>(address);
                let mut size = 16;
                // SAFETY: The kernel finds that nothing can be there.
                unsafe {
                    let set = libc::setsockopt(left.fd, level, name, at, size);
                    left.see(&format!("set {what} at {address:x}"), Errno::result(set));
                    let get = libc::getsockopt(left.fd, level, name, at, &mut size);
                    left.see(&format!("get {what} at {address:x}"), Errno::result(get));
                }
            }
        }
        still_there(left);
    }, |right| {
        still_there(right);
    };
}
