// SPDX-License-Identifier: GPL-2.0

//! What there is to read, and who is to hear of more: what calls, `poll` and notices ask. None of it takes a byte.

use crate::handover;
use crate::link::{
    Link,
    View, //
};
use crate::stream::{
    AdoptedStream,
    Phase,
    Watch, //
};
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;
use xenvmc_core::shared::SharedLoad;
use xenvmc_core::stream::{
    Followed,
    Inbound,
    Source, //
};
use xenvmc_core::wake;
use xenvmc_core::wire::{
    slot,
    RECORDS, //
};
use xenvmc_core::{
    Error as Violation,
    Words, //
};
use xenvmc_xen::word::VirtFence;

/// Looks at the peer's index while asking to be woken, with a lock held, before the answer is "look again".
const LOOKS_WHILE_ARMING: u32 = 4;

/// Finds out what the next bytes are.
#[inline]
pub(crate) fn look(
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
    with_pages(link, |pages| {
        inbound.look(&view.peer, pages, copied_seq, received)
    })
}

/// Follows somebody else who reads TCP and stands at `copied_seq`.
pub(crate) fn follow(
    link: &Link,
    view: View<'_>,
    inbound: &mut Inbound,
    copied_seq: u32,
) -> core::result::Result<Followed, Violation> {
    with_pages(link, |pages| inbound.follow(&view.peer, pages, copied_seq))
}

/// Reads records, which may lie in what of the peer's arena is mapped meanwhile.
fn with_pages<T>(
    link: &Link,
    mut read: impl FnMut(u32) -> core::result::Result<T, Violation>,
) -> core::result::Result<T, Violation> {
    let pages = || link.channel().theirs().map_or(0, |theirs| theirs.pages());
    loop {
        let mapped = pages();
        match read(mapped) {
            // There is only so much to map.
            Err(_) if pages() != mapped => {}
            result => return result,
        }
    }
}

/// Whether there is anything to read, from TCP or the ring; arranges to hear of the next byte if not.
pub(crate) fn has_bytes(stream: &AdoptedStream) -> bool {
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
    let mut watch = stream.watch.lock();
    let Watch {
        link: Some(link),
        inbound,
        told,
        ..
    } = &mut *watch
    else {
        return false;
    };
    let low_water = stream.socket().low_water(false, i32::MAX as usize);
    let is_readable = look_and_arm(link, inbound, |view, walk| {
        let (unread, is_full) = count_unread(stream, link, view, walk, low_water)?;
        Ok(unread >= low_water || is_full)
    });
    if is_readable {
        // Who polls on edges hears of bytes that come on top of these.
        arm_on_top(link, told);
    }
    is_readable
}

/// Whether a notice of bytes between `told` and `prod` has to come, as somebody asked for it when he had seen less.
fn is_notice_due(view: View<'_>, told: u32, prod: u32) -> bool {
    let event = view.own.word(slot::RX_DATA_EVENT).load_relaxed();
    event.wrapping_sub(told) < prod.wrapping_sub(told)
}

/// Arranges to hear of bytes beyond those that are there, for somebody who was just told of those. If a notice of them is due it
/// stays so: others may wait for it.
fn arm_on_top(link: &Link, told: &mut u32) {
    let Some(view) = link.view() else { return };
    let index = view.peer.word(slot::TX_PROD);
    for _ in 0..LOOKS_WHILE_ARMING {
        let prod = index.load_acquire();
        if is_notice_due(view, *told, prod) {
            return;
        }
        *told = prod;
        if wake::arm::<VirtFence>(&view.own.word(slot::RX_DATA_EVENT), prod, &index) {
            return;
        }
    }
}

/// Notes where the reader stands at the end of a pass. What it has seen need not be announced, unless somebody else waits for
/// that.
pub(crate) fn leave_pass(stream: &AdoptedStream, view: View<'_>, inbound: &Inbound) {
    let mut watch = stream.watch.lock();
    watch.inbound = inbound.clone();
    let (told, seen) = (watch.told, inbound.seen());
    let is_later = (seen.wrapping_sub(told) as i32) > 0;
    if is_later && !is_notice_due(view, told, seen) {
        watch.told = seen;
    }
}

