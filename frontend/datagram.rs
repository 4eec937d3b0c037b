// SPDX-License-Identifier: GPL-2.0

//! UDP through the ring (protocol §10): one [`Datagrams`] in the module.
//!
//! Sockets are left alone. A packet that leaves is taken where all rules of this guest have let it pass, and its payload goes into
//! a ring of records; at the other end it becomes a packet that arrives. So a program sees what it sees over the network, errors,
//! options, blocking and poll included: what waits for room is charged to its socket.
//!
//! * `hooks` sees packets that leave and that have come.
//! * `flows` knows, for each flow that leaves, where its datagrams go; `arrivals` what has come of each flow, and which may come by ring;
//!   `proofs` which addresses are whose.
//! * `lines`, `outlet` and `inlet` are the two rings of a channel; `looker` looks at them while the processor is idle, `answers` in the
//!   calls of who sends requests, `readers` in those of who reads a stream.
//! * `handshake` agrees with the peer, `keeper` does everything that takes time.
//! * `watch` lets the kernel call `hooks` and `readers`, while there is something to see.
//!
//! # Lock order
//!
//! 1. [`Lines::setup`](lines::Lines); apart from it [`Datagrams::releasing`], under which packets go to the network, and [`Datagrams::watch`]
//! 2. an inlet; whatever the network takes to deliver a packet
//! 3. [`Datagrams::flows`]
//! 4. an outlet
//! 5. those of the channel that its `send` and `post` take; [`Datagrams::arrivals`], [`Datagrams::proofs`], [`Datagrams::echoes`]

mod answers;
mod arrivals;
mod flow;
mod flows;
mod handshake;
mod hooks;
mod inlet;
mod keeper;
mod lines;
mod looker;
mod outlet;
mod proofs;
mod queue;
mod readers;
mod table;
mod watch;

pub(crate) use handshake::handle;
pub(crate) use keeper::Keeper;
pub(crate) use lines::Lines;

use crate::channel::Channel;
use crate::frontend::Frontend;
use crate::settings::Settings;
use arrivals::Arrivals;
use core::fmt;
use flows::Flows;
use hooks::Watcher;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Acquire,
    Atomic,
    Release, //
};
use kernel::sync::{
    new_mutex,
    Arc,
    Mutex, //
};
use kernel::time::delay::fsleep;
use kernel::time::{
    Delta,
    Instant,
    Monotonic, //
};
use proofs::Proofs;
use readers::{
    ReaderWatcher,
    Senders, //
};
use watch::Watch;
use xenvmc_core::datagram::probe::Nonce;
use xenvmc_core::message::Address;
use xenvmc_net as net;
use xenvmc_net::lock::BhSpinLock;
use xenvmc_net::new_bh_spinlock;
use xenvmc_xen::budget::Budget;
use xenvmc_xen::work::Task;

/// How long flows may take to leave the rings before channels are closed.
const LEAVE_ALL_MS: i64 = 500;

/// Probes that wait for their answer at most; more are forgotten, and sent again.
const ECHOES_MAX: usize = 16;

/// Probes that are answered: so many at once, then one in so many milliseconds.
const ECHOES: (u32, u32) = (64, 20);

/// A probe that has come, and is to be answered.
#[derive(Clone, Copy)]
struct Echo {
    asker: u16,
    address: Address,
    nonce: Nonce,
}

/// Probes that are to be answered.
struct Echoes {
    waiting: KVec<Echo>,
    budget: Budget,
}

impl Echoes {
    /// Takes one in, unless there are too many; false = it is not answered.
    fn push(&mut self, echo: Echo) -> bool {
        // There is room for so many, and no more is made.
        self.budget.take()
            && self.waiting.len() < ECHOES_MAX
            && self.waiting.push_within_capacity(echo).is_ok()
    }
}

/// What is known of all flows.
#[pin_data]
pub(crate) struct Datagrams {
    #[pin]
    flows: BhSpinLock<Flows>,
    #[pin]
    arrivals: BhSpinLock<Arrivals>,
    #[pin]
    proofs: BhSpinLock<Proofs>,
    #[pin]
    echoes: BhSpinLock<Echoes>,
    senders: Senders,
    #[pin]
    watch: Mutex<Watch>,
    /// Taken out at the end: it refers to the frontend.
    #[pin]
    keeper: BhSpinLock<Option<Arc<Task<Keeper>>>>,
    /// Packets that waited are sent over the network.
    #[pin]
    releasing: Mutex<()>,
    /// No flow may begin to use a ring.
    is_paused: Atomic<bool>,
}

