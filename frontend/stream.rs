// SPDX-License-Identifier: GPL-2.0

//! A TCP connection to a co-resident guest. One [`Stream`] exists for each, from its adoption to its end, accelerated or
//! not.
//!
//! # Lock order
//!
//! 1. [`Stream::reader`]
//! 2. the socket lock, which protects the [`Sender`]
//! 3. [`Stream::agreement`]
//! 4. [`Stream::watch`]
//! 5. the channel's locks from `slots` on (see [`crate::channel`])

use crate::channel::Channel;
use crate::clock::Clock;
use crate::frontend::Frontend;
use crate::handshake::Agreement;
use crate::link::Link;
use crate::peer::Peer;
use crate::policy::Traffic;
use crate::ready;
use crate::spin::Experience;
use crate::timeline::Step;
use crate::unread;
use core::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Acquire,
    Atomic,
    Full,
    Relaxed,
    Release, //
};
use kernel::sync::{
    new_mutex,
    Arc,
    Mutex, //
};
use xenvmc_core::connection::State;
use xenvmc_core::message::Tuple;
use xenvmc_core::shared::{
    Fence,
    SharedLoad,
    SharedStore, //
};
use xenvmc_core::stream::{
    Inbound,
    Outbound, //
};
use xenvmc_core::wire::{
    self,
    slot, //
};
use xenvmc_core::{
    Decline,
    Words, //
};
use xenvmc_net::lock::BhSpinLock;
use xenvmc_net::{
    new_bh_spinlock,
    Adopted, //
};
use xenvmc_xen::VirtFence;

/// A socket that was taken over, with its [`Stream`].
pub(crate) type AdoptedStream = Adopted<Stream>;

/// How far a connection has come on its way to the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Phase {
    /// TCP alone; the policy watches.
    Plain = 0,
    /// Both ends know both slots.
    Active = 1,
    /// TCP alone, for good.
    Over = 2,
}

/// What the reading side knows, under the reader's lock. That lock is held while bytes are copied, not while waiting.
pub(crate) struct Reader {
    /// The slots, while there are any.
    pub(crate) link: Option<Arc<Link>>,
    /// Where the reader stands.
    pub(crate) inbound: Inbound,
}

/// What the sending side knows, under the socket lock.
pub(crate) struct Sender {
    /// The slots, while there are any.
    pub(crate) link: Option<Arc<Link>>,
    /// Where the sender stands.
    pub(crate) outbound: Outbound,
    /// TCP's write sequence number when we last looked, while on the ring.
    pub(crate) written: u32,
    /// No byte follows, in the ring or in TCP.
    pub(crate) ended: bool,
    /// Why the direction is to stay on TCP, if it is.
    pub(crate) stays: Option<Decline>,
    /// Why it is on TCP.
    pub(crate) declined: Option<Decline>,
    /// Extents are held besides the current one, to be taken back when the reader has left them.
    pub(crate) holds_more: bool,
    /// Order of the ring that there was no room for, and without which the connection stays on TCP.
    pub(crate) needs_order: Option<u8>,
    /// [`Stream::sent`] when it was last looked whether the connection is idle.
    pub(crate) sent_before: u64,
    /// The reader's index at which the direction went to TCP because he does not read; it stays there as long as he does not.
    pub(crate) stalled_at: Option<u32>,
    /// See [`crate::clock`].
    pub(crate) clock: Option<Clock>,
}

/// What `poll` and notices look at: the reader's position when it last left.
pub(crate) struct Watch {
    /// The slots, while there are any.
    pub(crate) link: Option<Arc<Link>>,
    /// Where the reader stood.
    pub(crate) inbound: Inbound,
    /// The peer's index up to which bytes were announced to whoever listens, or need not be.
    pub(crate) told: u32,
    /// The peer's number of records up to which they were announced.
    pub(crate) told_segments: u32,
}

