// SPDX-License-Identifier: GPL-2.0

//! TCP_USER_TIMEOUT of connections on the ring: how long the other end may leave what was sent unanswered.
//!
//! TCP's own clock runs while bytes are not acknowledged, or while the other end has no room for more. Bytes in a ring are where the
//! other end can read them; what stands for the acknowledgement of its kernel is that it takes our notice. Where there is no room,
//! the rest goes over TCP, and TCP sees to it.

use crate::channel::Channel;
use crate::link::Link;
use crate::stream::AdoptedStream;
use crate::switch;
use kernel::sync::Arc;
use kernel::time::{
    Instant,
    Monotonic, //
};
use xenvmc_core::segment::Mode;
use xenvmc_core::shared::SharedLoad;
use xenvmc_core::wire::slot;
use xenvmc_core::{
    Error as Violation,
    Words, //
};
use xenvmc_xen::work::{
    Run,
    Task, //
};

/// How long a ring stands still before it is looked at: TCP's shortest time until it sends again or asks for room. Milliseconds.
pub(crate) const LOOK_MS: u32 = 200;

/// `ETIMEDOUT`.
const ETIMEDOUT_CODE: i32 = 110;

/// Where a ring stands still.
pub(crate) struct Clock {
    prod: u32,
    cons: u32,
    looked: Instant<Monotonic>,
    /// Since when the reader has not moved, milliseconds.
    stood_ms: u32,
    /// Since when the notice was posted, milliseconds.
    asked_ms: u32,
    /// The other end's kernel has taken it.
    is_answered: bool,
}

impl Clock {
    /// Posts a notice, for the other end to take.
    fn start(link: &Link, prod: u32, cons: u32) -> Self {
        link.post();
        Self {
            prod,
            cons,
            looked: Instant::now(),
            stood_ms: 0,
            asked_ms: 0,
            is_answered: false,
        }
    }

    /// Goes on to now. If this guest itself stood still, that time does not count.
    fn advance(&mut self, link: &Link, prod: u32) {
        let passed = self.looked.elapsed().as_millis();
        let passed = u32::try_from(passed).map_or(0, |passed| passed.min(2 * LOOK_MS));
        self.looked = Instant::now();
        self.stood_ms = self.stood_ms.saturating_add(passed);
        self.asked_ms = self.asked_ms.saturating_add(passed);
        self.is_answered = self.is_answered || link.channel().has_taken_notice(link);
        if self.is_answered && self.prod != prod {
            // What was sent since has not been answered.
            link.post();
            (self.prod, self.asked_ms, self.is_answered) = (prod, 0, false);
        }
    }
}

/// Looks at the connections of a channel that have a timeout, as long as bytes of theirs are unread.
pub(crate) struct Clocks(pub(crate) Arc<Channel>);

impl Run for Clocks {
    fn run(&self, task: &Task<Self>) {
        if look_at_all(&self.0) {
            task.kick_after(LOOK_MS);
        }
    }
}

/// Looks at all connections once; true = some must be looked at again.
fn look_at_all(channel: &Arc<Channel>) -> bool {
    if !channel.is_open() {
        return false;
    }
    let Ok(streams) = channel.streams() else {
        return true;
    };
    let mut again = false;
    for (_, stream) in streams {
        let limit_ms = stream.socket().user_timeout_ms();
        if limit_ms == 0 {
            continue;
        }
        match look(&stream, limit_ms) {
            Ok(Verdict::Again) => again = true,
            Ok(Verdict::Rest) => {}
            Ok(Verdict::TimedOut) => {
                stream.frontend().counters().user_timeouts.inc();
                stream.socket().abort(ETIMEDOUT_CODE);
            }
            Err(violation) => {
                channel.violation(violation);
                return false;
            }
        }
    }
    again
}

/// What came of a look at a connection.
enum Verdict {
    /// It is to be looked at again.
    Again,
    /// Only after more was sent, or room was looked for in vain; or the rest goes over TCP.
    Rest,
    /// The time is over.
    TimedOut,
}

fn look(stream: &AdoptedStream, limit_ms: u32) -> core::result::Result<Verdict, Violation> {
    let mut guard = stream.lock();
    if !stream.is_installed() || stream.socket().is_closed() {
        return Ok(Verdict::Rest);
    }
    let sender = guard.state();
    let Some(link) = sender.link.clone() else {
        return Ok(Verdict::Rest);
    };
    let Some(view) = link.view() else {
        return Ok(Verdict::Rest);
    };
    let Mode::Ring { extent, .. } = sender.outbound.mode() else {
        return Ok(Verdict::Rest);
    };
    // Finds an impossible index. It may be another one a moment later, which then decides about no more than a look.
    sender.outbound.room(&view.peer)?;
    let prod = sender.outbound.prod();
    let cons = view.peer.word(slot::RX_CONS).load_acquire();
    let unread = prod.wrapping_sub(cons);
    if unread == 0 || view.peer_wants_tcp() {
        sender.clock = None;
        return Ok(Verdict::Rest);
    }
    let clock = match sender.clock.take() {
        Some(mut clock) if clock.cons == cons => {
            clock.advance(&link, prod);
            clock
        }
        _ => Clock::start(&link, prod, cons),
    };
    let has_stalled = clock.stood_ms >= LOOK_MS;
    let (is_answered, asked_ms) = (clock.is_answered, clock.asked_ms);
    sender.clock = Some(clock);
    if !is_answered && asked_ms >= limit_ms {
        return Ok(Verdict::TimedOut);
    }
    let is_full = switch::is_full(stream, extent, unread);
    if is_answered && has_stalled && is_full {
        switch::leave_stalled(stream, sender, &link, cons)?;
        return Ok(Verdict::Rest);
    }
    Ok(if is_answered && !is_full {
        Verdict::Rest
    } else {
        Verdict::Again
    })
}
