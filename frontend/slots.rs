// SPDX-License-Identifier: GPL-2.0

//! What lies in our arena: who has which slot and which extent. One per channel, under its lock.

use crate::stream::AdoptedStream;
use kernel::prelude::*;
use kernel::sync::Arc;
use xenvmc_core::arena::{
    Arena,
    SlotPage, //
};
use xenvmc_core::error::ArenaError;
use xenvmc_core::stream::Outbound;
use xenvmc_core::wire::{
    SlotId,
    CHUNK_PAGES,
    CONNECTIONS_MAX, //
};
use xenvmc_core::{
    Decline,
    Extent, //
};

/// Who has a slot. A large variant rather than an allocation that could fail when a connection ends.
#[expect(clippy::large_enum_variant)]
pub(crate) enum Holder {
    /// Nobody.
    Free,
    /// A connection.
    Stream(Arc<AdoptedStream>),
    /// A connection that has ended here; the peer may still read what it left.
    Left(Outbound),
}

/// The slots of one arena page.
struct Page {
    slots: SlotPage,
    extent: Extent,
    holders: [Holder; 16],
}

/// Why nothing could be had.
pub(crate) enum Shortage {
    /// The arena must grow to this many chunks first.
    Chunks(u32),
    /// For another reason.
    Decline(Decline),
}

impl From<ArenaError> for Shortage {
    fn from(error: ArenaError) -> Self {
        match error {
            ArenaError::NeedChunks(chunks) => Self::Chunks(chunks),
            // It comes by itself, when the peer has mapped what it was granted.
            ArenaError::NotMapped => Self::Decline(Decline::NoChannel),
            ArenaError::Exhausted
            | ArenaError::Caller
            | ArenaError::Granted
            | ArenaError::Mapped => Self::Decline(Decline::ArenaExhausted),
        }
    }
}

/// The arena's contents.
pub(crate) struct Slots {
    arena: Arena,
    map: KVec<u64>,
    pages: KVec<Page>,
    used: u32,
}

