// SPDX-License-Identifier: GPL-2.0

//! Domains and what this one is.
//!
//! C headers: [`include/xen/xen.h`](srctree/include/xen/xen.h),
//! [`include/xen/interface/xen.h`](srctree/include/xen/interface/xen.h)

use crate::xenbus;
use kernel::{
    fmt,
    prelude::*, //
};

/// Xen gives domains numbers below this one; from here on numbers have special meanings
/// (`DOMID_SELF` and others).
const FIRST_RESERVED: u16 = 0x7ff0;

/// The number of a domain, from 0 (Dom0) to 0x7fef.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DomId(u16);

impl DomId {
    /// The domain that runs the toolstack.
    pub const DOM0: DomId = DomId(0);

    /// Returns the domain `id`, if it is the number of a domain.
    pub const fn new(id: u16) -> Option<DomId> {
        if id < FIRST_RESERVED {
            Some(DomId(id))
        } else {
            None
        }
    }

    /// Parses the decimal form without sign or leading zeros, which is what xenstore has.
    pub fn parse(text: &[u8]) -> Option<DomId> {
        if text.is_empty() || text.len() > 5 || (text.len() > 1 && text[0] == b'0') {
            return None;
        }
        let mut id: u32 = 0;
        for digit in text {
            if !digit.is_ascii_digit() {
                return None;
            }
            id = id * 10 + u32::from(digit - b'0');
        }
        DomId::new(u16::try_from(id).ok()?)
    }

    /// Returns the number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

// The kernel's macros for messages want the trait above, all other formatting this one.
impl core::fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Returns whether the kernel runs in a Xen domain of any kind.
pub fn is_guest() -> bool {
    // SAFETY: Reads variables that are constant after boot.
    unsafe { xen_sys::xen_domain() }
}

/// Returns whether the kernel is that of Dom0.
pub fn is_initial() -> bool {
    // SAFETY: Reads variables that are constant after boot.
    unsafe { xen_sys::xen_initial_domain() }
}

/// Reads our own number from xenstore; it changes in a restored or migrated guest. Process context.
///
/// # Errors
///
/// What [`xenbus::read`] returns, and `EINVAL` if the value is no number of a domain.
pub fn own() -> Result<DomId> {
    let value = xenbus::read(c"domid")?;
    DomId::parse(&value).ok_or(EINVAL)
}
