// SPDX-License-Identifier: GPL-2.0

//! Taking notices without events: a task that looks for something of its own, because nobody else wants the processor, looks at
//! the channel's queue as well. Otherwise the peer would interrupt it for each other connection that something happens on.

use crate::channel::Channel;
use crate::notices;
use crate::region::PeerRegion;
use kernel::sync::Arc;
use xenvmc_core::queue;
use xenvmc_core::shared::SharedLoad;
use xenvmc_core::wire::root;
use xenvmc_core::Words;
use xenvmc_net::BottomHalvesOff;
use xenvmc_xen::word::VirtFence;

/// While one exists the peer sends no event for a notice. Softirqs are off meanwhile, so that its owner is not preempted with
/// notices left to take: it must not exist for long. What has come is taken when it is dropped.
pub(crate) struct Polling<'a> {
    channel: &'a Arc<Channel>,
    theirs: &'a PeerRegion,
    _off: BottomHalvesOff,
}

impl<'a> Polling<'a> {
    /// Begins, unless the channel is not open. Process context.
    pub(crate) fn begin(channel: &'a Arc<Channel>) -> Option<Self> {
        let theirs = channel.theirs()?;
        if !channel.is_open() {
            return None;
        }
        let off = BottomHalvesOff::new();
        channel.begin_polling();
        let own = channel.own().root();
        queue::disarm(&own.word(root::NOTICE_EVENT), &own.word(root::NOTICE_CONS));
        Some(Self {
            channel,
            theirs,
            _off: off,
        })
    }

    /// Whether there is a notice to take.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        let taken = self.channel.own().root().word(root::NOTICE_CONS);
        self.theirs.root().word(root::NOTICE_PROD).load_relaxed() != taken.load_relaxed()
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        if self.channel.end_polling() {
            // Another processor still looks.
            return;
        }
        let own = self.channel.own().root();
        let is_armed = queue::rearm::<VirtFence>(
            &own.word(root::NOTICE_EVENT),
            &own.word(root::NOTICE_CONS),
            &self.theirs.root().word(root::NOTICE_PROD),
        );
        if !is_armed && notices::run(self.channel) {
            self.channel.kick_bottom();
        }
    }
}
