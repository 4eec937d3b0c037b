// SPDX-License-Identifier: GPL-2.0

//! A TCP socket of this kernel, and the same with its lock held.
//!
//! C headers: `include/net/sock.h`, `include/net/tcp.h`.

use core::ops::Deref;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::aref::{
    ARef,
    AlwaysRefCounted, //
};
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kernel::types::{
    NotThreadSafe,
    Opaque, //
};
use net_sys as bindings;

/// How often [`Socket::lock_within`] looks.
const HELD_STEP_US: u32 = 200;

/// A TCP socket. One exists for each `struct sock` of the kernel that somebody here looks at.
///
/// # Invariants
///
/// The object is a full socket (neither a request nor a time-wait one) of protocol TCP and is kept alive by a reference.
#[repr(transparent)]
pub struct Socket(Opaque<bindings::sock>);

// SAFETY: a `struct sock` is made to be used from all CPUs; what needs its lock is only reachable through `Locked`.
unsafe impl Send for Socket {}
// SAFETY: see above.
unsafe impl Sync for Socket {}

// SAFETY: `sock_hold` and `sock_put` count references; the last `sock_put` frees.
unsafe impl AlwaysRefCounted for Socket {
    fn inc_ref(&self) {
        // SAFETY: `self` is alive, so its count is not zero.
        unsafe { bindings::sock_hold(self.as_ptr()) }
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: the caller gives up one reference that it owns.
        unsafe { bindings::sock_put(obj.cast().as_ptr()) }
    }
}

/// What a `shutdown` call closes, as `sk_shutdown` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shutdown(u8);

impl Shutdown {
    /// Whether nothing more can be received (`RCV_SHUTDOWN`).
    pub fn receive(self) -> bool {
        u32::from(self.0) & bindings::RCV_SHUTDOWN != 0
    }

    /// Whether nothing more can be sent (`SEND_SHUTDOWN`).
    pub fn send(self) -> bool {
        u32::from(self.0) & bindings::SEND_SHUTDOWN != 0
    }

    /// What both close together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether nothing more can be received or sent.
    pub fn is_full(self) -> bool {
        self.receive() && self.send()
    }

    pub(crate) fn from_raw(how: u8) -> Self {
        Self(how)
    }
}

impl Socket {
    /// Borrows a socket.
    ///
    /// # Safety
    ///
    /// `sk` must point at a full TCP socket that stays alive for `'a`.
    pub(crate) unsafe fn from_raw<'a>(sk: *mut bindings::sock) -> &'a Self {
        // SAFETY: `Socket` is a transparent wrapper; the caller vouches for the rest.
        unsafe { &*sk.cast() }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::sock {
        self.0.get()
    }

    /// Takes the socket lock. Process context; may sleep.
    pub fn lock(&self) -> Locked<'_> {
        // SAFETY: by the invariant the socket is alive; the caller is in process context.
        unsafe { bindings::lock_sock(self.as_ptr()) };
        Locked {
            socket: self,
            release: true,
            _task: NotThreadSafe,
        }
    }

