// SPDX-License-Identifier: GPL-2.0

//! Where a sender changes between TCP and the ring (protocol §6). Always under the socket lock.

use crate::link::{
    Link,
    View, //
};
use crate::stream::{
    AdoptedStream,
    Sender,
    Stream, //
};
use crate::timeline::Step;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Relaxed,
    Release, //
};
use xenvmc_core::segment::Mode;
use xenvmc_core::shared::{
    Fence,
    SharedLoad, //
};
use xenvmc_core::wire::{
    self,
    slot, //
};
use xenvmc_core::{
    Decline,
    Error as Violation,
    Extent,
    Words, //
};
use xenvmc_net as net;
use xenvmc_net::{
    Flags,
    Guard,
    Message,
    Socket, //
};
use xenvmc_xen::VirtFence;

/// Binary logarithm of how many times larger a ring becomes in one step.
const GROWTH_ORDER: u8 = 2;

/// Records that it takes to enter the ring, or another extent, and to leave again: nobody waits for a segment to be entered.
const RING_RECORDS: u32 = 2;

/// Bytes that a connection takes before anybody reads, if the application has not set a larger send buffer: about what a new
/// TCP connection does with the send and receive buffers that Linux gives it.
const UNREAD_BYTES: usize = 256 << 10;

/// Flags of a send that only TCP can do justice to.
const TCP_ONLY: Flags = Flags::OOB.with(Flags::ZEROCOPY).with(Flags::FASTOPEN);

/// Whether a message is of a kind that goes over TCP as it is, in TCP's own way.
pub(crate) fn is_for_tcp_alone(message: &Message<'_>) -> bool {
    message.flags().any(TCP_ONLY) || message.has_control()
}

/// Whether TCP has an error or an end to report to who sends. Any context.
pub(crate) fn is_over(socket: &Socket) -> bool {
    socket.has_error() || socket.shutdown().send() || !socket.can_send()
}

/// Puts the direction on the path that the message must or may take; true = the ring.
///
/// # Errors
///
/// If the peer has broken the protocol.
pub(crate) fn to_right_path(
    stream: &AdoptedStream,
    guard: &mut Guard<'_, Stream>,
    link: &Link,
    view: View<'_>,
    message: &Message<'_>,
    flags: Flags,
) -> core::result::Result<bool, Violation> {
    let socket = stream.socket();
    if guard.state().ended || is_over(socket) {
        // TCP knows what to say; no byte will be written.
        return Ok(false);
    }
    let on_ring = guard.state().outbound.mode() != Mode::Tcp;
    let reason = if stream.has_sent_urgent.load(Relaxed) {
        Some(Decline::Urgent)
    } else if flags.any(TCP_ONLY) {
        Some(Decline::Zerocopy)
    } else if message.has_control() {
        Some(Decline::Option)
    } else if guard.state().stays.is_some() {
        guard.state().stays
    } else if view.peer_wants_tcp() {
        Some(Decline::PeerReturned)
    } else if !link.channel().is_open() {
        Some(Decline::ChannelClosed)
    } else {
        net::needs_tcp(socket)
    };
    match reason {
        None if on_ring => {
            let sender = guard.state();
            publish(stream, sender, link)?;
            if sender.outbound.is_settled() {
                return Ok(true);
            }
            // Somebody else's bytes have taken the last record. TCP takes bytes without one.
            leave_log_full(stream, sender, link)?;
            Ok(false)
        }
        None => match enter(stream, guard, link, view)? {
            Ok(()) => Ok(true),
            Err(reason) => {
                note_declined(stream, guard.state(), reason);
                Ok(false)
            }
        },
        Some(reason) => {
            note_declined(stream, guard.state(), reason);
            if on_ring {
                leave(stream, guard.state(), link)?;
            }
            Ok(false)
        }
    }
}

/// Counts a reason for TCP, once as long as it lasts.
fn note_declined(stream: &AdoptedStream, sender: &mut Sender, reason: Decline) {
    if sender.declined != Some(reason) {
        sender.declined = Some(reason);
        stream.frontend().counters().decline(reason);
    }
}

