// SPDX-License-Identifier: GPL-2.0

//! Segments: where a direction changes between TCP and the ring (protocol §6).
//!
//! A direction is a sequence of segments. It begins on TCP. Each record in the log of its slot
//! starts a segment and thereby ends the one before:
//!
//! ```text
//!             RING(at_ring, at_seq, extent)
//!        +-------------------------------------+
//!        |                                     v
//!     [ TCP ]                               [ RING ] --+
//!        ^                                     |  ^    | RING(at_ring, same at_seq, other extent)
//!        +-------------------------------------+  +----+
//!             TCP(at_ring, same at_seq)
//! ```
//!
//! There is one [`Writer`] and one [`Reader`] per direction, in different guests.

mod reader;
mod writer;

pub use reader::{
    Now,
    Reader, //
};
pub use writer::{
    Mode,
    Writer, //
};

use crate::{
    error::SegmentError,
    extent::{
        Extent,
        MAX_ORDER, //
    },
    wire,
};

/// What a segment consists of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Bytes that TCP carries.
    Tcp,
    /// Bytes in this extent.
    Ring(Extent),
}

/// One entry of the log of segments: 16 bytes in the sender's slot (protocol §6.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Record {
    /// What starts here.
    pub kind: Kind,
    /// Ring byte at which it starts (RING), or at which the ring stops (TCP).
    pub at_ring: u32,
    /// TCP sequence number at which TCP stops (RING), or goes on (TCP).
    pub at_seq: u32,
}

impl Record {
    /// The four words of the record in shared memory.
    ///
    /// ```
    /// use xenvmc_core::{segment::{Kind, Record}, Extent};
    ///
    /// let extent = Extent::new(16, 4).unwrap();
    /// let record = Record { kind: Kind::Ring(extent), at_ring: 5, at_seq: 7 };
    /// assert_eq!(record.to_words(), [0x402, 5, 7, 16]);
    /// assert_eq!(Record::from_words([0x402, 5, 7, 16]), Ok(record));
    /// ```
    pub const fn to_words(&self) -> [u32; 4] {
        match self.kind {
            Kind::Tcp => [wire::RECORD_TCP as u32, self.at_ring, self.at_seq, 0],
            Kind::Ring(extent) => [
                wire::RECORD_RING as u32 | (extent.order() as u32).wrapping_shl(8),
                self.at_ring,
                self.at_seq,
                extent.page(),
            ],
        }
    }

    /// The record that the four words make, each of which was loaded once.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Kind`], [`SegmentError::Reserved`] or [`SegmentError::Extent`] if they make
    /// none.
    pub const fn from_words(words: [u32; 4]) -> Result<Self, SegmentError> {
        let [head, at_ring, at_seq, page] = words;
        let [kind, order, r0, r1] = head.to_le_bytes();
        if r0 != 0 || r1 != 0 {
            return Err(SegmentError::Reserved);
        }
        let kind = match kind {
            wire::RECORD_TCP if order == 0 && page == 0 => Kind::Tcp,
            wire::RECORD_TCP => return Err(SegmentError::Reserved),
            wire::RECORD_RING if order > MAX_ORDER => return Err(SegmentError::Extent),
            wire::RECORD_RING => match Extent::new(page, order) {
                Some(extent) => Kind::Ring(extent),
                None => return Err(SegmentError::Extent),
            },
            raw => return Err(SegmentError::Kind(raw)),
        };
        Ok(Self {
            kind,
            at_ring,
            at_seq,
        })
    }
}