    /// Takes the socket lock, unless a task has held it for `limit_us` microseconds, or others have in turn. Process context; may sleep.
    pub fn lock_within(&self, limit_us: u32) -> Option<Locked<'_>> {
        let mut waited_us = 0;
        loop {
            // SAFETY: by the invariant the socket is alive; the caller is in process context.
            if unsafe { bindings::try_lock_sock(self.as_ptr()) } {
                return Some(Locked {
                    socket: self,
                    release: true,
                    _task: NotThreadSafe,
                });
            }
            if waited_us >= limit_us {
                return None;
            }
            fsleep(Delta::from_micros(HELD_STEP_US.into()));
            waited_us += HELD_STEP_US;
        }
    }

    /// Returns the state of TCP's state machine (`TCP_ESTABLISHED`, …). Any context.
    pub fn state(&self) -> u32 {
        // SAFETY: alive; a byte that is read with READ_ONCE semantics.
        let state =
            unsafe { core::ptr::addr_of!((*self.as_ptr()).__sk_common.skc_state).read_volatile() };
        u32::from(state)
    }

    /// Whether the connection is open both ways. Any context.
    pub fn is_established(&self) -> bool {
        self.state() == bindings::TCP_ESTABLISHED
    }

    /// Whether the socket's state is `TCP_ESTABLISHED` or `TCP_CLOSE_WAIT`, those in which it may send. Any context.
    pub fn can_send(&self) -> bool {
        matches!(
            self.state(),
            bindings::TCP_ESTABLISHED | bindings::TCP_CLOSE_WAIT
        )
    }

    /// Whether the connection is over. Any context.
    pub fn is_closed(&self) -> bool {
        self.state() == bindings::TCP_CLOSE
    }

    /// Whether `sk_err` holds an error that the next call reports. Any context.
    pub fn has_error(&self) -> bool {
        // SAFETY: alive; an integer that is read with READ_ONCE semantics.
        unsafe { core::ptr::addr_of!((*self.as_ptr()).sk_err).read_volatile() != 0 }
    }

    /// Returns which directions are shut down. Any context.
    pub fn shutdown(&self) -> Shutdown {
        // SAFETY: alive; a byte that is read with READ_ONCE semantics.
        Shutdown(unsafe { core::ptr::addr_of!((*self.as_ptr()).sk_shutdown).read_volatile() })
    }

    /// Returns the sequence number of the next byte that the application gets from TCP; that of the end of the stream when
    /// all was read, also when TCP has counted the end as read already (it does so with the last byte before it). Any
    /// context; stable under the reader's exclusion.
    pub fn copied_seq(&self) -> u32 {
        // SAFETY: alive and TCP.
        unsafe { bindings::tcp_copied_data_seq(self.as_ptr()) }
    }

    /// Returns the sequence number of the next byte expected from the network. Any context.
    pub fn received_seq(&self) -> u32 {
        // SAFETY: alive and TCP.
        unsafe { bindings::tcp_rcv_nxt(self.as_ptr()) }
    }

    /// Returns the sequence number behind the last byte received, not counting the end of the stream.
    /// Stable with the socket locked.
    pub fn received_data_seq(&self) -> u32 {
        // SAFETY: alive and TCP.
        unsafe { bindings::tcp_received_data_seq(self.as_ptr()) }
    }

    /// Whether the next byte of TCP's is urgent: a call that has bytes already ends before it. Any context.
    pub fn is_at_urgent(&self) -> bool {
        // SAFETY: alive and TCP.
        unsafe { bindings::tcp_is_at_urgent(self.as_ptr()) }
    }

    /// Resets the connection, as if the peer had, with `errno` (positive). Bytes that TCP has received can still be read.
    /// Process context, no lock held.
    pub fn abort(&self, errno: i32) {
        // SAFETY: alive; process context. The result says only that it was closed before.
        unsafe { bindings::tcp_abort(self.as_ptr(), errno) };
    }

    /// Whether the other end is known to be established: it has acknowledged data, or sent some. Any context.
    pub fn is_confirmed(&self) -> bool {
        // SAFETY: alive and TCP.
        unsafe { bindings::tcp_is_confirmed(self.as_ptr()) }
    }

    /// Returns how many bytes a read waits for: `len` with MSG_WAITALL, else SO_RCVLOWAT, and at least one. Any context.
    pub fn low_water(&self, wait_all: bool, len: usize) -> usize {
        let len = i32::try_from(len).unwrap_or(i32::MAX);
        // SAFETY: alive.
        let target = unsafe { bindings::sock_rcvlowat(self.as_ptr(), wait_all.into(), len) };
        usize::try_from(target).unwrap_or(1)
    }

    /// Whether TCP itself has so many unread bytes that it wakes a reader: SO_RCVLOWAT, or all that it can hold. Any context.
    pub fn tcp_has_low_water(&self) -> bool {
        // SAFETY: alive; the helper only reads.
        unsafe { bindings::tcp_has_low_water(self.as_ptr()) }
    }

    /// Returns SO_SNDBUF in bytes if the application has set it, else 0: what TCP has chosen may change. Any context.
    pub fn fixed_send_buffer(&self) -> usize {
        // SAFETY: alive; an integer that is read with READ_ONCE semantics.
        let bytes = unsafe { bindings::sk_fixed_sndbuf(self.as_ptr()) };
        usize::try_from(bytes).unwrap_or(0)
    }

    /// Returns TCP_USER_TIMEOUT in milliseconds; zero if it is not set. Any context.
    pub fn user_timeout_ms(&self) -> u32 {
        // SAFETY: alive and TCP; an integer that is read with READ_ONCE semantics.
        unsafe { bindings::tcp_user_timeout(self.as_ptr()) }
    }

    /// Returns SO_RCVTIMEO in jiffies; zero when the caller does not want to wait. Any context.
    pub fn receive_timeout(&self, nonblocking: bool) -> kernel::ffi::c_long {
        // SAFETY: alive.
        unsafe { bindings::sock_rcvtimeo(self.as_ptr(), nonblocking) }
    }

    /// Returns SO_SNDTIMEO in jiffies; zero when the caller does not want to wait. Any context.
    pub fn send_timeout(&self, nonblocking: bool) -> kernel::ffi::c_long {
        // SAFETY: alive.
        unsafe { bindings::sock_sndtimeo(self.as_ptr(), nonblocking) }
    }

    /// Tells the socket's readers (sleepers, pollers, SIGIO) that there is something to read. Somebody else's callback is not
    /// called: it may read TCP's queue, which wants the socket's lock ([`Locked::data_ready_locked`]).
    ///
    /// Softirq or process context, never hard interrupt context.
    pub fn data_ready(&self) {
        if let Some(method) = crate::eligible::tcp_data_ready(self) {
            // SAFETY: alive; TCP's own callback, which needs no lock.
            unsafe { method(self.as_ptr()) }
        }
    }

    /// Tells the socket's writers (sleepers, pollers, SIGIO) that there is room, if one of them found none since they were told
    /// last, as `tcp_check_space`. Context as [`Self::data_ready`].
    pub fn write_space(&self) {
        // Both look at the `struct socket`, which is freed after an RCU grace period.
        let _rcu = kernel::sync::rcu::read_lock();
        // SAFETY: alive; the callback is set for the whole life of a socket.
        unsafe {
            if bindings::sk_wants_space(self.as_ptr()) {
                bindings::sk_write_space(self.as_ptr());
            }
        }
    }

    /// Whether somebody wants SIGIO. Any context.
    pub fn is_async(&self) -> bool {
        // SAFETY: alive; one flag.
        unsafe { bindings::sock_flag(self.as_ptr(), bindings::sock_flags_SOCK_FASYNC) }
    }

    /// Notes that a writer found no room, so that [`Self::write_space`] reports the room later. Process context, from a
    /// system call on the socket.
    pub fn note_no_space(&self) {
        // SAFETY: alive; in a system call on it, so that `sk_socket` is there.
        unsafe {
            bindings::sk_set_async_nospace(self.as_ptr());
            bindings::sk_set_nospace(self.as_ptr());
        }
    }

    /// Whether anybody sleeps on the socket, polls it, or wants SIGIO from it. Any context. Full barrier before the look, as
    /// `wq_has_sleeper`.
    #[inline]
    pub fn is_watched(&self) -> bool {
        let _rcu = kernel::sync::rcu::read_lock();
        // SAFETY: alive; the wait queue is protected by RCU.
        unsafe { bindings::sk_is_watched(self.as_ptr()) }
    }

    /// Whether the last descriptor has been closed. Stays so. Any context.
    pub fn is_dead(&self) -> bool {
        // SAFETY: alive; one flag.
        unsafe { bindings::sock_flag(self.as_ptr(), bindings::sock_flags_SOCK_DEAD) }
    }

    /// Whether the application has accepted the socket or opened it itself: whether a `struct socket` belongs to it.
    pub fn has_descriptor(&self) -> bool {
        // SAFETY: alive; a pointer that is only compared.
        !unsafe { core::ptr::addr_of!((*self.as_ptr()).sk_socket).read_volatile() }.is_null()
    }

    /// Whether the current task alone can use the socket: one thread, one descriptor.
    ///
    /// Call it from a system call on the socket: then nobody else is, or was since the last such call, inside any method
    /// of it.
    pub fn is_exclusive(&self) -> bool {
        // SAFETY: alive; in a system call on it `sk_socket` and its file stay.
        unsafe {
            let socket = (*self.as_ptr()).sk_socket;
            !socket.is_null()
                && bindings::current_is_user()
                && bindings::file_is_exclusive((*socket).file)
        }
    }

    /// Reports the end of a stream to a writer as TCP does: raises SIGPIPE unless `MSG_NOSIGNAL`, and returns the error
    /// to give to it (`sk_stream_error`). Takes `sk_err`.
    pub fn stream_error(&self, flags: u32, error: Error) -> Error {
        // SAFETY: alive; process context.
        let error =
            unsafe { bindings::sk_stream_error(self.as_ptr(), flags as i32, error.to_errno()) };
        Error::from_errno(error)
    }
}

