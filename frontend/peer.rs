// SPDX-License-Identifier: GPL-2.0

//! A guest on the same host: one [`Peer`] for each instance that was announced.

use crate::{
    channel::Channel,
    distrust::Distrust,
    repute::Repute, //
};
use core::fmt;
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    },
    time::{
        Instant,
        Monotonic, //
    },
};
use xenvmc_core::announce::{
    Address,
    Addresses,
    Announcement,
    VERSION, //
};
use xenvmc_net::{
    lock::BhSpinLock,
    new_bh_spinlock, //
};
use xenvmc_xen::DomId;

/// How long a peer that did not read datagrams in time is not asked to at most. A slow one does not mean it, and one that does holds up its own senders,
/// for half a second each time.
const STALL_LIMIT_MS: u32 = 10_000;

/// One instance of a peer. Its number, which Dom0 vouches for, instance and version stay; its
/// addresses, which are claims, may change.
///
/// Whoever lets go of it last may be in a softirq. So the channel is taken out of `channel` in
/// process context before, which is when the peer is said to be gone.
#[pin_data]
pub(crate) struct Peer {
    domid: DomId,
    instance: u64,
    version: u32,
    features: u64,
    #[pin]
    addresses: BhSpinLock<Addresses>,
    repute: Arc<Repute>,
    /// It did not read the datagrams that it had agreed to read, or answer about them.
    stall: Distrust,
    began: Instant<Monotonic>,
    /// When its addresses changed last, in ms since `began`.
    changed_ms: Atomic<i64>,
    /// A connection wants a channel to it.
    wanted: Atomic<bool>,
    /// When it may be offered one, in ms since `began`.
    offer_ms: Atomic<i64>,
    /// Discovery's listener has taken notice of it, and of its addresses as they are.
    told: Atomic<bool>,
    /// It is not among the peers any more.
    gone: Atomic<bool>,
    /// The channel to it, if there is one.
    #[pin]
    pub(crate) channel: BhSpinLock<Option<Arc<Channel>>>,
}

