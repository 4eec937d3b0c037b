// SPDX-License-Identifier: GPL-2.0

//! Control messages of the service of datagrams (protocol §10.4).
//!
//! A flow has a number at each end: the *id*, chosen by its sender for each ASK anew, and the *flow*,
//! chosen by its reader. A message that names it by another pair than the last one is of the past.

use super::probe::Nonce;
use crate::{
    decline::Decline,
    error::WireError,
    extent::Extent,
    message::{
        Address,
        Cursor,
        Reader,
        Tuple,
        MESSAGE_SIZE,
        SERVICE_DATAGRAMS, //
    },
    wire::SlotId,
};

const ASK: u8 = 1;
const ADMIT: u8 = 2;
const REFUSE: u8 = 3;
const HANDOVER: u8 = 4;
const GO: u8 = 5;
const LEAVE: u8 = 6;
const LEFT: u8 = 7;
const REVOKE: u8 = 8;
const ECHO: u8 = 9;

/// One control message of the service of datagrams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message {
    /// "Did you see datagrams of this flow arrive? May I send the others through the ring?"
    Ask {
        /// The sender's number of the flow.
        id: u32,
        /// Addresses and ports.
        tuple: Tuple,
        /// The sender's slot of its ring.
        slot: SlotId,
        /// Where the ring is in the sender's arena.
        extent: Extent,
    },
    /// "Yes."
    Admit {
        /// The sender's number of the flow.
        id: u32,
        /// The reader's.
        flow: u32,
        /// The reader's slot of the ring.
        slot: SlotId,
    },
    /// "No", or "not now".
    Refuse {
        /// The sender's number of the flow.
        id: u32,
        /// Why.
        reason: Decline,
    },
    /// "So many datagrams went over the network. I wait."
    Handover {
        /// The reader's number of the flow.
        flow: u32,
        /// The sender's.
        id: u32,
        /// Datagrams since the flow was first seen by its sender, or was in the ring last.
        sent: u32,
    },
    /// "They have arrived."
    Go {
        /// The sender's number of the flow.
        id: u32,
    },
    /// "The next ones go over the network. I wait."
    Leave {
        /// The reader's number of the flow.
        flow: u32,
        /// The sender's.
        id: u32,
    },
    /// "What was in the ring has been delivered."
    Left {
        /// The sender's number of the flow.
        id: u32,
    },
    /// "Leave the ring."
    Revoke {
        /// The sender's number of the flow.
        id: u32,
    },
    /// "This probe of yours has reached me at this address."
    Echo {
        /// The address.
        address: Address,
        /// The number in it.
        nonce: Nonce,
    },
}

impl Message {
    /// The 64 bytes of the message.
    ///
    /// ```
    /// use xenvmc_core::datagram::message::Message;
    ///
    /// let message = Message::Leave { flow: 5, id: 9 };
    /// assert_eq!(message.emit()[..12], [2, 6, 0, 0, 5, 0, 0, 0, 9, 0, 0, 0]);
    /// assert_eq!(Message::parse(&message.emit()), Ok(message));
    /// ```
    pub fn emit(&self) -> [u8; MESSAGE_SIZE] {
        let mut bytes = [0; MESSAGE_SIZE];
        let mut at = Cursor::new(&mut bytes, SERVICE_DATAGRAMS);
        match *self {
            Message::Ask {
                id,
                tuple,
                slot,
                extent,
            } => {
                at.head(ASK, id);
                at.tuple(&tuple, extent.order());
                at.put(&slot.0.to_le_bytes());
                at.put(&extent.page().to_le_bytes());
            }
            Message::Admit { id, flow, slot } => {
                at.head(ADMIT, id);
                at.put(&flow.to_le_bytes());
                at.put(&slot.0.to_le_bytes());
            }
            Message::Refuse { id, reason } => {
                at.head(REFUSE, id);
                at.put(&reason.code().to_le_bytes());
            }
            Message::Handover { flow, id, sent } => {
                at.head(HANDOVER, flow);
                at.put(&id.to_le_bytes());
                at.put(&sent.to_le_bytes());
            }
            Message::Go { id } => at.head(GO, id),
            Message::Leave { flow, id } => {
                at.head(LEAVE, flow);
                at.put(&id.to_le_bytes());
            }
            Message::Left { id } => at.head(LEFT, id),
            Message::Revoke { id } => at.head(REVOKE, id),
            Message::Echo { address, nonce } => {
                at.head(ECHO, 0);
                at.put(&[address.family(), 0, 0, 0]);
                at.put(&address.padded());
                at.put(&nonce);
            }
        }
        bytes
    }

    /// What `bytes`, a private copy, say.
    ///
    /// # Errors
    ///
    /// [`WireError::Service`] for another service; all others break the channel.
    pub fn parse(bytes: &[u8; MESSAGE_SIZE]) -> Result<Self, WireError> {
        let (mut at, kind, id) = Reader::new(bytes, SERVICE_DATAGRAMS)?;
        let message = match kind {
            ASK => {
                let (tuple, order) = at.tuple()?;
                let slot = SlotId(at.u32()?);
                let extent = Extent::new(at.u32()?, order).ok_or(WireError::Geometry)?;
                if order < super::ORDER_MIN {
                    return Err(WireError::Geometry);
                }
                Message::Ask {
                    id,
                    tuple,
                    slot,
                    extent,
                }
            }
            ADMIT => Message::Admit {
                id,
                flow: at.u32()?,
                slot: SlotId(at.u32()?),
            },
            REFUSE => Message::Refuse {
                id,
                reason: Decline::try_from(at.u32()?).map_err(WireError::Reason)?,
            },
            HANDOVER => Message::Handover {
                flow: id,
                id: at.u32()?,
                sent: at.u32()?,
            },
            GO => Message::Go { id },
            LEAVE => Message::Leave {
                flow: id,
                id: at.u32()?,
            },
            LEFT => Message::Left { id },
            REVOKE => Message::Revoke { id },
            ECHO => {
                let [family, r0, r1, r2] = at.take()?;
                if (id, r0, r1, r2) != (0, 0, 0, 0) {
                    return Err(WireError::Reserved);
                }
                Message::Echo {
                    address: Address::unpadded(family, at.take()?)?,
                    nonce: at.take()?,
                }
            }
            raw => return Err(WireError::Kind(raw)),
        };
        at.end()?;
        Ok(message)
    }
}
