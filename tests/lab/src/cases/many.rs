// SPDX-License-Identifier: GPL-2.0

//! Eight guests: all pairs of them busy, and guests that come and go beside others.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS, soak_minutes},
    cases::leaks,
    pair::{Load, Pair},
    peer::Peer,
    travel,
};

/// How many guests the lab has.
pub(crate) const COUNT: u8 = 8;

/// Bytes that each connection moves each way at a time.
const BYTES: u64 = 100_000;

/// Memory that a machine may have less at the end, in KiB: caches that grow with use.
const SLACK_KIB: u64 = 16 << 10;

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

    let dead = bench.domid(last)?;
    bench.destroy(last)?;
    lost.into_iter().try_for_each(|load| load.lost(true))?;
    all_go_on(&loads)?;
    bench.wait_on_ring(&pairs)?;
    Load::end_all(loads, &pairs)?;
    of_last.iter().try_for_each(|pair| pair.a.close())?;

    let others: Vec<Machine> = guests().filter(|guest| *guest != last).collect();
    bench.wait_no_connections_of(&others)?;
    leaks::no_references(bench, &others)?;
    leaks::nothing_is_left_of(bench, dead)?;
    others.iter().try_for_each(|guest| bench.unload(*guest))?;
    leaks::nothing_is_held(bench, &others)
}

/// Guests are destroyed and made again, each with a connection, beside one of others that never stops: for SOAK_MINUTES.
pub(super) fn come_and_go(bench: &Bench) -> Result<()> {
    bench.set_spent();
    let minutes = soak_minutes()?;
    let pair = bench.pair()?;
    let load = Load::start(&pair, BYTES)?;
    let machines = [Machine::Dom0, GUEST1, GUEST2];
    let available = || {
        let memory = |machine| bench.available_memory(machine);
        machines.into_iter().map(memory).collect::<Result<Vec<_>>>()
    };
    let (start, mut rounds, mut before) = (Instant::now(), 0, Vec::new());
    while start.elapsed() < Duration::from_secs(60 * minutes) || rounds < 2 {
        for guest in [Machine::Guest(3), Machine::Guest(4)] {
            if rounds == 0 {
                bench.equip(guest)?;
            }
            bench.load(guest, "")?;
            bench.wait_peer(guest, &GUEST1.address().to_string())?;
            bench.wait_peer(GUEST1, &guest.address().to_string())?;
            let (from, to) = (bench.peer(guest)?, bench.peer(GUEST1)?);
            let its = bench
                .pairs_between(&from, &to, GUEST1.address().into(), 1)?
                .remove(0);
            its.accelerate()?;
            its.exchange(BYTES)?;
            let dead = bench.domid(guest)?;
            let receiving = its.b.start("recv")?;
            receiving.wait_asleep()?;
            bench.anew(guest, || {
                bench.shell(Machine::Dom0, &format!("xl destroy {guest}"))?;
                // Before another one comes.
                receiving.wait()?.failed(0, "ECONNRESET")?;
                its.b.close()?;
                travel::create(bench.lab(), guest)
            })?;
            leaks::nothing_is_left_of(bench, dead)?;
            bench.wait(
                "the survivor has the other connection and peer only",
                || {
                    let lines =
                        |file| Ok::<_, anyhow::Error>(bench.report(GUEST1, file)?.lines().count());
                    Ok(lines("connections")? == 1
                        && !bench.sees(GUEST1, &guest.address().to_string())?)
                },
            )?;
            load.wait_for(BYTES)?;
        }
        rounds += 1;
        // The first round fills caches.
        let now = available()?;
        println!(
            "    {} s, round {rounds}: KiB available in Dom0 and the first guests {now:?}",
            start.elapsed().as_secs()
        );
        if before.is_empty() {
            before.clone_from(&now);
        }
        let has_less = |(now, before): (&u64, &u64)| now + SLACK_KIB < *before;
        ensure!(
            !now.iter().zip(&before).any(has_less),
            "after the first round it was {before:?}"
        );
        bench.collect_logs();
    }
    bench.wait_on_ring(std::slice::from_ref(&pair))?;
    load.stop()?;
    pair.a.close()?;
    pair.b.close()?;
    bench.wait_no_connections()?;
    leaks::no_references(bench, &GUESTS)?;
    GUESTS.iter().try_for_each(|guest| bench.unload(*guest))?;
    leaks::nothing_is_held(bench, &GUESTS)
}
