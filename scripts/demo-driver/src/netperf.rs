// SPDX-License-Identifier: GPL-2.0

//! Runs netperf in a guest and understands what it prints.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result};
use lab_driver::{Lab, Machine};

use crate::plan::{Row, Test};

/// Time that a run has beyond its own length, for its connections.
const GRACE: Duration = Duration::from_secs(30);

/// What one run of netperf found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// In the test's unit.
    pub value: f64,
    /// Seconds it ran.
    pub seconds: f64,
}

/// Makes a guest serve netperf, if it does not yet.
///
/// # Errors
///
/// It does not start, or the guest is gone.
pub fn serve(lab: &Lab, machine: Machine) -> Result<()> {
    lab.shell(
        machine,
        "ss -Hltn 'sport = :12865' | grep -q . || netserver -4 >/dev/null",
    )
    .map(drop)
}

/// netperf's version.
///
/// # Errors
///
/// It does not run, or the guest is gone.
pub fn version(lab: &Lab, machine: Machine) -> Result<String> {
    let text = lab.exec(machine, &["netperf", "-V"])?.text();
    Ok(text
        .split_whitespace()
        .last()
        .unwrap_or_default()
        .to_owned())
}

/// Runs it on `machine` against the server at `server`.
///
/// # Errors
///
/// It fails or takes too long, moves nothing, or the machine is gone.
pub fn run(lab: &Lab, machine: Machine, server: Ipv4Addr, row: Row, seconds: u32) -> Result<Found> {
    let text = print(lab, machine, server, row, seconds)?;
    parse(&text).with_context(|| format!("{machine}: netperf, {row}, printed:\n{text}"))
}

/// Runs it, and returns what it prints; it may have moved nothing.
///
/// # Errors
///
/// It fails or takes too long, or the machine is gone.
pub fn print(
    lab: &Lab,
    machine: Machine,
    server: Ipv4Addr,
    row: Row,
    seconds: u32,
) -> Result<String> {
    let size = row.size;
    let sizes = match row.test {
        test if test.is_stream() => ["-m".to_owned(), size.to_string()],
        _ => ["-r".to_owned(), format!("{size},{size}")],
    };
    let (length, address) = (seconds.to_string(), server.to_string());
    let mut argv = vec![
        "netperf",
        "-H",
        &address,
        "-t",
        row.test.name(),
        "-l",
        &length,
        "-P",
        "0",
        "--",
    ];
    argv.extend(sizes.iter().map(String::as_str));
    // What the network or a full buffer has lost was not moved.
    argv.extend(match row.test {
        Test::Datagrams => ["-k", "REMOTE_RECV_THROUGHPUT,ELAPSED_TIME"],
        _ => ["-k", "THROUGHPUT,ELAPSED_TIME"],
    });
    let time = Duration::from_secs(u64::from(seconds)) + GRACE;
    let command = || format!("{machine}: {}", argv.join(" "));
    let output = lab
        .command(machine, &argv)
        .timeout(time)
        .run()?
        .success()
        .with_context(command)?;
    Ok(output.text())
}

/// Understands lines of `NAME=VALUE`.
///
/// # Errors
///
/// One that is needed is not there, or nothing was moved.
fn parse(text: &str) -> Result<Found> {
    let find = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))
    };
    let value = |name: &str| {
        let line = find(name);
        let number: f64 = line.with_context(|| format!("no {name}"))?.trim().parse()?;
        anyhow::ensure!(number > 0.0, "{name} is {number}");
        anyhow::Ok(number)
    };
    Ok(Found {
        value: match find("THROUGHPUT") {
            Some(_) => value("THROUGHPUT")?,
            None => value("REMOTE_RECV_THROUGHPUT")?,
        },
        seconds: value("ELAPSED_TIME")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_understood() {
        let found = parse("THROUGHPUT=320.50\nELAPSED_TIME=3.02\n").unwrap();
        assert_eq!(
            found,
            Found {
                value: 320.5,
                seconds: 3.02
            }
        );
        let datagrams = parse("REMOTE_RECV_THROUGHPUT=78.1\nELAPSED_TIME=2.00\n").unwrap();
        assert_eq!(datagrams.value, 78.1);
        assert!(parse("THROUGHPUT=0.00\nELAPSED_TIME=3.02\n").is_err());
        assert!(parse("netperf: refused\n").is_err());
    }
}
