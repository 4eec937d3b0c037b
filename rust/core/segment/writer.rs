// SPDX-License-Identifier: GPL-2.0

//! The sender's view of its segments: what the log says, and what it should say.

use super::{
    Kind,
    Record, //
};
use crate::{
    error::SegmentError,
    extent::Extent,
    wire::RECORDS, //
};

/// Where the next byte of the direction is to go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Into TCP.
    Tcp,
    /// Into the ring, while TCP stands still at sequence number `seq`.
    Ring {
        /// The extent that is written to.
        extent: Extent,
        /// TCP's write sequence number, as long as nobody writes past us.
        seq: u32,
    },
}

/// An extent that the reader may still read, or that we still write.
#[derive(Clone, Copy, Debug)]
struct Live {
    extent: Extent,
    /// Number of records that the reader must have entered before it can be given back.
    ///
    /// Has a meaning only while the extent is neither told nor wanted.
    until: u32,
}

/// Extents that can be in use at once: one per record that the reader has not entered, the one that
/// is told and the one that is wanted.
const LIVE: usize = RECORDS as usize + 2;

/// The sender's segments of one direction, under the socket lock.
///
/// It keeps two modes: what the published log ends with (*told*), and what the sender wants.
/// [`Self::poll_publish`] gives out the records that lead from the one to the other, as fast as the
/// log has room. While they differ no byte may be produced into the ring ([`Self::is_settled`]);
/// the caller leaves the ring, or reports that it has no space. Bytes may go into TCP at any time, because a reader
/// takes nothing from TCP that a record does not allow.
///
/// # Invariants
///
/// - `entered` is the last count of the peer that was found valid, `published - entered` is at most
///   [`RECORDS`].
/// - The extents of `told` and `wanted` are in `live`.
#[derive(Clone, Debug)]
pub struct Writer {
    told: Mode,
    wanted: Mode,
    published: u32,
    entered: u32,
    live: [Option<Live>; LIVE],
}

impl Writer {
    /// The writer of a new direction: on TCP, nothing published.
    pub const fn new() -> Self {
        Self {
            told: Mode::Tcp,
            wanted: Mode::Tcp,
            published: 0,
            entered: 0,
            live: [None; LIVE],
        }
    }

    /// Where the next byte is to go; if that is the ring, only once [`Self::is_settled`].
    pub const fn mode(&self) -> Mode {
        self.wanted
    }

    /// Whether the log says what the sender wants, so that bytes may be produced.
    pub fn is_settled(&self) -> bool {
        self.told == self.wanted
    }

    /// Number of records published so far.
    pub const fn published(&self) -> u32 {
        self.published
    }

    /// From the next byte on, into `extent`, where `seq` is TCP's write sequence number.
    /// Returns whether the extent is new to the direction, for [`crate::ring::Producer::retarget`].
    ///
    /// On the ring already, this is growth (or shrinking), and `seq` must be what [`Self::mode`]
    /// says. An extent that the reader has not left yet may be entered again.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Extents`] if too many extents wait for [`Self::poll_free`]; nothing changed.
    pub fn enter_ring(&mut self, extent: Extent, seq: u32) -> Result<bool, SegmentError> {
        let fresh = !self.live.iter().flatten().any(|live| live.extent == extent);
        if fresh {
            let place = self.live.iter_mut().find(|place| place.is_none());
            *place.ok_or(SegmentError::Extents)? = Some(Live {
                extent,
                // If it is never published, it can be given back at once.
                until: self.entered,
            });
        }
        self.wanted = Mode::Ring { extent, seq };
        Ok(fresh)
    }

    /// From the next byte on, into TCP.
    pub fn leave_ring(&mut self) {
        self.wanted = Mode::Tcp;
    }

    /// Somebody wrote into TCP although the direction is on the ring, and TCP now stands at `seq`.
    ///
    /// Those bytes belong behind what was produced so far, and before what is produced next. On TCP
    /// there is nothing to do.
    pub fn rogue(&mut self, seq: u32) {
        if let Mode::Ring { extent, .. } = self.wanted {
            self.wanted = Mode::Ring { extent, seq };
        }
    }

    /// Whether records are due for which the log has no room, when the reader says that it entered
    /// `entered` records.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Entered`] if there are not so many records, or there were more before.
    pub fn is_blocked(&mut self, entered: u32) -> Result<bool, SegmentError> {
        self.handle_entered(entered)?;
        Ok(!self.is_settled() && self.published.wrapping_sub(self.entered) >= RECORDS)
    }

