// SPDX-License-Identifier: GPL-2.0

//! How two ends agree to accelerate a connection (protocol §7).
//!
//! The proof is one-sided at each step: who asks shows its own initial sequence number, which only the true other end has
//! received from the network; only if that is right the asked one shows its own. So a guest that claims an address which
//! is not its own learns nothing, and gets nothing.

use crate::channel::Channel;
use crate::link::Link;
use crate::parting::{
    finish,
    handle_release,
    leave,
    release, //
};
use crate::stream::{
    AdoptedStream,
    Phase,
    StreamExt, //
};
use crate::timeline::Step;
use kernel::prelude::*;
use kernel::sync::Arc;
use xenvmc_core::connection::{
    Action,
    Event,
    State, //
};
use xenvmc_core::message::{
    Message,
    Tuple, //
};
use xenvmc_core::wire::SlotId;
use xenvmc_core::Decline;
use xenvmc_core::Error as Violation;
use xenvmc_net as net;
use xenvmc_net::Locked;

/// What one end knows of the agreement about one connection. Under a lock of the connection.
pub(crate) struct Agreement {
    pub(crate) state: State,
    /// Our slot, while we have one.
    pub(crate) slot: Option<SlotId>,
    /// Number of our request.
    pub(crate) id: u32,
    pub(crate) link: Option<Arc<Link>>,
}

impl Agreement {
    /// Nothing was asked yet.
    pub(crate) const fn new() -> Self {
        Self {
            state: State::Plain,
            slot: None,
            id: 0,
            link: None,
        }
    }

    /// The state, for reports.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Moves the state machine; [`None`] if the event makes no sense now.
    pub(crate) fn next(&mut self, event: Event) -> Option<Action> {
        let (state, action) = self.state.next(event)?;
        self.state = state;
        Some(action)
    }
}

/// Whether a value of an initial sequence number that its owner sent is the one that was received from the network.
///
/// The owner reads its own as `snd_una - bytes_acked`, which is one less on the side that opened the connection.
fn is_proof(sent: u32, received: u32) -> bool {
    received.wrapping_sub(sent) <= 1
}

/// Asks the peer to accelerate a connection. Process context, no lock of the connection held.
///
/// # Errors
///
/// Why it was not asked; the caller counts it.
pub(crate) fn ask(
    stream: &Arc<AdoptedStream>,
    channel: &Arc<Channel>,
) -> core::result::Result<(), Decline> {
    let isn = {
        let guard = stream.lock();
        if !guard.can_send() {
            return Err(Decline::State);
        }
        if let Some(reason) = net::why_not_switch(&guard) {
            return Err(reason);
        }
        if !net::is_co_resident_route(&guard) {
            return Err(Decline::Route);
        }
        guard.sent_isn()
    };
    if stream.peer().is_distrusted() {
        return Err(Decline::Distrusted);
    }
    let slot = channel.take_slot(stream)?;
    let id = channel.frontend().next_request();
    let mut agreement = stream.agreement().lock();
    if !channel.is_open() || !Arc::ptr_eq(&stream.peer(), channel.peer()) {
        // The channel is over, or will be when the slot is looked for; another end has come meanwhile, maybe.
        drop(agreement);
        channel.put_slot(slot);
        return Err(Decline::NoChannel);
    }
    if agreement.next(Event::Ask).is_none() {
        drop(agreement);
        channel.put_slot(slot);
        return Err(Decline::Duplicate);
    }
    agreement.slot = Some(slot);
    agreement.id = id;
    stream.set_request(id);
    // Under the lock: what the upkeep makes of the peer's own request must not be said before this.
    let sent = channel.send(&Message::Open {
        id,
        tuple: stream.tuple(),
        isn,
        slot,
    });
    if let Err(reason) = sent {
        // As if it had never been made, which is what the peer believes: it may be made again.
        *agreement = Agreement::new();
        stream.set_request(0);
        drop(agreement);
        channel.put_slot(slot);
        if stream.has_ended() {
            stream.set_phase(Phase::Over);
        }
        return Err(reason);
    }
    channel.frontend().counters().requests_sent.inc();
    channel.frontend().timeline().note(Step::Asked);
    Ok(())
}

