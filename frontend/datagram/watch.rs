// SPDX-License-Identifier: GPL-2.0

//! Looking at packets and at calls that receive, only as long as there is something to see: it costs all traffic of the guest a little
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
    state: State,
    /// While there are peers, and then until no flow is known any more.
    hooks: Option<Hooks<Watcher>>,
    /// While flows come through rings, and then for a while.
    reads: Option<ReadProbe<ReaderWatcher>>,
    /// When one came last.
    received: Option<Instant<Monotonic>>,
    /// The last time something could not be registered.
    is_failing: bool,
}

/// Whether to look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Datagrams are left alone, or the module ends.
    Off,
    /// There is no peer.
    Alone,
    /// There are peers.
    Accompanied,
}

impl Watch {
    /// Looks at nothing.
    pub(super) const fn new() -> Self {
        Self {
            state: State::Off,
            hooks: None,
            reads: None,
            received: None,
            is_failing: false,
        }
    }

    /// Lets it look when there are peers.
    pub(super) fn start(&mut self) {
        self.state = State::Alone;
    }

    /// Ends it for ever. Returns when nobody is in a hook or a probe any more.
    pub(super) fn stop(&mut self) {
        self.state = State::Off;
        self.hooks = None;
        self.reads = None;
    }

    /// Notes whether there are peers, and if there are, looks at packets from now on.
    pub(super) fn set_accompanied(&mut self, frontend: &Arc<Frontend>, is_accompanied: bool) {
        self.state = match (self.state, is_accompanied) {
            (State::Off, _) => return,
            (_, true) => State::Accompanied,
            (_, false) => State::Alone,
        };
        self.begin(frontend, false);
    }

    /// Begins what is needed, and ends what is needed no more. Returns whether it has to be called again, when nothing else happens.
    pub(super) fn update(
        &mut self,
        frontend: &Arc<Frontend>,
        has_flows: bool,
        is_receiving: bool,
    ) -> bool {
        if is_receiving {
            self.received = Some(Instant::now());
        }
        self.begin(frontend, is_receiving);
        if self.state != State::Accompanied && !has_flows {
            self.hooks = None;
        }
        if let Some(received) = self.received {
            if received.elapsed().as_millis() >= i64::from(FORGET_MS) {
                self.reads = None;
                self.received = None;
            }
        }
        self.is_failing || self.received.is_some()
    }

    /// Registers what is lacking.
    fn begin(&mut self, frontend: &Arc<Frontend>, is_receiving: bool) {
        let result = self.try_begin(frontend, is_receiving);
        if let (Err(error), false) = (result, self.is_failing) {
            pr_warn!("UDP packets cannot be looked at, which will be tried again: {error:?}\n");
        }
        self.is_failing = result.is_err();
    }

    fn try_begin(&mut self, frontend: &Arc<Frontend>, is_receiving: bool) -> Result {
        if self.state == State::Accompanied && self.hooks.is_none() {
            self.hooks = Some(Hooks::register(Watcher::new(frontend)?)?);
        }
        if self.state != State::Off && is_receiving && self.reads.is_none() {
            self.reads = Some(ReadProbe::register(ReaderWatcher::new(frontend)?)?);
        }
        Ok(())
    }
}
