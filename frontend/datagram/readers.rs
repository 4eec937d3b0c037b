// SPDX-License-Identifier: GPL-2.0

//! Going on with a stream in the calls of the program that reads it, when it has read all that was there: so the thread that looks is not
//! ready beside it, and the two do not take turns.

use super::lines::may_look;
use super::Lines;
use crate::channel::Channel;
use crate::frontend::Frontend;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Atomic,
    Full,
    Relaxed, //
};
use kernel::sync::{
    rcu,
    Arc, //
};
use xenvmc_net::ReadHandler;
use xenvmc_xen::DomId;

/// Places for ports; two ports with the same place take it from each other.
const PLACES: usize = 256;

/// How often in a row the clock leaves a stream to who reads it.
const SKIPS: u32 = 3;

/// Which peer has sent to which port of ours last.
pub(super) struct Senders([Atomic<u32>; PLACES]);

impl Senders {
    /// None.
    pub(super) const fn new() -> Self {
        Self([const { Atomic::new(0) }; PLACES])
    }

    fn place(&self, port: u16) -> Option<&Atomic<u32>> {
        self.0.get(usize::from(port) % PLACES)
    }

    /// Notes that a datagram of `peer` was delivered to `port`. Any context.
    pub(super) fn note(&self, port: u16, peer: DomId) {
        let both = u32::from(port) << 16 | u32::from(peer.get());
        if let Some(place) = self.place(port) {
            if place.load(Relaxed) != both {
                place.store(both, Relaxed);
            }
        }
    }

    /// Who has sent to `port`, as far as it is known.
    fn find(&self, port: u16) -> Option<DomId> {
        let both = self.place(port)?.load(Relaxed);
        (both >> 16 == u32::from(port)).then(|| DomId::new(both as u16))?
    }
}

/// What programs that read have found. One per channel.
pub(super) struct Readers {
    /// Times that there was more when they had read all.
    found: Atomic<u32>,
    /// Times that they had read all.
    emptied: Atomic<u32>,
    /// `found` when the clock looked last, and how often it has let them go on since it did not.
    seen: Atomic<u32>,
    skipped: Atomic<u32>,
    /// `emptied` when the bottom half delivered last.
    emptied_before: Atomic<u32>,
    /// It was so the last time, or may be so the next time: no notice was asked for.
    is_expected: Atomic<bool>,
}

impl Readers {
    /// Nothing yet.
    pub(super) const fn new() -> Self {
        Self {
            found: Atomic::new(0),
            emptied: Atomic::new(0),
            seen: Atomic::new(0),
            skipped: Atomic::new(0),
            emptied_before: Atomic::new(0),
            is_expected: Atomic::new(false),
        }
    }

    /// Whether programs have read all since this was asked last: they will come by again. The bottom half.
    pub(super) fn are_reading(&self) -> bool {
        let emptied = self.emptied.load(Relaxed);
        self.emptied_before.xchg(emptied, Relaxed) != emptied
    }

    /// A stream was delivered, and no notice of the next datagram was asked for.
    pub(super) fn expect(&self) {
        self.is_expected.store(true, Relaxed);
    }

    /// Whether one has found more since this was asked last; not too often, as it may have been another one. The clock.
    pub(super) fn go_on(&self) -> bool {
        let found = self.found();
        let skipped = self.skipped.load(Relaxed);
        let may = self.seen.xchg(found, Relaxed) != found && skipped < SKIPS;
        self.skipped
            .store(if may { skipped + 1 } else { 0 }, Relaxed);
        may
    }

    /// A number that changes when one has found more.
    pub(super) fn found(&self) -> u32 {
        self.found.load(Relaxed)
    }
}

impl Lines {
    /// A program has read all: delivers more if there is some, or lets the thread look if this is where a stream pauses. Process context, softirqs
    /// on.
    fn read_on(&self, channel: &Channel) {
        self.readers.emptied.fetch_add(1, Relaxed);
        if self.has_more() {
            if !may_look(channel) {
                self.arm(channel);
                return;
            }
            self.readers.expect();
            if self.look(channel).records != 0 {
                self.readers.found.fetch_add(1, Relaxed);
            } else {
                // Somebody else has delivered it.
                self.go_on_without_us(channel);
            }
        } else if self.readers.is_expected.xchg(false, Full) {
            self.wake_looker();
        }
    }
}

/// Hears of programs that have read all. One in the module.
pub(crate) struct ReaderWatcher(Arc<Frontend>);

impl ReaderWatcher {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(frontend: &Arc<Frontend>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(frontend.clone()), GFP_KERNEL)?)
    }
}

impl ReadHandler for ReaderWatcher {
    fn emptied(&self, port: u16) {
        let Some(domid) = self.0.datagrams().senders.find(port) else {
            return;
        };
        // Whoever ends a channel waits for those who have found it: theirs is not the last reference.
        let _rcu = rcu::read_lock();
        let channel = self
            .0
            .peers()
            .numbered(domid)
            .and_then(|peer| peer.channel());
        if let Some(channel) = channel.filter(|channel| channel.is_open()) {
            channel.lines().read_on(&channel);
        }
    }
}
