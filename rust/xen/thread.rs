// SPDX-License-Identifier: GPL-2.0

//! A thread of the kernel that runs when nobody else wants the processor.
//!
//! C headers: [`include/linux/kthread.h`](srctree/include/linux/kthread.h),
//! [`include/linux/sched.h`](srctree/include/linux/sched.h)

use core::{
    ffi::c_void,
    ptr::NonNull, //
};
use kernel::{
    error::from_err_ptr,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full, //
        },
        Arc, //
    },
};

/// The lowest weight that a task of the ordinary class can have.
const NICE: i32 = 19;

/// What a [`Thread`] does.
pub trait Look: Send + Sync + 'static {
    /// Does it, once each time that it was asked for; returns soon when [`is_stopping`] says so. Process context.
    fn look(&self);
}

/// The thread. Dropping it waits for its end: process context, and not in the thread itself.
///
/// # Invariants
///
/// `task` is a thread that ends only when it is told to, and so is there until then. `shared` is alive as long.
pub struct Thread<H: Look> {
    task: NonNull<xen_sys::task_struct>,
    shared: Arc<Shared<H>>,
}

struct Shared<H> {
    handler: H,
    is_wanted: Atomic<bool>,
}

// SAFETY: A task can be woken from anywhere; the handler is `Send` and `Sync`.
unsafe impl<H: Look> Send for Thread<H> {}
// SAFETY: As for `Send`.
unsafe impl<H: Look> Sync for Thread<H> {}

impl<H: Look> Thread<H> {
    /// Makes a thread, named after `number`. Process context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(handler: H, number: u32) -> Result<Self> {
        let shared = Shared {
            handler,
            is_wanted: Atomic::new(false),
        };
        let shared = Arc::new(shared, GFP_KERNEL)?;
        let data = Arc::as_ptr(&shared).cast_mut().cast();
        // SAFETY: The function fits the data, which lives until the thread has ended.
        let task = unsafe { xen_sys::kthread_create(Some(Self::main), data, number) };
        let task = from_err_ptr(task)?;
        let task = NonNull::new(task).ok_or(ENOMEM)?;
        // SAFETY: A thread that was just made, and ends only when it is told to.
        unsafe {
            xen_sys::sched_set_normal(task.as_ptr(), NICE);
            xen_sys::wake_up_process(task.as_ptr());
        }
        // INVARIANT: `main` returns only after `kthread_stop`, which `drop` calls.
        Ok(Self { task, shared })
    }

    /// Asks for a run. Any context.
    pub fn wake(&self) {
        // What the caller has done /before/ the mark. Partner: `main`, which is not going to sleep when it finds it.
        if !self.shared.is_wanted.xchg(true, Full) {
            // SAFETY: The task is there, by the type invariant.
            unsafe { xen_sys::wake_up_process(self.task.as_ptr()) };
        }
    }

    /// What the thread does.
    ///
    /// # Safety
    ///
    /// Only the kernel calls it, for a thread that [`Self::new`] made.
    unsafe extern "C" fn main(data: *mut c_void) -> i32 {
        // SAFETY: What `new` passed; it lives until the thread has ended.
        let shared = unsafe { &*data.cast::<Shared<H>>() };
        while !is_stopping() {
            // SAFETY: Concerns the current task, which sleeps unless it was woken since.
            unsafe { xen_sys::set_current_interruptible() };
            // The state of the task /before/ the look at the marks: who sets one afterwards finds a task to be woken.
            let is_wanted = shared.is_wanted.xchg(false, Full);
            if !is_wanted && !is_stopping() {
                // SAFETY: Process context, no lock held.
                unsafe { xen_sys::schedule() };
            }
            // SAFETY: Concerns the current task.
            unsafe { xen_sys::set_current_running() };
            if is_wanted {
                shared.handler.look();
            }
        }
        0
    }
}

impl<H: Look> Drop for Thread<H> {
    fn drop(&mut self) {
        // SAFETY: The task is there, by the type invariant; afterwards nobody uses it.
        unsafe { xen_sys::kthread_stop(self.task.as_ptr()) };
    }
}

/// Whether the thread that calls it is to end.
pub fn is_stopping() -> bool {
    // SAFETY: Called by a thread of the kernel.
    unsafe { xen_sys::kthread_should_stop() }
}

/// Whether some other task wants the processor that the caller is on. Any context.
pub fn is_processor_wanted() -> bool {
    // SAFETY: No requirements.
    unsafe { xen_sys::is_processor_wanted() }
}

/// Lets others have the processor. Process context, no lock held.
pub fn give_way() {
    // SAFETY: Process context, and the caller's task goes on to run.
    unsafe { xen_sys::schedule() };
}

/// Tells the processor that this is a loop that waits for memory to change. Any context.
#[inline]
pub fn relax() {
    // SAFETY: No requirements.
    unsafe { xen_sys::relax_processor() };
}
