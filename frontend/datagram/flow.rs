// SPDX-License-Identifier: GPL-2.0

//! A flow that leaves this guest for a peer. Under the lock of the table that it is in.

use super::outlet::{
    Outgoing,
    BACKLOG_MAX, //
};
use super::queue::Queue;
use super::table::HasTuple;
use crate::channel::Channel;
use crate::frontend::Frontend;
use crate::peer::Peer;
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
use xenvmc_core::datagram::marker::Marker;
use xenvmc_core::datagram::record::Record;
use xenvmc_core::datagram::PAYLOAD_MAX;
use xenvmc_core::message::Tuple;
use xenvmc_core::policy::Threshold;
use xenvmc_core::Decline;
use xenvmc_net::netfilter::Fate;
use xenvmc_net::packet::Packet;

/// Datagrams of a flow that are held at most.
const HELD_MAX: usize = 512;

/// How long after the first attempt a request is tried again that could not be made, or was refused for now.
const PATIENCE_MS: i64 = 2_000;

/// Time between two attempts.
pub(super) const RETRY_MS: i64 = 40;

/// Time between two markers; the network may lose one.
const MARK_MS: i64 = 20;

/// How often packets that waited are taken to the network until no more may wait: a sender could be as fast as that for ever.
const ROUNDS: u32 = 8;

/// How long a flow must have been in the ring for what was before not to count.
const STAY_MS: i64 = 10_000;

/// What two clocks may differ, and what is under way between two guests when one learns of the other.
const SLACK_MS: i64 = 5_000;

/// More datagrams than any reader has seen.
const NEVER: u32 = 1 << 31;

/// A flow.
pub(super) struct Flow {
    pub(super) tuple: Tuple,
    pub(super) state: State,
    /// When it came into that state.
    pub(super) since: Instant<Monotonic>,
    /// The device that it leaves through.
    pub(super) device: i32,
    /// Datagrams that went over the network since it was first seen, or was in the ring last; more than that if we may have forgotten some.
    pub(super) sent: u32,
    /// When it was first seen, or left the ring last.
    counted_since: Instant<Monotonic>,
    /// Whether that was the latter.
    was_in_ring: bool,
    /// Packets since it was refused, or was in the ring last, and their bytes.
    pub(super) calls: u32,
    pub(super) bytes: u64,
    pub(super) refusals: u32,
    /// It is worth a request, since then; and when one was tried last.
    pub(super) wanted: Option<Instant<Monotonic>>,
    pub(super) tried: Option<Instant<Monotonic>>,
    /// Our number of the last request.
    pub(super) id: u32,
    /// The reader's number.
    pub(super) peer_flow: u32,
    /// The channel, but in the state Network.
    pub(super) channel: Option<Arc<Channel>>,
    /// LEAVE was sent.
    pub(super) has_said_leave: bool,
    /// Nothing of it is in the ring any more: what waits goes over the network, see [`Flow::take_waiting`].
    pub(super) has_left: bool,
    /// It was never in the ring this time: datagrams that its reader has not counted yet may be on their way.
    pub(super) has_failed: bool,
    /// While it enters the ring: since when something is held.
    pub(super) held_since: Option<Instant<Monotonic>>,
    /// Likewise: whether all that goes over the network is on its way, so that a marker comes behind it.
    pub(super) may_mark: bool,
    /// Likewise: when a marker was sent last.
    pub(super) marked: Option<Instant<Monotonic>>,
    /// How often something was taken for that.
    rounds: u32,
    /// Packets that found no room in the ring before it left: they are older than those that are held.
    returned: Queue<Packet>,
    pub(super) held: Queue<Packet>,
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
pub(super) fn unfit(packet: &Packet, parsed: &Parsed) -> Option<Decline> {
    if parsed.has_options
        || parsed.fields.ttl == 0
        || packet.len_from(parsed.payload_at) > PAYLOAD_MAX
    {
        return Some(Decline::Option);
    }
    packet.why_not()
}

impl Flow {
    /// A flow that begins now, or was forgotten while its reader may know of it. Then the reader may count more datagrams than we, and lost
    /// ones are not to make up for that: no count of ours is its own.
    pub(super) fn new(tuple: &Tuple, device: i32, may_be_known: bool) -> Self {
        Self {
            tuple: *tuple,
            state: State::Network,
            since: Instant::now(),
            device,
            sent: if may_be_known { NEVER } else { 0 },
            counted_since: Instant::now(),
            was_in_ring: false,
            calls: 0,
            bytes: 0,
            refusals: 0,
            wanted: None,
            tried: None,
            id: 0,
            peer_flow: 0,
            channel: None,
            has_said_leave: false,
            has_left: false,
            has_failed: false,
            held_since: None,
            may_mark: false,
            marked: None,
            rounds: 0,
            returned: Queue::new(BACKLOG_MAX),
            held: Queue::new(HELD_MAX),
        }
    }

    /// Moves the state machine; false if the event makes no sense now.
    pub(super) fn next(&mut self, event: Event) -> bool {
        let Some(state) = self.state.next(event) else {
            return false;
        };
        (self.state, self.since) = (state, Instant::now());
        true
    }

    /// How many datagrams `peer`, its reader, may wait for. While the two did not know each other, or each other's addresses, only one of
    /// them may have counted; a reader forgets what it has counted after [`super::arrivals::FORGET_MS`] without a datagram.
    pub(super) fn count_for(&self, peer: &Peer) -> u32 {
        let forgotten_ms = match self.was_in_ring {
            true => 0,
            false => i64::from(super::arrivals::FORGET_MS) + SLACK_MS,
        };
        let counted_ms = self.counted_since.elapsed().as_millis();
        match peer.known_ms() - forgotten_ms >= counted_ms {
            true => self.sent,
            false => NEVER,
        }
    }

