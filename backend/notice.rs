// SPDX-License-Identifier: GPL-2.0

//! That something changed below a guest's directory: one [`Notice`] per guest, which its watches
//! share.

use crate::registry::Registry;
use kernel::{
    prelude::*,
    str::CStr,
    sync::{
        atomic::{
            AtomicFlag,
            Full,
            Release, //
        },
        Arc, //
    },
};
use xenvmc_xen::{
    watch,
    work::Task, //
};

/// The mark of a guest that is to be looked at.
pub(crate) struct Notice {
    dirty: AtomicFlag,
    task: Arc<Task<Registry>>,
}

impl Notice {
    /// Makes the mark, set: a guest that is new is looked at.
    pub(crate) fn new(task: Arc<Task<Registry>>) -> Result<Arc<Self>> {
        let this = Self {
            dirty: AtomicFlag::new(true),
            task,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// Sets the mark again; the caller asks for the run that looks.
    pub(crate) fn set(&self) {
        self.dirty.store(true, Release);
    }

    /// Takes the mark away /before/ xenstore is read, so that a change after the read sets it
    /// again, and returns whether it was set.
    pub(crate) fn take(&self) -> bool {
        self.dirty.xchg(false, Full)
    }
}

impl watch::Handler for Notice {
    fn changed(&self, _path: &CStr) {
        // A mark that is set already has its run, sooner or later: a guest that writes faster than
        // it may causes none of its own.
        if !self.dirty.xchg(true, Full) {
            self.task.kick();
        }
    }
}
