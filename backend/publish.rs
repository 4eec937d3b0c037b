// SPDX-License-Identifier: GPL-2.0

//! Writing to a guest's `/local/domain/N/xenvmc`: each change is one transaction, or one write, or ends with `backend`, so that
//! the guest never believes half of it.
//!
//! `backend` is there if and only if the rest is right: without it, peers and offers say nothing.
//! So a backend that is removed takes it back along with all else, and a guest that finds it gone
//! keeps the channels that it has.

use crate::counters::{
    Counter,
    Counters, //
};
use kernel::{
    fmt,
    prelude::*,
    str::{
        CStr,
        CString, //
    },
};
use xenvmc_xen::{
    xenbus::{
        self,
        Transaction, //
    },
    DomId, //
};

/// Times that a transaction is begun when others get in its way, before it waits for the next run.
const ATTEMPTS: u32 = 5;

/// The keys that a guest should have, by their path below its `xenvmc`.
#[derive(Default)]
pub(crate) struct Content {
    keys: KVec<(CString, CString)>,
}

/// What a guest has.
pub(crate) struct Published {
    /// The keys that we wrote; not known for a guest that is new to us, which may have keys that an
    /// earlier backend left.
    content: Option<Content>,
}

impl Content {
    /// Adds what says that there is a backend.
    pub(crate) fn set_backend(&mut self, value: &CStr) -> Result {
        self.add(format_args!("backend"), value)
    }

    /// Adds a peer.
    pub(crate) fn add_peer(&mut self, peer: DomId, value: &CStr) -> Result {
        self.add(format_args!("peers/{peer}"), value)
    }

    /// Adds what a peer offered.
    pub(crate) fn add_offer(&mut self, peer: DomId, value: &CStr) -> Result {
        self.add(format_args!("offers/{peer}"), value)
    }

    fn add(&mut self, name: fmt::Arguments<'_>, value: &CStr) -> Result {
        let key = (CString::try_from_fmt(name)?, CString::try_from(value)?);
        Ok(self.keys.push(key, GFP_KERNEL)?)
    }

    /// Returns the value of the key `name`.
    fn get(&self, name: &CStr) -> Option<&CStr> {
        let mut keys = self.keys.iter();
        keys.find(|(n, _)| **n == *name).map(|(_, v)| &**v)
    }

    /// Returns the keys that are not the same in `other`.
    fn without<'a>(
        &'a self,
        other: &'a Content,
    ) -> impl Iterator<Item = (&'a CStr, &'a CStr)> + 'a {
        let keys = self.keys.iter().map(|(name, value)| (&**name, &**value));
        keys.filter(|(name, value)| other.get(name) != Some(value))
    }

    /// Returns the names and values of all keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&CStr, &CStr)> {
        self.keys.iter().map(|(name, value)| (&**name, &**value))
    }
}

impl Published {
    /// Returns what a guest has that is new to us.
    pub(crate) fn unknown() -> Self {
        Self { content: None }
    }

    /// Returns the keys that we wrote.
    pub(crate) fn content(&self) -> Option<&Content> {
        self.content.as_ref()
    }

    /// Looks whether what we wrote is still there, and takes it for unknown if not: the guest's
    /// directory may be another one, of a new guest of the same number.
    pub(crate) fn verify(&mut self, id: DomId) -> Result {
        let Some(ours) = self.content.as_ref().and_then(|c| c.get(c"backend")) else {
            return Ok(());
        };
        let path = CString::try_from_fmt(format_args!("/local/domain/{id}/xenvmc/backend"))?;
        let there = match xenbus::read(&path) {
            Ok(value) => *value == *ours.to_bytes(),
            Err(e) if e == ENOENT => false,
            Err(e) => return Err(e),
        };
        if !there {
            *self = Self::unknown();
        }
        Ok(())
    }

