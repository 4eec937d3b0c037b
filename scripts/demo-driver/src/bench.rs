// SPDX-License-Identifier: GPL-2.0

//! Carries out a plan in a lab: rows of netperf with the modules in two states, in turn, and what a
//! guest can do by itself.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use lab_driver::{Gone, Lab, interrupt};

use crate::{
    modules::{Loaded, Modules},
    netperf::{self, Found},
    plan::{Plan, Row, Target, Test},
    results::{Bound, RowResult, Run, Side, median},
    screen::Screen,
    snapshot::{CLIENT, Counts, SERVER, Snapshot},
};

/// Where the probe is put in a guest.
const PROBE: &str = "/tmp/demo-probe";

/// Port on which the server's probe takes streams.
const PORT: &str = "7799";

/// Milliseconds for one run of the probe.
const PROBE_MS: &str = "500";

/// Seconds for one run over loopback.
const LOOPBACK_SECONDS: u32 = 1;

/// Part of the payload that must have gone the way that was meant. The rest is that of the
/// connection's first messages, and of netperf's own.
const MOST: f64 = 0.9;

/// A lab with all that a plan needs.
pub struct Bench<'a> {
    lab: &'a Lab,
    plan: &'a Plan,
    modules: Modules<'a>,
    screen: &'a mut Screen,
    repeated: u32,
}

impl<'a> Bench<'a> {
    /// Puts everything into place; no frontend is loaded.
    ///
    /// # Errors
    ///
    /// A machine refuses, or is gone.
    pub fn new(
        lab: &'a Lab,
        plan: &'a Plan,
        probe: Vec<u8>,
        screen: &'a mut Screen,
    ) -> Result<Self> {
        let modules = Modules::new(lab)?;
        netperf::serve(lab, SERVER)?;
        netperf::serve(lab, CLIENT)?;
        for guest in [CLIENT, SERVER] {
            lab.push_bytes(probe.clone(), 0o755, guest, PROBE)?;
        }
        let sink = format!("{PROBE} sink {PORT} </dev/null >/dev/null 2>&1 &");
        lab.shell(SERVER, &sink)?;
        Ok(Self {
            lab,
            plan,
            modules,
            screen,
            repeated: 0,
        })
    }

    /// Runs that failed, and were done again.
    pub fn repeated(&self) -> u32 {
        self.repeated
    }

    /// Netfront against xenvmc; complete rows are added one by one.
    ///
    /// # Errors
    ///
    /// A run fails, or a machine is gone.
    pub fn rows(&mut self, rows: &mut Vec<RowResult>) -> Result<()> {
        let plan = self.plan;
        self.screen.title_rows();
        for &row in plan.rows.iter().skip(rows.len()) {
            rows.push(self.compare(row, Loaded::Nowhere, Loaded::Both)?);
        }
        Ok(())
    }

    /// No module against the module in the client alone; complete rows are added one by one.
    ///
    /// # Errors
    ///
    /// As for [`Bench::rows`].
    pub fn no_module(&mut self, rows: &mut Vec<RowResult>) -> Result<()> {
        let plan = self.plan;
        self.screen.title_no_module();
        for &row in plan.no_module.iter().skip(rows.len()) {
            rows.push(self.compare(row, Loaded::Nowhere, Loaded::Client)?);
        }
        Ok(())
    }

    /// Connections that ask for rings as late as usual against those that ask at once; complete rows are added one by one.
    ///
    /// # Errors
    ///
    /// As for [`Bench::rows`].
    pub fn upgrade(&mut self, rows: &mut Vec<RowResult>) -> Result<()> {
        let plan = self.plan;
        if !plan.upgrade.is_empty() {
            self.screen.title_upgrade();
        }
        for &row in plan.upgrade.iter().skip(rows.len()) {
            let result = self.compare(row, Loaded::Both, Loaded::Asking)?;
            self.screen.line(&cost_of_asking(&result));
            rows.push(result);
        }
        Ok(())
    }

