// SPDX-License-Identifier: GPL-2.0

//! The service of datagrams: UDP between two guests through a ring of records (protocol §10).
//!
//! - [`record`]: a datagram in the ring
//! - [`ring`]: the two ends of the ring
//! - [`headers`]: the headers of a packet, taken apart and made anew
//! - [`message`]: the control messages of the service
//! - [`probe`]: the packet that proves an address
//! - [`flow`]: the states of a flow at its sender

pub mod flow;
pub mod headers;
pub mod marker;
pub mod message;
pub mod probe;
pub mod record;
pub mod ring;

/// Bytes of a datagram's payload at most: what IPv4 can carry.
pub const PAYLOAD_MAX: u32 = 65_507;

/// The order of the smallest ring: 32 pages hold one datagram of any size, and some more.
pub const ORDER_MIN: u8 = 5;
