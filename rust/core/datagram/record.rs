// SPDX-License-Identifier: GPL-2.0

//! Records: the datagrams in a ring (protocol §10.3).
//!
//! A record is a head of 32 bytes, the payload, and zero to 31 bytes that say nothing, so that each
//! record begins at a multiple of 32 and no head lies in two pages.

use super::PAYLOAD_MAX;
use crate::error::DatagramError;

/// Bytes of a record's head, and what records are aligned to.
pub const HEAD: u32 = 32;

/// Parts that one record may stand for at most, as in the kernel's UDP_SEGMENT.
pub const SEGMENTS_MAX: u32 = 128;

const DONT_FRAGMENT: u8 = 1 << 0;
const NO_CHECKSUM: u8 = 1 << 1;
const FLAGS: u8 = DONT_FRAGMENT | NO_CHECKSUM;

/// The fields of IP and UDP that a sender chooses for a datagram, addresses and ports excepted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fields {
    /// Type of service, or traffic class.
    pub tos: u8,
    /// Time to live, or hop limit; not 0.
    pub ttl: u8,
    /// IPv4: must not be fragmented.
    pub dont_fragment: bool,
    /// Is sent without a checksum (SO_NO_CHECK).
    pub no_checksum: bool,
    /// IPv4: the identification.
    pub id: u16,
    /// IPv6: the flow label, 20 bits.
    pub label: u32,
}

/// The head of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Record {
    /// Bytes of the payload, at most [`PAYLOAD_MAX`].
    pub len: u32,
    /// The reader's number of the flow.
    pub flow: u32,
    /// Bytes of each datagram but the last, if the payload is several (UDP_SEGMENT); 0 = one.
    pub segment: u16,
    /// See [`Fields`].
    pub fields: Fields,
}

impl Record {
    /// Bytes of the ring that the record takes.
    ///
    /// ```
    /// use xenvmc_core::datagram::record::Record;
    ///
    /// assert_eq!(Record::space(0), 32);
    /// assert_eq!(Record::space(1), 64);
    /// assert_eq!(Record::space(65_507), 65_568);
    /// ```
    pub const fn space(len: u32) -> u32 {
        // No sum wraps: `len` is at most `PAYLOAD_MAX`.
        len.wrapping_add(HEAD).wrapping_add(HEAD - 1) & !(HEAD - 1)
    }

    /// How many datagrams the record stands for.
    pub const fn datagrams(&self) -> u32 {
        if self.segment == 0 {
            return 1;
        }
        self.len.div_ceil(self.segment as u32)
    }

    /// The head.
    pub fn emit(&self) -> [u8; HEAD as usize] {
        let mut flags = 0;
        if self.fields.dont_fragment {
            flags |= DONT_FRAGMENT;
        }
        if self.fields.no_checksum {
            flags |= NO_CHECKSUM;
        }
        let [l0, l1, l2, l3] = self.len.to_le_bytes();
        let [f0, f1, f2, f3] = self.flow.to_le_bytes();
        let [s0, s1] = self.segment.to_le_bytes();
        let [i0, i1] = self.fields.id.to_le_bytes();
        let [b0, b1, b2, b3] = self.fields.label.to_le_bytes();
        let (tos, ttl) = (self.fields.tos, self.fields.ttl);
        [
            l0, l1, l2, l3, f0, f1, f2, f3, s0, s1, i0, i1, b0, b1, b2, b3, tos, ttl, flags, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ]
    }

    /// What `head`, a private copy, says, of which `available` bytes are in the ring.
    ///
    /// # Errors
    ///
    /// [`DatagramError`]: no correct peer writes that.
    pub fn parse(head: &[u8; HEAD as usize], available: u32) -> Result<Self, DatagramError> {
        let [l0, l1, l2, l3, f0, f1, f2, f3, s0, s1, i0, i1, b0, b1, b2, b3, tos, ttl, flags, rest @ ..] =
            *head;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        let segment = u16::from_le_bytes([s0, s1]);
        let label = u32::from_le_bytes([b0, b1, b2, b3]);
        if len > PAYLOAD_MAX || Self::space(len) > available {
            return Err(DatagramError::Length(len));
        }
        if rest != [0; 13] || flags & !FLAGS != 0 || label >> 20 != 0 {
            return Err(DatagramError::Reserved);
        }
        if ttl == 0 {
            return Err(DatagramError::TimeToLive);
        }
        let record = Self {
            len,
            flow: u32::from_le_bytes([f0, f1, f2, f3]),
            segment,
            fields: Fields {
                tos,
                ttl,
                dont_fragment: flags & DONT_FRAGMENT != 0,
                no_checksum: flags & NO_CHECKSUM != 0,
                id: u16::from_le_bytes([i0, i1]),
                label,
            },
        };
        let is_one = u32::from(segment) >= len;
        if segment != 0
            && (is_one || record.datagrams() > SEGMENTS_MAX || record.fields.no_checksum)
        {
            return Err(DatagramError::Segment(segment));
        }
        Ok(record)
    }
}
