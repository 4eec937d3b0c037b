// SPDX-License-Identifier: GPL-2.0

//! Says what is going on, how far it is, and how long it has taken.

use std::{
    fs::File,
    io::Write,
    time::{Duration, Instant},
};

/// Silence after which a wait says that it is still waiting.
const STILL_PERIOD: Duration = Duration::from_secs(15);

/// Where progress lines go.
pub struct Progress {
    start: Instant,
    last: Instant,
    shown: bool,
    log: Option<File>,
}

impl Progress {
    /// Lines go to standard error.
    pub fn to_stderr() -> Self {
        Self::new(true)
    }

    /// Lines go to the lab's log only.
    pub fn quiet() -> Self {
        Self::new(false)
    }

    fn new(shown: bool) -> Self {
        Self {
            start: Instant::now(),
            last: Instant::now(),
            shown,
            log: None,
        }
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Lines go to this file as well.
    pub(crate) fn log_to(&mut self, log: File) {
        self.log = Some(log);
    }

    /// One line.
    pub fn say(&mut self, text: &str) {
        let line = format!("lab: {:4} s  {text}\n", self.start.elapsed().as_secs());
        self.last = Instant::now();
        if self.shown {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        if let Some(log) = &mut self.log {
            // A log that cannot be written does not keep a lab from working.
            let _ = log.write_all(line.as_bytes());
        }
    }

    /// One line for the log only.
    pub(crate) fn record(&mut self, text: &str) {
        let shown = std::mem::replace(&mut self.shown, false);
        self.say(text);
        self.shown = shown;
    }

    /// A line, if there was none for a while.
    pub(crate) fn still(&mut self, what: &str) {
        if self.last.elapsed() >= STILL_PERIOD {
            self.say(&format!("still {what}"));
        }
    }
}
