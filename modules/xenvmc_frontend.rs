// SPDX-License-Identifier: GPL-2.0

//! The module `xenvmc_frontend`.

use core::borrow::Borrow;
use kernel::prelude::*;
use xenvmc_front::{
    RawSettings,
    Running, //
};

module! {
    type: Module,
    name: "xenvmc_frontend",
    authors: ["The XenVMC authors"],
    description: "Socket acceleration between co-resident Xen guests: frontend",
    license: "GPL v2",
    params: {
        enabled: u8 {
            default: 1,
            description: "1 = accelerate connections (default), 0 = do not begin to; can be changed in debugfs",
        },
        adopt_existing: u8 {
            default: 1,
            description: "1 = accelerate connections that were opened before the module or the peer was there as well (default), 0 = leave them alone",
        },
        ring_kib: u32 {
            default: 1024,
            description: "size that a ring may grow to, in KiB: a power of two from 16 to 4096 (default 1024)",
        },
        initial_ring_kib: u32 {
            default: 8,
            description: "size of a ring at first, in KiB: a power of two from 4 to ring_kib (default 8)",
        },
        arena_mib: u32 {
            default: 64,
            description: "memory granted to each peer at most, in MiB: 1 to 256 (default 64)",
        },
        spin_us: u32 {
            default: 400,
            description: "longest busy-wait before sleeping, in microseconds: 0 to 1000 (default 400); can be changed in debugfs",
        },
        upgrade_calls: u32 {
            default: 4,
            description: "calls that move data before a connection asks for a ring: 0 to 1000000 (default 4)",
        },
        upgrade_kib: u32 {
            default: 32,
            description: "KiB moved before a connection asks for a ring, if that comes first: 0 to 1048576 (default 32)",
        },
        udp: u32 {
            default: 20,
            description: "seconds that a flow of UDP datagrams stays in the ring before some go over the network again: 1 to 3600; 0 = UDP is left alone (default 20)",
        },
    },
}

/// Returns the value of a parameter, which kernels up to 7.2 give by reference and later ones by value.
fn param<T: Copy>(value: impl Borrow<T>) -> T {
    *value.borrow()
}

struct Module {
    _running: Running,
}

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let running = Running::start(RawSettings {
            enabled: param(module_parameters::enabled.value()),
            adopt_existing: param(module_parameters::adopt_existing.value()),
            ring_kib: param(module_parameters::ring_kib.value()),
            initial_ring_kib: param(module_parameters::initial_ring_kib.value()),
            arena_mib: param(module_parameters::arena_mib.value()),
            spin_us: param(module_parameters::spin_us.value()),
            upgrade_calls: param(module_parameters::upgrade_calls.value()),
            upgrade_kib: param(module_parameters::upgrade_kib.value()),
            udp: param(module_parameters::udp.value()),
        })?;
        Ok(Module { _running: running })
    }
}
