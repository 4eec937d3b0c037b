// SPDX-License-Identifier: GPL-2.0

//! Flows that leave this guest for a peer: where the datagrams of each go (protocol §10.5).

use super::outlet::Outgoing;
use super::queue::Queue;
use crate::channel::Channel;
use crate::frontend::Frontend;
use core::fmt;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::{
    Instant,
    Monotonic, //
};
use xenvmc_core::datagram::flow::{
    Event,
    State, //
};
use xenvmc_core::datagram::headers::Parsed;
use xenvmc_core::datagram::message::Message;
use xenvmc_core::datagram::record::Record;
use xenvmc_core::datagram::PAYLOAD_MAX;
use xenvmc_core::message::{
    Address,
    Tuple, //
};
use xenvmc_core::policy::Threshold;
use xenvmc_core::Decline;
use xenvmc_net::netfilter::Fate;
use xenvmc_net::packet::Packet;

/// Time between two sweeps.
pub(super) const MS_PER_SWEEP: u32 = 250;

/// After how long without a datagram a flow is forgotten.
const FORGET_MS: u32 = 30_000;

/// How long the answer to a request is waited for.
const ANSWER_MS: i64 = 1_000;

/// How long datagrams are held while a flow changes its way.
const HOLD_MS: i64 = 200;

/// Datagrams of a flow that are held at most.
const HELD_MAX: usize = 512;

/// How long after the first attempt a request is tried again that could not be made, or was refused for now.
const PATIENCE_MS: i64 = 2_000;

/// Time between two attempts.
const RETRY_MS: i64 = 40;

const SETS: usize = 256;
const WAYS: usize = 4;

/// What an entry of a [`Table`] has.
pub(super) trait HasTuple {
    /// What it is found by.
    fn tuple(&self) -> &Tuple;

    /// Whether it may be forgotten for another one, or when it was not used for long.
    fn may_go(&self) -> bool;
}

/// Entries by addresses and ports: sets of four, so that nobody can make a search long.
pub(super) struct Table<T> {
    places: KVec<Place<T>>,
}

struct Place<T> {
    entry: Option<KBox<T>>,
    /// Other for each entry that was here.
    generation: u32,
    /// Sweeps since it was used last.
    age: u32,
}

/// The set of a tuple.
fn set_of(tuple: &Tuple) -> usize {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let address = |hash, address: &Address| match address {
        Address::V4(bytes) => bytes.iter().fold(hash, fold),
        Address::V6(bytes) => bytes.iter().fold(hash, fold),
    };
    let hash = address(address(0xcbf2_9ce4_8422_2325, &tuple.src), &tuple.dst);
    let ports = [tuple.src_port.to_ne_bytes(), tuple.dst_port.to_ne_bytes()];
    let hash = ports.as_flattened().iter().fold(hash, fold);
    ((hash >> 32) as usize ^ hash as usize) % SETS
}