/// Whether more than `seen` bytes are unread, on both ways; arranges to hear of more if not. Process context.
pub(crate) fn has_more_than(stream: &AdoptedStream, seen: usize) -> bool {
    let socket = stream.socket();
    let in_tcp = socket.received_data_seq().wrapping_sub(socket.copied_seq());
    if in_tcp as usize > seen {
        return true;
    }
    let watch = stream.watch.lock();
    let Some(link) = &watch.link else {
        return false;
    };
    look_and_arm(link, &watch.inbound, |view, walk| {
        count_unread(stream, link, view, walk, seen + 1).map(|(unread, _)| unread > seen)
    })
}

/// Whether nothing more can come before some bytes are read, as the ring is full.
pub(crate) fn is_full(stream: &AdoptedStream) -> bool {
    let watch = stream.watch.lock();
    let Some(link) = &watch.link else {
        return false;
    };
    let Some(view) = link.view() else {
        return false;
    };
    let mut walk = watch.inbound.clone();
    count_unread(stream, link, view, &mut walk, i32::MAX as usize).is_ok_and(|(_, full)| full)
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
    let mut last = None;
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
                if bytes > 0 || last != Some(extent) {
                    // As the sender has it: `transmit::has_space`.
                    is_full = bytes > extent.bytes() - extent.bytes() / 4;
                }
                last = Some(extent);
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

/// Whether the next byte comes from the ring, as far as the reader has seen.
pub(crate) fn is_on_ring(stream: &AdoptedStream) -> bool {
    stream.watch.lock().inbound.is_ring()
}

/// Whether the peer has done something that a reader may wait for and was not told of; counts as told from now on. Softirq or
/// process context.
pub(crate) fn take_news(stream: &AdoptedStream) -> bool {
    let mut watch = stream.watch.lock();
    let Watch {
        link,
        told,
        told_segments,
        ..
    } = &mut *watch;
    let Some(view) = link.as_ref().and_then(|link| link.view()) else {
        return true;
    };
    let entered = view.own.word(slot::RX_SEGMENTS).load_relaxed();
    let prod = view.peer.word(slot::TX_PROD).load_acquire();
    let segments = view.peer.word(slot::TX_SEGMENTS).load_acquire();
    let has_bytes = core::mem::replace(told, prod) != prod;
    let has_records = core::mem::replace(told_segments, segments) != segments;
    has_bytes || (has_records && segments != entered)
}

/// Tells whoever sleeps on the socket, polls it, or wants SIGIO that there is something to read.
pub(crate) fn announce(stream: &AdoptedStream) {
    let socket = stream.socket();
    handover::check(stream);
    socket.data_ready();
    if socket.is_async() {
        // A signal for what comes next, whether this is read before or not.
        rearm(stream);
    }
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

/// A call leaves: arranges to hear of bytes beyond those that it has seen, for who polls only on edges. If some have come
/// meanwhile, the wake-up that the peer owed is made up for.
///
/// Where nobody polls there is nobody to wake, and each wake-up costs the sender a hypercall. Who begins to poll later asks
/// first ([`is_readable`]); only a program that turns SIGIO on does not, and the upkeep sees to that ([`rearm`]).
pub(crate) fn leave_armed(stream: &AdoptedStream) {
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
        let mut watch = stream.watch.lock();
        let Watch { link, told, .. } = &mut *watch;
        let Some(view) = link.as_ref().and_then(|link| link.view()) else {
            return;
        };
        let index = view.peer.word(slot::TX_PROD);
        for _ in 0..LOOKS_WHILE_ARMING {
            let prod = index.load_acquire();
            came |= core::mem::replace(told, prod) != prod;
            if wake::arm::<VirtFence>(&view.own.word(slot::RX_DATA_EVENT), prod, &index) {
                break;
            }
        }
    }
    handover::check(stream);
    if came {
        stream.socket().data_ready();
    }
}
