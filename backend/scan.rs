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
    error::AnnounceError,
    which::Which, //
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

    /// Reads the offers and answers that are due, for guests that `exists` knows: no more of them than there are
    /// guests, however many there may be in the directory.
    ///
    /// # Errors
    ///
    /// What [`xenbus::directory`] and [`xenbus::read`] return; then the same is still due.
    pub(crate) fn read_offers(
        &mut self,
        due: Which,
        exists: impl Fn(DomId) -> bool,
        counters: &Counters,
    ) -> Result {
        let id = self.id;
        let exists = |peer| peer != id && exists(peer);
        match due {
            Which::Nobody => return Ok(()),
            Which::One(peer) => {
                return match DomId::new(peer).filter(|peer| exists(*peer)) {
                    Some(peer) => self.read_offer(peer, counters),
                    None => {
                        counters.add(Counter::OffersIgnored);
                        Ok(())
                    }
                };
            }
            Which::All => {}
        }
        let path = CString::try_from_fmt(format_args!("/local/domain/{id}/data/xenvmc/offers"))?;
        let names = match xenbus::directory(&path) {
            Ok(names) => Some(names),
            Err(e) if e == ENOENT => None,
            Err(e) => return Err(e),
        };
        let mut found = KVec::new();
        for name in names.iter().flat_map(|names| names.iter()) {
            match DomId::parse(name.to_bytes()).filter(|peer| exists(*peer)) {
                Some(peer) => {
                    found.push(peer, GFP_KERNEL)?;
                    self.read_offer(peer, counters)?;
                }
                None => counters.add(Counter::OffersIgnored),
            }
        }
        self.forget_offers_unless(|peer| found.contains(&peer));
        Ok(())
    }

    /// Reads the offer or answer for `peer`.
    fn read_offer(&mut self, peer: DomId, counters: &Counters) -> Result {
        let id = self.id;
        let path =
            CString::try_from_fmt(format_args!("/local/domain/{id}/data/xenvmc/offers/{peer}"))?;
        let (refused, error) = match read(&path, VALUE_MAX)? {
            Value::Absent => {
                self.forget_offer(peer);
                return Ok(());
            }
            Value::Long => (Refused::Long, AnnounceError::Long),
            Value::Present(value) => match check(&value, id, peer) {
                Ok(offer) => {
                    self.offers.reserve(1, GFP_KERNEL)?;
                    self.forget_offer(peer);
                    return Ok(self.offers.push((peer, offer), GFP_KERNEL)?);
                }
                Err(error) => (Refused::Malformed(value), error),
            },
        };
        let mut known = self.refused_offers.iter();
        if !known.any(|(p, r)| *p == peer && *r == refused) {
            counters.add(Counter::OffersRefused);
            if self.lines.take() {
                pr_warn!("guest {id}: offer for guest {peer} refused: {error:?}\n");
            }
        }
        self.refused_offers.reserve(1, GFP_KERNEL)?;
        self.forget_offer(peer);
        Ok(self.refused_offers.push((peer, refused), GFP_KERNEL)?)
    }

    /// There is none for `peer` any more.
    fn forget_offer(&mut self, peer: DomId) {
        self.forget_offers_unless(|other| other != peer);
    }

    /// There are none any more but for those of which `stays` is true.
    pub(crate) fn forget_offers_unless(&mut self, stays: impl Fn(DomId) -> bool) {
        self.offers.retain(|(peer, _)| stays(*peer));
        self.refused_offers.retain(|(peer, _)| stays(*peer));
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
