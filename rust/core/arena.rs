// SPDX-License-Identifier: GPL-2.0

//! The arena: which of the granted pages of one channel end are in use.
//!
//! It grows by chunks of 64 pages, one word of a bitmap each, and never shrinks while the channel
//! lives. Pages may be used for data only once the peer has mapped their chunk (protocol §3.3).

use crate::{
    error::ArenaError,
    extent::{
        Extent,
        MAX_ORDER, //
    },
    wire::{
        SlotId,
        CHUNKS_MAX,
        CHUNK_PAGES,
        SLOTS_PER_PAGE, //
    },
};

/// log2 of the pages of a chunk.
const CHUNK_ORDER: u8 = 6;

const _: () = assert!(1 << CHUNK_ORDER == CHUNK_PAGES);

/// The allocator of the pages of an arena, under the channel's lock.
///
/// The bitmap is the caller's: word c has a bit per page of chunk c, set = in use. It has at least
/// as many words as there are chunks; missing ones count as in use.
///
/// # Invariants
///
/// `mapped` <= `granted` <= `limit` <= [`CHUNKS_MAX`], in chunks. No bit at or beyond `mapped` is
/// set.
#[derive(Debug)]
pub struct Arena {
    granted: u32,
    mapped: u32,
    limit: u32,
    used: u32,
}

impl Arena {
    /// An arena without any chunk, which may grow to `limit` chunks, at most [`CHUNKS_MAX`].
    ///
    /// ```
    /// use xenvmc_core::{arena::Arena, error::ArenaError};
    ///
    /// let (mut arena, mut map) = (Arena::new(2), [0u64; 2]);
    /// assert_eq!(arena.allocate(&mut map, 4), Err(ArenaError::NeedChunks(1)));
    /// arena.grow(1)?;
    /// assert_eq!(arena.allocate(&mut map, 4), Err(ArenaError::NotMapped));
    /// arena.handle_mapped(1)?;
    /// let extent = arena.allocate(&mut map, 4)?;
    /// assert_eq!((extent.page(), arena.used()), (0, 16));
    /// arena.free(&mut map, extent)?;
    /// # Ok::<(), ArenaError>(())
    /// ```
    pub const fn new(limit: u32) -> Self {
        Self {
            granted: 0,
            mapped: 0,
            limit: if limit < CHUNKS_MAX {
                limit
            } else {
                CHUNKS_MAX
            },
            used: 0,
        }
    }

    /// Chunks that are granted.
    pub const fn granted(&self) -> u32 {
        self.granted
    }

    /// Chunks that the peer has mapped.
    pub const fn mapped(&self) -> u32 {
        self.mapped
    }

    /// Chunks that there may be.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Pages in use.
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// Notes that there are `granted` chunks now, listed in the directory and published.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Caller`] if there were more before, or it is beyond the limit.
    pub fn grow(&mut self, granted: u32) -> Result<(), ArenaError> {
        if granted < self.granted || granted > self.limit {
            return Err(ArenaError::Caller);
        }
        self.granted = granted;
        Ok(())
    }

    /// Takes note of the number of chunks that the peer says it has mapped.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Mapped`] if there are not so many, or there were more before.
    pub fn handle_mapped(&mut self, mapped: u32) -> Result<(), ArenaError> {
        if mapped < self.mapped || mapped > self.granted {
            return Err(ArenaError::Mapped);
        }
        self.mapped = mapped;
        Ok(())
    }

    /// Takes 2^`order` pages.
    ///
    /// # Errors
    ///
    /// [`ArenaError::NeedChunks`], [`ArenaError::NotMapped`] or [`ArenaError::Exhausted`] say what
    /// would help; [`ArenaError::Caller`] if `order` is larger than [`MAX_ORDER`].
    pub fn allocate(&mut self, map: &mut [u64], order: u8) -> Result<Extent, ArenaError> {
        if order > MAX_ORDER {
            return Err(ArenaError::Caller);
        }
        let page = if order < CHUNK_ORDER {
            find_within(map, self.mapped, order)
        } else {
            find_chunks(map, self.mapped, order)
        };
        let Some(extent) = page.and_then(|page| Extent::new(page, order)) else {
            return Err(self.what_helps(map, order));
        };
        mark(map, extent, true);
        self.used = self.used.wrapping_add(extent.pages());
        Ok(extent)
    }

