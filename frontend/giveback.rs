// SPDX-License-Identifier: GPL-2.0

//! Giving a connection back to TCP, with every byte in its place.
//!
//! What the peer has put into its ring and nobody has read becomes bytes of TCP ([`xenvmc_net::inject`]). That can be done
//! once the peer has published its last record, and the bytes of TCP that come before the ring's have arrived.

use crate::holders::Holders;
use crate::link::{
    Link,
    View, //
};
use crate::stream::{
    self,
    AdoptedStream,
    Phase,
    Reader,
    Stream, //
};
use crate::{
    handover,
    switch,
    unread, //
};
use kernel::prelude::*;
use kernel::sync::atomic::Full;
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::{
    Delta,
    Instant,
    Monotonic, //
};
use xenvmc_core::connection::State;
use xenvmc_core::error::{
    RingError,
    SegmentError, //
};
use xenvmc_core::extent::PAGE_SIZE;
use xenvmc_core::segment::Mode;
use xenvmc_core::shared::SharedLoad;
use xenvmc_core::stream::{
    Inbound,
    Source, //
};
use xenvmc_core::wire::{
    self,
    slot,
    RECORDS, //
};
use xenvmc_core::{
    Decline,
    Error as Violation,
    Extent,
    Words, //
};
use xenvmc_net as net;
use xenvmc_net::{
    inject,
    inject::Memory,
    Guard,
    Locked, //
};
use xenvmc_xen::word::VirtFence;

/// How long a peer may take to go back to TCP.
pub(crate) const RETURN_MS: u32 = 5000;

/// How long one waits that cannot sleep.
const RETURN_NOW_MS: u32 = 200;

/// The peer broke the protocol: its channel is given up, and this connection reset. Process context, no lock held.
pub(crate) fn break_stream(stream: &AdoptedStream, violation: Violation) {
    let is_ours = handover::is_noted(stream)
        && matches!(violation, Violation::Segment(SegmentError::Sequence));
    if is_ours {
        // Whoever has taken the socket has read what comes behind bytes of the ring.
        stream.frontend().counters().decline(Decline::RogueReader);
        return reset(stream);
    }
    let link = stream.watch.lock().link.clone();
    if let Some(link) = link {
        link.channel().violation(violation);
    }
    reset(stream);
}

/// Resets a connection whose bytes are lost. Process context, no lock held.
pub(crate) fn reset(stream: &AdoptedStream) {
    stream.frontend().counters().connections_reset.inc();
    stream.socket().abort(ECONNRESET_CODE);
}

/// `ECONNRESET`.
const ECONNRESET_CODE: i32 = 104;

/// Says that the peer did not follow in time.
pub(crate) fn warn_late(stream: &AdoptedStream) {
    stream
        .peer()
        .warn(format_args!("did not go back to TCP in time"));
}

/// The error of a connection that was reset.
pub(crate) fn connection_reset() -> Error {
    Error::from_errno(-ECONNRESET_CODE)
}

/// Puts our sending direction on TCP and publishes its last record; true = it is published.
///
/// # Errors
///
/// If the peer has broken the protocol.
pub(crate) fn finish_sending(
    stream: &AdoptedStream,
    guard: &mut Guard<'_, Stream>,
    link: &Link,
) -> core::result::Result<bool, Violation> {
    let sender = guard.state();
    if sender.outbound.mode() != Mode::Tcp {
        switch::leave(stream, sender, link)?;
    } else {
        switch::publish(stream, sender, link)?;
    }
    Ok(sender.outbound.is_settled())
}

/// The same, and then promises that no byte follows in the ring; true = that was said. The direction stays on TCP, for the
/// reason in `stays`.
///
/// # Errors
///
/// If the peer has broken the protocol.
pub(crate) fn leave_for_good(
    stream: &AdoptedStream,
    guard: &mut Guard<'_, Stream>,
    link: &Link,
) -> core::result::Result<bool, Violation> {
    if !finish_sending(stream, guard, link)? {
        return Ok(false);
    }
    if !stream.has_left.xchg(true, Full) {
        // The last record /before/ the promise. Partner: `Leaving::advance` at the other end.
        stream::set_end(link);
        link.post();
    }
    Ok(true)
}

