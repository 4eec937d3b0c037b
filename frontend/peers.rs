// SPDX-License-Identifier: GPL-2.0

//! The guests on the same host that this one knows: one [`Peers`] in the module.

use crate::{
    channel::Channel,
    filter::Filter,
    peer::Peer, //
};
use core::mem;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};
use xenvmc_core::announce::Address;
use xenvmc_net::{
    lock::BhSpinLock,
    new_bh_spinlock, //
};
use xenvmc_xen::DomId;

/// All peers, by number and by address.
///
/// Discovery replaces the table as a whole; anybody looks things up in it.
#[pin_data]
pub(crate) struct Peers {
    #[pin]
    table: BhSpinLock<Table>,
    /// The addresses in `table`, and for a while those that were. Changed under its lock.
    filter: Filter,
    /// There may be others in `filter`.
    is_filter_wide: Atomic<bool>,
    /// The random number of the backend that told us of them last; 0 = none has.
    backend: Atomic<u64>,
}

/// # Invariants
///
/// `peers` is sorted by number, `claims` by address, and each address is there once.
#[derive(Default)]
pub(crate) struct Table {
    peers: KVec<Arc<Peer>>,
    claims: KVec<(Address, Arc<Peer>)>,
}

impl Table {
    /// Makes a table of `peers` with the addresses that they announce now. Of two that announce the
    /// same address the one later in `peers` has it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new<'a>(peers: impl Iterator<Item = &'a Arc<Peer>>) -> Result<Self> {
        let mut sorted: KVec<Arc<Peer>> = KVec::new();
        let mut claims: KVec<(Address, Arc<Peer>)> = KVec::new();
        for peer in peers {
            let index = sorted.partition_point(|other| other.domid() < peer.domid());
            insert(&mut sorted, index, peer.clone())?;
            for address in peer.addresses().iter() {
                match claims.binary_search_by_key(&address, |(known, _)| *known) {
                    Ok(index) => {
                        if let Some((_, owner)) = claims.get_mut(index) {
                            *owner = peer.clone();
                        }
                    }
                    Err(index) => insert(&mut claims, index, (address, peer.clone()))?,
                }
            }
        }
        // INVARIANT: Each was put at its place, and each address once.
        Ok(Self {
            peers: sorted,
            claims,
        })
    }

    fn addresses(&self) -> impl Iterator<Item = Address> + '_ {
        self.claims.iter().map(|(address, _)| *address)
    }
}

impl Peers {
    /// No peers.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            table <- new_bh_spinlock!(Table::default(), "xenvmc_peers"),
            filter: Filter::new(),
            is_filter_wide: Atomic::new(false),
            backend: Atomic::new(0),
        })
    }

    /// Returns the random number of the backend, by which guests of one host know each other; [`None`] as long as there was none.
    /// Any context.
    pub(crate) fn backend(&self) -> Option<u64> {
        Some(self.backend.load(Relaxed)).filter(|backend| *backend != 0)
    }

    /// Notes the backend; 0 = there is none on this host yet. Process context.
    pub(crate) fn set_backend(&self, backend: u64) {
        self.backend.store(backend, Relaxed);
    }

    /// Returns whether a peer may announce `address`, or did so a moment ago. Without a lock; any context.
    #[inline]
    pub(crate) fn may_have(&self, address: Address) -> bool {
        self.filter.may_have(address)
    }

    /// Lets [`Self::may_have`] say no of addresses that no peer announces any more, but for `others`. Process or softirq context.
    pub(crate) fn narrow(&self, others: impl Iterator<Item = Address>) {
        let table = self.table.lock();
        if !self.is_filter_wide.load(Relaxed) {
            return;
        }
        let mut has_others = false;
        let others = others.inspect(|_| has_others = true);
        self.filter.set(Iterator::chain(table.addresses(), others));
        self.is_filter_wide.store(has_others, Relaxed);
    }

    /// Returns the peer that announces `address`. Process or softirq context.
    pub(crate) fn find(&self, address: Address) -> Option<Arc<Peer>> {
        let table = self.table.lock();
        let claims = &table.claims;
        let index = claims.binary_search_by_key(&address, |(known, _)| *known);
        claims.get(index.ok()?).map(|(_, peer)| peer.clone())
    }

    /// Returns the peer of this number. Process or softirq context.
    pub(crate) fn numbered(&self, domid: DomId) -> Option<Arc<Peer>> {
        let table = self.table.lock();
        let peers = &table.peers;
        let index = peers.binary_search_by_key(&domid, |peer| peer.domid());
        peers.get(index.ok()?).cloned()
    }

    /// Calls `visit` with each peer, by number. Process or softirq context, which is that of
    /// `visit` too: no lock is held. Peers that come or go meanwhile may be missed.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Arc<Peer>)) {
        let mut last = None;
        while let Some(peer) = self.after(last) {
            last = Some(peer.domid());
            visit(&peer);
        }
    }

    /// Calls `visit` with each channel, as [`Self::for_each`] does with peers.
    pub(crate) fn for_each_channel(&self, mut visit: impl FnMut(&Arc<Peer>, &Arc<Channel>)) {
        self.for_each(|peer| {
            let channel = peer.channel.lock().clone();
            if let Some(channel) = channel {
                visit(peer, &channel);
            }
        });
    }

    /// Replaces the table. Process context.
    pub(crate) fn replace(&self, table: Table) {
        let mut place = self.table.lock();
        self.filter.add(table.addresses());
        self.is_filter_wide.store(true, Relaxed);
        let old = mem::replace(&mut *place, table);
        drop(place);
        // Not under the lock: it may be the end of peers.
        drop(old);
    }

    /// Returns the peer with the lowest number above `last`.
    fn after(&self, last: Option<DomId>) -> Option<Arc<Peer>> {
        let table = self.table.lock();
        let peers = &table.peers;
        let index = peers.partition_point(|peer| Some(peer.domid()) <= last);
        peers.get(index).cloned()
    }
}

/// Puts `value` at `index`, which is at most the length.
pub(crate) fn insert<T>(vec: &mut KVec<T>, index: usize, value: T) -> Result {
    vec.reserve(1, GFP_KERNEL)?;
    vec.insert_within_capacity(index, value).map_err(|_| ENOMEM)
}
