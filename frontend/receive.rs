// SPDX-License-Identifier: GPL-2.0

//! Receiving: from TCP up to a boundary, from the peer's ring up to the next, in one call.
//!
//! TCP's own method is only called without blocking; waiting is ours, for both sources at once.

use crate::giveback;
use crate::link::Link;
use crate::stream::{
    AdoptedStream,
    Phase, //
};
use crate::unread::{
    has_bytes,
    has_more_than,
    is_full,
    is_on_ring,
    is_readable,
    leave_armed,
    leave_pass,
    look,
    look_at,
    unread, //
};
use crate::{
    policy,
    ready,
    spin, //
};
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;
use kernel::time::Instant;
use xenvmc_core::shared::Fence;
use xenvmc_core::stream::{
    Inbound,
    Source, //
};
use xenvmc_core::wire;
use xenvmc_core::{
    Error as Violation,
    Extent, //
};
use xenvmc_net as net;
use xenvmc_net::inject::Memory;
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

/// Flags of a receive that concern TCP alone.
const TCP_ONLY: Flags = Flags::OOB.with(Flags::ERRQUEUE);

/// How often a call looks for bytes before the end of a stream: those of TCP behind a boundary that the peer has not published yet.
const LOOKS_AT_END: u32 = 4;

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
    let needs_tcp = net::needs_tcp_to_receive(socket);
    if let Some(reason) = needs_tcp {
        // A peek with an offset waits for bytes behind those that are there, of which only TCP knows.
        let is_offset = flags.any(Flags::PEEK) && net::has_peek_offset(socket);
        if stream.phase() == Phase::Active || is_offset {
            stream.frontend().counters().decline(reason);
            giveback::give_back(stream);
        }
    }
    let received = receive_some(stream, message, flags)?;
    if needs_tcp.is_none() && message.wants_unread_count(socket) {
        message.set_unread_count(socket, unread(stream));
    }
    Ok(received)
}

