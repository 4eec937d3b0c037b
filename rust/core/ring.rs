// SPDX-License-Identifier: GPL-2.0

//! The two ends of a byte ring: index arithmetic over one extent, and what the other end may say.
//!
//! Indices count bytes of the direction since the connection began, run freely through all
//! extents, and wrap at 2^32. Ring byte b lies at byte (b mod size) of the extent that is current
//! when it is produced (protocol §6.4).

use crate::{
    error::RingError,
    extent::{
        Extent,
        Spans, //
    },
};

/// Bytes that may be unread over all extents of one direction; a larger distance is a lie.
const UNREAD_MAX: u32 = i32::MAX as u32;

/// The sender's end. There is one per direction, under the sender's socket lock.
///
/// - The sender owns the bytes of the extent between `prod` and `prod + free`, and may write them.
/// - The reader owns those from its consumer index to `prod`, and may read them until it publishes
///   a later consumer index.
///
/// # Invariants
///
/// - `seen` is the last consumer index of the peer that was found valid.
/// - `size` is 0 (nothing can be produced) or that of an extent, and the unread bytes in it are
///   within those from `base` to `prod`.
/// - `start` is what `prod` was when it went on in this extent, or later, but `size` behind `seen` at least.
#[derive(Clone, Copy, Debug)]
pub struct Producer {
    prod: u32,
    base: u32,
    seen: u32,
    size: u32,
    start: u32,
}

impl Producer {
    /// A producer that stands at `start` and writes into an extent of `size` bytes (0 = none yet).
    ///
    /// ```
    /// use xenvmc_core::ring::Producer;
    ///
    /// let mut producer = Producer::new(u32::MAX, 4096);
    /// producer.advance(4096);
    /// assert_eq!(producer.free(u32::MAX), Ok(0));
    /// assert_eq!(producer.free(99), Ok(100));
    /// assert!(producer.free(98).is_err());
    /// ```
    pub const fn new(start: u32, size: u32) -> Self {
        Self {
            prod: start,
            base: start,
            seen: start,
            size,
            start,
        }
    }

    /// Bytes produced so far.
    pub const fn prod(&self) -> u32 {
        self.prod
    }

    /// Bytes that the reader was seen to have read.
    pub const fn seen(&self) -> u32 {
        self.seen
    }

    /// Bytes of the current extent; 0 = none.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Goes on in `extent`; `fresh` = nothing that may be unread lies in it.
    pub fn retarget(&mut self, extent: Extent, fresh: bool) {
        // INVARIANT: If it is not fresh, any unread byte may be in it.
        self.base = if fresh { self.prod } else { self.seen };
        self.size = extent.bytes();
        self.start = self.prod;
    }

    /// Whether the reader was seen to have read half of what the current extent holds, out of it: it
    /// is at work, and a larger extent would let the two wait less for each other.
    ///
    /// ```
    /// use xenvmc_core::ring::Producer;
    ///
    /// let mut producer = Producer::new(7, 4096);
    /// producer.advance(4096);
    /// assert!(!producer.is_being_read());
    /// producer.free(7 + 2048)?;
    /// assert!(producer.is_being_read());
    /// # Ok::<(), xenvmc_core::error::RingError>(())
    /// ```
    pub const fn is_being_read(&self) -> bool {
        // While older extents are read, `seen` is behind `start`.
        let read = self.seen.wrapping_sub(self.start) as i32;
        read > 0 && read as u32 >= self.size / 2
    }

    /// Bytes that may be written now, when the peer's consumer index is `cons`.
    ///
    /// # Errors
    ///
    /// [`RingError::Consumer`] if `cons` went back, or lies beyond what was produced.
    #[inline]
    pub fn free(&mut self, cons: u32) -> Result<u32, RingError> {
        if cons.wrapping_sub(self.seen) > self.prod.wrapping_sub(self.seen) {
            return Err(RingError::Consumer);
        }
        self.seen = cons;
        if (cons.wrapping_sub(self.start) as i32) > self.size as i32 {
            // Only whether it is more than half of the size is asked, so `start` may follow.
            self.start = cons.wrapping_sub(self.size);
        }
        if self.prod.wrapping_sub(cons) < self.prod.wrapping_sub(self.base) {
            // INVARIANT: What is unread begins at `cons` now. Before that, what begins at the old
            // `base` is in this extent, and the rest takes no room in it.
            self.base = cons;
        }
        Ok(self.size.saturating_sub(self.prod.wrapping_sub(self.base)))
    }

