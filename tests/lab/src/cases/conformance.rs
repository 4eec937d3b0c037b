// SPDX-License-Identifier: GPL-2.0

//! What applications see of their sockets: the same without the modules, with the module at one end, and over the ring. The
//! cases are those of `tests/conformance`.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};

use crate::bench::{Bench, CONFORMANCE, GUEST1, GUEST2, patience};

/// Time for all cases of a group, one way.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Cases at once: most of them wait most of the time.
const JOBS: &str = "4";

/// Where guests keep what was seen.
const RECORD: &str = "/tmp/conformance.json";

/// Lines of what went wrong that are shown.
const SHOWN: usize = 40;

/// Runs the cases of a group in all three ways.
fn conform(bench: &Bench, group: &str, kinds: &[&str]) -> Result<()> {
    let server = bench.shell(
        GUEST2,
        &format!("{CONFORMANCE} serve </dev/null >/tmp/serve.log 2>&1 & echo $!"),
    )?;
    let result = three_ways(bench, group, kinds);
    bench.shell(GUEST2, &format!("kill {server}"))?;
    result
}

fn three_ways(bench: &Bench, group: &str, kinds: &[&str]) -> Result<()> {
    bench.unload_all()?;
    one_way(bench, group, kinds, "absent")?;
    bench.load_backend()?;
    bench.load(GUEST1, "")?;
    one_way(bench, group, kinds, "alone")?;
    bench.load(GUEST2, "")?;
    bench.wait_peers()?;
    one_way(bench, group, kinds, "ring")
}

fn one_way(bench: &Bench, group: &str, kinds: &[&str], way: &str) -> Result<()> {
    let address = GUEST2.address().to_string();
    let kept = format!("/tmp/conformance-{way}.json");
    let mut words = vec![CONFORMANCE, "run", "--server", &address, "--way", way];
    if way == "absent" {
        words.extend(["--record", RECORD]);
    } else {
        words.extend(["--expect", RECORD, "--record", &kept]);
    }
    words.extend(["--jobs", JOBS]);
    words.extend(kinds);
    let output = bench
        .lab()
        .command(GUEST1, &words)
        .timeout(patience(bench.lab(), TIMEOUT))
        .run()?;
    let text = output.text();
    // The table in Documentation/semantics.md is made from these.
    let directory = fs::canonicalize("build")?.join("tests/conformance");
    fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{group}-{way}.json"));
    let from = if way == "absent" { RECORD } else { &kept };
    bench.lab().pull(GUEST1, from, &file)?;
    ensure!(text.contains("\nok "), "{group}, {way}: no case has passed");
    let wrong = problems(&text);
    ensure!(
        wrong.is_empty() && output.success().is_ok(),
        "{group}, {way}: {} lines:\n{}",
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

/// A test for each group of kinds of cases, which are the files of `tests/conformance/src/cases`. Not among them yet
/// are `volumes`, `wakeups` and `tuning`, whose load breaks the emulator or takes minutes of its TCP, and `blocking` and `ended`,
/// of which three cases differ (Documentation/semantics.md).
macro_rules! groups {
    ($($group:ident: $($kind:ident)*;)*) => {
        $(pub(super) fn $group(bench: &Bench) -> Result<()> {
            conform(bench, stringify!($group), &[$(concat!(stringify!($kind), "::")),*])
        })*
    };
}

groups! {
    calls: calls flags messages faults splicing uring zerocopy urgent;
    blocking: nonblocking interrupted stopped threads;
    readiness: readiness epoll edges sigio;
    ends: ending leaving reset reuse;
    descriptors: descriptors processes;
    options: options refusals takeover;
    addresses: addresses;
}
