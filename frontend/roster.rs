// SPDX-License-Identifier: GPL-2.0

//! What the backend said of each peer, and what of that is new: one [`Roster`], in discovery.

use crate::{
    counters::Counters,
    peer::Peer,
    peers::{
        insert,
        Table, //
    },
    repute::Repute,
    survey::{
        About,
        Text, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use xenvmc_core::{
    announce::{
        Announcement,
        Offer,
        VERSION, //
    },
    error::AnnounceError, //
};
use xenvmc_xen::DomId;

/// What was said last.
#[derive(Default)]
pub(crate) struct Roster {
    entries: KVec<Entry>,
    /// Number of the last change.
    changes: u64,
    /// Guests that went away and are to be remembered for a time.
    outcasts: KVec<(DomId, Arc<Repute>)>,
}

/// What was said of one peer.
struct Entry {
    about: About,
    /// The peer, unless its announcement is malformed.
    peer: Option<Arc<Peer>>,
    /// Number of the change that made it what it is.
    since: u64,
}

/// What is new.
pub(crate) struct News {
    /// The peers as they are now.
    pub(crate) table: Table,
    /// Peers that are gone.
    pub(crate) gone: KVec<Arc<Peer>>,
    /// Peers that came, or whose addresses changed.
    pub(crate) changed: KVec<Arc<Peer>>,
    /// Offers that were not there before.
    pub(crate) offers: KVec<(Arc<Peer>, Offer)>,
}

impl News {
    /// Returns whether nothing is new.
    pub(crate) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.changed.is_empty() && self.offers.is_empty()
    }
}

impl Roster {
    /// Returns the peers.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.entries.iter().filter_map(|entry| entry.peer.as_ref())
    }

    /// Notes what is said now, and returns what is new.
    ///
    /// # Errors
    ///
    /// `ENOMEM`. Then the same is as new the next time.
    pub(crate) fn update(&mut self, said: KVec<About>, counters: &Counters) -> Result<News> {
        let mut next = Roster {
            entries: KVec::new(),
            changes: self.changes,
            outcasts: KVec::new(),
        };
        let mut changed = KVec::new();
        let mut offers = KVec::new();
        for about in said {
            let before = self.entry(about.domid);
            let entry = match before {
                Some(before) if before.about.announcement == about.announcement => Entry {
                    peer: before.peer.clone(),
                    since: before.since,
                    about,
                },
                _ => {
                    next.changes += 1;
                    let earlier = before.and_then(|entry| entry.peer.as_ref());
                    let repute = self.repute(about.domid);
                    let peer = peer_for(&about, earlier, repute, counters)?;
                    if let Some(peer) = &peer {
                        changed.push(peer.clone(), GFP_KERNEL)?;
                    }
                    Entry {
                        peer,
                        since: next.changes,
                        about,
                    }
                }
            };
            if let Some((peer, text)) = untold(before, &entry) {
                let parsed = text.parse(Offer::parse);
                if let Some(offer) =
                    well_formed("offer", peer.domid(), parsed, Some(peer.repute()), counters)
                {
                    offers.push((peer.clone(), offer), GFP_KERNEL)?;
                }
            }
            // In the order of their changes, see below.
            let index = next.entries.partition_point(|e| e.since < entry.since);
            insert(&mut next.entries, index, entry)?;
        }
        next.outcasts = self.outcasts_without(&next)?;
        // Of two that announce the same address the later one has it: during a migration to the
        // same host that is where the guest is going.
        let news = News {
            table: Table::new(next.peers())?,
            gone: self.gone_in(&next)?,
            changed,
            offers,
        };
        *self = next;
        Ok(news)
    }

    /// Returns the peers that are not in `next`.
    fn gone_in(&self, next: &Roster) -> Result<KVec<Arc<Peer>>> {
        let mut gone = KVec::new();
        for peer in self.peers() {
            if !next.peers().any(|now| Arc::ptr_eq(now, peer)) {
                gone.push(peer.clone(), GFP_KERNEL)?;
            }
        }
        Ok(gone)
    }

    /// Returns the peers, now or before, that are to be remembered and have no instance in `next`.
    fn outcasts_without(&self, next: &Roster) -> Result<KVec<(DomId, Arc<Repute>)>> {
        let mut outcasts = KVec::new();
        for (domid, repute) in self.reputes() {
            if repute.is_bad() && !next.peers().any(|peer| peer.domid() == domid) {
                outcasts.push((domid, repute.clone()), GFP_KERNEL)?;
            }
        }
        Ok(outcasts)
    }

    /// Returns what is known of each peer, now or before.
    fn reputes(&self) -> impl Iterator<Item = (DomId, &Arc<Repute>)> {
        let peers = self.peers().map(|peer| (peer.domid(), peer.repute()));
        let outcasts = self.outcasts.iter().map(|(domid, repute)| (*domid, repute));
        Iterator::chain(peers, outcasts)
    }

    /// Returns what is known of a peer.
    fn repute(&self, domid: DomId) -> Option<&Arc<Repute>> {
        let mut all = self.reputes();
        all.find(|(id, _)| *id == domid).map(|(_, repute)| repute)
    }

    fn entry(&self, domid: DomId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.about.domid == domid)
    }
}

/// Returns the offer in `now`, and its peer, unless the same was there `before` from the same
/// instance.
fn untold<'a>(before: Option<&Entry>, now: &'a Entry) -> Option<(&'a Arc<Peer>, &'a Text)> {
    let peer = now.peer.as_ref()?;
    let offer = now.about.offer.as_ref()?;
    let is_told = before.is_some_and(|before| {
        let same = before
            .peer
            .as_ref()
            .map(|earlier| Arc::ptr_eq(earlier, peer));
        same == Some(true) && before.about.offer.as_ref() == Some(offer)
    });
    (!is_told).then_some((peer, offer))
}

/// Returns the peer of an announcement that is new: `earlier` with other addresses, if it is the
/// same instance.
fn peer_for(
    about: &About,
    earlier: Option<&Arc<Peer>>,
    repute: Option<&Arc<Repute>>,
    counters: &Counters,
) -> Result<Option<Arc<Peer>>> {
    let parsed = about.announcement.parse(Announcement::parse);
    let Some(announcement) = well_formed("announcement", about.domid, parsed, repute, counters)
    else {
        return Ok(None);
    };
    if let Some(earlier) = earlier.filter(|peer| peer.is_same(&announcement)) {
        earlier.set_addresses(&announcement.addresses);
        return Ok(Some(earlier.clone()));
    }
    let peer = Peer::new(about.domid, &announcement, repute.cloned())?;
    counters.peers_seen.inc();
    if !peer.is_compatible() {
        let version = announcement.version;
        peer.warn(format_args!(
            "speaks version {version} of the protocol, we speak {VERSION}: connections to it stay on TCP"
        ));
    }
    Ok(Some(peer))
}

/// Returns what a value that is new says, if it is well formed.
fn well_formed<T>(
    what: &str,
    peer: DomId,
    parsed: Result<T, AnnounceError>,
    repute: Option<&Arc<Repute>>,
    counters: &Counters,
) -> Option<T> {
    match parsed {
        Ok(value) => Some(value),
        Err(e) => {
            counters.offers_bad.inc();
            if repute.is_none_or(|repute| repute.may_log()) {
                pr_warn!("the {what} of peer {peer} is malformed: {e:?}\n");
            }
            None
        }
    }
}
