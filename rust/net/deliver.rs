// SPDX-License-Identifier: GPL-2.0

//! Delivering datagrams that came another way: packets of our own making that arrive, for this guest, through a netfront
//! device. So its firewall, connection tracking, sockets and their buffers do with them what they do with all others.
//!
//! C headers: `include/linux/skbuff.h`, `include/linux/netdevice.h`.

use crate::netfilter::find_device;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use net_sys as bindings;
use xenvmc_core::datagram::headers::Headers;
use xenvmc_core::datagram::record::{
    Fields,
    Record, //
};
use xenvmc_core::message::Tuple;

/// The longest payload that lies in one piece with the headers; larger ones lie in pages.
const LINEAR_MAX: u32 = 3500;

/// The largest pieces of pages, as the binary logarithm of their number.
const ORDER_MAX: i32 = 3;

const CHECKSUM_AT: u16 = 6;

/// Where packets of a flow seem to come from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The number of the device.
    pub device: i32,
    /// The Ethernet address.
    pub ethernet: [u8; 6],
}

/// Packets that are delivered together, which spares the network work that is the same for all of them.
const TOGETHER: usize = 16;

/// Packets that are to be delivered; dropping it delivers them. It ends soon, since it is an RCU read-side section.
///
/// # Invariants
///
/// The first `len` of `packets` are packets of ours alone, complete with headers; `device` was found in this section.
pub struct Batch {
    packets: [*mut bindings::sk_buff; TOGETHER],
    len: usize,
    device: Option<Device>,
    _rcu: kernel::sync::rcu::Guard,
}

/// A netfront device that is up, and has no BPF program that is to see what comes (XDP).
struct Device {
    number: i32,
    device: *mut bindings::net_device,
    ethernet: [u8; 6],
}

impl Device {
    /// The device of this number. In an RCU read-side section, which keeps it.
    fn find(number: i32) -> Option<Self> {
        let device = find_device(number);
        // SAFETY: RCU keeps the device. Its Ethernet address has six bytes.
        unsafe {
            if device.is_null()
                || !bindings::net_device_is_netfront(device)
                || !bindings::net_device_is_running(device)
                || bindings::net_device_has_xdp(device)
            {
                return None;
            }
            let ethernet = bindings::net_device_address(device)
                .cast::<[u8; 6]>()
                .read();
            Some(Self {
                number,
                device,
                ethernet,
            })
        }
    }
}

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            packets: [core::ptr::null_mut(); TOGETHER],
            len: 0,
            device: None,
            _rcu: kernel::sync::rcu::read_lock(),
        }
    }

    /// Takes in the datagrams of one record, whose payload `copy(offset, buffer)` gives, from the front on. They are delivered behind all
    /// that were taken in before, at once or later.
    ///
    /// With softirqs off, and no lock held that the network needs. Who must not be overtaken is delivered before, on the same CPU.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such netfront device, or it is not up, or has a BPF program (XDP); `ENOMEM`; what `copy` returns.
    pub fn push(
        &mut self,
        origin: &Origin,
        tuple: &Tuple,
        record: &Record,
        copy: impl FnMut(u32, &mut [u8]) -> Result,
    ) -> Result {
        if self.device.as_ref().map(|device| device.number) != Some(origin.device) {
            self.device = Device::find(origin.device);
        }
        let device = self.device.as_ref().ok_or(ENODEV)?;
        let fields: &Fields = &record.fields;
        let to = device.ethernet;
        let headers = Headers::new(origin.ethernet, to, tuple, fields, record.len).ok_or(EINVAL)?;
        let skb = build(&headers, record, copy)?.as_ptr();
        // SAFETY: a packet of ours, complete with headers. RCU keeps the device.
        unsafe {
            if !fields.no_checksum {
                // As a device does that leaves the checksum to whoever needs it: the bytes have not left the machine.
                bindings::skb_partial_csum_set(skb, headers.udp_at as u16, CHECKSUM_AT);
            }
            if record.segment != 0 {
                bindings::skb_set_udp_segments(skb, record.segment.into(), record.datagrams());
            }
            let protocol = bindings::eth_type_trans(skb, device.device);
            bindings::skb_set_protocol(skb, protocol);
        }
        if let Some(place) = self.packets.get_mut(self.len) {
            *place = skb;
            self.len += 1;
        }
        if self.len == TOGETHER {
            self.deliver();
        }
        Ok(())
    }

    /// Delivers what was taken in. As [`Self::push`].
    pub fn deliver(&mut self) {
        let len = core::mem::take(&mut self.len);
        if len == 0 {
            return;
        }
        let _delivering = Delivering::begin();
        let mut list = bindings::list_head::default();
        // SAFETY: the list stays where it is until it is empty again. The packets are given away here, and were found to be whole before.
        unsafe {
            bindings::skb_list_init(&mut list);
            for skb in self.packets.iter().take(len) {
                bindings::skb_list_add_tail(*skb, &mut list);
            }
            bindings::netif_receive_skb_list(&mut list);
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.deliver();
    }
}

