// SPDX-License-Identifier: GPL-2.0

//! Whatever can happen to guests and modules, at random, beside connections that are busy both ways: for an hour, or SOAK_MINUTES
//! (`make soak`). The same SOAK_SEED makes the same happen.

use std::{
    collections::BTreeMap,
    process, thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use lab_driver::{GuestType, Machine};

use crate::{
    bench::{Bench, GUEST2, GUESTS, environment_number, other, soak_minutes},
    cases::leaks,
    dice::Dice,
    pair::Load,
    travel,
};

/// Connections at once, at most.
const CONNECTIONS: u64 = 5;

/// Scenarios at most, until all connections are checked to their end, and whatever was held is looked for.
const SCENARIOS: u64 = 4;

/// How the ends of the connections wait that do not block. O_NONBLOCK is the socket's: both directions have it, or neither.
const WAITING: [&str; 3] = ["poll", "select", "edge"];

/// Bytes that each connection moves each way after each scenario.
const BYTES: u64 = 200_000;

/// The longest that a guest stands still.
const PAUSE_MS: u64 = 12_000;

/// Something that happens to a guest, or to its module.
struct Scenario {
    name: &'static str,
    happen: fn(&Bench, Machine, &mut Dice) -> Result<()>,
    /// Paravirtual guests have it.
    is_for_pv: bool,
}

const SCENARIOS_ALL: [Scenario; 8] = [
    Scenario {
        name: "is copied",
        happen: |bench, guest, _| travel::checkpoint(bench.lab(), guest),
        is_for_pv: true,
    },
    Scenario {
        name: "is saved and restored",
        happen: |bench, guest, _| travel::save_and_restore(bench.lab(), guest),
        is_for_pv: true,
    },
    Scenario {
        name: "migrates",
        happen: |bench, guest, _| travel::migrate(bench.lab(), guest),
        is_for_pv: false,
    },
    Scenario {
        name: "is saved, and so is the other one before it is back",
        happen: |bench, guest, _| travel::save_and_restore_all(bench.lab(), &[guest, other(guest)]),
        is_for_pv: true,
    },
    Scenario {
        name: "loses its module for a while",
        happen: |bench, guest, dice| {
            bench.unload(guest)?;
            thread::sleep(Duration::from_millis(dice.roll(2_000)));
            bench.load(guest, "")
        },
        is_for_pv: true,
    },
    Scenario {
        name: "loses its module and gets it again at once",
        happen: |bench, guest, _| {
            bench.unload(guest)?;
            bench.load(guest, "")
        },
        is_for_pv: true,
    },
    Scenario {
        name: "does nothing, and the backend goes and comes",
        happen: |bench, _, dice| {
            bench.unload_backend()?;
            thread::sleep(Duration::from_millis(dice.roll(2_000)));
            bench.load_backend()
        },
        is_for_pv: true,
    },
    Scenario {
        name: "stands still",
        happen: |bench, guest, dice| {
            let pause = Duration::from_millis(dice.roll(PAUSE_MS));
            travel::while_paused(bench.lab(), guest, || {
                thread::sleep(pause);
                Ok(())
            })
        },
        is_for_pv: true,
    },
];

/// Part of the generations that end with the death of a guest.
const DEATHS: u64 = 4;

pub(super) fn at_random(bench: &Bench) -> Result<()> {
    let minutes = soak_minutes()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let seed = environment_number("SOAK_SEED")?
        .unwrap_or_else(|| now.as_secs() ^ u64::from(process::id()));
    println!("    SOAK_SEED={seed} SOAK_MINUTES={minutes}");
    let mut dice = Dice::new(seed);
    let start = Instant::now();
    let (mut before, mut happened) = (BTreeMap::new(), 0);
    for generation in 1.. {
        happened += generation_of(bench, &mut dice, start, &mut before)
            .with_context(|| format!("SOAK_SEED={seed}, generation {generation}"))?;
        bench.collect_logs();
        if start.elapsed() >= Duration::from_secs(60 * minutes) {
            println!("    {happened} scenarios in {generation} generations");
            break;
        }
        bench.load_all()?;
    }
    Ok(())
}

/// Which domains the guests are, and how often that has changed: each time that one was restored.
struct Domids(BTreeMap<Machine, (u32, u64)>);

impl Domids {
    /// As they are now.
    fn new(bench: &Bench) -> Result<Self> {
        let now = GUESTS.map(|guest| Ok((guest, (bench.domid(guest)?, 0))));
        Ok(Self(now.into_iter().collect::<Result<_>>()?))
    }

    /// Looks again.
    fn look(&mut self, bench: &Bench) -> Result<()> {
        for (guest, (domid, restored)) in &mut self.0 {
            let now = bench.domid(*guest)?;
            *restored += u64::from(std::mem::replace(domid, now) != now);
        }
        Ok(())
    }

    /// How often a guest was restored.
    fn restored(&self, guest: Machine) -> u64 {
        self.0.get(&guest).map_or(0, |(_, restored)| *restored)
    }
}

/// Connections and scenarios, and nothing is left of them; returns how many scenarios. `before` is the memory of guests that have been through
/// that: it fills caches.
fn generation_of(
    bench: &Bench,
    dice: &mut Dice,
    start: Instant,
    before: &mut BTreeMap<Machine, leaks::Memory>,
) -> Result<u64> {
    let mut domids = Domids::new(bench)?;
    let (happened, dead) = live(bench, dice, start, &mut domids)?;
    // The programs have memory of their own.
    bench.after()?;
    match dead {
        Some(guest) => drop(before.remove(&guest)),
        None => leaks::no_references(bench, &GUESTS)?,
    }
    leaks::nothing_is_left_now(bench)?;
    for guest in GUESTS.into_iter().filter(|guest| Some(*guest) != dead) {
        match before.get_mut(&guest) {
            Some(before) => {
                before.was_restored(domids.restored(guest));
                before.wait_back(bench, guest)?;
            }
            None => drop(before.insert(guest, leaks::Memory::of(bench, guest)?)),
        }
    }
    Ok(happened)
}

/// Connections from their beginning to their end, and some scenarios meanwhile; returns how many, and who died.
fn live(
    bench: &Bench,
    dice: &mut Dice,
    start: Instant,
    domids: &mut Domids,
) -> Result<(u64, Option<Machine>)> {
    let mut pairs = Vec::new();
    for _ in 0..=dice.roll(CONNECTIONS) {
        pairs.push(bench.pair()?);
    }
    let mut loads = Vec::new();
    for pair in &pairs {
        let [send, receive] = match dice.roll(4) {
            0 => ["block"; 2],
            _ => [*dice.pick(&WAITING), *dice.pick(&WAITING)],
        };
        let [send, receive] = [format!("mode={send}"), format!("mode={receive}")];
        loads.push(Load::start_as(pair, BYTES, &send, &receive)?);
    }
    let resets = bench.resets()?;
    let count = 1 + dice.roll(SCENARIOS);
    let mut happened = 0;
    let is_pv = bench.lab().options().kind == GuestType::Pv;
    for _ in 0..count {
        let guest = *dice.pick(&GUESTS);
        let scenario = dice.pick(&SCENARIOS_ALL);
        if is_pv && !scenario.is_for_pv {
            continue;
        }
        let seconds = start.elapsed().as_secs();
        println!(
            "    {seconds} s, {} connections: {guest} {}",
            pairs.len(),
            scenario.name
        );
        (scenario.happen)(bench, guest, dice)
            .with_context(|| format!("{guest} {}", scenario.name))?;
        domids.look(bench)?;
        happened += 1;
        // Sometimes the next one comes at once.
        if dice.roll(3) > 0 {
            loads.iter().try_for_each(|load| load.wait_for(BYTES))?;
        }
    }
    bench.wait_peers()?;
    bench.wait_on_ring(&pairs)?;
    if dice.roll(DEATHS) == 0 {
        let guest = *dice.pick(&GUESTS);
        println!("    {} s: {guest} is destroyed", start.elapsed().as_secs());
        die(bench, guest, loads)?;
        for pair in &pairs {
            pair.end(guest == GUEST2).close()?;
        }
        return Ok((happened + 1, Some(guest)));
    }
    Load::end_all(loads, &pairs)?;
    // A module that was loaded anew counts from 0.
    ensure!(bench.resets()? <= resets, "connections were reset");
    Ok((happened, None))
}

/// A guest is destroyed, and made again; the connections end at the other one.
fn die(bench: &Bench, guest: Machine, loads: Vec<Load<'_>>) -> Result<()> {
    let dead = bench.domid(guest)?;
    bench.anew(guest, || {
        bench.shell(Machine::Dom0, &format!("xl destroy {guest}"))?;
        loads
            .into_iter()
            .try_for_each(|load| load.lost(guest == GUEST2))?;
        travel::create(bench.lab(), guest)
    })?;
    leaks::nothing_is_left_of(bench, dead)
}
