// SPDX-License-Identifier: GPL-2.0

//! Offsets, sizes and numbers of the shared memory (protocol §3, §6).
//!
//! All words are little-endian. Who writes a word is the owner of the memory, always; offsets that
//! are not named are zero.

use crate::extent::{
    PAGE_SHIFT,
    PAGE_SIZE, //
};

/// First word of a root page: "XVMC".
pub const MAGIC: u32 = 0x434d_5658;

/// The version of the protocol that this is.
pub const VERSION: u16 = 1;

/// Entries of the control queue, of 64 bytes each.
pub const CONTROL_ENTRIES: u32 = 64;

/// Pages of the control queue.
pub const CONTROL_PAGES: usize = 1;

/// Entries of the notice queue, of 4 bytes each.
pub const NOTICE_ENTRIES: u32 = 4096;

/// Pages of the notice queue.
pub const NOTICE_PAGES: usize = 4;

/// Pages of a directory of the arena at most; each lists 1024 pages.
pub const DIRECTORY_PAGES: usize = 64;

/// Arena pages that one directory page lists.
pub const DIRECTORY_ENTRIES: u32 = 1024;

/// Pages by which an arena grows.
pub const CHUNK_PAGES: u32 = 64;

/// Chunks of an arena at most (256 MiB).
pub const CHUNKS_MAX: u32 = 1024;

/// Connections of a channel at most, so that the notice queue cannot overflow (protocol §5.3).
pub const CONNECTIONS_MAX: u32 = 2048;

/// Bytes of a connection slot.
pub const SLOT_SIZE: u32 = 256;

/// Slots in an arena page.
pub const SLOTS_PER_PAGE: u32 = 16;

/// Records that a slot's log holds.
pub const RECORDS: u32 = 8;

/// Kind of a record: TCP follows.
pub const RECORD_TCP: u8 = 1;

/// Kind of a record: the ring follows.
pub const RECORD_RING: u8 = 2;

/// Bit in [`slot::TX_FLAGS`]: no ring byte will ever follow [`slot::TX_PROD`].
pub const TX_END: u32 = 1 << 0;

/// Bit in [`slot::RX_FLAGS`]: the peer may start ring segments.
pub const RX_READY: u32 = 1 << 0;

/// Bit in [`slot::RX_FLAGS`]: nobody will read any more; the peer shall go back to TCP.
pub const RX_GONE: u32 = 1 << 1;

/// Bit in [`slot::RX_FLAGS`]: the peer shall go back to TCP and stay there.
pub const RX_RETURN: u32 = 1 << 2;

/// Byte offsets in the root page.
pub mod root {
    /// Magic number, u32.
    pub const MAGIC: u32 = 0;
    /// Version, u16; two reserved bytes follow.
    pub const VERSION: u32 = 4;
    /// Feature bits, u64; none in version 1.
    pub const FEATURES: u32 = 8;
    /// Random number of this end of the channel, u64.
    pub const INSTANCE: u32 = 16;
    /// Entries of the control queue, u32.
    pub const CONTROL_ENTRIES: u32 = 24;
    /// Entries of the notice queue, u32.
    pub const NOTICE_ENTRIES: u32 = 28;
    /// Pages of a chunk, u32.
    pub const CHUNK_PAGES: u32 = 32;
    /// State of this end, see [`crate::channel`].
    pub const STATE: u32 = 64;
    /// Control messages produced.
    pub const CONTROL_PROD: u32 = 68;
    /// Notices produced.
    pub const NOTICE_PROD: u32 = 72;
    /// Chunks of the arena that are granted and listed.
    pub const CHUNKS: u32 = 76;
    /// Control messages of the peer consumed.
    pub const CONTROL_CONS: u32 = 128;
    /// The peer's [`CONTROL_PROD`] beyond which this end wants an event.
    pub const CONTROL_EVENT: u32 = 132;
    /// Notices of the peer consumed.
    pub const NOTICE_CONS: u32 = 136;
    /// The peer's [`NOTICE_PROD`] beyond which this end wants an event.
    pub const NOTICE_EVENT: u32 = 140;
    /// Chunks of the peer's arena that are mapped.
    pub const CHUNKS_MAPPED: u32 = 144;
    /// Grant of the control queue's page, u32.
    pub const CONTROL_GREFS: u32 = 256;
    /// Grants of the notice queue's pages, u32 each.
    pub const NOTICE_GREFS: u32 = 272;
    /// Grants of the directory's pages, u32 each.
    pub const DIRECTORY_GREFS: u32 = 320;
    /// End of the root page's used part.
    pub const END: u32 = 576;
}

