// SPDX-License-Identifier: GPL-2.0

//! Room for connections in our arena: slots and extents, and the arena's growth.

use crate::channel::Channel;
use crate::slots::{
    Shortage,
    Slots, //
};
use crate::stream::AdoptedStream;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::Instant;
use xenvmc_core::wire::{
    SlotId,
    CHUNK_PAGES,
    SLOT_SIZE, //
};
use xenvmc_core::{
    Decline,
    Extent, //
};

/// Chunks that the arena has beyond what is in use: a ring that grows cannot wait for the peer to map one.
const CHUNKS_AHEAD: u32 = 1;

/// How long the arena is not tried to grow after it could not.
const GROWTH_PAUSE_MS: i64 = 1_000;

impl Channel {
    /// Calls `take`, and grows the arena if it says that this would help, or if too little is left. Process context.
    fn with_room<R>(
        &self,
        mut take: impl FnMut(&mut Slots) -> core::result::Result<R, Shortage>,
    ) -> core::result::Result<R, Decline> {
        let mut try_once = || {
            let mut slots = self.slots().lock();
            let taken = take(&mut slots);
            let arena = slots.arena();
            let is_short = arena.used() + CHUNK_PAGES > arena.granted() * CHUNK_PAGES;
            let wanted = match &taken {
                Err(Shortage::Chunks(chunks)) => Some(*chunks),
                _ => is_short.then(|| arena.granted()),
            };
            (taken, wanted)
        };
        let (mut taken, wanted) = try_once();
        if let Some(chunks) = wanted {
            self.grow(chunks + CHUNKS_AHEAD);
        }
        if matches!(taken, Err(Shortage::Chunks(_))) {
            // The peer has to map it first, unless somebody else has freed what we need.
            (taken, _) = try_once();
        }
        taken.map_err(|shortage| match shortage {
            Shortage::Decline(reason) => reason,
            Shortage::Chunks(_) => Decline::NoMemory,
        })
    }

    /// Grows the arena to `chunks` chunks, or as far as memory and its limit go.
    fn grow(&self, chunks: u32) {
        let mut failed_at = self.growing.lock();
        let (granted, limit) = {
            let mut slots = self.slots().lock();
            (slots.arena().granted(), slots.arena().limit())
        };
        let chunks = chunks.min(limit);
        if granted >= chunks
            || failed_at.is_some_and(|at| at.elapsed().as_millis() < GROWTH_PAUSE_MS)
        {
            return;
        }
        for chunk in granted..chunks {
            if let Err(error) = self.own().add_chunk(chunk) {
                pr_warn!(
                    "domain {}: the arena could not grow: {error:?}\n",
                    self.peer().domid()
                );
                *failed_at = Some(Instant::now());
                break;
            }
            // We know of it /before/ the peer does, which may have mapped it a moment later.
            if self.slots().lock().arena().grow(chunk + 1).is_err() {
                break;
            }
            self.own().publish_chunks(chunk + 1);
        }
        self.notify();
    }

    /// Takes a slot for `stream`, zeroed. Process context.
    pub(crate) fn take_slot(
        &self,
        stream: &Arc<AdoptedStream>,
    ) -> core::result::Result<SlotId, Decline> {
        let id = self.with_room(|slots| slots.take(stream))?;
        let zeroed = self
            .own()
            .page(id.page())
            .map(|page| page.write(id.offset() as usize, &[0; SLOT_SIZE as usize]));
        match zeroed {
            Some(Ok(())) => Ok(id),
            _ => {
                self.put_slot(id);
                Err(Decline::Other)
            }
        }
    }

    /// Gives a slot back.
    pub(crate) fn put_slot(&self, id: SlotId) {
        let holder = self.slots().lock().put(id);
        drop(holder);
    }

    /// Takes an extent of 2^`order` pages. Process context.
    pub(crate) fn take_extent(&self, order: u8) -> core::result::Result<Extent, Decline> {
        self.with_room(|slots| slots.allocate(order))
    }

    /// The order of the largest extent that all connections can have at once.
    pub(crate) fn share_order(&self) -> u8 {
        let slots = self.slots().lock();
        let used = slots.used().max(1);
        let share = slots.spare_pages() / used;
        share.max(1).ilog2() as u8
    }

    /// Takes an extent of 2^`order` pages if there is one, without growth of the arena. Any context but hard interrupts.
    pub(crate) fn take_granted_extent(&self, order: u8) -> Option<Extent> {
        self.slots().lock().allocate(order).ok()
    }

    /// Takes an extent of 2^`order` pages for a connection that has a smaller one. Process context.
    ///
    /// What rings have grown to is half of the arena at most, so that there are small ones left for further connections.
    pub(crate) fn take_spare_extent(&self, order: u8) -> core::result::Result<Extent, Decline> {
        self.with_room(|slots| slots.allocate_spare(order))
    }

    /// Gives an extent back. Softirq or process context.
    pub(crate) fn put_extent(&self, extent: Extent) {
        self.slots().lock().free(extent);
    }
}
