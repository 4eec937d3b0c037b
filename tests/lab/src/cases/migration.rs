// SPDX-License-Identifier: GPL-2.0

//! What suspends and migrations cost in time (`make migration`).
//!
//! For how long bytes stand still while the guest that sends them migrates, as the one that receives them sees it: over the network
//! alone, without the modules; and with them, through the ring, beside another connection that stays on the network. And how long it
//! takes until a guest that is back, or whose module is new, is on the ring.

use std::{env, fs, path::Path};

use anyhow::{Context, Result, ensure};
use lab_driver::Machine;
use serde_json::{Map, Value, json};

use crate::{
    bench::{Bench, GUEST1, GUESTS},
    pair::{Load, Pair},
    plot::{self, Panel},
    travel,
};

/// How often each is measured, if `MIGRATION_TURNS` says nothing else.
const TURNS: usize = 3;

/// Bytes that flow before and after.
const BYTES: u64 = 300_000;

/// A rate that is never reached: a connection that has one stays on TCP.
const ANY_RATE: i32 = 1 << 30;

/// What happens to a guest that is suspended and goes on.
const COPIED: &str = "copied";

/// Where the results go.
const DIRECTORY: &str = "build/migration";

/// What one connection went through in one migration.
struct Run {
    turn: usize,
    /// What its bytes went through.
    way: &'static str,
    has_modules: bool,
    /// The longest time without a byte, ms.
    longest_ms: u64,
    period_ms: u64,
    /// Bytes of each period.
    bytes: Vec<u64>,
    /// What the guest's module had to do, ms: until it was ready to be suspended, and from the end of the suspend to each step.
    steps: Value,
}

impl Run {
    fn to_json(&self) -> Value {
        json!({
            "turn": self.turn,
            "way": self.way,
            "with_modules": self.has_modules,
            "longest_gap_ms": self.longest_ms,
            "period_ms": self.period_ms,
            "bytes": self.bytes,
            "steps_ms": self.steps,
        })
    }
}

fn turns() -> Result<usize> {
    match env::var("MIGRATION_TURNS") {
        Ok(text) if !text.is_empty() => text.parse().context(text),
        _ => Ok(TURNS),
    }
}

/// Migrates the first guest, without and with the modules in turn, and writes down what came.
pub(super) fn standstill(bench: &Bench) -> Result<()> {
    let mut runs = Vec::new();
    for turn in 1..=turns()? {
        for has_modules in [false, true] {
            bench.unload_all()?;
            if has_modules {
                bench.load_all()?;
            }
            migrate(bench, turn, has_modules, &mut runs)?;
        }
    }
    bench.set_dirty();
    write(&runs)
}

/// One migration, with one connection without the modules and two with them.
fn migrate(bench: &Bench, turn: usize, has_modules: bool, runs: &mut Vec<Run>) -> Result<()> {
    let plain = bench.plain_pair()?;
    let (mut pairs, mut ways) = (vec![], vec![]);
    if has_modules {
        pairs.push(bench.pair()?);
        ways.push("ring");
        for end in [&plain.a, &plain.b] {
            end.set("pacing", ANY_RATE)?;
        }
    }
    pairs.push(plain);
    ways.push("network");
    let loads: Vec<Load<'_>> = pairs
        .iter()
        .map(|pair| Load::start(pair, BYTES))
        .collect::<Result<_>>()?;
    for pair in &pairs {
        pair.b.call("record")?;
    }
    travel::migrate(bench.lab(), GUEST1)?;
    loads.iter().try_for_each(|load| load.wait_for(BYTES))?;
    let mut steps = Value::Null;
    if has_modules {
        let back = std::slice::from_ref(&pairs[0]);
        bench.wait_on_ring(back)?;
        loads.iter().try_for_each(|load| load.wait_for(BYTES))?;
        ensure!(
            pairs[1].ring_bytes()? == [0, 0],
            "bytes of the other connection went through the ring"
        );
        steps = self::steps(bench, GUEST1, true)?;
    }
    for (pair, way) in pairs.iter().zip(ways) {
        let answer = pair.b.call("recorded")?;
        let bytes = answer.word("bytes").split(',').map(str::parse);
        let run = Run {
            turn,
            way,
            has_modules,
            longest_ms: answer.number("longest"),
            period_ms: answer.number("period"),
            bytes: bytes.collect::<Result<_, _>>().context("no bytes")?,
            steps: steps.clone(),
        };
        let modules = if has_modules { "with" } else { "without" };
        println!(
            "    turn {turn}, {modules} the modules, {way}: {} ms without a byte",
            run.longest_ms
        );
        runs.push(run);
    }
    Load::end_all(loads, &pairs)
}

