// SPDX-License-Identifier: GPL-2.0

//! The module `xenvmc_frontend`.

use kernel::prelude::*;

module! {
    type: Module,
    name: "xenvmc_frontend",
    authors: ["The XenVMC authors"],
    description: "Socket acceleration between co-resident Xen guests: frontend",
    license: "GPL v2",
}

struct Module;

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Module)
    }
}
