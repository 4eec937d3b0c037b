// SPDX-License-Identifier: GPL-2.0

//! Eight guests: all pairs of them busy, and guests that come and go beside others.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUESTS, soak_minutes},
    cases::leaks,
    pair::{Load, Pair},
    peer::Peer,
    travel,
};

/// How many guests the lab has.
pub(crate) const COUNT: u8 = 8;

/// Bytes that each connection moves each way at a time.
const BYTES: u64 = 100_000;

/// Memory that Dom0 may have less at the end, in KiB: caches that grow with use.
const DOM0_SLACK_KIB: u64 = 16 << 10;

fn guests() -> impl Iterator<Item = Machine> {
    (1..=COUNT).map(Machine::Guest)
}

/// Loads the frontends of the others than the first two, which have theirs, and waits until all see all.
fn load_all(bench: &Bench) -> Result<()> {
    for guest in guests().filter(|guest| !GUESTS.contains(guest)) {
        bench.equip(guest)?;
        bench.load(guest, "")?;
    }
    for guest in guests() {
        for other in guests().filter(|other| *other != guest) {
            bench.wait_peer(guest, &other.address().to_string())?;
        }
    }
    Ok(())
}

/// Begins to send through all of them, both ways.
fn start(pairs: &[Pair]) -> Result<Vec<Load<'_>>> {
    pairs.iter().map(|pair| Load::start(pair, BYTES)).collect()
}

/// A connection of each two of the guests. One guest is saved and restored meanwhile, another one destroyed.
pub(super) fn all_pairs(bench: &Bench) -> Result<()> {
    // Whatever comes of it: the others are not as later tests want them.
    bench.set_spent();
    load_all(bench)?;
    let peers: Vec<Arc<Peer>> = guests()
        .map(|guest| bench.peer(guest))
        .collect::<Result<_>>()?;
    let (last, saved) = (Machine::Guest(COUNT), Machine::Guest(COUNT - 1));
    let (mut pairs, mut of_last): (Vec<Pair>, Vec<Pair>) = (Vec::new(), Vec::new());
    for (i, from) in peers.iter().enumerate() {
        for (to, guest) in peers.iter().zip(guests()).skip(i + 1) {
            let pair = bench
                .pairs_between(from, to, guest.address().into(), 1)?
                .remove(0);
            pair.accelerate()
                .with_context(|| format!("guest{} and {guest}", i + 1))?;
            match guest == last {
                true => of_last.push(pair),
                false => pairs.push(pair),
            }
        }
    }
    let (loads, lost) = (start(&pairs)?, start(&of_last)?);
    let all_go_on = |loads: &[Load<'_>]| loads.iter().try_for_each(|load| load.wait_for(BYTES));

    travel::save_and_restore(bench.lab(), saved)?;
    all_go_on(&lost)?;
    all_go_on(&loads)?;
    bench.wait_on_ring(&pairs)?;
    bench.wait_on_ring(&of_last)?;

    bench.destroy(last)?;
    lost.into_iter().try_for_each(|load| load.lost(true))?;
    all_go_on(&loads)?;
    bench.wait_on_ring(&pairs)?;
    Load::end_all(loads, &pairs)?;
    of_last.iter().try_for_each(|pair| pair.a.close())?;

    let others: Vec<Machine> = guests().filter(|guest| *guest != last).collect();
    others.iter().try_for_each(|guest| bench.unload(*guest))?;
    leaks::nothing_is_held(bench, &others)
}

/// Guests are destroyed and made again, each with a connection, beside one of others that never stops: for SOAK_MINUTES.
pub(super) fn come_and_go(bench: &Bench) -> Result<()> {
    bench.set_spent();
    let minutes = soak_minutes()?;
    let pair = bench.pair()?;
    let load = Load::start(&pair, BYTES)?;
    let (start, mut rounds, mut before) = (Instant::now(), 0, None);
    while start.elapsed() < Duration::from_secs(60 * minutes) || rounds < 2 {
        for guest in [Machine::Guest(3), Machine::Guest(4)] {
            bench.equip(guest)?;
            bench.load(guest, "")?;
            bench.wait_peer(guest, &GUEST1.address().to_string())?;
            bench.wait_peer(GUEST1, &guest.address().to_string())?;
            let (from, to) = (bench.peer(guest)?, bench.peer(GUEST1)?);
            let its = bench
                .pairs_between(&from, &to, GUEST1.address().into(), 1)?
                .remove(0);
            its.accelerate()?;
            its.exchange(BYTES)?;
            bench.anew(guest, || {
                let line = format!("xl destroy {guest}; xl create -q /lab/{guest}.cfg");
                bench.shell(Machine::Dom0, &line).map(drop)
            })?;
            let error = its.b.receive_all()?.error().to_owned();
            ensure!(
                error == "ECONNRESET",
                "{guest} has gone, and {error:?} came"
            );
            its.b.close()?;
            load.wait_for(BYTES)?;
        }
        rounds += 1;
        // The first round fills caches.
        let now = bench.available_memory(Machine::Dom0)?;
        let before = *before.get_or_insert(now);
        ensure!(
            now + DOM0_SLACK_KIB >= before,
            "Dom0 had {before} KiB after the first round, and has {now} KiB after {rounds}"
        );
    }
    println!("    {rounds} rounds");
    bench.wait_on_ring(std::slice::from_ref(&pair))?;
    load.stop()?;
    pair.a.close()?;
    pair.b.close()?;
    GUESTS.iter().try_for_each(|guest| bench.unload(*guest))?;
    leaks::nothing_is_held(bench, &GUESTS)
}
