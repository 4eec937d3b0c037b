// SPDX-License-Identifier: GPL-2.0

//! Flows that come here: what of each has come over the network, and which may come through a ring.

use super::table::{
    describe,
    HasTuple,
    Table,
    MS_PER_SWEEP, //
};
use crate::channel::Channel;
use core::fmt;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::{
    Instant,
    Monotonic, //
};
use xenvmc_core::datagram::marker::Marker;
use xenvmc_core::datagram::message::Message;
use xenvmc_core::message::Tuple;
use xenvmc_core::Decline;
use xenvmc_net::deliver::Origin;
use xenvmc_net::netfilter::has_xdp;

/// After how long without a datagram a flow over the network is forgotten: long before its sender forgets it, since a reader that
/// knows of more datagrams than the sender would take that many lost ones for come.
pub(super) const FORGET_MS: u32 = 20_000;

const SWEEPS: u32 = FORGET_MS / MS_PER_SWEEP;

/// How long nothing may have come of a flow that goes to the ring while datagrams are missing, until they are taken for lost where no marker
/// comes. Its sender holds the next ones for longer than that.
const SILENCE_MS: i64 = 300;

/// How long nothing may have come behind a marker: where a packet's size decides which of several queues it takes, as with fragments, the
/// marker may be early.
const QUIET_MS: i64 = 20;

/// How long a sender may go on after it was told to leave.
const REVOKE_MS: i64 = 1_000;

/// How much longer than our own setting says a flow may stay in the ring: its sender has a clock of its own.
const SLACK_MS: i64 = 2_000;

/// Flows that one peer may have in the ring.
const ADMITTED_MAX: usize = 256;

/// A flow.
pub(super) struct Arrival {
    /// As its sender sees it.
    tuple: Tuple,
    /// Datagrams that have come over the network since it was first seen, or was in the ring last.
    seen: u32,
    /// Its sender has begun to count anew meanwhile, and we have not.
    is_inexact: bool,
    origin: Origin,
    admission: Option<Admission>,
}

/// That a flow may come through a ring.
struct Admission {
    channel: Arc<Channel>,
    /// The sender's number of it.
    id: u32,
    entry: Entry,
    /// A marker has come: nothing is on its way over the network any more.
    is_marked: bool,
    /// When it was made, or began to come through the ring.
    since: Instant<Monotonic>,
    /// GO was sent.
    has_said_go: bool,
    /// It is not to come through the ring any more, since then.
    revoked: Option<Instant<Monotonic>>,
    /// REVOKE was sent.
    has_said_revoke: bool,
}

impl Admission {
    /// Takes it back. The sender is told as soon as there is room for that; it is not believed for longer if there is none.
    fn revoke(&mut self) {
        self.revoked.get_or_insert_with(Instant::now);
        if !self.has_said_revoke {
            let message = Message::Revoke { id: self.id };
            self.has_said_revoke = self.channel.send_datagram(&message).is_ok();
        }
    }

    /// Tells the sender that it may begin, if that is so and was not said.
    fn say_go(&mut self) {
        if matches!(self.entry, Entry::Inside) && !self.has_said_go && self.revoked.is_none() {
            let message = Message::Go { id: self.id };
            self.has_said_go = self.channel.send_datagram(&message).is_ok();
        }
    }

    /// Whether the keeper has something to do soon.
    fn is_busy(&self) -> bool {
        let is_to_say_go = matches!(self.entry, Entry::Inside) && !self.has_said_go;
        is_to_say_go || matches!(self.entry, Entry::Waiting(..))
    }
}

/// How far a flow has come into the ring.
enum Entry {
    /// Datagrams come over the network still.
    Outside,
    /// All, so many, are on their way or have come; the last one, or the marker, then.
    Waiting(u32, Instant<Monotonic>),
    /// They come through the ring.
    Inside,
}

/// What says that nothing of a flow is on its way over the network any more.
#[derive(Clone, Copy)]
pub(super) enum Sign {
    /// As many have come as were sent.
    Count,
    /// A marker has come.
    Marker,
    /// None has come for long. That is a guess.
    Silence,
}

/// All of them.
pub(super) struct Arrivals(Table<Arrival>);

impl HasTuple for Arrival {
    fn tuple(&self) -> &Tuple {
        &self.tuple
    }

    fn may_go(&self) -> bool {
        self.admission.is_none()
    }
}

impl Arrival {
    /// It may not come through a ring any more, and its sender counts anew.
    fn begin_anew(&mut self) {
        self.admission = None;
        (self.seen, self.is_inexact) = (0, false);
    }

    /// How far it has come into the ring, if it may.
    fn entry(&self) -> Option<&Entry> {
        self.admission.as_ref().map(|admission| &admission.entry)
    }
}

/// What follows from a datagram that has come over the network.
#[derive(Default)]
pub(super) struct Noted {
    /// A handover waits for it, or the flow is new.
    pub(super) is_awaited: bool,
    /// The flow's first, or about twice as many have come as when this was true last.
    pub(super) is_twice_as_many: bool,
}

