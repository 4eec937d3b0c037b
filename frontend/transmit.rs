// SPDX-License-Identifier: GPL-2.0

//! Sending: over TCP, or into our ring for the peer to read.
//!
//! A sender changes between the two only in its own call, under the socket lock, by [`crate::switch`]. Whoever still is
//! inside TCP's own method then is noticed when it releases that lock ([`watch_tcp`]).

use crate::link::Link;
use crate::stream::{
    self,
    AdoptedStream,
    Phase,
    Sender,
    Stream, //
};
use crate::switch::Growth;
use crate::{
    policy,
    ready,
    spin,
    switch, //
};
use kernel::ffi::c_long;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Acquire,
    Relaxed,
    Release, //
};
use kernel::sync::Arc;
use kernel::time::Instant;
use xenvmc_core::extent::PAGE_SIZE;
use xenvmc_core::segment::Mode;
use xenvmc_core::shared::SharedLoad;
use xenvmc_core::wake;
use xenvmc_core::wire::{
    self,
    slot, //
};
use xenvmc_core::{
    Error as Violation,
    Words, //
};
use xenvmc_net::{
    interrupted,
    is_interrupted,
    restart,
    Flags,
    Guard,
    Message,
    Woken, //
};
use xenvmc_xen::word::VirtFence;

/// Bytes that are copied before the peer is told: a long message is read while it is still being written.
const COMMIT_BYTES: u32 = 32 * 1024;

/// Such parts that are copied with the socket locked, if there is room: as in TCP, what another thread sends at the same time does
/// not come in between.
const WHOLE_COMMITS: u32 = 32;

/// How long a call naps while it waits for memory, jiffies.
const NAP_JIFFIES: c_long = 2;

/// How often a call naps for a larger ring, which comes when the peer's kernel has mapped it.
const GROWTH_NAPS: u32 = 10;

/// What a call came to, with the socket locked.
enum Step {
    /// The rest of the message is TCP's.
    Tcp,
    /// All of the message is in the ring.
    Done,
    /// Part of it is, and there may be room for more.
    More,
    /// There is no room.
    Full,
    /// There is no room in a small ring, and will be a larger one soon.
    Soon,
    /// The caller's memory cannot be read.
    Fault,
    /// The other end was closed, and will not read what is in the ring.
    Lost,
}

