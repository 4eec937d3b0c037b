// SPDX-License-Identifier: GPL-2.0

//! A socket that was taken over. One [`Adopted`] exists for each TCP connection to a co-resident guest.
//!
//! An adopted socket has a `struct proto` of its own: a copy of the one it had, with some methods replaced by those of
//! [`crate::methods`]. The copy lies inside the [`Adopted`], which is found from the socket by `container_of`; neither
//! `sk_user_data` nor the socket's ULP slot is touched. Giving the socket back is one store into `sk_prot`.
//!
//! # Lifetime
//!
//! While the copy is installed the socket owns one reference to the [`Adopted`]. Callers of `sk_prot` methods hold no
//! lock and no reference between loading the pointer and entering the method, and do not sleep there; so the socket's
//! reference is dropped only after an RCU-tasks grace period, or, once the last descriptor is closed, an ordinary one. A
//! method that may sleep takes a reference of its own first.
//!
//! # Lock order
//!
//! 1. whatever the [`Connection`] takes before the socket lock
//! 2. the socket lock
//! 3. the [`Registry`]'s lock

use crate::message::{
    Flags,
    Message, //
};
use crate::methods;
use crate::registry::Registry;
use crate::socket::{
    Locked,
    Shutdown,
    Socket, //
};
use core::cell::UnsafeCell;
use core::ops::Deref;
use kernel::container_of;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::atomic::Atomic;
use kernel::sync::{
    Arc,
    ArcBorrow, //
};
use kernel::types::Opaque;
use net_sys as bindings;

