// SPDX-License-Identifier: GPL-2.0

//! What can be wrong with what a peer wrote.
//!
//! All of these say that the peer did what a correct peer never does, except where a variant says
//! that the caller did. The answer is always the same: the channel is broken, is not used again,
//! and what depends on it ends. The variants are for the log and the counters.

use core::fmt;

/// An index, limit or length of a ring that cannot be right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RingError {
    /// The consumer index lies outside of what was produced, or went back.
    Consumer,
    /// The producer index went back, or is further ahead than the extent has room.
    Producer,
    /// The end of the segment is further ahead than the extent has room.
    Limit,
}

/// A segment record, or a count of records, that cannot be right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SegmentError {
    /// More records than the log holds, or fewer than before.
    Published,
    /// The reader says that it has entered records that do not exist, or fewer than before.
    Entered,
    /// The kind is neither TCP nor RING; the raw value.
    Kind(u8),
    /// A reserved field is not zero.
    Reserved,
    /// Two TCP records in a row, or a TCP record first.
    Order,
    /// The extent is too large, not aligned to its size, or not within the mapped pages.
    Extent,
    /// The ring byte at which the segment starts is not possible.
    Ring,
    /// The TCP sequence number at which the segment starts is not possible.
    Sequence,
    /// Ring bytes appeared while the direction is on TCP.
    Unexpected,
    /// The caller did not take back the extents that are no longer used: no room to note another.
    Extents,
}

/// An index of a queue that cannot be right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueueError {
    /// The consumer index lies outside of what was produced, or went back.
    Consumer,
    /// The producer index is further ahead than the queue has entries, or went back.
    Producer,
    /// The queue is full although the rules keep it from ever being.
    Full,
}

/// Why the arena has no pages for now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ArenaError {
    /// Nothing free: grow the arena to this number of chunks and try again.
    NeedChunks(u32),
    /// There is room in chunks that the peer has not mapped yet: wait for it.
    NotMapped,
    /// Nothing free, and the arena is as large as it may get.
    Exhausted,
    /// The caller freed what was not allocated, or asked for what cannot exist.
    Caller,
    /// The peer says that it has mapped more chunks than there are, or fewer than before.
    Mapped,
    /// The peer says that it has granted more chunks than there can be, or fewer than before.
    Granted,
}

/// Bytes that are no valid message or root page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WireError {
    /// The root page does not start with the magic number; the raw value.
    Magic(u32),
    /// A protocol version that is not ours; the raw value.
    Version(u16),
    /// The root page says other numbers of entries or pages than version 1 has.
    Geometry,
    /// A service that is not known; the raw value. The message is to be ignored and counted.
    Service(u8),
    /// A message kind that the service does not have; the raw value.
    Kind(u8),
    /// An address family that is neither 4 nor 6; the raw value.
    Family(u8),
    /// A reserved field, or the unused rest of a message, is not zero.
    Reserved,
    /// A decline reason that has no number in this version; the raw value.
    Reason(u32),
    /// The bytes are too few.
    Short,
}

impl WireError {
    /// Whether the channel is broken by it; if not, the message is counted and ignored.
    pub const fn is_fatal(&self) -> bool {
        !matches!(self, WireError::Service(_))
    }
}

/// A value in Xenstore that is not well formed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AnnounceError {
    /// Longer than [`crate::announce::VALUE_MAX`] bytes.
    Long,
    /// A word without `=`, an empty word, or a byte that is not printable ASCII.
    Syntax,
    /// A key that is needed is missing.
    Missing,
    /// A key that we know is there twice.
    Duplicate,
    /// A number is malformed or out of its range.
    Number,
    /// An address is malformed, is none that a single interface can have, or is there twice.
    Address,
    /// More than [`crate::announce::ADDRESSES_MAX`] addresses.
    TooMany,
}

/// A state of the channel that cannot follow the one before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChannelError {
    /// The state word has no such value; the raw value.
    State(u32),
    /// The state word went back.
    Back,
}

/// A record of a ring of datagrams that cannot be right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DatagramError {
    /// More bytes than a datagram can have, or than are in the ring; the raw value.
    Length(u32),
    /// A reserved field is not zero.
    Reserved,
    /// The time to live is 0.
    TimeToLive,
    /// Segments of this size cannot be; the raw value.
    Segment(u16),
    /// A ring was named that cannot be, or another than before.
    Ring,
    /// A flow was admitted to a ring that was never offered.
    Flow,
}

/// Any of them: why a channel was given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Error {
    /// See [`RingError`].
    Ring(RingError),
    /// See [`SegmentError`].
    Segment(SegmentError),
    /// See [`QueueError`].
    Queue(QueueError),
    /// See [`ArenaError`].
    Arena(ArenaError),
    /// See [`WireError`].
    Wire(WireError),
    /// See [`AnnounceError`].
    Announce(AnnounceError),
    /// See [`ChannelError`].
    Channel(ChannelError),
    /// See [`DatagramError`].
    Datagram(DatagramError),
}

macro_rules! from {
    ($($variant:ident($error:ty);)*) => {$(
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Error::$variant(error)
            }
        }

        impl fmt::Display for $error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }
    )*};
}

from! {
    Ring(RingError);
    Segment(SegmentError);
    Queue(QueueError);
    Arena(ArenaError);
    Wire(WireError);
    Announce(AnnounceError);
    Channel(ChannelError);
    Datagram(DatagramError);
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
