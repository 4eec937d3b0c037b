// SPDX-License-Identifier: GPL-2.0

//! Whatever fails in a guest, its connections go on, and nothing is left.
//!
//! The frontend for this is another one, of the same source, in which operations fail when they are told to
//! (rust/helpers/faults.c); `make test-faults` makes it.

use std::path::Path;

use anyhow::{Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUESTS},
    cases::leaks,
};

/// Where the frontend is made, and where it is in the guests.
const BUILT: &str = "build/modules-faults/xenvmc_frontend.ko";
const MODULE: &str = "/lib/xenvmc/xenvmc_faults.ko";

/// Its parameters in sysfs.
const PARAMETERS: &str = "/sys/module/xenvmc_frontend/parameters";

/// The numbers in `fault_kinds` of what can fail once the module is loaded: allocations, grants, mappings, event channels, Xenstore.
const KINDS: [u32; 5] = [1, 2, 4, 8, 16];

/// Bytes that go each way.
const BYTES: u64 = 40_000;

/// Exchanges of few bytes before, in which a connection may get to the ring.
const EXCHANGES: usize = 8;

/// Each so many-th operation fails in the long run.
const EVERY: u32 = 7;

/// Bytes of a message that is left unread in a ring.
const UNREAD: u64 = 6_000;

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

    /// Loads it.
    fn load(&self, parameters: &str) -> Result<()> {
        let line = format!("insmod {MODULE} {parameters}");
        self.bench.shell(self.guest, &line).map(drop)
    }

    /// Sets a parameter.
    fn set(&self, name: &str, value: u64) -> Result<()> {
        let line = format!("echo {value} >{PARAMETERS}/{name}");
        self.bench.shell(self.guest, &line).map(drop)
    }

    /// How often something has failed since the test began.
    fn failures(&self) -> usize {
        let log = self.bench.kernel_log(self.guest);
        log.matches("xenvmc_frontend: fault ").count()
    }
}

/// Each operation of rmmod fails once, while the rings have unread bytes.
pub(super) fn at_unload(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        let faulty = Faulty::new(bench, guest)?;
        for nth in 1.. {
            faulty.load("")?;
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
        for kind in KINDS {
            faulty.load(&format!("fault_kinds={kind}"))?;
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
