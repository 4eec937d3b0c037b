// SPDX-License-Identifier: GPL-2.0

//! After everything was closed and removed, everything is back where it was.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUESTS},
    cases::cost,
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

/// Connections of one generation of those that all have as many pages.
const FIXED_CONNECTIONS: usize = 8;

/// Parameters with which rings do not grow: connections have as many pages in one generation as in the next one.
const FIXED: &str = "ring_kib=16 initial_ring_kib=16";

/// Times that the backend is loaded anew.
const RELOADS: usize = 5;

/// Announcements of each guest meanwhile.
const ANNOUNCEMENTS: usize = 20;

/// Memory in KiB that netfront itself loses when a guest is restored: the 256 pages that each of the two interfaces has for packets that
/// come (2,000 KiB in four migrations, without our modules).
const NETFRONT_KIB: u64 = 2 * 256 * 4;

/// Memory that may be missing in Dom0 afterwards, in KiB.
const DOM0_SLACK_KIB: u64 = 4 << 10;

/// What a guest's kernel says of sockets: a line for each number, with its name. Freed objects are counted until a grace period of
/// RCU has passed, and until caches let go of them.
const SOCKETS: &str =
    "for name in TCP TCPv6 UDP UDPv6; do echo 1 >/sys/kernel/slab/$name/shrink; done 2>/dev/null
awk '/^(TCP|TCPv6|UDP|UDPv6) / { print \"slab:\" $1, $2 }' /proc/slabinfo 2>/dev/null
awk '{ for (i = 2; i < NF; i += 2) print $1 $i, $(i + 1) }' /proc/net/sockstat /proc/net/sockstat6";

/// How many more of them there may be at the end. A CPU may keep 256 pages of memory for sockets to itself; objects in a slab that a
/// CPU works on count as used; a connection that was closed waits for a minute.
const SOCKETS_SLACK: [(&str, u64); 6] = [
    ("TCP:mem", 256),
    ("UDP:mem", 256),
    ("slab:TCP", 8),
    ("slab:UDP", 8),
    ("TCP:tw", u64::MAX),
    ("FRAG:memory", u64::MAX),
];

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
    /// Sockets, and memory of theirs.
    sockets: BTreeMap<String, u64>,
}

impl Memory {
    /// What there is now.
    pub(super) fn of(bench: &Bench, guest: Machine) -> Result<Self> {
        let scratch = bench.shell(guest, "grep -c 'Xen scratch' /proc/iomem || :")?;
        let sockets = bench.shell(guest, SOCKETS)?;
        let number = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let sockets = sockets.lines().map(|line| number(line).context("sockets"));
        Ok(Self {
            available: bench.available_memory(guest)?,
            scratch: scratch.parse()?,
            sockets: sockets.collect::<Result<_>>()?,
        })
    }

    /// The guest was saved and restored so many times since.
    pub(super) fn was_restored(&mut self, times: u64) {
        self.available = self.available.saturating_sub(times * NETFRONT_KIB);
    }

    /// Waits until there is as much memory again, and nothing more is in use.
    pub(super) fn wait_back(&self, bench: &Bench, guest: Machine) -> Result<()> {
        let mut why = None;
        let waited = bench.wait("memory and sockets are back", || {
            let now = Self::of(bench, guest)?;
            why = self.compare(&now, guest, bench.has_debug_kernel()).err();
            Ok(why.is_none())
        });
        waited.map_err(|error| why.unwrap_or(error))
    }