/// Sends a message, or as much of it as the call's flags and timeout allow.
pub(crate) fn send(stream: &Arc<AdoptedStream>, message: &mut Message<'_>) -> Result<usize> {
    let flags = message.flags();
    let mut timeout = stream.socket().send_timeout(flags.any(Flags::DONTWAIT));
    let total = message.len();
    if flags.any(Flags::OOB) {
        // Also before there is a ring.
        stream.has_sent_urgent.store(true, Release);
    }
    let epoch = stream.epoch();
    if stream.phase() != Phase::Active || message.is_empty() {
        match over_tcp(stream, message, &mut timeout, 0, epoch)? {
            Sent::All(sent) => return Ok(sent),
            Sent::UntilRing => {}
        }
    }
    ready::attempt(stream);
    let (mut asked_again, mut naps) = (false, 0);
    let sent_or = |message: &Message<'_>, error: Error| match total - message.len() {
        0 => Err(error),
        sent => Ok(sent),
    };
    loop {
        let epoch = stream.epoch();
        let left = message.len();
        let mut guard = stream.lock();
        let step = if stream.is_installed() {
            let may_wait = timeout != 0 && naps < GROWTH_NAPS;
            let mut step_on = || step(stream, &mut guard, message, flags, may_wait);
            let mut result = step_on();
            for _ in 1..WHOLE_COMMITS {
                if !matches!(result, Ok(Step::More)) {
                    break;
                }
                result = step_on();
            }
            result
        } else {
            Ok(Step::Tcp)
        };
        drop(guard);
        if message.len() < left {
            naps = 0;
        }
        match step {
            Ok(Step::Done) => return Ok(total),
            Ok(Step::More) => continue,
            Ok(Step::Fault) => return sent_or(message, EFAULT),
            Ok(Step::Lost) => {
                // TCP would hear of it by a reset a moment later.
                crate::giveback::reset(stream);
                return Ok(total - message.len());
            }
            Ok(Step::Full) => {}
            Ok(Step::Soon) => {
                naps += 1;
                if nap(stream, &mut timeout, || stream.epoch() != epoch) == Woken::Signal {
                    return sent_or(message, interrupted(timeout));
                }
                continue;
            }
            Ok(Step::Tcp) => {
                let sent = total - message.len();
                match over_tcp(stream, message, &mut timeout, sent, epoch) {
                    Ok(Sent::All(more)) => return Ok(sent + more),
                    Ok(Sent::UntilRing) => continue,
                    Err(_) if sent > 0 => return Ok(sent),
                    Err(error) => return Err(error),
                }
            }
            Err(violation) => {
                crate::giveback::break_stream(stream, violation);
                return sent_or(message, crate::giveback::connection_reset());
            }
        }
        if timeout == 0 {
            stream.socket().note_no_space();
            let room_came = has_space(stream) != Some(false);
            if room_came && !asked_again {
                asked_again = true;
                continue;
            }
            if room_came {
                // Who polls on edges waits for one after a short write.
                stream.socket().write_space();
            }
            return sent_or(message, EAGAIN);
        }
        if is_interrupted() {
            return sent_or(message, interrupted(timeout));
        }
        if spin::for_space(stream) {
            continue;
        }
        stream.frontend().counters().tx_sleeps.inc();
        let start = Instant::now();
        let woken = stream.wait(&mut timeout, || {
            let socket = stream.socket();
            // Each time, as TCP does: who was told of room may find that another writer has taken it.
            socket.note_no_space();
            stream.epoch() != epoch
                || socket.has_error()
                || socket.shutdown().send()
                || socket.is_closed()
                || has_space(stream) != Some(false)
        });
        let cap = stream.frontend().settings().spin_ns();
        stream.tx_experience.slept(start, cap);
        match woken {
            Woken::Ready if !stream.is_installed() && total == message.len() => {
                return Err(restart())
            }
            Woken::Ready => {}
            Woken::TimedOut => {
                stream.socket().note_no_space();
                return sent_or(message, EAGAIN);
            }
            Woken::Signal => return sent_or(message, interrupted(timeout)),
        }
    }
}

/// How far a message came over TCP.
enum Sent {
    /// So many bytes, and no more in this call.
    All(usize),
    /// To where the rest may take the ring.
    UntilRing,
}

/// Sends over TCP what is left of a message, of which `before` bytes were sent already. Waiting is ours: a task that waits
/// inside TCP's method would keep the module from going. What has changed since the stream's `epoch` may let it take the ring.
fn over_tcp(
    stream: &Arc<AdoptedStream>,
    message: &mut Message<'_>,
    timeout: &mut c_long,
    before: usize,
    mut epoch: u32,
) -> Result<Sent> {
    if switch::is_for_tcp_alone(message) || message.is_empty() {
        let sent = stream.tcp_sendmsg(message)?;
        policy::moved_over_tcp(stream, sent);
        return Ok(Sent::All(sent));
    }
    let mut sent = 0;
    let sent_or = |sent: usize, error: Error| match sent {
        0 => Err(error),
        sent => Ok(Sent::All(sent)),
    };
    loop {
        if *timeout != 0 && !stream.is_installed() {
            // Nobody would wake us here: TCP's own method waits.
            return sent_or(sent, restart());
        }
        let mut guard = stream.lock();
        if before + sent > 0 && switch::is_over(stream.socket()) {
            // The error, and the signal, are the next call's.
            return Ok(Sent::All(sent));
        }
        let result = guard.tcp_send_now(message);
        drop(guard);
        match result {
            Ok(part) => {
                sent += part;
                policy::moved_over_tcp(stream, part);
            }
            Err(error) if error == EAGAIN && *timeout != 0 && stream.tcp_has_space() => {
                // There is room, but no memory for it: a moment later, maybe.
                if nap(stream, timeout, || false) == Woken::Signal {
                    return sent_or(sent, interrupted(*timeout));
                }
            }
            Err(error) if error == EAGAIN => {}
            Err(error) => return sent_or(sent, error),
        }
        if message.is_empty() {
            return Ok(Sent::All(sent));
        }
        if *timeout == 0 {
            return sent_or(sent, EAGAIN);
        }
        let socket = stream.socket();
        let woken = stream.wait(timeout, || {
            socket.note_no_space();
            stream.epoch() != epoch
                || socket.has_error()
                || socket.shutdown().send()
                || socket.is_closed()
                || stream.tcp_has_space()
        });
        match woken {
            Woken::Ready if !stream.is_installed() => return sent_or(sent, restart()),
            Woken::Ready => {
                // Before the phase is looked at: what changes later is noticed then.
                epoch = stream.epoch();
                if stream.phase() == Phase::Active {
                    return Ok(Sent::UntilRing);
                }
            }
            Woken::TimedOut => return sent_or(sent, EAGAIN),
            Woken::Signal => return sent_or(sent, interrupted(*timeout)),
        }
    }
}

