// SPDX-License-Identifier: GPL-2.0

//! How the two ends of an accelerated connection part (protocol §7).

use crate::channel::Channel;
use crate::giveback;
use crate::holders::Holders;
use crate::link::Link;
use crate::slots::Holder;
use crate::stream::{
    AdoptedStream,
    Phase,
    StreamExt, //
};
use kernel::sync::Arc;
use xenvmc_core::connection::{
    Event,
    State, //
};
use xenvmc_core::message::Message;
use xenvmc_core::wire::SlotId;
use xenvmc_core::Error as Violation;

pub(crate) fn handle_release(
    channel: &Arc<Channel>,
    slot: SlotId,
) -> core::result::Result<(), Violation> {
    let unexpected = xenvmc_core::error::WireError::Kind(4);
    let stream = match channel.slots().lock().holder(slot) {
        Some(Holder::Stream(stream)) => Some(stream.clone()),
        Some(Holder::Left(_)) => None,
        Some(Holder::Free) | None => return Err(unexpected.into()),
    };
    let Some(stream) = stream else {
        channel.put_slot(slot);
        return Ok(());
    };
    let over = {
        let mut agreement = stream.agreement().lock();
        agreement.next(Event::Released).ok_or(unexpected)?;
        agreement.state == State::Over
    };
    if over {
        finish(&stream, channel);
    } else {
        stream.deserted();
    }
    Ok(())
}

/// Gives the slot of an agreement that is over back.
pub(crate) fn finish(stream: &Arc<AdoptedStream>, channel: &Arc<Channel>) {
    let slot = {
        let mut agreement = stream.agreement().lock();
        agreement.link = None;
        agreement.slot.take()
    };
    stream.set_phase(Phase::Over);
    if let Some(slot) = slot {
        channel.put_slot(slot);
    }
}

/// Tells the peer that a connection has ended here; true = said.
pub(crate) fn release(channel: &Channel, id: u32, slot: SlotId) -> bool {
    channel.send(&Message::Release { id, slot }).is_ok()
}

/// Whether the peer has read all that we have sent.
fn is_all_read(stream: &AdoptedStream, link: &Link) -> bool {
    let mut guard = stream.lock();
    let outbound = &mut guard.state().outbound;
    link.view()
        .is_some_and(|view| outbound.is_all_read(&view.peer) == Ok(true))
}

/// Leaves what the peer may still read in the slot's care, so that the socket can go; nothing but the slot if it has read all.
pub(crate) fn leave(
    stream: &Arc<AdoptedStream>,
    channel: &Channel,
    own: SlotId,
    is_all_read: bool,
) {
    let mut outbound = stream.detach();
    if is_all_read {
        while let Some(extent) = outbound.poll_abandoned() {
            channel.put_extent(extent);
        }
    }
    // The last reference to a channel must not be one that is dropped in a softirq, with the stream.
    let link = stream.agreement().lock().link.take();
    drop(link);
    let old = channel
        .slots()
        .lock()
        .holder(own)
        .map(|holder| core::mem::replace(holder, Holder::Left(outbound)));
    drop(old);
}

/// Releases a connection that has ended here, with what the peer may still read left to its slot; false = there was no room to say
/// so.
pub(crate) fn part(channel: &Arc<Channel>, own: SlotId, stream: &Arc<AdoptedStream>) -> bool {
    let (link, state) = {
        let agreement = stream.agreement().lock();
        (agreement.link.clone(), agreement.state)
    };
    match (state, link) {
        (State::Asking, _) => {
            stream.agreement().lock().next(Event::Ended);
        }
        (State::Active | State::Deserted, Some(link)) => {
            let id = stream.agreement().lock().id;
            // As far as there is room: a reader that has not left the ring goes on from its end.
            let finished = giveback::finish_sending(stream, &mut stream.lock(), &link);
            if let Err(violation) = finished {
                channel.violation(violation);
            }
            let is_all_read = is_all_read(stream, &link);
            // Nothing of ours is written to the slot after the message.
            stream.quiesce();
            if !release(channel, id, link.peer()) {
                return false;
            }
            leave(stream, channel, own, is_all_read);
            let over = {
                let mut agreement = stream.agreement().lock();
                agreement.next(Event::Ended);
                agreement.state == State::Over
            };
            if over {
                finish(stream, channel);
            }
        }
        _ => {}
    }
    true
}

/// Ends all agreements of a channel that is over: nothing of the peer is used any more. False = a task holds a connection.
pub(crate) fn end_all(channel: &Arc<Channel>) -> bool {
    let mut holders = Holders::new();
    loop {
        let Some(id) = channel.slots().lock().first_used() else {
            return true;
        };
        let stream = channel.slots().lock().stream(id);
        match stream {
            Some(stream) if holders.hold(&stream) => return false,
            Some(stream) => {
                stream.agreement().lock().next(Event::ChannelOver);
                // Its extents go with the whole arena.
                let _ = stream.detach();
                finish(&stream, channel);
                stream.forget_channel();
                // In case it had another slot in its agreement.
                channel.put_slot(id);
            }
            None => channel.put_slot(id),
        }
    }
}
