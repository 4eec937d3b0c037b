// SPDX-License-Identifier: GPL-2.0

//! Which connections are taken over, and when: those to a known peer, when they are established.

use crate::frontend::Frontend;
use crate::peer::Peer;
use crate::stream::{
    AdoptedStream,
    Phase,
    Stream, //
};
use kernel::alloc::Flags;
use kernel::prelude::*;
use kernel::sync::Arc;
use xenvmc_core::connection;
use xenvmc_core::Decline;
use xenvmc_net as net;
use xenvmc_net::{
    Locked,
    StateHandler,
    TcpState, //
};

/// Takes a socket over. Socket locked; maybe in a softirq, then `flags` is `GFP_ATOMIC`.
///
/// # Errors
///
/// Why it was not.
pub(crate) fn adopt(
    frontend: &Arc<Frontend>,
    peer: &Arc<Peer>,
    locked: &mut Locked<'_>,
    flags: Flags,
) -> core::result::Result<Arc<AdoptedStream>, Decline> {
    if let Some(reason) = net::why_not_adopt(locked) {
        return Err(reason);
    }
    let tuple = locked.tuple().ok_or(Decline::Protocol)?;
    let (stream, sender) = Stream::new(frontend, peer, tuple);
    let adopted = AdoptedStream::install(locked, frontend.registry(), stream, sender, flags)
        .map_err(|error| match error {
            error if error == EBUSY => Decline::Stopping,
            _ => Decline::NoMemory,
        })?;
    frontend.counters().sockets_adopted.inc();
    if !peer.has_channel() {
        frontend.want_channel(peer);
    }
    Ok(adopted)
}

/// Follows the states of all TCP sockets.
pub(crate) struct Adopter {
    frontend: Arc<Frontend>,
}

impl Adopter {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(frontend: &Arc<Frontend>) -> Result<Arc<Self>> {
        let frontend = frontend.clone();
        Ok(Arc::new(Self { frontend }, GFP_KERNEL)?)
    }

    fn established(&self, locked: &mut Locked<'_>) {
        let Some(tuple) = locked.tuple() else { return };
        let Some(peer) = self.frontend.peers().find(tuple.dst) else {
            return;
        };
        let counters = self.frontend.counters();
        if !self.frontend.settings().is_enabled() {
            return counters.decline(Decline::Disabled);
        }
        if !peer.is_compatible() {
            return counters.decline(Decline::Version);
        }
        if let Err(reason) = adopt(&self.frontend, &peer, locked, GFP_ATOMIC) {
            counters.decline(reason);
        }
    }
}

impl StateHandler for Adopter {
    fn state_changing(&self, locked: &mut Locked<'_>, to: TcpState) {
        match to {
            TcpState::Established => self.established(locked),
            TcpState::Close => {
                // A connection that never came to the ring needs us no more.
                let Some(stream) = AdoptedStream::find(locked) else {
                    return;
                };
                let plain = stream.phase() == Phase::Plain
                    && stream.agreement().lock().state() == connection::State::Plain;
                if plain {
                    stream.with_lock(locked, |guard| guard.restore());
                }
            }
            TcpState::Other => {}
        }
    }
}