/// A socket whose lock the current context holds.
pub struct Locked<'a> {
    socket: &'a Socket,
    release: bool,
    _task: NotThreadSafe,
}

impl<'a> Locked<'a> {
    /// Makes a guard for a lock that is held already and that the guard will not release.
    ///
    /// # Safety
    ///
    /// The caller must hold the lock of `socket` (as its owner, or its spinlock with no owner) for as long as the guard
    /// lives, and have no other guard that is used meanwhile.
    pub(crate) unsafe fn assume(socket: &'a Socket) -> Self {
        Self {
            socket,
            release: false,
            _task: NotThreadSafe,
        }
    }

    /// Returns the socket.
    pub fn socket(&self) -> &'a Socket {
        self.socket
    }

    /// Tells whoever reads the socket that there is something to read, whosever the callback is. Process context.
    pub fn data_ready_locked(&self) {
        // SAFETY: alive and locked; the callback is set for the whole life of a socket.
        unsafe { bindings::sk_data_ready(self.socket.as_ptr()) }
    }

    /// Throws away what nobody has read; for a connection that is reset next.
    pub fn discard_unread(&mut self) {
        // SAFETY: alive, TCP, locked.
        unsafe { bindings::tcp_discard_unread(self.socket.as_ptr()) }
    }

    /// Returns the sequence number that the next byte written to TCP will get.
    pub fn write_seq(&self) -> u32 {
        // SAFETY: alive and TCP.
        unsafe { bindings::tcp_write_seq(self.socket.as_ptr()) }
    }

    /// Returns the peer's initial sequence number as this side measures it: that of the first byte received.
    ///
    /// It is `rcv_nxt - bytes_received`, the same value over the whole life of the connection.
    pub fn received_isn(&self) -> u32 {
        // SAFETY: alive and TCP.
        unsafe { bindings::tcp_received_isn(self.socket.as_ptr()) }
    }

    /// Returns `snd_una - bytes_acked`: this side's own initial sequence number, or one more on a socket that came from a
    /// listener.
    pub fn sent_isn(&self) -> u32 {
        // SAFETY: alive and TCP.
        unsafe { bindings::tcp_sent_isn(self.socket.as_ptr()) }
    }

    /// Whether the application holds small segments back (TCP_CORK, MSG_MORE).
    pub fn is_corked(&self) -> bool {
        // SAFETY: alive, TCP, locked.
        unsafe { bindings::tcp_is_corked(self.socket.as_ptr()) }
    }

    /// Whether TCP holds bytes back with nothing in flight, so that no acknowledgement will set them going (MSG_MORE).
    pub fn has_stuck_tail(&self) -> bool {
        // SAFETY: alive, TCP, locked.
        unsafe { bindings::tcp_has_stuck_tail(self.socket.as_ptr()) }
    }

    /// Lets what TCP has queued now go with the next acknowledgement, whatever Nagle says.
    pub fn push_pending(&mut self) {
        // SAFETY: alive, TCP, locked.
        unsafe { bindings::tcp_push_pending(self.socket.as_ptr()) }
    }

    /// TCP waits for an acknowledgement no longer than a connection that has lost nothing yet: its other end was away, for which
    /// TCP has doubled its timer again and again, and is back.
    pub fn restart_backoff(&mut self) {
        // SAFETY: alive, TCP, locked.
        unsafe { bindings::tcp_restart_backoff(self.socket.as_ptr()) }
    }

    /// Whether an urgent byte has come that TCP's reader has not passed.
    pub fn has_urgent(&self) -> bool {
        // SAFETY: alive and TCP.
        unsafe { bindings::tcp_has_urgent(self.socket.as_ptr()) }
    }

    /// Whether an urgent byte was sent that the other end has not acknowledged.
    pub fn sends_urgent(&self) -> bool {
        // SAFETY: alive, TCP, locked.
        unsafe { bindings::tcp_sends_urgent(self.socket.as_ptr()) }
    }

    /// Whether urgent data is pending that comes before sequence number `seq`.
    pub fn has_urgent_before(&self, seq: u32) -> bool {
        // SAFETY: alive and TCP.
        unsafe { bindings::tcp_has_urgent_before(self.socket.as_ptr(), seq) }
    }

    /// Whether some task waits for the socket lock: it may be on its way into a method that was replaced meanwhile.
    pub fn has_lock_waiter(&self) -> bool {
        // SAFETY: alive.
        unsafe { bindings::sk_lock_has_waiter(self.socket.as_ptr()) }
    }

    /// Returns a counted reference.
    pub fn to_owned(&self) -> ARef<Socket> {
        self.socket.into()
    }
}

impl Deref for Locked<'_> {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        self.socket
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if self.release {
            // SAFETY: taken by `Socket::lock` or `Socket::lock_within` in this task.
            unsafe { bindings::release_sock(self.socket.as_ptr()) };
        }
    }
}
