// SPDX-License-Identifier: GPL-2.0

//! A channel: the shared memory and the event channel between this guest and one peer. One exists for each peer that a
//! connection was opened with; all connections to that peer share it.
//!
//! # Lock order
//!
//! 1. [`Channel::control`]
//! 2. the locks of a connection (see [`crate::stream`])
//! 3. `growing`
//! 4. `slots`
//! 5. `notices_out`, `control_out`; then [`Link::posted`]
//! 6. `wires`

use crate::control::Control;
use crate::datagram::Lines;
use crate::frontend::Frontend;
use crate::link::Link;
use crate::notices::Bottom;
use crate::peer::Peer;
use crate::region::{
    OwnRegion,
    PeerRegion, //
};
use crate::slots::Slots;
use crate::stream::AdoptedStream;
use crate::wires::Wires;
use core::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Acquire,
    Atomic,
    Full,
    Release, //
};
use kernel::sync::{
    new_mutex,
    Arc,
    Mutex,
    SetOnce, //
};
use kernel::time::{
    Instant,
    Monotonic, //
};
use xenvmc_core::channel::State;
use xenvmc_core::datagram;
use xenvmc_core::message::{
    Message,
    MESSAGE_SIZE, //
};
use xenvmc_core::queue;
use xenvmc_core::shared::SharedLoad;
use xenvmc_core::wire::{
    root,
    SlotId,
    CONTROL_ENTRIES, //
};
use xenvmc_core::{
    Decline,
    Error as Violation,
    Words, //
};
use xenvmc_net::lock::BhSpinLock;
use xenvmc_net::new_bh_spinlock;
use xenvmc_xen::word::VirtFence;

/// How long a reader may have left without asking to hear of the next byte, until the upkeep asks in its place.
const REARM_MS: u32 = 50;

/// Both ends of a channel as this guest sees them.
#[pin_data]
pub(crate) struct Channel {
    frontend: Arc<Frontend>,
    peer: Arc<Peer>,
    own: OwnRegion,
    theirs: SetOnce<PeerRegion>,
    /// The number of [`State::ALL`] that the channel is in; written under `control`.
    state: Atomic<u32>,
    made: Instant<Monotonic>,
    /// Set by the first violation, read by the next run of the upkeep.
    broken: Atomic<bool>,
    /// Connections that have something to be done for them in process context.
    tending: Atomic<u32>,
    /// Connections are to be asked for that are worth a ring and could not be asked for before.
    returning: Atomic<bool>,
    /// Some connection is [`Stream::is_unarmed`](crate::stream::Stream::is_unarmed).
    unarmed: Atomic<bool>,
    /// It is over, and no connection is on it any more.
    ended: Atomic<bool>,
    #[pin]
    pub(crate) control: Mutex<Control>,
    /// When the arena could not grow.
    #[pin]
    pub(crate) growing: Mutex<Option<Instant<Monotonic>>>,
    #[pin]
    slots: BhSpinLock<Slots>,
    #[pin]
    notices_out: BhSpinLock<queue::Producer>,
    #[pin]
    control_out: BhSpinLock<queue::Producer>,
    /// Only the bottom half uses it.
    #[pin]
    pub(crate) bottom: BhSpinLock<Bottom>,
    /// The rings of datagrams.
    #[pin]
    lines: Lines,
    #[pin]
    wires: BhSpinLock<Option<Arc<Wires>>>,
    _alive: Alive,
}

/// Counts a channel as existing until it is dropped.
struct Alive(Arc<Frontend>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.channels().fetch_sub(1, Full);
    }
}