impl Datagrams {
    /// Nothing known.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let (flows, arrivals, proofs) = (Flows::new()?, Arrivals::new()?, Proofs::new());
        let echoes = Echoes {
            waiting: KVec::with_capacity(ECHOES_MAX, GFP_KERNEL)?,
            budget: Budget::new(ECHOES.0, ECHOES.1),
        };
        Arc::pin_init(
            pin_init!(Self {
                flows <- new_bh_spinlock!(flows, "xenvmc_flows"),
                arrivals <- new_bh_spinlock!(arrivals, "xenvmc_arrivals"),
                proofs <- new_bh_spinlock!(proofs, "xenvmc_proofs"),
                echoes <- new_bh_spinlock!(echoes, "xenvmc_echoes"),
                senders: Senders::new(),
                watch <- new_mutex!(Watch::new(), "xenvmc_watch"),
                keeper <- new_bh_spinlock!(None, "xenvmc_keeper"),
                releasing <- new_mutex!((), "xenvmc_releasing"),
                is_paused: Atomic::new(false),
            }),
            GFP_KERNEL,
        )
    }

    /// Connects or disconnects the keeper.
    pub(crate) fn set_keeper(
        &self,
        keeper: Option<Arc<Task<Keeper>>>,
    ) -> Option<Arc<Task<Keeper>>> {
        core::mem::replace(&mut *self.keeper.lock(), keeper)
    }

    /// Lets packets be looked at from the first peer on. Process context.
    pub(crate) fn start_watching(&self) {
        self.watch.lock().start();
    }

    /// Ends that, for ever. When this returns nobody looks at a packet. Process context.
    pub(crate) fn stop_watching(&self) {
        self.watch.lock().stop();
    }

    /// There are about to be peers: looks at packets before others know of them. Process context, no lock of ours held.
    pub(crate) fn look_at_packets(&self, frontend: &Arc<Frontend>) {
        self.watch.lock().look_at_packets(frontend);
        self.kick();
    }

    /// Asks for a run of the keeper. Any context but hard interrupts.
    pub(crate) fn kick(&self) {
        if let Some(keeper) = &*self.keeper.lock() {
            keeper.kick();
        }
    }

    /// Whether flows may begin to use a ring.
    fn may_begin(&self, settings: &Settings) -> bool {
        settings.udp_ms() != 0 && settings.is_enabled() && !self.is_paused.load(Acquire)
    }

    /// Lets all flows, those of peers too, leave the rings, and waits for them a while, until [`Self::go_on`]. Process context.
    pub(crate) fn leave_all(&self) {
        self.is_paused.store(true, Release);
        let start = Instant::<Monotonic>::now();
        loop {
            self.flows.lock().leave_all();
            self.release();
            let all = self.arrivals.lock().revoke_all();
            if (all && self.flows.lock().are_on_network())
                || start.elapsed().as_millis() > LEAVE_ALL_MS
            {
                return;
            }
            self.kick();
            fsleep(Delta::from_millis(2));
        }
    }

    /// Ends a [`Self::leave_all`].
    pub(crate) fn go_on(&self) {
        self.is_paused.store(false, Release);
    }

    /// A channel ends: what its flows hold goes over the network, and nothing refers to it any more. Process context.
    pub(crate) fn end(&self, channel: &Arc<Channel>) {
        // What waits for room in a ring is the flows' own then.
        self.flows.lock().abandon(channel);
        // Who has found it in a flow and looks for an answer lets go of it, so that its reference is not the last one.
        net::synchronize_packets();
        channel.lines().end(channel);
        self.arrivals.lock().forget(channel);
        self.release();
    }

    /// Sends packets that waited, and whose flows have left the rings, over the network. Process context, no lock held.
    fn release(&self) {
        // One at a time, so that none is overtaken. The network may come back to the hooks, with packets of tunnels: no lock of flows is held.
        let _releasing = self.releasing.lock();
        loop {
            let waiting = self.flows.lock().poll_waiting();
            let Some(mut waiting) = waiting else { return };
            while let Some(packet) = waiting.pop() {
                packet.release();
            }
        }
    }

    /// Writes a line for each flow.
    pub(crate) fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.flows.lock().describe(f)?;
        self.arrivals.lock().describe(f)
    }
}
