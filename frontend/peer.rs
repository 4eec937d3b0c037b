// SPDX-License-Identifier: GPL-2.0

//! A guest on the same host: one [`Peer`] for each instance that was announced.

use crate::channel::Channel;
use core::{
    cmp::min,
    fmt, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
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

/// How long a peer is not believed after its first false claim; each further one doubles it.
const DISTRUST_MS: u32 = 1_000;

/// How long a peer is not believed at most.
const DISTRUST_MAX_MS: u32 = 300_000;

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
    distrust: Distrust,
    /// A connection wants a channel to it.
    wanted: Atomic<bool>,
    /// The channel to it, if there is one.
    #[pin]
    pub(crate) channel: BhSpinLock<Option<Arc<Channel>>>,
}

/// What became of the peer's claims. Races between those who find a claim false are harmless.
struct Distrust {
    epoch: Instant<Monotonic>,
    /// When it ends, in ms since `epoch`; 0 = there is none.
    until_ms: Atomic<u64>,
    /// How long the last one was; 0 = there was none.
    length_ms: Atomic<u32>,
}

impl Peer {
    /// Makes the peer `domid` from what it announced. `earlier` is an earlier instance, whose
    /// distrust it inherits: announcing anew is no way out of it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        domid: DomId,
        announcement: &Announcement,
        earlier: Option<&Peer>,
    ) -> Result<Arc<Self>> {
        let addresses = announcement.addresses.clone();
        Arc::pin_init(
            pin_init!(Self {
                domid,
                instance: announcement.instance,
                version: announcement.version,
                features: announcement.features,
                addresses <- new_bh_spinlock!(addresses, "xenvmc_peer_addresses"),
                distrust: Distrust::inherit(earlier),
                wanted: Atomic::new(false),
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

    /// Returns the version of the protocol that it speaks.
    pub(crate) fn version(&self) -> u32 {
        self.version
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

    /// Returns the channel to it, if there is one. Process or softirq context.
    pub(crate) fn channel(&self) -> Option<Arc<Channel>> {
        self.channel.lock().clone()
    }

    /// Notes that a connection wants a channel to it. Any context.
    pub(crate) fn want_channel(&self) {
        self.wanted.store(true, Relaxed);
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
    }

    /// Notes that a claim of it was found false. From now on it is not believed for a time, which
    /// doubles each time that this happens again. Any context but hard interrupts.
    pub(crate) fn distrust(&self) {
        self.distrust.begin();
    }

    /// Notes that a claim of it was proven: the next false one counts as the first, unless it is
    /// not believed at the moment, which no proof shortens. Any context but hard interrupts.
    pub(crate) fn trust(&self) {
        self.distrust.end();
    }

    /// Returns whether it is not believed for now. Any context.
    pub(crate) fn is_distrusted(&self) -> bool {
        self.distrust.is_on()
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

impl Distrust {
    fn inherit(earlier: Option<&Peer>) -> Self {
        match earlier.map(|peer| &peer.distrust) {
            Some(earlier) => Self {
                epoch: earlier.epoch,
                until_ms: Atomic::new(earlier.until_ms.load(Relaxed)),
                length_ms: Atomic::new(earlier.length_ms.load(Relaxed)),
            },
            None => Self {
                epoch: Instant::now(),
                until_ms: Atomic::new(0),
                length_ms: Atomic::new(0),
            },
        }
    }

    fn begin(&self) {
        if self.is_on() {
            return;
        }
        let length = match self.length_ms.load(Relaxed) {
            0 => DISTRUST_MS,
            last => min(last.saturating_mul(2), DISTRUST_MAX_MS),
        };
        self.length_ms.store(length, Relaxed);
        self.until_ms
            .store(self.now_ms() + u64::from(length), Relaxed);
    }

    fn end(&self) {
        if self.length_ms.load(Relaxed) != 0 && !self.is_on() {
            self.length_ms.store(0, Relaxed);
        }
    }

    fn is_on(&self) -> bool {
        let until = self.until_ms.load(Relaxed);
        until != 0 && self.now_ms() < until
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(0)
    }
}