/// Puts the direction on the ring, or says why not.
fn enter(
    stream: &AdoptedStream,
    guard: &mut Guard<'_, Stream>,
    link: &Link,
    view: View<'_>,
) -> core::result::Result<core::result::Result<(), Decline>, Violation> {
    if view.peer_flags() & wire::RX_READY == 0 {
        return Ok(Err(Decline::StaleReader));
    }
    if let Some(reason) = net::why_not_switch(guard) {
        return Ok(Err(reason));
    }
    if guard.sends_urgent() {
        // Of a task that was in TCP's own method before the socket was taken over.
        stream.has_sent_urgent.store(true, Release);
        return Ok(Err(Decline::Urgent));
    }
    if guard.is_corked() || guard.has_stuck_tail() {
        return Ok(Err(Decline::Corked));
    }
    if !net::is_co_resident_route(guard) {
        return Ok(Err(Decline::Route));
    }
    if !link.channel().peer().has_address(stream.tuple().dst) {
        return Ok(Err(Decline::NotCoResident));
    }
    let stalled_at = guard.state().stalled_at;
    if stalled_at == Some(view.peer.word(slot::RX_CONS).load_acquire()) {
        return Ok(Err(Decline::Stalled));
    }
    // What is due from before.
    publish(stream, guard.state(), link)?;
    let log_room = guard.state().outbound.log_room(&view.peer)?;
    if log_room < RING_RECORDS {
        return Ok(Err(Decline::LogFull));
    }
    collect(guard.state(), link)?;
    let (channel, initial) = (link.channel(), stream.frontend().settings().initial_order);
    let unread = unread_order(stream);
    let extent = match guard.state().needs_order {
        Some(order) => channel.take_spare_extent(order),
        // Growth could not be told of before the reader has entered a segment: a small one is not worth the last records.
        None if log_room == RING_RECORDS && initial < unread => channel.take_spare_extent(unread),
        None => channel.take_extent(initial),
    };
    let extent = match extent {
        Ok(extent) => extent,
        Err(reason) => return Ok(Err(reason)),
    };
    if !channel.is_open() {
        // That took time.
        channel.put_extent(extent);
        return Ok(Err(Decline::ChannelClosed));
    }
    let (locked, sender) = guard.split();
    let seq = locked.write_seq();
    if let Err(error) = sender.outbound.enter_ring(extent, seq) {
        link.channel().put_extent(extent);
        pr_debug!("the ring could not be entered: {error:?}\n");
        return Ok(Err(Decline::LogFull));
    }
    // What TCP still holds back (Nagle) lies before the boundary, and the reader waits for it.
    locked.push_pending();
    sender.written = seq;
    sender.declined = None;
    sender.needs_order = None;
    sender.stalled_at = None;
    sender.clock = None;
    stream.extent_bytes.store(extent.bytes(), Release);
    stream.sends_to_ring.store(true, Release);
    stream.frontend().counters().ring_entered.inc();
    stream.frontend().timeline().note(Step::Ring);
    if extent.order() > stream.frontend().settings().initial_order {
        link.channel().note_large();
    }
    publish(stream, sender, link)?;
    Ok(Ok(()))
}

/// Puts the direction back on TCP.
///
/// # Errors
///
/// If the peer has broken the protocol.
pub(crate) fn leave(
    stream: &AdoptedStream,
    sender: &mut Sender,
    link: &Link,
) -> core::result::Result<(), Violation> {
    sender.outbound.leave_ring();
    stream.sends_to_ring.store(false, Release);
    stream.frontend().counters().ring_left.inc();
    publish(stream, sender, link)?;
    // Who waits for room in the ring has TCP's now.
    stream.socket().write_space();
    collect(sender, link)
}

/// The order of the ring that a connection gets before anybody reads: programs rely on being able to send some.
pub(crate) fn unread_order(stream: &AdoptedStream) -> u8 {
    let unread = UNREAD_BYTES.max(stream.socket().fixed_send_buffer());
    let order = Extent::order_for(u32::try_from(unread).unwrap_or(u32::MAX));
    order.min(stream.frontend().settings().ring_order)
}

/// What became of a ring that was to grow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Growth {
    /// The direction goes on in a larger one.
    Done,
    /// It is as large as it may be for now.
    Enough,
    /// It is smaller than what TCP takes before anybody reads, and there is no room for one of this order.
    NoRoom(u8),
    /// The same, but the arena is growing: there will be room when the peer's kernel has mapped it.
    Soon(u8),
    /// The same, but the peer cannot be told of another one before it has entered a segment.
    LogFull,
}

