// SPDX-License-Identifier: GPL-2.0

//! What the administrator chose: one [`Settings`] in the module, made from its parameters.

use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};
use xenvmc_core::{
    extent::{
        MAX_ORDER,
        PAGE_SIZE, //
    },
    policy::Threshold,
    wire::CHUNK_PAGES, //
};

/// The longest busy-wait that may be asked for, in microseconds.
pub(crate) const SPIN_US_MAX: u32 = 1000;

const RING_KIB_MIN: u32 = 16;
const RING_KIB_MAX: u32 = kib(1 << MAX_ORDER);
const INITIAL_RING_KIB_MIN: u32 = kib(1);
const ARENA_MIB_MAX: u32 = 256;
const UPGRADE_CALLS_MAX: u32 = 1_000_000;
const UPGRADE_KIB_MAX: u32 = 1_048_576;
const UDP_MAX: u32 = 3_600;

/// The module parameters as they were given; the fields have the parameters' names.
#[derive(Clone, Copy)]
pub struct RawSettings {
    /// 1 = accelerate connections, 0 = do not begin to.
    pub enabled: u8,
    /// 1 = accelerate connections that were there before the module or the peer as well, 0 = leave those alone.
    pub adopt_existing: u8,
    /// Size that a ring may grow to, in KiB: a power of two from 16 to 4096.
    pub ring_kib: u32,
    /// Size of a ring at first, in KiB: a power of two from 4 to `ring_kib`.
    pub initial_ring_kib: u32,
    /// Memory that may be granted to each peer for data, in MiB, from 1 to 256.
    pub arena_mib: u32,
    /// Longest busy-wait before sleeping, in microseconds, from 0 (never) to `SPIN_US_MAX`.
    pub spin_us: u32,
    /// Calls that move data before a ring is asked for, from 0 to 1,000,000.
    pub upgrade_calls: u32,
    /// KiB moved before a ring is asked for, from 0 to 1,048,576.
    pub upgrade_kib: u32,
    /// Seconds that a flow of datagrams stays in the ring before some go over the network again, from 0 (never in the ring) to
    /// 3600.
    pub udp: u32,
}

/// The checked settings.
///
/// # Invariants
///
/// `initial_order <= ring_order <= MAX_ORDER`; `arena_chunks` is at most what a channel's directory
/// can hold.
pub(crate) struct Settings {
    enabled: Atomic<bool>,
    spin_us: Atomic<u32>,
    /// Whether connections are taken over that were there before.
    pub(crate) adopt_existing: bool,
    /// Binary logarithm of the pages that a ring may grow to.
    pub(crate) ring_order: u8,
    /// Binary logarithm of the pages of a ring at first.
    pub(crate) initial_order: u8,
    /// Chunks that the arena for one peer may have.
    pub(crate) arena_chunks: u32,
    /// From when on a connection is worth a ring.
    pub(crate) upgrade: Threshold,
    udp_ms: u32,
}

impl Settings {
    /// Checks what was given.
    ///
    /// # Errors
    ///
    /// `EINVAL`, with a line in the log that names the parameter, its value and its range.
    pub(crate) fn new(raw: RawSettings) -> Result<Self> {
        let enabled = range("enabled", u32::from(raw.enabled), 0, 1)? == 1;
        let existing = u32::from(raw.adopt_existing);
        let adopt_existing = range("adopt_existing", existing, 0, 1)? == 1;
        let ring_order = order("ring_kib", raw.ring_kib, RING_KIB_MIN, RING_KIB_MAX)?;
        let initial = raw.initial_ring_kib;
        let initial_order = order(
            "initial_ring_kib",
            initial,
            INITIAL_RING_KIB_MIN,
            raw.ring_kib,
        )?;
        let arena_mib = range("arena_mib", raw.arena_mib, 1, ARENA_MIB_MAX)?;
        let spin_us = range("spin_us", raw.spin_us, 0, SPIN_US_MAX)?;
        let calls = range("upgrade_calls", raw.upgrade_calls, 0, UPGRADE_CALLS_MAX)?;
        let upgrade_kib = range("upgrade_kib", raw.upgrade_kib, 0, UPGRADE_KIB_MAX)?;
        let udp_ms = range("udp", raw.udp, 0, UDP_MAX)? * 1000;
        // INVARIANT: `order` checked both against their ranges, which are within each other.
        Ok(Self {
            enabled: Atomic::new(enabled),
            spin_us: Atomic::new(spin_us),
            adopt_existing,
            ring_order,
            initial_order,
            arena_chunks: arena_mib * 1024 / kib(CHUNK_PAGES),
            upgrade: Threshold {
                calls,
                bytes: u64::from(upgrade_kib) * 1024,
            },
            udp_ms,
        })
    }

    /// Returns whether connections may be accelerated that are not yet.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Relaxed)
    }

    /// Says whether connections may be accelerated that are not yet. Those that are go on.
    pub(crate) fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Relaxed);
    }

    /// Returns how long a flow of datagrams stays in the ring, in milliseconds; 0 = none gets there.
    pub(crate) fn udp_ms(&self) -> u32 {
        self.udp_ms
    }

    /// Returns the longest busy-wait, in microseconds; 0 = never.
    pub(crate) fn spin_us(&self) -> u32 {
        self.spin_us.load(Relaxed)
    }

    /// Returns the longest busy-wait, in nanoseconds; 0 = never.
    pub(crate) fn spin_ns(&self) -> u32 {
        self.spin_us() * 1000
    }

    /// Sets the longest busy-wait.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is more than [`SPIN_US_MAX`].
    pub(crate) fn set_spin_us(&self, spin_us: u32) -> Result {
        if spin_us > SPIN_US_MAX {
            return Err(EINVAL);
        }
        self.spin_us.store(spin_us, Relaxed);
        Ok(())
    }
}

/// Returns the size of `pages` pages in KiB.
const fn kib(pages: u32) -> u32 {
    pages * (PAGE_SIZE / 1024)
}

/// Returns `value`, if it is in the range.
fn range(name: &str, value: u32, min: u32, max: u32) -> Result<u32> {
    if value < min || value > max {
        pr_err!("parameter {name}={value}: must be from {min} to {max}\n");
        return Err(EINVAL);
    }
    Ok(value)
}

/// Returns the order of a ring of `value` KiB, if it is a power of two in the range.
fn order(name: &str, value: u32, min: u32, max: u32) -> Result<u8> {
    if value < min || value > max || !value.is_power_of_two() {
        pr_err!("parameter {name}={value}: must be a power of two from {min} to {max}\n");
        return Err(EINVAL);
    }
    Ok((value / kib(1)).trailing_zeros() as u8)
}
