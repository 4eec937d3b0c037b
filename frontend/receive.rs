// SPDX-License-Identifier: GPL-2.0

//! Receiving: from TCP up to a boundary, from the peer's ring up to the next, in one call.
//!
//! TCP's own method is only called without blocking; waiting is ours, for both sources at once.

use crate::giveback;
use crate::link::{
    Link,
    View, //
};
use crate::stream::{
    AdoptedStream,
    Phase, //
};
use crate::{
    ready,
    spin,
    stream, //
};
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;
use kernel::time::Instant;
use xenvmc_core::shared::{
    Fence,
    SharedLoad, //
};
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
    Error as Violation,
    Extent,
    Words, //
};
use xenvmc_net::{
    inject,
    interrupted,
    is_interrupted,
    restart,
    Flags,
    Message,
    Woken, //
};
use xenvmc_xen::word::VirtFence;

/// Bytes that are copied before the sender is told: a sender that waits for room goes on while we still copy.
const PUBLISH_BYTES: u32 = 64 * 1024;

/// Looks at the peer's index while asking to be woken, with a lock held, before the answer is "look again".
const LOOKS_WHILE_ARMING: u32 = 4;

/// Flags of a receive that concern TCP alone.
const TCP_ONLY: Flags = Flags::OOB.with(Flags::ERRQUEUE);

/// What one pass over the sources came to.
enum Pass {
    /// Everything that is there was taken, or the message is full.
    Taken,
    /// TCP says that the stream is over.
    Over,
    /// TCP has an error to report.
    Error(Error),
    /// The caller's memory cannot be written.
    Fault,
}

/// Receives a message, or as much of it as the call's flags and timeout allow.
pub(crate) fn receive(
    stream: &Arc<AdoptedStream>,
    message: &mut Message<'_>,
    flags: Flags,
) -> Result<usize> {
    if flags.any(TCP_ONLY) {
        return stream.tcp_recvmsg(message, usize::MAX, flags);
    }
    let socket = stream.socket();
    let len = message.len();
    let target = socket.low_water(flags.any(Flags::WAITALL), len);
    let mut timeout = socket.receive_timeout(flags.any(Flags::DONTWAIT));
    let mut copied = 0;
    let received = stream.received.load(Relaxed);
    let has_used_ring = |stream: &AdoptedStream| stream.received.load(Relaxed) != received;
    let or_copied = |copied: usize, error: Error| match copied {
        0 => Err(error),
        copied => Ok(copied),
    };
    loop {
        let epoch = stream.epoch();
        if !stream.is_installed() {
            return match (copied, timeout) {
                (0, 0) => stream.tcp_recvmsg(message, usize::MAX, flags),
                (0, _) => Err(restart()),
                _ => Ok(copied),
            };
        }
        ready::attempt(stream);
        // The ends /before/ the sources: what came before an end is found by this pass.
        let over = is_over(stream);
        let pass = match pass(stream, message, len, &mut copied, flags) {
            Ok(pass) => pass,
            Err(violation) => {
                giveback::break_stream(stream, violation);
                return or_copied(copied, giveback::connection_reset());
            }
        };
        match pass {
            Pass::Taken => {}
            Pass::Over => return Ok(copied),
            Pass::Fault => return or_copied(copied, EFAULT),
            Pass::Error(error) => return or_copied(copied, error),
        }
        if copied >= target || (len == 0 && has_bytes(stream)) {
            stream::moved_over_tcp(stream, copied);
            leave_armed(stream);
            return Ok(copied);
        }
        // TCP wakes us only when it has SO_RCVLOWAT bytes itself: better less than for ever.
        let is_split = has_used_ring(stream) && !flags.any(Flags::WAITALL) && !is_on_ring(stream);
        if copied > 0 && (is_over(stream) || timeout == 0 || flags.any(Flags::PEEK) || is_split) {
            leave_armed(stream);
            return Ok(copied);
        }
        if over {
            // Nothing came before the end: TCP knows which it is.
            match stream.tcp_recvmsg(message, usize::MAX, flags.with(Flags::DONTWAIT)) {
                Err(error) if error == EAGAIN => {}
                result => return result,
            }
        }
        if timeout == 0 {
            leave_armed(stream);
            return or_copied(copied, EAGAIN);
        }
        if is_interrupted() {
            // As TCP: data first, then signals, then sleep.
            leave_armed(stream);
            return or_copied(copied, interrupted(timeout));
        }
        if spin::for_data(stream) {
            continue;
        }
        stream.frontend().counters().rx_sleeps.inc();
        let start = Instant::now();
        let woken = stream.wait(&mut timeout, || {
            stream.epoch() != epoch || (!over && is_over(stream)) || has_bytes(stream)
        });
        let cap = stream.frontend().settings().spin_ns();
        stream.rx_experience.slept(start, cap);
        match woken {
            Woken::Ready => {}
            Woken::TimedOut => {
                leave_armed(stream);
                return or_copied(copied, EAGAIN);
            }
            Woken::Signal => {
                leave_armed(stream);
                return or_copied(copied, interrupted(timeout));
            }
        }
    }
}

