// SPDX-License-Identifier: GPL-2.0

//! The channel to a peer.

use core::fmt;

/// A channel.
pub(crate) struct Channel;

impl Channel {
    /// Writes its state, as `word` or as `key=value` words with one space between.
    pub(crate) fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("none")
    }
}