/// Sleeps for a moment, of the time that the call has.
fn nap(stream: &AdoptedStream, timeout: &mut c_long, is_over: impl Fn() -> bool) -> Woken {
    let most = NAP_JIFFIES.min(*timeout);
    let mut left = most;
    let woken = stream.wait(&mut left, is_over);
    if *timeout != c_long::MAX {
        *timeout -= most - left;
    }
    woken
}

/// Sends into the ring what there is room for. Who may not wait, or has waited enough, goes on over TCP where a larger ring would
/// come soon.
fn step(
    stream: &Arc<AdoptedStream>,
    guard: &mut Guard<'_, Stream>,
    message: &mut Message<'_>,
    flags: Flags,
    may_wait: bool,
) -> core::result::Result<Step, Violation> {
    let Some(link) = guard.state().link.clone() else {
        return Ok(Step::Tcp);
    };
    let Some(view) = link.view() else {
        return Ok(Step::Tcp);
    };
    if !switch::to_right_path(stream, guard, &link, view, message, flags)? {
        return Ok(Step::Tcp);
    }
    let sender = guard.state();
    if sender.holds_more {
        switch::collect(sender, &link)?;
    }
    let mut room = sender.outbound.room(&view.peer)?;
    if (room as usize) < message.len() {
        let growth = switch::grow(stream, sender, &link)?;
        room = sender.outbound.room(&view.peer)?;
        match growth {
            _ if room > 0 => {}
            Growth::Soon(_) if may_wait => return Ok(Step::Soon),
            Growth::LogFull => {
                switch::leave_log_full(stream, sender, &link)?;
                return Ok(Step::Tcp);
            }
            Growth::NoRoom(order) | Growth::Soon(order) => {
                switch::leave_full(stream, sender, &link, order)?;
                return Ok(Step::Tcp);
            }
            Growth::Done | Growth::Enough => {}
        }
    }
    let Mode::Ring { extent, .. } = sender.outbound.mode() else {
        return Ok(Step::Tcp);
    };
    let want = room
        .min(u32::try_from(message.len()).unwrap_or(u32::MAX))
        .min(COMMIT_BYTES);
    if want == 0 {
        return Ok(Step::Full);
    }
    message.copy_spliced_pages();
    // If not all of it can be copied none counts, as in TCP.
    let copied = message.all_or_nothing(|message| {
        let source = message.source().ok_or(EFAULT)?;
        for span in sender.outbound.spans(want) {
            let page = link.channel().own().page(extent.page() + span.page());
            let len = span.len as usize;
            let part = page
                .ok_or(EFAULT)?
                .copy_from_iter(span.in_page() as usize, len, source);
            if part < len {
                return Err(EFAULT);
            }
        }
        Ok(())
    });
    if copied.is_err() {
        return Ok(Step::Fault);
    }
    if sender
        .outbound
        .commit::<VirtFence, _, _>(want, &view.own, &view.peer)
    {
        link.post();
    }
    // The bytes /before/ this look, by the barrier in `commit`. Partner: `receive::close` at the other end.
    let gone = view.peer_flags() & wire::RX_GONE != 0
        && view.peer.word(slot::RX_CONS).load_acquire() != sender.outbound.prod();
    if gone {
        return Ok(Step::Lost);
    }
    if stream.socket().user_timeout_ms() != 0 {
        link.channel().note_clock();
    }
    stream.sent.add(u64::from(want), Relaxed);
    let counters = stream.frontend().counters();
    counters.tx_bytes.add(u64::from(want));
    counters.tx_calls.inc();
    Ok(if message.is_empty() {
        Step::Done
    } else {
        Step::More
    })
}

