// SPDX-License-Identifier: GPL-2.0

//! Flows that leave this guest for a peer: where the datagrams of each go (protocol §10.5).

use super::flow::{
    unfit,
    Flow,
    RETRY_MS, //
};
use super::queue::Queue;
use super::table::{
    describe,
    Table,
    MS_PER_SWEEP, //
};
use crate::channel::Channel;
use crate::frontend::Frontend;
use core::fmt;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::Instant;
use xenvmc_core::datagram::flow::{
    Event,
    State, //
};
use xenvmc_core::datagram::headers::Parsed;
use xenvmc_core::datagram::message::Message;
use xenvmc_core::message::{
    Address,
    Tuple, //
};
use xenvmc_core::Decline;
use xenvmc_net::netfilter::Fate;
use xenvmc_net::packet::Packet;

/// After how long without a datagram a flow is forgotten.
const FORGET_MS: u32 = 60_000;

const SWEEPS: u32 = FORGET_MS / MS_PER_SWEEP;

/// Sweeps without a datagram after which a flow leaves the ring.
const IDLE_SWEEPS: u32 = 20_000 / MS_PER_SWEEP;

/// How long the answer to a request is waited for.
const ANSWER_MS: i64 = 1_000;

/// How long datagrams are held while a flow changes its way.
const HOLD_MS: i64 = 500;

/// How long a flow may be about to enter the ring while nobody sends.
const IDLE_MS: i64 = 5_000;

/// All flows.
pub(super) struct Flows(Table<Flow>);

/// A flow for which a request is to be made.
pub(super) struct Wanted {
    /// Addresses and ports.
    pub(super) tuple: Tuple,
    /// The device that it leaves through.
    pub(super) device: i32,
}

/// What is to be done when a packet was dealt with, without the lock.
pub(super) enum Afterwards {
    /// Nothing.
    Nothing,
    /// The keeper has something to do.
    Kick,
    /// An answer may come soon. The reference is one that the channel's end waits for: it is let go of in the same RCU read-side section.
    Look(Arc<Channel>),
}

impl Afterwards {
    fn kick_if(is_so: bool) -> Self {
        match is_so {
            true => Self::Kick,
            false => Self::Nothing,
        }
    }
}

