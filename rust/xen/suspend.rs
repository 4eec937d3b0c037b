// SPDX-License-Identifier: GPL-2.0

//! Being told before the guest is suspended (saved, migrated, checkpointed), and when it goes on.
//!
//! C headers: [`include/linux/platform_device.h`](srctree/include/linux/platform_device.h),
//! [`include/linux/pm.h`](srctree/include/linux/pm.h)
//!
//! Xen's driver freezes user space, and then calls the driver model, in which a platform device of
//! our own has a place. The kernel crate's platform drivers have no callbacks for that.

use kernel::{
    container_of,
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::c_int,
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// What happens around a suspend.
///
/// All methods are called in the one thread that serves all watches of xenstore, one after the
/// other, while no user task runs. Xenstore can be read and written; no watch is served meanwhile.
pub trait Handler: Send + Sync + 'static {
    /// The guest is to be suspended. When this returns, nothing of ours may depend on the domain:
    /// grants, mappings, event channels, its number. The toolstack waits a minute at most for the
    /// whole guest.
    ///
    /// # Errors
    ///
    /// Then the guest is not suspended, and [`Self::resume`] will not be called: whatever was done is
    /// undone already.
    fn freeze(&self) -> Result;

    /// The guest goes on: in another domain, maybe on another host, or in the same one, if it was
    /// only copied or the suspend was given up.
    fn resume(&self);
}

/// A [`Handler`] that is told.
///
/// Dropping it, in process context, waits for a call that is going on.
///
/// # Invariants
///
/// `driver` is registered, with `operations`, whose functions are those below; `device` is
/// registered, and has this driver.
#[pin_data(PinnedDrop)]
pub struct Suspend<H: Handler> {
    #[pin]
    operations: Opaque<xen_sys::dev_pm_ops>,
    #[pin]
    driver: Opaque<xen_sys::platform_driver>,
    device: *mut xen_sys::platform_device,
    handler: Arc<H>,
}

// SAFETY: Drivers and devices belong to no thread, and `H` is `Send` and `Sync`.
unsafe impl<H: Handler> Send for Suspend<H> {}
// SAFETY: As for `Send`.
unsafe impl<H: Handler> Sync for Suspend<H> {}

impl<H: Handler> Suspend<H> {
    /// Name of the driver and of its one device.
    const NAME: &'static CStr = c"xenvmc";

    /// Has `handler` told. There can be one in the system. Process context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EBUSY` or `EEXIST` if there is one already; `ENXIO` if the driver did not get the device (the administrator can
    /// forbid it to all drivers).
    pub fn new(handler: Arc<H>) -> Result<Pin<KBox<Self>>> {
        KBox::try_pin_init(
            try_pin_init!(Self {
                handler,
                operations <- Opaque::ffi_init(|slot: *mut xen_sys::dev_pm_ops| {
                    // SAFETY: `slot` is valid for writes, and all of its fields may be zero.
                    unsafe {
                        slot.write_bytes(0, 1);
                        (*slot).freeze = Some(Self::freeze);
                        (*slot).thaw = Some(Self::thaw);
                        (*slot).restore = Some(Self::thaw);
                    }
                }),
                driver <- Opaque::try_ffi_init(|slot: *mut xen_sys::platform_driver| {
                    // SAFETY: `slot` is valid for writes, and all of its fields may be zero.
                    unsafe {
                        slot.write_bytes(0, 1);
                        (*slot).driver.name = Self::NAME.as_char_ptr();
                        (*slot).driver.pm = operations.get();
                        // Without its driver the device would be told nothing.
                        (*slot).driver.suppress_bind_attrs = true;
                        // It has its device when that is registered, whatever the command line says.
                        (*slot).driver.probe_type = xen_sys::probe_type_PROBE_FORCE_SYNCHRONOUS;
                    }
                    // SAFETY: The driver is initialised, pinned, and unregistered before it is
                    // freed; so are the operations, initialised before.
                    to_result(unsafe { xen_sys::platform_driver_register(slot) })
                }),
                device: Self::register_device(driver)?,
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Registers the device of `driver`, which is registered; if that fails, unregisters the driver.
    fn register_device(
        driver: Pin<&mut Opaque<xen_sys::platform_driver>>,
    ) -> Result<*mut xen_sys::platform_device> {
        // SAFETY: The function copies the name. The functions of the driver may be called from here
        // on; they use `handler`, which was initialised before.
        let device = from_err_ptr(unsafe {
            xen_sys::platform_device_register_simple(Self::NAME.as_char_ptr())
        });
        let device = device.and_then(|device| {
            // SAFETY: The device is registered. Its driver is only looked at.
            if unsafe { (*device).dev.driver.is_null() } {
                pr_err!("drivers get no platform devices: nobody would say when the guest is suspended\n");
                // SAFETY: Registered above, and nobody else unregisters it.
                unsafe { xen_sys::platform_device_unregister(device) };
                return Err(ENXIO);
            }
            Ok(device)
        });
        device.inspect_err(|_| {
            // SAFETY: The driver is registered, and nobody else unregisters it: an object that
            // fails to be made is not dropped.
            unsafe { xen_sys::platform_driver_unregister(driver.get()) }
        })
    }

    /// Returns the handler of a device.
    ///
    /// # Safety
    ///
    /// `device` is bound to the driver of a `Self`, which is alive as long as the returned
    /// reference.
    unsafe fn handler<'a>(device: *mut xen_sys::device) -> &'a H {
        // SAFETY: By the caller's promise the driver is the `driver` of a `platform_driver` that is
        // the `driver` of a `Self`. Its field is read only, after registration.
        let this = unsafe {
            let driver = container_of!((*device).driver, xen_sys::platform_driver, driver);
            &*container_of!(Opaque::cast_from(driver), Self, driver)
        };
        &this.handler
    }

    /// Entry before a suspend.
    ///
    /// # Safety
    ///
    /// Only the driver model calls it, for a device of the driver.
    unsafe extern "C" fn freeze(device: *mut xen_sys::device) -> c_int {
        // SAFETY: The device is bound, and stays so until this returns: unregistering it waits.
        match unsafe { Self::handler(device) }.freeze() {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    /// Entry after one.
    ///
    /// # Safety
    ///
    /// Only the driver model calls it, for a device of the driver.
    unsafe extern "C" fn thaw(device: *mut xen_sys::device) -> c_int {
        // SAFETY: The device is bound, and stays so until this returns: unregistering it waits.
        unsafe { Self::handler(device) }.resume();
        0
    }
}

#[pinned_drop]
impl<H: Handler> PinnedDrop for Suspend<H> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant both are registered, and nobody else unregisters them.
        // Unregistering the device waits for a callback that is going on.
        unsafe {
            xen_sys::platform_device_unregister(self.device);
            xen_sys::platform_driver_unregister(self.driver.get());
        }
    }
}
