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
use kernel::sync::atomic::{
    Atomic,
    Full,
    Relaxed,
    Release, //
};
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::{
    Delta,
    Instant,
    Monotonic, //
};
use xenvmc_xen::new_task;
use xenvmc_xen::suspend::Handler;
use xenvmc_xen::work::{
    Queue,
    Run,
    Task, //
};

/// How long it may take until all channels are gone. Peers have [`CLOSE_MS`]; the rest is for our own work, which should take
/// far less. The toolstack gives up after 60 seconds.
const LIMIT_MS: i64 = 2 * CLOSE_MS;

/// After how much time of its own a guest that is still there has not been suspended: Linux gives up without a word to us if a
/// driver that is asked after ours refuses.
const PATIENCE_MS: u32 = 60_000;

/// Follows the suspends of the guest.
pub(crate) struct Suspension {
    frontend: Arc<Frontend>,
    discovery: Pacer,
    /// Everything is closed, and nothing may begin.
    is_frozen: Atomic<bool>,
}

impl Suspension {
    /// Closes all channels and waits until they are gone; false if one is still there when the time is over.
    fn close_all(&self) -> bool {
        let start = Instant::<Monotonic>::now();
        let frontend = &self.frontend;
        frontend
            .peers()
            .for_each_channel(|_, channel| closing::begin(channel));
        // Among them those of guests that are gone, which end by themselves.
        while frontend.channels().load(Relaxed) > 0 {
            if start.elapsed().as_millis() > LIMIT_MS {
                return false;
            }
            fsleep(Delta::from_millis(2));
        }
        true
    }

    fn freeze(&self) -> Result {
        let start = Instant::<Monotonic>::now();
        self.frontend.counters().suspends.inc();
        self.is_frozen.store(true, Release);
        // First whatever makes channels, so that those that are there are all.
        self.discovery.pause();
        self.frontend.pause_connecting();
        if !self.close_all() {
            // A mapping that outlives the domain would be a trap.
            pr_err!(
                "{} channels do not end: the guest is not suspended\n",
                self.frontend.channels().load(Relaxed)
            );
            self.go_on();
            return Err(EBUSY);
        }
        // Peers learn it when their ends are closed: before, they would take us for dead.
        if let Err(error) = self.discovery.forget() {
            pr_warn!("the announcement could not be withdrawn: {error:?}\n");
        }
        pr_info!(
            "ready to be suspended after {} ms\n",
            start.elapsed().as_millis()
        );
        Ok(())
    }

    /// Begins anew, once after each [`Self::freeze`].
    fn go_on(&self) {
        if !self.is_frozen.xchg(false, Full) {
            return;
        }
        self.frontend.counters().resumes.inc();
        // It finds no peers before discovery has found them.
        self.frontend.go_on_connecting();
        self.discovery.go_on();
        pr_info!("goes on\n");
    }
}

impl Run for Suspension {
    /// The guest is still there.
    fn run(&self, _task: &Task<Self>) {
        self.go_on();
    }
}

/// What is told of suspends.
pub(crate) struct Sleeper(Arc<Task<Suspension>>);

impl Sleeper {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(frontend: &Arc<Frontend>, discovery: Pacer) -> Result<Arc<Self>> {
        let suspension = Suspension {
            frontend: frontend.clone(),
            discovery,
            is_frozen: Atomic::new(false),
        };
        let suspension = Arc::new(suspension, GFP_KERNEL)?;
        let task = new_task!(Queue::Unbound, suspension, "xenvmc_suspension")?;
        Ok(Arc::new(Self(task), GFP_KERNEL)?)
    }
}

impl Handler for Sleeper {
    fn freeze(&self) -> Result {
        self.0.handler().freeze()?;
        self.0.kick_after(PATIENCE_MS);
        Ok(())
    }

    fn resume(&self) {
        self.0.handler().go_on();
        // So that a run that is late is not for the next suspend.
        self.0.pause();
        self.0.go_on();
    }
}
