// SPDX-License-Identifier: GPL-2.0

//! Tasks that hold a connection while they copy: they may wait for the memory that they copy from or to (FUSE, a network file system), for as
//! long as that takes. Who looks after many connections does not wait for them.

use crate::stream::{
    AdoptedStream,
    Reader,
    Stream, //
};
use kernel::sync::atomic::Relaxed;
use kernel::sync::MutexGuard;
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use xenvmc_net::Guard;

/// How long one connection is waited for, in microseconds.
const HELD_US: u32 = 2_000;

/// How long all of a pass are.
const PASS_US: u32 = 20_000;

/// Time between two looks at a reader.
const STEP_US: u32 = 250;

/// What is left of the time that a pass over connections may wait for holders; then it only looks. Process context; may sleep.
pub(crate) struct Holders {
    left_us: u32,
}

impl Holders {
    /// Of a pass that begins.
    pub(crate) fn new() -> Self {
        Self { left_us: PASS_US }
    }

    /// Locks the socket, unless a task holds it for long.
    pub(crate) fn lock<'a>(&mut self, stream: &'a AdoptedStream) -> Option<Guard<'a, Stream>> {
        let limit_us = self.left_us.min(HELD_US);
        let guard = stream.lock_within(limit_us);
        if guard.is_none() {
            self.left_us -= limit_us;
        }
        guard
    }

    /// Locks the reader, unless a task holds it for long and gets no further meanwhile.
    pub(crate) fn lock_reader<'a>(
        &mut self,
        stream: &'a AdoptedStream,
    ) -> Option<MutexGuard<'a, Reader>> {
        let progress = || (stream.received.load(Relaxed), stream.socket().copied_seq());
        let (before, limit_us) = (progress(), self.left_us.min(HELD_US));
        let mut waited_us = 0;
        loop {
            if let Some(reader) = stream.reader.try_lock() {
                return Some(reader);
            }
            if progress() != before {
                // It is let go of soon, and who asks for it gets his turn.
                return Some(stream.reader.lock());
            }
            if waited_us >= limit_us {
                self.left_us -= limit_us;
                return None;
            }
            fsleep(Delta::from_micros(STEP_US.into()));
            waited_us += STEP_US;
        }
    }

    /// Whether a task holds the socket, or the reader.
    pub(crate) fn hold(&mut self, stream: &AdoptedStream) -> bool {
        self.lock_reader(stream).is_none() || self.lock(stream).is_none()
    }
}
