// SPDX-License-Identifier: GPL-2.0

//! One piece of work that can be asked for from anywhere, runs in process context, and is over when
//! it is stopped.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)
//!
//! The kernel crate's work items cannot be cancelled, which a module that goes away needs.

use kernel::{
    container_of,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full, //
        },
        Arc,
        LockClassKey, //
    },
    types::Opaque, //
};

/// What a [`Task`] does.
pub trait Run: Send + Sync + Sized + 'static {
    /// Does it. Process context, unless the queue is [`Queue::BottomHalf`]; never runs twice at once for the same task. `task` serves to ask
    /// for the next run.
    fn run(&self, task: &Task<Self>);
}

/// The system's work queue that a task runs on. None of them is frozen during suspend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Any processor; for work that takes long.
    Unbound,
    /// High priority, on the processor that asked; for work that others wait for, and that itself
    /// waits more than it runs, as for xenstore.
    HighPriority,
    /// In softirq context, soon: the handler must not sleep.
    BottomHalf,
}

impl Queue {
    fn as_raw(self) -> *mut xen_sys::workqueue_struct {
        match self {
            // SAFETY: The system's queues are made at boot and never change.
            Queue::Unbound => unsafe { xen_sys::system_dfl_wq },
            // SAFETY: The system's queues are made at boot and never change.
            Queue::HighPriority => unsafe { xen_sys::system_highpri_wq },
            // SAFETY: The system's queues are made at boot and never change.
            Queue::BottomHalf => unsafe { xen_sys::system_bh_wq },
        }
    }
}

/// Makes a [`Task`] of a queue with a handler. Each place that does has a lock class of its own: lockdep takes a run for a
/// lock, and those in softirq context must not be mistaken for others, nor one task for another that it waits for.
#[macro_export]
macro_rules! new_task {
    ($queue:expr, $handler:expr, $name:literal $(,)?) => {
        $crate::work::Task::new(
            $queue,
            $handler,
            kernel::c_str!($name),
            [kernel::static_lock_class!(), kernel::static_lock_class!()],
        )
    };
}

/// A handler and the work item that runs it.
///
/// Dropping the last reference stops the task; so that must not happen in the handler itself, which
/// would wait for its own end. Where the handler owns (through others) references to its task,
/// [`Task::stop`] comes first.
///
/// # Invariants
///
/// `work` is an initialised `struct delayed_work` whose function is `Task::call`, and it is
/// pinned.
#[pin_data(PinnedDrop)]
pub struct Task<H: Run> {
    #[pin]
    work: Opaque<xen_sys::delayed_work>,
    handler: Arc<H>,
    queue: Queue,
    /// A run is asked for as soon as possible, and has not begun.
    is_due: Atomic<bool>,
}

// SAFETY: Work items are usable from any thread, and the handler is `Send` and `Sync`.
unsafe impl<H: Run> Send for Task<H> {}
// SAFETY: As for `Send`.
unsafe impl<H: Run> Sync for Task<H> {}

