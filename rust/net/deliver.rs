// SPDX-License-Identifier: GPL-2.0

//! Delivering datagrams that came another way: packets of our own making that arrive, for this guest, through a netfront
//! device. So its firewall, connection tracking, sockets and their buffers do with them what they do with all others.
//!
//! C headers: `include/linux/skbuff.h`, `include/linux/netdevice.h`.

use core::ptr::NonNull;
use kernel::prelude::*;
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

/// Delivers the datagrams of one record, whose payload `copy(offset, buffer)` gives, from the front on.
///
/// With softirqs off, and no lock held that the network needs. Who must not be overtaken is delivered before, on the same CPU.
///
/// # Errors
///
/// `ENODEV` if there is no such netfront device, or it is not up; `ENOMEM`; what `copy` returns.
pub fn deliver(
    origin: &Origin,
    tuple: &Tuple,
    record: &Record,
    copy: impl FnMut(u32, &mut [u8]) -> Result,
) -> Result {
    let _rcu = kernel::sync::rcu::read_lock();
    // SAFETY: RCU keeps the device. Its Ethernet address has six bytes.
    let (device, to) = unsafe {
        let device =
            bindings::dev_get_by_index_rcu((&raw mut bindings::init_net).cast(), origin.device);
        if device.is_null()
            || !bindings::net_device_is_netfront(device)
            || !bindings::net_device_is_running(device)
        {
            return Err(ENODEV);
        }
        let address = bindings::net_device_address(device).cast::<[u8; 6]>();
        (device, address.read())
    };
    let fields: &Fields = &record.fields;
    let headers = Headers::new(origin.ethernet, to, tuple, fields, record.len).ok_or(EINVAL)?;
    let skb = build(&headers, record, copy)?.as_ptr();
    // SAFETY: a packet of ours, complete with headers; given away here.
    unsafe {
        if !fields.no_checksum {
            // As a device does that leaves the checksum to whoever needs it: the bytes have not left the machine.
            bindings::skb_partial_csum_set(skb, headers.udp_at as u16, CHECKSUM_AT);
        }
        if record.segment != 0 {
            bindings::skb_set_udp_segments(skb, record.segment.into(), record.datagrams());
        }
        let protocol = bindings::eth_type_trans(skb, device);
        bindings::skb_set_protocol(skb, protocol);
        bindings::netif_receive_skb(skb);
    }
    Ok(())
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
