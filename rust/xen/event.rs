// SPDX-License-Identifier: GPL-2.0

//! Event channels between two guests.
//!
//! C headers: [`include/xen/events.h`](srctree/include/xen/events.h),
//! [`include/xen/interface/event_channel.h`](srctree/include/xen/interface/event_channel.h)

use crate::domain::DomId;
use kernel::{
    error::to_result,
    prelude::*,
    sync::Arc, //
};

/// What happens when the peer notifies.
pub trait Handler: Send + Sync + 'static {
    /// Called in hard interrupt context; further notifications are held back and merged until it
    /// returns.
    ///
    /// Returns whether the notification was for something. Say false only if that is sure: the
    /// kernel delays the next one for a peer that seems to notify for nothing. What a busy reader
    /// has taken already was for something.
    fn handle(&self) -> bool;
}

/// One end of an event channel, with its handler.
///
/// Dropping it, in process context and not in the handler, waits for a handler that is running and
/// closes the port. That the other end is gone cannot be seen here.
///
/// # Invariants
///
/// `irq` is bound to the port, with `Channel::entry` as its handler and `dev_id`, a raw `Arc<H>`,
/// as its argument.
pub struct Channel<H: Handler> {
    irq: u32,
    port: u32,
    dev_id: *const H,
}

// SAFETY: Interrupt numbers belong to no thread, and `H` is `Send` and `Sync`.
unsafe impl<H: Handler> Send for Channel<H> {}
// SAFETY: As for `Send`.
unsafe impl<H: Handler> Sync for Channel<H> {}

impl<H: Handler> Channel<H> {
    /// Allocates a port that `peer` can bind to. Process context.
    ///
    /// # Errors
    ///
    /// What Xen and the kernel say: `ENOSPC`, `ENOMEM`, `ESRCH` if there is no such domain.
    pub fn alloc_unbound(peer: DomId, handler: Arc<H>) -> Result<Self> {
        let mut op = xen_sys::evtchn_alloc_unbound {
            dom: xen_sys::DOMID_SELF as u16,
            remote_dom: peer.get(),
            port: 0,
        };
        // SAFETY: `op` is the argument that the command wants, and valid for writes.
        to_result(unsafe {
            xen_sys::HYPERVISOR_event_channel_op(
                xen_sys::EVTCHNOP_alloc_unbound as i32,
                (&raw mut op).cast(),
            )
        })?;
        Self::attach(op.port, handler)
    }

    /// Binds to the port that `peer` allocated for us. The handler runs once right away. Process
    /// context.
    ///
    /// # Errors
    ///
    /// What Xen and the kernel say: `EINVAL` if there is no such port for us, `ESRCH` if there is
    /// no such domain, `ENOMEM`.
    pub fn bind_interdomain(peer: DomId, port: u32, handler: Arc<H>) -> Result<Self> {
        let mut op = xen_sys::evtchn_bind_interdomain {
            remote_dom: peer.get(),
            remote_port: port,
            local_port: 0,
        };
        // SAFETY: `op` is the argument that the command wants, and valid for writes.
        to_result(unsafe {
            xen_sys::HYPERVISOR_event_channel_op(
                xen_sys::EVTCHNOP_bind_interdomain as i32,
                (&raw mut op).cast(),
            )
        })?;
        Self::attach(op.local_port, handler)
    }

    /// Gives `port`, which is ours and open, its handler; closes it if that fails.
    fn attach(port: u32, handler: Arc<H>) -> Result<Self> {
        let dev_id = Arc::into_raw(handler);
        // SAFETY: The port is ours. `entry` may be called with `dev_id` from now until
        // `unbind_from_irqhandler`, and all that time the reference that `dev_id` stands for is
        // kept.
        let irq = unsafe {
            xen_sys::bind_evtchn_to_irqhandler_lateeoi(
                port,
                Some(Self::entry),
                0,
                c"xenvmc".as_char_ptr(),
                dev_id.cast_mut().cast(),
            )
        };
        if let Ok(irq) = u32::try_from(irq) {
            // INVARIANT: Bound above.
            return Ok(Self { irq, port, dev_id });
        }
        // SAFETY: `dev_id` came from `into_raw` above, and nobody else has got it.
        drop(unsafe { Arc::from_raw(dev_id) });
        let mut close = xen_sys::evtchn_close { port };
        // SAFETY: `close` is the argument that the command wants.
        unsafe {
            xen_sys::HYPERVISOR_event_channel_op(
                xen_sys::EVTCHNOP_close as i32,
                (&raw mut close).cast(),
            )
        };
        Err(Error::from_errno(irq))
    }

    /// Returns our port, which the peer needs to bind to it.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Notifies the peer; does nothing if it is gone. Any context.
    #[inline]
    pub fn notify(&self) {
        // SAFETY: By the type invariant `irq` is bound to our port.
        unsafe { xen_sys::notify_remote_via_irq(self.irq as i32) };
    }

    /// Entry from the interrupt.
    extern "C" fn entry(irq: i32, dev_id: *mut kernel::ffi::c_void) -> xen_sys::irqreturn_t {
        // SAFETY: `dev_id` is the `Arc<H>` of `attach`, which is kept until the interrupt is
        // unbound.
        let handler = unsafe { &*dev_id.cast_const().cast::<H>() };
        let flags = if handler.handle() {
            0
        } else {
            xen_sys::XEN_EOI_FLAG_SPURIOUS
        };
        // SAFETY: `irq` is the interrupt being handled, bound for late end of interrupt, which is
        // signalled once: here.
        unsafe { xen_sys::xen_irq_lateeoi(irq as u32, flags) };
        // SAFETY: A constant, which C and Rust name differently from kernel to kernel.
        unsafe { xen_sys::irq_handled() }
    }
}

impl<H: Handler> Drop for Channel<H> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant `irq` was bound with `dev_id`. The function waits for a
        // running handler and closes the port.
        unsafe { xen_sys::unbind_from_irqhandler(self.irq, self.dev_id.cast_mut().cast()) };
        // SAFETY: `dev_id` came from `into_raw`, and the handler, which borrowed it, cannot run any
        // more.
        drop(unsafe { Arc::from_raw(self.dev_id) });
    }
}
