// SPDX-License-Identifier: GPL-2.0

//! What cannot be accelerated is TCP, and correct; the reason is counted.

use anyhow::{Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS},
    pair::Pair,
};

/// Exchanges after which a connection would have been accelerated if it could be.
const EXCHANGES: u32 = 40;

/// Bytes of each.
const BYTES: u64 = 10_000;

/// Connections for an arena that is too small for them: it has 256 pages, and each end's smallest
/// ring takes two.
const TOO_MANY: usize = 140;

/// Uses a connection; none of it may go through a ring.
fn stays_on_tcp(bench: &Bench, guests: &[Machine]) -> Result<()> {
    let sent = |guest: &Machine| bench.counter(*guest, "tx_bytes");
    let before = guests.iter().map(sent).collect::<Result<Vec<_>>>()?;
    let pair = bench.plain_pair()?;
    for _ in 0..EXCHANGES {
        pair.exchange(BYTES)?;
    }
    ensure!(pair.ring_bytes()? == [0, 0], "bytes went through a ring");
    pair.finish()?;
    let after = guests.iter().map(sent).collect::<Result<Vec<_>>>()?;
    ensure!(
        before == after,
        "bytes went through rings: {before:?}, {after:?}"
    );
    Ok(())
}

pub(super) fn peer_without_module(bench: &Bench) -> Result<()> {
    for (with, without) in [(GUEST1, GUEST2), (GUEST2, GUEST1)] {
        bench.unload(without)?;
        let address = without.address().to_string();
        bench.wait("the peer is gone", || Ok(!bench.sees(with, &address)?))?;
        stays_on_tcp(bench, &[with])?;
        bench.load(without, "")?;
        bench.wait_peers()?;
    }
    Ok(())
}

pub(super) fn disabled(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        bench.set(guest, "enabled", "0")?;
        let before = bench.declines(guest, "disabled")?;
        stays_on_tcp(bench, &GUESTS)?;
        let after = bench.declines(guest, "disabled")?;
        ensure!(
            after[0] > before[0],
            "{guest} does not count the reason: {after:?}"
        );
        bench.set(guest, "enabled", "1")?;
        bench.pair()?.finish()?;
    }
    Ok(())
}

/// Options that want TCP's packets, set before a connection asks for the ring and when it is there; the reason is counted.
pub(super) fn ineligible(bench: &Bench) -> Result<()> {
    let software_receive_stamps = 0x18;
    for (option, value, reason) in [
        ("pacing", 1 << 30, "pacing"),
        ("timestamping", software_receive_stamps, "timestamps"),
    ] {
        let before = bench.declines(GUEST1, reason)?;
        let pair = bench.plain_pair()?;
        pair.a.set(option, value)?;
        for _ in 0..EXCHANGES {
            pair.exchange(BYTES)?;
        }
        ensure!(
            pair.ring_bytes()? == [0, 0],
            "{option}: bytes went through a ring"
        );
        pair.finish()?;
        let once = bench.declines(GUEST1, reason)?;

        let pair = bench.pair()?;
        pair.a.set(option, value)?;
        let ring = pair.ring_bytes()?[0];
        pair.exchange(BYTES)?;
        ensure!(
            pair.ring_bytes()?[0] <= ring, // 0 once it was given back
            "{option}, set later: bytes went through the ring"
        );
        pair.finish()?;
        let twice = bench.declines(GUEST1, reason)?;
        ensure!(
            before[0] < once[0] && once[0] < twice[0],
            "{reason} is not counted: {before:?} {once:?} {twice:?}"
        );
    }
    Ok(())
}

/// An option that needs the socket as TCP made it: the socket is given back, with what was unread.
pub(super) fn given_back(bench: &Bench) -> Result<()> {
    let before = bench.declines(GUEST1, "option")?;
    let pair = bench.pair()?;
    let unread = pair.b.fill(12_000)?;
    let error = pair.a.set("upper-protocol", 0).err();
    let error = error.map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(error.contains("ENOENT"), "the option gave {error:?}");
    let tcp = bench.counter(GUEST1, "tx_bytes")?;
    pair.a.receive(unread)?;
    pair.exchange(BYTES)?;
    ensure!(
        bench.counter(GUEST1, "tx_bytes")? == tcp,
        "bytes went through the ring"
    );
    ensure!(
        bench.declines(GUEST1, "option")?[0] > before[0],
        "the reason is not counted"
    );
    pair.finish()
}

/// A connection that was refused asks again when it has moved much more.
pub(super) fn refused_at_first(bench: &Bench) -> Result<()> {
    bench.set(GUEST2, "enabled", "0")?;
    let before = bench.declines(GUEST1, "disabled")?[1];
    let pair = bench.plain_pair()?;
    for _ in 0..10 {
        pair.exchange(100)?;
    }
    ensure!(
        bench.declines(GUEST1, "disabled")?[1] > before,
        "nothing was refused"
    );
    ensure!(!pair.is_accelerated()?, "refused, and accelerated");
    bench.set(GUEST2, "enabled", "1")?;
    pair.accelerate()?;
    pair.both_ways(BYTES, "", "")?;
    pair.finish()
}

/// Connections that were accelerated before go on.
pub(super) fn disabled_later(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    bench.set(GUEST1, "enabled", "0")?;
    pair.both_ways(BYTES, "", "")?;
    pair.finish()
}

pub(super) fn arena_exhausted(bench: &Bench) -> Result<()> {
    bench.reload("arena_mib=1")?;
    let pairs = bench.plain_pairs(TOO_MANY)?;
    for _ in 0..3 {
        Pair::all_both_ways(&pairs, 20_000)?;
    }
    let accelerated = bench.count_on_ring()?;
    ensure!(
        (1..2 * TOO_MANY).contains(&accelerated),
        "{accelerated} directions are on the ring"
    );
    let counts = [
        bench.declines(GUEST1, "arena-exhausted")?,
        bench.declines(GUEST2, "arena-exhausted")?,
    ];
    ensure!(
        counts.iter().flatten().any(|count| *count > 0),
        "the reason is not counted: {counts:?}"
    );
    Pair::finish_all(&pairs)?;
    // What was given back can be used again.
    bench.wait_no_connections()?;
    bench.pair()?.finish()
}