/// What of the peer's ring is to become TCP's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Everything, once the peer's last record is there; nothing before that.
    Complete,
    /// What there is: nothing will follow.
    Rest,
}

/// What [`move_unread`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    /// Everything; the reader stands on TCP.
    All,
    /// Not everything, or nothing.
    Some,
    /// Nothing: bytes of TCP that come before have not arrived.
    TcpIsMissing,
}

/// Whether the peer has promised that no byte of the ring follows: in its slot, or as it has released the connection. An end that lets go
/// of a connection while that is agreed has no slot to say so in.
fn has_peer_ended(stream: &AdoptedStream, view: View<'_>) -> bool {
    view.has_peer_ended() || stream.agreement().lock().state() == State::Deserted
}

/// Puts what is unread in the peer's ring into TCP's queue. The reader is locked, and the socket owned.
///
/// # Errors
///
/// If the peer has broken the protocol.
fn move_unread(
    stream: &AdoptedStream,
    reader: &mut Reader,
    locked: &mut Locked<'_>,
    link: &Link,
    what: Unread,
    memory: Memory,
) -> core::result::Result<Moved, Violation> {
    let (Some(view), Some(theirs)) = (link.view(), link.channel().theirs()) else {
        return Ok(Moved::All);
    };
    // The promise that no byte of the ring follows /before/ the last look at the ring. Who has closed its socket may publish no record
    // behind it.
    let is_ended = has_peer_ended(stream, view);
    // First without moving anything: is all there that has to be?
    let mut walk = reader.inbound.clone();
    let mut seq = locked.copied_seq();
    // Where the reader stands if all up to here is done, with bytes of TCP before the ring's.
    let mut before: Option<Inbound> = None;
    let mut parts: KVec<(u32, Inbound, Extent, u32)> = KVec::new();
    let mut total: u64 = 0;
    loop {
        match unread::look_at(link, view, &mut walk, seq, locked.received_data_seq())? {
            Source::Tcp(0) | Source::Ring { bytes: 0, .. } => break,
            Source::Tcp(bytes) => {
                before.get_or_insert_with(|| walk.clone());
                seq = seq.wrapping_add(bytes);
            }
            Source::Ring { extent, bytes } => {
                if parts.len() > 2 * RECORDS as usize {
                    // More than a correct peer publishes before it is told how far we are.
                    break;
                }
                let from = before.take().unwrap_or_else(|| walk.clone());
                if parts
                    .push((seq, from, extent, bytes), memory.flags())
                    .is_err()
                {
                    return Ok(Moved::Some);
                }
                walk.consume(bytes);
                // All that is unread lies in the arena, each byte once.
                total += u64::from(bytes);
                if total > u64::from(theirs.pages()) * u64::from(PAGE_SIZE) {
                    return Err(RingError::Producer.into());
                }
            }
        }
    }
    let prod = view.peer.word(slot::TX_PROD).load_acquire();
    let is_complete = prod == walk.cons() && (!walk.is_ring() || is_ended);
    if is_complete && walk.is_ring() {
        walk.finish();
    }
    if what == Unread::Complete && !is_complete {
        return Ok(match walk.is_ring() {
            true => Moved::Some,
            false => Moved::TcpIsMissing,
        });
    }
    let mut is_done = true;
    let mut left = walk;
    // What comes before the same byte of TCP is inserted at once or not at all: of two inserts there the later one would
    // come first.
    for group in parts.chunk_by(|a, b| a.0 == b.0) {
        let Some((at, first, ..)) = group.first() else {
            break;
        };
        let total: usize = group.iter().map(|(.., bytes)| *bytes as usize).sum();
        let mut spans = group.iter().flat_map(|(_, from, extent, bytes)| {
            from.spans(*extent, *bytes).map(|span| (*extent, span))
        });
        let mut span = spans.next();
        let moved = inject::insert(locked, *at, total, memory, |_, mut buffer| {
            while !buffer.is_empty() {
                let Some((extent, next)) = &mut span else {
                    return Err(EIO);
                };
                let (pages, page) = theirs.page(extent.page() + next.page()).ok_or(EIO)?;
                let len = buffer.len().min(next.len as usize);
                let (head, tail) = buffer.split_at_mut(len);
                pages.read(page, next.in_page() as usize, head)?;
                next.offset += len as u32;
                next.len -= len as u32;
                if next.len == 0 {
                    span = spans.next();
                }
                buffer = tail;
            }
            Ok(())
        });
        if let Err(error) = moved {
            pr_debug!("{total} bytes could not be given back yet: {error:?}\n");
            // What was moved before is TCP's now; this is not yet.
            left = first.clone();
            is_done = false;
            break;
        }
        let counters = stream.frontend().counters();
        counters.bytes_given_back.add(total as u64);
    }
    reader.inbound = left;
    if reader
        .inbound
        .publish::<VirtFence, _, _>(&view.own, &view.peer)
    {
        link.post();
    }
    unread::leave_pass(stream, view, &reader.inbound);
    Ok(match is_done && is_complete {
        true => Moved::All,
        false => Moved::Some,
    })
}