/// What a guest's module says of the last suspend, or of its beginning: ms until it was ready to be suspended, and from the end of the
/// suspend, or from insmod, to each step.
fn steps(bench: &Bench, guest: Machine, is_suspend: bool) -> Result<Value> {
    let mut all = Map::new();
    if is_suspend {
        let log = bench.kernel_log(guest);
        let ready = log
            .rsplit_once("ready to be suspended after ")
            .and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u64>().ok());
        all.insert("closed".to_owned(), json!(ready));
    }
    for line in bench.report(guest, "timeline")?.lines() {
        let (name, ms) = line.split_once(' ').context("no step")?;
        all.insert(name.to_owned(), json!(ms.parse::<u64>()?));
    }
    Ok(Value::Object(all))
}

/// How connections are used while a guest comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// One, on which nothing goes.
    Idle,
    /// Three, on which bytes flow both ways all the time.
    Busy,
}

/// Copies either guest, and loads the module of either anew, while connections are idle and while they are busy; writes down how long it
/// took until they were on the ring again.
pub(super) fn returns(bench: &Bench) -> Result<()> {
    let mut all = Vec::new();
    for usage in [Use::Idle, Use::Busy] {
        for guest in GUESTS {
            bench.reset()?;
            for turn in 1..=turns()? {
                let copied = come_back(bench, guest, usage, COPIED, || {
                    travel::checkpoint(bench.lab(), guest)
                })?;
                let loaded = come_back(bench, guest, usage, "loaded anew", || {
                    bench.unload(guest)?;
                    bench.load(guest, "")
                })?;
                println!("    turn {turn}: {copied}\n    turn {turn}: {loaded}");
                all.extend([copied, loaded]);
            }
        }
    }
    write_file("returns.json", &pretty(&json!(all))?)
}

/// How long it takes connections that are on the ring to be there again.
fn come_back(
    bench: &Bench,
    guest: Machine,
    usage: Use,
    what: &str,
    happen: impl FnOnce() -> Result<()>,
) -> Result<Value> {
    let (count, name) = match usage {
        Use::Idle => (1, "idle"),
        Use::Busy => (3, "busy"),
    };
    let pairs: Vec<Pair> = (0..count).map(|_| bench.pair()).collect::<Result<_>>()?;
    let mut loads = Vec::new();
    if usage == Use::Busy {
        for pair in &pairs {
            loads.push(Load::start(pair, BYTES)?);
        }
    }
    happen()?;
    bench.wait_peers()?;
    if usage == Use::Idle {
        // Who is to send finds out that it may.
        pairs.iter().try_for_each(Pair::accelerate)?;
    }
    bench.wait_on_ring(&pairs)?;
    let steps = steps(bench, guest, what == COPIED)?;
    if usage == Use::Idle {
        pairs.iter().try_for_each(Pair::finish)?;
    } else {
        Load::end_all(loads, &pairs)?;
    }
    Ok(json!({ "what": what, "guest": guest.to_string(), "connections": name, "ms": steps }))
}

/// Writes results.json and throughput.svg.
fn write(runs: &[Run]) -> Result<()> {
    let all: Vec<Value> = runs.iter().map(Run::to_json).collect();
    let results = json!({
        "what": "guest1 sends to guest2 and migrates to a new domain of the same host; bytes as guest2 receives them",
        "runs": all,
    });
    let panels: Vec<Panel<'_>> = runs.iter().map(panel).collect();
    write_file("results.json", &pretty(&results)?)?;
    write_file("throughput.svg", &plot::panels(&panels))
}

fn pretty(value: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Writes one of the files.
fn write_file(name: &str, text: &str) -> Result<()> {
    let directory = Path::new(DIRECTORY);
    fs::create_dir_all(directory)?;
    let path = directory.join(name);
    fs::write(&path, text).with_context(|| path.display().to_string())?;
    println!("    {}", path.display());
    Ok(())
}

fn panel(run: &Run) -> Panel<'_> {
    let modules = if run.has_modules { "with" } else { "without" };
    Panel {
        title: format!(
            "{}, {modules} the modules, turn {}: {:.1} s without a byte",
            run.way,
            run.turn,
            run.longest_ms as f64 / 1000.0
        ),
        period_ms: run.period_ms,
        bytes: &run.bytes,
        is_accented: run.way == "ring",
    }
}
