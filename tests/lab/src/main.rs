// SPDX-License-Identifier: GPL-2.0

//! The lab tests: real guests, real sockets, both modules. See Documentation/testing.md.

mod bench;
mod cases;
mod dice;
mod logs;
mod pair;
mod peer;
mod plot;
mod suite;
mod travel;

use std::{env, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use lab_driver::{GuestType, interrupt};

use suite::Setting;

/// The lab tests: real guests, real sockets, both modules.
#[derive(Parser)]
#[command(name = "tests/run", bin_name = "tests/run")]
struct Arguments {
    /// Print the names of all tests.
    #[arg(long)]
    list: bool,
    /// Leave the lab up.
    #[arg(long)]
    keep: bool,
    /// Let the guests run the kernel of scripts/debug-kernel.
    #[arg(long)]
    debug_kernel: bool,
    /// Give each guest two virtual CPUs; the guests share three emulated ones, Dom0 has a fourth.
    #[arg(long, conflicts_with = "debug_kernel")]
    two_cpus: bool,
    /// Words that the names of the tests to run contain; without one, all tests but those that take minutes.
    names: Vec<String>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab tests: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> Result<bool> {
    if arguments.list {
        cases::ALL.iter().for_each(|case| println!("{}", case.name));
        return Ok(true);
    }
    interrupt::catch()?;
    let programs = env::current_exe()?;
    let programs = programs.parent().context("no directory")?.to_owned();
    let build = PathBuf::from("build").canonicalize().context("build")?;
    let mut suite = suite::Suite::new(
        programs,
        build.join("tests"),
        arguments.names,
        arguments.keep,
    );
    if arguments.debug_kernel {
        suite.run(Setting::Debug)?;
    } else if arguments.two_cpus {
        suite.run(Setting::TwoCpus)?;
    } else {
        suite.run(Setting::Plain(GuestType::Pvh))?;
        suite.run(Setting::Hosts)?;
        suite.run(Setting::Many)?;
        suite.run(Setting::Packages)?;
        suite.run(Setting::Plain(GuestType::Pv))?;
    }
    Ok(suite.sum_up())
}
