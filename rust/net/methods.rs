// SPDX-License-Identifier: GPL-2.0

//! The C entry points of an adopted socket: what stands in its `struct proto`.
//!
//! Each is: find the [`Adopted`], call the method of the [`Connection`], map the result, and TCP's own method where that
//! has to act as well. A method that finds the socket given back meanwhile calls the table that it found instead.

use crate::adopted::{
    Adopted,
    Connection, //
};
use crate::error::{
    SIOCATMARK,
    SIOCINQ,
    SIOCOUTQ,
    SIOCOUTQNSD, //
};
use crate::message::{
    Flags,
    Message, //
};
use crate::options::Hold;
use crate::socket::{
    Shutdown,
    Socket, //
};
use kernel::ffi::{
    c_int,
    c_long,
    c_uint, //
};
use kernel::prelude::*;
use kernel::sync::atomic::{
    Atomic,
    Full,
    Relaxed, //
};
use kernel::sync::Arc;
use net_sys as bindings;

/// Puts our methods into a copy of a socket's table.
pub(crate) fn replace<C: Connection>(proto: &mut bindings::proto) {
    proto.sendmsg = Some(sendmsg::<C>);
    proto.recvmsg = Some(recvmsg::<C>);
    proto.close = Some(close::<C>);
    proto.shutdown = Some(shutdown::<C>);
    proto.disconnect = Some(disconnect::<C>);
    proto.destroy = Some(destroy::<C>);
    proto.release_cb = Some(release_cb::<C>);
    proto.ioctl = Some(ioctl::<C>);
    proto.setsockopt = Some(setsockopt::<C>);
    proto.getsockopt = Some(getsockopt::<C>);
    proto.psock_update_sk_prot = Some(psock_update_sk_prot::<C>);
    proto.sock_is_readable = Some(sock_is_readable::<C>);
    proto.stream_memory_free = Some(stream_memory_free::<C>);
}

/// Marks a table that [`replace`] made with its own address. The field is for registered tables, which ours never is.
pub(crate) fn mark(proto: *mut bindings::proto) {
    // SAFETY: the caller's own table, not shared yet.
    unsafe { (*proto).node.next = proto.cast() };
}

/// Whether a table is one that [`replace`] made, or a copy of one that somebody else (kTLS) made.
///
/// # Safety
///
/// `proto` must point at a valid table.
unsafe fn has_our_methods<C: Connection>(proto: *const bindings::proto) -> bool {
    let ours: unsafe extern "C" fn(*mut bindings::sock) = destroy::<C>;
    // SAFETY: valid by the caller's promise.
    unsafe { (*proto).destroy }.is_some_and(|found| found as usize == ours as usize)
}

/// Whether a table is one that [`replace`] made, and not a copy of it.
///
/// # Safety
///
/// `proto` must point at a valid table.
pub(crate) unsafe fn is_ours<C: Connection>(proto: *const bindings::proto) -> bool {
    // SAFETY: valid by the caller's promise.
    let (has_our_methods, mark) = unsafe { (has_our_methods::<C>(proto), (*proto).node.next) };
    has_our_methods && core::ptr::eq(mark.cast(), proto)
}

/// Calls in progress that entered by a table of ours and found the socket given back: nothing else tells of them.
static STRAYS: Atomic<i64> = Atomic::new(0);

/// One such call.
struct Stray;

impl Stray {
    fn enter() -> Self {
        STRAYS.fetch_add(1, Full);
        Self
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        STRAYS.fetch_sub(1, Full);
    }
}

/// Returns how many calls are inside our methods without holding an [`Adopted`]; they return into the module's text.
pub fn stray_calls() -> i64 {
    STRAYS.load(Relaxed)
}

/// A call in progress that may sleep. What it holds keeps the module's text until it returns: an [`Adopted`], which the
/// registry counts as alive, or a [`Stray`].
enum Call<C: Connection> {
    /// The socket is ours.
    Ours(Arc<Adopted<C>>),
    /// The socket was given back after the caller had loaded our table: the one that it has now.
    Other(*const bindings::proto, Stray),
}

impl<C: Connection> Call<C> {
    /// Finds out which.
    ///
    /// # Safety
    ///
    /// As [`Adopted::of`].
    #[inline]
    unsafe fn enter(sk: *mut bindings::sock) -> Self {
        let _rcu = kernel::sync::rcu::read_lock();
        // SAFETY: the caller's promise; in an RCU read-side section until the reference is taken.
        match unsafe { Adopted::<C>::of(sk) } {
            Ok(adopted) => Self::Ours(adopted.into()),
            Err(proto) => Self::Other(proto, Stray::enter()),
        }
    }

