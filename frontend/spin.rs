// SPDX-License-Identifier: GPL-2.0

//! Looking for a while before sleeping.
//!
//! To sleep and to be woken costs two hypercalls and, on the way, two changes of context in each guest. If the peer is
//! about to do what we wait for, looking is cheaper. How long is learnt for each connection and direction
//! ([`xenvmc_core::policy::Spin`]); a virtual CPU that others want is not kept.

use crate::receive;
use crate::stream::AdoptedStream;
use crate::transmit;
use kernel::sync::atomic::Relaxed;
use kernel::time::{
    Instant,
    Monotonic, //
};
use xenvmc_core::policy::Spin;
use xenvmc_core::shared::SharedLoad;
use xenvmc_core::wire::slot;
use xenvmc_core::Words;
use xenvmc_net as net;

/// Looks between two looks at the clock, which may be dear.
const LOOKS_PER_CLOCK: u32 = 32;

/// Looks until `found` says true; [`None`] if the budget (nanoseconds) ran out or somebody else wants the processor, else
/// how long it took.
fn look(budget: u32, mut found: impl FnMut() -> bool) -> Option<u32> {
    let start = Instant::<Monotonic>::now();
    loop {
        for _ in 0..LOOKS_PER_CLOCK {
            if found() {
                return Some(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX));
            }
            net::relax();
        }
        if net::is_wanted_elsewhere() || start.elapsed().as_nanos() >= i64::from(budget) {
            return None;
        }
    }
}

/// Notes the outcome of a look.
fn learn(spin: &mut Spin, waited: Option<u32>, cap: u32) {
    match waited {
        Some(waited) => spin.handle_hit(waited, cap),
        None => spin.handle_miss(cap),
    }
}

/// Looks for bytes; true = there are some. The caller holds no lock.
pub(crate) fn for_data(stream: &AdoptedStream) -> bool {
    let frontend = stream.frontend();
    let cap = frontend.settings().spin_ns();
    let (link, budget) = {
        let mut reader = stream.reader.lock();
        let budget = reader.spin.budget(cap, frontend.is_overcommitted());
        (reader.link.clone(), budget)
    };
    let Some(link) = link else { return false };
    if budget == 0 {
        return false;
    }
    let Some(view) = link.view() else {
        return false;
    };
    let word = view.peer.word(slot::TX_PROD);
    let seen = receive::seen(stream);
    let (socket, epoch) = (stream.socket(), stream.epoch());
    let tcp = socket.received_seq();
    let waited = look(budget, || {
        word.load_relaxed() != seen
            || socket.received_seq() != tcp
            || socket.has_error()
            || stream.epoch() != epoch
    });
    learn(&mut stream.reader.lock().spin, waited, cap);
    let counters = frontend.counters();
    match waited {
        Some(_) => counters.rx_spin_hits.inc(),
        None => counters.rx_spin_misses.inc(),
    }
    waited.is_some()
}

/// Looks for room; true = there is some. The caller holds no lock.
pub(crate) fn for_space(stream: &AdoptedStream) -> bool {
    let frontend = stream.frontend();
    let cap = frontend.settings().spin_ns();
    let (link, budget) = {
        let mut guard = stream.lock();
        let sender = guard.state();
        let budget = sender.spin.budget(cap, frontend.is_overcommitted());
        (sender.link.clone(), budget)
    };
    let Some(link) = link else { return false };
    if budget == 0 {
        return false;
    }
    let size = stream.extent_bytes.load(Relaxed);
    let (socket, epoch) = (stream.socket(), stream.epoch());
    let waited = look(budget, || {
        transmit::has_room(&link, size) || socket.has_error() || stream.epoch() != epoch
    });
    learn(&mut stream.lock().state().spin, waited, cap);
    let counters = frontend.counters();
    match waited {
        Some(_) => counters.tx_spin_hits.inc(),
        None => counters.tx_spin_misses.inc(),
    }
    waited.is_some()
}
