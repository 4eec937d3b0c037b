// SPDX-License-Identifier: GPL-2.0

//! Which connections are asked for: those that have moved enough over TCP to be worth a ring, at once or when there is a channel, and
//! those that had one before their channel was over.

use crate::channel::Channel;
use crate::control::RETRY_MS;
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

/// Milliseconds after which a connection is looked at again that the other end has not acknowledged anything of: as long as Linux may put
/// off an acknowledgement, at first. A request may overtake the packet that establishes the other end's socket, and would be refused.
const CONFIRM_MS: u32 = 40;

/// The longest time between two such looks, milliseconds.
const CONFIRM_MAX_MS: u32 = 1_280;

/// What a connection has moved over TCP since it began, since it was refused, or since its last channel was over.
pub(crate) struct Traffic {
    calls: Atomic<u32>,
    bytes: Atomic<u64>,
    refusals: Atomic<u32>,
    /// It had a ring before, or would have asked for one if it could have.
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
    if stream.phase() == Phase::Plain && stream.traffic.reaches(bytes, threshold) {
        ask(stream);
    }
}

#[cold]
fn ask(stream: &Arc<AdoptedStream>) {
    let frontend = stream.frontend();
    if !frontend.settings().is_enabled() || stream.agreement().lock().state() != State::Plain {
        return;
    }
    // What can't be asked now, for want of a channel or of an acknowledgement, is asked when it can be: the application may have filled
    // TCP's buffers by then, and make no call.
    stream.traffic.is_worth.store(true, Relaxed);
    let peer = stream.peer();
    let Some(channel) = peer.channel() else {
        return frontend.want_channel(&peer);
    };
    if !channel.is_open() {
        return;
    }
    if !stream.socket().is_confirmed() {
        return channel.retry_returning(CONFIRM_MS);
    }
    if let Err(reason) = handshake::ask(stream, &channel) {
        frontend.counters().decline(reason);
    }
}

/// Asks the peer of a channel for all connections that had a ring on an earlier one, or were worth one before they could be asked for. The
/// upkeep.
///
/// They need no call of the application's for that, which may be waiting for TCP, whose timer has backed off meanwhile.
///
/// Returns after how many milliseconds to try those that are left, if any are; `last` is what was returned when this was called last, for
/// the same ones maybe.
pub(crate) fn ask_again(channel: &Arc<Channel>, last: Option<u32>) -> Option<u32> {
    let frontend = channel.frontend();
    if !frontend.settings().is_enabled() {
        return None;
    }
    let returning = frontend.registry().choose(|stream| {
        stream.traffic.is_worth.load(Relaxed)
            && stream.phase() == Phase::Plain
            && stream.leads_to(channel.peer())
    });
    let Ok(returning) = returning else {
        return Some(RETRY_MS);
    };
    let later = last.map_or(CONFIRM_MS, |ms| (2 * ms).clamp(CONFIRM_MS, CONFIRM_MAX_MS));
    let mut again = None;
    for stream in returning {
        if stream.agreement().lock().state() != State::Plain {
            continue;
        }
        if !stream.socket().is_confirmed() {
            if !stream.socket().is_closed() {
                again = Some(later);
            }
            continue;
        }
        match handshake::ask(&stream, channel) {
            Ok(()) => {}
            Err(Decline::QueueFull) => return Some(RETRY_MS),
            Err(reason) => {
                let is_short = matches!(
                    reason,
                    Decline::NoMemory | Decline::ArenaExhausted | Decline::SlotsExhausted
                );
                // Calls that move bytes ask again.
                stream.traffic.is_worth.store(is_short, Relaxed);
                frontend.counters().decline(reason);
            }
        }
    }
    again
}