    /// The table whose methods are TCP's.
    fn proto(&self) -> *const bindings::proto {
        match self {
            Self::Ours(adopted) => adopted.original(),
            Self::Other(proto, _) => *proto,
        }
    }
}

/// TCP's own table. What [`replace`] replaces is the same in that of IPv6.
fn tcp() -> *const bindings::proto {
    &raw const bindings::tcp_prot
}

/// Returns the table that is meant when a method of ours is called for a socket that has `proto`, which is not ours: TCP's where that is
/// a copy of one of ours, as kTLS would make, whose methods call us.
///
/// # Safety
///
/// `proto` must point at a valid table.
pub(crate) unsafe fn meant<C: Connection>(proto: *const bindings::proto) -> *const bindings::proto {
    // SAFETY: valid by the caller's promise.
    match unsafe { has_our_methods::<C>(proto) } {
        true => tcp(),
        false => proto,
    }
}

/// Calls a method of a table; where it has none, gives the default value (nothing done, zero, false).
macro_rules! call {
    ($proto:expr, $method:ident ( $($argument:expr),* )) => {
        match (*$proto).$method {
            Some(method) => method($($argument),*),
            None => Default::default(),
        }
    };
}

/// Calls `sendmsg` of a table.
///
/// # Safety
///
/// `proto` must be a valid table for the live socket `sk`, `msg` a valid message for sending.
pub(crate) unsafe fn call_sendmsg(
    proto: *const bindings::proto,
    sk: *mut bindings::sock,
    msg: *mut bindings::msghdr,
    len: usize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call!(proto, sendmsg(sk, msg, len)) }
}

/// Calls `recvmsg` of a table.
///
/// # Safety
///
/// `proto` must be a valid table for the live socket `sk`, `msg` a valid message for receiving.
pub(crate) unsafe fn call_recvmsg(
    proto: *const bindings::proto,
    sk: *mut bindings::sock,
    msg: *mut bindings::msghdr,
    len: usize,
    flags: Flags,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { call!(proto, recvmsg(sk, msg, len, flags.as_raw())) }
}

fn to_int(result: Result<usize>) -> c_int {
    match result {
        Ok(bytes) => c_int::try_from(bytes).unwrap_or(c_int::MAX),
        Err(error) => error.to_errno(),
    }
}

/// A method of an adopted socket.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto`.
unsafe extern "C" fn sendmsg<C: Connection>(
    sk: *mut bindings::sock,
    msg: *mut bindings::msghdr,
    len: usize,
) -> c_int {
    // SAFETY: called by the socket layer as a method of the live socket `sk`.
    match unsafe { Call::<C>::enter(sk) } {
        // SAFETY: `msg` is a message for sending, ours for the call.
        Call::Ours(adopted) => to_int(C::sendmsg(&adopted, &mut unsafe { Message::from_raw(msg) })),
        // SAFETY: the table that the socket has now, with the caller's own arguments.
        Call::Other(proto, _stray) => unsafe { call_sendmsg(proto, sk, msg, len) },
    }
}

/// A method of an adopted socket.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto`.
unsafe extern "C" fn recvmsg<C: Connection>(
    sk: *mut bindings::sock,
    msg: *mut bindings::msghdr,
    len: usize,
    flags: c_int,
) -> c_int {
    let flags = Flags::from_raw(flags);
    // SAFETY: as in `sendmsg`.
    match unsafe { Call::<C>::enter(sk) } {
        Call::Ours(adopted) => {
            // SAFETY: `msg` is a message for receiving, ours for the call.
            let mut message = unsafe { Message::from_raw(msg) };
            to_int(C::recvmsg(&adopted, &mut message, flags))
        }
        // SAFETY: as in `sendmsg`.
        Call::Other(proto, _stray) => unsafe { call_recvmsg(proto, sk, msg, len, flags) },
    }
}

/// A method of an adopted socket.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto`.
unsafe extern "C" fn close<C: Connection>(sk: *mut bindings::sock, timeout: c_long) {
    // SAFETY: as in `sendmsg`.
    let entered = unsafe { Call::<C>::enter(sk) };
    let proto = match &entered {
        Call::Ours(adopted) => {
            C::closing(adopted);
            adopted.original()
        }
        // It has entered a sockmap a moment ago, which calls TCP's when its own work has ended.
        // SAFETY: alive; a plain read.
        Call::Other(proto, _) if unsafe { bindings::sk_has_psock(sk) } => *proto,
        // Ours was given back a moment ago, or its owner has saved our method as the one that the socket had before (OpenVPN).
        Call::Other(..) => tcp(),
    };
    // SAFETY: a table of the socket, or TCP's, with the caller's own arguments.
    unsafe { call!(proto, close(sk, timeout)) }
}

