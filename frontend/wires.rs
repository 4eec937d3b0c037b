// SPDX-License-Identifier: GPL-2.0

//! What runs a channel: its event channel, the two work items that an event starts, and those that
//! look after connections for longer. One of each per channel.
//!
//! They refer to the channel and the channel to them; [`Wires::cut`] takes them apart.

use crate::channel::Channel;
use crate::clock::{
    Clocks,
    LOOK_MS, //
};
use crate::handover::Handovers;
use crate::idle::{
    Idle,
    IDLE_MS, //
};
use crate::notices;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use kernel::sync::Arc;
use xenvmc_core::shared::SharedLoad;
use xenvmc_core::wire::root;
use xenvmc_core::Words;
use xenvmc_xen::event;
use xenvmc_xen::new_task;
use xenvmc_xen::work::{
    Queue,
    Run,
    Task, //
};

/// Takes notices from the peer, in a softirq.
struct BottomHalf(Arc<Channel>);

impl Run for BottomHalf {
    fn run(&self, task: &Task<Self>) {
        if notices::run(&self.0) {
            task.kick();
        }
    }
}

/// Does everything of a channel that may sleep.
struct Upkeep(Arc<Channel>);

impl Run for Upkeep {
    fn run(&self, _task: &Task<Self>) {
        crate::control::run(&self.0);
    }
}

/// Takes events, in a hard interrupt.
struct Interrupt {
    channel: Arc<Channel>,
    bottom: Arc<Task<BottomHalf>>,
    /// A digest of the peer's words at the last event.
    seen: Atomic<u64>,
}

impl Interrupt {
    /// A number that changes when any word of the peer's root page does that an event can be for. Two changes that cancel
    /// out are only an event that counts as spurious.
    fn digest(&self) -> u64 {
        let Some(theirs) = self.channel.theirs() else {
            return 0;
        };
        let words = [
            root::STATE,
            root::CONTROL_PROD,
            root::NOTICE_PROD,
            root::CHUNKS,
            root::CONTROL_CONS,
            root::CHUNKS_MAPPED,
        ];
        words.iter().fold(1, |digest: u64, word| {
            let word = theirs.root().word(*word).load_relaxed();
            digest.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(word)
        })
    }
}

impl event::Handler for Interrupt {
    fn handle(&self) -> bool {
        let counters = self.channel.frontend().counters();
        counters.events_received.inc();
        self.bottom.kick();
        // A peer that notifies without having changed anything is slowed down by the kernel. What a busy reader has taken
        // already has changed something.
        let digest = self.digest();
        let fresh = self.seen.xchg(digest, Relaxed) != digest;
        if !fresh {
            counters.events_spurious.inc();
        }
        fresh
    }
}

/// The running parts of a channel.
pub(crate) struct Wires {
    event: event::Channel<Interrupt>,
    bottom: Arc<Task<BottomHalf>>,
    upkeep: Arc<Task<Upkeep>>,
    idle: Arc<Task<Idle>>,
    clocks: Arc<Task<Clocks>>,
    handovers: Arc<Task<Handovers>>,
}

impl Wires {
    /// Makes the work items and one end of an event channel: a new one that the peer can bind to, or, with `port`, the
    /// other end of one that the peer has made. Process context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; what Xen says.
    pub(crate) fn new(channel: &Arc<Channel>, port: Option<u32>) -> Result<Arc<Self>> {
        let bottom = new_task!(
            Queue::BottomHalf,
            Arc::new(BottomHalf(channel.clone()), GFP_KERNEL)?,
            "xenvmc_bottom_half",
        )?;
        let upkeep = new_task!(
            Queue::Unbound,
            Arc::new(Upkeep(channel.clone()), GFP_KERNEL)?,
            "xenvmc_upkeep",
        )?;
        let idle = new_task!(
            Queue::Unbound,
            Arc::new(Idle(channel.clone()), GFP_KERNEL)?,
            "xenvmc_idle",
        )?;
        let clocks = new_task!(
            Queue::Unbound,
            Arc::new(Clocks(channel.clone()), GFP_KERNEL)?,
            "xenvmc_clocks",
        )?;
        let handovers = new_task!(
            Queue::Unbound,
            Arc::new(Handovers(channel.clone()), GFP_KERNEL)?,
            "xenvmc_handovers",
        )?;
        let interrupt = Arc::new(
            Interrupt {
                channel: channel.clone(),
                bottom: bottom.clone(),
                seen: Atomic::new(0),
            },
            GFP_KERNEL,
        )?;
        let peer = channel.peer().domid();
        let event = match port {
            None => event::Channel::alloc_unbound(peer, interrupt)?,
            Some(port) => event::Channel::bind_interdomain(peer, port, interrupt)?,
        };
        Ok(Arc::new(
            Self {
                event,
                bottom,
                upkeep,
                idle,
                clocks,
                handovers,
            },
            GFP_KERNEL,
        )?)
    }

    /// Our port.
    pub(crate) fn port(&self) -> u32 {
        self.event.port()
    }

    /// Sends an event.
    pub(crate) fn notify(&self) {
        self.event.notify();
    }

    /// Asks for a run of the upkeep.
    pub(crate) fn kick(&self) {
        self.upkeep.kick();
    }

    /// Asks for a run of the bottom half later.
    pub(crate) fn take_notices_after(&self, delay_ms: u32) {
        self.bottom.kick_after(delay_ms);
    }

    /// Asks for a run of the upkeep later.
    pub(crate) fn kick_after(&self, delay_ms: u32) {
        self.upkeep.kick_after(delay_ms);
    }

    /// Asks to look for idle connections a while later.
    pub(crate) fn watch_idle(&self) {
        self.idle.kick_after(IDLE_MS);
    }

    /// Asks to look at connections that have a timeout, a while later.
    pub(crate) fn watch_clocks(&self) {
        self.clocks.kick_after(LOOK_MS);
    }

    /// Asks for connections to be given back whose sockets somebody in the kernel has taken.
    pub(crate) fn hand_over(&self) {
        self.handovers.kick();
    }

    /// Stops the work items for ever and waits for them. Process context, in none of them. The event channel closes
    /// when the last reference is dropped.
    pub(crate) fn cut(&self) {
        self.bottom.stop();
        self.upkeep.stop();
        self.idle.stop();
        self.clocks.stop();
        self.handovers.stop();
    }
}
