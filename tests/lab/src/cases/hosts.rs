// SPDX-License-Identifier: GPL-2.0

//! Guests that migrate to another host and back: together, apart, together there, apart, together again.

use anyhow::{Context, Result, ensure};
use lab_driver::{Lab, Machine};

use crate::{
    bench::{Bench, GUEST1, GUEST2},
    cases::leaks,
    logs::Logs,
    pair::{Load, Pair},
    travel::{self, Stopwatch},
};

/// Bytes that flow through the ring.
const BYTES: u64 = 1 << 20;

/// Bytes that flow between the hosts.
const BYTES_ON_TCP: u64 = 50_000;

/// How the ends of the connections wait.
const MODES: [&str; 3] = ["block", "poll", "edge"];

/// Connections under load go on over the network while the guests are apart, and come to the ring wherever they meet. The second
/// host has no backend at first; on both, guests get the numbers again that they had before.
pub(super) fn apart_and_together(bench: &Bench) -> Result<()> {
    let second = bench.another_host()?;
    // What it said while it booted is not the test's business.
    Logs::default().collect(&second, second.machines());
    let result = travels(bench, &second);
    let mut logs = Logs::default();
    logs.collect(&second, second.machines());
    let result = logs.check(result).context("with the second host");
    // The guests may be anywhere.
    if result.is_err() {
        bench.set_spent();
    }
    let is_empty = second.domains().map(|domains| domains.len() == 1);
    second.down()?;
    result?;
    ensure!(is_empty?, "the second host has not let go of a guest");
    leaks::nothing_is_left_now(bench)
}

fn travels(bench: &Bench, second: &Lab) -> Result<()> {
    let first = bench.lab();
    let pairs: Vec<Pair> = MODES.iter().map(|_| bench.pair()).collect::<Result<_>>()?;
    let mut loads = Vec::new();
    for (pair, mode) in pairs.iter().zip(MODES) {
        let mode = format!("mode={mode}");
        loads.push(Load::start_as(pair, BYTES, &mode, &mode)?);
    }
    let resets = bench.resets()?;

    travel::migrate_to(first, GUEST1, first, second)?;
    apart(bench, &loads, GUEST2)?;
    second.exec(Machine::Dom0, &["insmod", "/lib/xenvmc/xenvmc_backend.ko"])?;
    apart(bench, &loads, GUEST1)?;
    together(bench, &pairs, &loads, GUEST2, || {
        travel::migrate_to(first, GUEST2, first, second)
    })?;
    travel::migrate_to(first, GUEST1, second, first)?;
    apart(bench, &loads, GUEST2)?;
    together(bench, &pairs, &loads, GUEST2, || {
        travel::migrate_to(first, GUEST2, second, first)
    })?;

    Load::end_all(loads, &pairs)?;
    ensure!(resets == bench.resets()?, "connections were reset");
    Ok(())
}

/// Connections go on while `guest` sees nobody.
fn apart(bench: &Bench, loads: &[Load<'_>], guest: Machine) -> Result<()> {
    bench.wait("they do not see each other", || {
        Ok(bench.report(guest, "peers")?.is_empty())
    })?;
    loads
        .iter()
        .try_for_each(|load| load.wait_for(BYTES_ON_TCP))
}

/// After `guest` has come, all connections are on the ring.
fn together(
    bench: &Bench,
    pairs: &[Pair],
    loads: &[Load<'_>],
    guest: Machine,
    come: impl Fn() -> Result<()>,
) -> Result<()> {
    let before = bench.counter(guest, "resumes")?;
    let watch = Stopwatch::start(bench.lab(), guest, "resumes", before, pairs.len())?;
    come()?;
    bench.wait_peers()?;
    bench.wait_on_ring(pairs)?;
    println!("    {guest}: {}", watch.stop()?);
    loads.iter().try_for_each(|load| load.wait_for(BYTES))
}
