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
    /// What the ends begin with.
    pub(crate) start: Start,
    /// What the left end does.
    pub(crate) left: fn(&mut End),
    /// What the right end does.
    pub(crate) right: fn(&mut End),
}

/// What the ends of a case begin with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// A connection: established, used, and on the ring if that is the way.
    Connection,
    /// Two sockets of UDP that are connected to each other, have been used, and are on the ring if that is the way.
    Datagrams,
    /// No socket.
    Nothing,
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
/// With `datagrams` behind a name, the ends begin with sockets of UDP; with `bare`, with none.
macro_rules! cases {
    ($($(#[doc = $doc:literal])+ $name:ident $($start:ident)?:
        |$left:ident| $left_body:block, |$right:ident| $right_body:block;)*) => {
        pub(crate) const CASES: &[$crate::case::Case] = &[$($crate::case::Case {
            path: concat!(module_path!(), "::", stringify!($name)),
            about: concat!($($doc),+),
            start: $crate::case::cases!(@ $($start)?),
            left: |$left: &mut $crate::end::End| $left_body,
            right: |$right: &mut $crate::end::End| $right_body,
        },)*];
    };
    (@) => { $crate::case::Start::Connection };
    (@ datagrams) => { $crate::case::Start::Datagrams };
    (@ bare) => { $crate::case::Start::Nothing };
}

pub(crate) use cases;