impl Flows {
    /// None.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        Ok(Self(Table::new()?))
    }

    /// A packet is about to leave. Returns what becomes of it, and what is to be done afterwards; `may_look` says whether its sender may look
    /// for an answer. In a hook.
    pub(super) fn leaving(
        &mut self,
        frontend: &Frontend,
        packet: Packet,
        parsed: &Parsed,
        device: i32,
        may_look: bool,
    ) -> (Fate, Afterwards) {
        let tuple = &parsed.tuple;
        let is_new = !self.0.contains(tuple);
        let flow = match is_new {
            false => self.0.find(tuple).map(|(_, flow)| flow),
            true if frontend.peers().find(tuple.dst).is_some() => {
                let new = |may_have_been| Flow::new(tuple, device, may_have_been);
                self.0.find_or_insert(tuple, SWEEPS, new)
            }
            true => None,
        };
        let Some(flow) = flow else {
            return (Fate::Network(packet), Afterwards::Nothing);
        };
        match flow.state {
            State::Network | State::Asking => {
                flow.count(&packet, parsed);
                flow.device = device;
                let kick = flow.state == State::Network
                    && flow.wants_ring(frontend, &packet, parsed)
                    && frontend.datagrams().may_begin(frontend.settings());
                (Fate::Network(packet), Afterwards::kick_if(kick || is_new))
            }
            State::Entering | State::Leaving => {
                // The first one that is held makes the first marker.
                let is_first = flow.state == State::Entering && flow.marked.is_none();
                (flow.hold(packet), Afterwards::kick_if(is_first))
            }
            State::Ring => {
                let is_open = flow
                    .channel
                    .as_ref()
                    .is_some_and(|channel| channel.is_open());
                let unfit = unfit(&packet, parsed);
                if unfit.is_some() {
                    // Others like it may come each time that it is in the ring again.
                    flow.note_refusal();
                }
                let reason = unfit
                    .or((device != flow.device).then_some(Decline::Route))
                    .or((!is_open).then_some(Decline::ChannelClosed));
                if let Some(reason) = reason {
                    frontend.counters().decline(reason);
                    flow.leave();
                    return (flow.hold(packet), Afterwards::Kick);
                }
                if packet.settle().is_err() {
                    return (Fate::Full(packet), Afterwards::Nothing);
                }
                let channel = flow.channel.as_ref().filter(|channel| {
                    let is_first = channel.lines().answers.sent();
                    is_first && may_look
                });
                let then = channel.map_or(Afterwards::Nothing, |channel| {
                    Afterwards::Look(channel.clone())
                });
                match flow.send(packet, parsed) {
                    Fate::Taken => (Fate::Taken, then),
                    fate => (fate, Afterwards::Nothing),
                }
            }
        }
    }

    /// A flow that is to be asked for, and was not tried a moment ago.
    pub(super) fn poll_wanted(&mut self) -> Option<Wanted> {
        let now = self.0.iter_mut().map(|(_, flow)| flow).find(|flow| {
            flow.state == State::Network
                && flow.wanted.is_some()
                && flow
                    .tried
                    .is_none_or(|tried| tried.elapsed().as_millis() >= RETRY_MS)
        })?;
        now.tried = Some(Instant::now());
        Some(Wanted {
            tuple: now.tuple,
            device: now.device,
        })
    }

    /// Lets markers be sent for all flows that enter; false = there is none that was not so before. The caller then waits for packets that are
    /// on their way from a hook to their device: they were let go before the flow began to enter.
    pub(super) fn allow_markers(&mut self) -> bool {
        let mut is_new = false;
        for (_, flow) in self.0.iter_mut() {
            if flow.state == State::Entering && !flow.held.is_empty() {
                is_new |= !core::mem::replace(&mut flow.may_mark, true);
            }
        }
        is_new
    }

    /// A marker that is due. The caller sends it without the lock.
    pub(super) fn poll_marker(&mut self) -> Option<Packet> {
        self.0.iter_mut().find_map(|(_, flow)| flow.poll_marker())
    }

    /// Whether there is a flow that is to be asked for, or changes its way.
    pub(super) fn is_busy(&self) -> bool {
        let is_busy = |flow: &Flow| match flow.state {
            State::Network => flow.wanted.is_some(),
            State::Asking | State::Leaving => true,
            // Otherwise the next datagram, or the reader, asks for the keeper.
            State::Entering => !flow.held.is_empty(),
            State::Ring => false,
        };
        self.0.iter().any(|(_, flow)| is_busy(flow))
    }

    /// A request for `tuple` could not be made; counts why.
    pub(super) fn could_not_ask(&mut self, frontend: &Frontend, tuple: &Tuple, reason: Decline) {
        if let Some((_, flow)) = self.0.find(tuple) {
            if flow.state == State::Network && !flow.handle_refusal(reason) {
                frontend.counters().decline(reason);
            }
        }
    }

    /// Asks `channel`'s peer for `tuple` with `message`, whose id is `id`.
    pub(super) fn ask(
        &mut self,
        channel: &Arc<Channel>,
        tuple: &Tuple,
        id: u32,
        message: &Message,
    ) -> core::result::Result<(), Decline> {
        let (_, flow) = self.0.find(tuple).ok_or(Decline::State)?;
        if flow.state != State::Network {
            return Err(Decline::State);
        }
        channel.send_datagram(message)?;
        flow.next(Event::Ask);
        flow.id = id;
        flow.channel = Some(channel.clone());
        Ok(())
    }

    /// The flow for which `channel`'s peer was asked by `id`.
    fn asked(&mut self, channel: &Arc<Channel>, id: u32) -> Option<&mut Flow> {
        let is_its = |flow: &&mut Flow| {
            let its = flow.channel.as_ref();
            flow.id == id && its.is_some_and(|its| Arc::ptr_eq(its, channel))
        };
        self.0.iter_mut().map(|(_, flow)| flow).find(is_its)
    }

    /// The peer has admitted the flow of request `id`; returns what it is answered. The outlet is open.
    pub(super) fn handle_admit(
        &mut self,
        channel: &Arc<Channel>,
        id: u32,
        peer_flow: u32,
    ) -> Message {
        if let Some(flow) = self.asked(channel, id) {
            if flow.next(Event::Admitted) {
                flow.peer_flow = peer_flow;
                (flow.held_since, flow.may_mark, flow.marked) = (None, false, None);
                return Message::Handover {
                    flow: peer_flow,
                    id,
                    sent: flow.count_for(channel.peer()),
                };
            }
        }
        // It was not waited for any longer.
        Message::Leave {
            flow: peer_flow,
            id,
        }
    }

    /// The peer has refused the flow of request `id`.
    pub(super) fn handle_refuse(&mut self, channel: &Arc<Channel>, id: u32, reason: Decline) {
        if let Some(flow) = self.asked(channel, id) {
            if flow.next(Event::Refused) {
                // The caller has a reference to the channel, too.
                flow.channel = None;
                flow.handle_refusal(reason);
            }
        }
    }

    /// All datagrams of the flow of request `id` that went over the network have come: those that are held go through the ring.
    pub(super) fn handle_go(&mut self, channel: &Arc<Channel>, id: u32) {
        let Some(flow) = self.asked(channel, id) else {
            return;
        };
        if !flow.next(Event::Go) {
            return;
        }
        flow.wanted = None;
        channel.frontend().counters().udp_flows_entered.inc();
        while let Some(packet) = flow.held.first() {
            let parsed = packet.parse();
            let Some(parsed) = parsed.filter(|parsed| unfit(packet, parsed).is_none()) else {
                flow.note_refusal();
                return flow.leave();
            };
            if let Some(packet) = flow.held.pop() {
                // One that finds no room is lost, as on a network device.
                let _ = flow.send(packet, &parsed);
            }
        }
    }

    /// Nothing of the flow of request `id` is in the ring any more.
    pub(super) fn handle_left(&mut self, channel: &Arc<Channel>, id: u32) {
        if let Some(flow) = self.asked(channel, id) {
            if flow.state == State::Leaving && !flow.has_left {
                // The caller has a reference to the channel, too.
                flow.channel = None;
                flow.left();
                channel.frontend().counters().udp_flows_left.inc();
            }
        }
    }

    /// The peer does not want the flow of request `id` in the ring any more.
    pub(super) fn handle_revoke(&mut self, channel: &Arc<Channel>, id: u32) {
        if let Some(flow) = self.asked(channel, id) {
            flow.leave();
        }
    }

    /// Sees to flows that wait: says LEAVE for those that are to leave, and waits no longer where no answer comes. What `dropped` gets is to be
    /// dropped without the lock.
    pub(super) fn tend(&mut self, frontend: &Frontend, dropped: &mut KVec<Arc<Channel>>) {
        for (_, flow) in self.0.iter_mut() {
            let Some(channel) = &flow.channel else {
                continue;
            };
            let waited = flow.since.elapsed().as_millis();
            let (id, peer_flow) = (flow.id, flow.peer_flow);
            match flow.state {
                State::Network => {}
                State::Ring if channel.is_open() => {}
                State::Ring => flow.leave(),
                State::Asking if waited < ANSWER_MS => {}
                State::Asking => {
                    frontend.counters().decline(Decline::PeerRefused);
                    flow.refused();
                    flow.next(Event::Refused);
                    park(&mut flow.channel, dropped);
                }
                State::Entering => match &flow.held_since {
                    Some(since) if since.elapsed().as_millis() < HOLD_MS => {}
                    Some(_) => {
                        // It would hold up its socket, and other flows of that, each time.
                        channel.peer().note_stall();
                        flow.note_refusal();
                        flow.leave();
                    }
                    None if waited < IDLE_MS => {}
                    None => flow.leave(),
                },
                // The reference could not be let go of.
                State::Leaving if flow.has_left => park(&mut flow.channel, dropped),
                State::Leaving => {
                    if !flow.has_said_leave && channel.is_open() {
                        let leave = Message::Leave {
                            flow: peer_flow,
                            id,
                        };
                        flow.has_said_leave = channel.send_datagram(&leave).is_ok();
                    }
                    let is_drained = !channel.is_open() && {
                        let outlet = channel.lines().outlet.lock();
                        outlet.as_ref().is_none_or(|outlet| outlet.is_drained())
                    };
                    // A peer that does not answer keeps nobody waiting.
                    if is_drained || waited >= HOLD_MS {
                        if !is_drained {
                            channel.peer().note_stall();
                            if !flow.has_failed {
                                flow.note_refusal();
                            }
                        }
                        flow.left();
                        frontend.counters().udp_flows_left.inc();
                        park(&mut flow.channel, dropped);
                    }
                }
            }
        }
    }

    /// Lets those flows leave that are in the ring for longer than the setting says, or are idle, or for which `may_stay` says no.
    pub(super) fn review(
        &mut self,
        frontend: &Frontend,
        may_stay: impl Fn(&Channel, &Tuple) -> bool,
    ) {
        let limit = i64::from(frontend.settings().udp_ms());
        for (age, flow) in self.0.iter_aged_mut() {
            // One that is idle makes room for others, also where flows may stay for long.
            let is_over = flow.since.elapsed().as_millis() >= limit || age > IDLE_SWEEPS;
            let may = |channel: &Arc<Channel>| may_stay(channel, &flow.tuple);
            if flow.state == State::Ring && (is_over || !flow.channel.as_ref().is_some_and(may)) {
                flow.leave();
            }
        }
        self.0.sweep(SWEEPS);
    }

    /// Lets all flows leave.
    pub(super) fn leave_all(&mut self) {
        for (_, flow) in self.0.iter_mut() {
            flow.wanted = None;
            flow.leave();
        }
    }

    /// Whether no flow is in a ring, or on the way.
    pub(super) fn are_on_network(&self) -> bool {
        self.0.iter().all(|(_, flow)| flow.state == State::Network)
    }

    /// Where flows go that are not on the network.
    pub(super) fn destinations(&self) -> impl Iterator<Item = Address> + '_ {
        let others = |flow: &&Flow| flow.state != State::Network;
        self.0
            .iter()
            .map(|(_, flow)| flow)
            .filter(others)
            .map(|flow| flow.tuple.dst)
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().next().is_none()
    }

    /// The flows that use `channel`, or did.
    fn of<'a>(&'a mut self, channel: &'a Arc<Channel>) -> impl Iterator<Item = &'a mut Flow> {
        self.0.iter_mut().map(|(_, flow)| flow).filter(|flow| {
            let its = flow.channel.as_ref();
            its.is_some_and(|its| Arc::ptr_eq(its, channel))
        })
    }

    /// The reader of a channel takes nothing: its flows leave.
    pub(super) fn leave_channel(&mut self, channel: &Arc<Channel>) {
        self.of(channel).for_each(Flow::leave);
    }

    /// A channel is over: its flows are on the network, as soon as what waits is there: [`Self::poll_waiting`]. The caller holds a reference
    /// to it.
    pub(super) fn abandon(&mut self, channel: &Arc<Channel>) {
        for flow in self.of(channel) {
            flow.leave();
            if flow.state == State::Leaving && !flow.has_left {
                flow.left();
            }
            flow.channel = None;
        }
    }

    /// Packets of a flow that go over the network next, in order. The caller, of whom there is one at a time, sends them without the lock,
    /// and calls again.
    pub(super) fn poll_waiting(&mut self) -> Option<Queue<Packet>> {
        let left = self.0.iter_mut().filter(|(_, flow)| flow.has_left);
        left.map(|(_, flow)| flow).find_map(Flow::take_waiting)
    }

    /// Writes a line for each flow.
    pub(super) fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (_, flow) in self.0.iter() {
            let state = match flow.state {
                State::Network => "Network",
                State::Asking => "Asking",
                State::Entering => "Entering",
                State::Ring => "Ring",
                State::Leaving => "Leaving",
            };
            describe(f, "out", &flow.tuple, state, flow.sent)?;
        }
        Ok(())
    }
}

/// Moves a reference to where it can be dropped; keeps it if there is no memory, until the channel is over.
fn park(channel: &mut Option<Arc<Channel>>, dropped: &mut KVec<Arc<Channel>>) {
    if let Some(its) = channel {
        if dropped.push(its.clone(), GFP_ATOMIC).is_ok() {
            *channel = None;
        }
    }
}
