// SPDX-License-Identifier: GPL-2.0

//! The two ends of a ring of records (protocol §10.3): a byte ring in which records are whole.

use super::record::{
    Record,
    HEAD, //
};
use crate::{
    error::RingError,
    extent::{
        Extent,
        Span,
        Spans, //
    },
    ring,
    shared::{
        Fence,
        SharedLoad,
        SharedStore, //
    },
    wake,
};

/// The sender's end. One per channel, under its lock.
///
/// # Invariants
///
/// `told`, the index last published, and that of `producer` are multiples of [`HEAD`].
#[derive(Debug)]
pub struct Sender {
    producer: ring::Producer,
    told: u32,
    size: u32,
}

impl Sender {
    /// An empty ring in `extent`.
    pub const fn new(extent: Extent) -> Self {
        Self {
            producer: ring::Producer::new(0, extent.bytes()),
            told: 0,
            size: extent.bytes(),
        }
    }

    /// Whether a record with `len` bytes of payload fits, `cons` being the reader's index.
    ///
    /// # Errors
    ///
    /// [`RingError::Consumer`], see [`ring::Producer::free`].
    pub fn has_room(&mut self, len: u32, cons: &impl SharedLoad) -> Result<bool, RingError> {
        // What the reader has read /before/ what is written over it. Partner: `Reader::publish`.
        let free = self.producer.free(cons.load_acquire())?;
        Ok(Record::space(len) <= free)
    }

    /// How far the reader was seen to be, as a number that changes whenever it goes on.
    pub const fn seen(&self) -> u32 {
        self.producer.seen()
    }

    /// Where the next record's head goes.
    pub fn head(&self) -> Option<Span> {
        self.producer.spans(HEAD).next()
    }

    /// Where the next record's payload of `len` bytes goes.
    pub const fn payload(&self, len: u32) -> Spans {
        Spans::new(self.producer.prod().wrapping_add(HEAD), len, self.size)
    }

    /// Notes that the next record, with `len` bytes of payload, was written; it fits.
    pub fn push(&mut self, len: u32) {
        self.producer.advance(Record::space(len));
    }

    /// Publishes what was pushed; true = the reader wants a notice.
    pub fn publish<F: Fence>(&mut self, prod: &impl SharedStore, event: &impl SharedLoad) -> bool {
        let old = self.told;
        self.told = self.producer.prod();
        wake::publish::<F>(prod, old, self.told, event)
    }

    /// Asks for a notice when there is room for a record with `len` bytes of payload, and for more at best; true = there is not yet.
    pub fn arm<F: Fence>(
        &self,
        len: u32,
        event: &impl SharedStore,
        cons: &impl SharedLoad,
    ) -> bool {
        let quarter = self.size / 4;
        let at = self.producer.space_event(Record::space(len).max(quarter));
        let seen = cons.load_relaxed();
        // A reader that has gone past `at` already is not waited for.
        (at.wrapping_sub(seen) as i32) >= 0 && wake::arm_at::<F>(event, at, seen, cons)
    }

    /// Whether the reader has delivered all that was published.
    pub fn is_drained(&self, cons: &impl SharedLoad) -> bool {
        cons.load_acquire() == self.told
    }
}

/// The reader's end. One per channel, under its lock.
#[derive(Debug)]
pub struct Reader {
    consumer: ring::Consumer,
    told: u32,
    size: u32,
}

impl Reader {
    /// A reader of an empty ring in `extent`.
    pub const fn new(extent: Extent) -> Self {
        Self {
            consumer: ring::Consumer::new(0),
            told: 0,
            size: extent.bytes(),
        }
    }

    /// Bytes that can be read; 0, or a head at least.
    ///
    /// # Errors
    ///
    /// [`RingError::Producer`] if the index cannot be.
    pub fn look(&mut self, prod: &impl SharedLoad) -> Result<u32, RingError> {
        // The index /before/ the records. Partner: `Sender::publish`.
        let available = self
            .consumer
            .available(prod.load_acquire(), self.size, None)?;
        if available % HEAD != 0 {
            return Err(RingError::Producer);
        }
        Ok(available)
    }

    /// Whether the sender has published nothing that is not dealt with. What it says is not checked.
    pub fn is_empty(&self, prod: &impl SharedLoad) -> bool {
        prod.load_relaxed() == self.consumer.cons()
    }

    /// Where the next record's head is.
    pub fn head(&self) -> Option<Span> {
        self.consumer.spans(HEAD, self.size).next()
    }

    /// Where the bytes `from` to `from + len` of the next record's payload are.
    pub const fn payload(&self, from: u32, len: u32) -> Spans {
        let at = self.consumer.cons().wrapping_add(HEAD).wrapping_add(from);
        Spans::new(at, len, self.size)
    }

    /// Notes that the next record was dealt with.
    pub fn take(&mut self, record: &Record) {
        self.consumer.advance(Record::space(record.len));
    }

    /// Publishes how far the reader is; true = the sender wants a notice.
    pub fn publish<F: Fence>(&mut self, cons: &impl SharedStore, event: &impl SharedLoad) -> bool {
        let old = self.told;
        self.told = self.consumer.cons();
        wake::publish::<F>(cons, old, self.told, event)
    }

    /// Takes back what [`Self::arm`] asked for, as far as nothing has come meanwhile.
    pub fn disarm(&self, event: &impl SharedStore) {
        // Nobody goes past what is behind.
        event.store_relaxed(self.consumer.cons().wrapping_sub(1));
    }

    /// Asks for a notice at the next record; true = there is none yet.
    pub fn arm<F: Fence>(&self, event: &impl SharedStore, prod: &impl SharedLoad) -> bool {
        wake::arm::<F>(event, self.consumer.cons(), prod)
    }
}
