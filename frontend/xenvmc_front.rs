// SPDX-License-Identifier: GPL-2.0

//! The part of XenVMC that runs in a guest: takes over the sockets of connections to co-resident guests, and moves their
//! bytes through memory that the two guests share.
//!
//! * `discovery` and what it uses finds the peers, `establish` makes a `channel` to each that is needed.
//! * `adoption` takes over sockets, `calls` is what is called then; `handshake` agrees with the peer on each, and `parting` ends that.
//! * `transmit` and `receive` move bytes, `unread` says what there is, `switch` and `ready` decide over which path, `giveback` goes back.
//! * `datagram` does all of that for UDP.
//!
//! Documentation/overview has the picture, Documentation/locking the order of the locks.

#![forbid(unsafe_code)]

mod adoption;
mod announce;
mod calls;
mod channel;
mod clock;
mod closing;
mod control;
mod counters;
mod datagram;
mod discovery;
mod distrust;
mod establish;
mod filter;
mod frontend;
mod giveback;
mod handover;
mod handshake;
mod holders;
mod idle;
mod link;
mod notices;
mod parting;
mod peer;
mod peers;
mod policy;
mod ready;
mod receive;
mod region;
mod report;
mod repute;
mod room;
mod roster;
mod running;
mod settings;
mod slots;
mod spin;
mod stream;
mod survey;
mod suspension;
mod switch;
mod tending;
mod timeline;
mod transmit;
mod unread;
mod wires;

pub use running::Running;
pub use settings::RawSettings;

/// What the kernel's log calls the messages of this crate.
const __LOG_PREFIX: &[u8] = b"xenvmc_frontend\0";
