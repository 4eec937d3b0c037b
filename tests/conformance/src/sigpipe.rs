// SPDX-License-Identifier: GPL-2.0

//! SIGPIPE, counted.

use std::sync::atomic::{AtomicUsize, Ordering};

static SEEN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handler(_: i32) {
    SEEN.fetch_add(1, Ordering::Relaxed);
}

/// Begins to count. Without it, the process ignores the signal.
pub(crate) fn count() {
    let handler = handler as extern "C" fn(i32) as libc::sighandler_t;
    // SAFETY: The handler does what a handler may.
    unsafe { libc::signal(libc::SIGPIPE, handler) };
}

/// How many there were. A thread's own signal has been handled when its call returns.
pub(crate) fn seen() -> usize {
    SEEN.load(Ordering::Relaxed)
}
