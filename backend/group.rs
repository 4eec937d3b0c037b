// SPDX-License-Identifier: GPL-2.0

//! Who may see whom: guests see each other if they are in the same group.
//!
//! The administrator writes the name of a guest's group to `/local/domain/N/xenvmc/group`, which
//! only Dom0 can write. An empty name is no group.

use kernel::prelude::*;

/// Bytes of a group's name at most.
pub(crate) const NAME_MAX: usize = 64;

/// The group of guests that have none of their own, if the module parameter says so.
const DEFAULT: &[u8] = b"all";

/// A name that a group cannot have.
pub(crate) struct BadName;

/// The group of a guest, or none.
#[derive(Default)]
pub(crate) struct Group(KVec<u8>);

impl Group {
    /// Returns the group of a guest that the administrator gave none.
    pub(crate) fn default_of(all: bool) -> Result<Self> {
        let mut name = KVec::new();
        if all {
            name.extend_from_slice(DEFAULT, GFP_KERNEL)?;
        }
        Ok(Self(name))
    }

    /// Returns the group of this name, made of at most [`NAME_MAX`] printable characters.
    pub(crate) fn named(name: KVec<u8>) -> core::result::Result<Self, BadName> {
        let printable = name.iter().all(u8::is_ascii_graphic);
        if printable && name.len() <= NAME_MAX {
            Ok(Self(name))
        } else {
            Err(BadName)
        }
    }

    /// Returns whether a guest of this group and one of `other` may see each other.
    pub(crate) fn sees(&self, other: &Self) -> bool {
        !self.0.is_empty() && *self.0 == *other.0
    }

    /// Returns the name, empty if it is no group.
    pub(crate) fn name(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or("")
    }
}
