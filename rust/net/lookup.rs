// SPDX-License-Identifier: GPL-2.0

//! Finding the socket of a connection.
//!
//! C headers: `include/net/inet_hashtables.h`, `include/net/inet6_hashtables.h`.

use crate::socket::Socket;
use core::ptr::NonNull;
use kernel::sync::aref::ARef;
use net_sys as bindings;
use xenvmc_core::message::{
    Address,
    Tuple, //
};

/// Finds the established connection `tuple`, this end's address as the source, in the initial network namespace.
///
/// Process or softirq context. Sockets bound to a device are not found.
pub fn find_established(tuple: &Tuple) -> Option<ARef<Socket>> {
    // Sockets of TCP are freed after a grace period only as to their memory's type: without this the walk could leave it.
    let _rcu = kernel::sync::rcu::read_lock();
    let (local_port, remote_port) = (tuple.src_port, tuple.dst_port.to_be());
    // The lookup wants a packet's view: the source of what arrives is the remote end.
    let sk = match (tuple.dst, tuple.src) {
        (Address::V4(source), Address::V4(destination)) => {
            // SAFETY: `init_net` lives for ever; under RCU.
            unsafe {
                bindings::lookup_established_v4(
                    u32::from_ne_bytes(source),
                    remote_port,
                    u32::from_ne_bytes(destination),
                    local_port,
                )
            }
        }
        (Address::V6(source), Address::V6(destination)) => {
            // SAFETY: as above; the addresses are 16 bytes each.
            unsafe {
                bindings::lookup_established_v6(
                    source.as_ptr().cast(),
                    remote_port,
                    destination.as_ptr().cast(),
                    local_port,
                )
            }
        }
        _ => return None,
    };
    let sk = NonNull::new(sk)?;
    // SAFETY: the lookup returned it with a reference, which is ours now.
    if !unsafe { bindings::sk_is_full(sk.as_ptr()) } {
        // SAFETY: a request or time-wait socket, whose reference we give back as its kind wants it.
        unsafe { bindings::sock_gen_put(sk.as_ptr()) };
        return None;
    }
    // SAFETY: a full TCP socket with a reference that is ours.
    Some(unsafe { ARef::from_raw(sk.cast()) })
}