/// Notes what others have written into TCP while we are on the ring: from `release_cb`, with softirqs off.
pub(crate) fn watch_tcp(guard: &mut Guard<'_, Stream>) {
    let stream = guard.adopted();
    let (locked, sender) = guard.split();
    let seq = locked.write_seq();
    if sender.ended || seq == sender.written || sender.outbound.mode() == Mode::Tcp {
        return;
    }
    sender.written = seq;
    let Some(link) = sender.link.clone() else {
        return;
    };
    stream.frontend().counters().rogue_writes.inc();
    sender.outbound.rogue(seq);
    if let Err(violation) = switch::publish(stream, sender, &link) {
        link.channel().violation(violation);
    } else if !sender.outbound.is_settled() {
        // Who waits for room in the ring goes on over TCP.
        stream.socket().write_space();
    }
}

/// Says that nothing will follow in this direction; TCP sends its FIN next. Socket locked.
pub(crate) fn end(guard: &mut Guard<'_, Stream>) {
    let sender: &mut Sender = guard.state();
    sender.ended = true;
    if let Some(link) = &sender.link {
        stream::set_end(link);
    }
}

/// Whether a good part of the ring is free; arranges to hear of it if not. [`None`] when TCP is to answer: there is no ring, or records
/// are due, so that what comes next goes over TCP.
/// Process or softirq context, no lock.
pub(crate) fn has_space(stream: &AdoptedStream) -> Option<bool> {
    let size = stream.extent_bytes.load(Acquire);
    stream.wants_space.store(true, Relaxed);
    let watch = stream.watch.lock();
    if !stream.sends_to_ring.load(Acquire) {
        return None;
    }
    let link = watch.link.as_ref()?;
    let view = link.view()?;
    let prod = view.own.word(slot::TX_PROD).load_relaxed();
    let cons_word = view.peer.word(slot::RX_CONS);
    let cons = cons_word.load_acquire();
    let used = prod.wrapping_sub(cons);
    let want = size / 4;
    if stream.has_pending_records.load(Acquire) {
        // Who has written past us fills TCP: it takes what comes next, too.
        return None;
    }
    // A small ring grows when it is full, or the rest goes over TCP.
    let is_small = size < PAGE_SIZE << switch::unread_order(stream);
    if is_small || view.peer_wants_tcp() || used > i32::MAX as u32 || used + want <= size {
        // Whoever asked before still wants to hear of it: `noticed` alone takes the wish back.
        return Some(true);
    }
    if stream.socket().user_timeout_ms() != 0 {
        link.channel().note_clock();
    }
    let event = prod.wrapping_sub(size).wrapping_add(want).wrapping_sub(1);
    let space = view.own.word(slot::TX_SPACE_EVENT);
    Some(!wake::arm_at::<VirtFence>(&space, event, cons, &cons_word))
}

/// Returns how many bytes count as waiting for room at the other end: those beyond half of the ring while there is none for more. The others,
/// and all while there is some, are as good as in a receive buffer: who waits until nothing is left need not wait for a reader.
/// Process or softirq context, no lock.
pub(crate) fn unsent(stream: &AdoptedStream) -> usize {
    let watch = stream.watch.lock();
    let size = stream.extent_bytes.load(Acquire);
    let is_small = size < PAGE_SIZE << switch::unread_order(stream);
    if is_small || !stream.sends_to_ring.load(Acquire) || stream.socket().is_closed() {
        return 0;
    }
    let view = watch.link.as_ref().and_then(|link| link.view());
    let used = view.map_or(0, |view| {
        let prod = view.own.word(slot::TX_PROD).load_relaxed();
        prod.wrapping_sub(view.peer.word(slot::RX_CONS).load_acquire())
    });
    // More than a ring and those before it hold is a lie, which the next call to send finds out.
    if used <= size - size / 4 || used > i32::MAX as u32 {
        return 0;
    }
    (used - size / 2) as usize
}

/// Whether a fair part of the ring is free; only looks.
pub(crate) fn has_room(link: &Link, size: u32) -> bool {
    link.view().is_some_and(|view| {
        let prod = view.own.word(slot::TX_PROD).load_relaxed();
        let cons = view.peer.word(slot::RX_CONS).load_relaxed();
        prod.wrapping_sub(cons).wrapping_add(size / 8) <= size
    })
}
