// SPDX-License-Identifier: GPL-2.0

//! The sender's end of one direction.

use crate::{
    error::{
        Error,
        SegmentError, //
    },
    extent::{
        Extent,
        Spans, //
    },
    ring::Producer,
    segment::{
        Kind,
        Mode,
        Writer, //
    },
    shared::{
        Fence,
        SharedLoad,
        SharedStore,
        Words, //
    },
    wake,
    wire::{
        self,
        slot, //
    },
};

/// The sender's end of one direction, under the socket lock.
#[derive(Clone, Debug)]
pub struct Outbound {
    writer: Writer,
    producer: Producer,
}

impl Outbound {
    /// The end of a new direction, whose slot is zeroed: on TCP, nothing produced.
    pub const fn new() -> Self {
        Self::starting_at(0)
    }

    /// The same with the free running index at `start`; version 1 of the protocol starts at 0.
    pub const fn starting_at(start: u32) -> Self {
        Self {
            writer: Writer::new(),
            producer: Producer::new(start, 0),
        }
    }

    /// Where the next byte is to go. On the ring, [`Self::room`] says when.
    pub const fn mode(&self) -> Mode {
        self.writer.mode()
    }

    /// Whether all records are published; if not, [`Self::publish`] had no room or was not called.
    pub fn is_settled(&self) -> bool {
        self.writer.is_settled()
    }

    /// Number of records that could be published at once. [`Self::enter_ring`] needs one, and [`Self::leave_ring`] after it another: who enters
    /// without the first finds no [`Self::room`] until the reader has entered a segment; without the second the reader, when the direction
    /// has left, finds bytes in TCP that it may not take yet.
    ///
    /// # Errors
    ///
    /// The peer's count is impossible.
    pub fn log_room<P: Words>(&mut self, peer: &P) -> Result<u32, Error> {
        let entered = peer.word(slot::RX_SEGMENTS).load_acquire();
        Ok(self.writer.room(entered)?)
    }

    /// Bytes produced so far.
    pub const fn prod(&self) -> u32 {
        self.producer.prod()
    }

    /// Whether the reader has read enough of the current extent to be worth a larger one.
    pub const fn is_being_read(&self) -> bool {
        self.producer.is_being_read()
    }

    /// From the next byte on, into `extent`; `seq` is TCP's write sequence number.
    ///
    /// Also for growth: then `seq` is the one that [`Self::mode`] says. Nothing is visible before
    /// [`Self::publish`].
    ///
    /// # Errors
    ///
    /// [`SegmentError::Extents`] if [`Self::poll_free`] must be called first; nothing changed.
    pub fn enter_ring(&mut self, extent: Extent, seq: u32) -> Result<(), SegmentError> {
        let fresh = self.writer.enter_ring(extent, seq)?;
        self.producer.retarget(extent, fresh);
        Ok(())
    }

    /// From the next byte on, into TCP. To be followed by [`Self::publish`] before bytes are sent.
    pub fn leave_ring(&mut self) {
        self.writer.leave_ring();
    }

    /// Somebody wrote into TCP on the ring; TCP's write sequence number is `seq` now.
    ///
    /// To be followed by [`Self::publish`] before anything is produced.
    pub fn rogue(&mut self, seq: u32) {
        self.writer.rogue(seq);
    }

    /// Publishes the records that are due and for which the log has room; true = post a notice.
    ///
    /// If [`Self::is_settled`] thereby becomes true, writers of this end that sleep are to be woken.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Entered`] if the peer's count is impossible.
    pub fn publish<O, P>(&mut self, own: &O, peer: &P) -> Result<bool, Error>
    where
        O: Words<Word: SharedStore>,
        P: Words,
    {
        if self.writer.is_settled() {
            return Ok(false);
        }
        // The count /before/ the stores to the log: an entry is written again only after the reader
        // has copied it. Partner: `store_release` in `Inbound::publish`.
        let entered = peer.word(slot::RX_SEGMENTS).load_acquire();
        let mut notice = false;
        while let Some((number, record)) =
            self.writer.poll_publish(self.producer.prod(), entered)?
        {
            let mut offset = slot::record(number);
            for word in record.to_words() {
                own.word(offset).store_relaxed(word);
                offset = offset.wrapping_add(4);
            }
            // The record /before/ the count, and the count /before/ any byte beyond the boundary,
            // in the ring (`commit` stores with release, too) or in TCP. Partner: `Inbound::look`.
            own.word(slot::TX_SEGMENTS)
                .store_release(number.wrapping_add(1));
            // Bytes may be waiting in TCP already, with a reader that saw them asleep.
            notice |= record.kind == Kind::Tcp;
        }
        Ok(notice)
    }

