// SPDX-License-Identifier: GPL-2.0

//! Walking over the table of established connections.
//!
//! C headers: `include/net/inet_hashtables.h`, `include/linux/rculist_nulls.h`.

use crate::socket::Socket;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use net_sys as bindings;

/// How often a chain is walked again whose sockets move to others meanwhile.
const TRIES: u32 = 8;

/// Calls `visit` with each socket of TCP that is established, in the initial network namespace. Connections that are opened
/// or closed meanwhile may be missed, and some may be visited twice. Process context, which is that of `visit` too: no lock
/// is held.
///
/// # Errors
///
/// `ENOMEM`: not all were visited.
pub fn for_each_established(mut visit: impl FnMut(&Socket)) -> Result {
    // SAFETY: the table of the initial namespace lives for ever.
    let (table, buckets) = unsafe {
        let table = bindings::tcp_hashinfo();
        (table, bindings::ehash_buckets(table))
    };
    let mut found = KVec::new();
    for bucket in 0..buckets {
        // SAFETY: a bucket of this table.
        unsafe { collect(table, bucket, &mut found, Socket::is_established)? };
        while let Some(socket) = found.pop() {
            visit(&socket);
        }
    }
    Ok(())
}

/// Adds to `found` the full sockets of TCP in a bucket, in the initial network namespace, that `is_wanted`; maybe more than once, or not all
/// if sockets are added to the bucket and removed all the time. Process or softirq context.
///
/// # Errors
///
/// `ENOMEM`.
///
/// # Safety
///
/// `bucket` must be one of `table`, which must live for ever.
pub(crate) unsafe fn collect(
    table: *mut bindings::inet_hashinfo,
    bucket: u32,
    found: &mut KVec<ARef<Socket>>,
    is_wanted: impl Fn(&Socket) -> bool,
) -> Result {
    for _ in 0..TRIES {
        // SAFETY: the caller's promise.
        if unsafe { collect_once(table, bucket, found, &is_wanted)? } {
            break;
        }
    }
    Ok(())
}

/// The same in one walk; false = the chain changed, and some may be missing.
///
/// # Safety
///
/// As [`collect`].
unsafe fn collect_once(
    table: *mut bindings::inet_hashinfo,
    bucket: u32,
    found: &mut KVec<ARef<Socket>>,
    is_wanted: &impl Fn(&Socket) -> bool,
) -> Result<bool> {
    // Sockets of TCP are freed after a grace period only as to their memory's type: each is looked at with a reference.
    let _rcu = kernel::sync::rcu::read_lock();
    // SAFETY: the caller's promise; under RCU.
    let mut node = unsafe { bindings::ehash_first(table, bucket) };
    loop {
        // SAFETY: a node of the chain, or its end; under RCU.
        let Some(sk) = NonNull::new(unsafe { bindings::ehash_sock(node) }) else {
            // A socket that was freed and is used again leads into another chain, whose end has another number.
            // SAFETY: the end of a chain.
            return Ok(unsafe { bindings::ehash_end(node) } == bucket);
        };
        // SAFETY: memory of a socket, alive or not, until there is a reference to it; a full one only then.
        unsafe {
            if bindings::sk_is_full(sk.as_ptr()) && bindings::sock_hold_not_zero(sk.as_ptr()) {
                let is_of_tcp = bindings::sk_is_full(sk.as_ptr())
                    && bindings::sk_is_tcp_protocol(sk.as_ptr())
                    && bindings::sk_in_init_net(sk.as_ptr());
                // The reference is ours, and a socket that is held stays one of its kind.
                let socket = ARef::<Socket>::from_raw(sk.cast());
                if is_of_tcp && is_wanted(&socket) {
                    found.push(socket, GFP_ATOMIC)?;
                }
            }
            node = bindings::ehash_next(node);
        }
    }
}
