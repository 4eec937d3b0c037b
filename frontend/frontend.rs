// SPDX-License-Identifier: GPL-2.0

//! What all parts of the frontend share. One [`Frontend`] exists while the module is loaded.

use crate::channel::Channel;
use crate::counters::Counters;
use crate::datagram::Datagrams;
use crate::establish::Connector;
use crate::peer::Peer;
use crate::peers::Peers;
use crate::settings::Settings;
use crate::stream::Stream;
use crate::timeline::Timeline;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use kernel::sync::Arc;
use xenvmc_core::wire::CHUNKS_MAX;
use xenvmc_net as net;
use xenvmc_net::lock::BhSpinLock;
use xenvmc_net::{
    new_bh_spinlock,
    Registry, //
};
use xenvmc_xen::domain;
use xenvmc_xen::grant::Grants;
use xenvmc_xen::new_task;
use xenvmc_xen::work::{
    Queue,
    Run,
    Task, //
};
use xenvmc_xen::DomId;

/// What all parts share.
#[pin_data]
pub(crate) struct Frontend {
    settings: Arc<Settings>,
    counters: Arc<Counters>,
    timeline: Arc<Timeline>,
    peers: Arc<Peers>,
    registry: Arc<Registry<Stream>>,
    datagrams: Arc<Datagrams>,
    grants: Arc<Grants>,
    /// Our own number, which a resume may change.
    own: Atomic<u32>,
    requests: Atomic<u32>,
    /// Channels that exist, in whatever state.
    channels: Atomic<i64>,
    graves: Arc<Graves>,
    undertaker: Arc<Task<Graves>>,
    /// Taken out at the end: it refers to us.
    #[pin]
    connector: BhSpinLock<Option<Arc<Task<Connector>>>>,
}

impl Frontend {
    /// Makes it. Process context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; what Xenstore says when asked for our own number.
    pub(crate) fn new(
        settings: &Arc<Settings>,
        counters: &Arc<Counters>,
        timeline: &Arc<Timeline>,
        peers: &Arc<Peers>,
    ) -> Result<Arc<Self>> {
        let graves = Arc::pin_init(
            pin_init!(Graves {
                channels <- new_bh_spinlock!(KVec::new(), "xenvmc_graves"),
            }),
            GFP_KERNEL,
        )?;
        let undertaker = new_task!(Queue::Unbound, graves.clone(), "xenvmc_undertaker")?;
        let (registry, grants, own) = (Registry::new()?, Grants::new()?, domain::own()?);
        let datagrams = Datagrams::new()?;
        let (settings, counters, peers) = (settings.clone(), counters.clone(), peers.clone());
        let timeline = timeline.clone();
        let frontend = Arc::pin_init(
            pin_init!(Self {
                settings,
                counters,
                timeline,
                peers,
                registry,
                datagrams,
                grants,
                own: Atomic::new(u32::from(own.get())),
                requests: Atomic::new(1),
                channels: Atomic::new(0),
                graves,
                undertaker,
                connector <- new_bh_spinlock!(None, "xenvmc_connector"),
            }),
            GFP_KERNEL,
        )?;
        let connector = new_task!(
            Queue::HighPriority,
            Connector::new(&frontend)?,
            "xenvmc_connector"
        )?;
        *frontend.connector.lock() = Some(connector);
        Ok(frontend)
    }

    /// What the administrator chose.
    #[inline]
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is counted.
    #[inline]
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// When what was reached.
    #[inline]
    pub(crate) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// The guests that we know.
    pub(crate) fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// The sockets that were taken over.
    pub(crate) fn registry(&self) -> &Arc<Registry<Stream>> {
        &self.registry
    }

    /// What is known of datagrams.
    #[inline]
    pub(crate) fn datagrams(&self) -> &Datagrams {
        &self.datagrams
    }

    /// The pages that were granted.
    pub(crate) fn grants(&self) -> &Arc<Grants> {
        &self.grants
    }

