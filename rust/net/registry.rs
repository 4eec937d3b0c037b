// SPDX-License-Identifier: GPL-2.0

//! The list of all sockets that are adopted now. One exists, made at load.
//!
//! It is what unload walks, and it counts the [`Adopted`] objects that are alive, listed or not: the module's code may
//! only go when there is none.

use crate::adopted::{
    Adopted,
    Connection, //
};
use crate::lock::BhSpinLock;
use crate::new_bh_spinlock;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Atomic,
    Full,
    Relaxed, //
};
use kernel::sync::{
    Arc,
    ArcBorrow, //
};
use kernel::types::Opaque;
use net_sys as bindings;

/// Counts one object as alive until it is dropped.
pub(crate) struct Alive(Arc<Atomic<i64>>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Full);
    }
}

/// The fields that the registry's lock protects.
struct Inner<C: Connection> {
    /// First in the list; null when it is empty. The list is doubly linked through `Adopted::node`, not circular: `next`
    /// and `prev` point at the `Adopted` itself, null at the ends.
    first: *const Adopted<C>,
    /// No more sockets are taken in.
    closed: bool,
}

// SAFETY: the pointers are only followed under the lock, and what they point at is Send.
unsafe impl<C: Connection> Send for Inner<C> {}

/// All adopted sockets.
///
/// # Invariants
///
/// Each listed object is installed in its socket, or somebody else in the kernel has put a table of his own over it for a while; the socket
/// owns a reference to it: an object leaves the list, under the lock, before that reference can go.
#[pin_data]
pub struct Registry<C: Connection> {
    #[pin]
    inner: BhSpinLock<Inner<C>>,
    alive: Arc<Atomic<i64>>,
}

impl<C: Connection> Registry<C> {
    /// Makes an empty registry.
    pub fn new() -> Result<Arc<Self>> {
        let alive = Arc::new(Atomic::new(0), GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                inner <- new_bh_spinlock!(
                    Inner {
                        first: core::ptr::null(),
                        closed: false,
                    },
                    "xenvmc_registry"
                ),
                alive,
            }),
            GFP_KERNEL,
        )
    }

    pub(crate) fn alive(&self) -> Alive {
        self.alive.fetch_add(1, Full);
        Alive(self.alive.clone())
    }

    /// Returns how many adopted sockets exist, those included that were given back and are waiting to be freed.
    pub fn count_alive(&self) -> i64 {
        self.alive.load(Relaxed)
    }

    fn node(adopted: *const Adopted<C>) -> *mut bindings::list_head {
        // SAFETY: only called with listed or just added objects, which are alive.
        unsafe { Opaque::cast_into(core::ptr::addr_of!((*adopted).node)) }
    }

    pub(crate) fn insert(&self, adopted: &Adopted<C>) -> Result {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(EBUSY);
        }
        let this: *const Adopted<C> = adopted;
        // SAFETY: under the lock; `first` is null or listed.
        unsafe {
            Self::node(this).write(bindings::list_head {
                next: inner.first.cast_mut().cast(),
                prev: core::ptr::null_mut(),
            });
            if !inner.first.is_null() {
                (*Self::node(inner.first)).prev = this.cast_mut().cast();
            }
        }
        inner.first = this;
        Ok(())
    }

    pub(crate) fn remove(&self, adopted: &Adopted<C>) {
        let mut inner = self.inner.lock();
        // SAFETY: under the lock; `adopted` is listed, and so are its neighbours.
        unsafe {
            let bindings::list_head { next, prev } = Self::node(adopted).read();
            let (next, prev): (*const Adopted<C>, *const Adopted<C>) = (next.cast(), prev.cast());
            if prev.is_null() {
                inner.first = next;
            } else {
                (*Self::node(prev)).next = next.cast_mut().cast();
            }
            if !next.is_null() {
                (*Self::node(next)).prev = prev.cast_mut().cast();
            }
        }
    }

    /// Takes no more sockets in. Process context.
    pub fn close(&self) {
        self.inner.lock().closed = true;
    }

    /// Returns some listed socket that `is_wanted` chooses, under the registry's lock as for [`Self::for_each`], or [`None`]. Process or
    /// softirq context.
    pub fn find(&self, mut is_wanted: impl FnMut(&Adopted<C>) -> bool) -> Option<Arc<Adopted<C>>> {
        let inner = self.inner.lock();
        let mut next = inner.first;
        while !next.is_null() {
            // SAFETY: listed, so by the invariant an `Arc` that the socket keeps alive while we hold the lock.
            let adopted = unsafe { ArcBorrow::from_raw(next) };
            if is_wanted(&adopted) {
                return Some(adopted.into());
            }
            // SAFETY: listed, so alive.
            next = unsafe { (*Self::node(next)).next.cast() };
        }
        None
    }

    /// Returns the listed sockets that `is_wanted` chooses, under the registry's lock as for [`Self::for_each`]. Process context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn choose(
        &self,
        mut is_wanted: impl FnMut(&Adopted<C>) -> bool,
    ) -> Result<KVec<Arc<Adopted<C>>>> {
        let mut chosen = KVec::new();
        let mut count = 0;
        self.for_each(|adopted| count += usize::from(is_wanted(adopted)));
        // Room outside of the lock; what comes meanwhile is little.
        chosen.reserve(count, GFP_KERNEL)?;
        let mut result = Ok(());
        self.for_each(|adopted| {
            if result.is_ok() && is_wanted(adopted) {
                // SAFETY: listed, so by the invariant an `Arc` that the socket keeps alive while we hold the lock.
                let adopted: Arc<_> = unsafe { ArcBorrow::from_raw(adopted) }.into();
                result = chosen.push(adopted, GFP_ATOMIC);
            }
        });
        result?;
        Ok(chosen)
    }

    /// Calls `visit` for each listed socket, under the registry's lock: it must be short and take no lock under which a
    /// socket is listed.
    pub fn for_each(&self, mut visit: impl FnMut(&Adopted<C>)) {
        let inner = self.inner.lock();
        let mut next = inner.first;
        while !next.is_null() {
            // SAFETY: listed, so alive.
            unsafe {
                visit(&*next);
                next = (*Self::node(next)).next.cast();
            }
        }
    }
}
