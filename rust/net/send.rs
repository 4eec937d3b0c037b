// SPDX-License-Identifier: GPL-2.0

//! Sending a datagram of our own over the network.
//!
//! C headers: `include/linux/net.h`, `include/linux/in.h`, `include/linux/in6.h`.

use core::mem::size_of;
use kernel::error::to_result;
use kernel::prelude::*;
use net_sys as bindings;
use xenvmc_core::message::Address;

/// A socket of the kernel, released when it is dropped.
struct KernelSocket(*mut bindings::socket);

impl KernelSocket {
    fn new(family: u32) -> Result<Self> {
        let mut socket = core::ptr::null_mut();
        // SAFETY: process context; a place for the socket.
        to_result(unsafe {
            bindings::sock_create_kern(
                (&raw mut bindings::init_net).cast(),
                family as i32,
                bindings::sock_type_SOCK_DGRAM as i32,
                bindings::IPPROTO_UDP as i32,
                &mut socket,
            )
        })?;
        Ok(Self(socket))
    }
}

impl Drop for KernelSocket {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { bindings::sock_release(self.0) };
    }
}

/// Sends `payload` to a port in the initial network namespace, without waiting. Process context.
///
/// # Errors
///
/// What the kernel says: no route, no memory.
pub fn send_datagram(address: Address, port: u16, payload: &mut [u8]) -> Result {
    match address {
        Address::V4(bytes) => {
            let mut to = bindings::sockaddr_in {
                sin_family: bindings::AF_INET as u16,
                sin_port: port.to_be(),
                ..Default::default()
            };
            to.sin_addr.s_addr = u32::from_ne_bytes(bytes);
            send(bindings::AF_INET, &mut to, payload)
        }
        Address::V6(bytes) => {
            let mut to = bindings::sockaddr_in6 {
                sin6_family: bindings::AF_INET6 as u16,
                sin6_port: port.to_be(),
                ..Default::default()
            };
            to.sin6_addr.in6_u.u6_addr8 = bytes;
            send(bindings::AF_INET6, &mut to, payload)
        }
    }
}

fn send<A>(family: u32, to: &mut A, payload: &mut [u8]) -> Result {
    let socket = KernelSocket::new(family)?;
    let mut message = bindings::msghdr {
        msg_name: (&raw mut *to).cast(),
        msg_namelen: size_of::<A>() as i32,
        msg_flags: bindings::MSG_DONTWAIT,
        ..Default::default()
    };
    let mut part = bindings::kvec {
        iov_base: payload.as_mut_ptr().cast(),
        iov_len: payload.len(),
    };
    // SAFETY: process context; everything lives until the call returns.
    let sent =
        unsafe { bindings::kernel_sendmsg(socket.0, &mut message, &mut part, 1, payload.len()) };
    to_result(sent)
}
