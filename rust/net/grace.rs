// SPDX-License-Identifier: GPL-2.0

//! RCU-tasks grace periods: every task has slept of its own will or left the kernel since.
//!
//! C header: `include/linux/rcupdate.h`.

use kernel::container_of;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::Opaque;
use net_sys as bindings;

/// Waits for a grace period. Process context; 20 to 400 ms.
pub fn synchronize() {
    // SAFETY: process context.
    unsafe { bindings::synchronize_rcu_tasks() }
}

/// Waits until whoever is delivering a packet now has done so. Process context; some milliseconds at most.
pub fn synchronize_packets() {
    // SAFETY: process context.
    unsafe { bindings::synchronize_rcu_expedited() }
}

/// Waits until all queued callbacks have run. Process context.
pub fn barrier() {
    // SAFETY: process context.
    unsafe {
        bindings::rcu_barrier_tasks();
        bindings::rcu_barrier();
    }
}

/// What is called after a grace period.
pub trait AfterGrace: Send + Sync + 'static {
    /// A grace period that began after [`after`] has ended. With softirqs off: short, no sleeping.
    fn grace_ended(self: Arc<Self>);
}

struct Call<T: AfterGrace> {
    head: Opaque<bindings::callback_head>,
    target: Arc<T>,
}

/// Calls `target` after a grace period. Any context in which `flags` may allocate. Grace periods are shared by all who
/// wait.
///
/// # Errors
///
/// `ENOMEM`; then nothing will be called.
pub fn after<T: AfterGrace>(target: Arc<T>, flags: kernel::alloc::Flags) -> Result {
    let call = KBox::new(
        Call {
            head: Opaque::uninit(),
            target,
        },
        flags,
    )?;
    let call = KBox::into_raw(call);
    // SAFETY: `head` lies in memory that the callback alone frees.
    unsafe { bindings::call_rcu_tasks((*call).head.get(), Some(run::<T>)) };
    Ok(())
}

/// Calls the target and frees the call.
///
/// # Safety
///
/// Only RCU calls it, once, with the head that [`after`] queued.
unsafe extern "C" fn run<T: AfterGrace>(head: *mut bindings::callback_head) {
    // SAFETY: `head` is the field of a `Call<T>` that `after` leaked for us.
    let call = unsafe {
        KBox::<Call<T>>::from_raw(container_of!(Opaque::cast_from(head), Call<T>, head).cast_mut())
    };
    call.target.clone().grace_ended();
}
