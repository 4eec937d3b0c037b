// SPDX-License-Identifier: GPL-2.0

//! That something changed below a guest's directory: one [`Notice`] per guest, and a [`Mark`] of it for each [`Part`] that is
//! watched. What has not changed is not read: Xenstore is slow, and guests wait for what others say to them.

use crate::registry::Registry;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    },
};
use xenvmc_core::which::Which;
use xenvmc_xen::{
    watch,
    work::Task,
    DomId, //
};

/// What is read of a guest, each with a watch of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its group.
    Group,
    /// Its announcement.
    Announcement,
    /// Its offers and answers.
    Offers,
}

impl Part {
    /// All parts.
    pub(crate) const ALL: [Part; 3] = [Part::Group, Part::Announcement, Part::Offers];
}

/// What of a guest is to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// Its group.
    pub(crate) group: bool,
    /// Its announcement.
    pub(crate) announcement: bool,
    /// Its offers and answers: for whom.
    pub(crate) offers: Which,
}

/// The bits of a word that stand for a part; the upper half is for offers.
const GROUP: u32 = 1;
const ANNOUNCEMENT: u32 = 2;

impl Due {
    /// Nothing.
    pub(crate) const NOTHING: Self = Self {
        group: false,
        announcement: false,
        offers: Which::Nobody,
    };

    /// Everything.
    const ALL: Self = Self {
        group: true,
        announcement: true,
        offers: Which::All,
    };

    /// A part of it; `peer` is whom an offer is for, if that is known.
    fn of(part: Part, peer: Option<DomId>) -> Self {
        let nothing = Self::NOTHING;
        match part {
            Part::Group => Self {
                group: true,
                ..nothing
            },
            Part::Announcement => Self {
                announcement: true,
                ..nothing
            },
            Part::Offers => Self {
                offers: peer.map_or(Which::All, |peer| Which::One(peer.get())),
                ..nothing
            },
        }
    }

    /// Both.
    fn and(self, other: Self) -> Self {
        Self {
            group: self.group || other.group,
            announcement: self.announcement || other.announcement,
            offers: self.offers.and(other.offers),
        }
    }

    /// In one word.
    fn to_word(self) -> u32 {
        let group = if self.group { GROUP } else { 0 };
        let announcement = if self.announcement { ANNOUNCEMENT } else { 0 };
        u32::from(self.offers.to_word()) << 16 | group | announcement
    }

    /// From that word.
    fn from_word(word: u32) -> Self {
        Self {
            group: word & GROUP != 0,
            announcement: word & ANNOUNCEMENT != 0,
            offers: Which::from_word((word >> 16) as u16),
        }
    }
}

/// What of a guest is to be read, and who does it.
pub(crate) struct Notice {
    /// [`Due`] as a word.
    due: Atomic<u32>,
    task: Arc<Task<Registry>>,
}

impl Notice {
    /// Makes the notice, with everything due: a guest that is new is looked at.
    pub(crate) fn new(task: Arc<Task<Registry>>) -> Result<Arc<Self>> {
        let this = Self {
            due: Atomic::new(Due::ALL.to_word()),
            task,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// Takes away what is due /before/ xenstore is read, so that a change after the read makes it due
    /// again.
    pub(crate) fn take(&self) -> Due {
        Due::from_word(self.due.xchg(0, Full))
    }

    /// Adds to what is due, and returns what was before. Who says again that something is due asks for the run that reads it.
    pub(crate) fn add(&self, due: Due) -> Due {
        let mut before = self.due.load(Relaxed);
        loop {
            let after = Due::from_word(before).and(due).to_word();
            match self.due.cmpxchg(before, after, Full) {
                Ok(_) => return Due::from_word(before),
                Err(now) => before = now,
            }
        }
    }
}

/// What a watch of one part tells the notice of the guest.
pub(crate) struct Mark {
    notice: Arc<Notice>,
    part: Part,
}

impl Mark {
    /// Makes the mark of `part`.
    pub(crate) fn new(notice: &Arc<Notice>, part: Part) -> Result<Arc<Self>> {
        let notice = notice.clone();
        Ok(Arc::new(Self { notice, part }, GFP_KERNEL)?)
    }
}

impl watch::Handler for Mark {
    fn changed(&self, name: Option<&[u8]>) {
        let due = Due::of(self.part, name.and_then(DomId::parse));
        // A notice that has something due already has its run, sooner or later: a guest that writes faster
        // than it may causes none of its own.
        if self.notice.add(due) == Due::NOTHING {
            self.notice.task.kick();
        }
    }
}
