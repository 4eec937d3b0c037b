// SPDX-License-Identifier: GPL-2.0

//! Taking notices: which connections the peer has done something for (protocol §5). In a softirq.

use crate::channel::Channel;
use crate::stream;
use kernel::sync::Arc;
use xenvmc_core::queue::Consumer;
use xenvmc_core::shared::{
    SharedLoad,
    SharedStore, //
};
use xenvmc_core::wire::root;
use xenvmc_core::Words;
use xenvmc_xen::word::VirtFence;

/// Notices taken in one go, before others get the processor.
const BUDGET: u32 = 64;

/// What the bottom half knows of the peer's queue, and the words that the upkeep has dealt with.
pub(crate) struct Bottom {
    consumer: Consumer,
    upkeep: [u32; UPKEEP_WORDS.len()],
}

/// The peer's words that are the upkeep's business.
const UPKEEP_WORDS: [u32; 5] = [
    root::STATE,
    root::CONTROL_PROD,
    root::CHUNKS,
    root::CHUNKS_MAPPED,
    root::CONTROL_CONS,
];

impl Bottom {
    /// Nothing taken yet.
    pub(crate) const fn new() -> Self {
        Self {
            consumer: Consumer::notice(),
            upkeep: [0; UPKEEP_WORDS.len()],
        }
    }
}

/// Takes what is in the queue, and delivers datagrams, as far as the budgets go; true = there is more.
pub(crate) fn run(channel: &Arc<Channel>) -> bool {
    let more = take(channel);
    channel.lines().run(channel);
    more
}

/// Takes what is in the queue, as far as the budget goes; true = there is more.
fn take(channel: &Arc<Channel>) -> bool {
    let Some(theirs) = channel.theirs() else {
        return false;
    };
    let (own, peer) = (channel.own().root(), theirs.root());
    let counters = channel.frontend().counters();
    let mut bottom = channel.bottom.lock();
    let words = UPKEEP_WORDS.map(|word| peer.word(word).load_relaxed());
    if words != bottom.upkeep {
        bottom.upkeep = words;
        channel.kick();
    }
    if channel.is_broken() || !channel.state().is_readable() {
        return false;
    }
    for _ in 0..BUDGET {
        let next = match bottom.consumer.peek(&peer.word(root::NOTICE_PROD)) {
            Ok(next) => next,
            Err(error) => {
                drop(bottom);
                channel.violation(error.into());
                return false;
            }
        };
        let Some(at) = next else {
            let (event, prod) = (own.word(root::NOTICE_EVENT), peer.word(root::NOTICE_PROD));
            if bottom.consumer.arm::<VirtFence>(&event, &prod) {
                return false;
            }
            continue;
        };
        let Ok(slot) = theirs.read_notice(at) else {
            return false;
        };
        bottom
            .consumer
            .take::<VirtFence>(&own.word(root::NOTICE_CONS));
        counters.notices_received.inc();
        if channel.lines().take_notice(slot) {
            continue;
        }
        let stream = channel.slots().lock().stream(slot);
        match stream {
            Some(stream) => stream::noticed(&stream),
            // Not a breach: the connection may have ended here while the notice was on its way.
            None => counters.notices_stale.inc(),
        }
    }
    true
}

/// Arms the events of both queues of a channel that begins, so that the first entry of each raises one.
pub(crate) fn arm(channel: &Channel) {
    let own = channel.own().root();
    own.word(root::NOTICE_EVENT).store_release(0);
    own.word(root::CONTROL_EVENT).store_release(0);
}
