// SPDX-License-Identifier: GPL-2.0

//! What happened how often, by name: one set in the backend.

use core::fmt;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// What is counted.
#[derive(Clone, Copy)]
pub(crate) enum Counter {
    /// Passes of the work item.
    Passes,
    /// Announcements that were new or different, and well formed.
    AnnouncementsAccepted,
    /// Announcements that were new or different, and malformed or too long.
    AnnouncementsRefused,
    /// Offers and answers that were new or different, and malformed or too long.
    OffersRefused,
    /// Names among the offers that are no domain the guest can have an offer for.
    OffersIgnored,
    /// Group names that were refused.
    GroupsRefused,
    /// Addresses that a guest lost since another announced them later.
    AddressConflicts,
    /// Guests beyond the number that the backend keeps.
    DomainsIgnored,
    /// Times that a guest changed its keys faster than the backend is ready to look.
    Postponed,
    /// Values that were written for guests.
    Published,
    /// Values that were taken back from guests.
    Withdrawn,
    /// Transactions that had to begin again.
    Retries,
    /// Accesses to xenstore that failed for no reason that was expected.
    StoreErrors,
}

/// Each counter and its name, in the order of [`Counter`].
const NAMES: [&str; COUNT] = [
    "passes",
    "announcements_accepted",
    "announcements_refused",
    "offers_refused",
    "offers_ignored",
    "groups_refused",
    "address_conflicts",
    "domains_ignored",
    "postponed",
    "published",
    "withdrawn",
    "retries",
    "store_errors",
];

const COUNT: usize = Counter::StoreErrors as usize + 1;

/// The counters.
pub(crate) struct Counters([Atomic<u64>; COUNT]);

impl Counters {
    pub(crate) fn new() -> Self {
        Self([const { Atomic::new(0) }; COUNT])
    }

    /// Counts one.
    pub(crate) fn add(&self, counter: Counter) {
        self.add_many(counter, 1);
    }

    /// Counts several.
    pub(crate) fn add_many(&self, counter: Counter, count: u64) {
        self.0[counter as usize].add(count, Relaxed);
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, counter) in NAMES.iter().zip(&self.0) {
            writeln!(f, "{} {}", name, counter.load(Relaxed))?;
        }
        Ok(())
    }
}
