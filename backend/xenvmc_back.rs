// SPDX-License-Identifier: GPL-2.0

//! The part of XenVMC that runs in Dom0: who may speak with whom.
//!
//! Guests announce themselves below their own `data/xenvmc`. The backend checks what they wrote,
//! and publishes to each guest, below `/local/domain/N/xenvmc`, the peers that it may see and the
//! offers that they made to it. It carries no data, and channels live on without it.
//!
//! There is one [`Backend`] in the module. All its work is done by one work item, which looks at
//! what is in xenstore now, computes what should be published, and writes the difference.

#![forbid(unsafe_code)]

mod census;
mod counters;
mod domain;
mod files;
mod group;
mod notice;
mod publish;
mod registry;
mod scan;
mod view;

use crate::{
    census::Census,
    files::Files,
    registry::Registry, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use xenvmc_xen::{
    domain::is_initial,
    new_task,
    watch::Ready,
    work::{
        Queue,
        Task, //
    },
};

/// What the kernel's log calls the messages of this crate.
const __LOG_PREFIX: &[u8] = b"xenvmc_backend\0";

/// The backend, from its making to its drop.
pub struct Backend {
    ready: Option<Pin<KBox<Ready<Census>>>>,
    task: Arc<Task<Registry>>,
    _files: Files,
}

impl Backend {
    /// Starts. `default_group`, the module's parameter, says in which group a guest is that the administrator gave none:
    /// 1 = in that of all such guests, 0 = in none.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is another number; `ENODEV` if this is not Dom0; `ENOMEM`.
    pub fn new(default_group: u8) -> Result<Self> {
        let default_all = match default_group {
            0 => false,
            1 => true,
            value => {
                pr_err!("default_group={value}: must be 0 or 1\n");
                return Err(EINVAL);
            }
        };
        if !is_initial() {
            pr_err!("this module is for Dom0; guests load xenvmc_frontend\n");
            return Err(ENODEV);
        }
        let registry = Arc::pin_init(Registry::new(default_all), GFP_KERNEL)?;
        let task = new_task!(Queue::HighPriority, registry.clone(), "xenvmc_registry")?;
        let files = Files::new(&registry)?;
        let census = Arc::new(Census::new(task.clone()), GFP_KERNEL)?;
        registry.attach(census.clone());
        // From here on dropping stops what was started.
        let mut this = Self {
            ready: None,
            task,
            _files: files,
        };
        this.ready = Some(Ready::new(census)?);
        Ok(this)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // In this order: nobody asks for work any more, none is going on, and what was published is
        // withdrawn.
        self.ready = None;
        self.task.stop();
        self.task.handler().close();
    }
}