/// What [`drain`] has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Everything is TCP's.
    All,
    /// Not everything, or nothing.
    Some,
    /// Nothing: a task holds the connection.
    Held,
}

/// Tries to put what is unread into TCP's queue. Process context, no lock held.
///
/// # Errors
///
/// If the peer has broken the protocol.
pub(crate) fn drain(
    stream: &AdoptedStream,
    what: Unread,
    holders: &mut Holders,
) -> core::result::Result<Drained, Violation> {
    let Some(mut reader) = holders.lock_reader(stream) else {
        return Ok(Drained::Held);
    };
    let Some(link) = reader.link.clone() else {
        return Ok(Drained::All);
    };
    let Some(mut guard) = holders.lock(stream) else {
        return Ok(Drained::Held);
    };
    let (locked, _) = guard.split();
    let memory = Memory::MaySleep;
    let moved = move_unread(stream, &mut reader, locked, &link, what, memory);
    if moved == Ok(Moved::All) || what == Unread::Rest {
        guard.data_ready_locked();
    }
    Ok(match moved? {
        Moved::All => Drained::All,
        Moved::Some | Moved::TcpIsMissing => Drained::Some,
    })
}

/// Options of the level SOL_TCP that want the socket as TCP made it.
const TCP_OPTIONS: [i32; 8] = [
    14, // TCP_MD5SIG
    19, // TCP_REPAIR
    31, // TCP_ULP
    32, // TCP_MD5SIG_EXT
    35, // TCP_ZEROCOPY_RECEIVE
    38, // TCP_AO_ADD_KEY
    40, // TCP_AO_INFO
    42, // TCP_AO_REPAIR
];

/// Level and option of how long bytes may be unanswered.
const TCP_USER_TIMEOUT: (i32, i32) = (6, 18);

/// Level and option with which an IPv6 socket becomes an IPv4 one.
const IPV6_ADDRFORM: (i32, i32) = (41, 1);

/// Whether an option is one that needs the socket as TCP made it.
pub(crate) fn wants_tcp(level: i32, name: i32) -> bool {
    (level == 6 && TCP_OPTIONS.contains(&name)) || (level, name) == IPV6_ADDRFORM
}

/// The application sets an option: if it is one that needs the socket as TCP made it, gives the socket back first.
pub(crate) fn before_option(stream: &Arc<AdoptedStream>, level: i32, name: i32) {
    if (level, name) == TCP_USER_TIMEOUT && stream.phase() == Phase::Active {
        if let Some(link) = &stream.watch.lock().link {
            link.channel().note_clock();
        }
    }
    if wants_tcp(level, name) {
        stream.frontend().counters().decline(Decline::Option);
        give_back(stream);
    }
}

/// Gives the socket back to TCP for good, both directions. Process context, no lock held; bounded. A peer that does not
/// answer in time costs the connection.
pub(crate) fn give_back(stream: &Arc<AdoptedStream>) {
    let mut has_left = false;
    loop {
        let mut guard = stream.lock();
        if has_left || stream.phase() != Phase::Active {
            guard.restore();
            break;
        }
        drop(guard);
        // With the socket locked again it may turn out to have become active only now.
        has_left = true;
        if !leave_both(stream) {
            warn_late(stream);
            reset(stream);
        }
    }
    stream.wake_all();
}

