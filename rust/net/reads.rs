// SPDX-License-Identifier: GPL-2.0

//! Being told when a program has read all datagrams that a socket had: the tracepoint `sock:sock_recv_length`, after each call
//! that receives.
//!
//! C header: `include/trace/events/sock.h`.

use crate::tracepoint::Registration;
use core::ffi::c_void;
use kernel::ffi::c_int;
use kernel::prelude::*;
use kernel::sync::Arc;
use net_sys as bindings;

/// What is told of it.
pub trait ReadHandler: Send + Sync + 'static {
    /// The task has read the last datagram that a UDP socket of the initial network namespace had, which is bound to `port`. In its call: process
    /// context, softirqs on, no sleeping.
    fn emptied(&self, port: u16);
}

/// A registered probe. Dropping it returns when no call is in progress any more.
pub struct ReadProbe<H: ReadHandler> {
    _registration: Registration<H>,
}

impl<H: ReadHandler> ReadProbe<H> {
    /// Registers `handler`. Process context.
    ///
    /// # Errors
    ///
    /// `ENOENT` if this kernel has no such tracepoint; what `tracepoint_probe_register` returns.
    pub fn register(handler: Arc<H>) -> Result<Self> {
        let probe = probe::<H> as *mut c_void;
        // SAFETY: the signature of `probe` is the tracepoint's, with the data pointer first.
        let registration = unsafe { Registration::new(b"sock_recv_length", probe, handler) };
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
unsafe extern "C" fn probe<H: ReadHandler>(
    data: *mut c_void,
    sk: *mut bindings::sock,
    result: c_int,
    flags: c_int,
) {
    if result < 0 || flags as u32 & bindings::MSG_PEEK != 0 {
        return;
    }
    // SAFETY: the tracepoint passes a live full socket, which its caller has a reference to; plain reads.
    let port = unsafe {
        if !bindings::sk_is_udp(sk)
            || !bindings::sk_has_nothing_to_read(sk)
            || !bindings::sk_in_init_net(sk)
            || !bindings::is_in_ordinary_task()
        {
            return;
        }
        bindings::sk_local_port(sk)
    };
    // SAFETY: `data` is the handler, which lives until no call is in progress.
    unsafe { &*data.cast::<H>() }.emptied(port);
}