    /// Number of records that could be published at once now, when the reader says that it entered `entered` records; none while one is due.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Entered`] if there are not so many records, or there were more before.
    pub fn room(&mut self, entered: u32) -> Result<u32, SegmentError> {
        self.handle_entered(entered)?;
        Ok(match self.is_settled() {
            true => RECORDS.wrapping_sub(self.published.wrapping_sub(self.entered)),
            false => 0,
        })
    }

    /// The next record to publish and its number, when the reader says that it entered `entered`
    /// records and `prod` ring bytes were produced. To be called until it returns `None`.
    ///
    /// The caller stores the record before it publishes the new number of records, and both before
    /// it produces or sends anything else.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Entered`] if there are not so many records, or there were more before.
    pub fn poll_publish(
        &mut self,
        prod: u32,
        entered: u32,
    ) -> Result<Option<(u32, Record)>, SegmentError> {
        self.handle_entered(entered)?;
        if self.published.wrapping_sub(self.entered) >= RECORDS {
            return Ok(None);
        }
        let (told, kind, at_seq) = match (self.told, self.wanted) {
            (told, wanted) if told == wanted => return Ok(None),
            (Mode::Tcp, Mode::Tcp) => return Ok(None),
            (Mode::Tcp, Mode::Ring { extent, seq }) => (self.wanted, Kind::Ring(extent), seq),
            (Mode::Ring { seq: old, .. }, Mode::Ring { extent, seq }) if seq == old => {
                (self.wanted, Kind::Ring(extent), seq)
            }
            // Either back to TCP, or TCP for the bytes that somebody else wrote, and then on.
            (Mode::Ring { seq: old, .. }, _) => (Mode::Tcp, Kind::Tcp, old),
        };
        let number = self.published;
        self.published = number.wrapping_add(1);
        if let Mode::Ring { extent, .. } = self.told {
            self.set_until(extent, self.published);
        }
        self.told = told;
        Ok(Some((
            number,
            Record {
                kind,
                at_ring: prod,
                at_seq,
            },
        )))
    }

    /// An extent that the reader has left for good, when it says that it entered `entered` records; `is_all_read` = it
    /// also says that it read all that was ever produced, and so has nothing to look for in any extent but the current
    /// one. To be called until it returns `None`.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Entered`] if there are not so many records, or there were more before.
    pub fn poll_free(
        &mut self,
        entered: u32,
        is_all_read: bool,
    ) -> Result<Option<Extent>, SegmentError> {
        self.handle_entered(entered)?;
        let (told, wanted) = (self.told, self.wanted);
        let (entered, published) = (self.entered, self.published);
        let in_use =
            |extent: Extent, mode| matches!(mode, Mode::Ring { extent: e, .. } if e == extent);
        let is_left =
            |live: &Live| published.wrapping_sub(entered) <= published.wrapping_sub(live.until);
        let done = |live: &Live| {
            !in_use(live.extent, told)
                && !in_use(live.extent, wanted)
                && (is_all_read || is_left(live))
        };
        let place = self.live.iter_mut().find(|l| l.as_ref().is_some_and(done));
        Ok(place.and_then(Option::take).map(|live| live.extent))
    }

    /// Number of extents that are held: the current one, and those that the reader has not left yet or
    /// that [`Self::poll_free`] has not given out.
    pub fn extents(&self) -> usize {
        self.live.iter().flatten().count()
    }

    /// Any extent that is still held, once the peer has ended the connection or is gone.
    pub fn poll_abandoned(&mut self) -> Option<Extent> {
        self.told = Mode::Tcp;
        self.wanted = Mode::Tcp;
        let place = self.live.iter_mut().find(|place| place.is_some());
        place.and_then(Option::take).map(|live| live.extent)
    }

    fn handle_entered(&mut self, entered: u32) -> Result<(), SegmentError> {
        let outstanding = self.published.wrapping_sub(entered);
        if outstanding > self.published.wrapping_sub(self.entered) {
            return Err(SegmentError::Entered);
        }
        self.entered = entered;
        Ok(())
    }

    fn set_until(&mut self, extent: Extent, until: u32) {
        let mut live = self.live.iter_mut().flatten();
        if let Some(live) = live.find(|live| live.extent == extent) {
            live.until = until;
        }
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}
