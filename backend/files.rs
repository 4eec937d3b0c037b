// SPDX-License-Identifier: GPL-2.0

//! What the administrator can see, in `/sys/kernel/debug/xenvmc/`: one set of files in the backend.
//!
//! - `domains`: a line for each guest, with what it announced
//! - `peers`: a line for each key that was published to a guest
//! - `counters`: a line for each counter

use crate::{
    domain::Domain,
    registry::Registry, //
};
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    fmt,
    prelude::*,
    sync::Arc, //
};

/// The files, until it is dropped.
pub(crate) struct Files {
    _files: [Pin<KBox<File<Arc<Registry>>>>; 3],
    _dir: Dir,
}

impl Files {
    /// Makes them. Without debugfs it makes nothing, which is no error.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(registry: &Arc<Registry>) -> Result<Self> {
        let dir = Dir::new(c"xenvmc");
        let domains = dir.read_callback_file(c"domains", registry.clone(), &show_domains);
        let peers = dir.read_callback_file(c"peers", registry.clone(), &show_peers);
        let counters = dir.read_callback_file(c"counters", registry.clone(), &show_counters);
        let files = [
            KBox::pin_init(domains, GFP_KERNEL)?,
            KBox::pin_init(peers, GFP_KERNEL)?,
            KBox::pin_init(counters, GFP_KERNEL)?,
        ];
        Ok(Self {
            _files: files,
            _dir: dir,
        })
    }
}

fn show_domains(registry: &Arc<Registry>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    registry.with(|inner| {
        for domain in &inner.domains {
            show_domain(domain, f)?;
        }
        Ok(())
    })
}

fn show_domain(domain: &Domain, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let group = domain.group.name();
    write!(f, "domain={} group={} ", domain.id, group)?;
    match (&domain.announced, &domain.refused) {
        (Some(announced), _) => write!(f, "state=announced {}", announced.what)?,
        (None, Some(_)) => write!(f, "state=refused")?,
        (None, None) => write!(f, "state=silent")?,
    }
    let offers = domain.offers.len();
    let refused = domain.refused_offers.len();
    writeln!(f, " offers={offers} refused_offers={refused}")
}

fn show_peers(registry: &Arc<Registry>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    registry.with(|inner| {
        for domain in &inner.domains {
            for (name, value) in domain.published.content().iter().flat_map(|c| c.iter()) {
                let name = name.to_str().map_err(|_| fmt::Error)?;
                let value = value.to_str().map_err(|_| fmt::Error)?;
                writeln!(f, "domain={} key={} {}", domain.id, name, value)?;
            }
        }
        Ok(())
    })
}

fn show_counters(registry: &Arc<Registry>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{}", registry.counters)
}
