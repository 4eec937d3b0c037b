// SPDX-License-Identifier: GPL-2.0

//! The part of XenVMC that runs in a guest.

#![forbid(unsafe_code)]
#![allow(dead_code)]

mod announce;
mod channel;
mod counters;
mod discovery;
mod distrust;
mod peer;
mod peers;
mod report;
mod roster;
mod settings;
mod survey;

pub use settings::RawSettings;

use crate::{
    counters::Counters,
    discovery::{
        Discovery,
        Listener, //
    },
    peer::Peer,
    peers::Peers,
    report::{
        Connections,
        Report, //
    },
    settings::Settings, //
};
use core::fmt;
use kernel::{
    prelude::*,
    sync::Arc, //
};
use xenvmc_core::announce::Offer;
use xenvmc_xen::domain::{
    is_guest,
    is_initial, //
};

/// What the kernel's log calls the messages of this crate.
const __LOG_PREFIX: &[u8] = b"xenvmc_frontend\0";

/// The frontend, from its start to its drop.
pub struct Frontend {
    _report: Report,
    _discovery: Discovery,
}

impl Frontend {
    /// Starts.
    ///
    /// # Errors
    ///
    /// `ENODEV` if this is no guest of Xen; `EINVAL` if a parameter is out of its range; `ENOMEM`.
    pub fn start(raw: RawSettings) -> Result<Self> {
        if !is_guest() || is_initial() {
            pr_err!("this module is for guests of Xen; Dom0 loads xenvmc_backend\n");
            return Err(ENODEV);
        }
        let settings = Arc::new(Settings::new(raw)?, GFP_KERNEL)?;
        let counters = Arc::new(Counters::new(), GFP_KERNEL)?;
        let peers = Arc::pin_init(Peers::new(), GFP_KERNEL)?;
        let listener = Arc::new(Log, GFP_KERNEL)?;
        let report = Report::new(&settings, &counters, &peers, listener.clone())?;
        Ok(Self {
            _report: report,
            _discovery: Discovery::start(peers, counters, listener)?,
        })
    }
}

/// Says what it is told.
struct Log;

impl Listener for Log {
    fn peer_changed(&self, peer: &Arc<Peer>) {
        pr_info!("peer_changed {}\n", format_args!("{}", **peer));
    }

    fn peer_gone(&self, peer: &Arc<Peer>) {
        pr_info!("peer_gone {}\n", format_args!("{}", **peer));
    }

    fn offer(&self, peer: &Arc<Peer>, offer: &Offer) {
        pr_info!("offer {} {}\n", peer.domid().get(), format_args!("{offer}"));
    }
}

impl Connections for Log {
    fn write(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
