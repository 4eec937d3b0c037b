// SPDX-License-Identifier: GPL-2.0

//! Looking for an answer in the call that sent a datagram, where each datagram was followed by an answer before. One [`Answers`] per
//! channel.
//!
//! Who sends a request waits for the answer next, in one way or another. To sleep for it, and to be woken, costs far more than the look:
//! what comes is in its socket's queue before the call returns. Who sends several datagrams, or does not read what has come, is not kept.

use super::lines::may_look;
use crate::channel::Channel;
use crate::spin::nanos_since;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use kernel::time::{
    Instant,
    Monotonic, //
};
use xenvmc_core::policy::Patience;
use xenvmc_net as net;
use xenvmc_net::packet::Asker;

/// Looks between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 16;

/// An ordinary look, in times of what is set: who answers may have to serve its clock first, which takes about one of them under emulation.
const CAPS: u32 = 2;

/// The longest look, in ordinary ones: an answer to who sleeps is waited for as long once, so that it sleeps no more.
const LONGEST: u32 = 5;

/// Later than any look could wait for, in nanoseconds.
const NEVER: u32 = u32::MAX;

/// What was learnt. Tasks that send at once share it; if they race, some experience is lost.
pub(super) struct Answers {
    /// Datagrams that were sent since one has come.
    unanswered: Atomic<u32>,
    patience: Atomic<u64>,
    /// Since when an answer is waited for that did not come during a look, in nanoseconds since `start`; 0 = there is none.
    missing_since: Atomic<i64>,
    /// Looks.
    looks: Atomic<u32>,
    /// Answers that came during a look.
    found: Atomic<u32>,
    start: Instant<Monotonic>,
}

impl Answers {
    /// No experience yet.
    pub(super) fn new() -> Self {
        Self {
            unanswered: Atomic::new(0),
            patience: Atomic::new(Patience::new().to_bits()),
            missing_since: Atomic::new(0),
            looks: Atomic::new(0),
            found: Atomic::new(0),
            start: Instant::now(),
        }
    }

    /// A number that changes when an answer came during a look.
    pub(super) fn found(&self) -> u32 {
        self.found.load(Relaxed)
    }

    /// A number that changes with each look.
    pub(super) fn looks(&self) -> u32 {
        self.looks.load(Relaxed)
    }

    /// A datagram is sent; returns whether it is the first one since one has come.
    pub(super) fn sent(&self) -> bool {
        let before = self.unanswered.load(Relaxed);
        self.unanswered.store(before.saturating_add(1), Relaxed);
        before == 0
    }

    /// Some have come.
    pub(super) fn came(&self, channel: &Channel) {
        let unanswered = self.unanswered.load(Relaxed);
        self.unanswered.store(0, Relaxed);
        let since = self.missing_since.load(Relaxed);
        if since != 0 {
            self.missing_since.store(0, Relaxed);
            let late = match unanswered {
                0 | 1 => u32::try_from(self.start.elapsed().as_nanos() - since).unwrap_or(NEVER),
                // More had to be sent first: a look would have been in vain however long it was.
                _ => NEVER,
            };
            let mut patience = self.patience();
            patience.handle_late(late, cap(channel));
            self.learnt(patience);
        }
    }

    fn patience(&self) -> Patience {
        Patience::from_bits(self.patience.load(Relaxed))
    }

    fn learnt(&self, patience: Patience) {
        self.patience.store(patience.to_bits(), Relaxed);
    }

    /// Looks for an answer to `asker` as long as experience says. In a task that may be preempted, with softirqs on; it does not sleep.
    pub(super) fn look(&self, channel: &Channel, asker: &Asker) {
        if !may_look(channel) {
            return;
        }
        let cap = cap(channel);
        let mut patience = self.patience();
        let budget = patience.budget(cap).min(cap.saturating_mul(LONGEST));
        let lines = channel.lines();
        self.looks.fetch_add(1, Relaxed);
        let start = Instant::<Monotonic>::now();
        let mut is_over = budget == 0;
        while !is_over && channel.is_open() {
            for _ in 0..LOOKS_PER_CLOCK {
                if lines.look(channel).records != 0 {
                    if asker.has_something_to_read() {
                        patience.handle_hit(nanos_since(start), cap);
                        self.found.add(1, Relaxed);
                    } else {
                        // Others have got something, and that says nothing of this one's answer, but that it should not wait for it.
                        patience.handle_late(NEVER, cap);
                    }
                    self.learnt(patience);
                    lines.go_on_without_us(channel);
                    return;
                }
                net::relax();
            }
            // It may come over the network, too.
            is_over = asker.has_something_to_read()
                || net::is_wanted_elsewhere()
                || nanos_since(start) >= budget;
        }
        self.missing_since
            .store(self.start.elapsed().as_nanos().max(1), Relaxed);
        if budget != 0 {
            lines.go_on_without_us(channel);
        }
    }
}

/// The length of an ordinary look, in nanoseconds.
fn cap(channel: &Channel) -> u32 {
    let set = channel.frontend().settings().spin_ns();
    set.saturating_mul(CAPS)
}
