// SPDX-License-Identifier: GPL-2.0

//! Guests that are saved, restored, copied and migrated, with whatever runs in them.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lab_driver::{Lab, Machine};

use crate::bench::patience;

/// Time for one of Xen's tools to save, restore or migrate a guest: it moves all of its memory.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Time in which a guest that is back must answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// Time that one attempt to reach it may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(8);

/// Waits until the guest has gone on more often than before, and then until so many of its connections send and receive through the
/// ring; prints the seconds that this took. Runs in the guest.
const STOPWATCH: &str = "cd /sys/kernel/debug/xenvmc
resumes() { sed -n 's/^resumes //p' counters; }
while [ $(resumes) -le BEFORE ]; do usleep 20000; done
read start rest </proc/uptime
until [ $(grep -c ' sends_to=ring receives_ready=1 ' connections) -ge COUNT ]; do usleep 5000; done
read end rest </proc/uptime
echo $start $end";

/// Measures how long it takes a guest that was suspended to be on the ring again.
pub(crate) struct Stopwatch(JoinHandle<Result<String>>);

impl Stopwatch {
    /// Starts to measure, from when the guest goes on after its next suspend, until so many of its connections are on the ring;
    /// `resumes` is how often it has gone on before.
    pub(crate) fn start(lab: &Arc<Lab>, guest: Machine, resumes: u64, connections: usize) -> Self {
        let lab = lab.clone();
        let line = STOPWATCH
            .replace("BEFORE", &resumes.to_string())
            .replace("COUNT", &connections.to_string());
        Self(thread::spawn(move || {
            let output = lab.command(guest, &["/bin/sh", "-c", &line]).run()?;
            Ok(output.success()?.text())
        }))
    }

    /// The time that it took, in seconds.
    pub(crate) fn stop(self) -> Result<f64> {
        let said = self.0.join().expect("the stopwatch panicked")?;
        let times: Vec<f64> = said
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [start, end] = times[..] else {
            bail!("the stopwatch says {said:?}");
        };
        Ok(end - start)
    }
}

/// Suspends a guest, saves it in a file, and restores it from there: a new domain goes on where the old one was.
pub(crate) fn save_and_restore(lab: &Lab, guest: Machine) -> Result<()> {
    save_and_restore_all(lab, &[guest])
}

/// The same with several: all are saved before the first one is restored.
pub(crate) fn save_and_restore_all(lab: &Lab, guests: &[Machine]) -> Result<()> {
    let Some((guest, others)) = guests.split_first() else {
        return Ok(());
    };
    lab.while_away(*guest, || {
        tool(lab, &format!("xl save {guest} {}", file(*guest)))?;
        save_and_restore_all(lab, others)?;
        with_file(lab, *guest, "xl restore")?;
        wait_answer(lab, *guest)
    })
}

/// Saves a guest in a file and lets it go on.
pub(crate) fn checkpoint(lab: &Lab, guest: Machine) -> Result<()> {
    lab.while_away(guest, || {
        with_file(lab, guest, &format!("xl save -c {guest}"))?;
        wait_answer(lab, guest)
    })
}

/// Migrates a guest, while it runs, to a new domain on the same host.
pub(crate) fn migrate(lab: &Lab, guest: Machine) -> Result<()> {
    lab.while_away(guest, || {
        tool(
            lab,
            &format!("xl migrate -s '' {guest} 'xl migrate-receive'"),
        )?;
        wait_answer(lab, guest)
    })
}

/// The file: in Dom0's memory, for which the lab's option `spare` leaves room. /tmp has another, lower limit.
fn file(guest: Machine) -> String {
    format!("/var/{guest}.save")
}

/// Runs a command line that ends with the file, which is removed afterwards.
fn with_file(lab: &Lab, guest: Machine, line: &str) -> Result<()> {
    let file = file(guest);
    tool(
        lab,
        &format!("{line} {file}; status=$?; rm -f {file}; exit $status"),
    )
}

fn tool(lab: &Lab, line: &str) -> Result<()> {
    let command = lab.command(Machine::Dom0, &["/bin/sh", "-c", line]);
    let output = command.timeout(patience(lab, TIMEOUT)).run()?;
    output.success().with_context(|| line.to_owned()).map(drop)
}

fn wait_answer(lab: &Lab, guest: Machine) -> Result<()> {
    let start = Instant::now();
    loop {
        let command = lab.command(guest, &["true"]);
        match command.timeout(ATTEMPT_TIMEOUT).run() {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > patience(lab, ANSWER_TIMEOUT) => {
                return Err(error.context("the guest is back, and does not answer"));
            }
            Err(_) => {}
        }
    }
}