    /// Makes guest `id` have `wanted` and returns whether that took any writing.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the guest is gone, `EAGAIN` if others were always in the way, and what
    /// [`xenbus::write`] returns. Then nothing is changed that the guest believes.
    pub(crate) fn update(
        &mut self,
        id: DomId,
        wanted: Content,
        counters: &Counters,
    ) -> Result<bool> {
        let nothing = Content::default();
        let known = self.content.as_ref();
        let had = known.unwrap_or(&nothing);
        let written = wanted.without(had).count();
        let gone = |name: &CStr| wanted.get(name).is_none();
        let removed = had.iter().filter(|(name, _)| gone(name)).count();
        if known.is_some() && written == 0 && removed == 0 {
            return Ok(false);
        }
        let has_backend = had.get(c"backend").is_some();
        if known.is_some() && removed == 0 && (written == 1 || !has_backend) {
            // Somebody waits for it, and a transaction takes four times as long. As long as there is no backend,
            // nobody believes the rest.
            if let Err(error) = write_in_order(id, &wanted, had) {
                *self = Self::unknown();
                // A guest that was gone already has what was written: the transaction takes it back.
                return match error {
                    ENOENT => self.update(id, wanted, counters),
                    error => Err(error),
                };
            }
            counters.add_many(Counter::Published, written as u64);
            self.content = Some(wanted);
            return Ok(true);
        }
        for attempt in 1..=ATTEMPTS {
            let t = Transaction::begin()?;
            // Writing makes the directories on the way, so it must not happen for a guest that is
            // gone: its directory would come back and stay.
            let domid = CString::try_from_fmt(format_args!("/local/domain/{id}/domid"))?;
            let there = t.read_bounded(&domid, xenbus::MAX_VALUE).map(drop);
            match there {
                Ok(()) => {
                    if known.is_none() {
                        remove(&t, id, c"backend")?;
                        remove(&t, id, c"peers")?;
                        remove(&t, id, c"offers")?;
                    }
                    for (name, _) in had.iter().filter(|(name, _)| gone(name)) {
                        remove(&t, id, name)?;
                    }
                    for (name, value) in wanted.without(had) {
                        t.write(&path(id, name)?, value)?;
                    }
                    if wanted.keys.is_empty() {
                        remove_if_empty(&t, id)?;
                    }
                }
                // It may have what was written when it was gone already.
                Err(e) if e == ENOENT && known.is_none() => take_all_back(&t, id)?,
                Err(e) => return Err(e),
            }
            match t.commit() {
                Err(e) if e == EAGAIN && attempt < ATTEMPTS => counters.add(Counter::Retries),
                result => {
                    result.and(there)?;
                    break;
                }
            }
        }
        counters.add_many(Counter::Published, written as u64);
        counters.add_many(Counter::Withdrawn, removed as u64);
        self.content = Some(wanted);
        Ok(true)
    }
}

/// Writes what is not there yet without a transaction, `backend` last.
///
/// # Errors
///
/// `ENOENT` if the guest is gone, and what [`xenbus::write`] returns. Then some of it may be written.
fn write_in_order(id: DomId, wanted: &Content, had: &Content) -> Result {
    let is_last = |name: &CStr| *name == *c"backend";
    let write_all = || -> Result {
        for wants_last in [false, true] {
            for (name, value) in wanted.without(had) {
                if is_last(name) == wants_last {
                    xenbus::write(&path(id, name)?, value)?;
                }
            }
        }
        Ok(())
    };
    let written = write_all();
    // Also what was written before an error.
    let domid = CString::try_from_fmt(format_args!("/local/domain/{id}/domid"))?;
    xenbus::read(&domid)?;
    written
}

/// Removes what guest `id`, which is gone, has of ours, and its directory if nothing else is in it: when we wrote without a
/// transaction, the directories on the way may have come back.
///
/// # Errors
///
/// `ENOENT` if there is no such directory; what else [`xenbus::directory`] and [`xenbus::remove`] return.
fn take_all_back(t: &Transaction, id: DomId) -> Result {
    remove(t, id, c"backend")?;
    remove_if_empty(t, id)?;
    let directory = CString::try_from_fmt(format_args!("/local/domain/{id}"))?;
    if t.directory(&directory)?.is_empty() {
        t.remove(&directory)?;
    }
    Ok(())
}

/// Returns the full path of the key `name` of guest `id`.
fn path(id: DomId, name: &CStr) -> Result<CString> {
    let name = name.to_str().map_err(|_| EINVAL)?;
    CString::try_from_fmt(format_args!("/local/domain/{id}/xenvmc/{name}"))
}

/// Removes the key `name` of guest `id`, if it is there.
fn remove(t: &Transaction, id: DomId, name: &CStr) -> Result {
    match t.remove(&path(id, name)?) {
        Err(e) if e == ENOENT => Ok(()),
        result => result,
    }
}

/// Removes the directories that are empty, and the one above them if the administrator has nothing
/// in it.
fn remove_if_empty(t: &Transaction, id: DomId) -> Result {
    remove(t, id, c"peers")?;
    remove(t, id, c"offers")?;
    let directory = CString::try_from_fmt(format_args!("/local/domain/{id}/xenvmc"))?;
    match t.directory(&directory) {
        Ok(names) if names.is_empty() => t.remove(&directory),
        Ok(_) => Ok(()),
        Err(e) if e == ENOENT => Ok(()),
        Err(e) => Err(e),
    }
}