    /// A packet of it leaves over the network.
    pub(super) fn count(&mut self, packet: &Packet, parsed: &Parsed) {
        self.sent = self.sent.wrapping_add(packet.datagrams());
        self.calls = self.calls.saturating_add(1);
        let len = packet.len_from(parsed.payload_at);
        self.bytes = self.bytes.saturating_add(len.into());
    }

    /// A request could not be made, or was refused, for `reason`; true = it is tried again.
    pub(super) fn handle_refusal(&mut self, reason: Decline) -> bool {
        let is_for_now = matches!(
            reason,
            Decline::NotProven | Decline::NotSeen | Decline::NoChannel | Decline::QueueFull
        );
        let is_patient = self
            .wanted
            .is_some_and(|since| since.elapsed().as_millis() < PATIENCE_MS);
        if is_for_now && is_patient {
            return true;
        }
        match reason {
            // The peer has its own time for that.
            Decline::Stalled => self.begin_anew(),
            _ => self.refused(),
        }
        false
    }

    /// It stays on the network until much more has gone there.
    pub(super) fn refused(&mut self) {
        self.begin_anew();
        self.note_refusal();
    }

    /// It is worth a request when as much has gone over the network again.
    fn begin_anew(&mut self) {
        (self.calls, self.bytes) = (0, 0);
        (self.wanted, self.tried) = (None, None);
    }

    /// More has to go over the network before it is worth a request again.
    pub(super) fn note_refusal(&mut self) {
        self.refusals = (self.refusals + 1).min(4);
    }

    /// Lets a packet wait.
    pub(super) fn hold(&mut self, packet: Packet) -> Fate {
        if self.rounds >= ROUNDS || packet.settle().is_err() {
            return Fate::Full(packet);
        }
        match self.held.push(packet) {
            Ok(()) => {
                self.held_since.get_or_insert_with(Instant::now);
                Fate::Taken
            }
            Err(packet) => Fate::Full(packet),
        }
    }

    /// A marker that is to go over the network now: behind the last datagram that went there, and in its tracks, as it is made of the next one.
    pub(super) fn poll_marker(&mut self) -> Option<Packet> {
        if self.state != State::Entering || !self.may_mark {
            return None;
        }
        let is_due = |at: &Instant<Monotonic>| at.elapsed().as_millis() >= MARK_MS;
        if !self.marked.as_ref().is_none_or(is_due) {
            return None;
        }
        let packet = self.held.first()?;
        let marker = Marker {
            id: self.id,
            flow: self.peer_flow,
        };
        self.marked = Some(Instant::now());
        // Headers that are not only those of the flow may lead it another way, and make another checksum right.
        let parsed = packet.parse().filter(|parsed| !parsed.has_options)?;
        packet.marker(parsed.payload_at, &marker.emit())
    }

    /// Sends a packet through the ring.
    pub(super) fn send(&self, packet: Packet, parsed: &Parsed) -> Fate {
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
        match outlet.send(Outgoing::new(packet, self.id, record, parsed.payload_at)) {
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

    /// Leaves the ring, as soon as nothing of it is there. What waits for room does not get there any more.
    pub(super) fn leave(&mut self) {
        if self.state == State::Asking {
            self.refused();
        }
        let has_failed = self.state == State::Entering;
        if self.state == State::Ring && self.since.elapsed().as_millis() >= STAY_MS {
            self.refusals = 0;
        }
        if !self.next(Event::Leave) || self.state != State::Leaving {
            return;
        }
        self.has_failed = has_failed;
        self.has_said_leave = false;
        if let Some(channel) = &self.channel {
            if let Some(outlet) = &mut *channel.lines().outlet.lock() {
                outlet.take_back(self.id, &mut self.returned);
            }
        }
    }

    /// Nothing of it is in the ring any more, or it is not waited for: what waits may go over the network.
    pub(super) fn left(&mut self) {
        self.has_left = true;
        self.sent = if self.has_failed { NEVER } else { 0 };
        // The reader has counted none since then, either.
        (self.counted_since, self.was_in_ring) = (Instant::now(), true);
    }

    /// Takes out what goes over the network next, for who does that without the lock; until that is done nobody may overtake, so that others
    /// wait. If there is nothing, the flow is on the network. Only once [`Self::left`] was called.
    pub(super) fn take_waiting(&mut self) -> Option<Queue<Packet>> {
        let (queue, limit) = match (self.returned.is_empty(), self.held.is_empty()) {
            (false, _) => (&mut self.returned, BACKLOG_MAX),
            (true, false) => (&mut self.held, HELD_MAX),
            (true, true) => {
                self.next(Event::Left);
                (self.has_left, self.rounds) = (false, 0);
                (self.calls, self.bytes, self.wanted) = (0, 0, None);
                return None;
            }
        };
        let waiting = core::mem::replace(queue, Queue::new(limit));
        let datagrams = waiting.iter().map(Packet::datagrams).sum::<u32>();
        self.sent = self.sent.wrapping_add(datagrams);
        self.rounds += 1;
        Some(waiting)
    }
}

impl Flow {
    /// Whether it is worth a request now, or was so before, and a packet of it may go through a ring.
    pub(super) fn wants_ring(
        &mut self,
        frontend: &Frontend,
        packet: &Packet,
        parsed: &Parsed,
    ) -> bool {
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
