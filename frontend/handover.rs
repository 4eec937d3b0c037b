// SPDX-License-Identifier: GPL-2.0

//! Sockets that somebody in the kernel has taken over (iSCSI, KCM), while they were on the ring: they are given back to TCP.
//!
//! Who does that puts callbacks of his own into the socket, and reads TCP's queue himself when they are called. No method of
//! ours is called for it; so we look wherever we come by: when a lock of the socket is let go of, and when bytes are announced.

use crate::giveback::{
    self,
    Leaving,
    RETURN_MS, //
};
use crate::stream::{
    AdoptedStream,
    Phase, //
};
use kernel::prelude::*;
use kernel::sync::atomic::{
    Acquire,
    Full, //
};
use xenvmc_core::Decline;
use xenvmc_net as net;
use xenvmc_net::inject::Memory;

/// Has the connection given back by the upkeep, if its socket is somebody else's now. Any context but hard interrupts; no lock
/// but the socket's is held.
#[inline]
pub(crate) fn check(stream: &AdoptedStream) {
    if stream.phase() == Phase::Active && net::has_foreign_callbacks(stream.socket()) {
        note(stream);
    }
}

#[cold]
fn note(stream: &AdoptedStream) {
    if stream.is_handed_over.xchg(true, Full) {
        return;
    }
    stream.frontend().counters().decline(Decline::Callbacks);
    // The link is not cloned: in a softirq nobody may let go of the last reference to a channel.
    if let Some(link) = &stream.watch.lock().link {
        link.channel().note_tending();
    }
}

/// Whether [`check`] has found something.
pub(crate) fn is_noted(stream: &AdoptedStream) -> bool {
    stream.is_handed_over.load(Acquire)
}

/// Does the next step of giving the connection back; false = another one is needed. The upkeep, no lock held.
pub(crate) fn step(stream: &AdoptedStream) -> bool {
    let mut reader = stream.reader.lock();
    let mut guard = stream.lock();
    let Some(link) = guard.state().link.clone() else {
        // It is on TCP, and stays there as long as the callbacks do.
        return true;
    };
    let leaving = *guard
        .state()
        .leaving
        .get_or_insert_with(|| Leaving::begin(&link));
    let memory = Memory::MaySleep;
    let result = leaving.advance(&mut reader, &mut guard, &link, Decline::Callbacks, memory);
    match result {
        Ok(false) if leaving.has_time(RETURN_MS) => return false,
        Ok(true) => guard.restore(),
        _ => {}
    }
    drop(guard);
    drop(reader);
    match result {
        Ok(true) => {
            stream.socket().data_ready();
            stream.wake_all();
        }
        Ok(false) => {
            pr_warn!(
                "domain {}: did not go back to TCP in time\n",
                stream.peer().domid()
            );
            giveback::reset(stream);
        }
        Err(violation) => giveback::break_stream(stream, violation),
    }
    true
}
