// SPDX-License-Identifier: GPL-2.0

//! The memory of one end of a channel: ours, which the peer can only read, and the peer's, which we can only read
//! (protocol §3). One of each exists per channel.
//!
//! A region only grows. So what was looked up once stays where it is, and lookups take no lock.

use crate::peer::Peer;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Acquire,
    Atomic,
    Release, //
};
use kernel::sync::{
    Arc,
    SetOnce, //
};
use xenvmc_core::root::{
    Root,
    ROOT_SIZE, //
};
use xenvmc_core::shared::{
    SharedLoad,
    SharedStore, //
};
use xenvmc_core::wire::{
    self,
    root,
    SlotId, //
};
use xenvmc_core::Words;
use xenvmc_xen::grant::Grants;
use xenvmc_xen::pages::{
    OwnPage,
    PeerPages, //
};
use xenvmc_xen::word::{
    OwnWords,
    PeerWords, //
};
use xenvmc_xen::DomId;

/// Chunks that one page of the directory lists.
const CHUNKS_PER_DIRECTORY: u32 = wire::DIRECTORY_ENTRIES / wire::CHUNK_PAGES;

/// Makes a list of `len` places that are filled later, once each.
fn places<T>(len: usize) -> Result<KVec<SetOnce<T>>> {
    let mut places = KVec::with_capacity(len, GFP_KERNEL)?;
    for _ in 0..len {
        places.push(SetOnce::new(), GFP_KERNEL)?;
    }
    Ok(places)
}

/// Our own memory: root page, queues, and the arena with its directory.
pub(crate) struct OwnRegion {
    grants: Arc<Grants>,
    peer: DomId,
    instance: u64,
    root: OwnPage,
    control: OwnPage,
    notice: KVec<OwnPage>,
    directory: KVec<SetOnce<OwnPage>>,
    chunks: KVec<SetOnce<KVec<OwnPage>>>,
}

impl OwnRegion {
    /// Makes a region without arena, granted to `peer`, which may grow to `chunks` chunks. Process context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `ENOSPC` (no grant left), `EBUSY` (the peer holds too much of what we wanted back).
    pub(crate) fn new(grants: &Arc<Grants>, peer: DomId, chunks: u32) -> Result<Self> {
        let page = || OwnPage::new(grants, peer);
        let control = page()?;
        let mut notice = KVec::with_capacity(wire::NOTICE_PAGES, GFP_KERNEL)?;
        let mut notice_grefs = [0; wire::NOTICE_PAGES];
        for gref in notice_grefs.iter_mut() {
            let page = page()?;
            *gref = page.gref();
            notice.push(page, GFP_KERNEL)?;
        }
        let description = Root {
            instance: xenvmc_xen::random::u64(),
            control: [control.gref()],
            notice: notice_grefs,
        };
        let root = page()?;
        root.write(0, &description.emit())?;
        Ok(Self {
            grants: grants.clone(),
            peer,
            instance: description.instance,
            root,
            control,
            notice,
            directory: places(chunks.div_ceil(CHUNKS_PER_DIRECTORY) as usize)?,
            chunks: places(chunks as usize)?,
        })
    }

    /// Returns the random number of this end of the channel.
    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    /// Returns the grant of the root page.
    pub(crate) fn root_gref(&self) -> u32 {
        self.root.gref()
    }

    /// Returns the words of the root page.
    pub(crate) fn root(&self) -> OwnWords<'_> {
        self.root.all()
    }

    /// Writes entry `at` of the control queue.
    pub(crate) fn write_control(&self, at: u32, message: &[u8; 64]) -> Result {
        self.control.write(at as usize * message.len(), message)
    }

    /// Writes entry `at` of the notice queue.
    pub(crate) fn write_notice(&self, at: u32, slot: SlotId) {
        let (page, entry) = (at / NOTICES_PER_PAGE, at % NOTICES_PER_PAGE);
        if let Some(page) = self.notice.get(page as usize) {
            page.all().word(entry * 4).store_relaxed(slot.0);
        }
    }

    /// Returns a page of the arena, if it is granted.
    #[inline]
    pub(crate) fn page(&self, number: u32) -> Option<&OwnPage> {
        let (chunk, page) = (number / wire::CHUNK_PAGES, number % wire::CHUNK_PAGES);
        self.chunks
            .get(chunk as usize)?
            .as_ref()?
            .get(page as usize)
    }

    /// Returns the words of a slot, if its page is granted.
    #[inline]
    pub(crate) fn slot(&self, id: SlotId) -> Option<OwnWords<'_>> {
        self.page(id.page())?
            .words(id.offset() as usize, wire::SLOT_SIZE as usize)
            .ok()
    }

    /// Grants chunk number `chunk`, the next one, and lists it; [`Self::publish_chunks`] comes next. Process context; one caller at a time.
    ///
    /// # Errors
    ///
    /// As [`Self::new`]; `ENOSPC` at the region's limit. Nothing is changed then.
    pub(crate) fn add_chunk(&self, chunk: u32) -> Result {
        let place = self.chunks.get(chunk as usize).ok_or(ENOSPC)?;
        let number = chunk / CHUNKS_PER_DIRECTORY;
        let directory = self.directory.get(number as usize).ok_or(ENOSPC)?;
        if directory.as_ref().is_none() {
            let page = OwnPage::new(&self.grants, self.peer)?;
            let at = root::DIRECTORY_GREFS + number * 4;
            self.root().word(at).store_relaxed(page.gref());
            directory.populate(page);
        }
        let directory = directory.as_ref().ok_or(EAGAIN)?;
        let mut pages = KVec::with_capacity(wire::CHUNK_PAGES as usize, GFP_KERNEL)?;
        for _ in 0..wire::CHUNK_PAGES {
            pages.push(OwnPage::new(&self.grants, self.peer)?, GFP_KERNEL)?;
        }
        let first = chunk % CHUNKS_PER_DIRECTORY * wire::CHUNK_PAGES;
        for (entry, page) in (first..).zip(&pages) {
            directory.all().word(entry * 4).store_relaxed(page.gref());
        }
        place.populate(pages);
        Ok(())
    }

    /// Tells the peer that it can map `chunks` chunks.
    pub(crate) fn publish_chunks(&self, chunks: u32) {
        // The directory /before/ the count, so that who sees the count finds the grants. Partner:
        // `PeerRegion::map_chunks`.
        self.root().word(root::CHUNKS).store_release(chunks);
    }
}

