// SPDX-License-Identifier: GPL-2.0

//! Which connections are asked for: those that have moved enough over TCP to be worth a ring, at once or when there is a channel, and
//! those that had one before their channel was over.

use crate::channel::Channel;
use crate::establish;
use crate::handshake;
use crate::stream::{
    AdoptedStream,
    Phase, //
};
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use kernel::sync::Arc;
use xenvmc_core::connection::State;
use xenvmc_core::policy::Threshold;
use xenvmc_core::Decline;

/// What a connection has moved over TCP since it began, since it was refused, or since its last channel was over.
pub(crate) struct Traffic {
    calls: Atomic<u32>,
    bytes: Atomic<u64>,
    refusals: Atomic<u32>,
    /// It had a ring before, or would have asked for one if there had been a channel.
    is_worth: Atomic<bool>,
}

impl Traffic {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            calls: Atomic::new(0),
            bytes: Atomic::new(0),
            refusals: Atomic::new(0),
            is_worth: Atomic::new(false),
        }
    }

    /// Begins anew, on another channel.
    pub(crate) fn reset(&self) {
        self.calls.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
        self.refusals.store(0, Relaxed);
    }

    /// Both ends have agreed: next time, nothing has to be moved first.
    pub(crate) fn agreed(&self) {
        self.is_worth.store(true, Relaxed);
    }

    /// The peer has refused: much more is needed before it is asked again.
    pub(crate) fn refused(&self) {
        self.calls.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
        self.refusals.fetch_add(1, Relaxed);
        self.is_worth.store(false, Relaxed);
    }

    /// Counts a call that moved `bytes` bytes, and returns whether they all together reach `threshold`.
    fn reaches(&self, bytes: usize, threshold: Threshold) -> bool {
        let calls = self.calls.fetch_add(1, Relaxed).wrapping_add(1);
        let bytes = bytes as u64;
        let moved = self.bytes.fetch_add(bytes, Relaxed).wrapping_add(bytes);
        let threshold = threshold.after(self.refusals.load(Relaxed));
        self.is_worth.load(Relaxed) || threshold.is_reached(calls, moved)
    }
}

/// Notes that a call moved `bytes` bytes over TCP, and asks for the ring when that is worth while. Process context, no
/// lock held.
#[inline]
pub(crate) fn moved_over_tcp(stream: &Arc<AdoptedStream>, bytes: usize) {
    let threshold = stream.frontend().settings().upgrade;
    // A request may overtake the packet that establishes the other end's socket, and would be refused for good.
    if stream.phase() == Phase::Plain
        && stream.traffic.reaches(bytes, threshold)
        && stream.socket().is_confirmed()
    {
        ask(stream);
    }
}

#[cold]
fn ask(stream: &Arc<AdoptedStream>) {
    let frontend = stream.frontend();
    if !frontend.settings().is_enabled() || stream.agreement().lock().state() != State::Plain {
        return;
    }
    // Without a channel, it is asked for when there is one: the application may have filled TCP's buffers by then, and make no call.
    stream.traffic.is_worth.store(true, Relaxed);
    let peer = stream.peer();
    let Some(channel) = peer.channel() else {
        return frontend.want_channel(&peer);
    };
    if !channel.is_open() {
        return establish::give_up_stale(&channel);
    }
    if let Err(reason) = handshake::ask(stream, &channel) {
        frontend.counters().decline(reason);
    }
}

/// Asks the peer of a channel for all connections that had a ring on an earlier one, or were worth one before there was this one; false = some
/// are left for want of memory or of room in the queue. The upkeep.
///
/// They need no call of the application's for that, which may be waiting for TCP, whose timer has backed off meanwhile.
pub(crate) fn ask_again(channel: &Arc<Channel>) -> bool {
    let frontend = channel.frontend();
    if !frontend.settings().is_enabled() {
        return true;
    }
    let returning = frontend.registry().choose(|stream| {
        stream.traffic.is_worth.load(Relaxed)
            && stream.phase() == Phase::Plain
            && stream.leads_to(channel.peer())
    });
    let Ok(returning) = returning else {
        return false;
    };
    for stream in returning {
        if stream.agreement().lock().state() != State::Plain {
            continue;
        }
        match handshake::ask(&stream, channel) {
            Ok(()) => {}
            Err(Decline::QueueFull) => return false,
            // The next call that moves bytes asks again.
            Err(reason) => frontend.counters().decline(reason),
        }
    }
    true
}