/// What replaces the methods of an adopted socket.
///
/// Unless said otherwise a method runs in process context, without the socket lock, and may sleep.
pub trait Connection: Sized + Send + Sync + 'static {
    /// What the socket lock protects besides the socket.
    type Locked: Send;

    /// Sends; `sendmsg` and everything that ends there.
    fn sendmsg(this: &Arc<Adopted<Self>>, message: &mut Message<'_>) -> Result<usize>;

    /// Receives; `recvmsg` and everything that ends there.
    fn recvmsg(this: &Arc<Adopted<Self>>, message: &mut Message<'_>, flags: Flags)
        -> Result<usize>;

    /// Whether there is something to read that TCP does not know of; asked by `poll` after TCP said no.
    ///
    /// Any context but hard interrupts, no lock. Whoever answers `false` must have arranged for
    /// [`Socket::data_ready`] at the next byte.
    fn is_readable(this: &Adopted<Self>) -> bool;

    /// Whether there is room to write, or [`None`] when TCP is to answer. Context as [`Self::is_readable`]; `false` needs
    /// a later [`Socket::write_space`].
    fn has_space(this: &Adopted<Self>) -> Option<bool>;

    /// Returns how many bytes wait that TCP does not know of (SIOCINQ). No lock.
    fn unread(this: &Adopted<Self>) -> usize;

    /// Returns how many bytes TCP does not know of for which the other end has no room (SIOCOUTQ). No lock.
    fn unsent(this: &Adopted<Self>) -> usize;

    /// The owner of the socket lock is about to release it. Softirqs off, no sleeping.
    fn releasing(guard: &mut Guard<'_, Self>);

    /// `shutdown` was called; TCP acts on it next. Socket locked, no sleeping.
    fn shutting_down(guard: &mut Guard<'_, Self>, how: Shutdown);

    /// The last descriptor is closed; TCP acts on it next. Here alone [`Guard::restore_at_close`] may be called.
    fn closing(this: &Arc<Adopted<Self>>);

    /// Whether an option wants the socket as TCP made it. Any context.
    fn wants_tcp(level: i32, name: i32) -> bool;

    /// A socket option is about to be set, or one that moves data to be read. Where [`Self::wants_tcp`] says so, the socket must be given
    /// back before TCP looks at the option; it is not taken over again until then.
    fn option(this: &Arc<Adopted<Self>>, level: i32, name: i32);

    /// Whether a sockmap may take the socket, which is given back to TCP in that case. Socket locked, no sleeping.
    fn may_enter_sockmap(guard: &mut Guard<'_, Self>) -> bool;

    /// The socket is TCP's alone again, by [`Guard::restore`], a disconnect or its end. Socket locked or dead, maybe in
    /// softirq; no sleeping.
    fn restored(guard: &mut Guard<'_, Self>);
}

/// A socket with some of its methods replaced.
///
/// # Invariants
///
/// * `original` outlives the socket: it is one of the kernel's own static tables.
/// * `locked` is only accessed with the lock of `socket` held.
/// * While the socket's `sk_prot` is `proto`, the socket owns one reference to this object.
#[pin_data]
pub struct Adopted<C: Connection> {
    /// Read by the kernel, without a lock, from the moment it is installed; never written after that.
    pub(crate) proto: UnsafeCell<bindings::proto>,
    original: *const bindings::proto,
    socket: ARef<Socket>,
    /// Protected by the registry's lock.
    pub(crate) node: Opaque<bindings::list_head>,
    grace: Opaque<bindings::callback_head>,
    registry: Arc<Registry<C>>,
    locked: UnsafeCell<C::Locked>,
    #[pin]
    connection: C,
    /// Dropped last: counts this object as alive.
    _alive: crate::registry::Alive,
}

// SAFETY: `locked` is guarded by the socket lock, `node` by the registry's, `proto` is read-only once shared, `grace` is
// used once; everything else is Send and Sync.
unsafe impl<C: Connection> Send for Adopted<C> {}
// SAFETY: see above.
unsafe impl<C: Connection> Sync for Adopted<C> {}

impl<C: Connection> Adopted<C> {
    /// Takes over a socket.
    ///
    /// Socket locked, maybe in softirq; `flags` says how memory may be had.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EBUSY` if the socket has been taken over already or the registry is closed; what `connection` returns.
    pub fn install(
        guard: &mut Locked<'_>,
        registry: &Arc<Registry<C>>,
        connection: impl PinInit<C, Error>,
        locked: C::Locked,
        flags: kernel::alloc::Flags,
    ) -> Result<Arc<Self>> {
        let sk = guard.socket().as_ptr();
        // SAFETY: `sk` is alive, and `sk_prot` only changes under the lock that the caller holds.
        let original: *const bindings::proto = unsafe { (*sk).__sk_common.skc_prot };
        // SAFETY: `original` is a valid table.
        if unsafe { methods::is_ours::<C>(original) } {
            return Err(EBUSY);
        }
        // SAFETY: `original` is a valid table, plain data.
        let mut proto = unsafe { core::ptr::read(original) };
        methods::replace::<C>(&mut proto);
        let adopted = Arc::pin_init(
            try_pin_init!(Self {
                proto: UnsafeCell::new(proto),
                original,
                socket: guard.to_owned(),
                node: Opaque::uninit(),
                grace: Opaque::uninit(),
                registry: registry.clone(),
                locked: UnsafeCell::new(locked),
                connection <- connection,
                _alive: registry.alive(),
            }? Error),
            flags,
        )?;
        registry.insert(&adopted)?;
        let proto = adopted.proto.get();
        methods::mark(proto);
        // INVARIANT: this is the socket's own reference.
        let _ = Arc::into_raw(adopted.clone());
        // SAFETY: `sk` is alive and locked; `proto` stays valid as long as it is installed and a grace period beyond.
        // Everything in it is written /before/ the pointer is published, so that lockless callers see whole methods;
        // they load the pointer with READ_ONCE and depend on it by address.
        unsafe {
            Atomic::<*mut bindings::proto>::from_ptr(core::ptr::addr_of_mut!(
                (*sk).__sk_common.skc_prot
            ))
            .store(proto, kernel::sync::atomic::Release)
        };
        Ok(adopted)
    }

    /// Finds what a socket was taken over with, or the table whose methods are meant instead of ours.
    ///
    /// # Safety
    ///
    /// `sk` must be alive, and the caller, for `'a`, either in a method of a socket with a descriptor, without sleeping of its
    /// own will since `sk_prot` was loaded, or in an RCU read-side section, softirqs off included; or `restore` was not called
    /// yet, and `'a` ends before it is.
    pub(crate) unsafe fn of<'a>(
        sk: *mut bindings::sock,
    ) -> core::result::Result<ArcBorrow<'a, Self>, *const bindings::proto> {
        // SAFETY: alive; READ_ONCE semantics.
        let proto: *const bindings::proto =
            unsafe { core::ptr::addr_of!((*sk).__sk_common.skc_prot).read_volatile() };
        // SAFETY: a valid table, by the kernel's rules or our invariant.
        if !unsafe { methods::is_ours::<C>(proto) } {
            // SAFETY: see above.
            return Err(unsafe { methods::meant::<C>(proto) });
        }
        // SAFETY: only `install` makes tables with these methods, inside an `Adopted<C>` that lives in an `Arc` and
        // outlives the section that the caller is in.
        Ok(unsafe {
            ArcBorrow::from_raw(container_of!(
                proto.cast::<UnsafeCell<bindings::proto>>(),
                Self,
                proto
            ))
        })
    }

    /// Returns what a locked socket was taken over with, if it was.
    pub fn find(locked: &Locked<'_>) -> Option<Arc<Self>> {
        // A child that was not accepted yet is destroyed with its listener, whoever owns it.
        let _rcu = kernel::sync::rcu::read_lock();
        // SAFETY: alive; in an RCU read-side section until there is a reference.
        unsafe { Self::of(locked.socket().as_ptr()) }
            .ok()
            .map(Arc::from)
    }

    /// Returns the socket.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Takes the socket lock. Process context; may sleep.
    pub fn lock(&self) -> Guard<'_, C> {
        Guard {
            locked: self.socket.lock(),
            adopted: self,
        }
    }

    /// Takes the socket lock, unless a task holds it for long, see [`Socket::lock_within`]. Process context; may sleep.
    pub fn lock_within(&self, limit_us: u32) -> Option<Guard<'_, C>> {
        let locked = self.socket.lock_within(limit_us)?;
        Some(Guard {
            locked,
            adopted: self,
        })
    }

    /// Runs `f` with the guard for a lock that the caller holds; does nothing if it is another socket's.
    pub fn with_lock<R>(
        &self,
        locked: &mut Locked<'_>,
        f: impl FnOnce(&mut Guard<'_, C>) -> R,
    ) -> Option<R> {
        if locked.socket().as_ptr() != self.socket.as_ptr() {
            return None;
        }
        // SAFETY: `locked` shows that the lock is held, and is not used while it is borrowed.
        Some(f(&mut unsafe { self.assume_locked() }))
    }

    /// Returns the guard for a lock that is held already.
    ///
    /// # Safety
    ///
    /// As [`Locked::assume`].
    pub(crate) unsafe fn assume_locked(&self) -> Guard<'_, C> {
        Guard {
            // SAFETY: the caller's promise.
            locked: unsafe { Locked::assume(&self.socket) },
            adopted: self,
        }
    }

    /// Whether the methods are still installed. Stable only under the socket lock.
    pub fn is_installed(&self) -> bool {
        let sk = self.socket.as_ptr();
        // SAFETY: alive; READ_ONCE semantics.
        let proto = unsafe { core::ptr::addr_of!((*sk).__sk_common.skc_prot).read_volatile() };
        core::ptr::eq(proto, self.proto.get())
    }

    /// Returns the table that the socket had before.
    pub(crate) fn original(&self) -> *const bindings::proto {
        self.original
    }

    /// Sends over TCP: the socket's own `sendmsg`. Takes the socket lock itself; may sleep for send buffer space.
    pub fn tcp_sendmsg(&self, message: &mut Message<'_>) -> Result<usize> {
        let len = message.len();
        // SAFETY: `original` is TCP's table, the socket is alive and the message valid for the call.
        let sent = unsafe {
            methods::call_sendmsg(self.original, self.socket.as_ptr(), message.as_ptr(), len)
        };
        kernel::error::to_result(sent).map(|()| sent as usize)
    }

    /// Whether TCP would let a writer go on. Any context.
    pub fn tcp_has_space(&self) -> bool {
        let sk = self.socket.as_ptr();
        // SAFETY: alive; a method of TCP's table that takes no lock.
        unsafe {
            bindings::sk_has_wspace(sk)
                && (*self.original)
                    .stream_memory_free
                    .is_none_or(|method| method(sk, 1))
        }
    }

    /// Receives from TCP: the socket's own `recvmsg`, at most `limit` bytes. Takes the socket lock itself.
    pub fn tcp_recvmsg(
        &self,
        message: &mut Message<'_>,
        limit: usize,
        flags: Flags,
    ) -> Result<usize> {
        message.renewing_control(|message| {
            message.limited(limit, |message| {
                let len = message.len();
                // SAFETY: as in `tcp_sendmsg`.
                let received = unsafe {
                    methods::call_recvmsg(
                        self.original,
                        self.socket.as_ptr(),
                        message.as_ptr(),
                        len,
                        flags,
                    )
                };
                kernel::error::to_result(received).map(|()| received as usize)
            })
        })
    }

    /// Whether somebody other than our own waits sleeps on the socket as the methods of TCP do: a task that entered one of
    /// them before the socket was adopted.
    ///
    /// Process or softirq context.
    pub fn has_foreign_sleeper(&self) -> bool {
        self.socket.count_woken_waiters() > 0
    }
}

impl<C: Connection> Deref for Adopted<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.connection
    }
}

