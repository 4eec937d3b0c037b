// SPDX-License-Identifier: GPL-2.0

//! Seeing UDP packets: hooks of netfilter in the initial network namespace, for both families.
//!
//! C header: `include/linux/netfilter.h`.

use crate::deliver::is_delivering;
use crate::packet::Packet;
use core::ffi::c_void;
use core::ptr::NonNull;
use kernel::ffi::c_uint;
use kernel::prelude::*;
use kernel::sync::Arc;
use net_sys as bindings;
use xenvmc_core::datagram::headers::{
    self,
    Parsed,
    LOOK, //
};

/// What becomes of a packet that is about to leave.
pub enum Fate {
    /// It goes on over the network.
    Network(Packet),
    /// It was taken.
    Taken,
    /// There is no room for it: it is dropped as where a device's queue is full.
    Full(Packet),
}

/// A UDP packet that has come over the network. Alive in a hook only.
pub struct Arrived<'a> {
    skb: *const bindings::sk_buff,
    device: &'a bindings::net_device,
    parsed: Parsed,
}

impl Arrived<'_> {
    /// Returns what its headers say.
    pub fn parsed(&self) -> &Parsed {
        &self.parsed
    }

    /// Returns how many datagrams it is, as the device's driver has put several together.
    pub fn datagrams(&self) -> u32 {
        // SAFETY: a valid packet, in a hook.
        unsafe { bindings::skb_segments(self.skb) }
    }

    /// Returns the number of the device that it came through.
    pub fn device(&self) -> i32 {
        // SAFETY: a valid device, in a hook.
        unsafe { bindings::net_device_index(self.device) }
    }

    /// Returns the Ethernet address that it came from, if it has one.
    pub fn ethernet_source(&self) -> Option<[u8; 6]> {
        // SAFETY: a valid packet, in a hook; an Ethernet header has an address of six bytes.
        unsafe {
            if !bindings::skb_has_ethernet_header(self.skb) {
                return None;
            }
            Some(
                bindings::skb_ethernet_source(self.skb)
                    .cast::<[u8; 6]>()
                    .read(),
            )
        }
    }

    /// Copies all of the payload, if it has `N` bytes.
    pub fn payload<const N: usize>(&self) -> Option<[u8; N]> {
        let mut payload = [0; N];
        // SAFETY: a valid packet, in a hook; the buffer has `N` bytes.
        unsafe {
            let at = bindings::skb_network_offset(self.skb).checked_add(self.parsed.payload_at)?;
            let len = (*self.skb).len.checked_sub(at)?;
            if len as usize != N {
                return None;
            }
            let buffer = payload.as_mut_ptr().cast();
            (bindings::skb_copy_bits(self.skb, at as i32, buffer, N as i32) == 0).then_some(payload)
        }
    }
}

