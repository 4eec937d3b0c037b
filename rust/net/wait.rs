// SPDX-License-Identifier: GPL-2.0

//! Blocking on a socket, as TCP's own methods do: on the socket's wait queue, interruptible.
//!
//! C header: `include/linux/wait.h`.

use crate::adopted::{
    Adopted,
    Connection, //
};
use crate::socket::Socket;
use kernel::container_of;
use kernel::ffi::c_long;
use kernel::prelude::*;
use kernel::task::Task;
use net_sys as bindings;

/// What wakes our own sleepers: as `woken_wake_function`, which those of TCP's methods have, but another address.
///
/// # Safety
///
/// Only the wait queue's code calls it, for an entry of [`Adopted::wait`].
unsafe extern "C" fn wake(
    entry: *mut bindings::wait_queue_entry,
    mode: kernel::ffi::c_uint,
    sync: kernel::ffi::c_int,
    key: *mut core::ffi::c_void,
) -> kernel::ffi::c_int {
    // SAFETY: the caller's own arguments, for an entry that sleeps in `wait_woken`.
    unsafe { bindings::woken_wake_function(entry, mode, sync, key) }
}

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// The condition holds.
    Ready,
    /// The timeout ran out.
    TimedOut,
    /// A signal is pending. The call returns [`interrupted`] unless it has something to return.
    Signal,
}

/// Returns the error of a call that a signal interrupted: restarted transparently where it would wait for ever, EINTR
/// where it has a timeout (`sock_intr_errno`).
pub fn interrupted(timeout: c_long) -> Error {
    // SAFETY: no requirements.
    Error::from_errno(unsafe { bindings::sock_intr_errno(timeout) })
}

/// Whether a signal is pending for the current task. Process context.
pub fn is_interrupted() -> bool {
    kernel::current!().signal_pending()
}

/// Lets the current system call start again from the beginning, unseen by the program: the error to return.
///
/// Only for a call that has not transferred anything. Tasks that cannot restart (kernel threads, io_uring workers) get
/// EAGAIN.
pub fn restart() -> Error {
    // SAFETY: concerns the current task only.
    unsafe {
        if !bindings::current_is_user() {
            return EAGAIN;
        }
        bindings::restart_current_syscall();
    }
    Error::from_errno(-(bindings::ERESTARTNOINTR as i32))
}

/// Tells the processor that this is a loop that waits for memory to change. Any context.
#[inline]
pub fn relax() {
    // SAFETY: no requirements.
    unsafe { bindings::cpu_relax() }
}

/// Whether the current task should stop looking and let others run, or has a signal to see to. Process context.
#[inline]
pub fn is_wanted_elsewhere() -> bool {
    // SAFETY: concerns the current task only.
    unsafe { bindings::current_is_wanted() }
}

impl<C: Connection> Adopted<C> {
    /// Sleeps until `ready` says true, `timeout` (jiffies, updated) runs out, or a signal is pending.
    ///
    /// Process context, no lock held that a waker needs. Wakers change the state that `ready` looks at /before/ they wake,
    /// and we are on the queue /before/ `ready` looks: nothing is missed.
    pub fn wait(&self, timeout: &mut c_long, mut ready: impl FnMut() -> bool) -> Woken {
        let sk = self.socket().as_ptr();
        let mut entry = bindings::wait_queue_entry {
            private: Task::current_raw().cast(),
            func: Some(wake),
            ..Default::default()
        };
        // SAFETY: the entry lives on this stack until it is removed below; the socket's queue is there for as long as a
        // system call on it runs.
        let queue = unsafe {
            let queue = bindings::sk_sleep(sk);
            bindings::add_wait_queue(queue, &mut entry);
            queue
        };
        let woken = loop {
            if ready() {
                break Woken::Ready;
            }
            if *timeout == 0 {
                break Woken::TimedOut;
            }
            if kernel::current!().signal_pending() {
                break Woken::Signal;
            }
            *timeout =
                // SAFETY: process context, an entry of `woken_wake_function` on a queue.
                unsafe { bindings::wait_woken(&mut entry, bindings::TASK_INTERRUPTIBLE, *timeout) };
        };
        // SAFETY: added above, to the same queue.
        unsafe { bindings::remove_wait_queue(queue, &mut entry) };
        woken
    }

    /// Wakes everybody who sleeps on the socket, in our methods or in TCP's. Process or softirq context.
    pub fn wake_all(&self) {
        let _rcu = kernel::sync::rcu::read_lock();
        // SAFETY: alive; the queue is protected by RCU, and there is none once the last descriptor is closed.
        unsafe {
            let queue = bindings::sk_wq(self.socket().as_ptr());
            if !queue.is_null() {
                bindings::wake_socket_wq(queue);
            }
        }
    }
}

impl Socket {
    /// Returns how many tasks sleep in methods of TCP (`woken_wake_function`). Any context.
    pub(crate) fn count_woken_waiters(&self) -> i32 {
        let _rcu = kernel::sync::rcu::read_lock();
        // SAFETY: alive; RCU protects the queue, and there is none without a descriptor.
        let queue = unsafe { bindings::sk_wq(self.as_ptr()) };
        if queue.is_null() {
            return 0;
        }
        let mut found = 0;
        let woken: bindings::wait_queue_func_t = Some(bindings::woken_wake_function);
        // SAFETY: see above. The queue's entries stay while its lock is held.
        unsafe {
            let queue = core::ptr::addr_of_mut!((*queue).wait);
            let flags = bindings::wait_queue_lock(queue);
            let head = core::ptr::addr_of_mut!((*queue).head);
            let mut next = (*head).next;
            while next != head {
                let entry = container_of!(next, bindings::wait_queue_entry, entry);
                if (*entry).func.map(|f| f as usize) == woken.map(|f| f as usize) {
                    found += 1;
                }
                next = (*next).next;
            }
            bindings::wait_queue_unlock(queue, flags);
        }
        found
    }
}
