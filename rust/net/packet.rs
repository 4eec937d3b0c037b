// SPDX-License-Identifier: GPL-2.0

//! A UDP packet of a socket of this guest that was about to leave it, complete with all headers.
//!
//! C headers: `include/linux/skbuff.h`, `include/linux/netfilter.h`.

use crate::netfilter::read_header;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use kernel::ffi::c_int;
use kernel::prelude::*;
use net_sys as bindings;
use xenvmc_core::datagram::headers::{
    self,
    Parsed,
    LOOK, //
};
use xenvmc_core::datagram::marker;
use xenvmc_core::decline::Decline;

type Continue =
    unsafe extern "C" fn(*mut bindings::net, *mut bindings::sock, *mut bindings::sk_buff) -> c_int;

/// A packet that was taken out of the network's hands. Dropping it loses it, which its socket is told by its free memory only.
///
/// # Invariants
///
/// `skb` is a UDP packet that nobody else uses, of a full socket, which it keeps alive by the memory that it is charged for;
/// `go_on` is what the network would call next with it.
pub struct Packet {
    skb: NonNull<bindings::sk_buff>,
    net: *mut bindings::net,
    go_on: Continue,
}

// SAFETY: a packet can be worked on from any CPU, by one at a time.
unsafe impl Send for Packet {}

/// A socket of UDP whose owner is in a call that sends. It is an RCU read-side section: not for long.
///
/// # Invariants
///
/// `socket` has not been freed.
pub struct Asker {
    socket: *const bindings::sock,
    _rcu: kernel::sync::rcu::Guard,
}

impl Asker {
    /// Returns whether there is something to be read by now.
    pub fn has_something_to_read(&self) -> bool {
        // SAFETY: not freed, by the invariant; plain reads.
        unsafe { !bindings::sk_has_nothing_to_read(self.socket) }
    }
}

impl Packet {
    /// Wraps a packet in a hook.
    ///
    /// # Safety
    ///
    /// `skb` must be the packet and `state` the state of a POST_ROUTING hook of the initial namespace that is running; the packet a UDP packet
    /// of a full socket. The packet is the caller's again only by [`Self::into_raw`].
    pub(crate) unsafe fn from_hook(
        skb: NonNull<bindings::sk_buff>,
        state: &bindings::nf_hook_state,
    ) -> Option<Self> {
        Some(Self {
            skb,
            net: state.net,
            go_on: state.okfn?,
        })
    }

    /// Gives the packet back to the hook.
    pub(crate) fn into_raw(self) -> NonNull<bindings::sk_buff> {
        ManuallyDrop::new(self).skb
    }

    fn as_ptr(&self) -> *mut bindings::sk_buff {
        self.skb.as_ptr()
    }

    /// Returns what the headers say; [`None`] if it is not one whole datagram.
    pub fn parse(&self) -> Option<Parsed> {
        let mut bytes = [0; LOOK];
        // SAFETY: a valid packet, by the invariant.
        let seen = unsafe { read_header(self.as_ptr(), &mut bytes) };
        headers::parse(bytes.get(..seen)?)
    }

    /// Returns how many bytes there are from `at` on, counted from the IP header.
    pub fn len_from(&self, at: u32) -> u32 {
        // SAFETY: a valid packet, by the invariant.
        let (len, offset) = unsafe {
            (
                (*self.as_ptr()).len,
                bindings::skb_network_offset(self.as_ptr()),
            )
        };
        len.saturating_sub(offset).saturating_sub(at)
    }

    /// Returns the bytes of each datagram but the last if the packet is several (UDP_SEGMENT), or 0.
    pub fn segment_size(&self) -> u16 {
        // SAFETY: a valid packet, by the invariant.
        unsafe { bindings::skb_segment_size(self.as_ptr()) as u16 }
    }

    /// Returns how many datagrams it is.
    pub fn datagrams(&self) -> u32 {
        // SAFETY: a valid packet, by the invariant.
        unsafe { bindings::skb_segments(self.as_ptr()) }
    }

    /// Returns why it must go over the network, or [`None`].
    pub fn why_not(&self) -> Option<Decline> {
        let skb = self.as_ptr();
        // SAFETY: a valid packet with a full socket, by the invariant; plain reads.
        unsafe {
            let sk = bindings::skb_socket(skb);
            if bindings::sk_is_kernel(sk) {
                Some(Decline::KernelSocket)
            } else if bindings::sk_encapsulates(sk) {
                Some(Decline::Callbacks)
            } else if bindings::skb_is_segmented_otherwise(skb) {
                Some(Decline::Protocol)
            } else if bindings::skb_has_stamps(skb) {
                Some(Decline::Timestamps)
            } else if bindings::skb_has_departure_time(skb) {
                Some(Decline::Pacing)
            } else if bindings::skb_is_shared_memory(skb) {
                Some(Decline::Zerocopy)
            } else if bindings::skb_has_transformation(skb) {
                Some(Decline::Ipsec)
            } else if bindings::sk_has_cgroup_bpf(sk) {
                Some(Decline::CgroupBpf)
            } else {
                None
            }
        }
    }

