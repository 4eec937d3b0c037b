// SPDX-License-Identifier: GPL-2.0

//! Signals: handlers that count, and waiting for those that are blocked.

use std::{
    mem,
    ptr,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant}, //
};

use nix::errno::Errno;

/// Signals that the handler caught.
static CAUGHT: AtomicU32 = AtomicU32::new(0);

extern "C" fn catch(_: libc::c_int) {
    CAUGHT.fetch_add(1, Ordering::SeqCst);
}

/// Counts signals of this number from now on; `flags` are those of sigaction(2).
pub(crate) fn handle(signal: i32, flags: i32) {
    // SAFETY: All fields may be zero; the handler does only what a handler may do.
    let result = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = catch as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = flags;
        libc::sigaction(signal, &action, ptr::null_mut())
    };
    assert!(result == 0, "sigaction: {}", Errno::last());
}

/// How many the handler has caught.
pub(crate) fn caught() -> u32 {
    CAUGHT.load(Ordering::SeqCst)
}

/// A set of this signal alone; of none if it is 0.
pub(crate) fn set_of(signal: i32) -> libc::sigset_t {
    // SAFETY: The set is valid for writes, and any content is a set.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        if signal != 0 {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

/// Blocks a signal in this thread and those that it begins from now on.
pub(crate) fn block(signal: i32) {
    let set = set_of(signal);
    // SAFETY: The set is valid for reads.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) };
    assert!(result == 0, "pthread_sigmask: {result}");
}

/// What comes with a signal about a descriptor.
#[repr(C)]
pub(crate) struct Info {
    number: libc::c_int,
    errno: libc::c_int,
    /// Why it came, such as `POLL_IN`.
    pub(crate) code: libc::c_int,
    /// Events as of poll(2).
    pub(crate) band: libc::c_long,
    /// The descriptor.
    pub(crate) fd: libc::c_int,
}

/// Waits for a signal that is blocked; takes it.
pub(crate) fn wait(signal: i32, patience: Duration) -> Option<Info> {
    let (set, start) = (set_of(signal), Instant::now());
    loop {
        let left = patience.saturating_sub(start.elapsed());
        let limit = libc::timespec {
            tv_sec: left.as_secs() as libc::time_t,
            tv_nsec: left.subsec_nanos() as libc::c_long,
        };
        // SAFETY: All are valid for reads or writes of what they are; any content is an info, and
        // `Info` is how a siginfo_t begins that is about a descriptor.
        let (result, info) = unsafe {
            let mut info: libc::siginfo_t = mem::zeroed();
            let result = libc::sigtimedwait(&set, &mut info, &limit);
            (result, ptr::from_ref(&info).cast::<Info>().read())
        };
        match Errno::result(result) {
            Ok(_) => return Some(info),
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Takes all that have come of a signal that is blocked.
pub(crate) fn forget(signal: i32) {
    while wait(signal, Duration::ZERO).is_some() {}
}