/// Receives bytes.
fn receive_some(
    stream: &Arc<AdoptedStream>,
    message: &mut Message<'_>,
    flags: Flags,
) -> Result<usize> {
    let socket = stream.socket();
    let is_peek = flags.any(Flags::PEEK);
    let len = message.len();
    let target = socket.low_water(flags.any(Flags::WAITALL), len);
    let mut timeout = socket.receive_timeout(flags.any(Flags::DONTWAIT));
    let (mut copied, mut was_full) = (0, false);
    let mut looks_at_end = 0_u32;
    let received = stream.received.load(Relaxed);
    let has_used_ring = |stream: &AdoptedStream| stream.received.load(Relaxed) != received;
    let or_copied = |copied: usize, error: Error| match copied {
        0 => Err(error),
        copied => Ok(copied),
    };
    loop {
        let epoch = stream.epoch();
        let peeked = copied;
        if is_peek && copied > 0 {
            // More has come: it is looked at from the beginning, as nothing was taken.
            message.start_over();
            copied = 0;
        }
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
        let arrived = socket.received_data_seq();
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
            policy::moved_over_tcp(stream, copied);
            leave_armed(stream);
            return Ok(copied);
        }
        if is_peek && copied > 0 && copied == peeked {
            // What woke us cannot be peeked at: it lies behind an urgent byte, or TCP's second segment.
            leave_armed(stream);
            return Ok(copied);
        }
        // TCP wakes us only when it has SO_RCVLOWAT bytes itself: better less than for ever.
        let is_split = has_used_ring(stream) && !flags.any(Flags::WAITALL) && !is_on_ring(stream);
        let is_at_urgent = !is_on_ring(stream) && socket.is_at_urgent();
        if copied > 0 && (is_over(stream) || timeout == 0 || is_split || is_at_urgent) {
            leave_armed(stream);
            return Ok(copied);
        }
        if over {
            // Nothing came before the end: TCP knows which it is.
            let is_last = looks_at_end >= LOOKS_AT_END;
            looks_at_end = looks_at_end.saturating_add(1);
            match take_end(stream, message, flags, is_last) {
                Ok(None) => continue,
                // Somebody else was told of it; or it lies behind an urgent byte, and a signal is to be seen to first.
                Ok(Some(Err(error))) if error == EAGAIN => {
                    if !is_over(stream) {
                        continue;
                    }
                }
                Ok(Some(Ok(bytes))) => return Ok(copied + bytes),
                Ok(Some(Err(error))) => return or_copied(copied, error),
                Err(violation) => {
                    giveback::break_stream(stream, violation);
                    return or_copied(copied, giveback::connection_reset());
                }
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
        if is_peek && copied > 0 && is_full(stream) {
            // More would come into TCP's queue, which has more room.
            stream
                .frontend()
                .counters()
                .decline(xenvmc_core::Decline::Option);
            giveback::give_back(stream);
            continue;
        }
        // As TCP: who sleeps is woken by SO_RCVLOWAT bytes, and takes none before.
        let has_mark = socket.low_water(false, usize::MAX) > 1;
        let has_more = |stream: &AdoptedStream| match copied {
            1.. if is_peek => has_more_than(stream, copied),
            // The urgent byte cannot be peeked at.
            _ if is_peek && socket.is_at_urgent() => socket.received_data_seq() != arrived,
            _ if has_mark && !was_full => {
                is_readable(stream) || (has_bytes(stream) && socket.tcp_has_low_water())
            }
            _ => has_bytes(stream),
        };
        if !is_peek && !has_mark && spin::for_data(stream) {
            continue;
        }
        stream.frontend().counters().rx_sleeps.inc();
        let start = Instant::now();
        let woken = stream.wait(&mut timeout, || {
            stream.epoch() != epoch || (!over && is_over(stream)) || has_more(stream)
        });
        let cap = stream.frontend().settings().spin_ns();
        stream.rx_experience.slept(start, cap);
        match woken {
            // More than there is room for was waited for: it comes in several parts, the last of which may be below the mark.
            Woken::Ready => was_full |= has_mark && is_full(stream),
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

/// Whether TCP has an error or an end to report.
fn is_over(stream: &AdoptedStream) -> bool {
    let socket = stream.socket();
    let over = socket.has_error() || socket.shutdown().receive() || socket.is_closed();
    // Partner: TCP sets these after what the peer had put into its ring before.
    VirtFence::full();
    over
}

/// Takes the end of the stream, or an error, from TCP; [`None`] if bytes have come meanwhile: those come first, unless `is_last` says
/// that this was looked for often enough.
fn take_end(
    stream: &AdoptedStream,
    message: &mut Message<'_>,
    flags: Flags,
    is_last: bool,
) -> core::result::Result<Option<Result<usize>>, Violation> {
    let mut reader = stream.reader.lock();
    if let Some(link) = reader.link.clone() {
        if let Some(view) = link.view() {
            let socket = stream.socket();
            let source = look(stream, &link, view, &mut reader.inbound)?;
            let is_empty = socket.received_data_seq() == socket.copied_seq();
            if !is_last && (source.bytes() > 0 || !is_empty) {
                return Ok(None);
            }
            if !is_last {
                // No byte: those of the ring that are before it may have come since.
                let end = stream.tcp_recvmsg(message, 0, flags.with(Flags::DONTWAIT));
                let is_empty = socket.received_data_seq() == socket.copied_seq();
                return Ok((end.is_err() || is_empty).then_some(end));
            }
        }
    }
    let flags = flags.with(Flags::DONTWAIT);
    Ok(Some(stream.tcp_recvmsg(message, usize::MAX, flags)))
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
        // With the reader locked: no ring begins meanwhile.
        let socket = stream.socket();
        let nothing = socket.received_data_seq() == socket.copied_seq();
        if *copied > 0 && (nothing || socket.is_at_urgent()) {
            // TCP would take its error, or the urgent byte, and this call has bytes to return: it is the next call's.
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
        leave_pass(stream, view, &reader.inbound);
        let walk = reader.inbound.clone();
        return peek(stream, &link, walk, message, len, copied, flags);
    }
    let mut result = Pass::Taken;
    while *copied < len {
        match look(stream, &link, view, &mut reader.inbound)? {
            Source::Tcp(0) | Source::Ring { bytes: 0, .. } => break,
            Source::Tcp(_) if *copied > 0 && stream.socket().is_at_urgent() => break,
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
                let skips = flags.any(Flags::TRUNC);
                if !skips && copy(&link, &reader.inbound, extent, want, message).is_err() {
                    result = Pass::Fault;
                    break;
                }
                reader.inbound.consume(want);
                *copied += want as usize;
                count(stream, want);
                if reader
                    .inbound
                    .publish::<VirtFence, _, _>(&view.own, &view.peer)
                {
                    link.post();
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
    leave_pass(stream, view, &reader.inbound);
    Ok(result)
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

/// Copies the next `want` bytes of the ring. If not all of them can be copied none count, as in TCP.
fn copy(
    link: &Link,
    inbound: &Inbound,
    extent: Extent,
    want: u32,
    message: &mut Message<'_>,
) -> Result {
    let theirs = link.channel().theirs().ok_or(EFAULT)?;
    message.all_or_nothing(|message| {
        let dest = message.dest().ok_or(EFAULT)?;
        for span in inbound.spans(extent, want) {
            let (pages, page) = theirs.page(extent.page() + span.page()).ok_or(EFAULT)?;
            let len = span.len as usize;
            if pages.copy_to_iter(page, span.in_page() as usize, len, dest) < len {
                return Err(EFAULT);
            }
        }
        Ok(())
    })
}

fn count(stream: &AdoptedStream, bytes: u32) {
    stream.received.add(u64::from(bytes), Relaxed);
    let counters = stream.frontend().counters();
    counters.rx_bytes.add(u64::from(bytes));
    counters.rx_calls.inc();
}

/// Copies what there is without taking it: MSG_PEEK. Ends at a second segment of TCP's: TCP itself can only be asked for what
/// comes next of its own.
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
            Source::Tcp(_) if *copied > 0 && socket.is_at_urgent() => break,
            Source::Tcp(bytes) if seq == socket.copied_seq() => {
                let limit = (bytes as usize).min(len - *copied);
                let before = *copied;
                let pass = take_tcp(stream, message, limit, copied, flags);
                if !matches!(pass, Pass::Taken) || *copied == before {
                    return Ok(pass);
                }
                seq = seq.wrapping_add((*copied - before) as u32);
            }
            Source::Tcp(_) => break,
            Source::Ring { extent, bytes } => {
                let left = u32::try_from(len - *copied).unwrap_or(u32::MAX);
                let want = bytes.min(left);
                let skips = flags.any(Flags::TRUNC);
                if !skips && copy(link, &walk, extent, want, message).is_err() {
                    return Ok(Pass::Fault);
                }
                walk.consume(want);
                *copied += want as usize;
            }
        }
    }
    Ok(Pass::Taken)
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
    if let Err(error) = inject::insert(locked, at, 1, Memory::MaySleep, |_, _| Ok(())) {
        pr_debug!("no reset for unread bytes: {error:?}\n");
    }
}
