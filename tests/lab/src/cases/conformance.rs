// SPDX-License-Identifier: GPL-2.0

//! What applications see of their sockets: the same without the modules, with the module at one end, and over the ring. The
//! cases are those of `tests/conformance`.

use std::{fs, net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use lab_driver::{Machine, Output};

use super::addresses::Change;
use crate::bench::{Bench, CONFORMANCE, GUEST1, GUEST2, patience};

/// Round trips of each of the cases in which both ends wait in recv: together they make a million.
const ROUND_TRIPS: u32 = 250_000;

/// How many times fewer of those in which an end waits in another way: each wake-up takes the emulator a millisecond.
const OTHER_PART: u32 = 25;

/// How many times fewer of the first there are where time is short.
const PART: u32 = 20;

/// How many times fewer on the debug kernel.
const DEBUG_ROUND_TRIPS: u32 = 20;

/// Time for all cases of a group, one way.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Cases at once: most of them wait most of the time.
const JOBS: &str = "8";

/// Lines of what went wrong that are shown.
const SHOWN: usize = 40;

/// How the modules are loaded: no flow of datagrams leaves the ring because its time is over, since the cases look whether one does.
const SETTINGS: &str = "udp=3600";

/// What the last number of a guest's second address is more than that of the first one.
const SECOND: u8 = 200;

/// Where the records of all groups are kept, in `build/tests`: the table in Documentation/semantics.md is made from these.
const RECORDS: &str = "conformance";

/// Where those of what runs over IPv6 are, which are not in that table.
const RECORDS_IPV6: &str = "conformance-ipv6";

/// Some kinds of cases, and where they run.
struct Group<'a> {
    name: &'a str,
    kinds: &'a [&'a str],
    /// The server's address: cases use the family that it has.
    server: IpAddr,
    /// The directory of the records.
    records: &'a str,
}

/// Runs the cases of a group in all three ways.
fn conform(bench: &Bench, name: &str, kinds: &[&str]) -> Result<()> {
    let group = Group {
        name,
        kinds,
        server: GUEST2.address().into(),
        records: RECORDS,
    };
    let _second = [second(bench, GUEST1)?, second(bench, GUEST2)?];
    with_server(bench, || three_ways(bench, &[group]))
}

/// All cases that are not about the addresses themselves, over IPv6.
pub(super) fn over_ipv6(bench: &Bench) -> Result<()> {
    let groups = STREAMS.iter().map(|(name, kinds)| Group {
        name,
        kinds,
        server: GUEST2.address6().into(),
        records: RECORDS_IPV6,
    });
    let groups: Vec<_> = groups.collect();
    with_server(bench, || three_ways(bench, &groups))
}

/// Gives a guest a second address, until that is dropped: cases send from it.
fn second(bench: &Bench, guest: Machine) -> Result<Change<'_>> {
    let [a, b, c, d] = guest.address().octets();
    let address = format!("{a}.{b}.{c}.{}/24 dev eth0", d + SECOND);
    let [add, del] = ["add", "del"].map(|verb| format!("ip address {verb} {address}"));
    Change::make(bench, guest, &add, &del)
}

/// Calls `run` while the other end of cases is there.
fn with_server(bench: &Bench, run: impl FnOnce() -> Result<()>) -> Result<()> {
    let server = bench.shell(
        GUEST2,
        &format!("{CONFORMANCE} serve </dev/null >/tmp/serve.log 2>&1 & echo $!"),
    )?;
    let result = run();
    bench.shell(GUEST2, &format!("kill {server}"))?;
    result
}