    /// Gives an extent back.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Caller`] if not all of it was in use; nothing changed.
    pub fn free(&mut self, map: &mut [u64], extent: Extent) -> Result<(), ArenaError> {
        if !is_all(map, extent) {
            return Err(ArenaError::Caller);
        }
        mark(map, extent, false);
        self.used = self.used.wrapping_sub(extent.pages());
        Ok(())
    }

    fn what_helps(&self, map: &[u64], order: u8) -> ArenaError {
        // Chunks that are not mapped are empty. Whole chunks of an extent start at a multiple.
        let run = 1u32.wrapping_shl(u32::from(order.saturating_sub(CHUNK_ORDER)));
        let last_used = (0..self.mapped).rev().find(|&chunk| word(map, chunk) != 0);
        let empty_from = match last_used {
            Some(chunk) => chunk.wrapping_add(1),
            None => 0,
        };
        let start = empty_from.wrapping_add(run.wrapping_sub(1)) & !run.wrapping_sub(1);
        let need = start.wrapping_add(run);
        if need <= self.granted {
            ArenaError::NotMapped
        } else if need <= self.limit {
            ArenaError::NeedChunks(need)
        } else {
            ArenaError::Exhausted
        }
    }
}

/// The word of a chunk; all in use if the caller's bitmap is too short.
fn word(map: &[u64], chunk: u32) -> u64 {
    map.get(chunk as usize).copied().unwrap_or(u64::MAX)
}

/// The bits of an extent of less than a chunk, at bit 0.
const fn ones(order: u8) -> u64 {
    let pages = 1u32.wrapping_shl(order as u32);
    1u64.wrapping_shl(pages).wrapping_sub(1)
}

/// The first page of a free run of 2^`order` pages within one of the first `chunks` chunks.
fn find_within(map: &[u64], chunks: u32, order: u8) -> Option<u32> {
    let ones = ones(order);
    let step = 1usize.wrapping_shl(u32::from(order));
    (0..chunks).find_map(|chunk| {
        let used = word(map, chunk);
        let bit = (0..CHUNK_PAGES)
            .step_by(step)
            .find(|&bit| used & ones.wrapping_shl(bit) == 0)?;
        Some(chunk.wrapping_mul(CHUNK_PAGES).wrapping_add(bit))
    })
}

/// The first page of a free run of whole chunks, 2^`order` pages, within the first `chunks`.
fn find_chunks(map: &[u64], chunks: u32, order: u8) -> Option<u32> {
    let run = 1u32.wrapping_shl(u32::from(order.wrapping_sub(CHUNK_ORDER)));
    (0..chunks)
        .step_by(run as usize)
        .find(|&first| {
            let end = first.wrapping_add(run);
            end <= chunks && (first..end).all(|chunk| word(map, chunk) == 0)
        })
        .map(|first| first.wrapping_mul(CHUNK_PAGES))
}

/// The words that an extent has bits in, with those bits.
fn words(extent: Extent) -> impl Iterator<Item = (u32, u64)> {
    let first = extent.page() / CHUNK_PAGES;
    if extent.order() < CHUNK_ORDER {
        let bits = ones(extent.order()).wrapping_shl(extent.page() % CHUNK_PAGES);
        (first..first.wrapping_add(1)).zip(core::iter::repeat(bits))
    } else {
        let run = extent.pages() / CHUNK_PAGES;
        (first..first.wrapping_add(run)).zip(core::iter::repeat(u64::MAX))
    }
}