impl Channel {
    /// Makes our end: memory that `peer` may read, one chunk of arena, no event channel yet. Process context.
    ///
    /// # Errors
    ///
    /// As [`OwnRegion::new`].
    pub(crate) fn new(frontend: &Arc<Frontend>, peer: &Arc<Peer>) -> Result<Arc<Self>> {
        let limit = frontend.settings().arena_chunks;
        let own = OwnRegion::new(frontend.grants(), peer.domid(), limit)?;
        let mut slots = Slots::new(limit)?;
        own.add_chunk(0)?;
        slots.arena().grow(1).map_err(|_| ENOSPC)?;
        own.publish_chunks(1);
        frontend.counters().channels_opened.inc();
        frontend.channels().fetch_add(1, Full);
        let alive = Alive(frontend.clone());
        Arc::pin_init(
            pin_init!(Self {
                frontend: frontend.clone(),
                peer: peer.clone(),
                own,
                theirs: SetOnce::new(),
                state: Atomic::new(0),
                made: Instant::now(),
                broken: Atomic::new(false),
                tending: Atomic::new(0),
                returning: Atomic::new(false),
                unarmed: Atomic::new(false),
                ended: Atomic::new(false),
                control <- new_mutex!(Control::new(), "xenvmc_control"),
                growing <- new_mutex!(None, "xenvmc_growing"),
                slots <- new_bh_spinlock!(slots, "xenvmc_slots"),
                notices_out <- new_bh_spinlock!(queue::Producer::notice(), "xenvmc_notices"),
                control_out <- new_bh_spinlock!(queue::Producer::control(), "xenvmc_messages"),
                bottom <- new_bh_spinlock!(Bottom::new(), "xenvmc_bottom"),
                lines <- Lines::new(),
                wires <- new_bh_spinlock!(None, "xenvmc_wires"),
                _alive: alive,
            }),
            GFP_KERNEL,
        )
    }

    /// The module that the channel belongs to.
    #[inline]
    pub(crate) fn frontend(&self) -> &Arc<Frontend> {
        &self.frontend
    }

    /// The guest at the other end.
    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Our memory.
    #[inline]
    pub(crate) fn own(&self) -> &OwnRegion {
        &self.own
    }

    /// The peer's memory, once it is mapped.
    #[inline]
    pub(crate) fn theirs(&self) -> Option<&PeerRegion> {
        self.theirs.as_ref()
    }

    /// Takes the peer's memory in, once.
    pub(crate) fn set_theirs(&self, region: PeerRegion) -> bool {
        self.theirs.populate(region)
    }

    /// The state. Any context; may be old a moment later.
    pub(crate) fn state(&self) -> State {
        let index = self.state.load(Acquire) as usize;
        State::ALL.get(index).copied().unwrap_or(State::Done)
    }

    /// How long ago it was made.
    pub(crate) fn age_ms(&self) -> i64 {
        self.made.elapsed().as_millis()
    }

    /// Whether the peer has published the last record of each connection that no task of it holds (protocol §9.3). Any context.
    pub(crate) fn has_peer_finished(&self) -> bool {
        self.theirs().is_some_and(|theirs| {
            // The state /before/ a last look at the rings. Partner: `Control::announce` at the other end.
            let word = theirs.root().word(root::STATE).load_acquire();
            word >= State::Closing.word()
        })
    }

    /// Notes the state; the caller holds [`Self::control`].
    pub(crate) fn set_state(&self, state: State) {
        let index = State::ALL.iter().position(|&s| s == state).unwrap_or(0);
        self.state.store(index as u32, Release);
    }