/// A method of an adopted socket.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto`.
unsafe extern "C" fn shutdown<C: Connection>(sk: *mut bindings::sock, how: c_int) {
    // SAFETY: called with the socket lock held.
    if let Ok(adopted) = unsafe { Adopted::<C>::of(sk) } {
        // SAFETY: `inet_shutdown` holds the socket lock.
        let mut guard = unsafe { adopted.assume_locked() };
        C::shutting_down(&mut guard, Shutdown::from_raw(how as u8));
    }
    // A table that is not ours has saved our method, or copied it.
    // SAFETY: as in `close`.
    unsafe { call!(tcp(), shutdown(sk, how)) }
}

/// A method of an adopted socket.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto`.
unsafe extern "C" fn disconnect<C: Connection>(sk: *mut bindings::sock, flags: c_int) -> c_int {
    // SAFETY: called with the socket lock held.
    let entered = unsafe { Call::<C>::enter(sk) };
    if let Call::Ours(adopted) = &entered {
        // The table goes first: a disconnected socket may listen, and its children would inherit ours.
        // SAFETY: the caller holds the socket lock.
        unsafe { adopted.assume_locked() }.restore();
    }
    // SAFETY: a table of the socket, with the caller's own arguments.
    unsafe { call!(entered.proto(), disconnect(sk, flags)) }
}

/// A method of an adopted socket.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto`.
unsafe extern "C" fn destroy<C: Connection>(sk: *mut bindings::sock) {
    // From `restore` on only a grace period keeps the object, and we may be preempted.
    let rcu = kernel::sync::rcu::read_lock();
    // SAFETY: the socket is dead and nobody else uses it; in an RCU read-side section.
    if let Ok(adopted) = unsafe { Adopted::<C>::of(sk) } {
        // SAFETY: a dead socket has no descriptor, so no task is in its methods; its destroyer excludes softirqs.
        unsafe { adopted.assume_locked() }.restore();
    }
    drop(rcu);
    // As in `close`; sockmap saves our method, too.
    // SAFETY: as in `close`.
    unsafe { call!(tcp(), destroy(sk)) }
}

/// A method of an adopted socket.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto`.
unsafe extern "C" fn release_cb<C: Connection>(sk: *mut bindings::sock) {
    // SAFETY: called with the socket lock held, both spinlock and ownership.
    if let Ok(adopted) = unsafe { Adopted::<C>::of(sk) } {
        // SAFETY: see above.
        C::releasing(&mut unsafe { adopted.assume_locked() });
    }
    // The table is looked up with the lock held: one that is not ours has saved our method, or copied it.
    // SAFETY: as in `close`.
    unsafe { call!(tcp(), release_cb(sk)) }
}

/// A method of an adopted socket.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto`.
unsafe extern "C" fn ioctl<C: Connection>(
    sk: *mut bindings::sock,
    command: c_int,
    argument: *mut c_int,
) -> c_int {
    // SAFETY: as in `sendmsg`.
    let entered = unsafe { Call::<C>::enter(sk) };
    let in_ring = match (&entered, command) {
        (Call::Ours(adopted), SIOCINQ | SIOCATMARK) => C::unread(adopted),
        (Call::Ours(adopted), SIOCOUTQ | SIOCOUTQNSD) => C::unsent(adopted),
        _ => 0,
    };
    // SAFETY: as in `close`.
    let result = unsafe { call!(entered.proto(), ioctl(sk, command, argument)) };
    if result == 0 && in_ring > 0 {
        let in_ring = c_int::try_from(in_ring).unwrap_or(c_int::MAX);
        // SAFETY: the caller's buffer for the answer, which TCP has just written.
        let answer = unsafe { &mut *argument };
        *answer = match command {
            // What is in the ring comes before any urgent byte: with that, the sender has left the ring.
            SIOCATMARK => 0,
            _ => answer.saturating_add(in_ring),
        };
    }
    result
}

/// Enters a method for an option. One that wants the socket as TCP made it holds it, so that it is not taken over before TCP has looked at
/// the option.
///
/// # Safety
///
/// As [`Adopted::of`], in process context with no lock held.
unsafe fn enter_for_option<C: Connection>(
    sk: *mut bindings::sock,
    wants_tcp: bool,
) -> (Call<C>, Option<Hold>) {
    let hold = wants_tcp.then(|| Hold::new(sk));
    // SAFETY: the caller's promise.
    let mut entered = unsafe { Call::<C>::enter(sk) };
    if wants_tcp && matches!(entered, Call::Other(..)) {
        // Somebody may be taking it over who has not seen that it is held: he has the lock until he has done so.
        // SAFETY: the socket is alive, and this is process context.
        drop(unsafe { Socket::from_raw(sk) }.lock());
        // SAFETY: the caller has a descriptor.
        entered = unsafe { Call::<C>::enter(sk) };
    }
    (entered, hold)
}

