// SPDX-License-Identifier: GPL-2.0

//! Loads and removes the frontend in the guests, between runs.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use lab_driver::{Lab, Machine};
use serde::{Deserialize, Serialize};

use crate::{
    netperf,
    plan::{Row, Test},
    snapshot::{CLIENT, SERVER},
};

/// Where a lab has the modules.
const DIRECTORY: &str = "/lib/xenvmc";

/// The frontend's list of peers.
const PEERS: &str = "/sys/kernel/debug/xenvmc/peers";

/// Time in which two guests must have found each other and have a channel.
const CHANNEL_TIMEOUT: Duration = Duration::from_secs(60);

/// What makes the guests open their channel.
const WARM_UP: Row = Row::new(Test::RequestResponse, 1);

/// Prints what the frontend knows, and the last of what it told the kernel's log.
const ACCOUNT: &str = "cd /sys/kernel/debug/xenvmc && { cat peers connections; \
     awk '$3 + $4 { print \"declined:\", $0 }' declines; }; dmesg | grep xenvmc | tail -n 5; true";

/// How often we look whether they have.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// In which guests the frontend is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loaded {
    /// In none.
    Nowhere,
    /// In the client's.
    Client,
    /// In both.
    Both,
    /// In both, and connections ask for a ring at once.
    Asking,
}

impl Loaded {
    /// Whether it is loaded in the client's guest.
    pub fn in_client(self) -> bool {
        self != Self::Nowhere
    }

    /// Whether it is loaded in the server's.
    pub fn in_server(self) -> bool {
        matches!(self, Self::Both | Self::Asking)
    }

    fn parameters(self) -> &'static str {
        match self {
            Self::Nowhere | Self::Client | Self::Both => "",
            Self::Asking => "upgrade_calls=0",
        }
    }
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nowhere => "netfront",
            Self::Client => "client only",
            Self::Both => "xenvmc",
            Self::Asking => "asks at once",
        })
    }
}

/// The frontends of the two guests.
pub struct Modules<'a> {
    lab: &'a Lab,
    loaded: Loaded,
}

impl<'a> Modules<'a> {
    /// Loads the backend in Dom0. The frontends are not loaded.
    ///
    /// # Errors
    ///
    /// There are no modules, `insmod` fails, or Dom0 is gone.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        insmod(lab, Machine::Dom0, "backend", "")?;
        Ok(Self {
            lab,
            loaded: Loaded::Nowhere,
        })
    }

    /// Makes it so, and waits until the guests have a channel when both have it.
    ///
    /// # Errors
    ///
    /// `insmod` or `rmmod` fails, the guests have no channel after a time, or a machine is gone.
    pub fn load(&mut self, wanted: Loaded) -> Result<()> {
        if self.loaded == wanted {
            return Ok(());
        }
        if self.loaded.parameters() != wanted.parameters() {
            self.change(Loaded::Nowhere)?;
        }
        self.change(wanted)?;
        if wanted.in_server() {
            self.await_channel()?;
        }
        Ok(())
    }

    /// Loads and removes frontends.
    fn change(&mut self, wanted: Loaded) -> Result<()> {
        let (lab, old) = (self.lab, self.loaded);
        let change = |machine, is_loaded, shall_be| match (is_loaded, shall_be) {
            (false, true) => insmod(lab, machine, "frontend", wanted.parameters()),
            (true, false) => rmmod(lab, machine),
            _ => Ok(()),
        };
        thread::scope(|scope| {
            let server = scope.spawn(|| change(SERVER, old.in_server(), wanted.in_server()));
            change(CLIENT, old.in_client(), wanted.in_client())?;
            server.join().map_err(|_| anyhow!("a loader panicked"))?
        })?;
        self.loaded = wanted;
        Ok(())
    }

    /// What the frontend of a guest says about peers, connections and reasons for plain TCP.
    ///
    /// # Errors
    ///
    /// The guest is gone.
    pub fn account(&self, machine: Machine) -> Result<String> {
        let text = self.lab.shell(machine, ACCOUNT)?.text();
        let lines: Vec<String> = text
            .lines()
            .map(|line| format!("  {machine}: {line}"))
            .collect();
        Ok(lines.join("\n"))
    }

    /// Waits until the client knows the server and has a channel to it, which comes with the first
    /// connection.
    fn await_channel(&self) -> Result<()> {
        let (start, address) = (Instant::now(), SERVER.address().to_string());
        loop {
            let peers = self.lab.exec(CLIENT, &["cat", PEERS])?.text();
            let has_address = |line: &&str| line.split([' ', '=', ',']).any(|word| word == address);
            match peers.lines().find(has_address) {
                Some(line) if line.contains("state=Open") => return Ok(()),
                Some(_) => {
                    // How much it moves does not matter.
                    netperf::print(self.lab, CLIENT, SERVER.address(), WARM_UP, 1)?;
                }
                None => thread::sleep(LOOK_PERIOD),
            }
            if start.elapsed() > CHANNEL_TIMEOUT {
                let seconds = CHANNEL_TIMEOUT.as_secs();
                bail!(
                    "{CLIENT} has no channel to {SERVER} after {seconds} s:\n{}",
                    self.account(CLIENT)?
                );
            }
        }
    }
}

fn rmmod(lab: &Lab, machine: Machine) -> Result<()> {
    lab.exec(machine, &["rmmod", "xenvmc_frontend"])
        .map(drop)
        .context("removing the frontend")
}

fn insmod(lab: &Lab, machine: Machine, which: &str, parameters: &str) -> Result<()> {
    let path = format!("{DIRECTORY}/xenvmc_{which}.ko");
    let mut argv = vec!["insmod", &path];
    argv.extend(parameters.split_whitespace());
    lab.exec(machine, &argv)
        .map(drop)
        .with_context(|| format!("loading the {which}"))
}
