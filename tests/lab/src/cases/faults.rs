// SPDX-License-Identifier: GPL-2.0

//! Whatever fails in a guest, its connections go on, and nothing is left; whatever fails in Dom0, the guests find each other.
//!
//! The modules for this are others, of the same source, in which operations fail when they are told to (rust/helpers/faults.c);
//! `make test-faults` makes them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS, REPORTS, environment_number, other},
    cases::leaks,
    pair::{Load, Pair},
    travel,
};

/// Where the modules are made, and where one is in a machine.
const BUILT: &str = "build/modules-faults";
const MODULE: &str = "/lib/xenvmc/xenvmc_faults.ko";

/// What can fail in a guest, by its number in `fault_kinds`.
const KINDS: [(&str, u32); 6] = [
    ("allocation", 1),
    ("grant", 2),
    ("mapping", 4),
    ("event channel", 8),
    ("Xenstore", 16),
    ("registration", 32),
];

/// What can fail in Dom0.
const BACKEND_KINDS: [(&str, u32); 4] = [
    ("allocation", 1),
    ("Xenstore", 16),
    ("registration", 32),
    ("debugfs", 64),
];

/// Values that the backend publishes to two guests with a channel: that it is there, the other one, and what that has offered.
const PUBLISHED: usize = 6;

/// The same for three guests without channels.
const PUBLISHED_TO_THREE: usize = 9;

/// A guest that there is not, and what it announces.
const GONE: u16 = 9999;
const ANNOUNCEMENT: &str = "version=1 features=0x0 instance=0123456789abcdef addresses=10.77.0.99";

/// An address that a guest gets.
const ADDRESS: &str = "10.77.0.112";

/// Of more operations than this of one kind in one machine some are left out, unless FAULT_STEPS says how many there may be.
const STEPS: u64 = 16;

/// Bytes that go each way.
const BYTES: u64 = 40_000;

/// Exchanges of few bytes before, in which a connection may get to the ring.
const EXCHANGES: usize = 8;

/// Each so many-th operation fails in the long run.
const EVERY: u32 = 7;

/// Times that a guest comes and goes meanwhile.
const COMINGS: usize = 3;

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

/// A machine with the module that fails.
struct Faulty<'a> {
    bench: &'a Bench,
    machine: Machine,
    module: &'static str,
}

impl<'a> Faulty<'a> {
    fn new(bench: &'a Bench, machine: Machine) -> Result<Self> {
        let module = match machine {
            Machine::Dom0 => "xenvmc_backend",
            _ => "xenvmc_frontend",
        };
        let built = format!("{BUILT}/{module}.ko");
        let built = Path::new(&built);
        ensure!(built.exists(), "{built:?}: run make test-faults");
        bench.set_dirty();
        bench.lab().push(built, machine, MODULE)?;
        let this = Self {
            bench,
            machine,
            module,
        };
        this.unload()?;
        Ok(this)
    }

    /// Loads it; false = it refused to be.
    fn load(&self, parameters: &str) -> Result<bool> {
        let line = format!("insmod {MODULE} {parameters}");
        let output = self.bench.try_shell(self.machine, &line)?;
        ensure!(!output.timed_out, "{}: insmod hangs", self.machine);
        Ok(output.success().is_ok())
    }

    /// Removes it, if it is there.
    fn unload(&self) -> Result<()> {
        self.bench.unload_module(self.machine, self.module)
    }

    /// Sets a parameter.
    fn set(&self, name: &str, value: u64) -> Result<()> {
        let line = format!("echo {value} >{}", self.parameter(name));
        self.bench.shell(self.machine, &line).map(drop)
    }

    /// How many operations of the chosen kinds there were.
    fn operations(&self) -> Result<u64> {
        let line = format!("cat {}", self.parameter("fault_nth"));
        Ok(self.bench.shell(self.machine, &line)?.parse()?)
    }

    /// Where a parameter is in sysfs.
    fn parameter(&self, name: &str) -> String {
        format!("/sys/module/{}/parameters/{name}", self.module)
    }

    /// How often something has failed since the test began.
    fn failures(&self) -> usize {
        let log = self.bench.kernel_log(self.machine);
        log.matches(&format!("{}: fault ", self.module)).count()
    }

