// SPDX-License-Identifier: GPL-2.0

//! After everything was closed and removed, everything is back where it was.

use anyhow::{Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUESTS},
    pair::Pair,
};

/// Connections of one generation.
const CONNECTIONS: usize = 20;

/// Generations.
const GENERATIONS: usize = 3;

/// Bytes that each moves each way.
const BYTES: u64 = 300_000;

/// Memory that may be missing in a guest at the end, in KiB: caches of the kernel that grow with use.
const SLACK_KIB: u64 = 6144;

/// What Xen and the machines hold for the guests' acceleration.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    /// Grants of the guests to each other that are mapped.
    grants: usize,
    /// Event channels between the guests.
    channels: usize,
}

/// What a guest's kernel has of what a module can lose.
pub(super) struct Memory {
    /// Memory for programs, KiB.
    available: u64,
    /// Ranges of addresses without memory behind them, in which pages of others are mapped.
    scratch: u64,
}

impl Memory {
    /// What there is now.
    pub(super) fn of(bench: &Bench, guest: Machine) -> Result<Self> {
        let scratch = bench.shell(guest, "grep -c 'Xen scratch' /proc/iomem || :")?;
        Ok(Self {
            available: bench.available_memory(guest)?,
            scratch: scratch.parse()?,
        })
    }

    /// Fails if there is less memory than before, or more is reserved.
    pub(super) fn is_like(&self, before: &Self, guest: Machine, is_debug: bool) -> Result<()> {
        ensure!(
            self.scratch <= before.scratch,
            "{guest}: {} ranges for pages of others instead of {}",
            self.scratch,
            before.scratch
        );
        // KASAN keeps freed memory for a while; kmemleak knows better what is lost.
        ensure!(
            is_debug || self.available + SLACK_KIB >= before.available,
            "{guest}: {} KiB free before, {} KiB after",
            before.available,
            self.available
        );
        Ok(())
    }
}

/// Returns the entries of Xen's report that these guests have with others than Dom0, those that are no more among them. `domain` finds the line that says
/// whose the entries behind it are; `peer` finds the domain at the other end.
fn entries(
    report: &str,
    domids: &[u32],
    domain: impl Fn(&str) -> Option<u32>,
    peer: impl Fn(&str) -> Option<u32>,
) -> usize {
    let (mut current, mut count) = (None, 0);
    for line in report
        .lines()
        .map(|line| line.trim_start_matches("(XEN)").trim())
    {
        if let Some(domid) = domain(line) {
            current = Some(domid);
        } else if current.is_some_and(|domid| domids.contains(&domid)) {
            count += usize::from(peer(line).is_some_and(|domid| domid != 0));
        }
    }
    count
}

