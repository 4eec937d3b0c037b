// SPDX-License-Identifier: GPL-2.0

//! Control messages: 64 bytes each, in the control queue (protocol §7).

use crate::{
    decline::Decline,
    error::WireError,
    wire::SlotId, //
};

/// Bytes of a control message.
pub const MESSAGE_SIZE: usize = 64;

/// The service that accelerates TCP connections.
pub const SERVICE_STREAMS: u8 = 1;

/// The service that carries datagrams, whose messages are in [`crate::datagram::message`].
pub const SERVICE_DATAGRAMS: u8 = 2;

const OPEN: u8 = 1;
const ACCEPT: u8 = 2;
const REFUSE: u8 = 3;
const RELEASE: u8 = 4;

/// Address of a host, in network order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Address {
    /// IPv4.
    V4([u8; 4]),
    /// IPv6.
    V6([u8; 16]),
}

/// Addresses and ports of a connection, as the requester sees them.
///
/// Both addresses are of one family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tuple {
    /// The requester's address.
    pub src: Address,
    /// The responder's address.
    pub dst: Address,
    /// The requester's port.
    pub src_port: u16,
    /// The responder's port.
    pub dst_port: u16,
}

/// One control message of the service of streams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message {
    /// "Shall we accelerate this connection? Here is my proof."
    Open {
        /// Number of the request, chosen by the requester; not used again on the channel.
        id: u32,
        /// The connection.
        tuple: Tuple,
        /// The requester's initial sequence number + 1.
        isn: u32,
        /// The requester's slot.
        slot: SlotId,
    },
    /// "Yes, your proof is right; here is mine."
    Accept {
        /// Number of the request.
        id: u32,
        /// The responder's initial sequence number + 1.
        isn: u32,
        /// The responder's slot.
        slot: SlotId,
    },
    /// "No."
    Refuse {
        /// Number of the request.
        id: u32,
        /// Why.
        reason: Decline,
    },
    /// "I have ended this connection, and do not touch either slot any more."
    Release {
        /// Number of the request that the connection came from; for logs only.
        id: u32,
        /// The receiver's own slot.
        slot: SlotId,
    },
}

impl Message {
    /// The 64 bytes of the message.
    ///
    /// ```
    /// use xenvmc_core::{message::Message, Decline};
    ///
    /// let message = Message::Refuse { id: 1, reason: Decline::NoSuchSocket };
    /// assert_eq!(message.emit()[..12], [1, 3, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0]);
    /// assert_eq!(Message::parse(&message.emit()), Ok(message));
    /// ```
    pub fn emit(&self) -> [u8; MESSAGE_SIZE] {
        let mut bytes = [0; MESSAGE_SIZE];
        let mut at = Cursor::new(&mut bytes, SERVICE_STREAMS);
        match *self {
            Message::Open {
                id,
                tuple,
                isn,
                slot,
            } => {
                at.head(OPEN, id);
                at.tuple(&tuple, 0);
                at.put(&isn.to_le_bytes());
                at.put(&slot.0.to_le_bytes());
            }
            Message::Accept { id, isn, slot } => {
                at.head(ACCEPT, id);
                at.put(&isn.to_le_bytes());
                at.put(&slot.0.to_le_bytes());
            }
            Message::Refuse { id, reason } => {
                at.head(REFUSE, id);
                at.put(&reason.code().to_le_bytes());
            }
            Message::Release { id, slot } => {
                at.head(RELEASE, id);
                at.put(&slot.0.to_le_bytes());
            }
        }
        bytes
    }

    /// What `bytes`, a private copy, say.
    ///
    /// # Errors
    ///
    /// [`WireError::Service`] for another service: to be ignored and counted. All others break the
    /// channel.
    pub fn parse(bytes: &[u8; MESSAGE_SIZE]) -> Result<Self, WireError> {
        let (mut at, kind, id) = Reader::new(bytes, SERVICE_STREAMS)?;
        let message = match kind {
            OPEN => {
                let (tuple, 0) = at.tuple()? else {
                    return Err(WireError::Reserved);
                };
                Message::Open {
                    id,
                    tuple,
                    isn: at.u32()?,
                    slot: SlotId(at.u32()?),
                }
            }
            ACCEPT => Message::Accept {
                id,
                isn: at.u32()?,
                slot: SlotId(at.u32()?),
            },
            REFUSE => Message::Refuse {
                id,
                reason: Decline::try_from(at.u32()?).map_err(WireError::Reason)?,
            },
            RELEASE => Message::Release {
                id,
                slot: SlotId(at.u32()?),
            },
            raw => return Err(WireError::Kind(raw)),
        };
        at.end()?;
        Ok(message)
    }
}