    /// What a guest can do by itself, without the module; added one by one.
    ///
    /// # Errors
    ///
    /// As for [`Bench::rows`].
    pub fn bounds(&mut self, bounds: &mut Vec<Bound>) -> Result<()> {
        let plan = self.plan;
        if plan.bound_runs == 0 {
            return Ok(());
        }
        self.modules.load(Loaded::Nowhere)?;
        self.screen.title_bounds();
        // Those that an earlier lab has done.
        let done: Vec<(String, u32)> = bounds.iter().map(|b| (b.test.clone(), b.size)).collect();
        let is_due = |test: &str, size| !done.iter().any(|(t, s)| t == test && *s == size);
        for &size in &plan.bound_streams {
            for what in ["memcpy", "zero"] {
                if is_due(what, size) {
                    bounds.push(self.bound(what, "MB/s", size, |lab| probe(lab, what, size))?);
                }
            }
        }
        let streams = plan.bound_streams.iter().map(|&size| (Test::Stream, size));
        let transactions = plan.bound_transactions.iter();
        let transactions = transactions.map(|&size| (Test::RequestResponse, size));
        for (test, size) in streams.chain(transactions) {
            let row = Row::new(test, size);
            if is_due(test.name(), size) {
                bounds.push(self.bound(test.name(), test.unit(), size, |lab| loopback(lab, row))?);
            }
        }
        Ok(())
    }

    /// Runs of `row` with the modules as `without` and as `with` say, in turn. Which of the two comes
    /// first alternates, so that a drift of the host's speed is not in anybody's favour.
    fn compare(&mut self, row: Row, without: Loaded, with: Loaded) -> Result<RowResult> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for number in 0..row.runs {
            let mut order = [without, with];
            if number % 2 == 1 {
                order.reverse();
            }
            for loaded in order {
                let step = format!("{row}, {loaded}, run {} of {}", number + 1, row.runs);
                self.screen.step(&step);
                let run = self.run_or_repeat(row, loaded)?;
                if loaded == with {
                    after.push(run)
                } else {
                    before.push(run)
                }
            }
        }
        let netfront = Side::new(row, without, before);
        let result = RowResult::new(row, netfront, Side::new(row, with, after));
        self.screen.row(&result);
        Ok(result)
    }

    /// A run; if it fails, once more, as long as the machines are there: under emulation an interrupt is lost now and then.
    fn run_or_repeat(&mut self, row: Row, loaded: Loaded) -> Result<Run> {
        let what = format!("{row}, {loaded}");
        let error = match self.run(row, loaded) {
            Err(error) if !error.is::<Gone>() && !interrupt::pending() => error,
            result => return result.context(what),
        };
        self.screen
            .line(&format!("{what}: failed, and is repeated: {error:#}"));
        self.repeated += 1;
        self.run(row, loaded).context(what)
    }

    fn run(&mut self, row: Row, loaded: Loaded) -> Result<Run> {
        interrupt::check()?;
        self.modules.load(loaded)?;
        let earlier = Snapshot::take(self.lab)?;
        let found = match (row.test, row.target) {
            (Test::Streams, _) => streams(self.lab, row, self.plan.seconds)?,
            (_, Target::Server) => {
                netperf::run(self.lab, CLIENT, SERVER.address(), row, self.plan.seconds)?
            }
            (_, Target::Loopback) => netperf::run(
                self.lab,
                CLIENT,
                Ipv4Addr::LOCALHOST,
                row,
                self.plan.seconds,
            )?,
        };
        let later = Snapshot::take(self.lab)?;
        for snapshot in [&earlier, &later] {
            let is_loaded = |counts: &Counts| counts.get("module_loaded").is_some_and(|&n| n == 1);
            let is = (is_loaded(&snapshot.client), is_loaded(&snapshot.server));
            let shall = (loaded.in_client(), loaded.in_server());
            ensure!(
                is == shall,
                "the module is loaded (client, server): {is:?}, not {shall:?}"
            );
        }
        let mut run = Run::new(found, later.since(&earlier));
        run.stray = stray(row, loaded, &run);
        if let Some(stray) = &run.stray {
            self.screen
                .line(&format!("{row}, {loaded}: went the wrong way: {stray}"));
            for machine in [CLIENT, SERVER] {
                self.screen.line(&self.modules.account(machine)?);
            }
        }
        Ok(run)
    }

    fn bound(
        &mut self,
        test: &str,
        unit: &str,
        size: u32,
        run: impl Fn(&Lab) -> Result<f64>,
    ) -> Result<Bound> {
        let mut runs = Vec::new();
        for number in 1..=self.plan.bound_runs {
            interrupt::check()?;
            self.screen.step(&format!(
                "{test} {size} B in one guest, run {number} of {}",
                self.plan.bound_runs
            ));
            runs.push(run(self.lab)?);
        }
        let median = median(&runs);
        let bound = Bound {
            test: test.to_owned(),
            size,
            unit: unit.to_owned(),
            runs,
            median,
        };
        self.screen.bound(&bound);
        Ok(bound)
    }
}

