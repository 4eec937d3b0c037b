// SPDX-License-Identifier: GPL-2.0

//! Giving bytes back to TCP: bytes that came another way are put into TCP's receive queue, as if they had come over the
//! network.
//!
//! The sequence space of what is unread is moved down to make room: bytes that are inserted *before* sequence number `at`
//! get the numbers `at - n … at - 1`, what is unread before `at` moves down by `n`, and so does `copied_seq`. All these
//! numbers are below `rcv_nxt`, so that the network's side of TCP (acknowledgements, window, out-of-order queue) sees no
//! difference; and reading, MSG_PEEK, SIOCINQ, end of file and the reset on close with unread data need no help.
//!
//! C headers: `include/linux/skbuff.h`, `include/net/tcp.h`.

use crate::error::{
    eopnotsupp,
    TCPHDR_FIN, //
};
use crate::socket::Locked;
use kernel::alloc::Flags;
use kernel::prelude::*;
use net_sys as bindings;

/// The most bytes that one packet of ours carries.
const BYTES_PER_PACKET: usize = 16 * 1024;

/// How the memory for what is inserted may be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// The caller may sleep.
    MaySleep,
    /// It may not.
    Atomic,
}

impl Memory {
    /// The flags for the kernel's allocators.
    pub fn flags(self) -> Flags {
        match self {
            Self::MaySleep => GFP_KERNEL,
            Self::Atomic => GFP_ATOMIC,
        }
    }

    /// A packet with room for `len` bytes, or null.
    fn packet(self, len: u32) -> *mut bindings::sk_buff {
        // SAFETY: any size may be asked for; who says that it may sleep is in process context.
        unsafe {
            match self {
                Self::MaySleep => bindings::alloc_skb_kernel(len),
                Self::Atomic => bindings::alloc_skb_atomic(len),
            }
        }
    }
}

/// Whether `a` comes before `b` in sequence space.
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// Packets with bytes for TCP, not queued yet.
struct Packets(KVec<*mut bindings::sk_buff>);

impl Drop for Packets {
    fn drop(&mut self) {
        for skb in self.0.iter() {
            // SAFETY: allocated by `fill`, and nobody else's.
            unsafe { bindings::kfree_skb(*skb) };
        }
    }
}

impl Packets {
    fn fill(
        len: usize,
        memory: Memory,
        mut copy: impl FnMut(usize, &mut [u8]) -> Result,
    ) -> Result<Self> {
        let mut packets = Self(KVec::with_capacity(
            len.div_ceil(BYTES_PER_PACKET),
            memory.flags(),
        )?);
        let mut done = 0;
        while done < len {
            let part = (len - done).min(BYTES_PER_PACKET);
            let skb = memory.packet(part as u32);
            if skb.is_null() {
                return Err(ENOMEM);
            }
            packets.0.push(skb, memory.flags())?;
            // SAFETY: the packet has room for `part` bytes, which are zeroed here and ours alone.
            let bytes = unsafe {
                let data = bindings::skb_put(skb, part as u32).cast::<u8>();
                data.write_bytes(0, part);
                core::slice::from_raw_parts_mut(data, part)
            };
            copy(done, bytes)?;
            done += part;
        }
        Ok(packets)
    }
}