fn number_after(line: &str, sign: &str) -> Option<u32> {
    let rest = line.split_once(sign)?.1.trim_start();
    rest.split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn holdings(bench: &Bench) -> Result<Holdings> {
    holdings_of(bench, &GUESTS)
}

/// The same of these guests.
fn holdings_of(bench: &Bench, guests: &[Machine]) -> Result<Holdings> {
    let domids = guests.iter().map(|guest| bench.domid(*guest));
    let domids = domids.collect::<Result<Vec<_>>>()?;
    let grants = bench.debug_key('g')?;
    ensure!(
        grants.contains("grant-table for"),
        "Xen does not show its grants: {grants}"
    );
    let granter = |line: &str| number_after(line, "grant-table for remote d");
    // "[ref] domid frame pin …"
    let grantee = |line: &str| {
        line.starts_with('[').then(|| {
            line.split_once(']')?
                .1
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })?
    };
    let channels = bench.debug_key('e')?;
    ensure!(
        channels.contains("vent channel"),
        "Xen does not show its event channels: {channels}"
    );
    let owner = |line: &str| {
        line.contains("vent channel")
            .then(|| number_after(line, "omain ").or(number_after(line, " d")))?
    };
    // "port [pending/masked/…]: s=3 … d=domid …"; unbound ones have d= as well.
    let remote = |line: &str| line.contains("s=").then(|| number_after(line, " d="))?;
    Ok(Holdings {
        grants: entries(&grants, &domids, granter, grantee),
        channels: entries(&channels, &domids, owner, remote),
    })
}

fn generation(bench: &Bench) -> Result<()> {
    let pairs = bench.plain_pairs(CONNECTIONS)?;
    for pair in &pairs {
        pair.accelerate()?;
        pair.both_ways(BYTES, "", "")?;
    }
    pairs.iter().try_for_each(Pair::finish)
}

pub(super) fn nothing_is_left(bench: &Bench) -> Result<()> {
    let nothing = Holdings {
        grants: 0,
        channels: 0,
    };
    bench.unload_all()?;
    ensure!(
        holdings(bench)? == nothing,
        "before: {:?}",
        holdings(bench)?
    );

    bench.load_backend()?;
    GUESTS.iter().try_for_each(|guest| bench.load(*guest, ""))?;
    bench.wait_peers()?;
    generation(bench)?;
    let used = holdings(bench)?;
    ensure!(
        used.grants > 0 && used.channels > 0,
        "Xen's report is misunderstood: {used:?} in use"
    );
    bench.unload_all()?;
    let before = GUESTS.map(|guest| Memory::of(bench, guest));

    bench.load_backend()?;
    GUESTS.iter().try_for_each(|guest| bench.load(*guest, ""))?;
    bench.wait_peers()?;
    for _ in 0..GENERATIONS {
        generation(bench)?;
    }
    bench.wait_no_connections()?;
    no_references(bench, &GUESTS)?;
    // More connections one after the other need no more than those before them.
    let again = holdings(bench)?;
    ensure!(
        again.channels <= used.channels,
        "{again:?} instead of {used:?}"
    );
    nothing_is_left_now(bench)?;
    for (guest, before) in GUESTS.into_iter().zip(before) {
        Memory::of(bench, guest)?.is_like(&before?, guest, bench.has_debug_kernel())?;
    }
    Ok(())
}

/// Nobody holds on to the frontends of these guests.
pub(super) fn no_references(bench: &Bench, guests: &[Machine]) -> Result<()> {
    for guest in guests {
        let references = bench.shell(*guest, "cat /sys/module/xenvmc_frontend/refcnt")?;
        ensure!(
            references == "0",
            "{guest}: {references} references to the module"
        );
    }
    Ok(())
}

/// Unloads the modules, and checks that Xen and xenstore hold nothing of theirs any more.
pub(super) fn nothing_is_left_now(bench: &Bench) -> Result<()> {
    bench.unload_all()?;
    nothing_is_held(bench, &GUESTS)
}

/// The same of these guests, whose modules are unloaded. The backend may be there.
pub(super) fn nothing_is_held(bench: &Bench, guests: &[Machine]) -> Result<()> {
    let nothing = Holdings {
        grants: 0,
        channels: 0,
    };
    bench.wait("grants and event channels are back", || {
        Ok(holdings_of(bench, guests)? == nothing)
    })?;
    for guest in guests {
        let domid = bench.domid(*guest)?;
        for path in [
            format!("/local/domain/{domid}/data/xenvmc"),
            format!("/local/domain/{domid}/xenvmc"),
        ] {
            wait_no_key(bench, &path)?;
        }
    }
    Ok(())
}

/// Waits until xenstore has no such key.
fn wait_no_key(bench: &Bench, path: &str) -> Result<()> {
    bench.wait(&format!("{path} is gone"), || {
        let exists = bench.try_shell(Machine::Dom0, &format!("xenstore-exists {path}"))?;
        Ok(exists.status == 1)
    })
}

/// Waits until nothing is left of a domain that was destroyed: nobody holds its memory, and nobody has written about it to xenstore.
pub(super) fn nothing_is_left_of(bench: &Bench, domid: u32) -> Result<()> {
    bench.wait(&format!("domain {domid} is gone"), || {
        let line = format!("xl list | awk '$2 == {domid}'");
        Ok(bench.shell(Machine::Dom0, &line)?.is_empty())
    })?;
    wait_no_key(bench, &format!("/local/domain/{domid}"))
}

/// No test has lost memory: kmemleak finds a pointer to all that was allocated.
pub(super) fn nothing_is_unreferenced(bench: &Bench) -> Result<()> {
    bench.unload_all()?;
    for (guest, found) in GUESTS.into_iter().zip(bench.unreferenced()?) {
        ensure!(found.is_empty(), "{guest} has lost memory:\n{found}");
    }
    Ok(())
}