/// A call leaves: arranges to hear of bytes beyond those that it has seen, for who polls only on edges. If some have come
/// meanwhile, the wake-up that the peer owed is made up for.
///
/// Where nobody polls there is nobody to wake, and each wake-up costs the sender a hypercall. Who begins to poll later asks
/// first ([`is_readable`]); only a program that turns SIGIO on does not, and the upkeep sees to that ([`rearm`]).
fn leave_armed(stream: &AdoptedStream) {
    if stream.phase() != Phase::Active {
        return;
    }
    if stream.socket().is_watched() {
        rearm(stream);
    } else if !stream.is_unarmed.load(Relaxed) {
        let watch = stream.watch.lock();
        if let Some(link) = &watch.link {
            stream.is_unarmed.store(true, Relaxed);
            link.channel().note_unarmed();
        }
    }
}

/// Arranges to hear of bytes beyond those that the reader has seen, and makes up for the wake-up if there are some. Softirq or
/// process context, no lock.
pub(crate) fn rearm(stream: &AdoptedStream) {
    let mut came = false;
    {
        let watch = stream.watch.lock();
        let Some(view) = watch.link.as_ref().and_then(|link| link.view()) else {
            return;
        };
        let mut seen = watch.inbound.clone();
        for _ in 0..LOOKS_WHILE_ARMING {
            if seen.arm::<VirtFence, _, _>(&view.own, &view.peer) {
                break;
            }
            came = true;
            if seen.see(&view.peer).is_err() {
                // The reader will find out.
                break;
            }
        }
    }
    if came {
        stream.socket().data_ready();
    }
}

/// Whether TCP has an error or an end to report.
fn is_over(stream: &AdoptedStream) -> bool {
    let socket = stream.socket();
    let over = socket.has_error() || socket.shutdown().receive() || socket.is_closed();
    // Partner: TCP sets these after what the peer had put into its ring before.
    VirtFence::full();
    over
}

