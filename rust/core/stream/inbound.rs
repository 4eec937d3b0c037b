// SPDX-License-Identifier: GPL-2.0

//! The reader's end of one direction.

use crate::{
    error::{
        Error,
        SegmentError, //
    },
    extent::{
        Extent,
        Spans, //
    },
    ring::Consumer,
    segment::{
        Now,
        Reader,
        Record, //
    },
    shared::{
        Fence,
        SharedLoad,
        SharedStore,
        Words, //
    },
    wake,
    wire::{
        slot,
        RECORDS, //
    },
};

/// What the next bytes of the direction are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// Bytes of TCP, at most this many (0 = none has arrived). Beyond them is a boundary, or
    /// nothing that had arrived when `rcv_nxt` was read.
    Tcp(u32),
    /// Bytes of the ring.
    Ring {
        /// The peer's extent that they are in.
        extent: Extent,
        /// How many; 0 = none for now.
        bytes: u32,
    },
}

impl Source {
    /// Number of bytes that can be taken at once.
    pub const fn bytes(&self) -> u32 {
        match self {
            Source::Tcp(bytes) | Source::Ring { bytes, .. } => *bytes,
        }
    }
}

/// What became of [`Inbound::follow`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Followed {
    /// The reader stands where TCP does.
    Yes,
    /// Nothing of the ring comes before what was taken, as far as can be seen; the peer has not said yet where TCP goes on.
    NotYet,
    /// Bytes of the ring should have come before what was taken.
    Overtaken,
}

/// TCP delivers less than this before it is acknowledged: its windows are smaller.
const WINDOW_MAX: u32 = 1 << 30;

/// The reader's end of one direction, under the reader's lock.
///
/// A clone of it can look ahead ([`Self::look`], [`Self::consume`], and `copied_seq` counted on by
/// the caller), as MSG_PEEK needs: nothing is visible to the sender before [`Self::publish`].
#[derive(Clone, Debug)]
pub struct Inbound {
    reader: Reader,
    consumer: Consumer,
    told_cons: u32,
    told_entered: u32,
    /// Whether a segment of the ring ended since the last [`Self::publish`].
    ended: bool,
    /// See [`Self::finish`].
    is_finished: bool,
}

impl Inbound {
    /// The end of a new direction, whose slots are zeroed: on TCP, nothing consumed.
    pub const fn new() -> Self {
        Self::starting_at(0)
    }

    /// The same with the free running index at `start`; version 1 of the protocol starts at 0.
    pub const fn starting_at(start: u32) -> Self {
        Self {
            reader: Reader::new(),
            consumer: Consumer::new(start),
            told_cons: start,
            told_entered: 0,
            ended: false,
            is_finished: false,
        }
    }

    /// All bytes of the ring were taken, and none will follow: TCP goes on, whether the peer still says so or not. One that has
    /// closed its socket says nothing any more.
    pub const fn finish(&mut self) {
        self.is_finished = true;
    }

    /// Whether the current segment is the ring, as far as the last [`Self::look`] saw.
    pub const fn is_ring(&self) -> bool {
        self.reader.is_ring() && !self.is_finished
    }

    /// On the ring, as far as the last [`Self::look`] saw: the sequence number at which TCP stopped. If TCP has delivered what comes
    /// behind it, somebody else has read it.
    pub const fn boundary(&self) -> Option<u32> {
        if self.is_finished {
            return None;
        }
        self.reader.boundary()
    }

    /// Bytes consumed so far.
    pub const fn cons(&self) -> u32 {
        self.consumer.cons()
    }

    /// Bytes of the peer's that [`Self::look`] has seen, taken or not.
    pub const fn seen(&self) -> u32 {
        self.consumer.seen()
    }

