// SPDX-License-Identifier: GPL-2.0

//! What an end observed, line by line.

use nix::errno::Errno;

/// Bytes that are shown as they are; of more, only number and checksum are.
const SHOWN: usize = 40;

/// Something that a call returned, as text that is the same whenever applications cannot tell a
/// difference.
pub(crate) trait Observed {
    /// The text.
    fn text(&self) -> String;
}

impl Observed for () {
    fn text(&self) -> String {
        "ok".into()
    }
}

impl Observed for &str {
    fn text(&self) -> String {
        (*self).into()
    }
}

impl Observed for String {
    fn text(&self) -> String {
        self.clone()
    }
}

impl Observed for Vec<u8> {
    fn text(&self) -> String {
        if self.len() <= SHOWN {
            format!("{} \"{}\"", self.len(), self.escape_ascii())
        } else {
            format!("{} bytes, crc {:08x}", self.len(), crc32fast::hash(self))
        }
    }
}

macro_rules! observed_by_display {
    ($($type:ty)*) => { $(impl Observed for $type {
        fn text(&self) -> String {
            self.to_string()
        }
    })* };
}

observed_by_display!(usize i32 u32 i64 u64 bool);

impl<T: Observed> Observed for Result<T, Errno> {
    fn text(&self) -> String {
        match self {
            Ok(value) => value.text(),
            Err(errno) => format!("{errno:?}"),
        }
    }
}

impl Observed for Option<Errno> {
    fn text(&self) -> String {
        self.map_or("ok".into(), |errno| format!("{errno:?}"))
    }
}

/// Names of poll's and epoll's events, which have the same numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Events(pub(crate) u32);

impl Observed for Events {
    fn text(&self) -> String {
        let names = [
            (libc::POLLIN, "IN"),
            (libc::POLLPRI, "PRI"),
            (libc::POLLOUT, "OUT"),
            (libc::POLLERR, "ERR"),
            (libc::POLLHUP, "HUP"),
            (libc::POLLNVAL, "NVAL"),
            (libc::POLLRDHUP, "RDHUP"),
            (libc::POLLRDNORM, "RDNORM"),
            (libc::POLLRDBAND, "RDBAND"),
            (libc::POLLWRNORM, "WRNORM"),
            (libc::POLLWRBAND, "WRBAND"),
        ];
        let set: Vec<_> = names
            .iter()
            .filter(|(bit, _)| self.0 & *bit as u32 != 0)
            .map(|(_, name)| *name)
            .collect();
        if set.is_empty() {
            "nothing".into()
        } else {
            set.join("+")
        }
    }
}
