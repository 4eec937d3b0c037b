// SPDX-License-Identifier: GPL-2.0

//! The part of a root page that is written once, before it is granted (protocol §3.1).
//!
//! One per end of a channel. The words that change are reached at the offsets of [`wire::root`].

use crate::{
    error::WireError,
    wire::{
        self,
        root, //
    },
};

/// Bytes that [`Root`] takes: the header and the grants.
pub const ROOT_SIZE: usize = root::END as usize;

/// The fixed contents of a root page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Root {
    /// Random number of this end, other at every channel.
    pub instance: u64,
    /// Grants of the control queue.
    pub control: [u32; wire::CONTROL_PAGES],
    /// Grants of the notice queue.
    pub notice: [u32; wire::NOTICE_PAGES],
}

impl Root {
    /// The bytes of the page up to the directory, with all words that change at zero.
    ///
    /// ```
    /// use xenvmc_core::root::Root;
    ///
    /// let root = Root { instance: 7, control: [8], notice: [9, 10, 11, 12] };
    /// assert_eq!(Root::parse(&root.emit()), Ok(root));
    /// ```
    pub fn emit(&self) -> [u8; ROOT_SIZE] {
        let mut bytes = [0; ROOT_SIZE];
        put(&mut bytes, root::MAGIC, &wire::MAGIC.to_le_bytes());
        put(&mut bytes, root::VERSION, &wire::VERSION.to_le_bytes());
        put(&mut bytes, root::INSTANCE, &self.instance.to_le_bytes());
        for (offset, value) in [
            (root::CONTROL_ENTRIES, wire::CONTROL_ENTRIES),
            (root::NOTICE_ENTRIES, wire::NOTICE_ENTRIES),
            (root::CHUNK_PAGES, wire::CHUNK_PAGES),
        ] {
            put(&mut bytes, offset, &value.to_le_bytes());
        }
        put_all(&mut bytes, root::CONTROL_GREFS, &self.control);
        put_all(&mut bytes, root::NOTICE_GREFS, &self.notice);
        bytes
    }

    /// What the peer's root page says, of which `bytes` is a private copy.
    ///
    /// # Errors
    ///
    /// [`WireError`] if it is no root page of version 1.
    pub fn parse(bytes: &[u8; ROOT_SIZE]) -> Result<Self, WireError> {
        let magic = u32_at(bytes, root::MAGIC)?;
        if magic != wire::MAGIC {
            return Err(WireError::Magic(magic));
        }
        let [v0, v1, r0, r1] = u32_at(bytes, root::VERSION)?.to_le_bytes();
        let version = u16::from_le_bytes([v0, v1]);
        if version != wire::VERSION {
            return Err(WireError::Version(version));
        }
        if (r0, r1) != (0, 0) || u64_at(bytes, root::FEATURES)? != 0 {
            return Err(WireError::Reserved);
        }
        let geometry = (
            u32_at(bytes, root::CONTROL_ENTRIES)?,
            u32_at(bytes, root::NOTICE_ENTRIES)?,
            u32_at(bytes, root::CHUNK_PAGES)?,
        );
        if geometry
            != (
                wire::CONTROL_ENTRIES,
                wire::NOTICE_ENTRIES,
                wire::CHUNK_PAGES,
            )
        {
            return Err(WireError::Geometry);
        }
        Ok(Self {
            instance: u64_at(bytes, root::INSTANCE)?,
            control: all_at(bytes, root::CONTROL_GREFS)?,
            notice: all_at(bytes, root::NOTICE_GREFS)?,
        })
    }
}

fn put(bytes: &mut [u8], offset: u32, value: &[u8]) {
    let rest = bytes.get_mut(offset as usize..).unwrap_or_default();
    for (to, from) in rest.iter_mut().zip(value) {
        *to = *from;
    }
}

fn put_all(bytes: &mut [u8], offset: u32, values: &[u32]) {
    let rest = bytes.get_mut(offset as usize..).unwrap_or_default();
    for (to, from) in rest.chunks_exact_mut(4).zip(values) {
        to.copy_from_slice(&from.to_le_bytes());
    }
}

fn u32_at(bytes: &[u8], offset: u32) -> Result<u32, WireError> {
    let rest = bytes.get(offset as usize..).unwrap_or_default();
    match rest.first_chunk() {
        Some(word) => Ok(u32::from_le_bytes(*word)),
        None => Err(WireError::Short),
    }
}

fn u64_at(bytes: &[u8], offset: u32) -> Result<u64, WireError> {
    let rest = bytes.get(offset as usize..).unwrap_or_default();
    match rest.first_chunk() {
        Some(word) => Ok(u64::from_le_bytes(*word)),
        None => Err(WireError::Short),
    }
}

fn all_at<const N: usize>(bytes: &[u8], offset: u32) -> Result<[u32; N], WireError> {
    let mut values = [0; N];
    let rest = bytes.get(offset as usize..).unwrap_or_default();
    for (to, from) in values.iter_mut().zip(rest.chunks_exact(4)) {
        *to = u32_at(from, 0)?;
    }
    Ok(values)
}
