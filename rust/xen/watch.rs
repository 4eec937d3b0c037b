// SPDX-License-Identifier: GPL-2.0

//! Being told of changes in xenstore, and of xenstore itself coming up.
//!
//! C header: [`include/xen/xenbus.h`](srctree/include/xen/xenbus.h)

use core::ptr::null_mut;
use kernel::{
    container_of,
    error::to_result,
    ffi::{
        c_char,
        c_int,
        c_ulong,
        c_void, //
    },
    prelude::*,
    str::{
        CStr,
        CString, //
    },
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    },
    types::Opaque, //
};

/// What happens when something below a watched path changes, and once when the watch begins.
pub trait Handler: Send + Sync + 'static {
    /// Called in the one thread that serves all watches of the kernel: it only hands over to a
    /// [`crate::work::Task`].
    ///
    /// `name` is the path, below the watched one, of what has changed. Without it, look at everything again: while one call is due,
    /// further events are dropped; and what is removed along with a directory has no event of its own.
    fn changed(&self, name: Option<&[u8]>);
}

/// A watch on a path.
///
/// Dropping it, in process context, waits for a callback that is running. While the guest is being
/// suspended that means waiting for the end of the suspend.
///
/// # Invariants
///
/// `watch` is registered, with the functions below, and points to `node`.
#[pin_data(PinnedDrop)]
pub struct Watch<H: Handler> {
    #[pin]
    watch: Opaque<xen_sys::xenbus_watch>,
    node: CString,
    /// Of [`IDLE`], [`DUE`], [`MERGED`].
    due: Atomic<u32>,
    handler: Arc<H>,
}

/// No call is due.
const IDLE: u32 = 0;

/// A call is due, for one event.
const DUE: u32 = 1;

/// A call is due, and further events were dropped.
const MERGED: u32 = 2;

// SAFETY: A watch belongs to no thread, and `H` is `Send` and `Sync`.
unsafe impl<H: Handler> Send for Watch<H> {}
// SAFETY: As for `Send`.
unsafe impl<H: Handler> Sync for Watch<H> {}

