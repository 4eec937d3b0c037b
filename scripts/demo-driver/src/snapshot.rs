// SPDX-License-Identifier: GPL-2.0

//! What the machines have counted so far, and the difference of two such readings.

use std::{collections::BTreeMap, thread};

use anyhow::{Context, Result, anyhow};
use lab_driver::{Lab, Machine};
use serde::{Deserialize, Serialize};

/// The guest in which netperf runs.
pub const CLIENT: Machine = Machine::Guest(1);
/// The guest in which netserver runs.
pub const SERVER: Machine = Machine::Guest(2);

/// Names of counters and their values.
pub type Counts = BTreeMap<String, u64>;

/// Prints a line `NAME VALUE` for each counter of a guest. The interrupts are those of the
/// interface under test, of all its queues.
const READ_GUEST: &str = "cd /sys/class/net/eth0/statistics; \
     for f in tx_bytes rx_bytes tx_packets rx_packets; do echo eth0_$f $(cat $f); done; \
     awk '/eth0/ { n += $2 } END { print \"eth0_interrupts\", n + 0 }' /proc/interrupts; \
     awk '$1 == \"ctxt\" { print \"context_switches\", $2 }' /proc/stat; \
     grep -c '^xenvmc_frontend ' /proc/modules | sed 's/^/module_loaded /'; \
     cat /sys/kernel/debug/xenvmc/counters 2>/dev/null; true";

/// CPU seconds of the domains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Dom0's.
    pub dom0: f64,
    /// The guest's in which netperf runs.
    pub client: f64,
    /// The guest's in which netserver runs.
    pub server: f64,
}

impl Cpu {
    /// All together.
    pub fn sum(&self) -> f64 {
        self.dom0 + self.client + self.server
    }
}

/// A reading, or the difference of two.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// CPU seconds of the domains.
    pub cpu: Cpu,
    /// The counters of the client's guest.
    pub client: Counts,
    /// The counters of the server's guest.
    pub server: Counts,
}

impl Snapshot {
    /// Reads all.
    ///
    /// # Errors
    ///
    /// A machine is gone or says something unexpected.
    pub fn take(lab: &Lab) -> Result<Self> {
        thread::scope(|scope| {
            let server = scope.spawn(|| read_guest(lab, SERVER));
            let client = scope.spawn(|| read_guest(lab, CLIENT));
            let cpu = read_cpu(lab);
            let join = |handle: thread::ScopedJoinHandle<'_, Result<Counts>>| {
                handle.join().map_err(|_| anyhow!("a reader panicked"))?
            };
            Ok(Self {
                cpu: cpu?,
                client: join(client)?,
                server: join(server)?,
            })
        })
    }

    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = |now: &Counts, then: &Counts| {
            let difference = |(name, value): (&String, &u64)| {
                (
                    name.clone(),
                    value.saturating_sub(then.get(name).copied().unwrap_or(0)),
                )
            };
            now.iter().map(difference).collect()
        };
        let seconds = |now: f64, then: f64| ((now - then) * 10.0).round() / 10.0;
        Self {
            cpu: Cpu {
                dom0: seconds(self.cpu.dom0, earlier.cpu.dom0),
                client: seconds(self.cpu.client, earlier.cpu.client),
                server: seconds(self.cpu.server, earlier.cpu.server),
            },
            client: counts(&self.client, &earlier.client),
            server: counts(&self.server, &earlier.server),
        }
    }
}

fn read_guest(lab: &Lab, machine: Machine) -> Result<Counts> {
    let text = lab.shell(machine, READ_GUEST)?.text();
    parse(&text).with_context(|| format!("counters of {machine}"))
}

fn parse(text: &str) -> Result<Counts> {
    text.lines()
        .map(|line| {
            let (name, value) = line.split_once(' ').with_context(|| line.to_owned())?;
            Ok((
                name.to_owned(),
                value.trim().parse().with_context(|| line.to_owned())?,
            ))
        })
        .collect()
}

fn read_cpu(lab: &Lab) -> Result<Cpu> {
    let domains = lab.domains()?;
    let of = |name: &str| {
        let domain = domains.iter().find(|domain| domain.name == name);
        domain
            .map(|domain| domain.cpu_seconds)
            .with_context(|| format!("Xen does not know {name}"))
    };
    Ok(Cpu {
        dom0: of("Domain-0")?,
        client: of(&CLIENT.to_string())?,
        server: of(&SERVER.to_string())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_those_of_each_counter() {
        let reading = |text| Snapshot {
            client: parse(text).unwrap(),
            ..Snapshot::default()
        };
        let (earlier, later) = (reading("tx_bytes 5\nold 1"), reading("tx_bytes 9\nnew 3"));
        let difference = later.since(&earlier);
        assert_eq!(difference.client, parse("tx_bytes 4\nnew 3").unwrap());
        assert!(parse("tx_bytes").is_err());
    }
}
