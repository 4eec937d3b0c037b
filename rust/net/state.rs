// SPDX-License-Identifier: GPL-2.0

//! Being told of each change of a TCP socket's state: the tracepoint `sock:inet_sock_set_state`.
//!
//! C header: `include/trace/events/sock.h`.

use crate::socket::{
    Locked,
    Socket, //
};
use crate::tracepoint::Registration;
use core::ffi::c_void;
use kernel::ffi::c_int;
use kernel::prelude::*;
use kernel::sync::Arc;
use net_sys as bindings;

/// The states that a probe tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcpState {
    /// `TCP_ESTABLISHED`.
    Established,
    /// `TCP_CLOSE`.
    Close,
    /// Any other.
    Other,
}

impl From<c_int> for TcpState {
    fn from(state: c_int) -> Self {
        match state as u32 {
            bindings::TCP_ESTABLISHED => Self::Established,
            bindings::TCP_CLOSE => Self::Close,
            _ => Self::Other,
        }
    }
}

/// What is told of state changes.
pub trait StateHandler: Send + Sync + 'static {
    /// A TCP socket of the initial network namespace is about to enter a state, [`TcpState::Established`] or
    /// [`TcpState::Close`]. `socket` is locked: by a softirq or by its owner, maybe a preemptible task. No sleeping.
    fn state_changing(&self, socket: &mut Locked<'_>, to: TcpState);
}

/// A registered probe. Dropping it returns when no call is in progress any more.
pub struct StateProbe<H: StateHandler> {
    _registration: Registration<H>,
}

impl<H: StateHandler> StateProbe<H> {
    /// Registers `handler`. Process context.
    ///
    /// # Errors
    ///
    /// `ENOENT` if this kernel has no such tracepoint; what `tracepoint_probe_register` returns.
    pub fn register(handler: Arc<H>) -> Result<Self> {
        let probe = probe::<H> as *mut c_void;
        // SAFETY: the signature of `probe` is the tracepoint's, with the data pointer first.
        let registration = unsafe { Registration::new(b"inet_sock_set_state", probe, handler) };
        Ok(Self {
            _registration: registration?,
        })
    }
}

/// A callback of the kernel's tracepoints.
///
/// # Safety
///
/// Only the tracepoint code calls it, with what was registered.
unsafe extern "C" fn probe<H: StateHandler>(
    data: *mut c_void,
    sk: *const bindings::sock,
    _old: c_int,
    new: c_int,
) {
    let to = TcpState::from(new);
    if to == TcpState::Other {
        return;
    }
    let sk = sk.cast_mut();
    // SAFETY: the tracepoint passes a live full socket; plain reads.
    if !unsafe { bindings::sk_is_tcp_protocol(sk) && bindings::sk_in_init_net(sk) } {
        return;
    }
    // SAFETY: as above, and TCP.
    let socket = unsafe { Socket::from_raw(sk) };
    // SAFETY: the state changes with the socket lock held, by the owner or by a softirq; our caller uses no guard.
    let mut locked = unsafe { Locked::assume(socket) };
    // SAFETY: `data` is the handler, which lives until no call is in progress.
    unsafe { &*data.cast::<H>() }.state_changing(&mut locked, to);
}