/// A connection.
#[pin_data]
pub(crate) struct Stream {
    frontend: Arc<Frontend>,
    /// Changes when the guest at the other end, or this one, comes back as another instance.
    #[pin]
    peer: BhSpinLock<Arc<Peer>>,
    tuple: Tuple,
    phase: Atomic<u32>,
    /// Counts what a sleeper must know of besides bytes.
    epoch: Atomic<u32>,
    /// The socket is TCP's alone again.
    ended: Atomic<bool>,
    /// See [`crate::ready`].
    pub(crate) readiness: Atomic<u32>,
    /// Number of our request for it, 0 = none.
    request: Atomic<u32>,
    /// What went over TCP.
    pub(crate) traffic: Traffic,
    /// The sending direction is on the ring; a copy for those who have no lock.
    pub(crate) sends_to_ring: Atomic<bool>,
    /// Bytes of the sender's extent, likewise.
    pub(crate) extent_bytes: Atomic<u32>,
    /// The log of segments had no room for all records.
    pub(crate) has_pending_records: Atomic<bool>,
    /// The direction is on TCP for good, and the peer was told that its last record is there.
    pub(crate) has_left: Atomic<bool>,
    /// An urgent byte was sent: the sending direction is on TCP for good.
    pub(crate) has_sent_urgent: Atomic<bool>,
    /// Somebody wants to hear of room.
    pub(crate) wants_space: Atomic<bool>,
    /// A reader has left without asking to hear of the next byte, since nobody listened.
    pub(crate) is_unarmed: Atomic<bool>,
    /// Its channel ends alone, and what there was to do for it is done.
    pub(crate) is_settled: Atomic<bool>,
    /// See [`crate::handover`].
    pub(crate) is_handed_over: Atomic<bool>,
    /// How long waiting for bytes takes.
    pub(crate) rx_experience: Experience,
    /// How long waiting for room takes.
    pub(crate) tx_experience: Experience,
    /// Bytes that went through the ring, both ways.
    pub(crate) sent: Atomic<u64>,
    /// See `sent`.
    pub(crate) received: Atomic<u64>,
    /// The sum of both when the last channel was over.
    sum_before: Atomic<u64>,
    #[pin]
    pub(crate) reader: Mutex<Reader>,
    #[pin]
    pub(crate) watch: BhSpinLock<Watch>,
    #[pin]
    agreement: BhSpinLock<Agreement>,
}

impl Stream {
    /// A connection that begins, and what the socket lock protects of it.
    pub(crate) fn new(
        frontend: &Arc<Frontend>,
        peer: &Arc<Peer>,
        tuple: Tuple,
    ) -> (impl PinInit<Self, Error>, Sender) {
        let (frontend, peer) = (frontend.clone(), peer.clone());
        let stream = try_pin_init!(Self {
            frontend,
            peer <- new_bh_spinlock!(peer, "xenvmc_stream_peer"),
            tuple,
            phase: Atomic::new(Phase::Plain as u32),
            epoch: Atomic::new(0),
            ended: Atomic::new(false),
            readiness: Atomic::new(0),
            request: Atomic::new(0),
            traffic: Traffic::new(),
            sends_to_ring: Atomic::new(false),
            extent_bytes: Atomic::new(0),
            has_pending_records: Atomic::new(false),
            has_left: Atomic::new(false),
            has_sent_urgent: Atomic::new(false),
            wants_space: Atomic::new(false),
            is_unarmed: Atomic::new(false),
            is_settled: Atomic::new(false),
            is_handed_over: Atomic::new(false),
            rx_experience: Experience::new(),
            tx_experience: Experience::new(),
            sent: Atomic::new(0),
            received: Atomic::new(0),
            sum_before: Atomic::new(0),
            reader <- new_mutex!(
                Reader {
                    link: None,
                    inbound: Inbound::new(),
                        },
                "xenvmc_reader"
            ),
            watch <- new_bh_spinlock!(
                Watch {
                    link: None,
                    inbound: Inbound::new(),
                    told: Inbound::new().cons(),
                    told_segments: 0,
                },
                "xenvmc_watch"
            ),
            agreement <- new_bh_spinlock!(Agreement::new(), "xenvmc_agreement"),
        }? Error);
        let sender = Sender {
            link: None,
            outbound: Outbound::new(),
            written: 0,
            ended: false,
            stays: None,
            declined: None,
            holds_more: false,
            needs_order: None,
            sent_before: 0,
            stalled_at: None,
            clock: None,
        };
        (stream, sender)
    }

    /// The module.
    #[inline]
    pub(crate) fn frontend(&self) -> &Arc<Frontend> {
        &self.frontend
    }

    /// The guest at the other end. Any context but hard interrupts.
    pub(crate) fn peer(&self) -> Arc<Peer> {
        self.peer.lock().clone()
    }

    /// Whether the guest at the other end is this one. Any context but hard interrupts.
    pub(crate) fn leads_to(&self, peer: &Arc<Peer>) -> bool {
        Arc::ptr_eq(&self.peer.lock(), peer)
    }