/// Acts on a control message.
///
/// # Errors
///
/// If no correct peer would have sent it now.
pub(crate) fn handle(
    channel: &Arc<Channel>,
    message: Message,
) -> core::result::Result<(), Violation> {
    match message {
        Message::Open {
            id,
            tuple,
            isn,
            slot,
        } => {
            channel.frontend().counters().requests_received.inc();
            channel.frontend().timeline().note(Step::Asked);
            if let Err(reason) = handle_open(channel, id, tuple.reversed(), isn, slot) {
                channel.frontend().counters().decline(reason);
                let refusal = Message::Refuse {
                    id,
                    reason: reason.told(),
                };
                if channel.send(&refusal).is_err() {
                    // It has more requests under way than it reads answers: its own fault, and its loss.
                    pr_debug!("domain {}: no room for a refusal\n", channel.peer().domid());
                }
            }
            Ok(())
        }
        Message::Accept { id, isn, slot } => handle_accept(channel, id, isn, slot),
        Message::Refuse { id, reason } => handle_refuse(channel, id, reason),
        Message::Release { slot, .. } => handle_release(channel, slot),
    }
}

/// Finds the socket of a connection, checks the peer's proof, and takes it over if that was not done yet.
fn find(
    channel: &Arc<Channel>,
    tuple: &Tuple,
    isn: u32,
) -> core::result::Result<(Arc<AdoptedStream>, u32), Decline> {
    let peer = channel.peer();
    if !peer.has_address(tuple.dst) {
        return Err(Decline::NoSuchSocket);
    }
    // Whether there is one is not told before the proof was found right: memory is wanted only if there is.
    let found = net::find_established(tuple).map_err(|_| Decline::NoSuchSocket)?;
    let mut is_claim_false = false;
    for socket in &found {
        let mut locked = socket.lock();
        if locked.tuple() != Some(*tuple) {
            continue;
        }
        if is_proof(isn, locked.received_isn()) {
            return take_over(channel, &mut locked);
        }
        // It may be of another device, which has a connection with the same addresses and ports.
        is_claim_false = true;
    }
    if is_claim_false {
        peer.distrust();
        peer.warn(format_args!("claimed a connection that is not its own"));
    }
    Err(Decline::NoSuchSocket)
}

/// Takes over the socket of a connection that the peer has proven to be its own, if that was not done yet.
fn take_over(
    channel: &Arc<Channel>,
    locked: &mut Locked<'_>,
) -> core::result::Result<(Arc<AdoptedStream>, u32), Decline> {
    if !locked.can_send() {
        return Err(Decline::State);
    }
    if let Some(reason) = net::why_not_switch(locked) {
        return Err(reason);
    }
    if !net::is_co_resident_route(locked) {
        return Err(Decline::Route);
    }
    let stream = match AdoptedStream::find(locked) {
        Some(stream) => stream,
        None => crate::adoption::adopt(channel.frontend(), channel.peer(), locked, GFP_KERNEL)?,
    };
    Ok((stream, locked.sent_isn()))
}

fn handle_open(
    channel: &Arc<Channel>,
    id: u32,
    tuple: Tuple,
    isn: u32,
    slot: SlotId,
) -> core::result::Result<(), Decline> {
    if !channel.frontend().settings().is_enabled() {
        return Err(Decline::Disabled);
    }
    if channel.peer().is_distrusted() {
        // One wrong proof ends the guessing for a while. Looks to the peer like one more.
        return Err(Decline::NoSuchSocket);
    }
    let (stream, isn) = find(channel, &tuple, isn)?;
    // The peer granted the page of its slot before it sent the message.
    crate::control::map_chunks(channel);
    let link = loop {
        // Once more if the connection has asked itself meanwhile.
        if let Some(link) = agree(channel, &stream, slot)? {
            break link;
        }
    };
    let accept = Message::Accept {
        id,
        isn,
        slot: link.own(),
    };
    if let Err(reason) = channel.send(&accept) {
        // The peer will not hear of the slot: nothing is under way on it.
        stream.agreement().lock().next(Event::ChannelOver);
        finish(&stream, channel);
        return Err(reason);
    }
    stream.activate(&link);
    Ok(())
}

