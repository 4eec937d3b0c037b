// SPDX-License-Identifier: GPL-2.0

//! Each byte comes once, unchanged and in order, however it is sent and received.

use anyhow::{Result, ensure};

use crate::{
    bench::{Bench, GUESTS},
    pair::Pair,
};

/// Bytes of a transfer.
const BYTES: u64 = 4 << 20;

/// Bytes of a transfer in small pieces.
const FEW_BYTES: u64 = 1 << 20;

/// Connections at once.
const MANY: usize = 200;

/// Bytes that each of them moves, each way.
const BYTES_OF_EACH: u64 = 20_000;

/// A transfer both ways at once, with messages of random sizes.
fn both_ways(bench: &Bench, bytes: u64, send: &str, receive: &str) -> Result<()> {
    let pair = bench.pair()?;
    pair.both_ways(bytes, send, receive)?;
    pair.finish()
}

pub(super) fn both_ways_blocking(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "", "")
}

pub(super) fn both_ways_poll(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "mode=poll", "mode=poll")
}

pub(super) fn both_ways_select(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "mode=select", "mode=select")
}

pub(super) fn both_ways_epoll_level(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "mode=epoll", "mode=epoll")
}

pub(super) fn both_ways_epoll_edge(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "mode=edge", "mode=edge")
}

/// As programs do that take a short count for the sign that nothing is left.
pub(super) fn both_ways_epoll_edge_short(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "mode=edge-short", "mode=edge-short")
}

pub(super) fn all_calls(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "method=any", "method=any")
}

pub(super) fn vectors(bench: &Bench) -> Result<()> {
    both_ways(bench, FEW_BYTES, "method=writev", "method=readv")?;
    both_ways(bench, FEW_BYTES, "method=sendmsg", "method=recvmsg")
}

pub(super) fn sendfile(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "method=sendfile", "")?;
    both_ways(bench, FEW_BYTES, "method=sendfile mode=poll", "mode=poll")
}

pub(super) fn splice(bench: &Bench) -> Result<()> {
    both_ways(bench, FEW_BYTES, "method=splice", "method=splice")
}

pub(super) fn peek(bench: &Bench) -> Result<()> {
    both_ways(bench, FEW_BYTES, "", "method=peek")
}

pub(super) fn wait_all(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "", "method=waitall max=100000")
}

pub(super) fn small_messages(bench: &Bench) -> Result<()> {
    both_ways(bench, 100_000, "max=64", "max=64")
}

/// Rounds in which many connections must all have got to the ring.
const ROUNDS: usize = 10;

pub(super) fn many_connections(bench: &Bench) -> Result<()> {
    let resets = GUESTS.map(|guest| bench.counter(guest, "connections_reset"));
    let pairs = bench.plain_pairs(MANY)?;
    let mut rounds = 0;
    while bench.count_on_ring()? < 2 * MANY {
        ensure!(
            rounds < ROUNDS,
            "{} directions of {MANY} connections are on the ring",
            bench.count_on_ring()?
        );
        Pair::all_both_ways(&pairs, BYTES_OF_EACH)?;
        rounds += 1;
    }
    let before = GUESTS.map(|guest| bench.counter(guest, "tx_bytes"));
    Pair::all_both_ways(&pairs, BYTES_OF_EACH)?;
    for (guest, before) in GUESTS.into_iter().zip(before) {
        let moved = bench.counter(guest, "tx_bytes")? - before?;
        ensure!(
            moved == MANY as u64 * BYTES_OF_EACH,
            "{guest} sent {moved} bytes through rings"
        );
    }
    Pair::finish_all(&pairs)?;
    for (guest, before) in GUESTS.into_iter().zip(resets) {
        ensure!(
            bench.counter(guest, "connections_reset")? == before?,
            "connections were reset"
        );
    }
    Ok(())
}
