// SPDX-License-Identifier: GPL-2.0

//! TCP_USER_TIMEOUT of connections on the ring: how long the other end may leave what was sent unanswered.
//!
//! TCP's own clock runs while bytes are not acknowledged, or while the other end has no room for more. Bytes in a ring are where the
//! other end can read them; what stands for the acknowledgement of its kernel is that it takes our notice. Where there is no room,
//! the rest goes over TCP, and TCP sees to it.

use crate::channel::Channel;
use crate::link::Link;
use crate::stream::{
    AdoptedStream,
    StreamExt, //
};
use crate::switch;
use kernel::prelude::*;
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

/// Where a ring stood still, and since when.
pub(crate) struct Clock {
    prod: u32,
    cons: u32,
    since: Instant<Monotonic>,
    /// The other end's kernel has taken the notice that was posted then.
    is_answered: bool,
}

impl Clock {
    /// Posts a notice, and waits for the other end to take it.
    fn start(link: &Link, prod: u32, cons: u32) -> Self {
        link.post();
        Self {
            prod,
            cons,
            since: Instant::now(),
            is_answered: false,
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
            Ok(Verdict::OverTcp) => {
                stream.socket().write_space();
                stream.wake_to_look();
            }
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
    /// Only after more was sent, or room was looked for in vain.
    Rest,
    /// Our direction goes on over TCP.
    OverTcp,
    /// The time is over.
    TimedOut,
}

fn look(stream: &AdoptedStream, limit_ms: u32) -> core::result::Result<Verdict, Violation> {
    let mut guard = stream.lock();
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
    let prod = sender.outbound.prod();
    let cons = view.peer.word(slot::RX_CONS).load_acquire();
    let unread = prod.wrapping_sub(cons);
    if unread == 0 || view.peer_wants_tcp() {
        sender.clock = None;
        return Ok(Verdict::Rest);
    }
    let mut clock = match sender.clock.take() {
        Some(clock) if clock.cons == cons => clock,
        _ => Clock::start(&link, prod, cons),
    };
    clock.is_answered = clock.is_answered || link.channel().has_taken_notice(&link);
    let has_stalled = clock.since.elapsed().as_millis() >= i64::from(LOOK_MS);
    if clock.is_answered && clock.prod != prod {
        // What was sent since has not been answered.
        clock = Clock::start(&link, prod, cons);
    }
    let waited_ms = clock.since.elapsed().as_millis();
    let is_answered = sender.clock.insert(clock).is_answered;
    if !is_answered && waited_ms >= i64::from(limit_ms) {
        return Ok(Verdict::TimedOut);
    }
    if has_stalled && switch::is_full(stream, extent, unread) {
        switch::leave_stalled(stream, sender, &link, cons)?;
        return Ok(Verdict::OverTcp);
    }
    Ok(if is_answered {
        Verdict::Rest
    } else {
        Verdict::Again
    })
}
