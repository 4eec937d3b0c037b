// SPDX-License-Identifier: GPL-2.0

//! Whatever fails in a guest, its connections go on, and nothing is left.
//!
//! The frontend for this is another one, of the same source, in which operations fail when they are told to
//! (rust/helpers/faults.c); `make test-faults` makes it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS, environment_number, other},
    cases::leaks,
    pair::Load,
    travel,
};

/// Where the frontend is made, and where it is in the guests.
const BUILT: &str = "build/modules-faults/xenvmc_frontend.ko";
const MODULE: &str = "/lib/xenvmc/xenvmc_faults.ko";

/// Its parameters in sysfs.
const PARAMETERS: &str = "/sys/module/xenvmc_frontend/parameters";

/// What can fail, by its number in `fault_kinds`.
const KINDS: [(&str, u32); 6] = [
    ("allocation", 1),
    ("grant", 2),
    ("mapping", 4),
    ("event channel", 8),
    ("Xenstore", 16),
    ("registration", 32),
];

/// Of more operations than this of one kind in one guest some are left out, unless FAULT_STEPS says how many there may be.
const STEPS: u64 = 16;

/// Bytes that go each way.
const BYTES: u64 = 40_000;

/// Exchanges of few bytes before, in which a connection may get to the ring.
const EXCHANGES: usize = 8;

/// Each so many-th operation fails in the long run.
const EVERY: u32 = 7;

/// Bytes of a message that is left unread in a ring.
const UNREAD: u64 = 6_000;

/// Each so many-th operation fails while the other guest is suspended and comes back.
const EVERY_OTHER: u64 = 3;

/// What fails in a guest that is suspended and comes back: the kinds, and which of the operations. There are hundreds of allocations and
/// grants, and few others.
const AROUND_SUSPENDS: [(u32, &str, u64); 3] = [
    (1, "fault_nth", 300),
    (2, "fault_nth", 100),
    (4 + 8 + 16, "fault_every", EVERY_OTHER),
];

/// The guests with the frontend that fails.
struct Faulty<'a> {
    bench: &'a Bench,
    guest: Machine,
}

impl<'a> Faulty<'a> {
    fn new(bench: &'a Bench, guest: Machine) -> Result<Self> {
        ensure!(Path::new(BUILT).exists(), "{BUILT}: run make test-faults");
        bench.set_dirty();
        bench.lab().push(Path::new(BUILT), guest, MODULE)?;
        bench.unload(guest)?;
        Ok(Self { bench, guest })
    }

    /// Loads it; false = it refused to be.
    fn load(&self, parameters: &str) -> Result<bool> {
        let line = format!("insmod {MODULE} {parameters}");
        Ok(self.bench.try_shell(self.guest, &line)?.success().is_ok())
    }

    /// Sets a parameter.
    fn set(&self, name: &str, value: u64) -> Result<()> {
        let line = format!("echo {value} >{PARAMETERS}/{name}");
        self.bench.shell(self.guest, &line).map(drop)
    }

    /// How many operations of the chosen kinds there were.
    fn operations(&self) -> Result<u64> {
        let line = format!("cat {PARAMETERS}/fault_nth");
        Ok(self.bench.shell(self.guest, &line)?.parse()?)
    }

    /// How often something has failed since the test began.
    fn failures(&self) -> usize {
        let log = self.bench.kernel_log(self.guest);
        log.matches("xenvmc_frontend: fault ").count()
    }

    /// What is done while something fails: peers meet, a connection moves bytes, on the ring or not.
    fn live(&self) -> Result<()> {
        self.bench.wait_peers()?;
        let pair = self.bench.plain_pair()?;
        for _ in 0..EXCHANGES {
            pair.exchange(100)?;
        }
        pair.any_way(BYTES, "", "")?;
        pair.finish()
    }
}

/// At most so many of the numbers from 1 to `total`: all if they are few, else the first and some of the others.
fn some_of(total: u64, steps: u64) -> Vec<u64> {
    let first = total.min(steps / 2);
    let rest = total - first;
    let step = rest.div_ceil((steps / 2).max(1)).max(1);
    (1..=first)
        .chain((first + 1..=total).step_by(step as usize))
        .collect()
}

/// Each operation of each kind fails once, from insmod to rmmod, in the guest that offers channels.
pub(super) fn offering_guest(bench: &Bench) -> Result<()> {
    one_after_the_other(bench, GUEST1)
}

/// The same in the one that answers.
pub(super) fn answering_guest(bench: &Bench) -> Result<()> {
    one_after_the_other(bench, GUEST2)
}

