// SPDX-License-Identifier: GPL-2.0

//! A thread that makes a call which may sleep.

use std::{
    fs,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::errno::Errno;

/// Time after which a call that must sleep, or end, has done so.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often we look.
const LOOK_PERIOD: Duration = Duration::from_millis(2);

/// How often a thread must be seen asleep in one and the same call.
const LOOKS: u32 = 3;

/// A call that another thread makes.
pub(crate) struct Caller<T> {
    id: i32,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Caller<T> {
    /// Begins it.
    pub(crate) fn start(call: impl FnOnce() -> T + Send + 'static) -> Self {
        let (tell, hear) = mpsc::channel();
        let thread = thread::spawn(move || {
            // SAFETY: No memory is passed.
            let _ = tell.send(unsafe { libc::gettid() });
            call()
        });
        let id = hear.recv().expect("a thread");
        Self { id, thread }
    }

    /// Begins it, and waits until it sleeps.
    pub(crate) fn asleep(call: impl FnOnce() -> T + Send + 'static) -> Self {
        let caller = Self::start(call);
        assert!(caller.falls_asleep(), "the call did not sleep");
        caller
    }

    /// Waits until the call sleeps, or has ended; returns whether it sleeps.
    pub(crate) fn falls_asleep(&self) -> bool {
        let (start, mut looks) = (Instant::now(), 0);
        while !self.thread.is_finished() && start.elapsed() < PATIENCE {
            // It is "running" while it does, and the number of the call while it sleeps.
            let text = fs::read_to_string(format!("/proc/self/task/{}/syscall", self.id));
            let text = text.unwrap_or_default();
            let number = text
                .split_whitespace()
                .next()
                .and_then(|word| word.parse::<i64>().ok());
            let sleeps = number.is_some_and(|number| number >= 0 && number != libc::SYS_futex);
            looks = if sleeps { looks + 1 } else { 0 };
            if looks == LOOKS {
                return true;
            }
            thread::sleep(LOOK_PERIOD);
        }
        false
    }

    /// Sends a signal to the thread.
    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: No memory is passed.
        let result = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.id, signal) };
        assert!(result == 0, "tgkill: {}", Errno::last());
    }

    /// Whether the call has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// What the call returned.
    pub(crate) fn join(self) -> T {
        let start = Instant::now();
        while !self.thread.is_finished() {
            assert!(start.elapsed() < PATIENCE, "the call does not end");
            thread::sleep(LOOK_PERIOD);
        }
        self.thread.join().expect("no panic")
    }
}