impl<T: HasTuple> Table<T> {
    /// An empty table.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        let mut places = KVec::with_capacity(SETS * WAYS, GFP_KERNEL)?;
        for _ in 0..SETS * WAYS {
            let place = Place {
                entry: None,
                generation: 0,
                age: 0,
            };
            places.push(place, GFP_KERNEL)?;
        }
        Ok(Self { places })
    }

    fn index(&self, tuple: &Tuple) -> Option<usize> {
        let first = set_of(tuple) * WAYS;
        let set = self.places.get(first..first + WAYS)?;
        let is_it = |place: &Place<T>| {
            place
                .entry
                .as_ref()
                .is_some_and(|entry| entry.tuple() == tuple)
        };
        Some(first + set.iter().position(is_it)?)
    }

    fn number(&self, index: usize) -> u32 {
        let generation = self.places.get(index).map_or(0, |place| place.generation);
        generation.wrapping_mul((SETS * WAYS) as u32) | index as u32
    }

    /// The entry of `tuple`, which is used by that, and its number.
    pub(super) fn find(&mut self, tuple: &Tuple) -> Option<(u32, &mut T)> {
        let index = self.index(tuple)?;
        let number = self.number(index);
        let place = self.places.get_mut(index)?;
        place.age = 0;
        Some((number, place.entry.as_deref_mut()?))
    }

    /// The same; makes it if there is none and there is room, or an entry that may go.
    pub(super) fn find_or_insert(
        &mut self,
        tuple: &Tuple,
        new: impl FnOnce() -> T,
    ) -> Option<&mut T> {
        if self.index(tuple).is_none() {
            let first = set_of(tuple) * WAYS;
            let set = self.places.get_mut(first..first + WAYS)?;
            let place = set
                .iter_mut()
                .filter(|place| place.entry.as_ref().is_none_or(|entry| entry.may_go()))
                .max_by_key(|place| (place.entry.is_none(), place.age))?;
            place.entry = Some(KBox::new(new(), GFP_ATOMIC).ok()?);
            place.generation = place.generation.wrapping_add(1);
        }
        self.find(tuple).map(|(_, entry)| entry)
    }

    /// The entry of that number.
    pub(super) fn get(&mut self, number: u32) -> Option<&mut T> {
        let index = number as usize % (SETS * WAYS);
        if self.number(index) != number {
            return None;
        }
        self.places.get_mut(index)?.entry.as_deref_mut()
    }

    /// All entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let entry = place.entry.as_deref()?;
            Some((self.number(index), entry))
        })
    }

    /// All entries.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        let places = self.places.iter_mut().enumerate();
        places.filter_map(|(index, place)| Some((index, place.entry.as_deref_mut()?)))
    }

    /// Forgets entries that may go and were not used for `sweeps` sweeps; called at each of them.
    pub(super) fn sweep(&mut self, sweeps: u32) {
        for place in self.places.iter_mut() {
            place.age = place.age.saturating_add(1);
            if place.age > sweeps && place.entry.as_ref().is_some_and(|entry| entry.may_go()) {
                place.entry = None;
            }
        }
    }
}

/// Writes the line of a flow.
pub(super) fn describe(
    f: &mut fmt::Formatter<'_>,
    direction: &str,
    tuple: &Tuple,
    state: &str,
    network: u32,
) -> fmt::Result {
    let Tuple {
        src,
        dst,
        src_port,
        dst_port,
    } = tuple;
    writeln!(
        f,
        "direction={direction} source={src} source_port={src_port} destination={dst} destination_port={dst_port} state={state} network={network}"
    )
}

/// A flow.
struct Flow {
    tuple: Tuple,
    state: State,
    /// When it came into that state.
    since: Instant<Monotonic>,
    /// The device that it leaves through.
    device: i32,
    /// Datagrams that went over the network since it was first seen, or was in the ring last.
    sent: u32,
    /// Packets since it was refused, or was in the ring last, and their bytes.
    calls: u32,
    bytes: u64,
    refusals: u32,
    /// It is worth a request, since then; and when one was tried last.
    wanted: Option<Instant<Monotonic>>,
    tried: Option<Instant<Monotonic>>,
    /// Our number of the last request.
    id: u32,
    /// The reader's number.
    peer_flow: u32,
    /// The channel, but in the state Network.
    channel: Option<Arc<Channel>>,
    /// LEAVE was sent.
    has_said_leave: bool,
    held: Queue<Packet>,
}

impl HasTuple for Flow {
    fn tuple(&self) -> &Tuple {
        &self.tuple
    }

    fn may_go(&self) -> bool {
        self.state == State::Network
    }
}

/// Why a packet cannot go through a ring.
fn unfit(packet: &Packet, parsed: &Parsed) -> Option<Decline> {
    if parsed.has_options
        || parsed.fields.ttl == 0
        || packet.len_from(parsed.payload_at) > PAYLOAD_MAX
    {
        return Some(Decline::Option);
    }
    packet.why_not()
}

impl Flow {
    fn new(tuple: &Tuple, device: i32) -> Self {
        Self {
            tuple: *tuple,
            state: State::Network,
            since: Instant::now(),
            device,
            sent: 0,
            calls: 0,
            bytes: 0,
            refusals: 0,
            wanted: None,
            tried: None,
            id: 0,
            peer_flow: 0,
            channel: None,
            has_said_leave: false,
            held: Queue::new(HELD_MAX),
        }
    }

    /// Moves the state machine; false if the event makes no sense now.
    fn next(&mut self, event: Event) -> bool {
        let Some(state) = self.state.next(event) else {
            return false;
        };
        (self.state, self.since) = (state, Instant::now());
        true
    }

