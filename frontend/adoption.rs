// SPDX-License-Identifier: GPL-2.0

//! Which connections are taken over, and when: those to a known peer, when they are established or when the peer becomes known.

use crate::frontend::Frontend;
use crate::giveback;
use crate::peer::Peer;
use crate::stream::{
    AdoptedStream,
    Stream, //
};
use kernel::alloc::Flags;
use kernel::prelude::*;
use kernel::sync::atomic::Release;
use kernel::sync::Arc;
use xenvmc_core::message::Tuple;
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
    if locked.sends_urgent() {
        adopted.has_sent_urgent.store(true, Release);
    }
    frontend.counters().sockets_adopted.inc();
    if !peer.has_channel() {
        frontend.want_channel(peer);
    }
    Ok(adopted)
}

/// Takes over a connection that is established, if it leads to a peer. Socket locked; maybe in a softirq, then `flags` is
/// `GFP_ATOMIC`.
fn adopt_if_peer(frontend: &Arc<Frontend>, locked: &mut Locked<'_>, flags: Flags) {
    let Some(tuple) = locked.tuple() else { return };
    let Some(peer) = frontend.peers().find(tuple.dst) else {
        return;
    };
    let counters = frontend.counters();
    if !frontend.settings().is_enabled() {
        return counters.decline(Decline::Disabled);
    }
    if !peer.is_compatible() {
        return counters.decline(Decline::Version);
    }
    if let Err(reason) = adopt(frontend, &peer, locked, flags) {
        counters.decline(reason);
    }
}

/// Whether a connection that was taken over may go to the ring with `peer`, as one that is taken over now may.
fn may_lead_to(frontend: &Frontend, peer: &Arc<Peer>, stream: &AdoptedStream) -> bool {
    let owner = frontend.peers().find(stream.tuple().dst);
    frontend.settings().is_enabled()
        && peer.is_compatible()
        && owner.is_some_and(|owner| Arc::ptr_eq(&owner, peer))
}

/// Takes over the connections to `peer` that were established before it was known to us: all of them, if that is wanted, or
/// those only that we had taken over before it came back. Process context, no lock held; waits for channels of the same guest
/// that are ending.
///
/// Tasks may be inside their methods: [`crate::ready`] waits for those.
///
/// # Errors
///
/// `ENOMEM`: not all could be looked at.
pub(crate) fn adopt_existing(frontend: &Arc<Frontend>, peer: &Arc<Peer>) -> Result {
    let wants_all = frontend.settings().adopt_existing;
    net::for_each_established(|socket| {
        let leads_there = |tuple: Tuple| peer.has_address(tuple.dst);
        if !socket.tuple().is_some_and(leads_there) {
            return;
        }
        let mut locked = socket.lock();
        if let Some(stream) = AdoptedStream::find(&locked) {
            if !stream.peer().is_gone() {
                return;
            }
            // It led to what the guest was before its module was loaded again, or before one of us came back.
            if stream.is_free() && may_lead_to(frontend, peer, &stream) {
                stream.set_peer(peer);
                match peer.channel() {
                    Some(channel) => channel.note_returning(),
                    None => frontend.want_channel(peer),
                }
                return;
            }
            drop(locked);
            giveback::give_back(&stream);
            locked = socket.lock();
        } else if !wants_all {
            return;
        }
        // Its state may have changed before it was locked.
        if locked.is_established() {
            adopt_if_peer(frontend, &mut locked, GFP_KERNEL);
        }
    })
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
}

impl StateHandler for Adopter {
    fn state_changing(&self, locked: &mut Locked<'_>, to: TcpState) {
        match to {
            TcpState::Established => adopt_if_peer(&self.frontend, locked, GFP_ATOMIC),
            TcpState::Close => {
                // A connection that never came to the ring needs us no more.
                let Some(stream) = AdoptedStream::find(locked) else {
                    return;
                };
                if stream.is_free() {
                    stream.with_lock(locked, |guard| guard.restore());
                }
            }
            TcpState::Other => {}
        }
    }
}