/// What is told of packets. In a softirq or a task, in an RCU read-side section: no sleeping.
pub trait PacketHandler: Send + Sync + 'static {
    /// A UDP packet of a socket of this guest is about to leave; all rules of this guest have let it pass.
    fn leaving(&self, packet: Packet, device: i32) -> Fate;

    /// A UDP packet from a netfront device is for this guest, whose rules for what comes in were not asked yet; true = it goes no further.
    fn arriving(&self, packet: &Arrived<'_>) -> bool;

    /// A UDP packet from a netfront device is for this guest, and all its rules have let it pass.
    fn arrived(&self, packet: &Arrived<'_>);
}

/// The hooks, until it is dropped (process context), which returns when nobody is in them any more.
pub struct Hooks<H: PacketHandler> {
    hooks: KBox<[bindings::nf_hook_ops; COUNT]>,
    handler: *const H,
}

const COUNT: usize = 6;

// SAFETY: the hooks are only touched by the kernel between registration and drop; the handler is Send and Sync.
unsafe impl<H: PacketHandler> Send for Hooks<H> {}
// SAFETY: see above.
unsafe impl<H: PacketHandler> Sync for Hooks<H> {}

impl<H: PacketHandler> Hooks<H> {
    /// Registers `handler`. Process context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; what `nf_register_net_hooks` returns.
    pub fn register(handler: Arc<H>) -> Result<Self> {
        let handler = Arc::into_raw(handler);
        let hook = |pf: u32, number: u32, priority: i32, hook: bindings::nf_hookfn| {
            bindings::nf_hook_ops {
                hook,
                priv_: handler.cast_mut().cast(),
                pf: pf as u8,
                hooknum: number,
                priority,
                ..Default::default()
            }
        };
        let pair = |pf| {
            [
                hook(
                    pf,
                    bindings::nf_inet_hooks_NF_INET_LOCAL_IN,
                    i32::MIN,
                    Some(arriving::<H>),
                ),
                hook(
                    pf,
                    bindings::nf_inet_hooks_NF_INET_LOCAL_IN,
                    i32::MAX,
                    Some(arrived::<H>),
                ),
                hook(
                    pf,
                    bindings::nf_inet_hooks_NF_INET_POST_ROUTING,
                    i32::MAX,
                    Some(leaving::<H>),
                ),
            ]
        };
        let [a, b, c] = pair(bindings::NFPROTO_IPV4);
        let [d, e, f] = pair(bindings::NFPROTO_IPV6);
        let made = KBox::new([a, b, c, d, e, f], GFP_KERNEL).map_err(Error::from);
        let registered = made.and_then(|hooks| {
            // SAFETY: valid hooks, which stay where they are until `drop` takes them out.
            kernel::error::to_result(unsafe {
                bindings::nf_register_net_hooks(
                    (&raw mut bindings::init_net).cast(),
                    hooks.as_ptr(),
                    COUNT as c_uint,
                )
            })?;
            Ok(hooks)
        });
        match registered {
            Ok(hooks) => Ok(Self { hooks, handler }),
            Err(error) => {
                // SAFETY: leaked above, and not registered.
                drop(unsafe { Arc::from_raw(handler) });
                Err(error)
            }
        }
    }
}

impl<H: PacketHandler> Drop for Hooks<H> {
    fn drop(&mut self) {
        // SAFETY: registered with the same arguments. When the synchronisation returns nobody is in a hook, so that the
        // handler's reference can go.
        unsafe {
            bindings::nf_unregister_net_hooks(
                (&raw mut bindings::init_net).cast(),
                self.hooks.as_ptr(),
                COUNT as c_uint,
            );
            bindings::synchronize_net();
            drop(Arc::from_raw(self.handler));
        }
    }
}

/// Copies what there is of a packet from its IP header on, and returns how much.
///
/// # Safety
///
/// `skb` must be a valid packet.
pub(crate) unsafe fn read_header(skb: *const bindings::sk_buff, bytes: &mut [u8; LOOK]) -> usize {
    // SAFETY: the caller's promise; the buffer has room for what is copied.
    unsafe {
        let offset = bindings::skb_network_offset(skb);
        let seen = (*skb).len.saturating_sub(offset).min(LOOK as u32);
        let buffer = bytes.as_mut_ptr().cast();
        match bindings::skb_copy_bits(skb, offset as i32, buffer, seen as i32) {
            0 => seen as usize,
            _ => 0,
        }
    }
}

/// Whether a packet that arrives is one that we deliver, and does not come from the network: netfront's come by NAPI, and carry its number, also on
/// another CPU (RPS), or later (queues of netfilter).
///
/// # Safety
///
/// As for a hook.
unsafe fn is_ours(skb: *const bindings::sk_buff) -> bool {
    // SAFETY: a valid packet.
    is_delivering() || unsafe { !bindings::skb_is_from_napi(skb) }
}

/// Wraps a packet that has come over the network, if it is one whole datagram from a netfront device.
///
/// # Safety
///
/// As for a hook.
unsafe fn arrived_packet<'a>(
    skb: *const bindings::sk_buff,
    state: &'a bindings::nf_hook_state,
) -> Option<Arrived<'a>> {
    // SAFETY: a valid packet in a hook, whose IP header was checked before; the device, if there is one, stays meanwhile.
    unsafe {
        // First of all what most packets are not.
        if !bindings::skb_may_be_udp(skb) || state.in_.is_null() || is_ours(skb) {
            return None;
        }
        if !bindings::net_device_is_netfront(state.in_.cast()) {
            return None;
        }
        let mut bytes = [0; LOOK];
        let seen = read_header(skb, &mut bytes);
        Some(Arrived {
            skb,
            device: &*state.in_.cast::<bindings::net_device>(),
            parsed: headers::parse(bytes.get(..seen)?)?,
        })
    }
}

