// SPDX-License-Identifier: GPL-2.0

//! Finding the sockets of a connection.
//!
//! C headers: `include/net/inet_hashtables.h`, `include/net/inet6_hashtables.h`.

use crate::socket::Socket;
use crate::walk;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use net_sys as bindings;
use xenvmc_core::message::{
    Address,
    Tuple, //
};

/// Finds the sockets of the connection `tuple`, this end's address as the source, in the initial network namespace, whether or not they are
/// bound to a device (SO_BINDTODEVICE). Mostly there is one at most; sockets that are bound to several devices may have one tuple, and one of
/// them may be found twice. Process or softirq context.
///
/// The kernel's own lookup wants the device through which a packet has come, and a request for a ring does not come through one.
///
/// # Errors
///
/// `ENOMEM`.
pub fn find_established(tuple: &Tuple) -> Result<KVec<ARef<Socket>>> {
    let (local_port, remote_port) = (tuple.src_port, tuple.dst_port.to_be());
    // SAFETY: the table of the initial namespace lives for ever.
    let table = unsafe { bindings::tcp_hashinfo() };
    let bucket = match (tuple.src, tuple.dst) {
        (Address::V4(local), Address::V4(remote)) => {
            let [local, remote] = [local, remote].map(u32::from_ne_bytes);
            // SAFETY: as above.
            unsafe { bindings::ehash_bucket_v4(table, local, local_port, remote, remote_port) }
        }
        (Address::V6(local), Address::V6(remote)) => {
            let [local, remote] = [&local, &remote].map(|address| address.as_ptr().cast());
            // SAFETY: as above; the addresses are 16 bytes each, aligned as bytes.
            unsafe { bindings::ehash_bucket_v6(table, local, local_port, remote, remote_port) }
        }
        _ => return Ok(KVec::new()),
    };
    let mut found = KVec::new();
    // SAFETY: a bucket of this table.
    unsafe {
        walk::collect(table, bucket, &mut found, |socket| {
            socket.tuple() == Some(*tuple)
        })?
    };
    Ok(found)
}
