// SPDX-License-Identifier: GPL-2.0

//! The message of one socket call: what is to be sent, or where received bytes go.
//!
//! C headers: `include/linux/socket.h`, `include/linux/uio.h`.

use crate::socket::Socket;
use kernel::ffi::{
    c_int,
    c_void, //
};
use kernel::iov::{
    IovIterDest,
    IovIterSource, //
};
use net_sys as bindings;

/// The flags of one send or receive call (`MSG_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags(u32);

impl Flags {
    /// MSG_DONTWAIT: do not block.
    pub const DONTWAIT: Self = Self(bindings::MSG_DONTWAIT);
    /// MSG_PEEK: leave the data where it is.
    pub const PEEK: Self = Self(bindings::MSG_PEEK);
    /// MSG_WAITALL: wait for the whole length.
    pub const WAITALL: Self = Self(bindings::MSG_WAITALL);
    /// MSG_TRUNC: throw the data away.
    pub const TRUNC: Self = Self(bindings::MSG_TRUNC);
    /// MSG_OOB: urgent data.
    pub const OOB: Self = Self(bindings::MSG_OOB);
    /// MSG_ERRQUEUE: the error queue.
    pub const ERRQUEUE: Self = Self(bindings::MSG_ERRQUEUE);
    /// MSG_ZEROCOPY: completion by notification.
    pub const ZEROCOPY: Self = Self(bindings::MSG_ZEROCOPY);
    /// MSG_SOCK_DEVMEM: data stays in device memory.
    pub const DEVMEM: Self = Self(bindings::MSG_SOCK_DEVMEM);
    /// MSG_FASTOPEN: data with the SYN.
    pub const FASTOPEN: Self = Self(bindings::MSG_FASTOPEN);

    pub(crate) fn from_raw(flags: c_int) -> Self {
        Self(flags as u32)
    }

    pub(crate) fn as_raw(self) -> c_int {
        self.0 as c_int
    }

    /// Whether any of `other`'s flags is set.
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns the flags of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the flags as the kernel has them.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl Control {
    fn of(raw: &bindings::msghdr) -> Self {
        Self {
            // SAFETY: both members of the union are the same pointer.
            at: unsafe { raw.__bindgen_anon_1.msg_control },
            len: raw.msg_controllen,
        }
    }

    fn put(self, raw: &mut bindings::msghdr) {
        raw.__bindgen_anon_1.msg_control = self.at;
        raw.msg_controllen = self.len;
    }
}

/// A message on its way through a socket call; alive for that call.
///
/// # Invariants
///
/// `raw` is valid, and ours alone for the life of this object.
pub struct Message<'a> {
    raw: &'a mut bindings::msghdr,
    start: Start,
}

/// What a message had when its call began, of what calls of TCP's methods change.
struct Start {
    iter: bindings::iov_iter,
    control: Control,
}

/// The buffer for control messages, or what is left of it.
#[derive(Clone, Copy)]
struct Control {
    at: *mut c_void,
    len: usize,
}