/// Inserts `len` bytes before sequence number `at`; `copy(offset, buffer)` fills buffers with them, in order.
///
/// With the socket owned; `memory` says whether the caller may sleep. Everything before `at` must have arrived (`at` is at most `rcv_nxt`, and at
/// least `copied_seq`).
///
/// # Errors
///
/// `EAGAIN` if `at` is not within what has arrived and is unread; `EOPNOTSUPP` with urgent data pending before `at`; `ENOMEM`; what
/// `copy` returns. Nothing is changed then.
pub fn insert(
    locked: &mut Locked<'_>,
    at: u32,
    len: usize,
    memory: Memory,
    copy: impl FnMut(usize, &mut [u8]) -> Result,
) -> Result {
    let shift = u32::try_from(len).map_err(|_| EOVERFLOW)?;
    if shift == 0 {
        return Ok(());
    }
    let sk = locked.socket().as_ptr();
    if before(at, locked.copied_seq()) || before(locked.received_seq(), at) {
        return Err(EAGAIN);
    }
    if locked.has_urgent_before(at) {
        return Err(eopnotsupp());
    }
    let mut packets = Packets::fill(len, memory, copy)?;
    split_at(locked, at, memory)?;
    // SAFETY: the socket is owned, so that nobody else touches the receive queue; its packets carry TCP control blocks.
    unsafe {
        let queue = bindings::sk_receive_queue(sk);
        let copied = locked.copied_seq();
        let mut last_before: *mut bindings::sk_buff = core::ptr::null_mut();
        let mut fin = false;
        let mut next = bindings::skb_peek(queue);
        while !next.is_null() {
            let skb = next;
            next = bindings::skb_peek_next(skb, queue);
            let control = bindings::tcp_skb_cb(skb);
            let carries_fin = (*control).tcp_flags & TCPHDR_FIN != 0;
            let data_end = (*control).end_seq.wrapping_sub(carries_fin.into());
            if before(at, data_end) || ((*control).seq == at && data_end == at) {
                break;
            }
            if carries_fin {
                // The end of the stream moves behind what is inserted.
                (*control).tcp_flags &= !TCPHDR_FIN;
                fin = true;
            }
            if !before(copied, data_end) {
                // All of it was read, as it is what was split off: TCP keeps no such packet.
                bindings::skb_unlink_locked(skb, queue);
                bindings::consume_skb(skb);
                continue;
            }
            (*control).seq = (*control).seq.wrapping_sub(shift);
            (*control).end_seq = data_end.wrapping_sub(shift);
            last_before = skb;
        }
        let mut seq = at.wrapping_sub(shift);
        let count = packets.0.len();
        for (index, packet) in packets.0.drain_all().enumerate() {
            let control = bindings::tcp_skb_cb(packet);
            core::ptr::write_bytes(control, 0, 1);
            (*control).seq = seq;
            seq = seq.wrapping_add((*packet).len);
            (*control).end_seq = seq;
            if fin && index + 1 == count {
                (*control).tcp_flags = TCPHDR_FIN;
                (*control).end_seq = seq.wrapping_add(1);
            }
            // Memory is charged even where the limits say no: these bytes were accepted before, elsewhere.
            let _ = bindings::sk_rmem_schedule(sk, packet, (*packet).truesize as i32);
            bindings::skb_set_owner_r(packet, sk);
            if last_before.is_null() {
                bindings::skb_queue_first(queue, packet);
            } else {
                bindings::__skb_queue_after(queue, last_before, packet);
            }
            last_before = packet;
        }
        bindings::tcp_set_copied_seq(sk, copied.wrapping_sub(shift));
    }
    Ok(())
}

/// Splits the packet that carries bytes on both sides of `at`, if there is one.
fn split_at(locked: &mut Locked<'_>, at: u32, memory: Memory) -> Result {
    let sk = locked.socket().as_ptr();
    // SAFETY: as in `insert`.
    unsafe {
        let queue = bindings::sk_receive_queue(sk);
        let mut skb = bindings::skb_peek(queue);
        while !skb.is_null() {
            let control = bindings::tcp_skb_cb(skb);
            let carries_fin = (*control).tcp_flags & TCPHDR_FIN != 0;
            let data_end = (*control).end_seq.wrapping_sub(carries_fin.into());
            if before((*control).seq, at) && before(at, data_end) {
                let head = at.wrapping_sub((*control).seq);
                let tail = (*skb).len - head;
                let rest = memory.packet(tail);
                if rest.is_null() {
                    return Err(ENOMEM);
                }
                let copied = bindings::skb_copy_bits(
                    skb,
                    head as i32,
                    bindings::skb_put(rest, tail),
                    tail as i32,
                );
                let trimmed = if copied == 0 {
                    bindings::pskb_trim(skb, head)
                } else {
                    copied
                };
                if trimmed != 0 {
                    bindings::kfree_skb(rest);
                    return Err(Error::from_errno(trimmed));
                }
                let rest_control = bindings::tcp_skb_cb(rest);
                *rest_control = core::ptr::read(control);
                (*rest_control).seq = at;
                (*control).end_seq = at;
                (*control).tcp_flags &= !TCPHDR_FIN;
                let _ = bindings::sk_rmem_schedule(sk, rest, (*rest).truesize as i32);
                bindings::skb_set_owner_r(rest, sk);
                bindings::__skb_queue_after(queue, skb, rest);
                return Ok(());
            }
            skb = bindings::skb_peek_next(skb, queue);
        }
    }
    Ok(())
}
