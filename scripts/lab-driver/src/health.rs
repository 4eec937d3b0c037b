// SPDX-License-Identifier: GPL-2.0

//! Whether a lab's machines are well.

use std::time::Duration;

use anyhow::Result;

use crate::{lab::Lab, machine::Machine, scan};

/// Time in which a machine that does not stand still answers, or does something else.
const STILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Clock ticks of processor time that the emulator itself may use meanwhile. Xen's own timers alone take more.
const STILL_TICKS: u64 = 20;

/// Lines of a console that are shown.
const CONSOLE_END: usize = 60;

impl Lab {
    /// Whatever is wrong in any log of the lab: lines of the kernels and of Xen that report a bug,
    /// a warning or a leak, each with its machine's name before it.
    ///
    /// # Errors
    ///
    /// A machine is [`Gone`](crate::Gone).
    pub fn problems(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for machine in self.machines() {
            let lines = scan::problems(&self.kernel_log(machine)?);
            found.extend(lines.into_iter().map(|line| format!("{machine}: {line}")));
        }
        let lines = scan::problems(&self.xen_log()?);
        found.extend(lines.into_iter().map(|line| format!("xen: {line}")));
        Ok(found)
    }

    /// Whether the emulated machine stands still: Dom0 does not answer, and the emulator uses no processor time, as if all
    /// processors were halted and nothing could wake them. No software in it can do that to a machine whose timers run.
    pub fn stands_still(&self) -> bool {
        let before = self.cpu_ticks();
        let command = self.command(Machine::Dom0, &["true"]);
        let answers = command.timeout(STILL_TIMEOUT).run().is_ok();
        let used = before.and_then(|before| Some(self.cpu_ticks()? - before));
        !answers && used.is_some_and(|used| used < STILL_TICKS)
    }

    /// What is wrong with a machine, with the end of its console; none if nothing seems to be.
    pub(crate) fn trouble(&self, machine: Machine) -> Option<String> {
        let end = |machine| self.console_end(machine);
        if !self.is_alive() {
            return Some(format!(
                "is gone: the emulator has ended\n{}",
                end(Machine::Dom0)
            ));
        }
        if scan::is_dead(&self.console(Machine::Dom0)) {
            return Some(format!(
                "is gone: Xen or Dom0 has crashed\n{}",
                end(Machine::Dom0)
            ));
        }
        if machine == Machine::Dom0 || self.is_away(machine) {
            return None;
        }
        match self.domains() {
            Err(error) => Some(format!("cannot be looked after: {error:#}")),
            Ok(domains) => match domains
                .iter()
                .find(|domain| domain.name == machine.to_string())
            {
                None => Some(format!("does not exist any more\n{}", end(machine))),
                Some(domain) if domain.state.contains('c') => {
                    Some(format!("has crashed\n{}", end(machine)))
                }
                Some(domain) if domain.is_dead() => {
                    Some(format!("has shut down\n{}", end(machine)))
                }
                Some(_) => None,
            },
        }
    }

    /// The end of a machine's console, each line marked as such.
    pub(crate) fn console_end(&self, machine: Machine) -> String {
        let text = scan::tail(&self.console(machine), CONSOLE_END);
        let lines: Vec<String> = text
            .lines()
            .map(|line| format!("  {machine}| {}", line.trim_end()))
            .collect();
        format!(
            "{}\n  (all of it: {})",
            lines.join("\n"),
            self.console_path(machine).display()
        )
    }
}
