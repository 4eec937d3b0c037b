// SPDX-License-Identifier: GPL-2.0

//! What the command line shows of a lab.

use std::{
    io::{self, Write},
    str::FromStr,
};

use anyhow::{Result, bail};
use lab_driver::{Lab, Machine};

/// Whose log.
#[derive(Clone, Copy)]
pub(crate) enum LogOf {
    /// The hypervisor's.
    Xen,
    /// A kernel's.
    Kernel(Machine),
}

impl FromStr for LogOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "xen" {
            Ok(Self::Xen)
        } else {
            text.parse().map(Self::Kernel)
        }
    }
}

/// Prints one log as it is, or all with their machine's name before each line.
///
/// # Errors
///
/// The one machine that was asked for does not answer; nobody reads what we print.
pub(crate) fn log(lab: &Lab, of: Option<LogOf>) -> Result<()> {
    let mut out = io::stdout().lock();
    match of {
        Some(LogOf::Xen) => writeln!(out, "{}", lab.xen_log()?)?,
        Some(LogOf::Kernel(machine)) => writeln!(out, "{}", lab.kernel_log(machine)?)?,
        None => {
            prefixed(&mut out, "xen", &or_error(lab.xen_log()))?;
            for machine in lab.machines() {
                prefixed(
                    &mut out,
                    &machine.to_string(),
                    &or_error(lab.kernel_log(machine)),
                )?;
            }
        }
    }
    Ok(())
}

/// Prints one console as it is, or all with their machine's name before each line.
///
/// # Errors
///
/// There is no such lab; nobody reads what we print.
pub(crate) fn console(name: &str, machine: Option<Machine>) -> Result<()> {
    let lab = Lab::open(name)?;
    let mut out = io::stdout().lock();
    match machine {
        Some(machine) => write!(out, "{}", lab.console(machine))?,
        None => {
            for machine in lab.machines() {
                prefixed(&mut out, &machine.to_string(), &lab.console(machine))?;
            }
        }
    }
    Ok(())
}

/// Prints all labs, and the domains of one.
///
/// # Errors
///
/// The lab does not answer.
pub(crate) fn status(name: &str) -> Result<()> {
    let names = Lab::all()?;
    for name in &names {
        let Ok(lab) = Lab::open(name) else { continue };
        let options = lab.options();
        println!(
            "{name}: {}, {} {} guests, {} vCPU, {} MiB, Linux {}, {}",
            if lab.is_ready() { "up" } else { "coming up" },
            options.guests,
            options.kind.name(),
            options.vcpus,
            lab.guest_memory(),
            lab.kernel_release(),
            lab.directory().display(),
        );
    }
    if !names.iter().any(|known| known == name) {
        bail!("there is no lab {name}");
    }
    println!(
        "{:12} {:>3} {:>6} {:>5} {:>6} {:>9}",
        "machine", "id", "MiB", "vCPUs", "state", "CPU s"
    );
    for domain in Lab::open(name)?.domains()? {
        let machine = if domain.name == "Domain-0" {
            "dom0"
        } else {
            &domain.name
        };
        println!(
            "{machine:12} {:>3} {:>6} {:>5} {:>6} {:>9.1}",
            domain.id, domain.memory, domain.vcpus, domain.state, domain.cpu_seconds
        );
    }
    Ok(())
}

fn prefixed(out: &mut impl Write, name: &str, text: &str) -> io::Result<()> {
    for line in text.lines() {
        writeln!(out, "{name:7}| {}", line.trim_end())?;
    }
    Ok(())
}

fn or_error(log: Result<String>) -> String {
    log.unwrap_or_else(|error| format!("{error:#}"))
}
