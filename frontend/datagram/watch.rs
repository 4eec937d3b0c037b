// SPDX-License-Identifier: GPL-2.0

//! Looking at packets and at calls that receive, only once there is something to see: it costs all traffic of the guest a little
//! (`Documentation/tuning.md` §3). One [`Watch`] in the module.

use super::arrivals::FORGET_MS;
use super::{
    ReaderWatcher,
    Watcher, //
};
use crate::frontend::Frontend;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::{
    Instant,
    Monotonic, //
};
use xenvmc_net::netfilter::Hooks;
use xenvmc_net::ReadProbe;

/// What is registered with the kernel.
pub(super) struct Watch {
    /// Datagrams are not left alone, and the module does not end.
    is_on: bool,
    /// From the first peer on. They stay when it is gone: the kernel drops all packets that wait for user space (NFQUEUE) when a hook goes.
    hooks: Option<Hooks<Watcher>>,
    /// While flows come through rings, and then for a while.
    reads: Option<ReadProbe<ReaderWatcher>>,
    /// There was a peer.
    wants_hooks: bool,
    /// When a flow could come through a ring last, unless that is long ago.
    received: Option<Instant<Monotonic>>,
    /// Something that is wanted could not be registered the last time.
    is_failing: bool,
}

impl Watch {
    /// Looks at nothing.
    pub(super) const fn new() -> Self {
        Self {
            is_on: false,
            hooks: None,
            reads: None,
            wants_hooks: false,
            received: None,
            is_failing: false,
        }
    }

    /// Lets it look when there are peers.
    pub(super) fn start(&mut self) {
        self.is_on = true;
    }

    /// Ends it for ever. Returns when nobody is in a hook or a probe any more.
    pub(super) fn stop(&mut self) {
        self.is_on = false;
        self.hooks = None;
        self.reads = None;
    }

    /// There are peers: looks at packets from now on.
    pub(super) fn look_at_packets(&mut self, frontend: &Arc<Frontend>) {
        self.wants_hooks = true;
        self.begin(frontend);
    }

    /// Looks at calls that receive while flows may come through rings, and a while longer. Returns whether it has to be called again when nothing
    /// else happens.
    pub(super) fn update(&mut self, frontend: &Arc<Frontend>, is_receiving: bool) -> bool {
        if is_receiving {
            self.received = Some(Instant::now());
        }
        let is_over =
            |since: &Instant<Monotonic>| since.elapsed().as_millis() >= i64::from(FORGET_MS);
        if self.received.as_ref().is_some_and(is_over) {
            self.received = None;
            self.reads = None;
        }
        self.begin(frontend);
        self.is_failing || self.received.is_some()
    }

    /// Registers what is lacking.
    fn begin(&mut self, frontend: &Arc<Frontend>) {
        let result = self.try_begin(frontend);
        if let (Err(error), false) = (result, self.is_failing) {
            pr_warn!("UDP packets cannot be looked at, which will be tried again: {error:?}\n");
        }
        self.is_failing = result.is_err();
    }

    fn try_begin(&mut self, frontend: &Arc<Frontend>) -> Result {
        if !self.is_on {
            return Ok(());
        }
        if self.wants_hooks && self.hooks.is_none() {
            self.hooks = Some(Hooks::register(Watcher::new(frontend)?)?);
        }
        if self.received.is_some() && self.reads.is_none() {
            self.reads = Some(ReadProbe::register(ReaderWatcher::new(frontend)?)?);
        }
        Ok(())
    }
}
