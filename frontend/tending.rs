// SPDX-License-Identifier: GPL-2.0

//! What the upkeep does for each connection of a channel: what its peer asks for, what could not be done at once, and parting
//! from those that have ended.

use crate::channel::Channel;
use crate::holders::Holders;
use crate::link::Link;
use crate::stream::{
    AdoptedStream,
    Stream,
    StreamExt, //
};
use crate::{
    giveback,
    handover,
    parting,
    ready,
    switch, //
};
use kernel::sync::atomic::Full;
use kernel::sync::Arc;
use xenvmc_core::wire;
use xenvmc_core::{
    Decline,
    Error as Violation, //
};
use xenvmc_net::Guard;

/// Tends to all connections; false = some are left for want of room or memory. Process context.
pub(crate) fn tend_all(channel: &Arc<Channel>) -> bool {
    let Ok(streams) = channel.streams() else {
        return false;
    };
    let (mut all, mut holders) = (true, Holders::new());
    for (own, stream) in streams {
        if stream.has_ended() {
            // Somebody may be inside a call still.
            all &= !holders.hold(&stream) && parting::part(channel, own, &stream);
        } else if handover::is_noted(&stream) {
            all &= handover::promise(&stream, channel);
        } else if holders.lock(&stream).is_none() {
            // The others do not wait for it.
            all = false;
        } else {
            tend(&stream);
            ready::attempt_after_grace(&stream);
        }
    }
    all
}

/// Does what is to be done for our sending direction: back to TCP for good if the peer asks for it, or if the remote address
/// is not the peer's any more; publishes what was left for want of room in the log, and takes back what the reader has left.
/// Process context, no lock held.
fn tend(stream: &AdoptedStream) {
    let mut guard = stream.lock();
    let Some(link) = guard.state().link.clone() else {
        return;
    };
    let result = tend_locked(stream, &mut guard, &link);
    drop(guard);
    if stream.wants_space.xchg(false, Full) {
        // Room in the log is room for writers.
        stream.socket().write_space();
    }
    match result {
        Ok(true) => stream.wake_to_look(),
        Ok(false) => {}
        Err(violation) => link.channel().violation(violation),
    }
}

/// The same with the socket locked, so that the slot is ours; true = something has changed for who sleeps.
///
/// # Errors
///
/// If the peer has broken the protocol.
fn tend_locked(
    stream: &AdoptedStream,
    guard: &mut Guard<'_, Stream>,
    link: &Link,
) -> core::result::Result<bool, Violation> {
    let is_asked = link.peer_flags() & wire::RX_RETURN != 0;
    let is_lost = !link.channel().peer().has_address(stream.tuple().dst);
    let before = guard.state().stays;
    if is_lost && before != Some(Decline::NotCoResident) {
        guard.state().stays = Some(Decline::NotCoResident);
        stream.frontend().counters().decline(Decline::NotCoResident);
        // The other direction: who reads takes what is in the ring first.
        link.set_receive_flags(wire::RX_RETURN);
        link.post();
    } else if is_asked && before.is_none() {
        guard.state().stays = Some(Decline::PeerReturned);
    }
    let is_over = is_asked || guard.state().stays == Some(Decline::NotCoResident);
    if is_over {
        giveback::leave_for_good(stream, guard, link)?;
    } else {
        switch::publish(stream, guard.state(), link)?;
    }
    switch::collect(guard.state(), link)?;
    Ok(guard.state().stays != before)
}