/// A connection on its way back to TCP, both directions, while its end waits for the peer to follow.
#[derive(Clone, Copy)]
pub(crate) struct Leaving {
    start: Instant<Monotonic>,
}

impl Leaving {
    /// Asks the peer to put its direction on TCP. The socket is locked.
    pub(crate) fn begin(link: &Link) -> Self {
        link.set_receive_flags(wire::RX_RETURN);
        link.post();
        Self {
            start: Instant::now(),
        }
    }

    /// Whether the peer has had less than `limit_ms` milliseconds.
    pub(crate) fn has_time(self, limit_ms: u32) -> bool {
        self.start.elapsed().as_millis() < i64::from(limit_ms)
    }

    /// Does what can be done now, and keeps our direction on TCP because of `reason`; [`Moved::All`] = both directions are on TCP. The
    /// reader is locked, and the socket.
    ///
    /// # Errors
    ///
    /// If the peer has broken the protocol.
    pub(crate) fn advance(
        self,
        reader: &mut Reader,
        guard: &mut Guard<'_, Stream>,
        link: &Link,
        reason: Decline,
        memory: Memory,
    ) -> core::result::Result<Moved, Violation> {
        let stream = guard.adopted();
        let Some(view) = link.view() else {
            return Ok(Moved::All);
        };
        guard.state().stays.get_or_insert(reason);
        // The peer may be going back to TCP as well, and waits for the promise.
        let is_sent = leave_for_good(stream, guard, link)?;
        // The promise that no ring byte follows /before/ the last look at the ring.
        let ended = has_peer_ended(stream, view) || link.channel().has_peer_finished();
        let (locked, _) = guard.split();
        let moved = move_unread(stream, reader, locked, link, Unread::Complete, memory)?;
        Ok(match moved {
            Moved::All if !(is_sent && ended) => Moved::Some,
            moved => moved,
        })
    }
}

/// Puts both directions on TCP without sleeping, with the socket locked; false if the peer did not follow in time, or somebody is
/// reading. The caller gives the socket back next.
///
/// The peer's kernel does its part while we look, as a hypervisor would.
pub(crate) fn leave_now(guard: &mut Guard<'_, Stream>) -> bool {
    let stream = guard.adopted();
    if stream.phase() != Phase::Active {
        return true;
    }
    let (Some(link), Some(mut reader)) = (guard.state().link.clone(), stream.reader.try_lock())
    else {
        return false;
    };
    let leaving = Leaving::begin(&link);
    while leaving.has_time(RETURN_NOW_MS) {
        match leaving.advance(&mut reader, guard, &link, Decline::Option, Memory::Atomic) {
            Ok(Moved::All) => return true,
            Ok(_) => net::relax(),
            Err(_) => return false,
        }
    }
    false
}

/// Puts both directions on TCP; false if the peer did not follow.
fn leave_both(stream: &AdoptedStream) -> bool {
    let (link, leaving) = {
        // The slot is ours as long as the socket is locked and has it.
        let mut guard = stream.lock();
        let Some(link) = guard.state().link.clone() else {
            return true;
        };
        let leaving = Leaving::begin(&link);
        (link, leaving)
    };
    while leaving.has_time(RETURN_MS) {
        if stream.phase() != Phase::Active {
            // Its channel has ended meanwhile, and gave everything back.
            return true;
        }
        let result = {
            let mut reader = stream.reader.lock();
            if reader.link.is_none() {
                return true;
            }
            let mut guard = stream.lock();
            let memory = Memory::MaySleep;
            let result = leaving.advance(&mut reader, &mut guard, &link, Decline::Option, memory);
            if result == Ok(Moved::All) {
                guard.data_ready_locked();
            }
            result
        };
        match result {
            Ok(Moved::All) => return true,
            // Not on the socket's wait queue: it may have none, or lose it.
            Ok(_) => fsleep(Delta::from_millis(2)),
            Err(_) => return false,
        }
    }
    false
}