const NOTICES_PER_PAGE: u32 = wire::NOTICE_ENTRIES / wire::NOTICE_PAGES as u32;

/// The peer's memory, mapped read-only.
pub(crate) struct PeerRegion {
    peer: DomId,
    instance: u64,
    root: PeerPages,
    control: PeerPages,
    notice: PeerPages,
    chunks: KVec<SetOnce<PeerPages>>,
    mapped: Atomic<u32>,
}

impl PeerRegion {
    /// Maps the root page `gref` of `peer` and what it names. Process context.
    ///
    /// # Errors
    ///
    /// `EACCES` if Xen refuses a grant, `EPROTO` if it is no root page of our version, `ENOMEM`.
    pub(crate) fn map(peer: &Peer, gref: u32) -> Result<Self> {
        let domid = peer.domid();
        let root = PeerPages::map(domid, &[gref])?;
        let mut bytes = [0; ROOT_SIZE];
        root.read(0, 0, &mut bytes)?;
        let description = Root::parse(&bytes).map_err(|error| {
            peer.warn(format_args!("bad root page: {error:?}"));
            EINVAL
        })?;
        Ok(Self {
            peer: domid,
            instance: description.instance,
            control: PeerPages::map(domid, &description.control)?,
            notice: PeerPages::map(domid, &description.notice)?,
            root,
            chunks: places(wire::CHUNKS_MAX as usize)?,
            mapped: Atomic::new(0),
        })
    }

    /// Returns the random number of the peer's end of the channel.
    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    /// Returns the words of the root page.
    pub(crate) fn root(&self) -> PeerWords<'_> {
        self.root.first()
    }

    /// Copies entry `at` of the control queue.
    pub(crate) fn read_control(&self, at: u32) -> Result<[u8; 64]> {
        let mut message = [0; 64];
        self.control
            .read(0, at as usize * message.len(), &mut message)?;
        Ok(message)
    }

    /// Loads entry `at` of the notice queue.
    pub(crate) fn read_notice(&self, at: u32) -> Result<SlotId> {
        let (page, entry) = (at / NOTICES_PER_PAGE, at % NOTICES_PER_PAGE);
        let word = self.notice.word(page as usize, entry as usize * 4)?;
        Ok(SlotId(word.load_relaxed()))
    }

    /// Returns how many pages of the peer's arena are mapped.
    #[inline]
    pub(crate) fn pages(&self) -> u32 {
        self.mapped.load(Acquire) * wire::CHUNK_PAGES
    }

    /// Returns the mapping that a page of the peer's arena is in, and its number there.
    #[inline]
    pub(crate) fn page(&self, number: u32) -> Option<(&PeerPages, usize)> {
        let (chunk, page) = (number / wire::CHUNK_PAGES, number % wire::CHUNK_PAGES);
        let chunk = self.chunks.get(chunk as usize)?.as_ref()?;
        Some((chunk, page as usize))
    }

    /// Returns the words of a slot of the peer's, if its page is mapped.
    #[inline]
    pub(crate) fn slot(&self, id: SlotId) -> Option<PeerWords<'_>> {
        let (pages, page) = self.page(id.page())?;
        pages
            .words(page, id.offset() as usize, wire::SLOT_SIZE as usize)
            .ok()
    }

    /// Maps the chunks that the peer has granted meanwhile, at most `limit` in all. Returns how many are mapped now.
    /// Process context; one caller at a time.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the peer says that it has fewer than before or more than there can be, or if Xen refuses a grant
    /// that it lists; `ENOMEM`.
    pub(crate) fn map_chunks(&self, limit: u32) -> Result<u32> {
        // The count /before/ the directory. Partner: `OwnRegion::add_chunk`.
        let granted = self.root().word(root::CHUNKS).load_acquire();
        let mut mapped = self.mapped.load(Acquire);
        if granted < mapped || granted > wire::CHUNKS_MAX {
            return Err(EINVAL);
        }
        while mapped < granted.min(limit) {
            let at = root::DIRECTORY_GREFS + mapped / CHUNKS_PER_DIRECTORY * 4;
            let gref = self.root().word(at).load_relaxed();
            let directory = PeerPages::map(self.peer, &[gref])?;
            let mut grefs = [0; wire::CHUNK_PAGES as usize];
            let first = mapped % CHUNKS_PER_DIRECTORY * wire::CHUNK_PAGES;
            for (entry, gref) in (first..).zip(grefs.iter_mut()) {
                *gref = directory.first().word(entry * 4).load_relaxed();
            }
            let place = self.chunks.get(mapped as usize).ok_or(EINVAL)?;
            place.populate(PeerPages::map(self.peer, &grefs)?);
            mapped += 1;
            // The mapping /before/ the number of pages that may be used.
            self.mapped.store(mapped, Release);
        }
        Ok(mapped)
    }
}
