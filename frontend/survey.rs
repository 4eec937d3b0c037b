// SPDX-License-Identifier: GPL-2.0

//! What the backend says now, below our own `xenvmc` in xenstore.

use kernel::{
    prelude::*,
    str::{
        CStr,
        CString, //
    },
};
use xenvmc_core::{
    announce::{
        Backend,
        VALUE_MAX, //
    },
    error::AnnounceError, //
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
    /// What it says.
    Said(Said),
}

/// What the backend says.
pub(crate) struct Said {
    /// The random number of the backend.
    pub(crate) backend: u64,
    /// What it says of each peer, each once, in no order.
    pub(crate) peers: KVec<About>,
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
    /// Looks. `own` is the number of our own domain, which is no peer; `known` that of the backend that was there before.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EIO`, `EACCES`.
    pub(crate) fn take(own: DomId, known: Option<u64>) -> Result<Self> {
        if let Some(known) = known {
            // Xenstore is slow: who is there is not asked for twice.
            match Self::of(own, known)? {
                Survey::Changing => {}
                survey => return Ok(survey),
            }
        }
        match backend()? {
            Some(backend) => Self::of(own, backend),
            None => Ok(Survey::NoBackend),
        }
    }

    /// Looks at what this backend says.
    fn of(own: DomId, backend: u64) -> Result<Self> {
        let mut peers = KVec::new();
        for &domid in names(c"xenvmc/peers")?
            .iter()
            .filter(|domid| **domid != own)
        {
            let path = CString::try_from_fmt(format_args!("xenvmc/peers/{}", domid.get()))?;
            if let Some(announcement) = read(&path)? {
                let about = About {
                    domid,
                    announcement,
                    offer: None,
                };
                peers.push(about, GFP_KERNEL)?;
            }
        }
        for &domid in &names(c"xenvmc/offers")? {
            if let Some(about) = peers.iter_mut().find(|about| about.domid == domid) {
                let path = CString::try_from_fmt(format_args!("xenvmc/offers/{}", domid.get()))?;
                about.offer = read(&path)?;
            }
        }
        // The backend takes back all that it said at once, and what we read may be half of it. Each
        // has a number of its own, so one that is the same was there all the time.
        Ok(match self::backend()? {
            Some(now) if now == backend => Survey::Said(Said { backend, peers }),
            Some(_) => Survey::Changing,
            None => Survey::NoBackend,
        })
    }
}

/// Returns the number of the backend, if there is one that says something we understand.
fn backend() -> Result<Option<u64>> {
    let value = read(c"xenvmc/backend")?;
    let backend = value.and_then(|text| text.parse(Backend::parse).ok());
    Ok(backend.map(|backend| backend.instance))
}

/// Returns the domains that a directory has entries for.
fn names(path: &CStr) -> Result<KVec<DomId>> {
    let mut domids = KVec::new();
    match xenbus::directory(path) {
        Ok(directory) => {
            for name in directory.iter() {
                if let Some(domid) = DomId::parse(name.to_bytes()) {
                    domids.push(domid, GFP_KERNEL)?;
                }
            }
            Ok(domids)
        }
        Err(e) if e == ENOENT => Ok(domids),
        Err(e) => Err(e),
    }
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
