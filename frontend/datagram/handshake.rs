// SPDX-License-Identifier: GPL-2.0

//! How two ends agree that a flow goes through a ring, and how it leaves (protocol §10.4, §10.5).

use super::lines::Refusal;
use crate::channel::Channel;
use kernel::sync::Arc;
use xenvmc_core::datagram::message::Message;
use xenvmc_core::message::{
    Address,
    Tuple, //
};
use xenvmc_core::wire::SlotId;
use xenvmc_core::{
    Decline,
    Error as Violation,
    Extent, //
};

/// Whether the guest at the other end of `channel` announces `address`, and has shown that it is its own.
pub(super) fn is_theirs(channel: &Channel, address: Address) -> core::result::Result<(), Decline> {
    let (frontend, peer) = (channel.frontend(), channel.peer());
    let owner = frontend.peers().find(address);
    if owner.is_none_or(|owner| !Arc::ptr_eq(&owner, peer)) {
        return Err(Decline::NotCoResident);
    }
    if peer.is_distrusted() {
        return Err(Decline::Distrusted);
    }
    let datagrams = frontend.datagrams();
    match datagrams.proofs.lock().is_proven(peer, address) {
        true => Ok(()),
        false => Err(Decline::NotProven),
    }
}

/// Takes a message of the peer. The upkeep, under the channel's control lock; there is room for one answer.
///
/// # Errors
///
/// If the peer has broken the protocol.
pub(crate) fn handle(
    channel: &Arc<Channel>,
    message: Message,
) -> core::result::Result<(), Violation> {
    let datagrams = channel.frontend().datagrams();
    let answer = match message {
        Message::Ask {
            id,
            tuple,
            slot,
            extent,
        } => Some(match admit(channel, id, &tuple, slot, extent) {
            Ok(answer) => answer,
            Err(Refusal::Decline(reason)) => {
                channel.frontend().counters().decline(reason);
                datagrams.kick();
                Message::Refuse {
                    id,
                    reason: reason.told(),
                }
            }
            Err(Refusal::Violation(violation)) => return Err(violation),
        }),
        Message::Admit { id, flow, slot } => match channel.lines().open_outlet(channel, slot) {
            Ok(()) => Some(datagrams.flows.lock().handle_admit(channel, id, flow)),
            Err(Refusal::Decline(_)) => Some(Message::Leave { flow, id }),
            Err(Refusal::Violation(violation)) => return Err(violation),
        },
        Message::Refuse { id, reason } => {
            channel.frontend().counters().refused(reason);
            datagrams.flows.lock().handle_refuse(channel, id, reason);
            datagrams.kick();
            None
        }
        Message::Handover { flow, id, sent } => {
            datagrams
                .arrivals
                .lock()
                .handle_handover(channel, flow, id, sent);
            datagrams.kick();
            None
        }
        Message::Go { id } => {
            datagrams.flows.lock().handle_go(channel, id);
            datagrams.kick();
            None
        }
        Message::Leave { flow, id } => {
            channel.lines().drain(channel);
            datagrams.arrivals.lock().handle_leave(channel, flow, id);
            Some(Message::Left { id })
        }
        Message::Left { id } => {
            datagrams.flows.lock().handle_left(channel, id);
            datagrams.kick();
            None
        }
        Message::Revoke { id } => {
            datagrams.flows.lock().handle_revoke(channel, id);
            datagrams.kick();
            None
        }
        Message::Echo { address, nonce } => {
            let is_right = datagrams
                .proofs
                .lock()
                .handle_echo(channel.peer(), address, nonce);
            let counters = channel.frontend().counters();
            match is_right {
                true => counters.udp_addresses_proven.inc(),
                false => counters.udp_echoes_wrong.inc(),
            }
            datagrams.kick();
            None
        }
    };
    if let Some(answer) = answer {
        // There was room when the message was taken. If there is none any more, the peer waits in vain, and only for a while.
        let _ = channel.answer_datagram(&answer);
    }
    Ok(())
}

/// Decides on a request.
fn admit(
    channel: &Arc<Channel>,
    id: u32,
    tuple: &Tuple,
    slot: SlotId,
    extent: Extent,
) -> core::result::Result<Message, Refusal> {
    let frontend = channel.frontend();
    if !frontend.datagrams().may_begin(frontend.settings()) {
        return Err(Decline::Disabled.into());
    }
    is_theirs(channel, tuple.src)?;
    let own = channel.lines().open_inlet(channel, slot, extent)?;
    let mut arrivals = frontend.datagrams().arrivals.lock();
    let flow = arrivals.admit(channel, tuple, id)?;
    Ok(Message::Admit {
        id,
        flow,
        slot: own,
    })
}