fn one_after_the_other(bench: &Bench, guest: Machine) -> Result<()> {
    let faulty = Faulty::new(bench, guest)?;
    let at_most = environment_number("FAULT_STEPS")?.unwrap_or(STEPS);
    for (what, kind) in KINDS {
        ensure!(faulty.load(&format!("fault_kinds={kind}"))?, "not loaded");
        faulty.live()?;
        let total = faulty.operations()?;
        bench.unload(guest)?;
        let (steps, mut refused, mut failed) = (some_of(total, at_most), 0, 0);
        for nth in &steps {
            let before = faulty.failures();
            if faulty.load(&format!("fault_kinds={kind} fault_nth={nth}"))? {
                let lived = faulty.live();
                lived.with_context(|| format!("{what} {nth} fails"))?;
                bench.unload(guest)?;
            } else {
                refused += 1;
            }
            failed += faulty.failures() - before;
        }
        println!(
            "    {what}: {failed} of {total} operations have failed, {refused} of them at insmod"
        );
        ensure!(
            failed * 2 > steps.len(),
            "{failed} failures in {} attempts",
            steps.len()
        );
    }
    leaks::nothing_is_left_now(bench)
}

/// Each operation of rmmod fails once, while the rings have unread bytes.
pub(super) fn at_unload(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        let faulty = Faulty::new(bench, guest)?;
        for nth in 1.. {
            ensure!(faulty.load("")?, "not loaded");
            bench.wait_peers()?;
            let pair = bench.pair()?;
            let sent = [pair.a.fill(UNREAD)?, pair.b.fill(UNREAD)?];
            let before = faulty.failures();
            faulty.set("fault_nth", nth)?;
            bench.unload(guest)?;
            pair.b.receive(sent[0])?;
            pair.a.receive(sent[1])?;
            pair.any_way(BYTES, "", "")?;
            pair.finish()?;
            if faulty.failures() == before {
                println!("    {guest}: {} operations have failed", nth - 1);
                ensure!(nth > 1, "nothing can fail");
                break;
            }
        }
        bench.load(guest, "")?;
    }
    leaks::nothing_is_left_now(bench)
}

/// Much fails all the time; when that is over, connections get to the ring.
pub(super) fn all_the_time(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        let faulty = Faulty::new(bench, guest)?;
        for (_, kind) in KINDS {
            ensure!(faulty.load(&format!("fault_kinds={kind}"))?, "not loaded");
            bench.wait_peers()?;
            let old = bench.pair()?;
            faulty.set("fault_every", EVERY.into())?;
            let new = bench.plain_pair()?;
            for _ in 0..EXCHANGES {
                new.exchange(100)?;
            }
            for pair in [&old, &new] {
                pair.any_way(BYTES, "", "")?;
            }
            faulty.set("fault_every", 0)?;
            let last = bench.pair()?;
            for pair in [&old, &new, &last] {
                pair.any_way(BYTES, "", "")?;
                pair.finish()?;
            }
            bench.unload(guest)?;
        }
        bench.load(guest, "")?;
    }
    leaks::nothing_is_left_now(bench)
}

/// Operations fail around a suspend of the guest: one of those of which there are many, and each third one of the others; and each third
/// one of all kinds while the other guest is suspended. Bytes go on all the time; new connections are on the ring.
pub(super) fn suspended(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        let faulty = Faulty::new(bench, guest)?;
        for (kinds, name, number) in AROUND_SUSPENDS {
            ensure!(faulty.load(&format!("fault_kinds={kinds}"))?, "not loaded");
            bench.wait_peers()?;
            let pair = bench.pair()?;
            let load = Load::start(&pair, BYTES)?;
            let resets = bench.resets()?;
            let suspend = |name: &str, number, who| {
                let before = faulty.failures();
                faulty.set(name, number)?;
                travel::checkpoint(bench.lab(), who)?;
                load.wait_for(BYTES)?;
                faulty.set(name, 0)?;
                let failures = faulty.failures() - before;
                ensure!(failures > 0, "{name}={number}: nothing has failed");
                println!(
                    "    {guest}: {name}={number} of kinds {kinds}: {failures} while {who} was suspended"
                );
                Ok(())
            };
            let context = || format!("{guest}: operations of kinds {kinds} fail");
            suspend(name, number, guest).with_context(context)?;
            suspend("fault_every", EVERY_OTHER, other(guest)).with_context(context)?;
            let last = bench.pair()?;
            last.both_ways(BYTES, "", "")?;
            last.finish()?;
            Load::end_all(vec![load], std::slice::from_ref(&pair))?;
            ensure!(resets == bench.resets()?, "connections were reset");
            bench.unload(guest)?;
        }
        bench.load(guest, "")?;
    }
    leaks::nothing_is_left_now(bench)
}
