// SPDX-License-Identifier: GPL-2.0

//! What was found: `build/demo/results.json`, described in `Documentation/results.md`.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    modules::Loaded,
    netperf::Found,
    plan::{Row, Target, Test},
    snapshot::{Counts, Cpu, Snapshot},
};

/// Number of this format; grows when a reader of the older one would misunderstand it.
pub const FORMAT: u32 = 1;

/// How often runs are drawn again.
const DRAWS: usize = 2000;

/// Said wherever a figure is shown.
pub const CAVEAT: &str = "Ratios under emulation are not those of hardware: emulation makes privileged \
     instructions cheap or dear in odd ways. What carries over is the number of copies, hypercalls, \
     context switches and packets per byte.";

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`].
    pub format: u32,
    /// Seconds since 1970 when the runs began.
    pub time: u64,
    /// Whether it is the subset.
    pub quick: bool,
    /// Seconds that the runs took altogether.
    pub seconds: f64,
    /// [`CAVEAT`].
    pub caveat: String,
    /// What was measured.
    pub versions: Versions,
    /// Where it was measured.
    pub lab: LabFacts,
    /// Netfront (no module anywhere) against xenvmc (the module in both guests).
    pub rows: Vec<RowResult>,
    /// No module anywhere against the module in the client's guest alone.
    pub no_module: Vec<RowResult>,
    /// Connections that ask for a ring as late as usual against those that ask at once.
    #[serde(default)]
    pub upgrade: Vec<RowResult>,
    /// What a guest can do by itself.
    pub bounds: Vec<Bound>,
    /// Labs that were booted; each row's runs are all of one.
    #[serde(default)]
    pub boots: u32,
    /// Runs that failed, and were done again.
    #[serde(default)]
    pub repeated: u32,
    /// What the kernels and Xen complained about, with the machine's name before each line.
    pub problems: Vec<String>,
}

impl Results {
    /// Nothing measured yet.
    ///
    /// # Errors
    ///
    /// The clock is wrong.
    pub fn new(quick: bool) -> Result<Self> {
        Ok(Self {
            format: FORMAT,
            time: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            quick,
            seconds: 0.0,
            caveat: CAVEAT.to_owned(),
            versions: Versions::default(),
            lab: LabFacts::default(),
            rows: Vec::new(),
            no_module: Vec::new(),
            upgrade: Vec::new(),
            bounds: Vec::new(),
            boots: 0,
            repeated: 0,
            problems: Vec::new(),
        })
    }
}

/// Versions of everything that takes part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Versions {
    /// This project's commit; with `+` when there were changes beyond it.
    pub commit: String,
    /// Kernel of Dom0 and of the guests.
    pub kernel: String,
    /// Hypervisor.
    pub xen: String,
    /// Emulator.
    pub qemu: String,
    /// netperf.
    pub netperf: String,
}

/// The lab and its host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LabFacts {
    /// `pvh` or `pv`.
    pub guest_type: String,
    /// Virtual CPUs of each guest.
    pub vcpus: u8,
    /// Memory of each guest in MiB.
    pub memory_mib: u64,
    /// CPUs of the emulated machine.
    pub emulated_cpus: u8,
    /// CPUs of the host.
    pub host_cpus: usize,
    /// The host's CPU.
    pub host_cpu: String,
}

/// One row: the same test with the modules in two states, in turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RowResult {
    /// What netperf did.
    pub test: Test,
    /// Bytes of a message.
    pub size: u32,
    /// What the client talked to.
    #[serde(default)]
    pub target: Target,
    /// What the row is called in a table.
    #[serde(default)]
    pub name: String,
    /// Unit of the values.
    pub unit: String,
    /// What `per_unit` counts per: `MB` (1,000,000 bytes) or `transaction`.
    pub per: String,
    /// Without what is compared.
    pub netfront: Side,
    /// With it.
    pub xenvmc: Side,
    /// Median with / median without.
    pub ratio: f64,
    /// Where 90 % of the ratios lie when the runs of each side are drawn again, with repetition: how far noise reaches.
    pub ratio_range: [f64; 2],
    /// The least ratio that is asked for.
    pub goal: Option<f64>,
}

impl RowResult {
    /// Sums up the runs of both sides.
    pub fn new(row: Row, netfront: Side, xenvmc: Side) -> Self {
        let ratio = xenvmc.median / netfront.median;
        let values = |side: &Side| side.values().collect::<Vec<_>>();
        let ratio_range = resample(&values(&netfront), &values(&xenvmc));
        Self {
            test: row.test,
            size: row.size,
            target: row.target,
            name: row.name(),
            unit: row.test.unit().to_owned(),
            per: row.test.per().to_owned(),
            netfront,
            xenvmc,
            ratio,
            ratio_range,
            goal: row.goal,
        }
    }

    /// Runs that did not go the way that is measured.
    pub fn strays(&self) -> usize {
        let sides = [&self.netfront, &self.xenvmc];
        sides
            .iter()
            .flat_map(|side| &side.runs)
            .filter(|run| run.stray.is_some())
            .count()
    }

    /// Whether the goal, if there is one, is met by runs that went the way that is measured.
    pub fn is_met(&self) -> bool {
        self.strays() == 0 && self.goal.is_none_or(|goal| self.ratio >= goal)
    }
}

/// All runs with the modules in one state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Side {
    /// Where the module was.
    pub loaded: Loaded,
    /// The runs in their order.
    pub runs: Vec<Run>,
    /// Median of their values.
    pub median: f64,
    /// Bytes that the rings moved, of all bytes that netperf moved: 0 to 1.
    pub ring_share: f64,
    /// CPU seconds per 1,000 units of work (GB or thousand transactions), all runs together.
    pub cpu_seconds_per_1000: Cpu,
    /// Counts per unit of work, both guests and all runs together.
    pub per_unit: BTreeMap<String, f64>,
}

impl Side {
    /// Sums up the runs, of which there must be one.
    pub fn new(row: Row, loaded: Loaded, runs: Vec<Run>) -> Self {
        let values: Vec<f64> = runs.iter().map(|run| run.value).collect();
        let work: f64 = runs.iter().map(|run| run.work(row.test)).sum();
        let cpu = |of: fn(&Cpu) -> f64| {
            let seconds: f64 = runs.iter().map(|run| of(&run.cpu_seconds)).sum();
            round(seconds / work * 1000.0)
        };
        let mut totals = BTreeMap::<String, u64>::new();
        for counts in runs.iter().flat_map(|run| [&run.client, &run.server]) {
            for (name, count) in counts {
                *totals.entry(name.clone()).or_default() += count;
            }
        }
        let moved: f64 = runs.iter().map(|run| run.bytes(row)).sum();
        // Every byte is sent once and received once.
        let ring = totals.get("rx_bytes").copied().unwrap_or(0) as f64;
        Self {
            loaded,
            median: median(&values),
            ring_share: round((ring / moved).min(1.0)),
            cpu_seconds_per_1000: Cpu {
                dom0: cpu(|c| c.dom0),
                client: cpu(|c| c.client),
                server: cpu(|c| c.server),
            },
            per_unit: totals
                .into_iter()
                .map(|(name, total)| (name, round(total as f64 / work)))
                .collect(),
            runs,
        }
    }

    /// The values of its runs.
    pub fn values(&self) -> impl Iterator<Item = f64> {
        self.runs.iter().map(|run| run.value)
    }

    /// A count per unit of work; 0 when it was not counted.
    pub fn count(&self, name: &str) -> f64 {
        self.per_unit.get(name).copied().unwrap_or(0.0)
    }
}

/// One run of netperf.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// What it found, in the row's unit.
    pub value: f64,
    /// Seconds that it ran.
    pub seconds: f64,
    /// CPU seconds that the domains used meanwhile, in steps of 0.1.
    pub cpu_seconds: Cpu,
    /// What the client's guest counted meanwhile.
    pub client: Counts,
    /// What the server's guest counted meanwhile.
    pub server: Counts,
    /// What speaks against the bytes having gone the way that is measured; none if nothing does.
    pub stray: Option<String>,
}

impl Run {
    /// Puts together what netperf and the machines say.
    pub fn new(found: Found, counted: Snapshot) -> Self {
        let Snapshot {
            cpu,
            client,
            server,
        } = counted;
        Self {
            value: found.value,
            seconds: found.seconds,
            cpu_seconds: cpu,
            client,
            server,
            stray: None,
        }
    }

    /// What was done: million bytes or transactions.
    fn work(&self, test: Test) -> f64 {
        match test.is_stream() {
            true => self.value * self.seconds / 8.0,
            false => self.value * self.seconds,
        }
    }

    /// Bytes that netperf moved in both directions.
    pub fn bytes(&self, row: Row) -> f64 {
        match row.test.is_stream() {
            true => self.work(row.test) * 1e6,
            false => self.work(row.test) * 2.0 * f64::from(row.size),
        }
    }
}

/// What a guest can do by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bound {
    /// `memcpy`, `zero` (reading `/dev/zero`) or netperf's name of a test over loopback.
    pub test: String,
    /// Bytes of a piece.
    pub size: u32,
    /// Unit of the values.
    pub unit: String,
    /// The values in their order.
    pub runs: Vec<f64>,
    /// Their median.
    pub median: f64,
}

/// The value in the middle, or between the two there.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// Ratios of medians of runs that are drawn from those that there are: where the middle 90 % of them lie (percentile
/// bootstrap; Efron, 1979). The same runs give the same range.
fn resample(before: &[f64], after: &[f64]) -> [f64; 2] {
    let mut random = fastrand::Rng::with_seed(0);
    let mut draw = |values: &[f64]| {
        let drawn: Vec<f64> = values
            .iter()
            .filter_map(|_| random.choice(values).copied())
            .collect();
        median(&drawn)
    };
    let mut ratios: Vec<f64> = (0..DRAWS).map(|_| draw(after) / draw(before)).collect();
    ratios.sort_by(f64::total_cmp);
    [
        round(ratios[DRAWS / 20]),
        round(ratios[DRAWS - 1 - DRAWS / 20]),
    ]
}

/// Four decimals are more than any figure here has a right to.
fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(value: f64, rx_bytes: u64) -> Run {
        Run {
            value,
            seconds: 2.0,
            cpu_seconds: Cpu {
                dom0: 1.0,
                client: 0.5,
                server: 0.25,
            },
            client: Counts::new(),
            server: Counts::from([("rx_bytes".to_owned(), rx_bytes)]),
            stray: None,
        }
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn ranges_reach_as_far_as_the_noise() {
        assert_eq!(resample(&[2.0, 2.0], &[3.0, 3.0]), [1.5, 1.5]);
        let [low, high] = resample(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]);
        assert!(low < 1.0 && high > 1.0, "{low} {high}");
    }

    #[test]
    fn side_is_summed_up() {
        let row = Row::new(Test::Stream, 1024);
        // 8 Mb/s for 2 s are 2 MB; half of the bytes went through rings.
        let side = Side::new(row, Loaded::Both, vec![run(8.0, 2_000_000), run(8.0, 0)]);
        assert_eq!(side.ring_share, 0.5);
        assert_eq!(side.cpu_seconds_per_1000.dom0, 500.0);
        assert_eq!(side.count("rx_bytes"), 500_000.0);
        assert_eq!(side.count("never_counted"), 0.0);
    }

    #[test]
    fn transactions_move_bytes_both_ways() {
        let row = Row::new(Test::RequestResponse, 10);
        let side = Side::new(row, Loaded::Both, vec![run(100.0, 4000)]);
        assert_eq!(side.ring_share, 1.0);
    }
}
