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
    Moved,
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
use xenvmc_core::channel::State;
use xenvmc_core::error::SegmentError;
use xenvmc_core::stream::Followed;
use xenvmc_core::{
    wire,
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

/// Asks the peer of a noted connection to put its direction on TCP, and does so with ours, for good; then lets the connection be given back.
/// True = that is so; false = the log has no room until the peer has read more. Waits for nobody, as somebody may wait for it: a peer that gives the connection back, too. The upkeep, no lock held.
pub(crate) fn promise(stream: &AdoptedStream, channel: &Channel) -> bool {
    if !stream.has_left.load(Acquire) && !try_promise(stream, channel) {
        return false;
    }
    channel.hand_over();
    true
}

fn try_promise(stream: &AdoptedStream, channel: &Channel) -> bool {
    let mut guard = stream.lock();
    if stream.has_ended() {
        return true;
    }
    let Some(link) = guard.state().link.clone() else {
        return true;
    };
    guard.state().stays.get_or_insert(Decline::Callbacks);
    link.set_receive_flags(wire::RX_RETURN);
    link.post();
    let left = giveback::leave_for_good(stream, &mut guard, &link);
    drop(guard);
    left.unwrap_or_else(|violation| {
        channel.violation(violation);
        true
    })
}

/// Gives back the connections of a channel for which [`promise`] was called.
///
/// Not the upkeep's own work: it waits for the peer's upkeep, with locks of the connection held, and that one for ours.
pub(crate) struct Handovers(pub(crate) Arc<Channel>);

impl Run for Handovers {
    fn run(&self, task: &Task<Self>) {
        let Ok(streams) = self.0.streams() else {
            return task.kick_after(RETRY_MS);
        };
        for (_, stream) in streams {
            if is_noted(&stream) && stream.has_left.load(Acquire) {
                give_back(&stream);
            }
        }
    }
}

/// Why a connection could not be given back.
enum Failure {
    /// The peer did not follow in time.
    Late,
    /// The connection or the channel is over.
    Over,
    /// The new owner has read what comes behind bytes of the ring.
    Overtaken,
    /// The peer has broken the protocol.
    Violation(Violation),
}

/// Gives the connection back, or resets it. No lock held; bounded by [`RETURN_MS`].
fn give_back(stream: &AdoptedStream) {
    let mut reader = stream.reader.lock();
    let mut guard = stream.lock();
    let link = guard.state().link.clone();
    let Some(link) = link.filter(|_| !stream.has_ended()) else {
        // It is on TCP, and stays there as long as the callbacks do.
        return;
    };
    let left = leave(&mut reader, &mut guard, &link);
    if left.is_err() {
        // The new owner may be waiting for the lock: he does not get what comes behind a gap, nor what has arrived meanwhile.
        guard.discard_unread();
        guard.take_arrived();
        guard.discard_unread();
    }
    guard.restore();
    if left.is_ok() {
        guard.data_ready_locked();
    }
    drop(guard);
    drop(reader);
    let Err(failure) = left else {
        stream.socket().write_space();
        stream.wake_all();
        return;
    };
    match failure {
        Failure::Late => giveback::warn_late(stream),
        Failure::Over => {}
        Failure::Overtaken => stream.frontend().counters().decline(Decline::RogueReader),
        Failure::Violation(violation) => link.channel().violation(violation),
    }
    giveback::reset(stream);
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
        let Some(view) = link.view() else {
            return Ok(());
        };
        let copied_seq = guard.socket().copied_seq();
        let followed = unread::follow(link, view, &mut reader.inbound, copied_seq);
        let moved = followed.and_then(|followed| match followed {
            Followed::Yes => leaving
                .advance(reader, guard, link, Decline::Callbacks, Memory::MaySleep)
                .map(Some),
            Followed::NotYet => Ok(Some(Moved::Some)),
            Followed::Overtaken => Ok(None),
        });
        match moved {
            Ok(Some(Moved::All)) => return Ok(()),
            Ok(Some(moved)) => {
                let has_peer = matches!(link.channel().state(), State::Open | State::Closing);
                if guard.socket().is_closed() || !has_peer {
                    return Err(Failure::Over);
                }
                if !leaving.has_time(RETURN_MS) {
                    return Err(Failure::Late);
                }
                fsleep(Delta::from_millis(2));
                if moved == Moved::TcpIsMissing {
                    // Most owners wait for the lock. One that reads in its callback may go beyond the next bytes of the ring, and is found out.
                    guard.take_arrived();
                }
            }
            Ok(None) | Err(Violation::Segment(SegmentError::Sequence)) => {
                return Err(Failure::Overtaken)
            }
            Err(violation) => return Err(Failure::Violation(violation)),
        }
    }
}