/// Goes on in a larger extent, if this one is not as large as may be, and the reader is at work or TCP would take as much
/// without one; in a smaller one if it has more than its share, and others need room.
///
/// # Errors
///
/// If the peer has broken the protocol.
pub(crate) fn grow(
    stream: &AdoptedStream,
    sender: &mut Sender,
    link: &Link,
) -> core::result::Result<Growth, Violation> {
    let Mode::Ring { extent, seq } = sender.outbound.mode() else {
        return Ok(Growth::Enough);
    };
    let unread = unread_order(stream);
    let most = stream.frontend().settings().ring_order;
    let most = most.min(link.channel().share_order().max(unread));
    if extent.order() > most {
        give_way(stream, sender, link, most)?;
        return Ok(Growth::Enough);
    }
    let order = if sender.outbound.is_being_read() {
        most.min(extent.order() + GROWTH_ORDER)
    } else {
        // At once, as the log has few records.
        unread
    };
    let log_room = log_room(sender, link)?;
    // The last one that can be told of for now is not to be too small for what TCP would take.
    let order = match log_room == RING_RECORDS {
        true => order.max(unread),
        false => order,
    };
    if order <= extent.order() {
        return Ok(Growth::Enough);
    }
    let is_small = extent.order() < unread;
    if log_room < RING_RECORDS {
        return Ok(match is_small {
            true => Growth::LogFull,
            false => Growth::Enough,
        });
    }
    let larger = match take_larger(link, extent.order(), order) {
        Ok(larger) => larger,
        Err(growth) if is_small => return Ok(growth),
        Err(_) => return Ok(Growth::Enough),
    };
    if sender.outbound.enter_ring(larger, seq).is_err() {
        link.channel().put_extent(larger);
        return Ok(if is_small {
            Growth::NoRoom(order)
        } else {
            Growth::Enough
        });
    }
    sender.holds_more = true;
    stream.extent_bytes.store(larger.bytes(), Release);
    stream.frontend().counters().ring_grown.inc();
    link.channel().note_large();
    publish(stream, sender, link)?;
    Ok(Growth::Done)
}

/// Goes on in an extent of the size that rings have at first, or over TCP if there is none. The reader has read everything and
/// entered the last segment, so that the larger extent comes back at once.
///
/// # Errors
///
/// If the peer has broken the protocol.
pub(crate) fn shrink(
    stream: &AdoptedStream,
    sender: &mut Sender,
    link: &Link,
) -> core::result::Result<(), Violation> {
    let Mode::Ring { seq, .. } = sender.outbound.mode() else {
        return Ok(());
    };
    stream.frontend().counters().ring_shrunk.inc();
    let order = stream.frontend().settings().initial_order;
    let Some(smaller) = link.channel().take_granted_extent(order) else {
        return leave(stream, sender, link);
    };
    if sender.outbound.enter_ring(smaller, seq).is_err() {
        link.channel().put_extent(smaller);
        return leave(stream, sender, link);
    }
    stream.extent_bytes.store(smaller.bytes(), Release);
    publish(stream, sender, link)?;
    collect(sender, link)
}

/// Goes on in an extent of 2^`order` pages, if there is one, so that the larger one is free when it was read.
///
/// # Errors
///
/// If the peer has broken the protocol.
fn give_way(
    stream: &AdoptedStream,
    sender: &mut Sender,
    link: &Link,
    order: u8,
) -> core::result::Result<(), Violation> {
    let Mode::Ring { seq, .. } = sender.outbound.mode() else {
        return Ok(());
    };
    if log_room(sender, link)? < RING_RECORDS {
        return Ok(());
    }
    let Some(smaller) = link.channel().take_granted_extent(order) else {
        return Ok(());
    };
    if sender.outbound.enter_ring(smaller, seq).is_err() {
        link.channel().put_extent(smaller);
        return Ok(());
    }
    sender.holds_more = true;
    stream.extent_bytes.store(smaller.bytes(), Release);
    stream.frontend().counters().ring_shrunk.inc();
    publish(stream, sender, link)
}

/// How many records can be published at once.
fn log_room(sender: &mut Sender, link: &Link) -> core::result::Result<u32, Violation> {
    match link.view() {
        Some(view) => sender.outbound.log_room(&view.peer),
        None => Ok(0),
    }
}