    /// Fails if there is less memory now than before, or more is in use.
    fn compare(&self, now: &Self, guest: Machine, is_debug: bool) -> Result<()> {
        ensure!(
            now.scratch <= self.scratch,
            "{guest}: {} ranges for pages of others instead of {}",
            now.scratch,
            self.scratch
        );
        // KASAN keeps freed memory for a while; kmemleak knows better what is lost.
        ensure!(
            is_debug || now.available + SLACK_KIB >= self.available,
            "{guest}: {} KiB free before, {} KiB after",
            self.available,
            now.available
        );
        let is_exact = |name: &str| !is_debug || !name.starts_with("slab:");
        for (name, count) in now.sockets.iter().filter(|(name, _)| is_exact(name)) {
            let before = self.sockets.get(name).copied().unwrap_or(0);
            let slack = SOCKETS_SLACK
                .iter()
                .find(|(start, _)| name.starts_with(start));
            ensure!(
                *count <= before.saturating_add(slack.map_or(0, |(_, slack)| *slack)),
                "{guest}: {name} was {before}, and is {count}"
            );
        }
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

fn generation(bench: &Bench, connections: usize) -> Result<()> {
    let pairs = bench.plain_pairs(connections)?;
    for pair in &pairs {
        pair.accelerate()?;
        pair.both_ways(BYTES, "", "")?;
    }
    pairs.iter().try_for_each(Pair::finish)
}

/// Connections of rings that do not grow, twice: those that come later need no more grants and event channels than those before them,
/// and leave nothing in the arenas.
fn two_generations(bench: &Bench) -> Result<Holdings> {
    load_with(bench, FIXED)?;
    generation(bench, FIXED_CONNECTIONS)?;
    bench.wait_no_connections()?;
    let used = holdings(bench)?;
    generation(bench, FIXED_CONNECTIONS)?;
    bench.wait_no_connections()?;
    bench.wait("the arenas are empty", || {
        Ok(cost::arena_pages_used(bench)? == [0, 0])
    })?;
    let again = holdings(bench)?;
    ensure!(
        again.channels <= used.channels && again.grants <= used.grants,
        "{again:?} instead of {used:?}"
    );
    nothing_is_left_now(bench)?;
    Ok(used)
}

/// Loads all, the frontends with these parameters.
fn load_with(bench: &Bench, parameters: &str) -> Result<()> {
    bench.load_backend()?;
    GUESTS
        .iter()
        .try_for_each(|guest| bench.load(*guest, parameters))?;
    bench.wait_peers()
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

    let used = two_generations(bench)?;
    ensure!(
        used.grants > 0 && used.channels > 0,
        "Xen's report is misunderstood: {used:?} in use"
    );

    load_with(bench, "")?;
    generation(bench, CONNECTIONS)?;
    bench.unload_all()?;
    let before = GUESTS.map(|guest| Memory::of(bench, guest));

    load_with(bench, "")?;
    for _ in 0..GENERATIONS {
        generation(bench, CONNECTIONS)?;
    }
    bench.wait_no_connections()?;
    no_references(bench, &GUESTS)?;
    nothing_is_left_now(bench)?;
    for (guest, before) in GUESTS.into_iter().zip(before) {
        before?.wait_back(bench, guest)?;
    }
    dom0_loses_nothing(bench)
}

/// Dom0 has as much memory as before when guests have announced themselves, and the backend was loaded anew, again and again.
fn dom0_loses_nothing(bench: &Bench) -> Result<()> {
    let mut before = None;
    // The first time fills caches.
    for _ in 0..=RELOADS {
        bench.load_backend()?;
        for guest in GUESTS {
            announce_often(bench, guest)?;
        }
        bench.wait("both are published", || {
            Ok(bench.report(Machine::Dom0, "peers")?.lines().count() >= GUESTS.len())
        })?;
        for guest in GUESTS {
            let domid = bench.domid(guest)?;
            let line = format!("xenstore-rm /local/domain/{domid}/data/xenvmc");
            bench.shell(Machine::Dom0, &line)?;
        }
        bench.unload_backend()?;
        let now = bench.available_memory(Machine::Dom0)?;
        let before = *before.get_or_insert(now);
        ensure!(
            now + DOM0_SLACK_KIB >= before,
            "Dom0: {before} KiB free before, {now} KiB after"
        );
    }
    Ok(())
}

/// Instance after instance of a frontend that a guest does not have announces itself.
fn announce_often(bench: &Bench, guest: Machine) -> Result<()> {
    let (domid, address) = (bench.domid(guest)?, guest.address());
    let line = format!(
        "for n in $(seq {ANNOUNCEMENTS}); do xenstore-write /local/domain/{domid}/data/xenvmc/announce \
         \"version=1 features=0x0 instance=$(printf %016x $n) addresses={address}\" || exit; done"
    );
    bench.shell(Machine::Dom0, &line).map(drop)
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
pub(super) fn wait_no_key(bench: &Bench, path: &str) -> Result<()> {
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