/// A hook of netfilter.
///
/// # Safety
///
/// Only netfilter calls it, with what was registered.
unsafe extern "C" fn arriving<H: PacketHandler>(
    handler: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> c_uint {
    // SAFETY: valid in a hook, all of them.
    unsafe {
        if let Some(packet) = arrived_packet(skb, &*state) {
            if (*handler.cast::<H>()).arriving(&packet) {
                bindings::consume_skb(skb);
                return bindings::NF_STOLEN;
            }
        }
    }
    bindings::NF_ACCEPT
}

/// A hook of netfilter.
///
/// # Safety
///
/// Only netfilter calls it, with what was registered.
unsafe extern "C" fn arrived<H: PacketHandler>(
    handler: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> c_uint {
    // SAFETY: valid in a hook, all of them.
    unsafe {
        if let Some(packet) = arrived_packet(skb, &*state) {
            (*handler.cast::<H>()).arrived(&packet);
        }
    }
    bindings::NF_ACCEPT
}

/// A hook of netfilter.
///
/// # Safety
///
/// Only netfilter calls it, with what was registered.
unsafe extern "C" fn leaving<H: PacketHandler>(
    handler: *mut c_void,
    skb: *mut bindings::sk_buff,
    state: *const bindings::nf_hook_state,
) -> c_uint {
    // SAFETY: valid in a hook, all of them. A packet that has come from elsewhere has no socket.
    let fate = unsafe {
        let state = &*state;
        if !bindings::skb_is_of_udp_socket(skb, state.sk) || state.out.is_null() {
            return bindings::NF_ACCEPT;
        }
        let device = bindings::net_device_index(state.out.cast());
        let Some(packet) = NonNull::new(skb).and_then(|skb| Packet::from_hook(skb, state)) else {
            return bindings::NF_ACCEPT;
        };
        (*handler.cast::<H>()).leaving(packet, device)
    };
    match fate {
        Fate::Network(packet) => {
            packet.into_raw();
            bindings::NF_ACCEPT
        }
        Fate::Taken => bindings::NF_STOLEN,
        Fate::Full(packet) => {
            packet.into_raw();
            // SAFETY: no requirements.
            unsafe { bindings::nf_drop_enobufs() }
        }
    }
}

/// Whether the device of that number is one of netfront. In an RCU read-side section, such as a hook.
pub fn is_netfront(device: i32) -> bool {
    let device = find_device(device);
    // SAFETY: RCU keeps the device.
    !device.is_null() && unsafe { bindings::net_device_is_netfront(device) }
}

/// Whether a BPF program of the device of that number is to see what comes (XDP). Any context.
pub fn has_xdp(device: i32) -> bool {
    let _rcu = kernel::sync::rcu::read_lock();
    let device = find_device(device);
    // SAFETY: RCU keeps the device.
    !device.is_null() && unsafe { bindings::net_device_has_xdp(device) }
}

/// The device of that number in the initial namespace, or null. In an RCU read-side section, which keeps it.
pub(crate) fn find_device(number: i32) -> *mut bindings::net_device {
    // SAFETY: the initial namespace stays; the caller's section.
    unsafe { bindings::dev_get_by_index_rcu((&raw mut bindings::init_net).cast(), number) }
}
