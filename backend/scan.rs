// SPDX-License-Identifier: GPL-2.0

//! Reading what one guest wrote, and what the administrator wrote about it.
//!
//! All of it is bounded before it is read, and parsed by the same code as in the guests. What is
//! refused is counted, and logged once for each different value, within the guest's budget; the log
//! never repeats what a guest wrote.

use crate::{
    counters::{
        Counter,
        Counters, //
    },
    domain::{
        Announced,
        Domain,
        Refused, //
    },
    group::{
        Group,
        NAME_MAX, //
    },
};
use kernel::{
    prelude::*,
    str::CString, //
};
use xenvmc_core::{
    announce::{
        Announcement,
        Offer,
        VALUE_MAX, //
    },
    error::AnnounceError, //
};
use xenvmc_xen::{
    xenbus,
    DomId, //
};

/// What a key has.
enum Value {
    Absent,
    Long,
    Present(KVec<u8>),
}

/// Reads a key of at most `max` bytes.
fn read(path: &CString, max: usize) -> Result<Value> {
    match xenbus::read_bounded(path, max) {
        Ok(value) => Ok(Value::Present(value)),
        Err(e) if e == E2BIG => Ok(Value::Long),
        Err(e) if e == ENOENT => Ok(Value::Absent),
        Err(e) => Err(e),
    }
}

impl Domain {
    /// Reads the announcement. `order` is the number for it if it is new.
    ///
    /// # Errors
    ///
    /// What [`xenbus::read`] returns; what was known before is kept then.
    pub(crate) fn read_announcement(&mut self, order: u64, counters: &Counters) -> Result {
        let id = self.id;
        let path = CString::try_from_fmt(format_args!("/local/domain/{id}/data/xenvmc/announce"))?;
        let (refused, error) = match read(&path, VALUE_MAX)? {
            Value::Absent => {
                self.announced = None;
                self.refused = None;
                return Ok(());
            }
            Value::Long => (Refused::Long, AnnounceError::Long),
            Value::Present(value) => match Announcement::parse(&value) {
                Ok(what) => return self.accept(what, order, counters),
                Err(error) => (Refused::Malformed(value), error),
            },
        };
        self.announced = None;
        if self.refused.as_ref() != Some(&refused) {
            counters.add(Counter::AnnouncementsRefused);
            if self.lines.take() {
                pr_warn!("guest {id}: announcement refused: {error:?}\n");
            }
            self.refused = Some(refused);
        }
        Ok(())
    }

    fn accept(&mut self, what: Announcement, order: u64, counters: &Counters) -> Result {
        self.refused = None;
        if self.announced.as_ref().is_some_and(|a| a.what == what) {
            return Ok(());
        }
        counters.add(Counter::AnnouncementsAccepted);
        let canonical = CString::try_from_fmt(format_args!("{what}"))?;
        self.announced = Some(Announced {
            what,
            order,
            canonical,
        });
        Ok(())
    }

    /// Reads the group.
    ///
    /// # Errors
    ///
    /// What [`xenbus::read`] returns; what was known before is kept then.
    pub(crate) fn read_group(&mut self, default_all: bool, counters: &Counters) -> Result {
        let id = self.id;
        let path = CString::try_from_fmt(format_args!("/local/domain/{id}/xenvmc/group"))?;
        let group = match read(&path, NAME_MAX)? {
            Value::Absent => Some(Group::default_of(default_all)?),
            Value::Long => None,
            Value::Present(name) => Group::named(name).ok(),
        };
        let refused = group.is_none();
        if refused && !self.refused_group {
            counters.add(Counter::GroupsRefused);
            if self.lines.take() {
                pr_warn!("guest {id}: name of its group refused, it has none\n");
            }
        }
        self.refused_group = refused;
        // The administrator wanted to keep the guest apart.
        self.group = group.unwrap_or_default();
        Ok(())
    }

    /// Reads the offers and answers for guests that `exists` knows: no more of them than there are
    /// guests, however many there may be in the directory.
    ///
    /// # Errors
    ///
    /// What [`xenbus::directory`] and [`xenbus::read`] return; what was known before is kept then.
    pub(crate) fn read_offers(
        &mut self,
        exists: impl Fn(DomId) -> bool,
        counters: &Counters,
    ) -> Result {
        let id = self.id;
        let path = CString::try_from_fmt(format_args!("/local/domain/{id}/data/xenvmc/offers"))?;
        let mut offers = KVec::new();
        let mut refused_offers = KVec::new();
        let names = match xenbus::directory(&path) {
            Ok(names) => Some(names),
            Err(e) if e == ENOENT => None,
            Err(e) => return Err(e),
        };
        for name in names.iter().flat_map(|names| names.iter()) {
            let peer = match DomId::parse(name.to_bytes()) {
                Some(peer) if peer != id && exists(peer) => peer,
                _ => {
                    counters.add(Counter::OffersIgnored);
                    continue;
                }
            };
            let path = CString::try_from_fmt(format_args!(
                "/local/domain/{id}/data/xenvmc/offers/{peer}"
            ))?;
            let (refused, error) = match read(&path, VALUE_MAX)? {
                Value::Absent => continue,
                Value::Long => (Refused::Long, AnnounceError::Long),
                Value::Present(value) => match check(&value, id, peer) {
                    Ok(offer) => {
                        offers.push((peer, offer), GFP_KERNEL)?;
                        continue;
                    }
                    Err(error) => (Refused::Malformed(value), error),
                },
            };
            let known = self.refused_offers.iter();
            if !known.clone().any(|(p, r)| *p == peer && *r == refused) {
                counters.add(Counter::OffersRefused);
                if self.lines.take() {
                    pr_warn!("guest {id}: offer for guest {peer} refused: {error:?}\n");
                }
            }
            refused_offers.push((peer, refused), GFP_KERNEL)?;
        }
        self.offers = offers;
        self.refused_offers = refused_offers;
        Ok(())
    }
}

/// Parses what `id` wrote for `peer`. The lower domain offers, with a port; the higher one answers,
/// without.
fn check(value: &[u8], id: DomId, peer: DomId) -> core::result::Result<Offer, AnnounceError> {
    let offer = Offer::parse(value)?;
    match (id < peer, offer.port) {
        (true, None) => Err(AnnounceError::Missing),
        (false, Some(_)) => Err(AnnounceError::Syntax),
        _ => Ok(offer),
    }
}
