// SPDX-License-Identifier: GPL-2.0

//! That something changed below a guest's directory: one [`Notice`] per guest, and a [`Mark`] of it for each [`Part`] that is
//! watched. What has not changed is not read: Xenstore is slow, and guests wait for what others say to them.

use crate::registry::Registry;
use kernel::{
    prelude::*,
    str::CStr,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    },
};
use xenvmc_xen::{
    watch,
    work::Task, //
};

/// What is read of a guest.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Part {
    /// Its group.
    Group = 1,
    /// Its announcement.
    Announcement = 2,
    /// Its offers and answers.
    Offers = 4,
}

impl Part {
    /// All parts.
    pub(crate) const ALL: [Part; 3] = [Part::Group, Part::Announcement, Part::Offers];
}

/// Some parts.
#[derive(Clone, Copy)]
pub(crate) struct Parts(u32);

impl Parts {
    /// Returns whether there is none.
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns whether `part` is one of them.
    pub(crate) fn has(self, part: Part) -> bool {
        self.0 & part as u32 != 0
    }
}

/// What of a guest is to be read.
pub(crate) struct Notice {
    due: Atomic<u32>,
    task: Arc<Task<Registry>>,
}

impl Notice {
    /// Makes the notice, with all parts due: a guest that is new is looked at.
    pub(crate) fn new(task: Arc<Task<Registry>>) -> Result<Arc<Self>> {
        let all = Part::ALL.iter().fold(0, |all, part| all | *part as u32);
        let this = Self {
            due: Atomic::new(all),
            task,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// Says again that these parts are due; the caller asks for the run that reads them.
    pub(crate) fn set(&self, parts: Parts) {
        self.add(parts.0);
    }

    /// Takes away what is due /before/ xenstore is read, so that a change after the read makes it due
    /// again.
    pub(crate) fn take(&self) -> Parts {
        Parts(self.due.xchg(0, Full))
    }

    /// Adds to what is due, and returns what was before.
    fn add(&self, parts: u32) -> u32 {
        let mut before = self.due.load(Relaxed);
        while let Err(now) = self.due.cmpxchg(before, before | parts, Full) {
            before = now;
        }
        before
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
    fn changed(&self, _path: &CStr) {
        // A notice that has something due already has its run, sooner or later: a guest that writes faster
        // than it may causes none of its own.
        if self.notice.add(self.part as u32) == 0 {
            self.notice.task.kick();
        }
    }
}
