// SPDX-License-Identifier: GPL-2.0

//! How a channel ends (protocol §9): both sides go back to TCP, take over what is unread, and let go of each other's memory.
//!
//! If the peer cannot follow (it is gone, too slow, or broke the protocol) we end alone: what is in its ring and complete is
//! delivered, and connections of which bytes may be missing are reset.

use crate::channel::Channel;
use crate::control::{
    Control,
    RETRY_MS, //
};
use crate::giveback::{
    self,
    Drained,
    Unread, //
};
use crate::handover;
use crate::holders::Holders;
use crate::parting;
use crate::peers::Peers;
use crate::ready;
use crate::stream::{
    is_on,
    AdoptedStream, //
};
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::{
    Delta,
    Instant,
    Monotonic, //
};
use xenvmc_core::channel::{
    Event,
    State, //
};
use xenvmc_core::shared::SharedLoad;
use xenvmc_core::wire::{
    slot,
    SlotId, //
};
use xenvmc_core::Words;

/// How long a peer may take to close its side; then we end alone.
pub(crate) const CLOSE_MS: i64 = 5_000;

/// How long tasks that hold connections are waited for before the others are closed without those.
const HELD_MS: i64 = 1_000;

/// The streams that have slots; none if there is no memory, which is then tried again.
fn streams(channel: &Channel) -> Option<KVec<(SlotId, Arc<AdoptedStream>)>> {
    channel.streams().ok()
}

/// Does what the state of a channel that ends asks for. The upkeep, under the channel's control lock.
pub(crate) fn run(channel: &Arc<Channel>, control: &mut Control) {
    let waits = match control.state {
        State::Closing => true,
        // The peer has done its part; what is left is ours.
        State::Drained => !control.peer_state.is_drained(),
        _ => false,
    };
    if waits && closes_for(control) > CLOSE_MS {
        channel.peer().warn(format_args!("did not close in time"));
        control.advance(channel, Event::Timeout);
    }
    match control.state {
        State::Init | State::Open => return,
        State::Closing => {
            if !control.is_finished {
                let finished = finish_all(channel);
                control.is_finished = finished == Finished::All;
                let is_enough = control.is_finished
                    || (finished == Finished::AllButHeld && closes_for(control) > HELD_MS);
                if is_enough && !control.is_announced {
                    control.announce(channel);
                }
            }
            // Who waits for a task goes on with what the peer waits for.
            let is_drained = control.peer_state.is_closing() && drain_all(channel);
            if control.is_finished && is_drained {
                control.advance(channel, Event::Drained);
            }
        }
        State::Lost => {
            if end_alone(channel) {
                control.advance(channel, Event::Drained);
            }
        }
        State::Broken => {
            if reset_all(channel, may_have_lost) {
                control.advance(channel, Event::Drained);
            }
        }
        State::Drained | State::Done => {}
    }
    if control.state == State::Drained && control.peer_state.is_drained() {
        // A peer that has given up may say so without having read what it got.
        if reset_all(channel, |stream| !is_all_read(stream)) {
            control.advance(channel, Event::PeerDrained);
        }
    }
    if control.state == State::Done {
        if !control.is_buried {
            if !parting::end_all(channel) {
                return channel.kick_after(RETRY_MS);
            }
            channel.frontend().datagrams().end(channel);
            channel.set_ended();
            control.is_buried = channel.frontend().bury(channel);
            if control.is_buried {
                // One that nobody has answered was none.
                if channel.theirs().is_some() {
                    channel.peer().inform(format_args!("channel closed"));
                }
            } else {
                channel.kick_after(RETRY_MS);
            }
        }
    } else {
        // Where no event may come, the clock drives it.
        channel.kick_after(RETRY_MS);
    }
}

/// For how many milliseconds the channel has been closing.
fn closes_for(control: &mut Control) -> i64 {
    let since = *control.since.get_or_insert_with(Instant::<Monotonic>::now);
    since.elapsed().as_millis()
}

/// What [`finish_all`] has come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Finished {
    /// The last record of each direction is published, and each has its end mark.
    All,
    /// Likewise, but for those that a task holds: they have no mark, and are reset if that goes on.
    AllButHeld,
    /// Some are not.
    Some,
}

/// Puts all our directions on TCP.
fn finish_all(channel: &Arc<Channel>) -> Finished {
    channel.lines().finish();
    let Some(streams) = streams(channel) else {
        return Finished::Some;
    };
    let (mut all, mut is_held, mut holders) = (true, false, Holders::new());
    for (_, stream) in streams {
        if handover::is_noted(&stream) {
            // Locked for long, maybe.
            all &= handover::promise(&stream, channel);
            continue;
        }
        let Some(mut guard) = holders.lock(&stream) else {
            is_held = true;
            continue;
        };
        let Some(link) = guard.state().link.clone() else {
            continue;
        };
        match giveback::leave_for_good(&stream, &mut guard, &link) {
            Ok(done) => all &= done,
            Err(violation) => {
                drop(guard);
                channel.violation(violation);
                return Finished::Some;
            }
        }
        drop(guard);
        stream.socket().write_space();
    }
    match (all, is_held) {
        (true, false) => Finished::All,
        (true, true) => Finished::AllButHeld,
        (false, _) => Finished::Some,
    }
}