impl<H: Run> Task<H> {
    /// Makes a task that is not asked for yet; [`new_task!`](crate::new_task) gives it its name and its classes for lockdep,
    /// that of the work and that of its timer.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(
        queue: Queue,
        handler: Arc<H>,
        name: &'static CStr,
        classes: [Pin<&'static LockClassKey>; 2],
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                work <- Opaque::ffi_init(|slot: *mut xen_sys::delayed_work| {
                    // SAFETY: `slot` is valid for writes; the function is called with this
                    // `work_struct` only.
                    unsafe {
                        xen_sys::init_work_with_key(
                            &raw mut (*slot).work,
                            Some(Self::call),
                            false,
                            name.as_char_ptr(),
                            classes[0].as_ptr(),
                        )
                    };
                    // SAFETY: `slot` is valid for writes; the timer is part of a delayed work and
                    // is left to its code.
                    unsafe {
                        xen_sys::timer_init_key(
                            &raw mut (*slot).timer,
                            Some(xen_sys::delayed_work_timer_fn),
                            xen_sys::TIMER_IRQSAFE,
                            name.as_char_ptr(),
                            classes[1].as_ptr(),
                        )
                    };
                }),
                handler,
                queue,
                is_due: Atomic::new(false),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the handler.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// Asks for a run as soon as possible. Several asked for before it begins are one. Any context.
    pub fn kick(&self) {
        self.is_due.xchg(true, Full);
        self.run_now();
    }

    fn run_now(&self) {
        // SAFETY: By the type invariant the work is initialised; the queue is one of the system's.
        unsafe {
            xen_sys::mod_delayed_work_on(
                xen_sys::wq_misc_consts_WORK_CPU_UNBOUND as i32,
                self.queue.as_raw(),
                self.work.get(),
                0,
            )
        };
    }

    /// Asks for a run `delay_ms` milliseconds from now, unless one is asked for already that comes
    /// before. Any context.
    pub fn kick_after(&self, delay_ms: u32) {
        let cpu = xen_sys::wq_misc_consts_WORK_CPU_UNBOUND as i32;
        // SAFETY: By the type invariant the work is initialised; the queue is one of the system's.
        unsafe {
            let (queue, work) = (self.queue.as_raw(), self.work.get());
            let delay = xen_sys::__msecs_to_jiffies(delay_ms);
            if !xen_sys::queue_delayed_work_on(cpu, queue, work, delay)
                && xen_sys::delayed_work_is_later(work, delay)
            {
                // If it runs just now, once more does no harm.
                xen_sys::mod_delayed_work_on(cpu, queue, work, delay);
                // Our own delay may have taken the place of a `kick` that came in between.
                if self.is_due.load(Acquire) {
                    self.run_now();
                }
            }
        }
    }

    /// Waits for a run that is going on, and prevents any other for ever. Process context, not in
    /// the handler.
    pub fn stop(&self) {
        // SAFETY: By the type invariant the work is initialised.
        unsafe { xen_sys::disable_delayed_work_sync(self.work.get()) };
    }

    /// Prevents any run until [`Task::go_on`]. What is asked for meanwhile is forgotten. A run that
    /// is going on ends by itself: [`Task::is_running`]. Any context.
    pub fn pause(&self) {
        // SAFETY: By the type invariant the work is initialised. Disabling is counted: one that is
        // stopped meanwhile stays so.
        unsafe { xen_sys::disable_delayed_work(self.work.get()) };
    }

    /// Whether a run is going on. It may have ended a moment later; none begins while the task is
    /// paused. Any context.
    pub fn is_running(&self) -> bool {
        // SAFETY: By the type invariant the work is initialised.
        let busy = unsafe { xen_sys::work_busy(&raw mut (*self.work.get()).work) };
        busy & xen_sys::wq_misc_consts_WORK_BUSY_RUNNING != 0
    }

    /// Ends a [`Task::pause`]. Any context.
    pub fn go_on(&self) {
        // SAFETY: By the type invariant the work is initialised; it was disabled by `pause`.
        unsafe { xen_sys::enable_delayed_work(self.work.get()) };
    }

    /// Entry from the work queue.
    extern "C" fn call(work: *mut xen_sys::work_struct) {
        // SAFETY: By the type invariant `work` is the `work` of the `delayed_work` of a task, and
        // the task is alive, since it waits for this function's end when it is dropped.
        let task = unsafe {
            let delayed = container_of!(work, xen_sys::delayed_work, work);
            &*container_of!(Opaque::cast_from(delayed), Self, work)
        };
        task.is_due.xchg(false, Full);
        task.handler.run(task);
    }
}

#[pinned_drop]
impl<H: Run> PinnedDrop for Task<H> {
    fn drop(self: Pin<&mut Self>) {
        self.stop();
    }
}
