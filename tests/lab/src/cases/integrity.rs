// SPDX-License-Identifier: GPL-2.0

//! Each byte comes once, unchanged and in order, however it is sent and received.

use anyhow::{Result, ensure};

use crate::bench::{Bench, GUEST1, GUESTS};

/// Bytes of a transfer.
const BYTES: u64 = 4 << 20;

/// Bytes of a transfer in small pieces.
const FEW_BYTES: u64 = 1 << 20;

/// Connections at once.
const MANY: usize = 200;

/// Bytes that each of them moves, each way.
const BYTES_OF_EACH: u64 = 40_000;

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

pub(super) fn many_connections(bench: &Bench) -> Result<()> {
    let upgrades = bench.counter(GUEST1, "upgrades")?;
    let pairs = bench.plain_pairs(MANY)?;
    let mut running = Vec::new();
    for round in 0..2 {
        for socket in pairs.iter().flat_map(|pair| [&pair.a, &pair.b]) {
            running.push(socket.start(&format!("recv bytes={BYTES_OF_EACH} max=5000"))?);
            running.push(socket.start(&format!("send bytes={BYTES_OF_EACH} max=5000"))?);
        }
        for pending in running.drain(..) {
            pending.wait()?.exactly(BYTES_OF_EACH)?;
        }
        if round == 0 {
            for pair in &pairs {
                pair.accelerate()?;
            }
        }
    }
    ensure!(
        bench.counter(GUEST1, "upgrades")? - upgrades == MANY as u64,
        "not all are accelerated"
    );
    let before = GUESTS.map(|guest| bench.counter(guest, "connections_reset"));
    for pair in &pairs {
        let [there, back] = pair.ring_bytes()?;
        ensure!(
            there >= BYTES_OF_EACH && back >= BYTES_OF_EACH,
            "{there} and {back} bytes through a ring"
        );
        pair.finish()?;
    }
    for (guest, before) in GUESTS.into_iter().zip(before) {
        ensure!(
            bench.counter(guest, "connections_reset")? == before?,
            "connections were reset"
        );
    }
    Ok(())
}
