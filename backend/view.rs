// SPDX-License-Identifier: GPL-2.0

//! What each guest should see, computed from what all guests wrote.

use crate::{
    counters::{
        Counter,
        Counters, //
    },
    domain::Domain,
    publish::Content, //
};
use kernel::{
    prelude::*,
    str::CString, //
};
use xenvmc_core::announce::{
    Addresses,
    Offer, //
};

/// Returns whether `a` and `b` may see each other.
fn visible(a: &Domain, b: &Domain) -> bool {
    a.id != b.id && a.announced.is_some() && b.announced.is_some() && a.group.sees(&b.group)
}

/// Recomputes what peers see of each guest: an address that two guests of a group announce is that
/// of the one that announced later. During a migration to the same host that is the new one.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn settle_addresses(domains: &mut [Domain], counters: &Counters) -> Result {
    for index in 0..domains.len() {
        let Some((canonical, lost)) = settle(&domains[index], domains)? else {
            continue;
        };
        if let Some(announced) = &mut domains[index].announced {
            if *announced.canonical != *canonical {
                counters.add_many(Counter::AddressConflicts, lost);
                announced.canonical = canonical;
            }
        }
    }
    Ok(())
}

/// Returns what peers see of `domain`, and how many addresses it lost.
fn settle(domain: &Domain, all: &[Domain]) -> Result<Option<(CString, u64)>> {
    let Some(announced) = &domain.announced else {
        return Ok(None);
    };
    let is_lost = |address| {
        let mut others = all.iter().filter(|other| visible(domain, other));
        others.any(|other| {
            let later = other.announced.as_ref();
            later.is_some_and(|o| o.order > announced.order && o.what.addresses.contains(address))
        })
    };
    let mut kept = Addresses::new();
    let mut lost = 0;
    for address in announced.what.addresses.iter() {
        if is_lost(address) {
            lost += 1;
        } else {
            kept.add(address).map_err(|_| EINVAL)?;
        }
    }
    let mut what = announced.what.clone();
    what.addresses = kept;
    Ok(Some((CString::try_from_fmt(format_args!("{what}"))?, lost)))
}

/// Returns what `viewer` should see: nothing if it did not announce itself; the peers of its group;
/// and of what they offered to it what belongs to the present instances of both.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn content_for(viewer: &Domain, all: &[Domain], backend: &CString) -> Result<Content> {
    let mut content = Content::default();
    if viewer.announced.is_none() {
        return Ok(content);
    }
    content.set_backend(backend)?;
    for peer in all.iter().filter(|peer| visible(viewer, peer)) {
        if let Some(announced) = &peer.announced {
            content.add_peer(peer.id, &announced.canonical)?;
        }
        if let Some(offer) = current_offer(peer, viewer) {
            let value = CString::try_from_fmt(format_args!("{offer}"))?;
            content.add_offer(peer.id, &value)?;
        }
    }
    Ok(content)
}

/// Returns what `from` offered to `to`, unless it is for an instance of `to` that is gone.
fn current_offer<'a>(from: &'a Domain, to: &Domain) -> Option<&'a Offer> {
    let offer = from.offer_for(to.id)?;
    let wanted = if from.id < to.id {
        to.instance()
    } else {
        // An answer names the offer, which itself must be current.
        current_offer(to, from).map(|made| made.instance)
    };
    (wanted == Some(offer.to)).then_some(offer)
}
