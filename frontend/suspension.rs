// SPDX-License-Identifier: GPL-2.0

//! What the frontend does around a suspend of the guest: a save, a migration, a checkpoint. One [`Suspension`] in the module.
//!
//! Before, all channels are closed, as they are at unload, at once: every byte is TCP's, and nothing of ours depends on the
//! domain any more. Sockets stay taken over. Afterwards, in whatever domain and on whatever host, we begin as a guest that has
//! just come: it announces itself as another instance, and finds its peers.
//!
//! No user task runs meanwhile, so neither the start nor the end of the module does. The work items of the channels do run.

use crate::closing::{
    self,
    CLOSE_MS, //
};
use crate::discovery::Pacer;
use crate::frontend::Frontend;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
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
use xenvmc_core::guest::{
    Event,
    State, //
};
use xenvmc_xen::suspend::Handler;

/// How long it may take until all channels are gone. Peers have [`CLOSE_MS`]; the rest is for our own work, which should take
/// far less. The toolstack gives up after 60 seconds.
const LIMIT_MS: i64 = 2 * CLOSE_MS;

/// Follows the suspends of the guest.
#[pin_data]
pub(crate) struct Suspension {
    frontend: Arc<Frontend>,
    discovery: Pacer,
    /// Taken by one thread only, that of the suspends.
    #[pin]
    state: Mutex<State>,
}

impl Suspension {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(frontend: &Arc<Frontend>, discovery: Pacer) -> Result<Arc<Self>> {
        let frontend = frontend.clone();
        Arc::pin_init(
            pin_init!(Self {
                frontend,
                discovery,
                state <- new_mutex!(State::Running, "xenvmc_suspension"),
            }),
            GFP_KERNEL,
        )
    }

    /// Closes all channels and waits until they are gone, and nobody makes any; false if one is still there when the time is over.
    ///
    /// It waits for no lock and no work item: either may be waiting for a task that is frozen.
    fn close_all(&self, start: Instant<Monotonic>) -> bool {
        let frontend = &self.frontend;
        loop {
            let is_busy = self.discovery.is_running() || frontend.is_connecting();
            frontend
                .peers()
                .for_each_channel(|_, channel| closing::try_begin(channel));
            // Among them those of guests that are gone, which end by themselves.
            if !is_busy && frontend.channels().load(Relaxed) == 0 {
                return true;
            }
            if start.elapsed().as_millis() > LIMIT_MS {
                return false;
            }
            fsleep(Delta::from_millis(2));
        }
    }

    /// Begins anew.
    fn go_on(&self) {
        self.frontend.counters().resumes.inc();
        self.frontend.timeline().restart();
        self.frontend.datagrams().go_on();
        // It finds no peers before discovery has found them.
        self.frontend.go_on_connecting();
        self.discovery.go_on();
        pr_info!("goes on\n");
    }
}

impl Handler for Suspension {
    fn freeze(&self) -> Result {
        let mut state = self.state.lock();
        if !advance(&mut state, Event::Freeze) {
            return Ok(());
        }
        let start = Instant::<Monotonic>::now();
        self.frontend.counters().suspends.inc();
        self.frontend.datagrams().leave_all();
        // First whatever makes channels, so that those that are there are all.
        self.discovery.pause();
        self.frontend.pause_connecting();
        if !self.close_all(start) {
            // A mapping that outlives the domain would be a trap.
            pr_err!(
                "{} channels do not end: the guest is not suspended\n",
                self.frontend.channels().load(Relaxed)
            );
            advance(&mut state, Event::TimeUp);
            self.go_on();
            return Err(EBUSY);
        }
        // Peers learn it when their ends are closed: before, they would take us for dead.
        if let Err(error) = self.discovery.forget() {
            pr_warn!("the announcement could not be withdrawn: {error:?}\n");
        }
        advance(&mut state, Event::Closed);
        pr_info!(
            "ready to be suspended after {} ms\n",
            start.elapsed().as_millis()
        );
        Ok(())
    }

    fn resume(&self) {
        if advance(&mut self.state.lock(), Event::Resume) {
            self.go_on();
        }
    }
}

/// Moves the state machine; false = the event makes no sense now.
fn advance(state: &mut State, event: Event) -> bool {
    let next = state.next(event);
    *state = next.unwrap_or(*state);
    next.is_some()
}
