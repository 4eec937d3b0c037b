// SPDX-License-Identifier: GPL-2.0

//! An io_uring, and what its operations returned.

use io_uring::{IoUring, cqueue, squeue};
use nix::errno::Errno;

use crate::end::End;

/// An io_uring for a few operations.
pub(crate) struct Uring {
    pub(crate) ring: IoUring,
}

impl Uring {
    /// A new one.
    pub(crate) fn new() -> Self {
        let ring = IoUring::new(16).expect("io_uring_setup");
        Self { ring }
    }

    /// Begins operations. The number of each is its place, counted from `first`. What they point to must
    /// stay valid until they have ended, which the cases see to.
    pub(crate) fn submit(&mut self, first: u64, entries: &[squeue::Entry]) {
        for (entry, number) in entries.iter().zip(first..) {
            let entry = entry.clone().user_data(number);
            // SAFETY: The callers keep what the entry points to.
            unsafe { self.ring.submission().push(&entry) }.expect("room");
        }
        self.ring.submit().expect("io_uring_enter");
    }

    /// Waits for so many completions; those of one wait are in the order of their operations.
    pub(crate) fn wait(&mut self, count: usize) -> Vec<cqueue::Entry> {
        let mut all = Vec::new();
        while all.len() < count {
            self.ring.submit_and_wait(1).expect("io_uring_enter");
            all.extend(self.ring.completion().take(count - all.len()));
        }
        all.sort_by_key(cqueue::Entry::user_data);
        all
    }

    /// Whether nothing has completed.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.ring.submit().expect("io_uring_enter");
        self.ring.completion().is_empty()
    }

    /// Waits for so many completions, which are noted.
    pub(crate) fn see(&mut self, end: &mut End, what: &str, count: usize) {
        for entry in self.wait(count) {
            let more = cqueue::more(entry.flags());
            let last = if more { ", more to come" } else { "" };
            let notification = cqueue::notif(entry.flags());
            let kind = if notification { ", notification" } else { "" };
            let text = match result(&entry) {
                Ok(count) => format!("{count}{last}{kind}"),
                Err(errno) => format!("{errno:?}{last}{kind}"),
            };
            end.see(&format!("{what}, {}", entry.user_data()), text);
        }
    }
}

/// What an operation returned.
pub(crate) fn result(entry: &cqueue::Entry) -> Result<usize, Errno> {
    let result = entry.result();
    usize::try_from(result).map_err(|_| Errno::from_raw(-result))
}
