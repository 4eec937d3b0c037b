// SPDX-License-Identifier: GPL-2.0

//! Sockets that somebody in the kernel has taken over (iSCSI, KCM), while they were on the ring: they are given back to TCP.
//!
//! Who does that puts callbacks of his own into the socket, and reads TCP's queue himself when they are called. No method of
//! ours is called for it; so we look wherever we come by: when a lock of the socket is let go of, and when bytes are announced.

use crate::channel::Channel;
use crate::control::RETRY_MS;
use crate::giveback::{
    self,
    Leaving,
    RETURN_MS, //
};
use crate::link::Link;
use crate::stream::{
    AdoptedStream,
    Phase,
    Reader,
    Stream, //
};
use crate::unread;
use kernel::sync::atomic::{
    Acquire,
    Full, //
};
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use xenvmc_core::error::SegmentError;
use xenvmc_core::stream::Followed;
use xenvmc_core::{
    Decline,
    Error as Violation, //
};
use xenvmc_net as net;
use xenvmc_net::inject::Memory;
use xenvmc_net::Guard;
use xenvmc_xen::work::{
    Run,
    Task, //
};

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

/// Why a connection could not be given back.
enum Failure {
    /// The peer did not follow in time.
    Late,
    /// The new owner has read what comes behind bytes of the ring.
    Overtaken,
    /// The peer has broken the protocol.
    Violation(Violation),
}

/// Gives back the connections of a channel that [`check`] has found, at the upkeep's request.
///
/// Not the upkeep's own work: a peer that gives another connection back at this moment waits for our upkeep, as we do for its.
pub(crate) struct Handovers(pub(crate) Arc<Channel>);

impl Run for Handovers {
    fn run(&self, task: &Task<Self>) {
        let Ok(streams) = self.0.streams() else {
            return task.kick_after(RETRY_MS);
        };
        for (_, stream) in streams {
            if is_noted(&stream) && !stream.has_ended() {
                give_back(&stream);
            }
        }
    }
}

/// Gives the connection back, or resets it. No lock held; bounded by [`RETURN_MS`].
fn give_back(stream: &AdoptedStream) {
    let mut reader = stream.reader.lock();
    let mut guard = stream.lock();
    let Some(link) = guard.state().link.clone() else {
        // It is on TCP, and stays there as long as the callbacks do.
        return;
    };
    let left = leave(&mut reader, &mut guard, &link);
    guard.restore();
    if left.is_ok() {
        guard.data_ready_locked();
    }
    drop(guard);
    drop(reader);
    match left {
        Ok(()) => {
            stream.socket().write_space();
            stream.wake_all();
        }
        Err(Failure::Late) => {
            giveback::warn_late(stream);
            giveback::reset(stream);
        }
        Err(Failure::Overtaken) => {
            let counters = stream.frontend().counters();
            counters.decline(Decline::RogueReader);
            giveback::reset(stream);
        }
        Err(Failure::Violation(violation)) => {
            link.channel().violation(violation);
            giveback::reset(stream);
        }
    }
}

/// Puts both directions on TCP. The socket stays locked meanwhile: what comes over TCP next must not be read before what is in the
/// ring.
fn leave(
    reader: &mut Reader,
    guard: &mut Guard<'_, Stream>,
    link: &Link,
) -> core::result::Result<(), Failure> {
    let leaving = Leaving::begin(link);
    loop {
        let followed = match link.view() {
            Some(view) => {
                let copied_seq = guard.socket().copied_seq();
                unread::follow(link, view, &mut reader.inbound, copied_seq)
            }
            None => return Ok(()),
        };
        let advanced = match followed {
            Ok(Followed::Yes) => {
                leaving.advance(reader, guard, link, Decline::Callbacks, Memory::MaySleep)
            }
            Ok(Followed::NotYet) => {
                guard.state().stays.get_or_insert(Decline::Callbacks);
                // The peer may wait for our promise.
                giveback::leave_for_good(guard.adopted(), guard, link).map(|_| false)
            }
            Ok(Followed::Overtaken) => return Err(Failure::Overtaken),
            Err(violation) => Err(violation),
        };
        match advanced {
            Ok(true) => return Ok(()),
            Ok(false) if leaving.has_time(RETURN_MS) => {
                fsleep(Delta::from_millis(2));
                // What comes before bytes of the ring. Whoever has taken the socket reads it when it is not locked.
                guard.take_arrived();
            }
            Ok(false) => return Err(Failure::Late),
            Err(Violation::Segment(SegmentError::Sequence)) => return Err(Failure::Overtaken),
            Err(violation) => return Err(Failure::Violation(violation)),
        }
    }
}
