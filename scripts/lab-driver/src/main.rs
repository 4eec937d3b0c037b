// SPDX-License-Identifier: GPL-2.0

//! The command line of the lab: `scripts/lab`.

mod report;

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use lab_driver::{Lab, Machine, Options, Progress, Stream, interrupt};

/// Xen in an emulator, with Dom0 and guests.
#[derive(Parser)]
#[command(name = "lab", bin_name = "scripts/lab", version)]
struct Arguments {
    /// Which lab; several run side by side.
    #[arg(long, global = true, default_value = "default", value_name = "LAB")]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a lab and boot it.
    Up(#[command(flatten)] Options),
    /// Run a command on a machine; its output and its exit status become ours.
    Exec {
        /// dom0, guest1, guest2, …
        machine: Machine,
        /// Kill the command after this many seconds; the exit status is 124 then.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<f64>,
        /// Give our standard input to the command.
        #[arg(long, short = 'i')]
        stdin: bool,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Copy a file to a machine.
    Push {
        /// The file here.
        file: PathBuf,
        /// MACHINE:PATH
        target: Place,
    },
    /// Copy a file from a machine.
    Pull {
        /// MACHINE:PATH
        source: Place,
        /// The file here.
        file: PathBuf,
    },
    /// Show the kernel logs and Xen's.
    Log {
        /// dom0, guestN, or xen; all of them if there is none.
        of: Option<report::LogOf>,
    },
    /// Show what a machine's console has shown; Dom0's is also Xen's.
    Console {
        /// dom0, guestN; all of them if there is none.
        machine: Option<Machine>,
    },
    /// Show the labs, and this one's machines with the CPU seconds that each has used.
    Status,
    /// End the lab.
    Down {
        /// End all labs of this checkout.
        #[arg(long)]
        all: bool,
    },
}

/// A file of a machine.
#[derive(Clone)]
struct Place(Machine, String);

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (machine, path) = text.split_once(':').ok_or("MACHINE:PATH is needed")?;
        if !path.starts_with('/') {
            return Err("the path must begin with /".into());
        }
        Ok(Self(machine.parse()?, path.to_owned()))
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            // What ssh has for its own failures.
            ExitCode::from(255)
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let name = &arguments.name;
    interrupt::catch()?;
    match arguments.action {
        Action::Up(options) => {
            Lab::up(name, &options, &mut Progress::to_stderr())?;
        }
        Action::Exec {
            machine,
            timeout,
            stdin,
            command,
        } => {
            return exec(&Lab::open(name)?, machine, timeout, stdin, &command);
        }
        Action::Push {
            file,
            target: Place(machine, path),
        } => {
            Lab::open(name)?.push(&file, machine, &path)?;
        }
        Action::Pull {
            source: Place(machine, path),
            file,
        } => {
            Lab::open(name)?.pull(machine, &path, &file)?;
        }
        Action::Log { of } => report::log(&Lab::open(name)?, of)?,
        Action::Console { machine } => report::console(name, machine)?,
        Action::Status => report::status(name)?,
        Action::Down { all } => {
            let names = if all { Lab::all()? } else { vec![name.clone()] };
            for name in names {
                let was = Lab::down_by_name(&name)?;
                eprintln!("lab: {name} {}", if was { "is down" } else { "was not up" });
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn exec(
    lab: &Lab,
    machine: Machine,
    timeout: Option<f64>,
    stdin: bool,
    argv: &[String],
) -> Result<ExitCode> {
    let mut command = lab.command(machine, argv);
    if let Some(seconds) = timeout {
        let timeout = Duration::try_from_secs_f64(seconds).context("--timeout")?;
        command = command.timeout(timeout);
    }
    if stdin {
        command = command.input(Unbuffered);
    }
    let (status, timed_out) = command.stream(&mut |stream, data| match stream {
        Stream::Output => {
            let mut out = io::stdout().lock();
            out.write_all(data)?;
            out.flush()
        }
        Stream::ErrorOutput => io::stderr().write_all(data),
    })?;
    if timed_out {
        eprintln!("lab: {machine}: the command's time was over");
    }
    match u8::try_from(status) {
        Ok(code) => Ok(ExitCode::from(code)),
        Err(_) => bail!("exit status {status}"),
    }
}

/// Our standard input, without a lock that lives as long as the command.
struct Unbuffered;

impl Read for Unbuffered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::stdin().read(buffer)
    }
}
