// SPDX-License-Identifier: GPL-2.0

//! Spinlocks that softirqs and tasks share.
//!
//! C header: `include/linux/spinlock.h` (`spin_lock_bh`).

use kernel::ffi::{
    c_char,
    c_int, //
};
use kernel::sync::lock::{
    Backend,
    Lock, //
};
use net_sys as bindings;

/// A spinlock that is taken with softirqs off. Process and softirq context, not hard interrupts.
pub type BhSpinLock<T> = Lock<T, BhBackend>;

/// The backend of [`BhSpinLock`].
pub struct BhBackend;

// SAFETY: `spin_lock_bh` excludes other CPUs by the lock and this CPU's softirqs by turning them off; `relock` is the
// default, which locks the same way.
unsafe impl Backend for BhBackend {
    type State = bindings::spinlock_t;
    type GuardState = ();

    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: the caller's promise.
        unsafe { bindings::spin_lock_init(ptr.cast(), name, key.cast()) }
    }

    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // SAFETY: initialised, by the caller's promise.
        unsafe { bindings::spin_lock_bh(ptr.cast()) }
    }

    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        // SAFETY: initialised, by the caller's promise.
        let locked: c_int = unsafe { bindings::spin_trylock_bh(ptr.cast()) };
        (locked != 0).then_some(())
    }

    unsafe fn unlock(ptr: *mut Self::State, _guard_state: &Self::GuardState) {
        // SAFETY: held by the caller.
        unsafe { bindings::spin_unlock_bh(ptr.cast()) }
    }

    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // SAFETY: initialised, by the caller's promise.
        unsafe { bindings::lockdep_assert_held(ptr.cast()) }
    }
}

/// Makes an initialiser of a [`BhSpinLock`], with a lock class of its own for lockdep.
#[macro_export]
macro_rules! new_bh_spinlock {
    ($inner:expr, $name:literal) => {
        $crate::lock::BhSpinLock::new($inner, kernel::c_str!($name), kernel::static_lock_class!())
    };
}