/// Agrees to a request of the peer, whose slot is `theirs`; [`None`] if the agreement has changed meanwhile.
fn agree(
    channel: &Arc<Channel>,
    stream: &Arc<AdoptedStream>,
    theirs: SlotId,
) -> core::result::Result<Option<Arc<Link>>, Decline> {
    let peer_first = channel.peer().domid().get() < channel.frontend().own_domid().get();
    let asked = {
        let agreement = stream.agreement().lock();
        match agreement.state {
            State::Plain => None,
            State::Asking if peer_first => agreement.slot,
            State::Asking => return Err(Decline::Crossing),
            _ => return Err(Decline::Duplicate),
        }
    };
    let (own, event) = match asked {
        Some(own) => (own, Event::Yielded),
        None => (channel.take_slot(stream)?, Event::Asked),
    };
    let link = Link::new(channel, own, theirs);
    {
        let mut agreement = stream.agreement().lock();
        if let Ok(link) = &link {
            if agreement.slot == asked && agreement.next(event).is_some() {
                agreement.slot = Some(own);
                agreement.link = Some(link.clone());
                // Whatever the peer says to a request of ours, it has become moot.
                stream.set_request(0);
                return Ok(Some(link.clone()));
            }
        }
    }
    if asked.is_none() {
        channel.put_slot(own);
    }
    match link {
        Ok(_) => Ok(None),
        Err(_) => Err(Decline::NoMemory),
    }
}

/// Finds the connection that request `id` was for.
fn asking(channel: &Channel, id: u32) -> Option<Arc<AdoptedStream>> {
    if id == 0 {
        // What a connection has that did not ask.
        return None;
    }
    channel.slots().lock().find(|stream| stream.request() == id)
}

fn handle_accept(
    channel: &Arc<Channel>,
    id: u32,
    isn: u32,
    slot: SlotId,
) -> core::result::Result<(), Violation> {
    let unexpected = xenvmc_core::error::WireError::Kind(2);
    let stream = asking(channel, id).ok_or(unexpected)?;
    crate::control::map_chunks(channel);
    let received_isn = stream.lock().received_isn();
    let own = stream.agreement().lock().slot.ok_or(unexpected)?;
    let link = match Link::new(channel, own, slot) {
        Ok(link) => link,
        Err(error) if error == EINVAL => return Err(xenvmc_core::error::ArenaError::Mapped.into()),
        Err(_) => {
            // No memory: the connection ends before it began, by the ordinary way.
            stream.agreement().lock().next(Event::Ended);
            stream.agreement().lock().next(Event::Accepted);
            release(channel, id, slot);
            return Ok(());
        }
    };
    let action = {
        let mut agreement = stream.agreement().lock();
        let action = agreement.next(Event::Accepted).ok_or(unexpected)?;
        agreement.link = Some(link.clone());
        action
    };
    if action == Action::SendRelease {
        leave(&stream, channel, own, true);
        release(channel, id, slot);
        return Ok(());
    }
    if !is_proof(isn, received_isn) {
        stream.peer().distrust();
        channel
            .peer()
            .warn(format_args!("accepted a connection that is not its own"));
        channel.frontend().counters().decline(Decline::WrongProof);
        stream.end();
        return Ok(());
    }
    stream.activate(&link);
    Ok(())
}

fn handle_refuse(
    channel: &Arc<Channel>,
    id: u32,
    reason: Decline,
) -> core::result::Result<(), Violation> {
    channel.frontend().counters().refused(reason);
    let Some(stream) = asking(channel, id) else {
        // We asked, the peer asked as well, and we have said yes to that.
        return Ok(());
    };
    let over = stream.agreement().lock().next(Event::Refused);
    over.ok_or(xenvmc_core::error::WireError::Kind(3))?;
    finish(&stream, channel);
    stream.refused(reason);
    Ok(())
}