    /// Returns its socket, if the sender is a task that may be kept for a moment, and has nothing to read there. In a hook.
    pub fn asker(&self) -> Option<Asker> {
        let rcu = kernel::sync::rcu::read_lock();
        // SAFETY: a valid packet with a full socket of UDP, by the invariant; plain reads.
        unsafe {
            let socket = bindings::skb_socket(self.as_ptr());
            let may_look =
                bindings::is_in_ordinary_task() && bindings::sk_has_nothing_to_read(socket);
            // INVARIANT: it was alive in this section, and sockets of UDP that have a port are freed after a grace period.
            may_look.then_some(Asker { socket, _rcu: rcu })
        }
    }

    /// Does what is left of the network's own business with it before it may go another way: connection tracking notes that it
    /// has left, so that it knows the answers, and the route is kept. In a hook.
    ///
    /// # Errors
    ///
    /// `EPERM` if connection tracking wants it dropped; `ENETUNREACH` if the route is gone.
    pub fn settle(&self) -> Result {
        let skb = self.as_ptr();
        // SAFETY: a valid packet, in a hook, which is an RCU read-side section.
        unsafe {
            if !bindings::skb_dst_force(skb) {
                return Err(ENETUNREACH);
            }
            if bindings::skb_is_tracked_anew(skb)
                && bindings::skb_confirm(skb) != bindings::NF_ACCEPT as c_int
            {
                return Err(EPERM);
            }
        }
        Ok(())
    }

    /// Calls `take` with `len` bytes from `at` on (from the IP header), piece by piece.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are fewer; what `take` returns.
    pub fn read(&self, at: u32, len: u32, mut take: impl FnMut(&[u8]) -> Result) -> Result {
        let mut state = bindings::skb_seq_state::default();
        let mut done = 0;
        // SAFETY: a valid packet, which stays as it is meanwhile.
        unsafe {
            let from = bindings::skb_network_offset(self.as_ptr()) + at;
            bindings::skb_prepare_seq_read(self.as_ptr(), from, from + len, &mut state);
        }
        while done < len {
            let mut data: *const u8 = core::ptr::null();
            // SAFETY: prepared above, and not over: what was read is less than what there is to be read.
            let piece = unsafe { bindings::skb_seq_read(done, &mut data, &mut state) };
            if piece == 0 {
                return Err(EINVAL);
            }
            let used = (piece as usize).min((len - done) as usize);
            // SAFETY: `skb_seq_read` says that so many bytes are there; nobody writes them, since memory that is shared with
            // user space was refused by `why_not`.
            let result = take(unsafe { core::slice::from_raw_parts(data, used) });
            if result.is_err() {
                // SAFETY: prepared above, and not over.
                unsafe { bindings::skb_abort_seq_read(&mut state) };
                return result;
            }
            done += used as u32;
        }
        // SAFETY: as above; says that nothing more is read, and is allowed at the end.
        unsafe { bindings::skb_abort_seq_read(&mut state) };
        Ok(())
    }

    /// Makes a marker that takes the same way: see [`marker`]. `payload_at` is that of [`Self::parse`]. [`None`] if there is no memory. Any context.
    pub fn marker(&self, payload_at: u32, payload: &[u8; marker::SIZE]) -> Option<Self> {
        let this = self.as_ptr();
        // SAFETY: any size may be asked for.
        let skb = unsafe {
            let headroom = bindings::skb_headroom_wanted();
            bindings::alloc_skb_atomic(headroom + payload_at + marker::SIZE as u32)
        };
        // INVARIANT: ours alone; it becomes a UDP packet that is charged to the same socket before anybody gets it.
        let packet = Self {
            skb: NonNull::new(skb)?,
            net: self.net,
            go_on: self.go_on,
        };
        // SAFETY: a new packet, in one piece, with room for what is written; and a valid one with its socket and route, by the invariant. What
        // the first copies of the second counts references, but for the positions of headers, which are set.
        let bytes = unsafe {
            bindings::skb_reserve_headroom(skb);
            let len = payload_at as usize + marker::SIZE;
            let bytes = bindings::skb_put(skb, len as u32).cast::<u8>();
            bytes.write_bytes(0, len);
            let from = bindings::skb_network_offset(this) as i32;
            if bindings::skb_copy_bits(this, from, bytes.cast(), payload_at as i32) != 0 {
                return None;
            }
            bindings::skb_copy_header(skb, this);
            bindings::skb_set_udp_headers(skb, payload_at);
            bindings::skb_set_one_datagram(skb);
            bindings::skb_set_owner_w(skb, bindings::skb_socket(this));
            core::slice::from_raw_parts_mut(bytes, len)
        };
        bytes
            .get_mut(payload_at as usize..)?
            .copy_from_slice(payload);
        marker::seal(bytes, payload_at as usize)?;
        Some(packet)
    }

    /// Lets it go on over the network, where it was stopped. Process or softirq context, no lock held that the network needs.
    pub fn release(self) {
        let this = ManuallyDrop::new(self);
        let skb = this.as_ptr();
        // SAFETY: a valid packet with its socket and route; given away here.
        unsafe {
            let _rcu = kernel::sync::rcu::read_lock();
            // The device may have gone meanwhile; the route knows, and keeps another one then that takes everything.
            bindings::skb_set_device_of_route(skb);
            let sk = bindings::skb_socket(skb);
            (this.go_on)(this.net, sk, skb);
        }
    }

    /// Frees it: it went another way.
    pub fn consume(self) {
        let this = ManuallyDrop::new(self);
        // SAFETY: ours, and given away here.
        unsafe { bindings::consume_skb(this.as_ptr()) };
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: ours, by the invariant.
        unsafe { bindings::kfree_skb(self.as_ptr()) };
    }
}
