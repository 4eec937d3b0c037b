// SPDX-License-Identifier: GPL-2.0

//! The pure part of XenVMC: what two guests write into shared memory, and what each believes of it.
//!
//! There is one copy of this crate in each module. It knows no kernel, has no clock, takes no lock
//! and allocates nothing; shared memory is reached through [`SharedLoad`] and [`SharedStore`] only.
//! The same files are built by Kbuild and by cargo, so that what runs in the guest is what the
//! tests, the model checker and the benchmark have run.
//!
//! The peer is an attacker. Whatever it may have written is loaded once, compared with what a
//! correct peer could have written, and is an error if it is anything else.
//!
//! Layers, each using those above it:
//!
//! - [`shared`], [`error`], [`wire`], [`decline`]: words, errors, offsets, numbers
//! - [`wake`], [`ring`], [`queue`], [`extent`], [`arena`]: one mechanism each
//! - [`segment`]: where a direction changes between TCP and the ring
//! - [`stream`]: ring and segments of one direction, over the words of its slot
//! - [`message`], [`root`], [`announce`]: what is said, and where
//! - [`channel`], [`connection`], [`guest`]: states
//! - [`datagram`]: the service of datagrams
//! - [`policy`]: when to ask, how long to spin
//! - [`which`]: what is to be looked at

#![cfg_attr(not(CONFIG_RUST), no_std)]
#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]

pub mod announce;
pub mod arena;
pub mod channel;
pub mod connection;
pub mod datagram;
pub mod decline;
pub mod error;
pub mod extent;
pub mod guest;
pub mod message;
pub mod policy;
pub mod queue;
pub mod ring;
pub mod root;
pub mod segment;
pub mod shared;
pub mod stream;
pub mod wake;
pub mod which;
pub mod wire;

pub use decline::Decline;
pub use error::Error;
pub use extent::Extent;
pub use shared::{
    Fence,
    SharedLoad,
    SharedStore,
    Words, //
};
