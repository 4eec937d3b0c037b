// SPDX-License-Identifier: GPL-2.0

//! The addresses of this guest's netfront devices, and changes of them.
//!
//! C headers: `include/linux/inetdevice.h`, `include/net/addrconf.h`, `include/linux/netdevice.h`.

use core::ffi::c_void;
use kernel::container_of;
use kernel::ffi::{
    c_int,
    c_ulong, //
};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::Opaque;
use net_sys as bindings;
use xenvmc_core::message::Address;

/// Calls `visit` for each address of each netfront device of the initial network namespace, IPv4 first for each device.
/// Loopback and multicast addresses do not occur; link-local ones do.
///
/// Process context; takes the RTNL lock.
pub fn for_each(mut visit: impl FnMut(Address)) {
    // SAFETY: under the RTNL lock devices and their addresses stay.
    unsafe {
        bindings::rtnl_lock();
        let mut device = bindings::first_net_device((&raw mut bindings::init_net).cast());
        while !device.is_null() {
            if bindings::net_device_is_netfront(device) {
                let mut ipv4 = bindings::first_ipv4_address(device);
                while !ipv4.is_null() {
                    visit(Address::V4((*ipv4).ifa_local.to_ne_bytes()));
                    ipv4 = bindings::next_ipv4_address(ipv4);
                }
                let mut ipv6 = bindings::first_ipv6_address(device);
                while !ipv6.is_null() {
                    visit(Address::V6((*ipv6).addr.in6_u.u6_addr8));
                    ipv6 = bindings::next_ipv6_address(device, ipv6);
                }
            }
            device = bindings::next_net_device(device);
        }
        bindings::rtnl_unlock();
    }
}

/// What is told that addresses may have changed.
pub trait Changed: Send + Sync + 'static {
    /// An address or a device came, went or changed. Any context, maybe under the RTNL lock or in a softirq: queue work.
    fn addresses_changed(&self);
}

/// A registration of a [`Changed`]. Dropping it (process context) returns when no call is in progress.
#[pin_data(PinnedDrop)]
pub struct Notifier<H: Changed> {
    #[pin]
    ipv4: Opaque<bindings::notifier_block>,
    #[pin]
    ipv6: Opaque<bindings::notifier_block>,
    #[pin]
    devices: Opaque<bindings::notifier_block>,
    handler: Arc<H>,
}

// SAFETY: the blocks are only touched by the kernel between registration and drop; the handler is Send and Sync.
unsafe impl<H: Changed> Send for Notifier<H> {}
// SAFETY: see above.
unsafe impl<H: Changed> Sync for Notifier<H> {}

/// Makes the C callback for one of the three blocks.
macro_rules! callback {
    ($name:ident, $field:ident) => {
        /// A callback of a notifier chain.
        ///
        /// # Safety
        ///
        /// Only the chain calls it, with the block that was registered.
        unsafe extern "C" fn $name<H: Changed>(
            block: *mut bindings::notifier_block,
            _event: c_ulong,
            _data: *mut c_void,
        ) -> c_int {
            // SAFETY: `block` is that field of a registered `Notifier<H>`, which is alive until unregistered.
            let this = unsafe { &*container_of!(Opaque::cast_from(block), Notifier<H>, $field) };
            this.handler.addresses_changed();
            bindings::NOTIFY_DONE as c_int
        }
    };
}

callback!(ipv4_changed, ipv4);
callback!(ipv6_changed, ipv6);
callback!(devices_changed, devices);

fn block(
    call: unsafe extern "C" fn(*mut bindings::notifier_block, c_ulong, *mut c_void) -> c_int,
) -> bindings::notifier_block {
    bindings::notifier_block {
        notifier_call: Some(call),
        ..Default::default()
    }
}

impl<H: Changed> Notifier<H> {
    /// Registers `handler`. Process context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; what the registrations return.
    pub fn register(handler: Arc<H>) -> Result<Pin<KBox<Self>>> {
        let this = KBox::pin_init(
            pin_init!(Self {
                ipv4: Opaque::new(block(ipv4_changed::<H>)),
                ipv6: Opaque::new(block(ipv6_changed::<H>)),
                devices: Opaque::new(block(devices_changed::<H>)),
                handler,
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: the blocks are pinned and stay until `drop` takes them out; what was not registered is ignored there
        // (unregistering an unknown block only returns ENOENT).
        unsafe {
            kernel::error::to_result(bindings::register_inetaddr_notifier(this.ipv4.get()))?;
            kernel::error::to_result(bindings::register_inet6addr_notifier(this.ipv6.get()))?;
            kernel::error::to_result(bindings::register_netdevice_notifier(this.devices.get()))?;
        }
        Ok(this)
    }
}

#[pinned_drop]
impl<H: Changed> PinnedDrop for Notifier<H> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: registered in `register`, or not on any chain, which the functions say by an error.
        unsafe {
            bindings::unregister_netdevice_notifier(self.devices.get());
            bindings::unregister_inet6addr_notifier(self.ipv6.get());
            bindings::unregister_inetaddr_notifier(self.ipv4.get());
        }
    }
}