/// Takes what there is, from both sources in their order.
fn pass(
    stream: &Arc<AdoptedStream>,
    message: &mut Message<'_>,
    len: usize,
    copied: &mut usize,
    flags: Flags,
) -> core::result::Result<Pass, Violation> {
    let mut reader = stream.reader.lock();
    let Some(link) = reader.link.clone() else {
        drop(reader);
        let socket = stream.socket();
        if *copied > 0 && socket.received_data_seq() == socket.copied_seq() {
            // TCP would take its error, and this call has bytes to return: it is the next call's.
            return Ok(Pass::Taken);
        }
        return Ok(take_tcp(stream, message, usize::MAX, copied, flags));
    };
    let Some(view) = link.view() else {
        return Ok(Pass::Taken);
    };
    if flags.any(Flags::PEEK) {
        // What is there before the call counts as seen, although it is not taken.
        reader.inbound.see(&view.peer)?;
        stream.watch.lock().inbound = reader.inbound.clone();
        let walk = reader.inbound.clone();
        return peek(stream, &link, walk, message, len, copied, flags);
    }
    let mut result = Pass::Taken;
    while *copied < len {
        match look(stream, &link, view, &mut reader.inbound)? {
            Source::Tcp(0) | Source::Ring { bytes: 0, .. } => break,
            Source::Tcp(bytes) => {
                let limit = (bytes as usize).min(len - *copied);
                let before = *copied;
                result = take_tcp(stream, message, limit, copied, flags);
                if !matches!(result, Pass::Taken) || *copied == before {
                    break;
                }
            }
            Source::Ring { extent, bytes } => {
                let left = u32::try_from(len - *copied).unwrap_or(u32::MAX);
                let want = bytes.min(left).min(PUBLISH_BYTES);
                let taken = if flags.any(Flags::TRUNC) {
                    want
                } else {
                    copy(&link, &reader.inbound, extent, want, message)
                };
                reader.inbound.consume(taken);
                *copied += taken as usize;
                count(stream, taken);
                if reader
                    .inbound
                    .publish::<VirtFence, _, _>(&view.own, &view.peer)
                {
                    link.post();
                }
                if taken < want {
                    result = Pass::Fault;
                    break;
                }
            }
        }
    }
    if reader
        .inbound
        .publish::<VirtFence, _, _>(&view.own, &view.peer)
    {
        link.post();
    }
    stream.watch.lock().inbound = reader.inbound.clone();
    Ok(result)
}

/// Finds out what the next bytes are.
#[inline]
fn look(
    stream: &AdoptedStream,
    link: &Link,
    view: View<'_>,
    inbound: &mut Inbound,
) -> core::result::Result<Source, Violation> {
    let socket = stream.socket();
    let received = socket.received_data_seq();
    look_at(link, view, inbound, socket.copied_seq(), received)
}

/// The same for any position in TCP's sequence space.
pub(crate) fn look_at(
    link: &Link,
    view: View<'_>,
    inbound: &mut Inbound,
    copied_seq: u32,
    received: u32,
) -> core::result::Result<Source, Violation> {
    let pages = || link.channel().theirs().map_or(0, |theirs| theirs.pages());
    loop {
        let mapped = pages();
        match inbound.look(&view.peer, mapped, copied_seq, received) {
            // A record may lie in what was mapped meanwhile. There is only so much to map.
            Err(_) if pages() != mapped => {}
            result => return result,
        }
    }
}

/// Takes up to `limit` bytes from TCP.
fn take_tcp(
    stream: &AdoptedStream,
    message: &mut Message<'_>,
    limit: usize,
    copied: &mut usize,
    flags: Flags,
) -> Pass {
    match stream.tcp_recvmsg(message, limit, flags.with(Flags::DONTWAIT)) {
        Ok(0) => Pass::Over,
        Ok(bytes) => {
            *copied += bytes;
            Pass::Taken
        }
        Err(error) if error == EAGAIN => Pass::Taken,
        Err(error) if error == EFAULT => Pass::Fault,
        Err(error) => Pass::Error(error),
    }
}

/// Copies the next `want` bytes of the ring; returns how many could be.
fn copy(
    link: &Link,
    inbound: &Inbound,
    extent: Extent,
    want: u32,
    message: &mut Message<'_>,
) -> u32 {
    let (Some(theirs), Some(dest)) = (link.channel().theirs(), message.dest()) else {
        return 0;
    };
    let mut taken = 0;
    for span in inbound.spans(extent, want) {
        let Some((pages, page)) = theirs.page(extent.page() + span.page()) else {
            break;
        };
        let len = span.len as usize;
        let part = pages.copy_to_iter(page, span.in_page() as usize, len, dest);
        taken += part as u32;
        if part < len {
            break;
        }
    }
    taken
}

