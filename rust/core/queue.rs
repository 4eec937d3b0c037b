// SPDX-License-Identifier: GPL-2.0

//! The two queues of a channel end: control messages and notices (protocol §5).
//!
//! Each has one producer, which owns the memory, and one consumer in the other guest. The indices
//! run freely and wrap at 2^32; the number of entries is a power of two.

use crate::{
    error::QueueError,
    shared::{
        Fence,
        SharedLoad,
        SharedStore, //
    },
    wake, wire,
};

/// The owner's end of a queue.
///
/// # Invariants
///
/// `seen`, the last valid consumer index, is at most `entries` behind `prod`, and `told`, the index
/// last published, lies between them.
#[derive(Debug)]
pub struct Producer {
    prod: u32,
    told: u32,
    seen: u32,
    entries: u32,
    /// `prod`, without wrap: so that a [`Posted`] can be old without limit.
    posted: u64,
}

impl Producer {
    /// The empty control queue of a new channel end.
    pub const fn control() -> Self {
        Self::starting_at(0, wire::CONTROL_ENTRIES)
    }

    /// The empty notice queue of a new channel end.
    pub const fn notice() -> Self {
        Self::starting_at(0, wire::NOTICE_ENTRIES)
    }

    /// An empty queue of `entries` (a power of two) whose indices are at `start`.
    ///
    /// ```
    /// use xenvmc_core::queue::Producer;
    ///
    /// let mut queue = Producer::starting_at(u32::MAX, 2);
    /// assert_eq!(queue.room(u32::MAX), Ok(2));
    /// assert_eq!(queue.push(), 1);
    /// assert_eq!(queue.push(), 0);
    /// assert_eq!(queue.room(u32::MAX), Ok(0));
    /// assert!(queue.room(0).is_err(), "nothing is published yet");
    /// ```
    pub const fn starting_at(start: u32, entries: u32) -> Self {
        Self {
            prod: start,
            told: start,
            seen: start,
            entries,
            posted: 0,
        }
    }

    /// Entries that can be pushed, when the peer's consumer index is `cons`.
    ///
    /// `cons` must have been loaded with acquire, before the entries are written.
    ///
    /// # Errors
    ///
    /// [`QueueError::Consumer`] if it went back, or lies beyond what was published.
    pub fn room(&mut self, cons: u32) -> Result<u32, QueueError> {
        if cons.wrapping_sub(self.seen) > self.told.wrapping_sub(self.seen) {
            return Err(QueueError::Consumer);
        }
        self.seen = cons;
        Ok(self.entries.wrapping_sub(self.prod.wrapping_sub(cons)))
    }

    /// Takes the next entry, which the caller fills, and returns its number in the queue.
    ///
    /// There must be room.
    pub fn push(&mut self) -> u32 {
        let at = self.prod & self.entries.wrapping_sub(1);
        self.prod = self.prod.wrapping_add(1);
        self.posted = self.posted.wrapping_add(1);
        at
    }

    /// Publishes what was pushed; true = send an event.
    pub fn publish<F: Fence>(&mut self, index: &impl SharedStore, event: &impl SharedLoad) -> bool {
        let old = self.told;
        self.told = self.prod;
        wake::publish::<F>(index, old, self.prod, event)
    }

    /// Asks whether the peer still has to take the notice that `posted` stands for, if any.
    ///
    /// If it has, it will look at the connection after this moment, and need not be told again. If
    /// not, the caller pushes a notice and keeps [`Self::posted`].
    ///
    /// # Errors
    ///
    /// [`QueueError::Consumer`] as for [`Self::room`], and [`QueueError::Full`] if a notice is due
    /// and there is no room, which cannot happen with a correct peer.
    pub fn is_outstanding<F: Fence>(
        &mut self,
        posted: &Posted,
        cons: &impl SharedLoad,
    ) -> Result<bool, QueueError> {
        // The words of the connection /before/ the peer's index: if it has not taken the notice, it
        // will see them when it has. Partner: the barrier in `Consumer::take`.
        F::full();
        let room = self.room(cons.load_acquire())?;
        let unread = u64::from(self.entries.wrapping_sub(room));
        if posted.0 > self.posted.wrapping_sub(unread) {
            return Ok(true);
        }
        if room == 0 {
            return Err(QueueError::Full);
        }
        Ok(false)
    }

    /// The token of the entry that was pushed last.
    pub const fn posted(&self) -> Posted {
        Posted(self.posted)
    }
}

/// The last notice that was posted for a connection; in our own memory, one per connection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Posted(u64);

impl Posted {
    /// None was posted yet.
    pub const fn none() -> Self {
        Self(0)
    }
}

/// The other guest's end of a queue.
///
/// # Invariants
///
/// `seen`, the last valid producer index, is at most `entries` ahead of `cons`.
#[derive(Debug)]
pub struct Consumer {
    cons: u32,
    seen: u32,
    entries: u32,
}

impl Consumer {
    /// The consumer of the peer's empty control queue.
    pub const fn control() -> Self {
        Self::starting_at(0, wire::CONTROL_ENTRIES)
    }

    /// The consumer of the peer's empty notice queue.
    pub const fn notice() -> Self {
        Self::starting_at(0, wire::NOTICE_ENTRIES)
    }

    /// The consumer of an empty queue of `entries` (a power of two) whose indices are at `start`.
    pub const fn starting_at(start: u32, entries: u32) -> Self {
        Self {
            cons: start,
            seen: start,
            entries,
        }
    }

    /// Entries consumed so far.
    pub const fn cons(&self) -> u32 {
        self.cons
    }

    /// The number in the queue of the next entry, if there is one.
    ///
    /// # Errors
    ///
    /// [`QueueError::Producer`] if the index is further ahead than the queue is long, or went back.
    pub fn peek(&mut self, prod: &impl SharedLoad) -> Result<Option<u32>, QueueError> {
        // The index /before/ the entry. Partner: `wake::publish` in `Producer::publish`.
        let prod = prod.load_acquire();
        let unread = prod.wrapping_sub(self.cons);
        if unread > self.entries || unread < self.seen.wrapping_sub(self.cons) {
            return Err(QueueError::Producer);
        }
        self.seen = prod;
        Ok((unread > 0).then_some(self.cons & self.entries.wrapping_sub(1)))
    }

    /// Says that the entry that [`Self::peek`] found was copied.
    ///
    /// For a notice this comes *before* the look at the connection: a change that the look could
    /// miss is then announced by a new notice.
    pub fn take<F: Fence>(&mut self, index: &impl SharedStore) {
        self.cons = self.cons.wrapping_add(1);
        // The copy of the entry /before/ the index, so that it is not written again too early.
        // Partner: the acquire load of the index by the producer.
        index.store_release(self.cons);
        // The index /before/ the look at the connection. Partner: `Producer::is_outstanding`.
        F::full();
    }

    /// Asks for an event at the next entry; true = there is none yet, the handler may end.
    pub fn arm<F: Fence>(&self, event: &impl SharedStore, prod: &impl SharedLoad) -> bool {
        wake::arm::<F>(event, self.cons, prod)
    }
}