    /// Our own number.
    pub(crate) fn own_domid(&self) -> DomId {
        u16::try_from(self.own.load(Relaxed))
            .ok()
            .and_then(DomId::new)
            .unwrap_or(DomId::DOM0)
    }

    /// Notes our own number. There is no channel now.
    pub(crate) fn set_own_domid(&self, own: DomId) {
        self.own.store(u32::from(own.get()), Relaxed);
    }

    /// A number for a request; none is used twice on a channel, and none is 0, which stands for "did not ask".
    pub(crate) fn next_request(&self) -> u32 {
        match self.requests.fetch_add(1, Relaxed) {
            0 => self.requests.fetch_add(1, Relaxed),
            id => id,
        }
    }

    /// Whether virtual CPUs have to wait for physical ones, so that looking would keep the peer from running.
    #[inline]
    pub(crate) fn is_overcommitted(&self) -> bool {
        xenvmc_xen::steal::is_overcommitted()
    }

    /// Asks for a channel to `peer`. Softirq or process context.
    pub(crate) fn want_channel(&self, peer: &Peer) {
        peer.want_channel();
        if let Some(connector) = &*self.connector.lock() {
            connector.kick();
        }
    }

    /// Asks for the end of a channel that is over; false = no memory, try again. Any context but hard interrupts.
    #[must_use]
    pub(crate) fn bury(&self, channel: &Arc<Channel>) -> bool {
        let buried = self
            .graves
            .channels
            .lock()
            .push(channel.clone(), GFP_ATOMIC)
            .is_ok();
        self.undertaker.kick();
        buried
    }

    /// Counts the channels that exist.
    pub(crate) fn channels(&self) -> &Atomic<i64> {
        &self.channels
    }

    /// Makes no more channels. Process context.
    pub(crate) fn stop_connecting(&self) {
        let connector = self.connector.lock().take();
        if let Some(connector) = connector {
            connector.stop();
        }
    }

    /// Begins to make no channels until [`Self::go_on_connecting`]. Process context.
    pub(crate) fn pause_connecting(&self) {
        if let Some(connector) = &*self.connector.lock() {
            connector.pause();
        }
    }

    /// Whether a channel is being made by us now. Process context.
    pub(crate) fn is_connecting(&self) -> bool {
        let connector = self.connector.lock();
        connector.as_ref().is_some_and(|task| task.is_running())
    }

    /// Ends a [`Self::pause_connecting`].
    pub(crate) fn go_on_connecting(&self) {
        if let Some(connector) = &*self.connector.lock() {
            connector.go_on();
            connector.kick();
        }
    }

    /// Ends what refers to us, when no channel exists any more. Process context.
    pub(crate) fn stop(&self) {
        self.undertaker.stop();
        self.graves.bury_all();
    }
}

impl Settings {
    /// The most chunks of a peer's arena that we map: a bound for address space and time, not for memory.
    pub(crate) fn peer_arena_chunks(&self) -> u32 {
        CHUNKS_MAX
    }
}

/// Channels that are over, and refer to the work items that run them.
#[pin_data]
struct Graves {
    #[pin]
    channels: BhSpinLock<KVec<Arc<Channel>>>,
}

impl Graves {
    /// Takes the channels apart.
    fn bury_all(&self) {
        let channels = core::mem::replace(&mut *self.channels.lock(), KVec::new());
        for channel in channels.iter() {
            if let Some(wires) = channel.set_wires(None) {
                wires.cut();
            }
            let mut place = channel.peer().channel.lock();
            let ours = place
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, channel));
            let old = if ours { place.take() } else { None };
            drop(place);
            drop(old);
            channel.frontend().counters().channels_closed.inc();
        }
        // Who has found one at its peer under RCU lets go of it: ours are the last references.
        if !channels.is_empty() {
            net::synchronize_packets();
        }
        drop(channels);
    }
}

impl Run for Graves {
    fn run(&self, _task: &Task<Self>) {
        self.bury_all();
    }
}