fn count(stream: &AdoptedStream, bytes: u32) {
    stream.received.add(u64::from(bytes), Relaxed);
    let counters = stream.frontend().counters();
    counters.rx_bytes.add(u64::from(bytes));
    counters.rx_calls.inc();
}

/// Copies what there is without taking it: MSG_PEEK. Ends where bytes of TCP follow bytes that were peeked at before.
fn peek(
    stream: &AdoptedStream,
    link: &Link,
    mut walk: Inbound,
    message: &mut Message<'_>,
    len: usize,
    copied: &mut usize,
    flags: Flags,
) -> core::result::Result<Pass, Violation> {
    let socket = stream.socket();
    let Some(view) = link.view() else {
        return Ok(Pass::Taken);
    };
    let mut seq = socket.copied_seq();
    while *copied < len {
        let received = socket.received_data_seq();
        match look_at(link, view, &mut walk, seq, received)? {
            Source::Tcp(0) | Source::Ring { bytes: 0, .. } => break,
            Source::Tcp(bytes) if *copied == 0 => {
                let limit = (bytes as usize).min(len);
                let pass = take_tcp(stream, message, limit, copied, flags);
                if !matches!(pass, Pass::Taken) || *copied == 0 {
                    return Ok(pass);
                }
                seq = seq.wrapping_add(*copied as u32);
            }
            Source::Tcp(_) => break,
            Source::Ring { extent, bytes } => {
                let left = u32::try_from(len - *copied).unwrap_or(u32::MAX);
                let want = bytes.min(left);
                let part = if flags.any(Flags::TRUNC) {
                    want
                } else {
                    copy(link, &walk, extent, want, message)
                };
                walk.consume(part);
                *copied += part as usize;
                if part < want {
                    return Ok(Pass::Fault);
                }
            }
        }
    }
    Ok(Pass::Taken)
}

/// Whether the next byte comes from the ring, as far as the reader has seen.
fn is_on_ring(stream: &AdoptedStream) -> bool {
    stream.watch.lock().inbound.is_ring()
}

/// Whether there is anything to read, from TCP or the ring; arranges to hear of the next byte if not.
fn has_bytes(stream: &AdoptedStream) -> bool {
    let watch = stream.watch.lock();
    let Some(link) = &watch.link else {
        let socket = stream.socket();
        return socket.received_data_seq() != socket.copied_seq();
    };
    look_and_arm(link, &watch.inbound, |view, walk| {
        look(stream, link, view, walk).map(|source| source.bytes() > 0)
    })
}

/// Whether as many bytes are unread, on both ways, as the application wants to hear of, if some of them are in the ring;
/// arranges to hear of more if not. What TCP has, TCP says itself. Process or softirq context, no lock.
pub(crate) fn is_readable(stream: &AdoptedStream) -> bool {
    let watch = stream.watch.lock();
    let Some(link) = &watch.link else {
        return false;
    };
    let low_water = stream.socket().low_water(false, i32::MAX as usize);
    look_and_arm(link, &watch.inbound, |view, walk| {
        let (unread, is_full) = count_unread(stream, link, view, walk, low_water)?;
        Ok(unread >= low_water || is_full)
    })
}

