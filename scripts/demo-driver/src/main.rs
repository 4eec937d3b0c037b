// SPDX-License-Identifier: GPL-2.0

//! The demo: netperf between two guests of one lab, without and with the modules, in turn.
//! `scripts/demo` calls it.

mod bench;
mod chart;
mod facts;
mod modules;
mod netperf;
mod plan;
mod plots;
mod report;
mod results;
mod screen;
mod snapshot;

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use lab_driver::{Gone, GuestType, Lab, Options, Progress, interrupt};
use rustix::fs::{FlockOperation, flock};

use crate::{
    bench::Bench,
    plan::{Part, Plan},
    results::{CAVEAT, Results},
    screen::Screen,
};

/// Labs that are booted at most, when the emulator breaks one.
const BOOTS_MAX: u32 = 4;

/// The lab's name.
const LAB: &str = "demo";

/// netperf between two guests, without and with the modules, in turn.
#[derive(Parser)]
#[command(name = "demo", bin_name = "scripts/demo", version)]
struct Arguments {
    /// A subset, in under four minutes.
    #[arg(long)]
    quick: bool,
    /// What acceleration costs instead: connections that it does not serve, connections that ask for it, many streams at once.
    #[arg(long, conflicts_with = "quick")]
    costs: bool,
    /// One part of the costs.
    #[arg(long, value_enum, requires = "costs")]
    part: Option<Part>,
    /// How the guests are virtualised.
    #[arg(long = "type", value_enum, default_value_t)]
    kind: GuestType,
    /// Where results.json and, but for costs, report.html go.
    #[arg(long, default_value = "build/demo")]
    output: PathBuf,
    /// Measure nothing: make the report of an earlier results.json.
    #[arg(long, value_name = "RESULTS")]
    from: Option<PathBuf>,
}

fn main() -> ExitCode {
    match demo(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(arguments: &Arguments) -> Result<()> {
    interrupt::catch()?;
    if let Some(path) = &arguments.from {
        let text = fs::read(path).with_context(|| path.display().to_string())?;
        let results = serde_json::from_slice(&text)?;
        return write(&arguments.output, &results, !arguments.costs);
    }
    let plan = match (arguments.quick, arguments.costs) {
        (_, true) => Plan::costs(arguments.part),
        (true, false) => Plan::quick(),
        (false, false) => Plan::full(),
    };
    let options = Options {
        kind: arguments.kind,
        no_modules: true,
        ..Options::default()
    };
    let _lock = lock(&arguments.output)?;
    let mut screen = Screen::new(plan.steps());
    let mut results = Results::new(arguments.quick)?;
    let outcome = loop {
        match boot_and_measure(&options, &plan, &mut screen, &mut results) {
            // A row begins again in the next lab: all its runs are of one boot.
            Err(error)
                if error.is::<Gone>() && results.boots < BOOTS_MAX && !interrupt::pending() =>
            {
                screen.line(&format!("a new lab, from this row on: {error:#}"));
            }
            outcome => break outcome,
        }
    };
    results.seconds = screen.elapsed().as_secs_f64().round();
    if outcome.is_ok() || !results.rows.is_empty() {
        // What was measured before something failed is worth having.
        write(&arguments.output, &results, !arguments.costs)?;
    }
    if let Some(seconds) = facts::seconds_since_begin() {
        println!("{seconds} s in all");
    }
    outcome?;
    conclude(&results)
}

/// Boots a lab, and adds to the results what they do not have yet.
fn boot_and_measure(
    options: &Options,
    plan: &Plan,
    screen: &mut Screen,
    results: &mut Results,
) -> Result<()> {
    // One that could not be taken down.
    Lab::down_by_name(LAB)?;
    let lab = Guard(Some(Lab::up(LAB, options, &mut Progress::to_stderr())?));
    results.boots += 1;
    let outcome = measure(lab.get()?, plan, screen, results);
    lab.down()?;
    outcome
}

fn measure(lab: &Lab, plan: &Plan, screen: &mut Screen, results: &mut Results) -> Result<()> {
    let probe = env::current_exe()?.with_file_name("demo-probe");
    let probe = fs::read(&probe).with_context(|| probe.display().to_string())?;
    results.versions = facts::versions(lab)?;
    results.lab = facts::lab(lab);
    let mut bench = Bench::new(lab, plan, probe, screen)?;
    let outcome = bench
        .rows(&mut results.rows)
        .and_then(|()| bench.no_module(&mut results.no_module))
        .and_then(|()| bench.upgrade(&mut results.upgrade))
        .and_then(|()| bench.bounds(&mut results.bounds));
    results.repeated += bench.repeated();
    outcome?;
    results.problems = lab.problems()?;
    screen.line("");
    Ok(())
}

/// Keeps others from taking down this demo's lab as long as the file lives.
fn lock(directory: &Path) -> Result<File> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let file = File::create(directory.join("lock"))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .ok()
        .context("another demo is running in this checkout")?;
    Ok(file)
}

/// Writes the files and says where they are.
fn write(directory: &Path, results: &Results, with_report: bool) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let json = serde_json::to_string_pretty(results)? + "\n";
    let mut files = vec![("results.json", json)];
    if with_report {
        files.push(("report.html", report::page(results)?));
    }
    for (name, text) in files {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Says what came out; fails when runs did not go the way that is measured.
fn conclude(results: &Results) -> Result<()> {
    println!("{CAVEAT}");
    for problem in &results.problems {
        println!("problem: {problem}");
    }
    let rows = || {
        let compared = results.rows.iter().chain(&results.no_module);
        compared.chain(&results.upgrade)
    };
    let goals = rows().filter(|row| row.goal.is_some()).count();
    let met = rows()
        .filter(|row| row.goal.is_some() && row.is_met())
        .count();
    println!(
        "{met} of {goals} goals met, {} problems in the logs",
        results.problems.len()
    );
    let strays: usize = rows().map(|row| row.strays()).sum();
    ensure!(
        strays == 0,
        "{strays} runs did not go the way that is measured (see above)"
    );
    Ok(())
}

/// A lab that is taken down whatever happens.
struct Guard(Option<Lab>);

impl Guard {
    fn get(&self) -> Result<&Lab> {
        self.0.as_ref().context("the lab is down")
    }

    fn down(mut self) -> Result<()> {
        self.0.take().map_or(Ok(()), Lab::down)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(Lab::down) {
            eprintln!("demo: the lab does not go down: {error:#}");
        }
    }
}
