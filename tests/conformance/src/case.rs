// SPDX-License-Identifier: GPL-2.0

//! A case: what its two ends do.

use crate::end::End;

/// A case. Its connection has two ends, left and right; it runs once with the left one and once with
/// the right one as the active end, which connects.
pub(crate) struct Case {
    /// The module's path and the case's name.
    pub(crate) path: &'static str,
    /// What Linux does, in a sentence or two.
    pub(crate) about: &'static str,
    /// Whether the ends begin with a connection: established, used, and on the ring if that is the way.
    pub(crate) connected: bool,
    /// What the left end does.
    pub(crate) left: fn(&mut End),
    /// What the right end does.
    pub(crate) right: fn(&mut End),
}

impl Case {
    /// The file's and the case's name.
    pub(crate) fn name(&self) -> &'static str {
        let (_, name) = self.path.split_once("cases::").unwrap_or(("", self.path));
        name
    }
}

/// The cases of a file, as `CASES`:
///
/// ```ignore
/// cases! {
///     /// Peeking takes nothing away.
///     peek: |left| {
///         left.send(b"abc", 0);
///     }, |right| {
///         right.arrived(3);
///         right.recv(3, libc::MSG_PEEK);
///         right.recv(3, 0);
///     };
/// }
/// ```
///
/// With `bare` before a name, the ends begin without a connection.
macro_rules! cases {
    ($($(#[doc = $doc:literal])+ $name:ident $($bare:ident)?:
        |$left:ident| $left_body:block, |$right:ident| $right_body:block;)*) => {
        pub(crate) const CASES: &[$crate::case::Case] = &[$($crate::case::Case {
            path: concat!(module_path!(), "::", stringify!($name)),
            about: concat!($($doc),+),
            connected: $crate::case::cases!(@ $($bare)?),
            left: |$left: &mut $crate::end::End| $left_body,
            right: |$right: &mut $crate::end::End| $right_body,
        },)*];
    };
    (@) => { true };
    (@ bare) => { false };
}

pub(crate) use cases;