fn mark(map: &mut [u64], extent: Extent, used: bool) {
    for (chunk, bits) in words(extent) {
        if let Some(word) = map.get_mut(chunk as usize) {
            if used {
                *word |= bits;
            } else {
                *word &= !bits;
            }
        }
    }
}

fn is_all(map: &[u64], extent: Extent) -> bool {
    words(extent).all(|(chunk, bits)| map.get(chunk as usize).is_some_and(|w| w & bits == bits))
}

/// What this end has mapped of the peer's arena, under the channel's lock.
///
/// # Invariants
///
/// `mapped` <= `granted` <= [`CHUNKS_MAX`], in chunks; `mapped` <= `limit`.
#[derive(Debug)]
pub struct PeerArena {
    granted: u32,
    mapped: u32,
    limit: u32,
}

impl PeerArena {
    /// Nothing of it; at most `limit` chunks are to be mapped.
    ///
    /// ```
    /// use xenvmc_core::arena::PeerArena;
    ///
    /// let mut arena = PeerArena::new(8);
    /// assert_eq!(arena.handle_granted(2), Ok(Some(0)));
    /// assert_eq!(arena.did_map(), 1);
    /// assert_eq!(arena.handle_granted(2), Ok(Some(1)));
    /// assert!(arena.handle_granted(1).is_err());
    /// ```
    pub const fn new(limit: u32) -> Self {
        Self {
            granted: 0,
            mapped: 0,
            limit,
        }
    }

    /// Takes note of the number of chunks that the peer has granted, loaded with acquire; returns
    /// the chunk that is to be mapped next, if there is one.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Granted`] if there can be no so many, or there were more before.
    pub fn handle_granted(&mut self, granted: u32) -> Result<Option<u32>, ArenaError> {
        if granted < self.granted || granted > CHUNKS_MAX {
            return Err(ArenaError::Granted);
        }
        self.granted = granted;
        Ok((self.mapped < granted && self.mapped < self.limit).then_some(self.mapped))
    }

    /// Notes that the next chunk is mapped; returns how many are, to be published.
    pub fn did_map(&mut self) -> u32 {
        if self.mapped < self.granted {
            self.mapped = self.mapped.wrapping_add(1);
        }
        self.mapped
    }

    /// Pages of the peer's arena that are mapped; all numbers of pages are checked against it.
    pub const fn pages(&self) -> u32 {
        self.mapped.wrapping_mul(CHUNK_PAGES)
    }
}

/// The slots of one arena page, under the channel's lock.
#[derive(Clone, Copy, Debug)]
pub struct SlotPage {
    page: u32,
    used: u16,
}

impl SlotPage {
    /// All slots of arena page `page`, free.
    ///
    /// ```
    /// use xenvmc_core::arena::SlotPage;
    ///
    /// let mut slots = SlotPage::new(2);
    /// let id = slots.take().unwrap();
    /// assert_eq!(id.0, 32);
    /// assert!(slots.put(id) && !slots.put(id));
    /// ```
    pub const fn new(page: u32) -> Self {
        Self { page, used: 0 }
    }

    /// The arena page.
    pub const fn page(&self) -> u32 {
        self.page
    }

    /// Whether no slot is in use.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Takes a free slot, if there is one. The caller zeroes it before it tells anybody.
    pub fn take(&mut self) -> Option<SlotId> {
        let index = self.used.trailing_ones();
        if index >= SLOTS_PER_PAGE {
            return None;
        }
        let id = SlotId::new(self.page, index)?;
        self.used |= 1u16.wrapping_shl(index);
        Some(id)
    }

    /// Gives a slot back; false if it was not one of ours in use.
    pub fn put(&mut self, id: SlotId) -> bool {
        let bit = 1u16.wrapping_shl(id.index());
        let ours = id.page() == self.page && self.used & bit != 0;
        if ours {
            self.used &= !bit;
        }
        ours
    }
}