    /// The guest at the other end has become `peer`. No channel knows of the connection. Process context.
    pub(crate) fn set_peer(&self, peer: &Arc<Peer>) {
        let old = core::mem::replace(&mut *self.peer.lock(), peer.clone());
        drop(old);
    }

    /// Addresses and ports, this end's as the source.
    pub(crate) fn tuple(&self) -> Tuple {
        self.tuple
    }

    /// The agreement with the other end.
    pub(crate) fn agreement(&self) -> &BhSpinLock<Agreement> {
        &self.agreement
    }

    /// Number of our request for it, 0 = none.
    pub(crate) fn request(&self) -> u32 {
        self.request.load(Relaxed)
    }

    /// Notes the number of our request for it.
    pub(crate) fn set_request(&self, id: u32) {
        self.request.store(id, Relaxed);
    }

    /// How far the connection has come. Any context.
    #[inline]
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Acquire) {
            0 => Phase::Plain,
            1 => Phase::Active,
            _ => Phase::Over,
        }
    }

    /// Notes how far the connection has come.
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u32, Release);
        self.epoch.fetch_add(1, Full);
    }

    /// Whether TCP alone carries it, and nothing was said about it to anybody. Holder of the socket lock.
    pub(crate) fn is_free(&self) -> bool {
        self.phase() == Phase::Plain && self.agreement.lock().state() == State::Plain
    }

    /// A number that changes with all that a sleeper must know of besides bytes and room.
    #[inline]
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(Acquire)
    }

    /// Whether the socket is TCP's alone again.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Acquire)
    }

    /// Notes that the socket is TCP's alone again.
    pub(crate) fn set_ended(&self) {
        self.ended.store(true, Release);
    }

    /// Whether any byte went through a ring of this channel, either way.
    pub(crate) fn has_used_ring(&self) -> bool {
        self.ring_bytes() != self.sum_before.load(Relaxed)
    }

    fn ring_bytes(&self) -> u64 {
        let (sent, received) = (self.sent.load(Relaxed), self.received.load(Relaxed));
        sent.wrapping_add(received)
    }

    /// Writes one line for users. Takes no lock but that of the agreement.
    pub(crate) fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuple {
            src,
            src_port,
            dst,
            dst_port,
        } = self.tuple;
        writeln!(
            f,
            "local={src} local_port={src_port} remote={dst} remote_port={dst_port} domid={} phase={:?} agreement={:?} sends_to={} receives_ready={} ring_sent={} ring_received={}",
            self.peer().domid().get(),
            self.phase(),
            self.agreement.lock().state(),
            if self.sends_to_ring.load(Relaxed) { "ring" } else { "tcp" },
            u8::from(self.readiness.load(Relaxed) == ready::TOLD),
            self.sent.load(Relaxed),
            self.received.load(Relaxed),
        )
    }
}

/// Something that the peer did for this connection was announced. Softirq or process context.
pub(crate) fn noticed(stream: &Arc<AdoptedStream>) {
    if unread::take_news(stream) {
        unread::announce(stream);
    }
    if stream.wants_space.xchg(false, Full) {
        stream.socket().write_space();
    }
    // The link is not cloned: in a softirq nobody may let go of the last reference to a channel.
    let watch = stream.watch.lock();
    let mut is_ready = false;
    if let Some(link) = &watch.link {
        let flags = link.peer_flags();
        is_ready = flags & wire::RX_READY != 0 && link.note_ready();
        let is_asked = flags & wire::RX_RETURN != 0;
        if (is_asked && !stream.has_left.load(Acquire)) || stream.has_pending_records.load(Acquire)
        {
            link.channel().note_tending();
        }
    }
    drop(watch);
    if is_ready {
        // A sender that waits for room in TCP may go on in the ring.
        stream.wake_to_look();
    }
}

/// What the rest of the crate does to an adopted stream. An extension of a type of another crate.
pub(crate) trait StreamExt {
    /// Both ends know both slots. Process context, no lock of the connection held.
    fn activate(&self, link: &Arc<Link>);
    /// The connection ends its acceleration before it has begun. Process context.
    fn end(&self);
    /// The peer has ended the connection at its end.
    fn deserted(&self);
    /// Makes sure that nothing is written to our slot any more. Process context.
    fn quiesce(&self);
    /// Takes the sender's end out. Process context.
    fn detach(&self) -> Outbound;
    /// The channel is over: the connection may ask again, on another one.
    fn forget_channel(&self);
    /// The peer does not want the connection now: it may ask again when it has moved much more. Its slot is given back already.
    /// Process context.
    fn refused(&self, reason: Decline);
    /// Wakes whoever sleeps in our methods, to look at what has changed.
    fn wake_to_look(&self);
}