/// CPUs that are told apart; on others nothing is known.
const CPUS: usize = 1024;

/// The CPUs on which packets of ours are being delivered. Only the CPU itself looks at its own.
static DELIVERING: [Atomic<bool>; CPUS] = [const { Atomic::new(false) }; CPUS];

/// Says that this CPU delivers packets of ours, and no others; with softirqs off.
struct Delivering(Option<&'static Atomic<bool>>);

impl Delivering {
    fn begin() -> Self {
        let own = own_mark();
        if let Some(mark) = own {
            mark.store(true, Relaxed);
        }
        Self(own)
    }
}

impl Drop for Delivering {
    fn drop(&mut self) {
        if let Some(mark) = self.0 {
            mark.store(false, Relaxed);
        }
    }
}

fn own_mark() -> Option<&'static Atomic<bool>> {
    // SAFETY: no requirements. With softirqs off the task stays where it is.
    DELIVERING.get(unsafe { bindings::number_of_cpu() } as usize)
}

/// Whether the packet that the network handles on this CPU now is one that we deliver. With softirqs off, as in hooks that see what
/// arrives; false may be wrong.
pub(crate) fn is_delivering() -> bool {
    own_mark().is_some_and(|mark| mark.load(Relaxed))
}

/// A packet with headers and payload.
fn build(
    headers: &Headers,
    record: &Record,
    mut copy: impl FnMut(u32, &mut [u8]) -> Result,
) -> Result<NonNull<bindings::sk_buff>> {
    let bytes = headers.bytes();
    let (linear, paged) = match record.len <= LINEAR_MAX {
        true => (record.len, 0),
        false => (0, record.len),
    };
    let front = bytes.len() + linear as usize;
    // SAFETY: any sizes may be asked for.
    let skb = unsafe {
        let front = bindings::skb_headroom_wanted() as usize + front;
        bindings::alloc_skb_with_frags_atomic(front, paged as usize, ORDER_MAX)
    };
    let skb = NonNull::new(skb).ok_or(ENOMEM)?;
    // SAFETY: the packet is ours alone and has room for `front` bytes, which are zeroed before they are seen as a slice.
    let start = unsafe {
        bindings::skb_reserve_headroom(skb.as_ptr());
        let data = bindings::skb_put(skb.as_ptr(), front as u32).cast::<u8>();
        data.write_bytes(0, front);
        core::slice::from_raw_parts_mut(data, front)
    };
    let (head, payload) = start.split_at_mut(bytes.len());
    head.copy_from_slice(bytes);
    let result = match paged {
        0 => copy(0, payload),
        _ => fill_pages(skb, copy),
    };
    if let Err(error) = result {
        // SAFETY: ours alone.
        unsafe { bindings::kfree_skb(skb.as_ptr()) };
        return Err(error);
    }
    // SAFETY: the pages hold so many bytes.
    unsafe { bindings::skb_extend(skb.as_ptr(), paged) };
    Ok(skb)
}

fn fill_pages(
    skb: NonNull<bindings::sk_buff>,
    mut copy: impl FnMut(u32, &mut [u8]) -> Result,
) -> Result {
    let mut done = 0;
    // SAFETY: the packet is ours alone, its pages were just made for it; each byte is written before anybody reads it, and
    // zeroed before it is seen as part of a slice.
    unsafe {
        for index in 0..bindings::skb_frags(skb.as_ptr()) {
            let data = bindings::skb_frag_bytes(skb.as_ptr(), index).cast::<u8>();
            let len = bindings::skb_frag_len(skb.as_ptr(), index);
            data.write_bytes(0, len as usize);
            copy(done, core::slice::from_raw_parts_mut(data, len as usize))?;
            done += len;
        }
    }
    Ok(())
}