/// An adopted socket whose lock is held.
pub struct Guard<'a, C: Connection> {
    locked: Locked<'a>,
    adopted: &'a Adopted<C>,
}

impl<'a, C: Connection> Guard<'a, C> {
    /// Returns the adopted socket.
    pub fn adopted(&self) -> &'a Adopted<C> {
        self.adopted
    }

    /// Returns what the lock protects.
    pub fn state(&mut self) -> &mut C::Locked {
        // SAFETY: the socket lock is held, and this is the only guard that is used.
        unsafe { &mut *self.adopted.locked.get() }
    }

    /// Returns the locked socket and what the lock protects.
    pub fn split(&mut self) -> (&mut Locked<'a>, &mut C::Locked) {
        // SAFETY: as in `state`.
        (&mut self.locked, unsafe { &mut *self.adopted.locked.get() })
    }

    /// Sends over TCP what there is room for, without blocking; whatever the message's flags say. Process context.
    ///
    /// # Errors
    ///
    /// Those of TCP's `sendmsg`; `EAGAIN` if there is no room.
    pub fn tcp_send_now(&mut self, message: &mut Message<'_>) -> Result<usize> {
        let sk = self.locked.socket().as_ptr();
        message.without_waiting(|message| {
            let len = message.len();
            // SAFETY:
            // - the socket is alive, TCP's and locked, and a socket is only adopted with TCP's own methods, so that this is
            //   what its `sendmsg` calls with the lock held;
            // - the message is valid for the call.
            let sent = unsafe { bindings::tcp_sendmsg_locked(sk, message.as_ptr(), len) };
            kernel::error::to_result(sent).map(|()| sent as usize)
        })
    }

    /// Gives the socket's methods back, once; later calls do nothing.
    ///
    /// The caller has settled what concerns the data before. Tasks that sleep in the methods go on in them until they
    /// look; wake them. The [`Adopted`] lives on until all have left.
    pub fn restore(&mut self) {
        self.restore_as(self.locked.is_dead());
    }

    /// The same from [`Connection::closing`].
    ///
    /// The socket layer frees the socket's inode next, after a grace period too: it is the same one, where a later
    /// [`Self::restore`] would ask for one of its own, at the cost of waking RCU's threads for each connection.
    pub fn restore_at_close(&mut self) {
        self.restore_as(true);
    }

    /// `has_no_descriptor`: the last one is closed.
    fn restore_as(&mut self, has_no_descriptor: bool) {
        let adopted = self.adopted;
        if !adopted.is_installed() {
            return;
        }
        let sk = adopted.socket.as_ptr();
        // SAFETY: alive and locked; the original table is valid for ever.
        unsafe {
            core::ptr::addr_of_mut!((*sk).__sk_common.skc_prot)
                .write_volatile(adopted.original.cast_mut())
        };
        crate::descriptor::restore(&self.locked);
        adopted.registry.remove(adopted);
        C::restored(self);
        // Who calls a method of a socket without descriptor does so with softirqs off (its timers, its softirqs, `release_cb`), in
        // an RCU read-side section (`destroy`), or with a reference (`close`): an ordinary grace period, which costs less, is
        // enough. (`sock_diag_destroy` alone, for `ss -K`, loads `sk_prot` and one of its fields with nothing of that; a task would have to be
        // preempted between these two loads for a whole grace period.)
        let wait = if has_no_descriptor {
            bindings::call_rcu
        } else {
            bindings::call_rcu_tasks
        };
        // SAFETY: `grace` is used for nothing else and this code runs once, as the pointer above changes once. The
        // callback gets back the reference that the socket owned.
        unsafe {
            wait(
                adopted.grace.get(),
                Some(methods::drop_socket_reference::<C>),
            )
        };
    }

    /// Throws away what nobody has read; for a connection that is reset next.
    pub fn discard_unread(&mut self) {
        self.locked.discard_unread();
    }

    /// Lets TCP take what has arrived while the socket was locked; it stays locked. Process context.
    pub fn take_arrived(&mut self) {
        // SAFETY: alive, and locked by this task. Nothing refers to what the lock protects while `self` is borrowed, so that our
        // `release_cb`, which is called, may.
        unsafe { bindings::__sk_flush_backlog(self.adopted.socket.as_ptr()) }
    }

    /// Makes `splice` read through our `recvmsg` from now on. Needs a descriptor; does nothing when done already.
    pub fn replace_splice(&mut self) -> Result {
        crate::descriptor::replace::<C>(&self.locked)
    }
}

impl<'a, C: Connection> Deref for Guard<'a, C> {
    type Target = Locked<'a>;

    fn deref(&self) -> &Locked<'a> {
        &self.locked
    }
}

impl<C: Connection> Adopted<C> {
    /// Returns the object that `head` lies in.
    ///
    /// # Safety
    ///
    /// `head` must come from [`Guard::restore`], which gave the socket's reference to the caller.
    pub(crate) unsafe fn from_grace(head: *mut bindings::callback_head) -> Arc<Self> {
        // SAFETY: by the caller's promise `head` is the field of an `Adopted<C>` in an `Arc`, with one reference ours.
        unsafe { Arc::from_raw(container_of!(Opaque::cast_from(head), Self, grace)) }
    }
}
