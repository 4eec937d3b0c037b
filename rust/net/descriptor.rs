// SPDX-License-Identifier: GPL-2.0

//! What of an adopted socket does not go through `sk_prot` but through `sock->ops`: `splice` from it, and SO_RCVLOWAT.
//!
//! TCP's `splice_read` looks at TCP's queue only. A derived table without it makes the socket layer read through `recvmsg`
//! instead. One such table exists for each of TCP's two.
//!
//! C header: `include/linux/net.h`.

use crate::adopted::{
    Adopted,
    Connection, //
};
use crate::error::{
    enotconn,
    eopnotsupp, //
};
use crate::socket::Locked;
use kernel::prelude::*;
use kernel::sync::SetOnce;
use net_sys as bindings;

/// A copy of one of TCP's tables.
struct Table(bindings::proto_ops);

// SAFETY: a table of function pointers, never written after it is made.
unsafe impl Send for Table {}
// SAFETY: see above.
unsafe impl Sync for Table {}

static IPV4: SetOnce<Table> = SetOnce::new();
static IPV6: SetOnce<Table> = SetOnce::new();

/// Returns the tables that have a derived one, with that.
fn tables() -> [(*const bindings::proto_ops, &'static SetOnce<Table>); 2] {
    [
        (&raw const bindings::inet_stream_ops, &IPV4),
        (&raw const bindings::inet6_stream_ops, &IPV6),
    ]
}

/// Returns where the table of the socket's descriptor is kept, if it has a descriptor.
fn place(locked: &Locked<'_>) -> Option<*mut *const bindings::proto_ops> {
    // SAFETY: alive and locked, so that `sk_socket` does not change.
    let socket = unsafe { (*locked.socket().as_ptr()).sk_socket };
    // SAFETY: a `struct socket` lives as long as it is the socket's.
    (!socket.is_null()).then(|| unsafe { core::ptr::addr_of_mut!((*socket).ops) })
}

/// Installs the derived table. Does nothing when it is there already.
///
/// # Errors
///
/// `ENOTCONN` without a descriptor, `EOPNOTSUPP` if the table is neither TCP's nor ours.
pub(crate) fn replace<C: Connection>(locked: &Locked<'_>) -> Result {
    let place = place(locked).ok_or_else(enotconn)?;
    // SAFETY: valid; readers elsewhere use READ_ONCE, the only writers hold the socket lock.
    let current = unsafe { place.read_volatile() };
    for (original, derived) in tables() {
        if derived
            .as_ref()
            .is_some_and(|table| core::ptr::eq(&table.0, current))
        {
            return Ok(());
        }
        if core::ptr::eq(original, current) {
            if derived.as_ref().is_none() {
                // SAFETY: one of the kernel's static tables.
                let mut table = unsafe { core::ptr::read(original) };
                table.splice_read = None;
                table.set_rcvlowat = Some(set_rcvlowat::<C>);
                derived.populate(Table(table));
            }
            let table = derived.as_ref().ok_or(EAGAIN)?;
            // SAFETY: valid. The table was complete /before/ `SetOnce` published it, and readers depend on it by address.
            unsafe { place.write_volatile(&table.0) };
            return Ok(());
        }
    }
    Err(eopnotsupp())
}

/// Puts TCP's table back, if ours is there.
pub(crate) fn restore(locked: &Locked<'_>) {
    let Some(place) = place(locked) else { return };
    // SAFETY: as in `replace`.
    let current = unsafe { place.read_volatile() };
    for (original, derived) in tables() {
        if derived
            .as_ref()
            .is_some_and(|table| core::ptr::eq(&table.0, current))
        {
            // SAFETY: as in `replace`; the original is static.
            unsafe { place.write_volatile(original) };
        }
    }
}

/// A method of an adopted socket's descriptor.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto_ops`.
unsafe extern "C" fn set_rcvlowat<C: Connection>(
    sk: *mut kernel::bindings::sock,
    value: kernel::ffi::c_int,
) -> kernel::ffi::c_int {
    // SAFETY: a static table; the arguments are the caller's own.
    let result = unsafe {
        match bindings::inet_stream_ops.set_rcvlowat {
            Some(method) => method(sk, value),
            None => 0,
        }
    };
    let _rcu = kernel::sync::rcu::read_lock();
    // SAFETY: called for a live socket; in an RCU read-side section.
    if let Ok(adopted) = unsafe { Adopted::<C>::of(sk.cast()) } {
        if C::is_readable(&adopted) {
            // TCP has told whoever waits only if there is enough in its own queue.
            adopted.socket().data_ready();
        }
    }
    result
}