/// What speaks against a run's bytes having gone the way that is measured; none if nothing does.
fn stray(row: Row, loaded: Loaded, run: &Run) -> Option<String> {
    let sum = |name: &str| {
        let of = |counts: &Counts| counts.get(name).copied().unwrap_or(0);
        (of(&run.client) + of(&run.server)) as f64
    };
    let streams = sum("tx_bytes").min(sum("rx_bytes"));
    let datagrams = sum("udp_tx_bytes").min(sum("udp_rx_bytes"));
    let (ring, received) = (streams + datagrams, sum("eth0_rx_bytes"));
    let payload = run.bytes(row);
    let as_meant = match loaded {
        // A connection with one request is over before it is worth a ring.
        Loaded::Both if row.test == Test::ConnectRequestResponse => true,
        Loaded::Both => ring >= MOST * payload,
        Loaded::Asking => sum("requests_sent") > 0.0,
        Loaded::Nowhere | Loaded::Client if row.target == Target::Loopback => ring == 0.0,
        Loaded::Nowhere | Loaded::Client => ring == 0.0 && received >= MOST * payload,
    };
    (!as_meant).then(|| {
        format!("of {payload:.0} bytes, {ring:.0} went through rings, {received:.0} through eth0")
    })
}

/// What a connection costs that asks for a ring at once, beyond what it costs anyway.
fn cost_of_asking(row: &RowResult) -> String {
    let more = |name: &str| row.xenvmc.count(name) - row.netfront.count(name);
    let microseconds = (1.0 / row.xenvmc.median - 1.0 / row.netfront.median) * 1e6;
    let cpu = row.xenvmc.cpu_seconds_per_1000.sum() - row.netfront.cpu_seconds_per_1000.sum();
    format!(
        "  per connection: {:.2} requests, {:.2} rings agreed, {:.2} notices, {:.2} events, {microseconds:.0} us, {:.0} us of CPU",
        more("requests_sent"),
        more("upgrades") / 2.0,
        more("notices_sent"),
        more("events_sent"),
        cpu * 1e3
    )
}

/// Several streams at once from the client's guest to the server's.
fn streams(lab: &Lab, row: Row, seconds: u32) -> Result<Found> {
    let numbers = [row.size, seconds * 1000, row.streams, row.slow].map(|n| n.to_string());
    let address = SERVER.address().to_string();
    let mut argv = vec![PROBE, "streams", &address, PORT];
    argv.extend(numbers.iter().map(String::as_str));
    let text = lab.exec(CLIENT, &argv)?.text();
    let rate: f64 = text
        .parse()
        .with_context(|| format!("{PROBE} printed: {text}"))?;
    Ok(Found {
        value: rate * 8.0 / 1e6,
        seconds: f64::from(seconds),
    })
}

fn probe(lab: &Lab, what: &str, size: u32) -> Result<f64> {
    let text = lab
        .exec(CLIENT, &[PROBE, what, &size.to_string(), PROBE_MS])?
        .text();
    let rate: f64 = text
        .parse()
        .with_context(|| format!("{PROBE} printed: {text}"))?;
    Ok((rate / 1e6).round())
}

fn loopback(lab: &Lab, row: Row) -> Result<f64> {
    let Found { value, .. } =
        netperf::run(lab, CLIENT, Ipv4Addr::LOCALHOST, row, LOOPBACK_SECONDS)?;
    Ok(value)
}
