// SPDX-License-Identifier: GPL-2.0

//! Functions that the kernel calls at a tracepoint.
//!
//! C header: `include/linux/tracepoint.h`.

use core::ffi::c_void;
use kernel::prelude::*;
use kernel::sync::Arc;
use net_sys as bindings;

/// A registered function and its handler. Dropping it returns when no call is in progress any more.
pub(crate) struct Registration<H> {
    tracepoint: *mut bindings::tracepoint,
    probe: *mut c_void,
    handler: *const H,
}

// SAFETY: a tracepoint of the kernel, which lives for ever, a function, and a handler that is Send and Sync.
unsafe impl<H: Send + Sync> Send for Registration<H> {}
// SAFETY: see above.
unsafe impl<H: Send + Sync> Sync for Registration<H> {}

/// A tracepoint that is looked for.
struct Search {
    name: &'static [u8],
    found: *mut bindings::tracepoint,
}

/// Notes the tracepoint if it is the one that is looked for.
///
/// # Safety
///
/// Only the tracepoint code calls it, with what was passed to it.
unsafe extern "C" fn find(tracepoint: *mut bindings::tracepoint, search: *mut c_void) {
    // SAFETY: `search` is what `Registration::new` passed, which nobody else uses meanwhile.
    let search = unsafe { &mut *search.cast::<Search>() };
    // SAFETY: the kernel iterates over valid tracepoints; their names are C strings that live for ever.
    let name = unsafe { CStr::from_char_ptr((*tracepoint).name) };
    if name.to_bytes() == search.name {
        search.found = tracepoint;
    }
}

impl<H: Send + Sync + 'static> Registration<H> {
    /// Lets `probe` be called at the tracepoint `name`, with a pointer to `handler` first. Process context.
    ///
    /// # Safety
    ///
    /// `probe` must be a function of C with the arguments of the tracepoint, the pointer first.
    ///
    /// # Errors
    ///
    /// `ENOENT` if this kernel has no such tracepoint; what `tracepoint_probe_register` returns.
    pub(crate) unsafe fn new(
        name: &'static [u8],
        probe: *mut c_void,
        handler: Arc<H>,
    ) -> Result<Self> {
        let mut search = Search {
            name,
            found: core::ptr::null_mut(),
        };
        // SAFETY: `find` fits, and uses `search` during the call only.
        unsafe { bindings::for_each_kernel_tracepoint(Some(find), (&raw mut search).cast()) };
        let tracepoint = search.found;
        if tracepoint.is_null() {
            return Err(ENOENT);
        }
        let handler = Arc::into_raw(handler);
        // SAFETY: `probe` fits, as the caller promises; `handler` lives until it is unregistered and no call is in progress.
        let registered = kernel::error::to_result(unsafe {
            bindings::tracepoint_probe_register(tracepoint, probe, handler.cast_mut().cast())
        });
        if let Err(error) = registered {
            // SAFETY: leaked above, and not registered.
            drop(unsafe { Arc::from_raw(handler) });
            return Err(error);
        }
        Ok(Self {
            tracepoint,
            probe,
            handler,
        })
    }
}

impl<H> Drop for Registration<H> {
    fn drop(&mut self) {
        // SAFETY: registered with the same arguments. When the synchronisation returns nobody is in the probe, so that
        // the handler's reference can go.
        unsafe {
            bindings::tracepoint_probe_unregister(
                self.tracepoint,
                self.probe,
                self.handler.cast_mut().cast(),
            );
            bindings::tracepoint_synchronize_unregister();
            drop(Arc::from_raw(self.handler));
        }
    }
}