    /// Loads the module, does something, and removes it, again and again: each time another operation of these kinds fails. If the
    /// module refuses to be loaded, nothing is done.
    fn one_after_the_other(
        &self,
        kinds: &[(&str, u32)],
        live: impl Fn() -> Result<()>,
        after: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let at_most = environment_number("FAULT_STEPS")?.unwrap_or(STEPS);
        for (what, kind) in kinds {
            ensure!(self.load(&format!("fault_kinds={kind}"))?, "not loaded");
            live()?;
            let total = self.operations()?;
            self.unload()?;
            let (steps, mut refused, mut failed) = (some_of(total, at_most), 0, 0);
            for nth in &steps {
                let context = || format!("{}: {what} {nth} fails", self.machine);
                let before = self.failures();
                if self.load(&format!("fault_kinds={kind} fault_nth={nth}"))? {
                    live().with_context(context)?;
                    self.unload()?;
                } else {
                    refused += 1;
                }
                after().with_context(context)?;
                // insmod(8) tries twice.
                failed += usize::from(self.failures() > before);
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
        Ok(())
    }

    /// Does something in which the n-th operation of rmmod fails, for each n until nothing fails any more.
    fn until_nothing_fails(&self, step: impl Fn(u64) -> Result<()>) -> Result<()> {
        let mut nth = 1;
        loop {
            let before = self.failures();
            step(nth).with_context(|| format!("{}: {nth} fails", self.machine))?;
            if self.failures() == before {
                break;
            }
            nth += 1;
        }
        println!("    {}: {} operations have failed", self.machine, nth - 1);
        ensure!(nth > 1, "nothing can fail");
        Ok(())
    }
}

/// What is done while something fails in a guest: peers meet, a connection moves bytes, on the ring or not.
fn live(bench: &Bench) -> Result<()> {
    bench.wait_peers()?;
    let pair = bench.plain_pair()?;
    for _ in 0..EXCHANGES {
        pair.exchange(100)?;
    }
    pair.any_way(BYTES, "", "")?;
    pair.finish()
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
    faulty.one_after_the_other(&KINDS, || live(bench), || Ok(()))?;
    leaks::nothing_is_left_now(bench)
}

/// Each operation of each kind fails once in Dom0, from insmod on, while one guest has announced itself already, and another one
/// comes and goes.
pub(super) fn backend(bench: &Bench) -> Result<()> {
    let faulty = Faulty::new(bench, Machine::Dom0)?;
    bench.unload(GUEST1)?;
    let comes_and_goes = || {
        bench.load(GUEST1, "")?;
        bench.wait_peers()?;
        gets_to_the_ring(bench)?.finish()?;
        bench.unload(GUEST1)?;
        let address = GUEST1.address().to_string();
        bench.wait("the guest is forgotten", || {
            Ok(!bench.sees(GUEST2, &address)?)
        })
    };
    faulty.one_after_the_other(&BACKEND_KINDS, comes_and_goes, || nothing_is_left(bench))?;
    leaks::nothing_is_left_now(bench)
}

/// A connection that is on the ring after a while, and moves bytes.
fn gets_to_the_ring(bench: &Bench) -> Result<Pair> {
    let pair = bench.plain_pair()?;
    bench.wait("the connection is on the ring", || {
        pair.exchange(100)?;
        pair.is_accelerated()
    })?;
    pair.both_ways(BYTES, "", "")?;
    Ok(pair)
}

/// Nothing is left in Dom0 of a backend that was removed, or refused to be loaded.
fn nothing_is_left(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        leaks::wait_no_key(
            bench,
            &format!("/local/domain/{}/xenvmc", bench.domid(guest)?),
        )?;
    }
    let line = format!("[ ! -e {REPORTS} ] && ! grep -q ^xenvmc_backend /proc/modules");
    bench.shell(Machine::Dom0, &line).map(drop)
}

/// Each operation of rmmod fails once, while the rings have unread bytes.
pub(super) fn at_unload(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        let faulty = Faulty::new(bench, guest)?;
        faulty.until_nothing_fails(|nth| {
            ensure!(faulty.load("")?, "not loaded");
            bench.wait_peers()?;
            let pair = bench.pair()?;
            let sent = [pair.a.fill(UNREAD)?, pair.b.fill(UNREAD)?];
            faulty.set("fault_nth", nth)?;
            faulty.unload()?;
            pair.b.receive(sent[0])?;
            pair.a.receive(sent[1])?;
            pair.any_way(BYTES, "", "")?;
            pair.finish()
        })?;
        bench.load(guest, "")?;
    }
    leaks::nothing_is_left_now(bench)
}

