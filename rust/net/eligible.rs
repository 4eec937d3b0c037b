// SPDX-License-Identifier: GPL-2.0

//! Which sockets may be taken over, and which of those may leave TCP's path now.

use crate::socket::Locked;
use kernel::prelude::*;
use kernel::sync::SetOnce;
use net_sys as bindings;
use xenvmc_core::decline::Decline;

/// The callbacks of a socket that nobody has put his own into, as addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Callbacks {
    data_ready: usize,
    write_space: usize,
    state_change: usize,
}

static TCP_CALLBACKS: SetOnce<Callbacks> = SetOnce::new();

impl Callbacks {
    fn of(sk: *mut bindings::sock) -> Self {
        // SAFETY: `sk` is alive; pointers that are only compared, each read with READ_ONCE semantics.
        let (data_ready, write_space, state_change) = unsafe {
            (
                (&raw const (*sk).sk_data_ready).read_volatile(),
                (&raw const (*sk).sk_write_space).read_volatile(),
                (&raw const (*sk).sk_state_change).read_volatile(),
            )
        };
        Self {
            data_ready: data_ready.map_or(0, |f| f as usize),
            write_space: write_space.map_or(0, |f| f as usize),
            state_change: state_change.map_or(0, |f| f as usize),
        }
    }
}

/// Learns what the callbacks of an ordinary TCP socket are; they are not exported. Process context; call once, before any
/// other function here.
///
/// # Errors
///
/// What `sock_create_kern` returns.
pub fn learn_callbacks() -> Result {
    let mut socket: *mut bindings::socket = core::ptr::null_mut();
    // SAFETY: process context; the socket is released below.
    unsafe {
        kernel::error::to_result(bindings::sock_create_kern(
            (&raw mut bindings::init_net).cast(),
            bindings::AF_INET as i32,
            bindings::sock_type_SOCK_STREAM as i32,
            bindings::IPPROTO_TCP as i32,
            &mut socket,
        ))?;
        TCP_CALLBACKS.populate(Callbacks::of((*socket).sk.cast()));
        bindings::sock_release(socket);
    }
    Ok(())
}

/// Returns why a socket that is being established is left alone, or [`None`]. Socket locked; no sleeping.
pub fn why_not_adopt(locked: &Locked<'_>) -> Option<Decline> {
    let sk = locked.socket().as_ptr();
    // SAFETY: alive and locked.
    let proto: *const bindings::proto = unsafe { (*sk).__sk_common.skc_prot };
    let tcp = [
        &raw const bindings::tcp_prot,
        &raw const bindings::tcpv6_prot,
    ];
    if !tcp.contains(&proto) {
        return Some(Decline::Protocol);
    }
    if crate::options::is_held(sk) {
        return Some(Decline::Option);
    }
    // SAFETY: alive and locked, in the helpers below too.
    unsafe {
        if bindings::sk_is_kernel(sk) {
            Some(Decline::KernelSocket)
        } else if bindings::tcp_is_mptcp(sk) {
            Some(Decline::Mptcp)
        } else {
            why_not_switch(locked)
        }
    }
}

/// Returns why bytes of this socket must not leave TCP's path now, or [`None`]. Socket locked; no sleeping.
///
/// What is set by `setsockopt` at the level SOL_SOCKET never reaches a method of the socket, so this is asked at each
/// switch and, through [`needs_tcp`], at each call.
pub fn why_not_switch(locked: &Locked<'_>) -> Option<Decline> {
    let sk = locked.socket().as_ptr();
    // SAFETY: alive and locked, in each of these.
    unsafe {
        if bindings::tcp_has_ulp(sk) {
            return Some(Decline::Ulp);
        }
        if bindings::sk_has_psock(sk) {
            return Some(Decline::Sockmap);
        }
        if bindings::tcp_in_repair(sk) {
            return Some(Decline::Repair);
        }
        if bindings::tcp_is_signed(sk) {
            return Some(Decline::Signed);
        }
        if bindings::sk_has_ipsec_policy(sk) {
            return Some(Decline::Ipsec);
        }
        if bindings::sk_has_cgroup_bpf(sk) {
            return Some(Decline::CgroupBpf);
        }
    }
    if has_foreign_callbacks(locked.socket()) {
        return Some(Decline::Callbacks);
    }
    needs_tcp(locked.socket())
}

/// Whether somebody in the kernel has put callbacks of his own into the socket (iSCSI, KCM): he reads TCP's queue himself. Any
/// context.
pub fn has_foreign_callbacks(socket: &crate::socket::Socket) -> bool {
    let tcp = TCP_CALLBACKS.copy();
    tcp.is_some_and(|tcp| tcp != Callbacks::of(socket.as_ptr()))
}

/// Returns the callback for bytes to read, if it is TCP's own. Any context.
pub(crate) fn tcp_data_ready(
    socket: &crate::socket::Socket,
) -> Option<unsafe extern "C" fn(*mut bindings::sock)> {
    // SAFETY: alive; a pointer that is read with READ_ONCE semantics.
    let method = unsafe { (&raw const (*socket.as_ptr()).sk_data_ready).read_volatile() }?;
    let tcp = TCP_CALLBACKS.copy()?;
    (method as usize == tcp.data_ready).then_some(method)
}

/// Returns which option, settable at any time without a method being called, wants the packets of TCP. Any context.
pub fn needs_tcp(socket: &crate::socket::Socket) -> Option<Decline> {
    let sk = socket.as_ptr();
    // SAFETY: alive; plain reads.
    unsafe {
        if bindings::sk_is_paced(sk) {
            Some(Decline::Pacing)
        } else if bindings::sk_has_filter(sk) {
            Some(Decline::SocketFilter)
        } else if bindings::sk_has_timestamps(sk) {
            Some(Decline::Timestamps)
        } else {
            None
        }
    }
}

/// Largest SO_RCVLOWAT that a ring of usual size can hold, bytes.
const LOW_WATER_MAX: i32 = 128 << 10;

/// Returns which option, settable at any time without a method being called, wants bytes to be received from TCP alone. Any
/// context.
pub fn needs_tcp_to_receive(socket: &crate::socket::Socket) -> Option<Decline> {
    let sk = socket.as_ptr();
    // SAFETY: alive; plain reads.
    unsafe {
        if bindings::sk_has_filter(sk) {
            Some(Decline::SocketFilter)
        } else if bindings::sk_has_timestamps(sk) {
            Some(Decline::Timestamps)
        } else if has_peek_offset(socket)
            || bindings::sock_rcvlowat(sk, 0, i32::MAX) > LOW_WATER_MAX
        {
            Some(Decline::Option)
        } else {
            None
        }
    }
}

/// Whether SO_PEEK_OFF is set. Any context.
pub fn has_peek_offset(socket: &crate::socket::Socket) -> bool {
    // SAFETY: alive; a plain read.
    unsafe { bindings::sk_has_peek_offset(socket.as_ptr()) }
}

/// Whether the socket's route leaves through a netfront device. Socket locked.
pub fn is_co_resident_route(locked: &Locked<'_>) -> bool {
    let sk = locked.socket().as_ptr();
    // SAFETY: alive and locked, so that the route stays.
    unsafe {
        let device = bindings::sk_route_device(sk);
        !device.is_null() && bindings::net_device_is_netfront(device)
    }
}