impl Slots {
    /// An empty arena that may grow to `chunks` chunks.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(chunks: u32) -> Result<Self> {
        Ok(Self {
            arena: Arena::new(chunks),
            map: KVec::from_elem(0, chunks as usize, GFP_KERNEL)?,
            pages: KVec::new(),
            used: 0,
        })
    }

    /// The allocator, for its numbers.
    pub(crate) fn arena(&mut self) -> &mut Arena {
        &mut self.arena
    }

    /// Slots in use.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// Takes an extent of 2^`order` pages.
    pub(crate) fn allocate(&mut self, order: u8) -> core::result::Result<Extent, Shortage> {
        Ok(self.arena.allocate(&mut self.map, order)?)
    }

    /// Takes an extent of 2^`order` pages if no more than half of the arena is in use then.
    pub(crate) fn allocate_spare(&mut self, order: u8) -> core::result::Result<Extent, Shortage> {
        if self.arena.used() + (1 << order) > self.spare_pages() {
            return Err(Shortage::Decline(Decline::ArenaExhausted));
        }
        self.allocate(order)
    }

    /// Pages of what rings may grow to, of all connections together.
    pub(crate) fn spare_pages(&self) -> u32 {
        self.arena.limit() * CHUNK_PAGES / 2
    }

    /// Gives an extent back.
    pub(crate) fn free(&mut self, extent: Extent) {
        if self.arena.free(&mut self.map, extent).is_err() {
            pr_err!("an extent was freed that was not in use: {extent:?}\n");
        }
    }

    /// Takes a slot for `stream`.
    pub(crate) fn take(
        &mut self,
        stream: &Arc<AdoptedStream>,
    ) -> core::result::Result<SlotId, Shortage> {
        if self.used >= CONNECTIONS_MAX {
            return Err(Shortage::Decline(Decline::SlotsExhausted));
        }
        let id = match self.pages.iter_mut().find_map(|page| page.slots.take()) {
            Some(id) => id,
            None => self.take_in_new_page()?,
        };
        self.used += 1;
        if let Some(holder) = self.holder(id) {
            *holder = Holder::Stream(stream.clone());
        }
        Ok(id)
    }

    fn take_in_new_page(&mut self) -> core::result::Result<SlotId, Shortage> {
        let memory = |_| Shortage::Decline(Decline::NoMemory);
        self.pages.reserve(1, GFP_ATOMIC).map_err(memory)?;
        let extent = self.allocate(0)?;
        let mut page = Page {
            slots: SlotPage::new(extent.page()),
            extent,
            holders: [const { Holder::Free }; 16],
        };
        let id = page
            .slots
            .take()
            .ok_or(Shortage::Decline(Decline::SlotsExhausted))?;
        self.pages
            .push(page, GFP_ATOMIC)
            .map_err(|_| Shortage::Decline(Decline::NoMemory))?;
        Ok(id)
    }

    /// Who has slot `id`, if it is one.
    pub(crate) fn holder(&mut self, id: SlotId) -> Option<&mut Holder> {
        self.pages
            .iter_mut()
            .find(|page| page.slots.page() == id.page())?
            .holders
            .get_mut(id.index() as usize)
    }

    /// The connection that has slot `id`, if one has.
    pub(crate) fn stream(&mut self, id: SlotId) -> Option<Arc<AdoptedStream>> {
        match self.holder(id)? {
            Holder::Stream(stream) => Some(stream.clone()),
            Holder::Free | Holder::Left(_) => None,
        }
    }

    /// Gives slot `id` back and returns who had it, to be dropped without the lock.
    pub(crate) fn put(&mut self, id: SlotId) -> Holder {
        let Some(place) = self.holder(id) else {
            return Holder::Free;
        };
        let mut holder = core::mem::replace(place, Holder::Free);
        if let Holder::Left(outbound) = &mut holder {
            while let Some(extent) = outbound.poll_abandoned() {
                self.free(extent);
            }
        }
        let Some(index) = self
            .pages
            .iter()
            .position(|page| page.slots.page() == id.page())
        else {
            return holder;
        };
        let mut empty = None;
        if let Some(page) = self.pages.get_mut(index) {
            if page.slots.put(id) {
                self.used -= 1;
            }
            empty = page.slots.is_empty().then_some(page.extent);
        }
        if let Some(extent) = empty {
            if self.pages.remove(index).is_ok() {
                self.free(extent);
            }
        }
        holder
    }

    /// The streams that have slots, copied; for walks that take other locks.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn streams(&self, into: &mut KVec<(SlotId, Arc<AdoptedStream>)>) -> Result {
        into.clear();
        for page in &self.pages {
            for (index, holder) in (0..).zip(&page.holders) {
                if let (Holder::Stream(stream), Some(id)) =
                    (holder, SlotId::new(page.slots.page(), index))
                {
                    into.push((id, stream.clone()), GFP_ATOMIC)?;
                }
            }
        }
        Ok(())
    }

    /// The connection that `is_wanted` says yes to, if there is one. It must be quick and take no lock.
    pub(crate) fn find(
        &self,
        is_wanted: impl Fn(&AdoptedStream) -> bool,
    ) -> Option<Arc<AdoptedStream>> {
        self.pages
            .iter()
            .flat_map(|page| &page.holders)
            .find_map(|holder| match holder {
                Holder::Stream(stream) if is_wanted(stream) => Some(stream.clone()),
                _ => None,
            })
    }

    /// Some slot that is in use, if there is one.
    pub(crate) fn first_used(&self) -> Option<SlotId> {
        self.pages.iter().find_map(|page| {
            let index = page
                .holders
                .iter()
                .position(|holder| !matches!(holder, Holder::Free))?;
            SlotId::new(page.slots.page(), index as u32)
        })
    }
}
