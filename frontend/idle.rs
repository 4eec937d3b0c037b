// SPDX-License-Identifier: GPL-2.0

//! What rings have grown to is taken back from connections that send no more, so that an idle one costs little.

use crate::channel::Channel;
use crate::stream::AdoptedStream;
use crate::switch;
use kernel::sync::atomic::{
    Acquire,
    Relaxed,
    Release, //
};
use kernel::sync::Arc;
use xenvmc_core::connection::State;
use xenvmc_core::extent::PAGE_SIZE;
use xenvmc_core::segment::Mode;
use xenvmc_core::Error as Violation;
use xenvmc_xen::work::{
    Run,
    Task, //
};

/// How long a connection sends nothing before it counts as idle, at least; at most twice that. Milliseconds.
pub(crate) const IDLE_MS: u32 = 1_000;

/// Looks at the large rings of a channel, as long as there are any.
pub(crate) struct Idle(pub(crate) Arc<Channel>);

impl Run for Idle {
    fn run(&self, task: &Task<Self>) {
        if shrink_all(&self.0) {
            task.kick_after(IDLE_MS);
        }
    }
}

/// Looks at all connections once; true = some must be looked at again.
fn shrink_all(channel: &Arc<Channel>) -> bool {
    if !channel.is_open() {
        return false;
    }
    let Ok(streams) = channel.streams() else {
        return true;
    };
    let small = PAGE_SIZE << channel.frontend().settings().initial_order;
    let mut again = false;
    for (_, stream) in streams {
        if stream.extent_bytes.load(Acquire) <= small {
            continue;
        }
        match shrink(&stream, small) {
            Ok(is_large) => again |= is_large,
            Err(violation) => {
                channel.violation(violation);
                return false;
            }
        }
    }
    again
}

/// Goes on in a small extent if nothing was sent since this was called last, and all of it was read; true = the
/// connection may still hold more than a small one.
fn shrink(stream: &Arc<AdoptedStream>, small: u32) -> core::result::Result<bool, Violation> {
    let mut guard = stream.lock();
    let sender = guard.state();
    let Some(link) = sender.link.clone() else {
        return Ok(false);
    };
    let Some(view) = link.view() else {
        return Ok(false);
    };
    if stream.agreement().lock().state() == State::Deserted {
        // Nobody reads any more.
        stream.sends_to_ring.store(false, Release);
        while let Some(extent) = sender.outbound.poll_abandoned() {
            link.channel().put_extent(extent);
        }
        return Ok(false);
    }
    let sent = stream.sent.load(Relaxed);
    let was_idle = core::mem::replace(&mut sender.sent_before, sent) == sent;
    let outbound = &mut sender.outbound;
    // With a record that the reader has not entered there would soon be no room for further ones, and he may sleep.
    let is_done = outbound.is_all_read(&view.peer)? && outbound.is_all_entered(&view.peer);
    if was_idle && is_done && outbound.is_settled() {
        match outbound.mode() {
            // No ring follows an end (protocol §6.9), nor RETURN (§6.5).
            Mode::Ring { .. } if sender.ended || view.peer_wants_tcp() => {
                switch::leave(stream, sender, &link)?;
            }
            Mode::Ring { extent, .. } if extent.bytes() > small => {
                switch::shrink(stream, sender, &link)?;
            }
            Mode::Ring { .. } | Mode::Tcp => {}
        }
    }
    switch::collect(sender, &link)?;
    Ok(match sender.outbound.mode() {
        Mode::Tcp => sender.outbound.extents() > 0,
        Mode::Ring { extent, .. } => extent.bytes() > small || sender.outbound.extents() > 1,
    })
}
