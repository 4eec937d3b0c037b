// SPDX-License-Identifier: GPL-2.0

//! Which domains there are: one [`Census`] in the backend, told by xenstore of each that comes or
//! goes.
//!
//! The special watches carry no number of a domain, and `@releaseDomain` fires also for a domain
//! that is only suspended. So the only thing to learn from them is that it is time to look.

use crate::registry::Registry;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            AtomicFlag,
            Full,
            Release, //
        },
        Arc, //
    },
};
use xenvmc_xen::{
    watch::{
        self,
        ReadyHandler,
        Watch, //
    },
    work::Task,
    xenbus,
    DomId, //
};

/// The marks that xenstore is there, and that it is time to look.
pub(crate) struct Census {
    ready: AtomicFlag,
    due: AtomicFlag,
    task: Arc<Task<Registry>>,
}

/// The two special watches.
pub(crate) type Watches = [Pin<KBox<Watch<Census>>>; 2];

impl Census {
    /// Makes the marks: xenstore is not known to be there; when it is, it is time to look.
    pub(crate) fn new(task: Arc<Task<Registry>>) -> Self {
        Self {
            ready: AtomicFlag::new(false),
            due: AtomicFlag::new(true),
            task,
        }
    }

    /// Returns the task that looks.
    pub(crate) fn task(&self) -> &Arc<Task<Registry>> {
        &self.task
    }

    /// Returns whether xenstore is there.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Acquire)
    }

    /// Says that it is time to look, at the next run.
    pub(crate) fn set(&self) {
        self.due.store(true, Release);
    }

    /// Takes the mark away /before/ xenstore is read, so that a change after the read sets it
    /// again, and returns whether it was set.
    pub(crate) fn take(&self) -> bool {
        self.due.xchg(false, Full)
    }

    /// Begins to watch.
    pub(crate) fn watch(this: &Arc<Self>) -> Result<Watches> {
        Ok([
            Watch::new(c"@introduceDomain", this.clone())?,
            Watch::new(c"@releaseDomain", this.clone())?,
        ])
    }
}

impl watch::Handler for Census {
    fn changed(&self, _name: Option<&[u8]>) {
        self.set();
        self.task.kick();
    }
}

impl ReadyHandler for Census {
    fn ready(&self) {
        self.ready.store(true, Release);
        self.task.kick();
    }
}

/// Returns the guests that exist, without Dom0, in no order.
///
/// # Errors
///
/// What [`xenbus::directory`] returns.
pub(crate) fn list() -> Result<KVec<DomId>> {
    let mut guests = KVec::new();
    for name in xenbus::directory(c"/local/domain")?.iter() {
        let Some(id) = DomId::parse(name.to_bytes()) else {
            continue;
        };
        if id != DomId::DOM0 {
            guests.push(id, GFP_KERNEL)?;
        }
    }
    Ok(guests)
}
