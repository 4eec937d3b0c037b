// SPDX-License-Identifier: GPL-2.0

//! The lab tests: real guests, real sockets, both modules. See Documentation/testing.md.
//!
//! `xenvmc-lab-tests [--list] [--keep] [--debug-kernel] [NAME…]` runs all tests, or those whose names contain one of the words.

mod bench;
mod cases;
mod logs;
mod pair;
mod peer;
mod suite;

use std::{env, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use lab_driver::{GuestType, interrupt};

use suite::Setting;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab tests: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    interrupt::catch()?;
    let mut words = Vec::new();
    let mut keep = false;
    let mut debug = false;
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--list" => {
                cases::ALL.iter().for_each(|case| println!("{}", case.name));
                return Ok(true);
            }
            "--keep" => keep = true,
            "--debug-kernel" => debug = true,
            option if option.starts_with('-') => {
                bail!("usage: tests/run [--list] [--keep] [--debug-kernel] [NAME…]")
            }
            _ => words.push(argument),
        }
    }
    let programs = env::current_exe()?;
    let programs = programs.parent().context("no directory")?.to_owned();
    let build = PathBuf::from("build").canonicalize().context("build")?;
    let mut suite = suite::Suite::new(programs, build.join("tests"), words, keep);
    if debug {
        suite.run(Setting::Debug)?;
    } else {
        suite.run(Setting::Plain(GuestType::Pvh))?;
        suite.run(Setting::Packages)?;
        suite.run(Setting::Plain(GuestType::Pv))?;
    }
    Ok(suite.sum_up())
}