    /// Finds out what the next bytes are, entering segments as far as they are exhausted.
    ///
    /// `pages` is the number of the peer's arena pages that are mapped. `copied_seq` is the next
    /// byte that TCP would deliver, and `rcv_nxt` the next that it expects, read *before* this call
    /// (and `rcv_nxt` without the FIN, if that has arrived).
    ///
    /// # Errors
    ///
    /// The peer wrote what no correct sender writes.
    pub fn look<P: Words>(
        &mut self,
        peer: &P,
        pages: u32,
        copied_seq: u32,
        rcv_nxt: u32,
    ) -> Result<Source, Error> {
        if self.is_finished {
            if peer.word(slot::TX_PROD).load_acquire() != self.consumer.cons() {
                return Err(SegmentError::Unexpected.into());
            }
            return Ok(Source::Tcp(unread_in_tcp(copied_seq, rcv_nxt)));
        }
        // The index /before/ the count: all records that start before a byte which is seen are seen
        // as well. Partner: `Outbound::publish` and `Outbound::commit`, in that order.
        let prod = peer.word(slot::TX_PROD).load_acquire();
        let published = peer.word(slot::TX_SEGMENTS).load_acquire();
        self.consumer.handle_prod(prod)?;
        loop {
            if let Some(number) = self.reader.handle_published(published)? {
                let record = load_record(peer, number)?;
                self.reader
                    .handle_record(record, self.consumer.cons(), pages, copied_seq)?;
            }
            let was_ring = self.reader.is_ring();
            let Some(now) = self.reader.current(self.consumer.cons(), copied_seq)? else {
                self.ended |= was_ring;
                continue;
            };
            return match now {
                Now::Ring { extent, limit } => {
                    let bytes = self.consumer.available(prod, extent.bytes(), limit)?;
                    Ok(Source::Ring { extent, bytes })
                }
                Now::Tcp { limit: None } if prod != self.consumer.cons() => {
                    Err(SegmentError::Unexpected.into())
                }
                Now::Tcp { .. } => {
                    let there = unread_in_tcp(copied_seq, rcv_nxt);
                    let bytes = now.tcp_bytes(copied_seq, copied_seq.wrapping_add(there));
                    Ok(Source::Tcp(bytes))
                }
            };
        }
    }

    /// Follows somebody else, who takes bytes out of TCP itself and stands at `copied_seq`: enters the segments that this has gone
    /// through, if none of them has bytes of the ring. Arguments and errors as of [`Self::look`].
    pub fn follow<P: Words>(
        &mut self,
        peer: &P,
        pages: u32,
        copied_seq: u32,
    ) -> Result<Followed, Error> {
        let mut seq = self
            .boundary()
            .unwrap_or(copied_seq.wrapping_sub(WINDOW_MAX));
        // A correct sender has published no more, as long as it does not see how far we are.
        for _ in 0..=RECORDS {
            let source = self.look(peer, pages, seq, copied_seq)?;
            match source {
                _ if seq == copied_seq => return Ok(Followed::Yes),
                Source::Tcp(0) => return Err(SegmentError::Sequence.into()),
                Source::Tcp(bytes) => seq = seq.wrapping_add(bytes),
                Source::Ring { bytes: 0, .. } => return Ok(Followed::NotYet),
                Source::Ring { .. } => return Ok(Followed::Overtaken),
            }
        }
        Ok(Followed::NotYet)
    }

    /// Takes note of the peer's index without looking what the bytes are: they count as seen, for [`Self::arm`].
    ///
    /// # Errors
    ///
    /// The index is impossible.
    pub fn see<P: Words>(&mut self, peer: &P) -> Result<(), Error> {
        let prod = peer.word(slot::TX_PROD).load_acquire();
        Ok(self.consumer.handle_prod(prod)?)
    }

    /// The pieces that the next `len` bytes of the ring are in; at most what [`Self::look`] said,
    /// in the extent that it said.
    #[inline]
    pub const fn spans(&self, extent: Extent, len: u32) -> Spans {
        self.consumer.spans(len, extent.bytes())
    }