/// Takes an extent of 2^`order` pages, or a smaller one that is still larger than one of 2^`than` pages.
fn take_larger(link: &Link, than: u8, order: u8) -> core::result::Result<Extent, Growth> {
    let (mut wanted, mut is_growing) = (order, false);
    loop {
        match link.channel().take_spare_extent(wanted) {
            Ok(extent) => return Ok(extent),
            Err(Decline::NoMemory | Decline::NoChannel) => is_growing = true,
            Err(_) => {}
        }
        let smaller = wanted.saturating_sub(GROWTH_ORDER);
        if smaller > than {
            wanted = smaller;
        } else if is_growing {
            return Err(Growth::Soon(wanted));
        } else {
            return Err(Growth::NoRoom(wanted));
        }
    }
}

/// Goes on over TCP, as the ring is full and there is no room for one of 2^`order` pages ([`Growth::NoRoom`]). The
/// connection comes back when there is.
///
/// Who reads may do so only after more has been sent, so that to wait for room could be to wait for ever.
///
/// # Errors
///
/// If the peer has broken the protocol.
pub(crate) fn leave_full(
    stream: &AdoptedStream,
    sender: &mut Sender,
    link: &Link,
    order: u8,
) -> core::result::Result<(), Violation> {
    sender.needs_order = Some(order);
    note_declined(stream, sender, Decline::ArenaExhausted);
    leave(stream, sender, link)
}

/// Goes on over TCP, as the ring is full and the peer cannot be told of a larger one ([`Growth::LogFull`]).
///
/// # Errors
///
/// If the peer has broken the protocol.
pub(crate) fn leave_log_full(
    stream: &AdoptedStream,
    sender: &mut Sender,
    link: &Link,
) -> core::result::Result<(), Violation> {
    note_declined(stream, sender, Decline::LogFull);
    leave(stream, sender, link)
}

/// Whether a writer finds no room in `extent`, of which `unread` bytes are not read: as `transmit::has_space`.
pub(crate) fn is_full(stream: &AdoptedStream, extent: Extent, unread: u32) -> bool {
    let size = extent.bytes();
    extent.order() >= unread_order(stream) && unread > size - size / 4
}

/// Goes on over TCP, as nobody reads what is in the ring: the reader stands at `cons`. The connection comes back when it does not any
/// more.
///
/// # Errors
///
/// If the peer has broken the protocol.
pub(crate) fn leave_stalled(
    stream: &AdoptedStream,
    sender: &mut Sender,
    link: &Link,
    cons: u32,
) -> core::result::Result<(), Violation> {
    sender.stalled_at = Some(cons);
    note_declined(stream, sender, Decline::Stalled);
    leave(stream, sender, link)
}

/// Publishes the records that are due.
///
/// # Errors
///
/// If the peer has broken the protocol.
pub(crate) fn publish(
    stream: &AdoptedStream,
    sender: &mut Sender,
    link: &Link,
) -> core::result::Result<(), Violation> {
    if sender.outbound.is_settled() && !stream.has_pending_records.load(Relaxed) {
        return Ok(());
    }
    let Some(view) = link.view() else {
        return Ok(());
    };
    let mut notice = sender.outbound.publish(&view.own, &view.peer)?;
    if !sender.outbound.is_settled() {
        stream.has_pending_records.store(true, Release);
        // The flag /before/ the second look at the reader's count: if it has just made room, its notice may have come too
        // early to find the flag. Partner: the barrier in `Inbound::publish`.
        VirtFence::full();
        notice |= sender.outbound.publish(&view.own, &view.peer)?;
    }
    if sender.outbound.is_settled() && stream.has_pending_records.load(Relaxed) {
        stream.has_pending_records.store(false, Release);
    }
    if notice {
        link.post();
    }
    Ok(())
}

/// Takes back the extents that the reader has left.
///
/// # Errors
///
/// If the peer has broken the protocol.
pub(crate) fn collect(sender: &mut Sender, link: &Link) -> core::result::Result<(), Violation> {
    let Some(view) = link.view() else {
        return Ok(());
    };
    while let Some(extent) = sender.outbound.poll_free(&view.peer)? {
        link.channel().put_extent(extent);
    }
    sender.holds_more = sender.outbound.extents() > 1;
    Ok(())
}
