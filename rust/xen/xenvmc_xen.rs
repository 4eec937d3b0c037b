// SPDX-License-Identifier: GPL-2.0

//! What Xen offers to a guest, for the crates above: pages that are granted and mapped read-only,
//! event channels, xenstore.
//!
//! This crate and `xenvmc_net` hold all the unsafe code. Its types are sound whatever the other
//! domain does: a peer's memory is never a Rust reference, each offset is checked, and what a peer
//! holds on to is neither freed nor used again.

#![cfg_attr(not(CONFIG_RUST), no_std)]

pub mod budget;
pub mod domain;
pub mod event;
pub mod grant;
pub mod pages;
pub mod random;
pub mod steal;
pub mod suspend;
pub mod thread;
pub mod watch;
pub mod word;
pub mod work;
pub mod xenbus;

mod copy;
mod map;
mod revoke;

pub use domain::DomId;
pub use word::VirtFence;

/// What the kernel's log calls the messages of this crate.
const __LOG_PREFIX: &[u8] = b"xenvmc\0";
