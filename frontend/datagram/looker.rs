// SPDX-License-Identifier: GPL-2.0

//! Looking at the rings of a channel while the processor has nothing else to do. One thread for each channel with rings, which sleeps
//! unless datagrams have come or gone a moment ago.
//!
//! It saves both guests the event, the interrupt and the deep sleep of the processor, whoever waits for a datagram, and however: in a
//! call, in poll, or in io_uring. And it delivers as fast as programs read: they come first, and with them the sockets' buffers do not overflow.

use super::inlet::{
    Done,
    STREAM, //
};
use super::lines::may_look;
use crate::channel::Channel;
use crate::spin::nanos_since;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use kernel::sync::Arc;
use kernel::time::{
    Instant,
    Monotonic, //
};
use xenvmc_core::policy::Patience;
use xenvmc_xen::thread::{
    give_way,
    is_processor_wanted,
    is_stopping,
    relax,
    Look,
    Thread, //
};

/// Looks between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 32;

/// How often it gives way without having found anything, until it sleeps.
const PATIENCE: u32 = 16;

/// Looks at the clock after which it gives way though nobody wants the processor.
const ROUNDS: u32 = 64;

/// The thread's part.
pub(super) struct Looker {
    channel: Arc<Channel>,
    /// What it has learnt.
    patience: Atomic<u64>,
    /// Looks of programs when it was woken last.
    looks: Atomic<u32>,
    /// When it went to sleep last, in nanoseconds since `start`; 0 = never.
    slept_at: Atomic<i64>,
    start: Instant<Monotonic>,
}

impl Looker {
    /// Makes the thread.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(channel: &Arc<Channel>) -> Result<Thread<Self>> {
        let looker = Self {
            channel: channel.clone(),
            patience: Atomic::new(Patience::new().to_bits()),
            looks: Atomic::new(0),
            slept_at: Atomic::new(0),
            start: Instant::now(),
        };
        Thread::new(looker, channel.peer().domid().get().into())
    }

    fn cap(&self) -> u32 {
        self.channel.frontend().settings().spin_ns()
    }
}

impl Look for Looker {
    fn look(&self) {
        let (channel, lines) = (&self.channel, self.channel.lines());
        let cap = self.cap();
        let mut patience = Patience::from_bits(self.patience.load(Relaxed));
        let slept_at = self.slept_at.load(Relaxed);
        if slept_at != 0 {
            let slept = self.start.elapsed().as_nanos() - slept_at;
            patience.handle_sleep(u32::try_from(slept).unwrap_or(u32::MAX), cap);
        }
        let mut since = Instant::<Monotonic>::now();
        let (mut gave_way, mut rounds) = (0, 0_u32);
        let (found, read) = (lines.answers.found(), lines.readers.found());
        let looks = self.looks.xchg(lines.answers.looks(), Relaxed);
        while channel.is_open() && !is_stopping() {
            let done = self.look_for_a_while();
            if lines.answers.found() != found && !done.has_more {
                // Who sends requests and finds the answers needs nobody else.
                break;
            }
            if lines.readers.found() != read {
                // Who reads goes on without us. The clock sees to it that somebody does.
                lines.look_later(channel);
                self.learn(patience);
                return;
            }
            if done.records != 0 {
                patience.handle_hit(nanos_since(since), cap);
                since = Instant::now();
                gave_way = 0;
            }
            rounds = rounds.wrapping_add(1);
            if is_processor_wanted() {
                // Others come first, and may keep us waiting.
                match done.records >= STREAM || done.has_more {
                    true => lines.look_later(channel),
                    false => {
                        lines.arm(channel);
                    }
                }
                // Programs that look in their own calls do so undisturbed.
                if gave_way == PATIENCE || lines.answers.looks() != looks {
                    break;
                }
                gave_way += 1;
                give_way();
                since = Instant::now();
                continue;
            }
            if rounds % ROUNDS == 0 {
                // Nobody has asked, but the kernel wants to see tasks let go from time to time.
                give_way();
            }
            let budget = match may_look(channel) {
                true => patience.budget(cap),
                false => 0,
            };
            if !done.has_more && nanos_since(since) >= budget {
                break;
            }
        }
        self.learn(patience);
        lines.arm(channel);
    }
}

impl Looker {
    /// Goes to sleep with this experience.
    fn learn(&self, patience: Patience) {
        self.patience.store(patience.to_bits(), Relaxed);
        let now = self.start.elapsed().as_nanos();
        self.slept_at.store(now.max(1), Relaxed);
    }

    /// Looks some times, until it has found something or somebody else wants the processor.
    fn look_for_a_while(&self) -> Done {
        let mut done = Done::NOTHING;
        for _ in 0..LOOKS_PER_CLOCK {
            done = self.channel.lines().look(&self.channel);
            if done.records != 0 || is_processor_wanted() {
                break;
            }
            relax();
        }
        done
    }
}
