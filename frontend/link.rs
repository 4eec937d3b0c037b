// SPDX-License-Identifier: GPL-2.0

//! One accelerated connection's place in a channel: the two slots. Made when both ends know both, shared by all who use
//! them.

use crate::channel::Channel;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use kernel::sync::Arc;
use xenvmc_core::queue::Posted;
use xenvmc_core::shared::{
    SharedLoad,
    SharedStore, //
};
use xenvmc_core::wire::{
    self,
    slot,
    SlotId, //
};
use xenvmc_core::Words;
use xenvmc_net::lock::BhSpinLock;
use xenvmc_net::new_bh_spinlock;
use xenvmc_xen::word::{
    OwnWords,
    PeerWords, //
};

/// The two slots of a connection.
#[pin_data]
pub(crate) struct Link {
    channel: Arc<Channel>,
    own: SlotId,
    peer: SlotId,
    /// The notice about this connection that the peer may not have taken yet. Taken inside the channel's lock.
    #[pin]
    pub(crate) posted: BhSpinLock<Posted>,
    /// Serialises changes of our flags, which have several writers.
    #[pin]
    flags: BhSpinLock<()>,
    /// The peer said that it is ready, and whoever waits for that was woken.
    is_ready: Atomic<bool>,
}

/// Both slots as words.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// Our own slot.
    pub(crate) own: OwnWords<'a>,
    /// The peer's.
    pub(crate) peer: PeerWords<'a>,
}

impl View<'_> {
    /// The peer's receive flags.
    #[inline]
    pub(crate) fn peer_flags(&self) -> u32 {
        self.peer.word(slot::RX_FLAGS).load_acquire()
    }

    /// Whether the peer promised that no byte of the ring follows.
    pub(crate) fn has_peer_ended(&self) -> bool {
        self.peer.word(slot::TX_FLAGS).load_acquire() & wire::TX_END != 0
    }

    /// Whether the peer said that it will not read any more, or wants its direction back on TCP.
    #[inline]
    pub(crate) fn peer_wants_tcp(&self) -> bool {
        self.peer_flags() & (wire::RX_GONE | wire::RX_RETURN) != 0
    }
}

impl Link {
    /// Joins our slot `own` and the peer's slot `peer`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if one of them is not there, `ENOMEM`.
    pub(crate) fn new(channel: &Arc<Channel>, own: SlotId, peer: SlotId) -> Result<Arc<Self>> {
        let link = Arc::pin_init(
            pin_init!(Self {
                channel: channel.clone(),
                own,
                peer,
                posted <- new_bh_spinlock!(Posted::none(), "xenvmc_posted"),
                flags <- new_bh_spinlock!((), "xenvmc_flags"),
                is_ready: Atomic::new(false),
            }),
            GFP_KERNEL,
        )?;
        link.view().ok_or(EINVAL)?;
        Ok(link)
    }

    /// The channel.
    #[inline]
    pub(crate) fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Our slot.
    pub(crate) fn own(&self) -> SlotId {
        self.own
    }

    /// The peer's slot.
    pub(crate) fn peer(&self) -> SlotId {
        self.peer
    }

    /// The words of both slots. There once the link is made, since regions do not shrink.
    #[inline]
    pub(crate) fn view(&self) -> Option<View<'_>> {
        Some(View {
            own: self.channel.own().slot(self.own)?,
            peer: self.channel.theirs()?.slot(self.peer)?,
        })
    }

    /// Notes that the peer has said that it is ready; true = for the first time.
    pub(crate) fn note_ready(&self) -> bool {
        !self.is_ready.load(Relaxed) && !self.is_ready.xchg(true, Relaxed)
    }

    /// Posts a notice: something of this connection has changed on our side. Softirq or process context.
    pub(crate) fn post(&self) {
        self.channel.post(self);
    }

    /// Sets bits of our receive flags ([`slot::RX_FLAGS`]). Softirq or process context.
    pub(crate) fn set_receive_flags(&self, bits: u32) {
        let _flags = self.flags.lock();
        if let Some(view) = self.view() {
            let word = view.own.word(slot::RX_FLAGS);
            // What the flag promises /before/ the flag. Partner: `Self::peer_flags` at the other end.
            word.store_release(word.load_relaxed() | bits);
        }
    }

    /// The peer's receive flags.
    pub(crate) fn peer_flags(&self) -> u32 {
        self.view().map_or(0, |view| view.peer_flags())
    }
}