    /// The pieces of the next `len` bytes; `len` is at most what [`Self::free`] said.
    #[inline]
    pub const fn spans(&self, len: u32) -> Spans {
        Spans::new(self.prod, len, self.size)
    }

    /// Notes that `len` bytes were written; at most what [`Self::free`] said.
    #[inline]
    pub fn advance(&mut self, len: u32) {
        self.prod = self.prod.wrapping_add(len);
    }

    /// The consumer index beyond which at least `want` bytes are free; for [`crate::wake::arm_at`].
    ///
    /// To be used when fewer are free now. `want` counts as at least 1 and at most the size.
    pub fn space_event(&self, want: u32) -> u32 {
        let want = if want > self.size { self.size } else { want };
        let want = if want == 0 { 1 } else { want };
        self.prod
            .wrapping_sub(self.size)
            .wrapping_add(want)
            .wrapping_sub(1)
    }
}

/// The reader's end. There is one per direction, under the reader's lock.
///
/// # Invariants
///
/// `seen` is the last producer index of the peer that was found valid, and `seen - cons` is less
/// than 2^31.
#[derive(Clone, Copy, Debug)]
pub struct Consumer {
    cons: u32,
    seen: u32,
}

impl Consumer {
    /// A consumer that stands at `start`.
    ///
    /// ```
    /// use xenvmc_core::ring::Consumer;
    ///
    /// let mut consumer = Consumer::new(10);
    /// assert_eq!(consumer.available(110, 4096, None), Ok(100));
    /// assert_eq!(consumer.available(110, 4096, Some(60)), Ok(50));
    /// assert!(consumer.available(109, 4096, None).is_err());
    /// ```
    pub const fn new(start: u32) -> Self {
        Self {
            cons: start,
            seen: start,
        }
    }

    /// Bytes consumed so far.
    pub const fn cons(&self) -> u32 {
        self.cons
    }

    /// The last producer index that was found valid.
    pub const fn seen(&self) -> u32 {
        self.seen
    }

    /// Takes note of the peer's producer index.
    ///
    /// # Errors
    ///
    /// [`RingError::Producer`] if it went back, or is absurdly far ahead.
    #[inline]
    pub fn handle_prod(&mut self, prod: u32) -> Result<(), RingError> {
        let unread = prod.wrapping_sub(self.cons);
        if unread > UNREAD_MAX || unread < self.seen.wrapping_sub(self.cons) {
            return Err(RingError::Producer);
        }
        self.seen = prod;
        Ok(())
    }

    /// Bytes that may be read now, when the peer's producer index is `prod`.
    ///
    /// `size` is that of the extent of the current segment. `limit` is the ring byte at which the
    /// segment ends, if that is known. Without a limit all of `prod` must fit in the extent, so the
    /// caller must have loaded `prod` before the number of records.
    ///
    /// # Errors
    ///
    /// [`RingError::Producer`] or [`RingError::Limit`] if the bytes could not be in the extent.
    #[inline]
    pub fn available(
        &mut self,
        prod: u32,
        size: u32,
        limit: Option<u32>,
    ) -> Result<u32, RingError> {
        self.handle_prod(prod)?;
        let unread = prod.wrapping_sub(self.cons);
        match limit {
            None if unread > size => Err(RingError::Producer),
            None => Ok(unread),
            Some(limit) => {
                let rest = limit.wrapping_sub(self.cons);
                if rest > size {
                    return Err(RingError::Limit);
                }
                Ok(if unread < rest { unread } else { rest })
            }
        }
    }

    /// The pieces of the next `len` bytes; `len` is at most what [`Self::available`] said.
    #[inline]
    pub const fn spans(&self, len: u32, size: u32) -> Spans {
        Spans::new(self.cons, len, size)
    }

    /// Notes that `len` bytes were read; at most what [`Self::available`] said.
    #[inline]
    pub fn advance(&mut self, len: u32) {
        self.cons = self.cons.wrapping_add(len);
    }

    /// The producer index beyond which at least `want` bytes are there; for
    /// [`crate::wake::arm_at`].
    pub fn data_event(&self, want: u32) -> u32 {
        let want = if want == 0 { 1 } else { want };
        self.cons.wrapping_add(want).wrapping_sub(1)
    }
}