    /// A packet of it leaves over the network.
    fn count(&mut self, packet: &Packet, parsed: &Parsed) {
        self.sent = self.sent.wrapping_add(packet.datagrams());
        self.calls = self.calls.saturating_add(1);
        let len = packet.len_from(parsed.payload_at);
        self.bytes = self.bytes.saturating_add(len.into());
    }

    /// It stays on the network until much more has gone there.
    fn refused(&mut self) {
        (self.calls, self.bytes) = (0, 0);
        (self.wanted, self.tried) = (None, None);
        self.refusals = (self.refusals + 1).min(4);
    }

    /// Lets a packet wait.
    fn hold(&mut self, packet: Packet) -> Fate {
        if packet.settle().is_err() {
            return Fate::Full(packet);
        }
        match self.held.push(packet) {
            Ok(()) => Fate::Taken,
            Err(packet) => Fate::Full(packet),
        }
    }

    /// Sends a packet through the ring.
    fn send(&self, packet: Packet, parsed: &Parsed) -> Fate {
        let Some(channel) = &self.channel else {
            return Fate::Full(packet);
        };
        let record = Record {
            len: packet.len_from(parsed.payload_at),
            flow: self.peer_flow,
            segment: packet.segment_size(),
            fields: parsed.fields,
        };
        let mut outlet = channel.lines().outlet.lock();
        let Some(outlet) = &mut *outlet else {
            return Fate::Full(packet);
        };
        match outlet.send(Outgoing::new(packet, record, parsed.payload_at)) {
            Ok(Ok(())) => Fate::Taken,
            Ok(Err(packet)) => {
                channel.frontend().counters().udp_tx_full.inc();
                Fate::Full(packet)
            }
            Err(violation) => {
                channel.violation(violation);
                Fate::Taken
            }
        }
    }

    /// Leaves the ring, as soon as nothing of it is there.
    fn leave(&mut self) {
        if self.state == State::Asking {
            self.refused();
        }
        if self.next(Event::Leave) {
            self.has_said_leave = false;
        }
    }

    /// Is on the network again: what was held goes there, in order. Under the lock, so that nobody overtakes; the network does not
    /// come back to us with another datagram of a socket.
    fn left(&mut self) {
        (self.state, self.since) = (State::Network, Instant::now());
        (self.sent, self.calls, self.bytes, self.wanted) = (0, 0, 0, None);
        while let Some(packet) = self.held.pop() {
            self.sent = self.sent.wrapping_add(packet.datagrams());
            packet.release();
        }
    }
}

/// All flows.
pub(super) struct Flows(Table<Flow>);

/// A flow for which a request is to be made.
pub(super) struct Wanted {
    /// Addresses and ports.
    pub(super) tuple: Tuple,
    /// The device that it leaves through.
    pub(super) device: i32,
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