impl Peer {
    /// Makes the peer `domid` from what it announced. It takes over the `repute` of an earlier
    /// instance, if there is one: announcing anew is no way out of it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        domid: DomId,
        announcement: &Announcement,
        repute: Option<Arc<Repute>>,
    ) -> Result<Arc<Self>> {
        let addresses = announcement.addresses.clone();
        let repute = match repute {
            Some(repute) => repute,
            None => Repute::new()?,
        };
        Arc::pin_init(
            pin_init!(Self {
                domid,
                instance: announcement.instance,
                version: announcement.version,
                features: announcement.features,
                addresses <- new_bh_spinlock!(addresses, "xenvmc_peer_addresses"),
                repute,
                stall: Distrust::none(STALL_LIMIT_MS),
                began: Instant::now(),
                changed_ms: Atomic::new(0),
                wanted: Atomic::new(false),
                offer_ms: Atomic::new(0),
                told: Atomic::new(false),
                gone: Atomic::new(false),
                channel <- new_bh_spinlock!(None, "xenvmc_peer_channel"),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns the number of its domain.
    pub(crate) fn domid(&self) -> DomId {
        self.domid
    }

    /// Returns the random number of its announcement, which offers to it name.
    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    /// Returns whether it speaks a version that we speak.
    pub(crate) fn is_compatible(&self) -> bool {
        self.version == VERSION
    }

    /// Returns the addresses that it claims. Process or softirq context.
    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses.lock().clone()
    }

    /// Returns whether it claims `address`. Process or softirq context.
    pub(crate) fn has_address(&self, address: Address) -> bool {
        self.addresses.lock().contains(address)
    }

    /// Returns the channel to it, if there is one. Process context: the caller may let go of it last.
    pub(crate) fn channel(&self) -> Option<Arc<Channel>> {
        self.channel.lock().clone()
    }

    /// Tells the channel to it, if there is one, that a connection has ended. Process or softirq context.
    pub(crate) fn note_tending(&self) {
        if let Some(channel) = &*self.channel.lock() {
            channel.note_tending();
        }
    }

    /// Returns whether there is a channel to it. Process or softirq context.
    pub(crate) fn has_channel(&self) -> bool {
        self.channel.lock().is_some()
    }

    /// Notes that a connection wants a channel to it. Any context.
    pub(crate) fn want_channel(&self) {
        self.wanted.store(true, Relaxed);
    }

    /// Notes that no offer to it could be made: for so many milliseconds there shall be none. Any context.
    pub(crate) fn put_offers_off(&self, ms: i64) {
        let until = self.began.elapsed().as_millis() + ms;
        self.offer_ms.store(until, Relaxed);
    }

    /// Returns whether it may be offered a channel now. Any context.
    pub(crate) fn may_be_offered(&self) -> bool {
        self.began.elapsed().as_millis() >= self.offer_ms.load(Relaxed)
    }

    /// Notes whether discovery's listener has taken notice of it as it is now. Discovery only.
    pub(crate) fn set_told(&self, told: bool) {
        self.told.store(told, Relaxed);
    }

    /// What [`Self::set_told`] noted.
    pub(crate) fn is_told(&self) -> bool {
        self.told.load(Relaxed)
    }

    /// Notes that it is not among the peers any more.
    pub(crate) fn set_gone(&self) {
        self.gone.xchg(true, Full);
    }

    /// Returns whether it is not among the peers any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Acquire)
    }

    /// Returns whether a channel was wanted since this was asked last.
    pub(crate) fn take_wanted(&self) -> bool {
        self.wanted.xchg(false, Relaxed)
    }

    /// Returns whether `announcement` is of this instance, with maybe other addresses.
    pub(crate) fn is_same(&self, announcement: &Announcement) -> bool {
        self.instance == announcement.instance
            && self.version == announcement.version
            && self.features == announcement.features
    }

    /// Notes the addresses that it claims now.
    pub(crate) fn set_addresses(&self, addresses: &Addresses) {
        self.addresses.lock().clone_from(addresses);
        self.changed_ms
            .store(self.began.elapsed().as_millis(), Relaxed);
    }

    /// Returns for how many milliseconds it has been known with the addresses that it has. Any context.
    pub(crate) fn known_ms(&self) -> i64 {
        self.began.elapsed().as_millis() - self.changed_ms.load(Relaxed)
    }

    /// Returns what a later instance takes over.
    pub(crate) fn repute(&self) -> &Arc<Repute> {
        &self.repute
    }

    /// Warns of what it has done, or not done, in the log, unless it has caused many lines there of late. Process or softirq context.
    pub(crate) fn warn(&self, what: fmt::Arguments<'_>) {
        if self.repute.may_log() {
            pr_warn!("domain {}: {what}\n", self.domid);
        }
    }

    /// Says in the log what has become of it, as [`Self::warn`].
    pub(crate) fn inform(&self, what: fmt::Arguments<'_>) {
        if self.repute.may_log() {
            pr_info!("domain {}: {what}\n", self.domid);
        }
    }

    /// Notes that a claim of it was found false. From now on it is not believed for a time, which
    /// doubles each time that this happens again. Any context but hard interrupts.
    pub(crate) fn distrust(&self) {
        self.repute.claims.begin();
    }

    /// Notes that it does not read the datagrams in our ring, or does not say in time whether it may read them or has. It is not asked
    /// to for a time, which doubles as for [`Self::distrust`], up to [`STALL_LIMIT_MS`]. Any context but hard interrupts.
    pub(crate) fn note_stall(&self) {
        self.stall.begin();
    }

    /// Returns whether it is not asked to read datagrams for now. Any context.
    pub(crate) fn has_stalled(&self) -> bool {
        self.stall.is_on()
    }

    /// Returns whether it is not believed for now. Any context.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.repute.claims.is_on()
    }
}

/// One line of `key=value` words. The channel's own words are last.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (domid, instance) = (self.domid.get(), self.instance);
        let (version, addresses) = (self.version, self.addresses());
        let distrusted = u8::from(self.is_distrusted());
        write!(
            f,
            "domid={domid} instance={instance:016x} version={version} \
             addresses={addresses} distrusted={distrusted} channel="
        )?;
        let channel = self.channel.lock().clone();
        match channel {
            Some(channel) => channel.describe(f),
            None => f.write_str("none"),
        }
    }
}
