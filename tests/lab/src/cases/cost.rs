// SPDX-License-Identifier: GPL-2.0

//! What connections cost in memory.

use anyhow::{Context, Result, ensure};

use crate::{
    bench::{Bench, GUEST1, GUESTS},
    pair::Pair,
    peer::{Answer, Socket},
};

/// Connections whose rings grow.
const LARGE: usize = 8;

/// Unread bytes that a ring of its first size has no room for.
const BURST: u64 = 40 << 10;

/// Pages of a ring at first.
const PAGES_OF_EACH: usize = 2;

/// Pages for the slots of these connections.
const PAGES_OF_SLOTS: usize = LARGE.div_ceil(16) + 1;

/// Connections that are open at once.
const MANY: usize = 1_000;

/// Bytes that each of them moves each way at a time.
const FEW: u64 = 200;

/// Memory that an idle connection may cost at each side, in KiB.
const IDLE_KIB: u64 = 16;

/// Pages of both guests' arenas that something is in.
pub(super) fn arena_pages_used(bench: &Bench) -> Result<[usize; 2]> {
    let used = |guest| {
        let peers = bench.report(guest, "peers")?;
        let mut words = peers.split_whitespace();
        let used = words.find_map(|word| word.strip_prefix("arena_pages_used=")?.parse().ok());
        used.with_context(|| format!("{guest} has no channel: {peers}"))
    };
    Ok([used(GUESTS[0])?, used(GUESTS[1])?])
}

/// What rings have grown to is taken back from idle connections, and they go on as before.
pub(super) fn idle_rings_shrink(bench: &Bench) -> Result<()> {
    // A channel on which there was no datagram: their ring stays as long as it does.
    bench.unload_all()?;
    bench.load_all()?;
    let pairs = bench.plain_pairs(LARGE)?;
    for pair in &pairs {
        pair.accelerate()?;
    }
    let small = PAGES_OF_EACH * LARGE + PAGES_OF_SLOTS;
    let ends = || pairs.iter().flat_map(|pair| [&pair.a, &pair.b]);
    for round in 0..2 {
        ends().try_for_each(|end| end.send(BURST))?;
        let grown = arena_pages_used(bench)?;
        ensure!(
            grown.iter().all(|pages| *pages > small),
            "round {round}: {grown:?} pages are used: no ring has grown"
        );
        let before = bench.counter(GUEST1, "ring_shrunk")?;
        ends().try_for_each(|end| end.receive(BURST))?;
        bench.wait("idle connections have small rings", || {
            Ok(arena_pages_used(bench)?.iter().all(|pages| *pages <= small))
        })?;
        ensure!(
            bench.counter(GUEST1, "ring_shrunk")? > before,
            "round {round}: no ring was taken back"
        );
    }
    Pair::finish_all(&pairs)
}

/// Memory in KiB that a guest can give to programs.
fn available(bench: &Bench) -> Result<[u64; 2]> {
    let available = |guest| bench.available_memory(guest);
    Ok([available(GUESTS[0])?, available(GUESTS[1])?])
}

/// Gives an order for one end of all pairs: the connecting ones, or the accepting ones.
fn all(pairs: &[Pair], end: fn(&Pair) -> &Socket, order: &str) -> Result<Answer> {
    let (first, last) = (end(&pairs[0]), end(&pairs[pairs.len() - 1]));
    first.peer().each(first, last, order)
}

fn connecting(pair: &Pair) -> &Socket {
    &pair.a
}

fn accepting(pair: &Pair) -> &Socket {
    &pair.b
}

/// Some bytes each way, all one way and then all the other way.
fn exchange(pairs: &[Pair]) -> Result<()> {
    for (from, to) in [
        (
            connecting as fn(&Pair) -> &Socket,
            accepting as fn(&Pair) -> &Socket,
        ),
        (accepting, connecting),
    ] {
        all(pairs, from, &format!("send bytes={FEW}"))?;
        all(pairs, to, &format!("recv bytes={FEW}"))?.exactly(FEW * pairs.len() as u64)?;
    }
    Ok(())
}

/// A thousand connections between guests of half a gigabyte, opened before the modules are loaded: all that they add when they
/// are idle is what acceleration costs.
pub(super) fn thousand_connections(bench: &Bench) -> Result<()> {
    bench.set_dirty();
    bench.unload_all()?;
    let pairs = bench.plain_pairs(MANY)?;
    exchange(&pairs)?;
    let before = available(bench)?;
    bench.load_all()?;
    bench.exchange_until_on_ring(MANY, || exchange(&pairs))?;
    let after = available(bench)?;
    if !bench.has_debug_kernel() {
        for ((guest, before), after) in GUESTS.into_iter().zip(before).zip(after) {
            let cost = before.saturating_sub(after);
            ensure!(
                cost <= IDLE_KIB * MANY as u64,
                "{guest}: {MANY} idle connections cost {cost} KiB"
            );
            println!("    {guest}: {MANY} idle connections cost {cost} KiB");
        }
    }
    let sent = bench.counter(GUEST1, "tx_bytes")?;
    exchange(&pairs)?;
    let moved = bench.counter(GUEST1, "tx_bytes")? - sent;
    ensure!(
        moved == MANY as u64 * FEW,
        "{moved} bytes went through rings"
    );
    for end in [connecting, accepting] {
        all(&pairs, end, "close")?;
    }
    Ok(())
}