/// A method of an adopted socket.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto`.
unsafe extern "C" fn setsockopt<C: Connection>(
    sk: *mut bindings::sock,
    level: c_int,
    name: c_int,
    value: bindings::sockptr_t,
    len: c_uint,
) -> c_int {
    // SAFETY: called by the socket layer as a method of the live socket `sk`.
    let (entered, _hold) = unsafe { enter_for_option::<C>(sk, C::wants_tcp(level, name)) };
    if let Call::Ours(adopted) = &entered {
        C::option(adopted, level, name);
    }
    // SAFETY: a table of the socket, with the caller's own arguments.
    unsafe { call!(entered.proto(), setsockopt(sk, level, name, value, len)) }
}

/// A method of an adopted socket.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto`.
unsafe extern "C" fn getsockopt<C: Connection>(
    sk: *mut bindings::sock,
    level: c_int,
    name: c_int,
    value: *mut kernel::ffi::c_char,
    len: *mut c_int,
) -> c_int {
    let wants_tcp =
        level == bindings::SOL_TCP as i32 && name == bindings::TCP_ZEROCOPY_RECEIVE as i32;
    // SAFETY: as in `setsockopt`.
    let (entered, _hold) = unsafe { enter_for_option::<C>(sk, wants_tcp) };
    if let Call::Ours(adopted) = &entered {
        if wants_tcp {
            C::option(adopted, level, name);
        }
    }
    // SAFETY: as in `close`.
    unsafe { call!(entered.proto(), getsockopt(sk, level, name, value, len)) }
}

/// A method of an adopted socket.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto`.
unsafe extern "C" fn psock_update_sk_prot<C: Connection>(
    sk: *mut bindings::sock,
    psock: *mut bindings::sk_psock,
    restore: bool,
) -> c_int {
    // SAFETY: called as a method of a live socket.
    let proto = match unsafe { Adopted::<C>::of(sk) } {
        // Taken out of a sockmap, which it can only have entered with TCP's own table.
        Ok(adopted) if restore => adopted.original(),
        Ok(adopted) => {
            // SAFETY: a socket enters a sockmap with its lock held.
            let mut guard = unsafe { adopted.assume_locked() };
            if !C::may_enter_sockmap(&mut guard) {
                return EBUSY.to_errno();
            }
            guard.restore();
            adopted.wake_all();
            // SAFETY: `psock` is the new one of this locked socket; it took our table for the socket's own.
            unsafe { bindings::psock_set_proto(psock, adopted.original().cast_mut()) };
            adopted.original()
        }
        Err(proto) => proto,
    };
    // SAFETY: as in `close`.
    unsafe { call!(proto, psock_update_sk_prot(sk, psock, restore)) }
}

/// A method of an adopted socket.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto`.
unsafe extern "C" fn sock_is_readable<C: Connection>(sk: *mut bindings::sock) -> bool {
    // SAFETY: called as a method of a live socket; this section does not sleep.
    match unsafe { Adopted::<C>::of(sk) } {
        Ok(adopted) => C::is_readable(&adopted),
        // SAFETY: as in `close`.
        Err(proto) => unsafe { call!(proto, sock_is_readable(sk)) },
    }
}

/// A method of an adopted socket.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto`.
unsafe extern "C" fn stream_memory_free<C: Connection>(
    sk: *const bindings::sock,
    wake: c_int,
) -> bool {
    // SAFETY: as in `sock_is_readable`.
    let proto = match unsafe { Adopted::<C>::of(sk.cast_mut()) } {
        Ok(adopted) => match C::has_space(&adopted) {
            Some(free) => return free,
            None => adopted.original(),
        },
        Err(proto) => proto,
    };
    // SAFETY: as in `setsockopt`.
    unsafe {
        match (*proto).stream_memory_free {
            Some(method) => method(sk, wake),
            None => true,
        }
    }
}

/// Drops the reference of a socket that was given back, after the grace period.
///
/// # Safety
///
/// Only the socket layer calls it, as the method of that name in `struct proto`.
pub(crate) unsafe extern "C" fn drop_socket_reference<C: Connection>(
    head: *mut bindings::callback_head,
) {
    // SAFETY: `head` is what `Guard::restore` queued, once.
    drop(unsafe { Adopted::<C>::from_grace(head) });
}
