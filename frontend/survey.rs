// SPDX-License-Identifier: GPL-2.0

//! What the backend says now, below our own `xenvmc` in xenstore.

use kernel::{
    prelude::*,
    str::{
        CStr,
        CString, //
    },
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};
use xenvmc_core::{
    announce::{
        Backend,
        VALUE_MAX,
        VERSION, //
    },
    error::AnnounceError,
    which::Which, //
};
use xenvmc_xen::{
    xenbus,
    DomId, //
};

/// What was found in one look.
pub(crate) enum Survey {
    /// There is no backend; what else is there means nothing.
    NoBackend,
    /// The backend came, went or changed while we looked: look again.
    Changing,
    /// This backend says what is in [`Said`].
    Said(u64),
}

/// What of that may have changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// Whose announcements.
    pub(crate) peers: Which,
    /// Whose offers and answers.
    pub(crate) offers: Which,
}

impl Due {
    /// Nothing.
    pub(crate) const NOTHING: Self = Self {
        peers: Which::Nobody,
        offers: Which::Nobody,
    };

    /// Everything, as when the backend is another one.
    pub(crate) const ALL: Self = Self {
        peers: Which::All,
        offers: Which::All,
    };

    /// Both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            peers: self.peers.and(other.peers),
            offers: self.offers.and(other.offers),
        }
    }

    /// In one word.
    pub(crate) fn to_word(self) -> u32 {
        u32::from(self.peers.to_word()) << 16 | u32::from(self.offers.to_word())
    }

    /// From that word.
    pub(crate) fn from_word(word: u32) -> Self {
        Self {
            peers: Which::from_word((word >> 16) as u16),
            offers: Which::from_word(word as u16),
        }
    }
}

/// What the backend said when we looked last.
#[derive(Default)]
pub(crate) struct Said {
    /// The announcement of each peer.
    peers: KVec<(DomId, Text)>,
    /// What each offered to us.
    offers: KVec<(DomId, Text)>,
}

/// What the backend says of one peer.
pub(crate) struct About {
    pub(crate) domid: DomId,
    /// Its announcement.
    pub(crate) announcement: Text,
    /// What it offered to us.
    pub(crate) offer: Option<Text>,
}

/// A value, as it is in xenstore.
#[derive(PartialEq, Eq)]
pub(crate) enum Text {
    /// Longer than any that is well formed.
    Long,
    /// At most [`VALUE_MAX`] bytes.
    Bytes(KVec<u8>),
}

impl Text {
    /// Returns a copy.
    fn try_clone(&self) -> Result<Self> {
        Ok(match self {
            Text::Long => Text::Long,
            Text::Bytes(bytes) => {
                let mut copy = KVec::new();
                copy.extend_from_slice(bytes, GFP_KERNEL)?;
                Text::Bytes(copy)
            }
        })
    }

    /// Returns what `parse` makes of it.
    ///
    /// # Errors
    ///
    /// What `parse` returns; [`AnnounceError::Long`].
    pub(crate) fn parse<T>(
        &self,
        parse: impl FnOnce(&[u8]) -> Result<T, AnnounceError>,
    ) -> Result<T, AnnounceError> {
        match self {
            Text::Long => Err(AnnounceError::Long),
            Text::Bytes(bytes) => parse(bytes),
        }
    }
}

impl Survey {
    /// Looks at what is due. `own` is the number of our own domain, which is no peer; `known` that of the backend that was
    /// there before.
    ///
    /// Xenstore is slow, and others wait: what has not changed is not read again.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EIO`, `EACCES`. Then everything is due.
    pub(crate) fn take(own: DomId, known: Option<u64>, due: Due, said: &mut Said) -> Result<Self> {
        if let Some(known) = known {
            match Self::of(own, known, due, said, false)? {
                Survey::Changing => {}
                survey => return Ok(survey),
            }
        }
        match backend()? {
            Some(backend) => Self::of(own, backend, Due::ALL, said, true),
            None => Ok(Survey::NoBackend),
        }
    }

    /// Looks at what this backend says; `is_there`: its number has just been read.
    fn of(own: DomId, backend: u64, due: Due, said: &mut Said, is_there: bool) -> Result<Self> {
        let had_peers = !said.peers.is_empty();
        let peers = look(c"xenvmc/peers", own, due.peers, &mut said.peers)?;
        if is_there && due == Due::ALL && !had_peers && said.peers.is_empty() {
            // As after a suspend. Nobody has lost anything, and offers of nobody mean nothing.
            said.offers.clear();
            return Ok(Survey::Said(backend));
        }
        let offers = look(c"xenvmc/offers", own, due.offers, &mut said.offers)?;
        if matches!((peers, offers), (Found::Values, Found::Values)) {
            // If they are of another backend, we shall hear of it: everything will be due.
            return Ok(Survey::Said(backend));
        }
        // The backend takes back all that it said at once, and what we read may be half of it. Each
        // has a number of its own, so one that is the same was there all the time.
        Ok(match self::backend()? {
            Some(now) if now == backend => Survey::Said(backend),
            Some(_) => Survey::Changing,
            None => Survey::NoBackend,
        })
    }
}