impl<H: Handler> Watch<H> {
    /// Watches `path` and what is below it. It need not exist. Relative paths survive a change of
    /// our domain's number. Process context.
    ///
    /// # Errors
    ///
    /// `E2BIG` if our quota of watches is used up, `EIO`, `ENOMEM`. That we may not read the path
    /// is no error; no event will come.
    pub fn new(path: &CStr, handler: Arc<H>) -> Result<Pin<KBox<Self>>> {
        let node = CString::try_from(path)?;
        KBox::try_pin_init(
            try_pin_init!(Self {
                node,
                due: Atomic::new(IDLE),
                handler,
                watch <- Opaque::try_ffi_init(|slot: *mut xen_sys::xenbus_watch| {
                    // SAFETY: `slot` is valid for writes.
                    unsafe {
                        slot.write(xen_sys::xenbus_watch {
                            list: Default::default(),
                            node: node.as_char_ptr(),
                            nr_pending: 0,
                            will_handle: Some(Self::will_handle),
                            callback: Some(Self::callback),
                        })
                    };
                    // The functions may be called from here on.
                    //
                    // INVARIANT: If this succeeds, the watch is registered.
                    //
                    // SAFETY: The watch is initialised, pinned, and unregistered before it is
                    // freed; so are the string, which does not move in the heap, and the handler,
                    // both initialised before.
                    to_result(unsafe { xen_sys::register_xenbus_watch(slot) })
                }),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Decides, under a spin lock, whether an event is queued: only one at a time, or whoever
    /// writes below the path could fill our memory with them. What is queued is given to the callback, unless the watch ends.
    extern "C" fn will_handle(
        watch: *mut xen_sys::xenbus_watch,
        _path: *const c_char,
        _token: *const c_char,
    ) -> bool {
        // SAFETY: `watch` is that of a `Self`, which is alive: it is in the list of watches, whose lock the caller holds.
        let this = unsafe { &*container_of!(Opaque::cast_from(watch), Self, watch) };
        // Nobody else leaves `IDLE`. The change was made /before/ this; partner: the exchange in `Self::callback`, /after/ which it
        // is looked for.
        if this.due.cmpxchg(IDLE, DUE, Full).is_ok() {
            return true;
        }
        if this.due.cmpxchg(DUE, MERGED, Full) == Err(IDLE) {
            // The call has begun in between.
            this.due.store(DUE, Relaxed);
            return true;
        }
        false
    }

    /// Entry from the thread of the watches.
    extern "C" fn callback(
        watch: *mut xen_sys::xenbus_watch,
        path: *const c_char,
        _token: *const c_char,
    ) {
        // SAFETY: `watch` is that of a `Self`, which is alive: its drop waits for this function.
        let this = unsafe { &*container_of!(Opaque::cast_from(watch), Self, watch) };
        let is_alone = this.due.xchg(IDLE, Full) == DUE;
        // SAFETY: The caller passes a string that lives until we return.
        let path = unsafe { CStr::from_char_ptr(path) };
        let name = path.to_bytes().strip_prefix(this.node.to_bytes());
        let name = name.and_then(|name| name.strip_prefix(b"/"));
        this.handler.changed(name.filter(|_| is_alone));
    }
}

#[pinned_drop]
impl<H: Handler> PinnedDrop for Watch<H> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the watch is registered. The function waits for a running
        // callback.
        unsafe { xen_sys::unregister_xenbus_watch(self.watch.get()) };
    }
}

/// What happens when xenstore is there.
pub trait ReadyHandler: Send + Sync + 'static {
    /// Called in process context, at once if xenstore is there already. It must not wait long.
    fn ready(&self);
}

/// Waits for xenstore, which in Dom0 starts long after the kernel. Before it is there every access
/// to it would hang.
#[pin_data(PinnedDrop)]
pub struct Ready<H: ReadyHandler> {
    #[pin]
    block: Opaque<xen_sys::notifier_block>,
    handler: Arc<H>,
}

// SAFETY: A notifier belongs to no thread, and `H` is `Send` and `Sync`.
unsafe impl<H: ReadyHandler> Send for Ready<H> {}
// SAFETY: As for `Send`.
unsafe impl<H: ReadyHandler> Sync for Ready<H> {}

impl<H: ReadyHandler> Ready<H> {
    /// Has `handler` called when xenstore is there. Process context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(handler: Arc<H>) -> Result<Pin<KBox<Self>>> {
        KBox::try_pin_init(
            try_pin_init!(Self {
                handler,
                block <- Opaque::try_ffi_init(|slot: *mut xen_sys::notifier_block| {
                    // SAFETY: `slot` is valid for writes.
                    unsafe {
                        slot.write(xen_sys::notifier_block {
                            notifier_call: Some(Self::call),
                            next: null_mut(),
                            priority: 0,
                        })
                    };
                    // SAFETY: The block is initialised, pinned, and unregistered before it is
                    // freed; the handler was initialised before.
                    to_result(unsafe { xen_sys::register_xenstore_notifier(slot) })
                }),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Entry from the kernel's notifier chain.
    ///
    /// # Safety
    ///
    /// Only xenbus calls it, with the block that was registered.
    unsafe extern "C" fn call(
        block: *mut xen_sys::notifier_block,
        _event: c_ulong,
        _data: *mut c_void,
    ) -> c_int {
        // SAFETY: `block` is that of a `Self`, which is alive: its drop waits for the chain.
        let this = unsafe { &*container_of!(Opaque::cast_from(block), Self, block) };
        this.handler.ready();
        0
    }
}

#[pinned_drop]
impl<H: ReadyHandler> PinnedDrop for Ready<H> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The block was given to the chain, or was called at once and is not in it; the
        // function copes with both. It waits for a call that is going on.
        unsafe { xen_sys::unregister_xenstore_notifier(self.block.get()) };
    }
}