impl Arrivals {
    /// None.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        Ok(Self(Table::new()?))
    }

    /// Notes that `datagrams` have come over the network. In a hook.
    pub(super) fn note(&mut self, tuple: &Tuple, origin: Origin, datagrams: u32) -> Noted {
        let new = |_| Arrival {
            tuple: *tuple,
            seen: 0,
            is_inexact: false,
            origin,
            admission: None,
        };
        let Some(arrival) = self.0.find_or_insert(tuple, SWEEPS, new) else {
            return Noted::default();
        };
        let mut entry = arrival
            .admission
            .as_mut()
            .map(|admission| &mut admission.entry);
        if matches!(entry, Some(Entry::Inside)) {
            return Noted::default();
        }
        let before = arrival.seen;
        arrival.seen = arrival.seen.wrapping_add(datagrams);
        arrival.origin = origin;
        let is_awaited = match &mut entry {
            Some(Entry::Waiting(sent, last)) => {
                *last = Instant::now();
                *sent == arrival.seen
            }
            _ => before == 0,
        };
        Noted {
            is_awaited,
            is_twice_as_many: before.leading_zeros() != arrival.seen.leading_zeros(),
        }
    }

    /// Where a datagram of flow `number`, which `channel` brought, seems to come from, if it may come that way.
    pub(super) fn admitted(&mut self, channel: &Channel, number: u32) -> Option<(Tuple, Origin)> {
        let arrival = self.0.get(number)?;
        let admission = arrival.admission.as_ref()?;
        let may =
            matches!(admission.entry, Entry::Inside) && core::ptr::eq(&*admission.channel, channel);
        may.then_some((arrival.tuple, arrival.origin))
    }

    /// Admits a flow that has been seen. Returns our number of it.
    pub(super) fn admit(
        &mut self,
        channel: &Arc<Channel>,
        tuple: &Tuple,
        id: u32,
    ) -> core::result::Result<u32, Decline> {
        let is_theirs = |admission: &Admission| Arc::ptr_eq(&admission.channel, channel);
        let admissions = self
            .0
            .iter()
            .filter_map(|(_, arrival)| arrival.admission.as_ref());
        if admissions.filter(|admission| is_theirs(admission)).count() >= ADMITTED_MAX {
            return Err(Decline::SlotsExhausted);
        }
        let (number, arrival) = self.0.find(tuple).ok_or(Decline::NotSeen)?;
        if arrival.seen == 0 {
            return Err(Decline::NotSeen);
        }
        if has_xdp(arrival.origin.device) {
            return Err(Decline::CgroupBpf);
        }
        if arrival
            .admission
            .as_ref()
            .is_some_and(|old| !is_theirs(old))
        {
            return Err(Decline::Duplicate);
        }
        // It was not told that its sender had left.
        arrival.is_inexact |= arrival.admission.is_some();
        arrival.admission = Some(Admission {
            channel: channel.clone(),
            id,
            entry: Entry::Outside,
            is_marked: false,
            since: Instant::now(),
            has_said_go: false,
            revoked: None,
            has_said_revoke: false,
        });
        Ok(number)
    }

    /// Flow `number`, if `channel` was admitted to it by the request `id`.
    fn admitted_by(&mut self, channel: &Channel, number: u32, id: u32) -> Option<&mut Arrival> {
        self.0.get(number).filter(|arrival| {
            arrival.admission.as_ref().is_some_and(|admission| {
                admission.id == id && core::ptr::eq(&*admission.channel, channel)
            })
        })
    }

    /// The sender of flow `number` waits until `sent` datagrams have come. Nothing happens if it is not admitted by `id`, or not any more.
    pub(super) fn handle_handover(&mut self, channel: &Channel, number: u32, id: u32, sent: u32) {
        let arrival = self.admitted_by(channel, number, id);
        if let Some(admission) = arrival.and_then(|arrival| arrival.admission.as_mut()) {
            if matches!(admission.entry, Entry::Outside) {
                admission.entry = Entry::Waiting(sent, Instant::now());
            }
        }
    }

    /// A marker of the flow `tuple` has come over the network; false = nobody waits for it. In a hook.
    pub(super) fn handle_marker(&mut self, tuple: &Tuple, marker: &Marker) -> bool {
        let Some((number, arrival)) = self.0.find(tuple) else {
            return false;
        };
        match &mut arrival.admission {
            Some(admission) if number == marker.flow && admission.id == marker.id => {
                // It may be there before the peer's message, and more than one.
                let is_first = !core::mem::replace(&mut admission.is_marked, true);
                if let (Entry::Waiting(_, last), true) = (&mut admission.entry, is_first) {
                    *last = Instant::now();
                }
                true
            }
            _ => false,
        }
    }

    /// Puts those flows into `due` of which nothing is on its way any more, and what says so, as far as there is room. The caller waits for
    /// those that are being delivered, and then calls [`Self::enter`].
    pub(super) fn poll_handovers(&mut self, due: &mut KVec<(u32, Sign)>) {
        for (number, arrival) in self.0.iter() {
            let Some(Entry::Waiting(sent, last)) = arrival.entry() else {
                continue;
            };
            let is_marked = arrival
                .admission
                .as_ref()
                .is_some_and(|admission| admission.is_marked);
            let silence = last.elapsed().as_millis();
            let sign = if arrival.seen == *sent && !arrival.is_inexact {
                Sign::Count
            } else if is_marked && silence >= QUIET_MS {
                Sign::Marker
            } else if silence >= SILENCE_MS {
                Sign::Silence
            } else {
                continue;
            };
            if due.push_within_capacity((number, sign)).is_err() {
                return;
            }
        }
    }

    /// Whether a handover is waited for, or to be told of.
    pub(super) fn is_waiting(&self) -> bool {
        self.0.iter().any(|(_, arrival)| {
            let admission = arrival.admission.as_ref();
            admission.is_some_and(Admission::is_busy)
        })
    }

    /// Lets the next datagrams of flow `number` come through the ring, and tells its sender; false = it does not wait for that any more.
    pub(super) fn enter(&mut self, number: u32) -> bool {
        let arrival = self.0.get(number);
        let Some(admission) = arrival.and_then(|arrival| arrival.admission.as_mut()) else {
            return false;
        };
        if !matches!(admission.entry, Entry::Waiting(..)) {
            return false;
        }
        (admission.entry, admission.since) = (Entry::Inside, Instant::now());
        admission.say_go();
        true
    }

    /// Tells those senders that they may begin for whom there was no room before.
    pub(super) fn say_go(&mut self) {
        for (_, arrival) in self.0.iter_mut() {
            if let Some(admission) = &mut arrival.admission {
                admission.say_go();
            }
        }
    }

    /// Flow `number` cannot be delivered here any more, if it may come by `channel`.
    pub(super) fn revoke(&mut self, channel: &Channel, number: u32) {
        let admission = self
            .0
            .get(number)
            .and_then(|arrival| arrival.admission.as_mut());
        if let Some(admission) = admission.filter(|its| core::ptr::eq(&*its.channel, channel)) {
            admission.revoke();
        }
    }

    /// The sender of flow `number` leaves the ring, in which nothing of it is left. As [`Self::handle_handover`].
    pub(super) fn handle_leave(&mut self, channel: &Channel, number: u32, id: u32) {
        if let Some(arrival) = self.admitted_by(channel, number, id) {
            // The caller has a reference to the channel, too.
            arrival.begin_anew();
        }
    }

    /// Calls `may_stay` for each flow that may come through a ring, and takes that back from the others, and from those that are there for more
    /// than `limit_ms` and some time. Senders that do not leave are not believed after a while. What `drop` gets is to be dropped without the lock.
    pub(super) fn review(
        &mut self,
        limit_ms: u32,
        may_stay: impl Fn(&Channel, &Tuple) -> bool,
        dropped: &mut KVec<Arc<Channel>>,
    ) {
        let limit = i64::from(limit_ms) + SLACK_MS;
        for (_, arrival) in self.0.iter_mut() {
            let Some(admission) = &mut arrival.admission else {
                continue;
            };
            match admission.revoked {
                None if admission.since.elapsed().as_millis() < limit
                    && may_stay(&admission.channel, &arrival.tuple) => {}
                None => admission.revoke(),
                Some(since) if since.elapsed().as_millis() < REVOKE_MS => admission.revoke(),
                Some(_) => {
                    // Only if it can be kept for a moment: the last reference to a channel does not go under a lock.
                    if dropped.push(admission.channel.clone(), GFP_ATOMIC).is_ok() {
                        arrival.begin_anew();
                    }
                }
            }
        }
        self.0.sweep(SWEEPS);
    }

    /// Tells the senders of all flows that come through rings to leave; true = there are none.
    pub(super) fn revoke_all(&mut self) -> bool {
        let mut none = true;
        for (_, arrival) in self.0.iter_mut() {
            if let Some(admission) = &mut arrival.admission {
                none = false;
                admission.revoke();
            }
        }
        none
    }

    /// Whether one may come through a ring.
    pub(super) fn has_admitted(&self) -> bool {
        self.0
            .iter()
            .any(|(_, arrival)| arrival.admission.is_some())
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().next().is_none()
    }

    /// A channel is over: nothing may come by it. The caller holds a reference to it.
    pub(super) fn forget(&mut self, channel: &Arc<Channel>) {
        for (_, arrival) in self.0.iter_mut() {
            if let Some(admission) = &arrival.admission {
                if Arc::ptr_eq(&admission.channel, channel) {
                    arrival.begin_anew();
                }
            }
        }
    }

    /// Writes a line for each flow.
    pub(super) fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (_, arrival) in self.0.iter() {
            let state = match arrival.entry() {
                None => "Network",
                Some(Entry::Outside) => "Admitted",
                Some(Entry::Waiting(..)) => "Entering",
                Some(Entry::Inside) => "Ring",
            };
            describe(f, "in", &arrival.tuple, state, arrival.seen)?;
        }
        Ok(())
    }
}
