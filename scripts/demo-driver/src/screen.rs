// SPDX-License-Identifier: GPL-2.0

//! What the demo shows while it runs: the tables, row by row, and below them what is going on, how
//! far it is and for how long.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use crate::results::{Bound, RowResult};

/// Time between two lines about what is going on, where lines cannot be overwritten.
const LINE_PERIOD: Duration = Duration::from_secs(20);

/// Takes back a line of the terminal.
const ERASE: &str = "\r\x1b[K";

/// The standard output, as a terminal or not.
pub struct Screen {
    is_terminal: bool,
    steps: u32,
    done: u32,
    start: Instant,
    said: Option<Instant>,
}

impl Screen {
    /// For so many steps, of which the first starts now.
    pub fn new(steps: u32) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self {
            is_terminal,
            steps,
            done: 0,
            start: Instant::now(),
            said: None,
        }
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// A step begins.
    pub fn step(&mut self, what: &str) {
        let elapsed = self.start.elapsed();
        let mut line = format!(
            "[{:>3}/{}] {what}; {}",
            self.done + 1,
            self.steps,
            clock(elapsed)
        );
        if self.done > 0 {
            line += &format!(" of about {}", clock(elapsed / self.done * self.steps));
        }
        self.done += 1;
        if self.is_terminal {
            self.put(&format!("{ERASE}{line}"));
        } else if self.said.is_none_or(|said| said.elapsed() >= LINE_PERIOD) {
            self.said = Some(Instant::now());
            self.put(&format!("{line}\n"));
        }
    }

    /// A line that stays.
    pub fn line(&mut self, text: &str) {
        let erase = if self.is_terminal { ERASE } else { "" };
        self.put(&format!("{erase}{text}\n"));
    }

    /// The head of the table of netfront and xenvmc.
    pub fn title_rows(&mut self) {
        self.title("netperf between two guests", "netfront", "xenvmc");
    }

    /// The head of the table of the guest without the module.
    pub fn title_no_module(&mut self) {
        self.title("to a guest without the module", "no module", "client only");
    }

    /// The head of the table of connections that ask for rings at once.
    pub fn title_upgrade(&mut self) {
        self.title("what asking for a ring costs", "usual", "at once");
    }

    /// The head of the table of bounds.
    pub fn title_bounds(&mut self) {
        self.line("");
        self.line(&format!("{:31}{:>12}   runs", "inside one guest", "median"));
    }

    /// A row is complete.
    pub fn row(&mut self, row: &RowResult) {
        let goal = match row.goal {
            Some(goal) if row.is_met() => format!("goal {goal}: met"),
            Some(goal) => format!("goal {goal}: MISSED"),
            None => String::new(),
        };
        let cpu = |value: f64| format!("{value:.1}");
        let (before, after) = (
            row.netfront.cpu_seconds_per_1000.sum(),
            row.xenvmc.cpu_seconds_per_1000.sum(),
        );
        self.line(&format!(
            "{:14}{:>6} B  {:>4}{:>12}{:>12}{:>8.2}x {:>12}  {:>7} {:>7}  {:16} {}",
            row.name,
            row.size,
            row.unit,
            figure(row.netfront.median),
            figure(row.xenvmc.median),
            row.ratio,
            range(row),
            cpu(before),
            cpu(after),
            goal,
            spread(row),
        ));
    }

    /// A bound is known.
    pub fn bound(&mut self, bound: &Bound) {
        let runs: Vec<String> = bound.runs.iter().map(|&run| figure(run)).collect();
        let test = if bound.test.starts_with("TCP") {
            format!("{} lo", bound.test)
        } else {
            bound.test.clone()
        };
        self.line(&format!(
            "{:14}{:>7} B  {:>4} {:>14}   {}",
            test,
            bound.size,
            bound.unit,
            figure(bound.median),
            runs.join(" ")
        ));
    }

    fn title(&mut self, what: &str, before: &str, after: &str) {
        self.line("");
        self.line(&format!(
            "{what:29}{before:>10}{after:>12}{:>9} {:>12}  {:>15}",
            "ratio", "90 % within", "CPU s/1000"
        ));
    }

    fn put(&self, text: &str) {
        let mut out = io::stdout().lock();
        // Nobody may be there to read it; the files are what counts.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// A value with three digits that count, or all those before the point.
pub fn figure(value: f64) -> String {
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}")
}

/// How far noise reaches.
pub fn range(row: &RowResult) -> String {
    let [low, high] = row.ratio_range.map(figure);
    format!("{low}-{high}")
}

/// The runs of both sides.
fn spread(row: &RowResult) -> String {
    let runs = |values: Vec<f64>| values.into_iter().map(figure).collect::<Vec<_>>().join(" ");
    format!(
        "[{} | {}]",
        runs(row.netfront.values().collect()),
        runs(row.xenvmc.values().collect())
    )
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [figure(1234.5), figure(12.34), figure(0.987)],
            ["1234", "12.3", "0.99"]
        );
        assert_eq!(clock(Duration::from_secs(125)), "2:05");
    }
}