/// Takes everything that is unread out of the peer's rings; true = done.
fn drain_all(channel: &Arc<Channel>) -> bool {
    channel.lines().drain(channel);
    let Some(streams) = streams(channel) else {
        return false;
    };
    let (mut all, mut holders) = (true, Holders::new());
    for (_, stream) in streams {
        if stream.has_ended() || !is_on(&stream, channel) {
            continue;
        }
        if handover::is_noted(&stream) {
            // It is under way, and ends with the connection given back.
            all &= handover::promise(&stream, channel) && stream.has_ended();
            continue;
        }
        match giveback::drain(&stream, Unread::Complete, &mut holders) {
            Ok(drained) => all &= drained == Drained::All,
            Err(violation) => {
                channel.violation(violation);
                return false;
            }
        }
    }
    all
}

/// The peer is gone: delivers what is complete, and resets the connections that are not; true = done, also with those that tasks held.
fn end_alone(channel: &Arc<Channel>) -> bool {
    channel.lines().drain(channel);
    let Some(streams) = streams(channel) else {
        return false;
    };
    let (mut all, mut holders) = (true, Holders::new());
    for (_, stream) in streams {
        if is_settled(&stream, channel) {
            continue;
        }
        // What promises that no byte of the ring follows /before/ the last look at it: its end, or a state in which no ring begins.
        let link = stream.watch.lock().link.clone();
        let view = link.as_ref().and_then(|link| link.view());
        let ended = view.is_some_and(|view| view.has_peer_ended()) || channel.has_peer_finished();
        let taken = giveback::drain(&stream, Unread::Rest, &mut holders);
        if taken == Ok(Drained::Held) {
            all = false;
            continue;
        }
        let complete = taken == Ok(Drained::All) && is_all_read(&stream);
        if !(complete && (ended || !stream.has_used_ring())) {
            giveback::reset(&stream);
        }
        stream.is_settled.store(true, Relaxed);
    }
    all
}

/// Whether nothing is left to be done for a connection before the channel is over.
fn is_settled(stream: &AdoptedStream, channel: &Arc<Channel>) -> bool {
    stream.has_ended() || !is_on(stream, channel) || stream.is_settled.load(Relaxed)
}

/// Whether the peer has read all that is in our ring.
fn is_all_read(stream: &AdoptedStream) -> bool {
    let link = stream.watch.lock().link.clone();
    link.is_none_or(|link| {
        link.view().is_none_or(|view| {
            let prod = view.own.word(slot::TX_PROD).load_relaxed();
            prod == view.peer.word(slot::RX_CONS).load_acquire()
        })
    })
}

/// Whether bytes of a connection may be in a ring, either way, now that the peer is not to be believed.
fn may_have_lost(stream: &AdoptedStream) -> bool {
    stream.has_used_ring() || ready::was_told(stream)
}

/// Resets all connections of which `has_lost` says that bytes are lost; true = done, also with those that tasks held.
fn reset_all(channel: &Arc<Channel>, has_lost: impl Fn(&AdoptedStream) -> bool) -> bool {
    let Some(streams) = streams(channel) else {
        return false;
    };
    let (mut all, mut holders) = (true, Holders::new());
    for (_, stream) in streams {
        if is_settled(&stream, channel) || !has_lost(&stream) {
            continue;
        }
        if holders.lock(&stream).is_none() {
            all = false;
            continue;
        }
        giveback::reset(&stream);
        stream.is_settled.store(true, Relaxed);
    }
    all
}

/// Waits until a channel is over and no connection is on it, at most twice as long as both sides may take. Process context.
pub(crate) fn wait(channel: &Arc<Channel>) {
    wait_until(channel, Instant::<Monotonic>::now());
}

fn wait_until(channel: &Arc<Channel>, start: Instant<Monotonic>) {
    while !channel.has_ended() {
        if start.elapsed().as_millis() > 2 * CLOSE_MS {
            pr_err!(
                "domain {}: the channel does not end\n",
                channel.peer().domid()
            );
            return;
        }
        fsleep(Delta::from_millis(2));
    }
}

/// Begins to close a channel: what is unread on either side becomes TCP's; does nothing if the upkeep is at work on it. Process
/// context.
pub(crate) fn try_begin(channel: &Arc<Channel>) {
    let Some(mut control) = channel.control.try_lock() else {
        return;
    };
    let before = control.state;
    control.advance(channel, Event::Close);
    let has_begun = control.state != before;
    drop(control);
    if has_begun {
        channel.kick();
    }
}

/// Closes all channels at once, and waits for their ends: what is unread on either side becomes TCP's. Process context.
pub(crate) fn close_all(peers: &Peers) {
    let start = Instant::<Monotonic>::now();
    loop {
        let mut is_over = true;
        peers.for_each_channel(|_, channel| {
            is_over &= channel.has_ended();
            try_begin(channel);
        });
        if is_over {
            return;
        }
        if start.elapsed().as_millis() > 2 * CLOSE_MS {
            break;
        }
        fsleep(Delta::from_millis(2));
    }
    // Says which do not.
    peers.for_each_channel(|_, channel| wait_until(channel, start));
}
