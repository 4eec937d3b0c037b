// SPDX-License-Identifier: GPL-2.0

//! What this guest says of itself and to its peers in xenstore, below `data/xenvmc`.
//!
//! There is one [`Announcer`], which writes `data/xenvmc/announce`. The offers in
//! `data/xenvmc/offers` are written by the channels, through [`write_offer`] and
//! [`withdraw_offer`].

use crate::counters::Counters;
use kernel::{
    prelude::*,
    str::CString, //
};
use xenvmc_core::announce::{
    Address,
    Addresses,
    Announcement,
    Offer,
    ADDRESSES_MAX,
    VERSION, //
};
use xenvmc_net::address;
use xenvmc_xen::{
    random,
    xenbus,
    DomId, //
};

/// Says what is above it in xenstore.
pub(crate) struct Announcer {
    instance: u64,
    /// What is in xenstore, as far as we know.
    written: Option<Announcement>,
    /// Whether all was taken back that was in xenstore, and nothing was written since.
    is_withdrawn: bool,
    /// Whether the log says that there are more addresses than fit.
    is_overflow_logged: bool,
}

/// What [`Announcer::check`] found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// What should be there, or nothing if nothing was written yet.
    Expected,
    /// Nothing, though we announced: xenstore was emptied, say by a resume in a new domain.
    Nothing,
}

impl Announcer {
    pub(crate) fn new() -> Self {
        Self {
            instance: random::u64(),
            written: None,
            is_withdrawn: false,
            is_overflow_logged: false,
        }
    }

    /// Looks whether the announcement is still there. One that is not ours is written again.
    ///
    /// # Errors
    ///
    /// What [`xenbus::read`] and [`xenbus::write`] return.
    pub(crate) fn check(&mut self, counters: &Counters) -> Result<Found> {
        let Some(written) = &self.written else {
            return Ok(Found::Expected);
        };
        match xenbus::read(c"data/xenvmc/announce") {
            Ok(value) if Announcement::parse(&value).as_ref() == Ok(written) => Ok(Found::Expected),
            Ok(_) => {
                self.written = None;
                self.update(counters).map(|()| Found::Expected)
            }
            Err(e) if e == ENOENT => Ok(Found::Nothing),
            Err(e) => Err(e),
        }
    }

    /// Announces the addresses of now, if they are not what was announced already.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and what [`xenbus::write`] returns.
    pub(crate) fn update(&mut self, counters: &Counters) -> Result {
        let wanted = Announcement {
            version: VERSION,
            features: 0,
            instance: self.instance,
            addresses: self.own_addresses(),
        };
        if self.written.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let value = CString::try_from_fmt(format_args!("{wanted}"))?;
        // What is there is not known until the write has succeeded.
        self.written = None;
        self.is_withdrawn = false;
        xenbus::write(c"data/xenvmc/announce", &value)?;
        self.written = Some(wanted);
        counters.announcements_written.inc();
        Ok(())
    }

    /// Begins anew as another instance: nothing that was said before holds any more.
    ///
    /// # Errors
    ///
    /// What [`withdraw_all`] returns.
    pub(crate) fn restart(&mut self) -> Result {
        if !self.is_withdrawn {
            self.withdraw()?;
        }
        self.instance = random::u64();
        Ok(())
    }

    /// Takes back the announcement and all offers. No channel is being made.
    ///
    /// # Errors
    ///
    /// What [`withdraw_all`] returns.
    pub(crate) fn withdraw(&mut self) -> Result {
        self.written = None;
        withdraw_all()?;
        self.is_withdrawn = true;
        Ok(())
    }

    /// Returns the addresses that peers can reach us at, IPv4 first.
    fn own_addresses(&mut self) -> Addresses {
        let mut addresses = Addresses::new();
        let mut left_out = 0;
        for wants_v4 in [true, false] {
            address::for_each(|address| {
                let is_wanted = matches!(address, Address::V4(_)) == wants_v4
                    && address.is_claimable()
                    && !addresses.contains(address);
                if is_wanted && addresses.add(address).is_err() {
                    left_out += 1;
                }
            });
        }
        if left_out > 0 && !self.is_overflow_logged {
            pr_warn!(
                "{left_out} addresses are not announced: {ADDRESSES_MAX} are as many as can be\n"
            );
        }
        self.is_overflow_logged = left_out > 0;
        addresses
    }
}

/// Takes back the announcement and all offers.
///
/// # Errors
///
/// What [`xenbus::remove`] returns; that there is nothing is no error.
pub(crate) fn withdraw_all() -> Result {
    ignore_absent(xenbus::remove(c"data/xenvmc"))
}

/// Writes an offer to, or an answer to the offer of, `peer`. Process context; takes milliseconds.
///
/// # Errors
///
/// `ENOSPC` if our quota in xenstore is used up, `ENOMEM`, `EIO`.
pub(crate) fn write_offer(peer: DomId, offer: &Offer) -> Result {
    let value = CString::try_from_fmt(format_args!("{offer}"))?;
    xenbus::write(&offer_path(peer)?, &value)
}

/// Takes back what was written for `peer` last, if anything. Process context; takes milliseconds.
///
/// # Errors
///
/// `ENOMEM`, `EIO`.
pub(crate) fn withdraw_offer(peer: DomId) -> Result {
    ignore_absent(xenbus::remove(&offer_path(peer)?))
}

fn offer_path(peer: DomId) -> Result<CString> {
    let id = peer.get();
    CString::try_from_fmt(format_args!("data/xenvmc/offers/{id}"))
}

fn ignore_absent(result: Result) -> Result {
    match result {
        Err(e) if e == ENOENT => Ok(()),
        result => result,
    }
}