    /// Notes that `len` bytes were taken from the ring; at most what [`Self::look`] said.
    #[inline]
    pub fn consume(&mut self, len: u32) {
        self.consumer.advance(len);
    }

    /// Tells the sender what was consumed and entered; true = post a notice.
    ///
    /// To be called before sleeping and at the end of each call that took something, and in
    /// between often enough that the sender does not wait for a long copy.
    #[inline]
    pub fn publish<F, O, P>(&mut self, own: &O, peer: &P) -> bool
    where
        F: Fence,
        O: Words<Word: SharedStore>,
        P: Words,
    {
        let mut notice = false;
        let (cons, entered) = (self.consumer.cons(), self.reader.entered());
        if cons != self.told_cons {
            // Our copies of the bytes /before/ the index (`store_release`), so that the sender does
            // not write them again too early. Partner: `Outbound::room`.
            notice |= wake::publish::<F>(
                &own.word(slot::RX_CONS),
                self.told_cons,
                cons,
                &peer.word(slot::TX_SPACE_EVENT),
            );
            self.told_cons = cons;
        }
        if entered != self.told_entered {
            // The copies of bytes and records /before/ the count. Partner: `Outbound::publish` and
            // `Outbound::poll_free`.
            own.word(slot::RX_SEGMENTS).store_release(entered);
            // The count /before/ the look at the log: either we see that it was full, or the sender
            // sees that it is not. Partner: the barrier in `Outbound::arm`.
            F::full();
            let published = peer.word(slot::TX_SEGMENTS).load_relaxed();
            let was_full = published.wrapping_sub(self.told_entered) >= RECORDS;
            // The sender has an extent to take back, or may wait for room in the log.
            notice |= self.ended || was_full;
            self.told_entered = entered;
            self.ended = false;
        }
        notice
    }

    /// Asks for a notice when bytes appear in the ring beyond those that [`Self::look`] saw;
    /// true = there are none yet, sleep.
    ///
    /// To be called whenever a look found nothing, on TCP too: the ring may begin while the reader
    /// sleeps. A record alone is announced by a notice (TCP) or by bytes (RING).
    pub fn arm<F, O, P>(&mut self, own: &O, peer: &P) -> bool
    where
        F: Fence,
        O: Words<Word: SharedStore>,
        P: Words,
    {
        wake::arm::<F>(
            &own.word(slot::RX_DATA_EVENT),
            self.consumer.seen(),
            &peer.word(slot::TX_PROD),
        )
    }

    /// As [`Self::arm`], but a notice is wanted only when `want` bytes are unread.
    ///
    /// `want` must not be more than the current extent can hold.
    pub fn arm_for<F, O, P>(&mut self, want: u32, own: &O, peer: &P) -> bool
    where
        F: Fence,
        O: Words<Word: SharedStore>,
        P: Words,
    {
        let (cons, seen) = (self.consumer.cons(), self.consumer.seen());
        if seen.wrapping_sub(cons) >= want {
            return self.arm::<F, O, P>(own, peer);
        }
        wake::arm_at::<F>(
            &own.word(slot::RX_DATA_EVENT),
            self.consumer.data_event(want),
            seen,
            &peer.word(slot::TX_PROD),
        )
    }
}

impl Default for Inbound {
    fn default() -> Self {
        Self::new()
    }
}

/// Number of bytes that TCP has, and 0 where `rcv_nxt` is behind `copied_seq`: that is ours, not the peer's.
const fn unread_in_tcp(copied_seq: u32, rcv_nxt: u32) -> u32 {
    let there = rcv_nxt.wrapping_sub(copied_seq);
    if there > i32::MAX as u32 {
        return 0;
    }
    there
}

/// Copies record `number` out of the peer's log, each word once.
fn load_record<P: Words>(peer: &P, number: u32) -> Result<Record, Error> {
    let at = |word: u32| {
        peer.word(slot::record(number).wrapping_add(word))
            .load_relaxed()
    };
    Ok(Record::from_words([at(0), at(4), at(8), at(12)])?)
}