/// Byte offsets in a connection slot.
pub mod slot {
    /// Ring bytes produced.
    pub const TX_PROD: u32 = 0;
    /// The peer's [`RX_CONS`] beyond which the owner wants a notice.
    pub const TX_SPACE_EVENT: u32 = 4;
    /// Records published.
    pub const TX_SEGMENTS: u32 = 8;
    /// See [`super::TX_END`].
    pub const TX_FLAGS: u32 = 12;
    /// Bytes of the peer's ring consumed.
    pub const RX_CONS: u32 = 64;
    /// The peer's [`TX_PROD`] beyond which the owner wants a notice.
    pub const RX_DATA_EVENT: u32 = 68;
    /// Records of the peer entered.
    pub const RX_SEGMENTS: u32 = 72;
    /// See [`super::RX_READY`], [`super::RX_GONE`], [`super::RX_RETURN`].
    pub const RX_FLAGS: u32 = 76;
    /// The log of records.
    pub const RECORDS: u32 = 128;

    /// Offset of record `number`, which runs freely.
    pub const fn record(number: u32) -> u32 {
        RECORDS.wrapping_add((number & (super::RECORDS - 1)).wrapping_mul(16))
    }
}

/// Where chunk `chunk`, less than [`CHUNKS_MAX`], is listed: the directory page, and the byte in it
/// of the first of [`CHUNK_PAGES`] words.
///
/// ```
/// assert_eq!(xenvmc_core::wire::listed_at(17), (1, 256));
/// ```
pub const fn listed_at(chunk: u32) -> (u32, u32) {
    let page = chunk.wrapping_mul(CHUNK_PAGES);
    let entry = page % DIRECTORY_ENTRIES;
    (page / DIRECTORY_ENTRIES, entry.wrapping_mul(4))
}

/// Number of a connection slot in its owner's arena.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SlotId(pub u32);

impl SlotId {
    /// Slot `index`, 0 to 15, of arena page `page`.
    ///
    /// ```
    /// use xenvmc_core::wire::SlotId;
    ///
    /// let id = SlotId::new(3, 5).unwrap();
    /// assert_eq!((id.0, id.page(), id.offset()), (53, 3, 1280));
    /// assert!(SlotId::new(0, 16).is_none());
    /// ```
    pub const fn new(page: u32, index: u32) -> Option<Self> {
        if index >= SLOTS_PER_PAGE || page >= CHUNKS_MAX * CHUNK_PAGES {
            return None;
        }
        Some(Self(page.wrapping_mul(SLOTS_PER_PAGE).wrapping_add(index)))
    }

    /// Arena page that the slot is in.
    pub const fn page(&self) -> u32 {
        self.0 / SLOTS_PER_PAGE
    }

    /// Number of the slot within its page, 0 to 15.
    pub const fn index(&self) -> u32 {
        self.0 % SLOTS_PER_PAGE
    }

    /// First byte of the slot within its page.
    pub const fn offset(&self) -> u32 {
        self.index().wrapping_mul(SLOT_SIZE)
    }

    /// Whether it lies within the first `pages` pages of the arena.
    pub const fn fits(&self, pages: u32) -> bool {
        self.page() < pages
    }
}

const _: () = {
    assert!(PAGE_SIZE == 1 << PAGE_SHIFT);
    assert!(SLOT_SIZE * SLOTS_PER_PAGE == PAGE_SIZE);
    assert!(slot::RECORDS + RECORDS * 16 == SLOT_SIZE);
    assert!(RECORDS.is_power_of_two());
    assert!(CONTROL_ENTRIES * 64 == CONTROL_PAGES as u32 * PAGE_SIZE);
    assert!(NOTICE_ENTRIES * 4 == NOTICE_PAGES as u32 * PAGE_SIZE);
    assert!(DIRECTORY_ENTRIES * 4 == PAGE_SIZE);
    assert!(CHUNKS_MAX * CHUNK_PAGES == DIRECTORY_PAGES as u32 * DIRECTORY_ENTRIES);
    assert!(root::DIRECTORY_GREFS + DIRECTORY_PAGES as u32 * 4 == root::END);
    assert!(CONNECTIONS_MAX < NOTICE_ENTRIES);
};