impl StreamExt for AdoptedStream {
    fn activate(&self, link: &Arc<Link>) {
        self.reader.lock().link = Some(link.clone());
        let mut guard = self.lock();
        self.watch.lock().link = Some(link.clone());
        let (locked, sender) = guard.split();
        sender.written = locked.write_seq();
        sender.link = Some(link.clone());
        if sender.ended {
            set_end(link);
        }
        // What is under way over TCP comes before what will be in the ring.
        locked.restart_backoff();
        if self.has_ended() {
            // The socket went while this was agreed. Its end was noted before there was a link: note it again.
            link.set_receive_flags(wire::RX_GONE);
            link.channel().note_tending();
            return;
        }
        self.set_phase(Phase::Active);
        self.traffic.agreed();
        drop(guard);
        // The link /before/ the look at what the peer wants: its notice may have come before there was a link. Partner: `Leaving::begin`.
        VirtFence::full();
        let is_asked = link.peer_flags() & wire::RX_RETURN != 0;
        let is_lost = !link.channel().peer().has_address(self.tuple().dst);
        if ready::is_due(self) || is_asked || is_lost {
            link.channel().note_tending();
        }
        self.frontend().counters().upgrades.inc();
        self.frontend().timeline().note(Step::Agreed);
        self.wake_to_look();
    }

    fn end(&self) {
        self.ended.store(true, Release);
        self.set_phase(Phase::Over);
        self.peer().note_tending();
    }

    fn deserted(&self) {
        self.epoch.fetch_add(1, Full);
        self.socket().data_ready();
        self.socket().write_space();
    }

    fn quiesce(&self) {
        let reader = self.reader.lock().link.take();
        let mut guard = self.lock();
        let watch = self.watch.lock().link.take();
        let sender = guard.state().link.take();
        self.sends_to_ring.store(false, Release);
        drop(guard);
        drop((reader, watch, sender));
    }

    fn detach(&self) -> Outbound {
        self.quiesce();
        let mut guard = self.lock();
        core::mem::take(&mut guard.state().outbound)
    }

    fn forget_channel(&self) {
        if self.has_ended() {
            return;
        }
        let mut reader = self.reader.lock();
        reader.inbound = Inbound::new();
        let mut guard = self.lock();
        let mut watch = self.watch.lock();
        watch.inbound = Inbound::new();
        watch.told = watch.inbound.cons();
        watch.told_segments = 0;
        drop(watch);
        ready::forget_peer(self);
        self.is_unarmed.store(false, Relaxed);
        self.is_handed_over.store(false, Relaxed);
        self.is_settled.store(false, Relaxed);
        self.has_left.store(false, Relaxed);
        self.sum_before.store(self.ring_bytes(), Relaxed);
        guard.state().stays = None;
        guard.state().needs_order = None;
        guard.state().stalled_at = None;
        guard.state().clock = None;
        *self.agreement.lock() = Agreement::new();
        self.traffic.reset();
        self.set_request(0);
        self.set_phase(Phase::Plain);
        drop(guard);
        drop(reader);
        self.wake_to_look();
    }

    fn refused(&self, reason: Decline) {
        pr_debug!("a connection was refused: {}\n", reason.name());
        let guard = self.lock();
        if self.has_ended() {
            return;
        }
        self.traffic.refused();
        self.set_request(0);
        *self.agreement.lock() = Agreement::new();
        self.set_phase(Phase::Plain);
        drop(guard);
        self.wake_to_look();
    }

    fn wake_to_look(&self) {
        self.epoch.fetch_add(1, Full);
        self.wake_all();
    }
}

/// Whether a connection's slots are in `channel`.
pub(crate) fn is_on(stream: &AdoptedStream, channel: &Arc<Channel>) -> bool {
    stream
        .watch
        .lock()
        .link
        .as_ref()
        .is_some_and(|link| Arc::ptr_eq(link.channel(), channel))
}

/// Says that no ring byte will ever follow.
pub(crate) fn set_end(link: &Link) {
    if let Some(view) = link.view() {
        let flags = view.own.word(slot::TX_FLAGS);
        flags.store_release(flags.load_relaxed() | wire::TX_END);
    }
}
