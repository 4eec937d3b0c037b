// SPDX-License-Identifier: GPL-2.0

//! Looking for a while before sleeping.
//!
//! To sleep and to be woken costs two hypercalls and, on the way, two changes of context in each guest. If the peer is
//! about to do what we wait for, looking is cheaper. How long is learnt for each connection and direction
//! ([`xenvmc_core::policy::Spin`]); a virtual CPU that others want is not kept.

use crate::channel::Channel;
use crate::link::Link;
use crate::polling::Polling;
use crate::stream::AdoptedStream;
use crate::transmit;
use crate::unread;
use core::cmp::max;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use kernel::sync::Arc;
use kernel::time::{
    Instant,
    Monotonic, //
};
use xenvmc_core::policy;
use xenvmc_core::shared::SharedLoad;
use xenvmc_core::wire::slot;
use xenvmc_core::Words;
use xenvmc_net as net;

/// Looks between two looks at the clock, which may be dear.
const LOOKS_PER_CLOCK: u32 = 32;

/// What one direction of a connection has learnt. Tasks that wait at once share it; if they race, some experience is lost.
pub(crate) struct Experience(Atomic<u32>);

impl Experience {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(policy::Spin::new().to_bits()))
    }

    fn load(&self) -> policy::Spin {
        policy::Spin::from_bits(self.0.load(Relaxed))
    }

    fn store(&self, spin: policy::Spin) {
        self.0.store(spin.to_bits(), Relaxed);
    }

    /// Notes that looking has found something.
    fn hit(&self, cap: u32) {
        let mut spin = self.load();
        spin.handle_hit(cap);
        self.store(spin);
    }

    /// Notes that one slept since `start`.
    pub(crate) fn slept(&self, start: Instant<Monotonic>, cap: u32) {
        let mut spin = self.load();
        spin.handle_sleep(nanos_since(start), cap);
        self.store(spin);
    }
}

fn nanos_since(start: Instant<Monotonic>) -> u32 {
    u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX)
}

/// What came of looking.
enum Looked {
    /// What was looked for.
    Found,
    /// Nothing in the whole time.
    Nothing,
    /// Somebody else wants the processor; maybe because of a notice that was taken.
    Wanted { had_news: bool },
}

/// Looks until `found` says true, or the budget (nanoseconds) runs out, or somebody else wants the processor. Takes notices of
/// the channel meanwhile, if it lasts.
fn look(channel: &Arc<Channel>, budget: u32, mut found: impl FnMut() -> bool) -> Looked {
    let start = Instant::<Monotonic>::now();
    let mut had_news = false;
    let mut is_long = false;
    loop {
        // What comes at once needs no more than a look.
        let polling = is_long.then(|| Polling::begin(channel)).flatten();
        for _ in 0..LOOKS_PER_CLOCK {
            if found() {
                return Looked::Found;
            }
            if polling.as_ref().is_some_and(Polling::has_news) {
                had_news = true;
                break;
            }
            net::relax();
        }
        // Takes what has come, and lets softirqs in.
        drop(polling);
        is_long = true;
        if net::is_wanted_elsewhere() {
            return Looked::Wanted { had_news };
        }
        if nanos_since(start) >= budget {
            return Looked::Nothing;
        }
    }
}

/// Looks as long as experience says, that of this connection or that of all on its channel, and learns.
fn wait_for(
    stream: &AdoptedStream,
    link: &Link,
    experience: &Experience,
    found: impl FnMut() -> bool,
) -> bool {
    if net::is_wanted_elsewhere() {
        return false;
    }
    let frontend = stream.frontend();
    let channel = link.channel();
    let cap = frontend.settings().spin_ns();
    let is_overcommitted = frontend.is_overcommitted();
    let budget = max(
        experience.load().budget(cap, is_overcommitted),
        channel.experience.load().budget(cap, is_overcommitted),
    );
    if budget > 0 {
        match look(channel, budget, found) {
            Looked::Found => {
                experience.hit(cap);
                channel.experience.hit(cap);
                return true;
            }
            Looked::Wanted { had_news } => {
                if had_news {
                    channel.experience.hit(cap);
                }
                return false;
            }
            Looked::Nothing => {}
        }
    }
    channel.bottom.lock().note_quiet();
    false
}

/// Looks for bytes; true = there are some. The caller holds no lock.
pub(crate) fn for_data(stream: &AdoptedStream) -> bool {
    let Some((link, seen)) = unread::seen(stream) else {
        return false;
    };
    let Some(view) = link.view() else {
        return false;
    };
    let word = view.peer.word(slot::TX_PROD);
    let (socket, epoch) = (stream.socket(), stream.epoch());
    let tcp = socket.received_seq();
    let hit = wait_for(stream, &link, &stream.rx_experience, || {
        word.load_relaxed() != seen
            || socket.received_seq() != tcp
            || socket.has_error()
            || stream.epoch() != epoch
    });
    let counters = stream.frontend().counters();
    if hit {
        counters.rx_spin_hits.inc();
    } else {
        counters.rx_spin_misses.inc();
    }
    hit
}

/// Looks for room; true = there is some. The caller holds no lock.
pub(crate) fn for_space(stream: &AdoptedStream) -> bool {
    let Some((link, _)) = unread::seen(stream) else {
        return false;
    };
    let size = stream.extent_bytes.load(Relaxed);
    let (socket, epoch) = (stream.socket(), stream.epoch());
    let hit = wait_for(stream, &link, &stream.tx_experience, || {
        (transmit::has_room(&link, size) && !stream.has_pending_records.load(Relaxed))
            || socket.has_error()
            || stream.epoch() != epoch
    });
    let counters = stream.frontend().counters();
    if hit {
        counters.tx_spin_hits.inc();
    } else {
        counters.tx_spin_misses.inc();
    }
    hit
}
