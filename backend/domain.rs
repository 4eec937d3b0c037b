// SPDX-License-Identifier: GPL-2.0

//! What the backend knows of a guest: one [`Domain`] per guest that exists, whether it has the
//! frontend or not.

use crate::{
    group::Group,
    notice::{
        Mark,
        Notice,
        Part, //
    },
    publish::Published,
    registry::Registry, //
};
use kernel::{
    prelude::*,
    str::CString,
    sync::Arc, //
};
use xenvmc_core::announce::{
    Announcement,
    Offer, //
};
use xenvmc_xen::{
    budget::Budget,
    watch::Watch,
    work::Task,
    DomId, //
};

/// Changes of its keys that a guest has seen to at once, and after how many milliseconds it may
/// have one more. Setting up a channel with each of many peers takes several.
const LOOKS: (u32, u32) = (64, 50);

/// Lines about a guest in the log at once, and after how many milliseconds there may be one more.
const LINES: (u32, u32) = (8, 10_000);

/// A guest.
pub(crate) struct Domain {
    /// Its number.
    pub(crate) id: DomId,
    /// What it announced, if that is well formed.
    pub(crate) announced: Option<Announced>,
    /// What it announced, if that is malformed; so that each refusal is logged once.
    pub(crate) refused: Option<Refused>,
    /// Its group.
    pub(crate) group: Group,
    /// Whether it has none since its name was refused.
    pub(crate) refused_group: bool,
    /// Its well-formed offers and answers, whether the one they are for may see them or not.
    pub(crate) offers: KVec<(DomId, Offer)>,
    /// Its malformed offers and answers.
    pub(crate) refused_offers: KVec<(DomId, Refused)>,
    /// What we published to it.
    pub(crate) published: Published,
    /// What it may ask for.
    pub(crate) looks: Budget,
    /// What it may have logged.
    pub(crate) lines: Budget,
    /// The mark that its watches set.
    pub(crate) notice: Arc<Notice>,
    _watches: [Pin<KBox<Watch<Mark>>>; Part::ALL.len()],
}

/// An announcement.
pub(crate) struct Announced {
    /// The announcement as the guest made it.
    pub(crate) what: Announcement,
    /// Its place among all announcements: one that is newer has a higher number.
    pub(crate) order: u64,
    /// What peers get to see: without the addresses that another guest announced later.
    pub(crate) canonical: CString,
}

/// A value that was refused: its beginning, which serves to tell it from the next one.
#[derive(PartialEq)]
pub(crate) enum Refused {
    /// The value.
    Malformed(KVec<u8>),
    /// It is too long to be read.
    Long,
}

impl Domain {
    /// Begins to watch guest `id`.
    ///
    /// # Errors
    ///
    /// What [`Watch::new`] returns.
    pub(crate) fn new(id: DomId, default_all: bool, task: &Arc<Task<Registry>>) -> Result<Self> {
        let notice = Notice::new(task.clone())?;
        let watch = |part| {
            let name = match part {
                Part::Group => "xenvmc/group",
                Part::Announcement => "data/xenvmc/announce",
                Part::Offers => "data/xenvmc/offers",
            };
            let path = CString::try_from_fmt(format_args!("/local/domain/{id}/{name}"))?;
            Watch::new(&path, Mark::new(&notice, part)?)
        };
        let [group, announcement, offers] = Part::ALL;
        let watches = [watch(group)?, watch(announcement)?, watch(offers)?];
        Ok(Self {
            id,
            announced: None,
            refused: None,
            group: Group::default_of(default_all)?,
            refused_group: false,
            offers: KVec::new(),
            refused_offers: KVec::new(),
            published: Published::unknown(),
            looks: Budget::new(LOOKS.0, LOOKS.1),
            lines: Budget::new(LINES.0, LINES.1),
            notice,
            _watches: watches,
        })
    }

    /// Returns the offer or answer that it made for `peer`.
    pub(crate) fn offer_for(&self, peer: DomId) -> Option<&Offer> {
        let mut offers = self.offers.iter();
        offers.find(|(id, _)| *id == peer).map(|(_, offer)| offer)
    }

    /// Returns the instance that it announced.
    pub(crate) fn instance(&self) -> Option<u64> {
        self.announced.as_ref().map(|a| a.what.instance)
    }
}