impl Message<'_> {
    /// Wraps the message of a socket call.
    ///
    /// # Safety
    ///
    /// `raw` must be the valid `msghdr` of a call in progress, and used by nobody else while this object lives.
    pub(crate) unsafe fn from_raw(raw: *mut bindings::msghdr) -> Self {
        // SAFETY: the caller's promise.
        let raw = unsafe { &mut *raw };
        let start = Start {
            // SAFETY: an iterator is plain data; the copy is only ever put back into this message.
            iter: unsafe { core::ptr::read(&raw.msg_iter) },
            control: Control::of(raw),
        };
        Self { raw, start }
    }

    pub(crate) fn as_ptr(&mut self) -> *mut bindings::msghdr {
        self.raw
    }

    /// Returns the flags of the message itself: those of a send call.
    pub fn flags(&self) -> Flags {
        Flags(self.raw.msg_flags)
    }

    /// Takes MSG_SPLICE_PAGES away: the pages are copied, not taken.
    pub fn copy_spliced_pages(&mut self) {
        self.raw.msg_flags &= !bindings::MSG_SPLICE_PAGES;
    }

    /// Runs `f` with MSG_DONTWAIT set.
    pub(crate) fn without_waiting<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> R {
        let flags = self.raw.msg_flags;
        self.raw.msg_flags |= bindings::MSG_DONTWAIT;
        let result = f(self);
        self.raw.msg_flags = flags;
        result
    }

    /// Goes back to where the call began: all of the buffers are to be filled again.
    pub fn start_over(&mut self) {
        // SAFETY: this message's own iterator, as it was in this call.
        self.raw.msg_iter = unsafe { core::ptr::read(&self.start.iter) };
    }

    /// Runs `f`; if it fails, the message is where it was before.
    pub fn all_or_nothing<R, E>(
        &mut self,
        f: impl FnOnce(&mut Self) -> core::result::Result<R, E>,
    ) -> core::result::Result<R, E> {
        // SAFETY: an iterator is plain data; the copy is put back into the same message, in the same call.
        let before = unsafe { core::ptr::read(&self.raw.msg_iter) };
        let result = f(self);
        if result.is_err() {
            self.raw.msg_iter = before;
        }
        result
    }

    /// Runs `f`, which calls TCP's `recvmsg`: if it succeeds, its control messages replace those of earlier calls.
    pub(crate) fn renewing_control<R>(
        &mut self,
        f: impl FnOnce(&mut Self) -> kernel::error::Result<R>,
    ) -> kernel::error::Result<R> {
        let before = Control::of(self.raw);
        self.start.control.put(self.raw);
        let result = f(self);
        if result.is_err() {
            before.put(self.raw);
        }
        result
    }

    /// Whether the call is to say how many bytes are left unread: TCP_INQ, or io_uring on its own behalf.
    pub fn wants_unread_count(&self, socket: &Socket) -> bool {
        // SAFETY: alive and TCP.
        self.raw.msg_get_inq() || unsafe { bindings::tcp_wants_inq(socket.as_ptr()) }
    }

    /// Says how many bytes are left unread, as TCP would, where `elsewhere` of them are not in TCP's queue. No other control
    /// message stays. Process context.
    pub fn set_unread_count(&mut self, socket: &Socket, elsewhere: usize) {
        let sk = socket.as_ptr();
        // SAFETY: alive and TCP, in both calls.
        let (unread, as_control) =
            unsafe { (bindings::tcp_inq_hint(sk), bindings::tcp_wants_inq(sk)) };
        let elsewhere = c_int::try_from(elsewhere).unwrap_or(c_int::MAX);
        self.raw.msg_inq = unread.saturating_add(elsewhere);
        self.start.control.put(self.raw);
        if as_control {
            let (level, kind) = (bindings::SOL_TCP as c_int, bindings::TCP_CM_INQ as c_int);
            let size = size_of::<c_int>() as c_int;
            let value = (&raw mut self.raw.msg_inq).cast();
            // SAFETY: the message of a receive call in progress; a value of that size.
            unsafe { bindings::put_cmsg(self.raw, level, kind, size, value) };
        }
    }

    /// Whether control messages came with the data.
    pub fn has_control(&self) -> bool {
        self.raw.msg_controllen != 0
    }

    /// Returns how many bytes are left to send or to fill.
    pub fn len(&self) -> usize {
        // SAFETY: `count` is plain data in each kind of iterator.
        unsafe {
            self.raw
                .msg_iter
                .__bindgen_anon_1
                .__bindgen_anon_1
                .as_ref()
                .count
        }
    }

    /// Whether nothing is left to send or to fill.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes to send, for a send call; [`None`] for a receive call.
    pub fn source(&mut self) -> Option<&mut IovIterSource<'_>> {
        if self.raw.msg_iter.data_source != (bindings::ITER_SOURCE != 0) {
            return None;
        }
        // SAFETY: valid for as long as `self` is borrowed, and a source.
        Some(unsafe { IovIterSource::from_raw(&raw mut self.raw.msg_iter) })
    }

    /// Returns the buffers to fill, for a receive call; [`None`] for a send call.
    pub fn dest(&mut self) -> Option<&mut IovIterDest<'_>> {
        if self.raw.msg_iter.data_source != (bindings::ITER_DEST != 0) {
            return None;
        }
        // SAFETY: valid for as long as `self` is borrowed, and a destination.
        Some(unsafe { IovIterDest::from_raw(&raw mut self.raw.msg_iter) })
    }

    /// Runs `f` on the first `limit` bytes of the message; what `f` leaves of them is there again afterwards.
    pub fn limited<R>(&mut self, limit: usize, f: impl FnOnce(&mut Self) -> R) -> R {
        let whole = self.len();
        let hidden = whole.saturating_sub(limit);
        self.set_len(whole - hidden);
        let result = f(self);
        self.set_len(self.len() + hidden);
        result
    }

    fn set_len(&mut self, len: usize) {
        // SAFETY: as in `len`; the count never exceeds what the iterator was made with.
        unsafe {
            self.raw
                .msg_iter
                .__bindgen_anon_1
                .__bindgen_anon_1
                .as_mut()
                .count = len;
        }
    }
}
