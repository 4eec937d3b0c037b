// SPDX-License-Identifier: GPL-2.0

//! When the peer may begin to send through its ring: not before it is certain that no task is, or will be, inside one of
//! the methods that the socket had before it was taken over. Such a task would wait for bytes of TCP for ever.
//!
//! It is certain
//!
//! * if a call on the socket is in progress in a task that alone can use it: one thread, one descriptor; or
//! * after an RCU-tasks grace period since the methods were replaced, if no task sleeps on the socket that is not ours, and
//!   none waits for its lock.
//!
//! Nor before TCP's reader has passed an urgent byte, which TCP leaves out without saying so.

use crate::stream::{
    AdoptedStream,
    Phase,
    Stream, //
};
use crate::timeline::Step;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Acquire,
    Full,
    Release, //
};
use kernel::sync::Arc;
use xenvmc_core::wire;
use xenvmc_core::Decline;
use xenvmc_net::{
    after,
    Adopted,
    AfterGrace,
    Guard, //
};

/// Nothing was done yet.
const NEW: u32 = 0;
/// A grace period is waited for.
const WAITING: u32 = 1;
/// A grace period is over.
const PASSED: u32 = 2;
/// The peer was told.
pub(crate) const TOLD: u32 = 3;

/// Tells the peer that it may begin, if that is certain now. From a call on the socket, no lock held.
#[inline]
pub(crate) fn attempt(stream: &Arc<AdoptedStream>) {
    let waits = matches!(stream.readiness.load(Acquire), TOLD | WAITING);
    if !waits && stream.phase() == Phase::Active {
        try_now(stream, true);
    }
}

/// Tells the peer that it may begin, if a grace period was all that was missing. Process context, no lock held.
pub(crate) fn attempt_after_grace(stream: &Arc<AdoptedStream>) {
    if is_due(stream) {
        try_now(stream, false);
    }
}

/// Whether the peer can be told without a call on the socket: what was found out on an earlier channel.
pub(crate) fn is_due(stream: &AdoptedStream) -> bool {
    stream.readiness.load(Acquire) == PASSED
}

/// Whether the peer was told, and may have sent into its ring.
pub(crate) fn was_told(stream: &AdoptedStream) -> bool {
    stream.readiness.load(Acquire) == TOLD
}

/// There is nobody who was told any more. What was found out about the tasks still holds.
pub(crate) fn forget_peer(stream: &AdoptedStream) {
    // A grace period that is under way ends as `PASSED`, too.
    let _ = stream.readiness.cmpxchg(TOLD, PASSED, Full);
}

#[cold]
fn try_now(stream: &Arc<AdoptedStream>, in_call: bool) {
    let mut guard = stream.lock();
    if !stream.is_installed() || stream.phase() != Phase::Active {
        return;
    }
    if guard.has_urgent() {
        return;
    }
    if let Err(error) = guard.replace_splice() {
        pr_debug!("splice cannot be replaced: {error:?}\n");
        return;
    }
    match stream.readiness.load(Acquire) {
        NEW if in_call && stream.socket().is_exclusive() => tell(stream, &mut guard),
        NEW => {
            // The old tables are gone now; whoever has loaded from them has left after a grace period, or sleeps.
            stream.readiness.store(WAITING, Release);
            drop(guard);
            let waiter = Arc::new(Waiter(stream.clone()), GFP_KERNEL);
            let queued = waiter
                .map_err(Error::from)
                .and_then(|waiter| after(waiter, GFP_KERNEL));
            if queued.is_err() {
                stream.readiness.store(NEW, Release);
            }
        }
        PASSED if !stream.has_foreign_sleeper() && !guard.has_lock_waiter() => {
            tell(stream, &mut guard)
        }
        PASSED => stream.frontend().counters().decline(Decline::ForeignReader),
        _ => {}
    }
}

fn tell(stream: &AdoptedStream, guard: &mut Guard<'_, Stream>) {
    if let Some(link) = &guard.state().link {
        link.set_receive_flags(wire::RX_READY);
        link.post();
        stream.readiness.store(TOLD, Release);
        stream.frontend().timeline().note(Step::Ready);
    }
}

/// Waits for the grace period of one connection.
struct Waiter(Arc<Adopted<Stream>>);

impl AfterGrace for Waiter {
    fn grace_ended(self: Arc<Self>) {
        let stream = &self.0;
        // In a softirq: the channel's upkeep does the rest.
        if stream.readiness.cmpxchg(WAITING, PASSED, Full).is_ok() {
            let watch = stream.watch.lock();
            if let Some(link) = &watch.link {
                link.channel().note_tending();
            }
        }
    }
}