    /// A packet is about to leave. Returns what becomes of it, and whether the keeper has something to do. In a hook.
    pub(super) fn leaving(
        &mut self,
        frontend: &Frontend,
        packet: Packet,
        parsed: &Parsed,
        device: i32,
    ) -> (Fate, bool) {
        let tuple = &parsed.tuple;
        let is_new = self.0.index(tuple).is_none();
        let flow = match is_new {
            false => self.0.find(tuple).map(|(_, flow)| flow),
            true if frontend.peers().find(tuple.dst).is_some() => {
                self.0.find_or_insert(tuple, || Flow::new(tuple, device))
            }
            true => None,
        };
        let Some(flow) = flow else {
            return (Fate::Network(packet), false);
        };
        match flow.state {
            State::Network | State::Asking => {
                flow.count(&packet, parsed);
                flow.device = device;
                let kick = flow.state == State::Network
                    && flow.wants_ring(frontend, &packet, parsed)
                    && frontend.datagrams().may_begin(frontend.settings());
                (Fate::Network(packet), kick || is_new)
            }
            State::Entering | State::Leaving => (flow.hold(packet), false),
            State::Ring => {
                let is_open = flow
                    .channel
                    .as_ref()
                    .is_some_and(|channel| channel.is_open());
                let reason = unfit(&packet, parsed)
                    .or((device != flow.device).then_some(Decline::Route))
                    .or((!is_open).then_some(Decline::ChannelClosed));
                if let Some(reason) = reason {
                    frontend.counters().decline(reason);
                    flow.leave();
                    return (flow.hold(packet), true);
                }
                if packet.settle().is_err() {
                    return (Fate::Full(packet), false);
                }
                (flow.send(packet, parsed), false)
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

    /// Whether there is a flow that is to be asked for, or changes its way.
    pub(super) fn is_busy(&self) -> bool {
        let is_busy = |flow: &Flow| match flow.state {
            State::Network => flow.wanted.is_some(),
            State::Asking | State::Entering | State::Leaving => true,
            State::Ring => false,
        };
        self.0.iter().any(|(_, flow)| is_busy(flow))
    }

    /// A request could not be made, or was refused, for `reason`; true = it is tried again.
    fn handle_refusal(flow: &mut Flow, reason: Decline) -> bool {
        let is_for_now = matches!(
            reason,
            Decline::NotProven | Decline::NotSeen | Decline::NoChannel | Decline::QueueFull
        );
        let is_patient = flow
            .wanted
            .is_some_and(|since| since.elapsed().as_millis() < PATIENCE_MS);
        if is_for_now && is_patient {
            return true;
        }
        flow.refused();
        false
    }

    /// A request for `tuple` could not be made; counts why.
    pub(super) fn could_not_ask(&mut self, frontend: &Frontend, tuple: &Tuple, reason: Decline) {
        if let Some((_, flow)) = self.0.find(tuple) {
            if flow.state == State::Network && !Self::handle_refusal(flow, reason) {
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
                return Message::Handover {
                    flow: peer_flow,
                    id,
                    sent: flow.sent,
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
                Self::handle_refusal(flow, reason);
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
        (flow.wanted, flow.refusals) = (None, 0);
        channel.frontend().counters().udp_flows_entered.inc();
        while let Some(packet) = flow.held.first() {
            let parsed = packet.parse();
            let Some(parsed) = parsed.filter(|parsed| unfit(packet, parsed).is_none()) else {
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
            if flow.state == State::Leaving {
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
                State::Network | State::Ring => {}
                State::Asking if waited < ANSWER_MS => {}
                State::Asking => {
                    frontend.counters().decline(Decline::PeerRefused);
                    flow.refused();
                    flow.next(Event::Refused);
                    park(&mut flow.channel, dropped);
                }
                State::Entering if waited < HOLD_MS => {}
                State::Entering => flow.leave(),
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
                        flow.left();
                        frontend.counters().udp_flows_left.inc();
                        park(&mut flow.channel, dropped);
                    }
                }
            }
        }
    }

    /// Lets those flows leave that are in the ring for longer than the setting says, or for which `may_stay` says no.
    pub(super) fn review(
        &mut self,
        frontend: &Frontend,
        may_stay: impl Fn(&Channel, &Tuple) -> bool,
    ) {
        let limit = i64::from(frontend.settings().udp_ms());
        for (_, flow) in self.0.iter_mut() {
            let is_over = flow.since.elapsed().as_millis() >= limit;
            let may = |channel: &Arc<Channel>| may_stay(channel, &flow.tuple);
            if flow.state == State::Ring && (is_over || !flow.channel.as_ref().is_some_and(may)) {
                flow.leave();
            }
        }
        self.0.sweep(FORGET_MS / MS_PER_SWEEP);
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

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().next().is_none()
    }

    /// A channel is over: its flows are on the network. The caller holds a reference to it.
    pub(super) fn abandon(&mut self, channel: &Arc<Channel>) {
        for (_, flow) in self.0.iter_mut() {
            if flow
                .channel
                .as_ref()
                .is_some_and(|its| Arc::ptr_eq(its, channel))
            {
                flow.channel = None;
                flow.left();
            }
        }
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

impl Flow {
    /// Whether it is worth a request now, or was so before, and a packet of it may go through a ring.
    fn wants_ring(&mut self, frontend: &Frontend, packet: &Packet, parsed: &Parsed) -> bool {
        if self.wanted.is_some() {
            return self
                .tried
                .is_none_or(|tried| tried.elapsed().as_millis() >= RETRY_MS);
        }
        let threshold: Threshold = frontend.settings().upgrade.after(self.refusals);
        if !threshold.is_reached(self.calls, self.bytes) {
            return false;
        }
        if let Some(reason) = unfit(packet, parsed) {
            frontend.counters().decline(reason);
            self.refused();
            return false;
        }
        self.wanted = Some(Instant::now());
        true
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