    /// Bytes that may be produced now; 0 also if the direction is on TCP, or records are pending.
    ///
    /// # Errors
    ///
    /// The peer's index or count is impossible.
    #[inline]
    pub fn room<P: Words>(&mut self, peer: &P) -> Result<u32, Error> {
        // The index /before/ the stores of bytes that follow: only what the reader has read is
        // written again. Partner: `store_release` in `Inbound::publish`.
        let cons = peer.word(slot::RX_CONS).load_acquire();
        let free = self.producer.free(cons)?;
        match self.writer.mode() {
            Mode::Ring { .. } if self.writer.is_settled() => Ok(free),
            _ => Ok(0),
        }
    }

    /// The pieces that the next `len` bytes are to be copied to; at most what [`Self::room`] said.
    #[inline]
    pub const fn spans(&self, len: u32) -> Spans {
        self.producer.spans(len)
    }

    /// Makes `len` copied bytes visible, at most what [`Self::room`] said; true = post a notice.
    #[inline]
    pub fn commit<F, O, P>(&mut self, len: u32, own: &O, peer: &P) -> bool
    where
        F: Fence,
        O: Words<Word: SharedStore>,
        P: Words,
    {
        let old = self.producer.prod();
        self.producer.advance(len);
        wake::publish::<F>(
            &own.word(slot::TX_PROD),
            old,
            self.producer.prod(),
            &peer.word(slot::RX_DATA_EVENT),
        )
    }

    /// Asks for a notice when at least `want` bytes are free; true = they are not, sleep.
    ///
    /// While records are pending, the reader posts a notice without being asked (protocol §6.5); if
    /// they are and the result is false, call [`Self::publish`].
    ///
    /// # Errors
    ///
    /// The peer's index is impossible.
    pub fn arm<F, O, P>(&mut self, want: u32, own: &O, peer: &P) -> Result<bool, Error>
    where
        F: Fence,
        O: Words<Word: SharedStore>,
        P: Words,
    {
        let cons = peer.word(slot::RX_CONS);
        let seen = cons.load_acquire();
        let free = self.producer.free(seen)?;
        if !self.writer.is_settled() {
            // The count of records /before/ the second look at the reader's. Partner: the barrier in
            // `Inbound::publish`.
            F::full();
            let entered = peer.word(slot::RX_SEGMENTS).load_acquire();
            return Ok(self.writer.is_blocked(entered)?);
        }
        if free >= want && free > 0 {
            return Ok(false);
        }
        Ok(wake::arm_at::<F>(
            &own.word(slot::TX_SPACE_EVENT),
            self.producer.space_event(want),
            seen,
            &cons,
        ))
    }

    /// Says that no ring byte will ever follow. To be called before TCP sends its FIN.
    pub fn end<O: Words<Word: SharedStore>>(&mut self, own: &O) {
        own.word(slot::TX_FLAGS).store_release(wire::TX_END);
    }

    /// Whether the reader has read all that was ever produced.
    ///
    /// # Errors
    ///
    /// The peer's index is impossible.
    pub fn is_all_read<P: Words>(&mut self, peer: &P) -> Result<bool, Error> {
        // The index /before/ an extent is written for another connection. Partner: `Inbound::publish`.
        let cons = peer.word(slot::RX_CONS).load_acquire();
        self.producer.free(cons)?;
        Ok(cons == self.producer.prod())
    }

    /// Whether the reader has entered all that was published.
    pub fn is_all_entered<P: Words>(&self, peer: &P) -> bool {
        peer.word(slot::RX_SEGMENTS).load_acquire() == self.writer.published()
    }

    /// An extent that the reader has left for good; to be called until it returns `None`.
    ///
    /// # Errors
    ///
    /// The peer's index is impossible; [`SegmentError::Entered`] if its count is.
    pub fn poll_free<P: Words>(&mut self, peer: &P) -> Result<Option<Extent>, Error> {
        let is_all_read = self.is_all_read(peer)?;
        // The count /before/ the extent is written for another connection. Partner:
        // `Inbound::publish`.
        let entered = peer.word(slot::RX_SEGMENTS).load_acquire();
        Ok(self.writer.poll_free(entered, is_all_read)?)
    }

    /// Number of extents that are held, the current one among them.
    pub fn extents(&self) -> usize {
        self.writer.extents()
    }

    /// Any extent that is still held, once the peer has ended the connection or is gone.
    pub fn poll_abandoned(&mut self) -> Option<Extent> {
        self.writer.poll_abandoned()
    }
}

impl Default for Outbound {
    fn default() -> Self {
        Self::new()
    }
}