/// Calls `found` with a copy of `inbound` until it says true, or the arrangement to hear of what comes after stands.
fn look_and_arm(
    link: &Link,
    inbound: &Inbound,
    found: impl Fn(View<'_>, &mut Inbound) -> core::result::Result<bool, Violation>,
) -> bool {
    let Some(view) = link.view() else {
        return true;
    };
    for _ in 0..LOOKS_WHILE_ARMING {
        let mut walk = inbound.clone();
        match found(view, &mut walk) {
            Ok(false) => {}
            // If it is a breach, the reader will find out; if a reader is at work, it is not ours to say.
            Ok(true) | Err(_) => return true,
        }
        if walk.arm::<VirtFence, _, _>(&view.own, &view.peer) {
            return false;
        }
    }
    // Somebody is writing: to look again is right.
    true
}

/// Counts unread bytes from the reader's position on, at least up to `enough` if there are as many; and whether there cannot
/// be more before some are read. 0 if none of them is in the ring.
fn count_unread(
    stream: &AdoptedStream,
    link: &Link,
    view: View<'_>,
    walk: &mut Inbound,
    enough: usize,
) -> core::result::Result<(usize, bool), Violation> {
    let socket = stream.socket();
    let mut seq = socket.copied_seq();
    let (mut unread, mut in_ring, mut is_full) = (0, false, false);
    // At most one segment per record in the log, and the one that the reader stands in.
    for _ in 0..=RECORDS {
        let received = socket.received_data_seq();
        let bytes = match look_at(link, view, walk, seq, received)? {
            Source::Tcp(bytes) => {
                seq = seq.wrapping_add(bytes);
                // TCP counts its own bytes alone, and may never find enough of them.
                is_full = in_ring;
                bytes
            }
            Source::Ring { extent, bytes } => {
                walk.consume(bytes);
                in_ring |= bytes > 0;
                is_full = bytes == extent.bytes();
                bytes
            }
        };
        unread += bytes as usize;
        if bytes == 0 || unread >= enough {
            break;
        }
    }
    Ok(if in_ring {
        (unread, is_full)
    } else {
        (0, false)
    })
}

/// Whether the peer has done something that a reader may wait for. Softirq or process context.
pub(crate) fn has_news(stream: &AdoptedStream) -> bool {
    let watch = stream.watch.lock();
    let Some(link) = &watch.link else {
        return true;
    };
    let Some(view) = link.view() else {
        return true;
    };
    let entered = view.own.word(slot::RX_SEGMENTS).load_relaxed();
    view.peer.word(slot::TX_PROD).load_acquire() != watch.inbound.cons()
        || view.peer.word(slot::TX_SEGMENTS).load_acquire() != entered
}

/// The slots, and the number of bytes that the peer had put into its ring when the reader last looked.
pub(crate) fn seen(stream: &AdoptedStream) -> Option<(Arc<Link>, u32)> {
    let watch = stream.watch.lock();
    Some((watch.link.clone()?, watch.inbound.seen()))
}

/// Returns how many bytes wait in the ring.
pub(crate) fn unread(stream: &AdoptedStream) -> usize {
    let watch = stream.watch.lock();
    let view = watch.link.as_ref().and_then(|link| link.view());
    let unread = view.map_or(0, |view| {
        let prod = view.peer.word(slot::TX_PROD).load_acquire();
        prod.wrapping_sub(watch.inbound.cons())
    });
    // More than that is a lie, which the next call to read finds out.
    usize::try_from(i32::try_from(unread).unwrap_or(0)).unwrap_or(0)
}

/// The last descriptor is being closed: nobody will read. If bytes are unread TCP must reset the connection, as it does
/// for its own: one of them is given to it.
pub(crate) fn close(stream: &AdoptedStream) {
    let reader = stream.reader.lock();
    let Some(link) = &reader.link else { return };
    link.set_receive_flags(wire::RX_GONE);
    // The flag /before/ the last look. Partner: `commit` and the look at the flags after it, at the other end.
    VirtFence::full();
    link.post();
    if unread(stream) == 0 {
        return;
    }
    let mut guard = stream.lock();
    let (locked, _) = guard.split();
    let at = locked.copied_seq();
    if let Err(error) = inject::insert(locked, at, 1, |_, _| Ok(())) {
        pr_debug!("no reset for unread bytes: {error:?}\n");
    }
}