impl Tuple {
    /// The same connection as the other end sees it.
    pub const fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
        }
    }

    const fn family(&self) -> u8 {
        self.src.family()
    }
}

impl Address {
    pub(crate) const fn family(&self) -> u8 {
        match self {
            Address::V4(_) => 4,
            Address::V6(_) => 6,
        }
    }

    pub(crate) const fn padded(&self) -> [u8; 16] {
        match *self {
            Address::V4([a, b, c, d]) => [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            Address::V6(bytes) => bytes,
        }
    }

    pub(crate) const fn unpadded(family: u8, bytes: [u8; 16]) -> Result<Self, WireError> {
        match family {
            4 => match bytes {
                [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => Ok(Address::V4([a, b, c, d])),
                _ => Err(WireError::Reserved),
            },
            6 => Ok(Address::V6(bytes)),
            raw => Err(WireError::Family(raw)),
        }
    }
}

/// Writes a message, from the front on.
pub(crate) struct Cursor<'a> {
    rest: &'a mut [u8],
    service: u8,
}

impl<'a> Cursor<'a> {
    /// Begins a message of a service.
    pub(crate) fn new(bytes: &'a mut [u8; MESSAGE_SIZE], service: u8) -> Self {
        Self {
            rest: bytes,
            service,
        }
    }

    /// What all messages begin with.
    pub(crate) fn head(&mut self, kind: u8, id: u32) {
        self.put(&[self.service, kind, 0, 0]);
        self.put(&id.to_le_bytes());
    }

    /// Ports and addresses, with a byte for whatever the message has.
    pub(crate) fn tuple(&mut self, tuple: &Tuple, extra: u8) {
        self.put(&[tuple.family(), extra, 0, 0]);
        self.put(&tuple.src_port.to_le_bytes());
        self.put(&tuple.dst_port.to_le_bytes());
        self.put(&tuple.src.padded());
        self.put(&tuple.dst.padded());
    }

    /// Bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let rest = core::mem::take(&mut self.rest);
        if let Some((head, tail)) = rest.split_at_mut_checked(bytes.len()) {
            head.copy_from_slice(bytes);
            self.rest = tail;
        }
    }
}

/// Reads a message, from the front on.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Begins with a message, and returns its kind and id, too.
    ///
    /// # Errors
    ///
    /// [`WireError::Service`] if it is not of `service`.
    pub(crate) fn new(
        bytes: &'a [u8; MESSAGE_SIZE],
        service: u8,
    ) -> Result<(Self, u8, u32), WireError> {
        let mut at = Self(bytes);
        let [found, kind, r0, r1] = at.take()?;
        if found != service {
            return Err(WireError::Service(found));
        }
        if (r0, r1) != (0, 0) {
            return Err(WireError::Reserved);
        }
        let id = at.u32()?;
        Ok((at, kind, id))
    }

    /// What [`Cursor::tuple`] wrote.
    pub(crate) fn tuple(&mut self) -> Result<(Tuple, u8), WireError> {
        let [family, extra, r0, r1] = self.take()?;
        if (r0, r1) != (0, 0) {
            return Err(WireError::Reserved);
        }
        let src_port = u16::from_le_bytes(self.take()?);
        let dst_port = u16::from_le_bytes(self.take()?);
        let src = Address::unpadded(family, self.take()?)?;
        let dst = Address::unpadded(family, self.take()?)?;
        let tuple = Tuple {
            src,
            dst,
            src_port,
            dst_port,
        };
        Ok((tuple, extra))
    }

    /// Bytes.
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(WireError::Short)?;
        self.0 = tail;
        Ok(*head)
    }

    /// A number.
    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    /// The rest has to be zero.
    pub(crate) fn end(&self) -> Result<(), WireError> {
        match self.0.iter().all(|&byte| byte == 0) {
            true => Ok(()),
            false => Err(WireError::Reserved),
        }
    }
}
