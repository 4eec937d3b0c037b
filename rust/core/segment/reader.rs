// SPDX-License-Identifier: GPL-2.0

//! The reader's view of the segments: the current one, and the record that ends it.

use super::{
    Kind,
    Record, //
};
use crate::{
    error::SegmentError,
    extent::Extent,
    wire::RECORDS, //
};

/// A sequence number may be this far ahead of what was read; TCP's windows are smaller.
const SEQ_AHEAD_MAX: u32 = i32::MAX as u32;

/// Where the next byte of the direction is to be taken from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Now {
    /// From TCP.
    Tcp {
        /// Number of bytes until the boundary, if there is one yet; never 0.
        ///
        /// Without a boundary everything up to the `rcv_nxt` that was read *before* the records may
        /// be taken, and no more (see [`Self::tcp_bytes`]).
        limit: Option<u32>,
    },
    /// From the ring.
    Ring {
        /// The extent that the bytes are in.
        extent: Extent,
        /// Ring byte at which the segment ends, if that is known.
        limit: Option<u32>,
    },
}

impl Now {
    /// How many bytes may be taken from TCP now; 0 on the ring.
    ///
    /// `rcv_nxt` must have been read before the records were looked at: a byte that arrived later
    /// may lie beyond a boundary that was not seen (protocol §6.6).
    ///
    /// ```
    /// use xenvmc_core::segment::Now;
    ///
    /// assert_eq!(Now::Tcp { limit: None }.tcp_bytes(100, 130), 30);
    /// assert_eq!(Now::Tcp { limit: Some(7) }.tcp_bytes(100, 130), 7);
    /// ```
    pub const fn tcp_bytes(&self, copied_seq: u32, rcv_nxt: u32) -> u32 {
        let there = rcv_nxt.wrapping_sub(copied_seq);
        match self {
            Now::Tcp { limit: Some(limit) } if *limit < there => *limit,
            Now::Tcp { .. } => there,
            Now::Ring { .. } => 0,
        }
    }
}

/// The segment that the reader is in.
#[derive(Clone, Copy, Debug)]
enum Current {
    Tcp,
    Ring { extent: Extent, seq: u32 },
}

/// The reader's segments of one direction, under the reader's lock.
///
/// A copy of it can look ahead without the sender noticing, as MSG_PEEK needs.
///
/// # Invariants
///
/// - `published` is the last count of the peer that was found valid; `published - entered` is at
///   most [`RECORDS`].
/// - `next` is record number `entered`, validated, if it was handled.
#[derive(Clone, Debug)]
pub struct Reader {
    current: Current,
    next: Option<Record>,
    published: u32,
    entered: u32,
}

impl Reader {
    /// The reader of a new direction: on TCP, no record entered.
    pub const fn new() -> Self {
        Self {
            current: Current::Tcp,
            next: None,
            published: 0,
            entered: 0,
        }
    }

    /// Number of records entered so far.
    pub const fn entered(&self) -> u32 {
        self.entered
    }

    /// Whether the current segment is the ring.
    pub const fn is_ring(&self) -> bool {
        matches!(self.current, Current::Ring { .. })
    }

    /// On the ring: the sequence number at which TCP stopped, and goes on afterwards.
    pub const fn boundary(&self) -> Option<u32> {
        match self.current {
            Current::Tcp => None,
            Current::Ring { seq, .. } => Some(seq),
        }
    }

    /// Takes note of how many records the peer has published, and returns the number of the record
    /// that is to be loaded and passed to [`Self::handle_record`], if there is one.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Published`] if it went back, or is more than the log holds.
    pub fn handle_published(&mut self, published: u32) -> Result<Option<u32>, SegmentError> {
        let outstanding = published.wrapping_sub(self.entered);
        if outstanding > RECORDS || outstanding < self.published.wrapping_sub(self.entered) {
            return Err(SegmentError::Published);
        }
        self.published = published;
        Ok((outstanding > 0 && self.next.is_none()).then_some(self.entered))
    }

    /// Validates the record that ends the current segment.
    ///
    /// `cons` is the number of ring bytes consumed, `pages` the number of arena pages of the peer
    /// that are mapped, `copied_seq` the sequence number of the next byte that TCP would deliver.
    ///
    /// # Errors
    ///
    /// One of [`SegmentError`], if a correct sender could not have published this record here.
    pub fn handle_record(
        &mut self,
        record: Record,
        cons: u32,
        pages: u32,
        copied_seq: u32,
    ) -> Result<(), SegmentError> {
        match (self.current, record.kind) {
            (Current::Tcp, Kind::Tcp) => return Err(SegmentError::Order),
            (Current::Tcp, Kind::Ring(extent)) => {
                // Nothing was produced since the ring stopped, and all of that was consumed.
                if record.at_ring != cons {
                    return Err(SegmentError::Ring);
                }
                if record.at_seq.wrapping_sub(copied_seq) > SEQ_AHEAD_MAX {
                    return Err(SegmentError::Sequence);
                }
                if !extent.fits(pages) {
                    return Err(SegmentError::Extent);
                }
            }
            (Current::Ring { extent, seq }, kind) => {
                if let Kind::Ring(next) = kind {
                    // The same extent again would say nothing.
                    if next == extent || !next.fits(pages) {
                        return Err(SegmentError::Extent);
                    }
                }
                if record.at_seq != seq {
                    return Err(SegmentError::Sequence);
                }
                // What is unread of this segment lies in its extent.
                if record.at_ring.wrapping_sub(cons) > extent.bytes() {
                    return Err(SegmentError::Ring);
                }
            }
        }
        self.next = Some(record);
        Ok(())
    }

    /// The segment that the next byte is in; enters the next one if the current one is exhausted.
    ///
    /// When the result is `None`, a record was entered: look at the number of records again, load
    /// the next one if there is one, and ask again.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Sequence`] if TCP has delivered bytes beyond the boundary.
    pub fn current(&mut self, cons: u32, copied_seq: u32) -> Result<Option<Now>, SegmentError> {
        match (self.current, self.next) {
            (Current::Tcp, None) => Ok(Some(Now::Tcp { limit: None })),
            (Current::Tcp, Some(next)) => match next.at_seq.wrapping_sub(copied_seq) {
                0 => {
                    self.enter(next);
                    Ok(None)
                }
                limit if limit <= SEQ_AHEAD_MAX => Ok(Some(Now::Tcp { limit: Some(limit) })),
                _ => Err(SegmentError::Sequence),
            },
            (Current::Ring { .. }, Some(next)) if next.at_ring == cons => {
                self.enter(next);
                Ok(None)
            }
            (Current::Ring { extent, .. }, next) => Ok(Some(Now::Ring {
                extent,
                limit: next.map(|next| next.at_ring),
            })),
        }
    }

    fn enter(&mut self, record: Record) {
        self.current = match record.kind {
            Kind::Tcp => Current::Tcp,
            Kind::Ring(extent) => Current::Ring {
                extent,
                seq: record.at_seq,
            },
        };
        self.next = None;
        self.entered = self.entered.wrapping_add(1);
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}