/// What a look has found.
#[derive(Clone, Copy)]
enum Found {
    /// Each value that was due is there.
    Values,
    /// Something is not there.
    Gaps,
}

/// Reads the values of those guests of a directory that are due; those of others stay as they are.
fn look(path: &CStr, own: DomId, due: Which, known: &mut KVec<(DomId, Text)>) -> Result<Found> {
    let domid = match due {
        Which::Nobody => return Ok(Found::Values),
        Which::One(number) => DomId::new(number).filter(|domid| *domid != own),
        Which::All => {
            *known = values(path, own)?;
            return Ok(Found::Gaps);
        }
    };
    let Some(domid) = domid else {
        return Ok(Found::Values);
    };
    let found = value(path, domid)?;
    known.retain(|(other, _)| *other != domid);
    match found {
        Some(text) => {
            known.push((domid, text), GFP_KERNEL)?;
            Ok(Found::Values)
        }
        None => Ok(Found::Gaps),
    }
}

impl Said {
    /// Returns it peer by peer, each once, in no order.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn by_peer(&self) -> Result<KVec<About>> {
        let mut all = KVec::with_capacity(self.peers.len(), GFP_KERNEL)?;
        for (domid, announcement) in &self.peers {
            let offer = self.offers.iter().find(|(from, _)| from == domid);
            let about = About {
                domid: *domid,
                announcement: announcement.try_clone()?,
                offer: offer.map(|(_, offer)| offer.try_clone()).transpose()?,
            };
            all.push(about, GFP_KERNEL)?;
        }
        Ok(all)
    }
}

/// Whether it was said that there is a backend that we do not understand.
static SAID_STRANGE: Atomic<bool> = Atomic::new(false);

/// Returns the number of the backend, if there is one that says something we understand.
fn backend() -> Result<Option<u64>> {
    let Some(text) = read(c"xenvmc/backend")? else {
        SAID_STRANGE.store(false, Relaxed);
        return Ok(None);
    };
    let strange = match text.parse(Backend::parse) {
        Ok(backend) if backend.version == VERSION => {
            SAID_STRANGE.store(false, Relaxed);
            return Ok(Some(backend.instance));
        }
        Ok(backend) => Ok(backend.version),
        Err(error) => Err(error),
    };
    if !SAID_STRANGE.xchg(true, Relaxed) {
        match strange {
            Ok(version) => pr_warn!(
                "the backend speaks version {version} of the protocol, we speak {VERSION}: it is taken for none\n"
            ),
            Err(error) => pr_warn!("what the backend says of itself is not valid: {error:?}\n"),
        }
    }
    Ok(None)
}

/// Returns the values that a directory has for domains other than our `own`.
fn values(path: &CStr, own: DomId) -> Result<KVec<(DomId, Text)>> {
    let mut values = KVec::new();
    let directory = match xenbus::directory(path) {
        Ok(directory) => directory,
        Err(e) if e == ENOENT => return Ok(values),
        Err(e) => return Err(e),
    };
    for name in directory.iter() {
        let Some(domid) = DomId::parse(name.to_bytes()).filter(|domid| *domid != own) else {
            continue;
        };
        if let Some(value) = value(path, domid)? {
            values.push((domid, value), GFP_KERNEL)?;
        }
    }
    Ok(values)
}

/// Returns the value that a directory has for a domain, if there is one.
fn value(path: &CStr, domid: DomId) -> Result<Option<Text>> {
    let base = path.to_str().map_err(|_| EINVAL)?;
    let path = CString::try_from_fmt(format_args!("{base}/{}", domid.get()))?;
    read(&path)
}

/// Returns a value, if there is one.
fn read(path: &CStr) -> Result<Option<Text>> {
    match xenbus::read_bounded(path, VALUE_MAX) {
        Ok(bytes) => Ok(Some(Text::Bytes(bytes))),
        Err(e) if e == E2BIG => Ok(Some(Text::Long)),
        Err(e) if e == ENOENT => Ok(None),
        Err(e) => Err(e),
    }
}
