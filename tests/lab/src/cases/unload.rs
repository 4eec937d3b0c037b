// SPDX-License-Identifier: GPL-2.0

//! A frontend that is removed gives its connections back to TCP; they live on.

use anyhow::{Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUEST2},
    pair::{Load, Pair},
};

/// Bytes that flow through the ring, before.
const BYTES: u64 = 2 << 20;

/// Bytes that flow over TCP, in between and after: an emulated network takes minutes for more.
const BYTES_ON_TCP: u64 = BYTES / 16;

/// Connections under load at once.
const CONNECTIONS: usize = 3;

/// Removes frontends while bytes flow both ways, and then loads them again.
fn under_load(bench: &Bench, guests: &[Machine]) -> Result<()> {
    let pairs: Vec<Pair> = (0..CONNECTIONS)
        .map(|_| bench.pair())
        .collect::<Result<_>>()?;
    let mut loads = Vec::new();
    for pair in &pairs {
        let before = pair.ring_bytes()?;
        loads.push(Load::start(pair, BYTES)?);
        let after = pair.ring_bytes()?;
        ensure!(
            (0..2).all(|i| after[i] - before[i] >= BYTES),
            "the load is not on the ring: {before:?} {after:?}"
        );
    }
    for guest in guests {
        bench.unload(*guest)?;
        loads
            .iter()
            .try_for_each(|load| load.wait_for(BYTES_ON_TCP))?;
    }
    for guest in guests {
        bench.load(*guest, "")?;
    }
    loads
        .iter()
        .try_for_each(|load| load.wait_for(BYTES_ON_TCP))?;
    loads.into_iter().try_for_each(Load::stop)
}

pub(super) fn under_load_connecting_side(bench: &Bench) -> Result<()> {
    under_load(bench, &[GUEST1])
}

pub(super) fn under_load_accepting_side(bench: &Bench) -> Result<()> {
    under_load(bench, &[GUEST2])
}

pub(super) fn under_load_both_sides(bench: &Bench) -> Result<()> {
    under_load(bench, &[GUEST1, GUEST2])
}

/// Receivers that sleep, in the call or in poll, sleep on, and are woken by what comes later.
pub(super) fn blocked_receivers(bench: &Bench) -> Result<()> {
    for guest in [GUEST1, GUEST2] {
        let pairs = [bench.pair()?, bench.pair()?, bench.pair()?];
        let mut waiting = Vec::new();
        for (pair, mode) in pairs.iter().zip(["block", "poll", "edge"]) {
            for end in [&pair.a, &pair.b] {
                let pending = end.start(&format!("recv bytes=1000 mode={mode}"))?;
                pending.wait_asleep()?;
                waiting.push(pending);
            }
        }
        bench.unload(guest)?;
        ensure!(
            waiting.iter().all(|pending| pending.is_running()),
            "a receiver was woken by the removal"
        );
        for pair in &pairs {
            pair.a.send(1000)?;
            pair.b.send(1000)?;
        }
        waiting
            .into_iter()
            .try_for_each(|pending| pending.wait()?.exactly(1000).map(drop))?;
        pairs.iter().try_for_each(Pair::finish)?;
        bench.load(guest, "")?;
        bench.wait_peers()?;
    }
    Ok(())
}

/// Bytes that nobody has read yet come first, whoever's frontend is removed.
pub(super) fn unread_bytes(bench: &Bench) -> Result<()> {
    for guest in [GUEST1, GUEST2] {
        let pair = bench.pair()?;
        let sent = pair.fill_rings()?;
        bench.unload(guest)?;
        pair.a.send(5000)?;
        pair.b.send(5000)?;
        pair.b.receive(sent[0] + 5000)?;
        pair.a.receive(sent[1] + 5000)?;
        pair.finish()?;
        bench.load(guest, "")?;
        bench.wait_peers()?;
    }
    Ok(())
}
