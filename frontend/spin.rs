// SPDX-License-Identifier: GPL-2.0

//! Looking for a while before sleeping.
//!
//! To sleep and to be woken costs two hypercalls and, on the way, two changes of context in each guest. If the peer is
//! about to do what we wait for, looking is cheaper. How long is learnt for each connection and direction
//! ([`xenvmc_core::policy::Spin`]); a virtual CPU that others want is not kept.

use crate::stream::AdoptedStream;
use crate::transmit;
use crate::unread;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
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

    /// Notes that one slept since `start`.
    pub(crate) fn slept(&self, start: Instant<Monotonic>, cap: u32) {
        let mut spin = self.load();
        spin.handle_sleep(nanos_since(start), cap);
        self.store(spin);
    }
}

/// Nanoseconds since `start`, as far as the number goes. Any context.
pub(crate) fn nanos_since(start: Instant<Monotonic>) -> u32 {
    u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX)
}

/// Looks until `found` says true, or the budget (nanoseconds) runs out, or somebody else wants the processor.
fn look(budget: u32, mut found: impl FnMut() -> bool) -> bool {
    let start = Instant::<Monotonic>::now();
    loop {
        for _ in 0..LOOKS_PER_CLOCK {
            if found() {
                return true;
            }
            net::relax();
        }
        if net::is_wanted_elsewhere() || nanos_since(start) >= budget {
            return false;
        }
    }
}

/// Looks as long as experience says, and learns.
fn wait_for(stream: &AdoptedStream, experience: &Experience, found: impl FnMut() -> bool) -> bool {
    let frontend = stream.frontend();
    let cap = frontend.settings().spin_ns();
    let mut spin = experience.load();
    let budget = spin.budget(cap, frontend.is_overcommitted());
    if budget == 0 || net::is_wanted_elsewhere() || !look(budget, found) {
        return false;
    }
    spin.handle_hit(cap);
    experience.store(spin);
    true
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
    let hit = wait_for(stream, &stream.rx_experience, || {
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
    let hit = wait_for(stream, &stream.tx_experience, || {
        // While records are due, the next call goes on over TCP.
        stream.has_pending_records.load(Relaxed)
            || transmit::has_room(&link, size)
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