/// Each operation of rmmod fails once in Dom0: all that was published to guests with a channel is taken back.
pub(super) fn backend_at_unload(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    let faulty = Faulty::new(bench, Machine::Dom0)?;
    faulty.until_nothing_fails(|nth| {
        ensure!(faulty.load("")?, "not loaded");
        bench.wait("all is published", || {
            Ok(bench.report(Machine::Dom0, "peers")?.lines().count() == PUBLISHED)
        })?;
        faulty.set("fault_nth", nth)?;
        faulty.unload()?;
        nothing_is_left(bench)
    })?;
    pair.both_ways(BYTES, "", "")?;
    pair.finish()?;
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
            faulty.unload()?;
        }
        bench.load(guest, "")?;
    }
    leaks::nothing_is_left_now(bench)
}

/// Each operation of the backend fails once while a guest, which is gone just then, is told of an address that another one gets:
/// what was written for it does not stay.
pub(super) fn backend_writes_to_a_guest_that_is_gone(bench: &Bench) -> Result<()> {
    let directory = format!("/local/domain/{GONE}");
    let faulty = Faulty::new(bench, Machine::Dom0)?;
    faulty.until_nothing_fails(|nth| {
        let line = format!(
            "xenstore-write {directory}/domid {GONE} {directory}/data/xenvmc/announce '{ANNOUNCEMENT}'"
        );
        bench.shell(Machine::Dom0, &line)?;
        ensure!(faulty.load("")?, "not loaded");
        bench.wait("all is published", || {
            Ok(bench.report(Machine::Dom0, "peers")?.lines().count() >= PUBLISHED_TO_THREE)
        })?;
        // Its directory stays, so that no watch says that it is gone.
        bench.shell(Machine::Dom0, &format!("xenstore-rm {directory}/domid"))?;
        faulty.set("fault_nth", nth)?;
        bench.shell(GUEST1, &format!("ip address add {ADDRESS}/24 dev eth0"))?;
        leaks::wait_no_key(bench, &format!("{directory}/xenvmc"))?;
        bench.wait_peer(GUEST2, ADDRESS)?;
        faulty.set("fault_nth", 0)?;
        bench.shell(GUEST1, &format!("ip address del {ADDRESS}/24 dev eth0"))?;
        faulty.unload()?;
        nothing_is_left(bench)?;
        bench.shell(Machine::Dom0, &format!("xenstore-rm {directory}"))?;
        Ok(())
    })?;
    leaks::nothing_is_left_now(bench)
}

/// Much fails in Dom0 all the time, while a guest comes and goes; when that is over, the guests find each other.
pub(super) fn backend_all_the_time(bench: &Bench) -> Result<()> {
    let faulty = Faulty::new(bench, Machine::Dom0)?;
    // What the others do is over when it is loaded.
    for (what, kind) in &BACKEND_KINDS[..2] {
        ensure!(faulty.load(&format!("fault_kinds={kind}"))?, "not loaded");
        bench.wait_peers()?;
        let before = faulty.failures();
        faulty.set("fault_every", EVERY.into())?;
        for _ in 0..COMINGS {
            bench.unload(GUEST1)?;
            bench.load(GUEST1, "")?;
        }
        bench.wait(&format!("some {what} fails"), || {
            Ok(faulty.failures() > before)
        })?;
        faulty.set("fault_every", 0)?;
        bench.wait_peers()?;
        gets_to_the_ring(bench)?.finish()?;
        faulty.unload()?;
        nothing_is_left(bench)?;
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
            faulty.unload()?;
        }
        bench.load(guest, "")?;
    }
    leaks::nothing_is_left_now(bench)
}