fn three_ways(bench: &Bench, groups: &[Group<'_>]) -> Result<()> {
    bench.unload_all()?;
    one_way(bench, groups, "absent")?;
    bench.load_backend()?;
    bench.load(GUEST1, SETTINGS)?;
    one_way(bench, groups, "alone")?;
    bench.unload(GUEST1)?;
    bench.load(GUEST2, SETTINGS)?;
    // The one that accepts.
    one_way(bench, groups, "alone")?;
    bench.load(GUEST1, SETTINGS)?;
    bench.wait_peers()?;
    for group in groups {
        bench.wait_peer(GUEST1, &group.server.to_string())?;
    }
    one_way(bench, groups, "ring")
}

fn one_way(bench: &Bench, groups: &[Group<'_>], way: &str) -> Result<()> {
    groups
        .iter()
        .try_for_each(|group| one_group(bench, group, way))
}

fn one_group(bench: &Bench, group: &Group<'_>, way: &str) -> Result<()> {
    let server = group.server.to_string();
    let [record, kept] = ["absent", way].map(|way| format!("/tmp/{}-{way}.json", group.name));
    let mut words = vec![CONFORMANCE, "run", "--server", &server, "--way", way];
    if way != "absent" {
        words.extend(["--expect", &record]);
    }
    words.extend(["--record", &kept, "--jobs", JOBS]);
    words.extend(group.kinds);
    let output = bench
        .lab()
        .command(GUEST1, &words)
        .timeout(patience(bench.lab(), TIMEOUT))
        .run()?;
    let directory = fs::canonicalize("build")?.join("tests").join(group.records);
    fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{}-{way}.json", group.name));
    bench.lab().pull(GUEST1, &kept, &file)?;
    judge(output, &format!("{}, {way}", group.name))
}

/// Whether all cases have passed.
fn judge(output: Output, what: &str) -> Result<()> {
    let text = output.text();
    ensure!(text.contains("\nok "), "{what}: no case has passed");
    let wrong = problems(&text);
    ensure!(
        wrong.is_empty() && output.success().is_ok(),
        "{what}: {} lines:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(SHOWN)].join("\n")
    );
    Ok(())
}

/// The cases that failed, each with why.
fn problems(ktap: &str) -> Vec<&str> {
    let mut shown = false;
    ktap.lines()
        .filter(|line| {
            shown = line.starts_with("not ok") || (shown && line.starts_with('#'));
            shown
        })
        .collect()
}

/// Times that connections are taken in [`taken_both_ways`].
const TAKEN_TIMES: u32 = 6;

/// A million round trips over the ring, some of them after random delays, with all ways to wait: no wake-up is lost.
pub(super) fn million_round_trips(bench: &Bench) -> Result<()> {
    all_round_trips(bench, ROUND_TRIPS)
}

/// A part of that.
pub(super) fn round_trips(bench: &Bench) -> Result<()> {
    all_round_trips(bench, ROUND_TRIPS / PART)
}

fn all_round_trips(bench: &Bench, rounds: u32) -> Result<()> {
    let others = ["poll", "select", "epoll", "mixed"].map(|name| format!("wakeups::{name}"));
    with_server(bench, || {
        run_round_trips(bench, rounds, &["wakeups::recv".to_owned()])?;
        run_round_trips(bench, rounds / OTHER_PART, &others)
    })
}

fn run_round_trips(bench: &Bench, rounds: u32, names: &[String]) -> Result<()> {
    let rounds = match bench.has_debug_kernel() {
        true => (rounds / DEBUG_ROUND_TRIPS).max(1),
        false => rounds,
    };
    let rounds = rounds.to_string();
    let mut words = vec!["--rounds", &rounds];
    words.extend(names.iter().map(String::as_str));
    run_on_ring(bench, &words, "round trips")
}

/// Runs cases on the ring, for nothing but that they end well; `more` says which, and how.
fn run_on_ring(bench: &Bench, more: &[&str], what: &str) -> Result<()> {
    let address = GUEST2.address().to_string();
    let mut words = vec![CONFORMANCE, "run", "--server", &address, "--way", "ring"];
    words.extend(more);
    let output = bench
        .lab()
        .command(GUEST1, &words)
        .timeout(patience(bench.lab(), TIMEOUT))
        .run()?;
    judge(output, what)
}

/// Connections of which somebody in the kernel takes this end or the other, several at once: no guest waits for the other to give one back
/// while that one waits for it to give back another, and what kTLS gets is not taken over again at that moment, as its other end asks for it.
pub(super) fn taken_both_ways(bench: &Bench) -> Result<()> {
    let before = bench.resets()?;
    with_server(bench, || {
        for _ in 0..TAKEN_TIMES {
            let words = ["--jobs", JOBS, "takeover::multiplexor", "takeover::tls"];
            run_on_ring(bench, &words, "taken both ways")?;
        }
        let resets = bench.resets()? - before;
        ensure!(resets == 0, "{resets} connections were reset");
        Ok(())
    })
}

/// A test for each group of kinds of cases, which are the files of `tests/conformance/src/cases`; and the groups, by their names, that
/// are about connections whatever their addresses are, as `STREAMS`.
macro_rules! groups {
    (streams { $($stream:ident: $($of_stream:ident)*;)* } others { $($other:ident: $($of_other:ident)*;)* }) => {
        groups! { $($stream: $($of_stream)*;)* $($other: $($of_other)*;)* }

        const STREAMS: &[(&str, &[&str])] = &[
            $((stringify!($stream), &[$(concat!(stringify!($of_stream), "::")),*]),)*
        ];
    };
    ($($group:ident: $($kind:ident)*;)*) => {
        $(pub(super) fn $group(bench: &Bench) -> Result<()> {
            conform(bench, stringify!($group), &[$(concat!(stringify!($kind), "::")),*])
        })*
    };
}

groups! {
    streams {
        calls: calls flags messages faults splicing uring zerocopy urgent;
        blocking: blocking nonblocking interrupted stopped threads;
        volumes: volumes boundary wakeups;
        readiness: readiness epoll edges sigio;
        ends: ended ending leaving reset reuse;
        descriptors: descriptors processes diagnosis;
        options: options refusals takeover tuning;
    }
    others {
        addresses: addresses;
        datagrams: datagrams datagram_messages datagram_options datagram_errors datagram_ipv6 datagram_uring;
    }
}
