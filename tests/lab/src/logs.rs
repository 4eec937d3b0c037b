// SPDX-License-Identifier: GPL-2.0

//! What the kernels and Xen have said during a test. Reading takes it out of their buffers, so that
//! nothing is seen twice and nothing is lost when a buffer wraps.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow};
use lab_driver::{Lab, Machine, scan};

use crate::bench::patience;

/// Time for reading a log.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Lines that are shown of those that report something wrong; all are kept.
const PROBLEMS_SHOWN: usize = 6;

/// Signs of trouble besides those that every lab looks for.
const SIGNS: [&str; 9] = [
    "self-detected stall",
    "rcu: INFO",
    "invalid opcode",
    "page fault at",
    "Triple fault",
    "broke the protocol",
    "the channel does not end",
    "keys not taken back",
    "were not given back",
];

/// The logs, by the names of those who write them.
#[derive(Default)]
pub(crate) struct Logs(BTreeMap<String, String>);

impl Logs {
    /// Takes what is new. A machine that does not answer any more says so in its log.
    pub(crate) fn collect(&mut self, lab: &Lab, machines: impl Iterator<Item = Machine>) {
        for machine in machines {
            let text = run(lab, machine, &["/bin/busybox", "dmesg", "-c"]);
            let text =
                text.unwrap_or_else(|error| format!("BUG: {machine} does not answer: {error:#}\n"));
            self.0
                .entry(machine.to_string())
                .or_default()
                .push_str(&text);
        }
        if let Err(error) = self.collect_xen(lab) {
            self.0
                .entry("xen".into())
                .or_default()
                .push_str(&format!("BUG: no log: {error:#}\n"));
        }
    }

    /// Takes and returns what is new in Xen's log.
    pub(crate) fn collect_xen(&mut self, lab: &Lab) -> Result<String> {
        let text = run(lab, Machine::Dom0, &["xl", "dmesg", "-c"])?;
        self.0.entry("xen".into()).or_default().push_str(&text);
        Ok(text)
    }

    /// The log of one of them.
    pub(crate) fn of(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Lines that report something wrong, each with the name of who wrote it.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, text) in &self.0 {
            let text = &without_refusals(text);
            let more = text
                .lines()
                .filter(|line| SIGNS.iter().any(|sign| line.contains(sign)));
            let lines = scan::problems(text)
                .into_iter()
                .chain(more.map(String::from));
            found.extend(lines.map(|line| format!("{name}: {line}")));
        }
        found
    }

    /// `result`, or an error with what they report as wrong, if they do.
    pub(crate) fn check(&self, result: Result<()>) -> Result<()> {
        let problems = self.problems();
        if problems.is_empty() {
            return result;
        }
        let first = &problems[..problems.len().min(PROBLEMS_SHOWN)];
        let report = format!(
            "the logs report {} lines:\n{}",
            problems.len(),
            first.join("\n")
        );
        match result {
            Ok(()) => Err(anyhow!(report)),
            Err(error) => Err(error.context(report)),
        }
    }

    /// Writes them into files of a directory.
    pub(crate) fn keep(&self, directory: &Path) -> Result<()> {
        for (name, text) in &self.0 {
            let path = directory.join(format!("{name}.log"));
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

/// A log without the stacks of tasks that kept a suspend from happening: an `rmmod` that waits for the thread that suspends does that
/// (Documentation/lifecycle.md §4). A test that wants the suspend fails all the same.
fn without_refusals(text: &str) -> String {
    let (mut refuses, mut is_refusal) = (false, false);
    let mut kept = String::new();
    for line in text.lines() {
        is_refusal |= refuses && line.contains("task:rmmod ");
        refuses = line.contains("tasks refusing to freeze");
        if !is_refusal {
            kept += line;
            kept.push('\n');
        }
        is_refusal &= !line.contains("</TASK>");
    }
    kept
}

fn run(lab: &Lab, machine: Machine, argv: &[&str]) -> Result<String> {
    Ok(lab
        .command(machine, argv)
        .timeout(patience(lab, TIMEOUT))
        .run()?
        .success()?
        .text()
        + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_removal_says() {
        let refusal = "Freezing user space processes failed after 20.003 seconds (1 tasks refusing to freeze, wq_busy=0):\n";
        let stack = |task: &str| format!("task:{task} state:D\nCall Trace:\n </TASK>\n");
        let log = format!("before\n{refusal}{}after\n", stack("rmmod"));
        assert_eq!(without_refusals(&log), format!("before\n{refusal}after\n"));
        let log = format!("{refusal}{}{}", stack("sh"), stack("rmmod"));
        assert_eq!(without_refusals(&log), log);
    }
}