    /// Whether connections may begin ring segments.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.state().is_open() && !self.broken.load(Acquire)
    }

    /// Notes that the channel is over, and no connection is on it any more.
    pub(crate) fn set_ended(&self) {
        self.ended.store(true, Release);
    }

    /// Whether [`Self::set_ended`] was called. Later than [`State::Done`], which comes before the connections know.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Acquire)
    }

    /// Notes that the peer broke the protocol: logs it, once, and lets the upkeep end the channel. Any context but hard
    /// interrupts.
    pub(crate) fn violation(&self, violation: Violation) {
        if !self.broken.xchg(true, Full) {
            self.peer
                .warn(format_args!("broke the protocol: {violation:?}"));
            self.frontend.counters().channels_broken.inc();
        }
        self.kick();
    }

    /// Whether [`Self::violation`] was called.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Acquire)
    }

    /// Connects or disconnects the event channel and the work items.
    pub(crate) fn set_wires(&self, wires: Option<Arc<Wires>>) -> Option<Arc<Wires>> {
        core::mem::replace(&mut *self.wires.lock(), wires)
    }

    /// Asks for a run of the upkeep. Any context but hard interrupts.
    pub(crate) fn kick(&self) {
        if let Some(wires) = &*self.wires.lock() {
            wires.kick();
        }
    }

    /// Asks for a run of the bottom half in `delay_ms` milliseconds.
    pub(crate) fn take_notices_after(&self, delay_ms: u32) {
        if let Some(wires) = &*self.wires.lock() {
            wires.take_notices_after(delay_ms);
        }
    }

    /// Asks for a run of the upkeep in `delay_ms` milliseconds.
    pub(crate) fn kick_after(&self, delay_ms: u32) {
        if let Some(wires) = &*self.wires.lock() {
            wires.kick_after(delay_ms);
        }
    }

    /// Sends an event to the peer. Any context but hard interrupts.
    pub(crate) fn notify(&self) {
        self.frontend.counters().events_sent.inc();
        if let Some(wires) = &*self.wires.lock() {
            wires.notify();
        }
    }

    /// Posts a notice about a connection, unless one is on its way. Softirq or process context.
    pub(crate) fn post(&self, link: &Link) {
        let Some(theirs) = self.theirs() else { return };
        let event = {
            let mut out = self.notices_out.lock();
            let mut posted = link.posted.lock();
            let cons = theirs.root().word(root::NOTICE_CONS);
            match out.is_outstanding::<VirtFence>(&posted, &cons) {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    drop((posted, out));
                    return self.violation(error.into());
                }
            }
            let at = out.push();
            self.own.write_notice(at, link.peer());
            *posted = out.posted();
            out.publish::<VirtFence>(
                &self.own.root().word(root::NOTICE_PROD),
                &theirs.root().word(root::NOTICE_EVENT),
            )
        };
        self.frontend.counters().notices_sent.inc();
        if event {
            self.notify();
        }
    }

    /// Whether the peer's kernel has taken the last notice about a connection. Softirq or process context.
    pub(crate) fn has_taken_notice(&self, link: &Link) -> bool {
        let Some(theirs) = self.theirs() else {
            return false;
        };
        let mut out = self.notices_out.lock();
        let posted = link.posted.lock();
        let cons = theirs.root().word(root::NOTICE_CONS);
        // What is wrong with the peer's index the next notice finds out.
        out.is_outstanding::<VirtFence>(&posted, &cons) == Ok(false)
    }

    /// Sends a control message. Softirq or process context.
    ///
    /// Requests leave half of the queue for answers: two ends that both wait for room to answer would wait for ever.
    ///
    /// # Errors
    ///
    /// [`Decline::QueueFull`] if the peer has not read enough of what was sent before; [`Decline::NoChannel`].
    pub(crate) fn send(&self, message: &Message) -> core::result::Result<(), Decline> {
        let kept = match message {
            Message::Open { .. } => CONTROL_ENTRIES / 2,
            _ => 0,
        };
        self.send_bytes(&message.emit(), kept)
    }

    /// Sends a control message of the service of datagrams that answers none of the peer's. As [`Self::send`]; there is less room
    /// for those, since nobody has waited for room before.
    pub(crate) fn send_datagram(
        &self,
        message: &datagram::message::Message,
    ) -> core::result::Result<(), Decline> {
        let kept = match message {
            // Any guest of the host can make us send it.
            datagram::message::Message::Echo { .. } => CONTROL_ENTRIES / 4 * 3,
            _ => CONTROL_ENTRIES / 2,
        };
        self.send_bytes(&message.emit(), kept)
    }

    /// Sends the answer to a control message of the service of datagrams. As [`Self::send`].
    pub(crate) fn answer_datagram(
        &self,
        message: &datagram::message::Message,
    ) -> core::result::Result<(), Decline> {
        self.send_bytes(&message.emit(), 0)
    }

    fn send_bytes(
        &self,
        message: &[u8; MESSAGE_SIZE],
        kept: u32,
    ) -> core::result::Result<(), Decline> {
        let theirs = self.theirs().ok_or(Decline::NoChannel)?;
        let event = {
            let mut out = self.control_out.lock();
            let cons = theirs.root().word(root::CONTROL_CONS);
            let room = out.room(cons.load_acquire());
            match room {
                Ok(room) if room <= kept => return Err(Decline::QueueFull),
                Ok(_) => {}
                Err(error) => {
                    drop(out);
                    self.violation(error.into());
                    return Err(Decline::Broken);
                }
            }
            let at = out.push();
            self.own
                .write_control(at, message)
                .map_err(|_| Decline::Other)?;
            out.publish::<VirtFence>(
                &self.own.root().word(root::CONTROL_PROD),
                &theirs.root().word(root::CONTROL_EVENT),
            )
        };
        if event {
            self.notify();
        }
        Ok(())
    }

    /// Whether at least one control message can be sent.
    pub(crate) fn has_room_for_answer(&self) -> bool {
        let Some(theirs) = self.theirs() else {
            return false;
        };
        let cons = theirs.root().word(root::CONTROL_CONS);
        let room = self.control_out.lock().room(cons.load_acquire());
        room.map_or_else(
            |error| {
                self.violation(error.into());
                false
            },
            |room| room > 0,
        )
    }

    /// The connections that have slots; for walks that take other locks. Process context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn streams(&self) -> Result<KVec<(SlotId, Arc<AdoptedStream>)>> {
        let mut streams = KVec::new();
        let used = self.slots.lock().used() as usize;
        // Room outside of the lock; what comes meanwhile is little.
        streams.reserve(used + 16, GFP_KERNEL)?;
        self.slots.lock().streams(&mut streams)?;
        Ok(streams)
    }

    /// The rings of datagrams.
    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// The table of slots and extents.
    pub(crate) fn slots(&self) -> &BhSpinLock<Slots> {
        &self.slots
    }

    /// Notes that a connection has ended here, or has something else to be done for it. Any context but hard interrupts.
    pub(crate) fn note_tending(&self) {
        self.tending.fetch_add(1, Full);
        self.kick();
    }

    /// Tends to the connections again in `delay_ms` milliseconds.
    pub(crate) fn retry_tending(&self, delay_ms: u32) {
        self.tending.fetch_add(1, Full);
        self.kick_after(delay_ms);
    }

    /// Whether [`Self::note_tending`] was called since this was asked last.
    pub(crate) fn take_tending(&self) -> bool {
        self.tending.xchg(0, Full) != 0
    }

    /// Lets connections be asked for that are worth a ring and could not be asked for before. Any context but hard interrupts.
    pub(crate) fn note_returning(&self) {
        self.returning.store(true, Release);
        self.kick();
    }

    /// The same in `delay_ms` milliseconds.
    pub(crate) fn retry_returning(&self, delay_ms: u32) {
        self.returning.store(true, Release);
        self.kick_after(delay_ms);
    }

    /// Whether [`Self::note_returning`] was called since this was asked last.
    pub(crate) fn take_returning(&self) -> bool {
        self.returning.xchg(false, Full)
    }

    /// Notes that a reader has left without asking to hear of the next byte. Any context but hard interrupts.
    pub(crate) fn note_unarmed(&self) {
        self.unarmed.store(true, Release);
        self.kick_after(REARM_MS);
    }

    /// Whether [`Self::note_unarmed`] was called since this was asked last.
    pub(crate) fn take_unarmed(&self) -> bool {
        self.unarmed.xchg(false, Full)
    }

    /// Notes that a ring is larger than at first: it is taken back when the connection is idle. Any context but hard
    /// interrupts.
    pub(crate) fn note_large(&self) {
        if let Some(wires) = &*self.wires.lock() {
            wires.watch_idle();
        }
    }

    /// Lets connections be given back whose sockets somebody in the kernel has taken.
    pub(crate) fn hand_over(&self) {
        if let Some(wires) = &*self.wires.lock() {
            wires.hand_over();
        }
    }

    /// Notes that bytes of a connection with TCP_USER_TIMEOUT are unread, or that there is no room for more. Any context but hard
    /// interrupts.
    #[cold]
    pub(crate) fn note_clock(&self) {
        if let Some(wires) = &*self.wires.lock() {
            wires.watch_clocks();
        }
    }

    /// Writes what users may want to know of the channel, in one line.
    pub(crate) fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut slots = self.slots.lock();
        let used = slots.used();
        let arena = slots.arena();
        write!(
            f,
            "state={:?} connections={used} arena_pages_used={} arena_chunks={} arena_chunks_mapped={} arena_chunks_limit={}",
            self.state(),
            arena.used(),
            arena.granted(),
            arena.mapped(),
            arena.limit(),
        )
    }
}
