// SPDX-License-Identifier: GPL-2.0

//! The module `xenvmc_backend`, for Dom0.

use core::borrow::Borrow;
use kernel::prelude::*;
use xenvmc_back::Backend;

module! {
    type: Module,
    name: "xenvmc_backend",
    authors: ["The XenVMC authors"],
    description: "Introduces co-resident Xen guests to each other, for socket acceleration",
    license: "GPL v2",
    params: {
        default_group: u8 {
            default: 1,
            description: "group of guests without /local/domain/N/xenvmc/group: 1 = one for all (default), 0 = none, they see nobody",
        },
    },
}

/// Returns the value of a parameter, which kernels up to 7.2 give by reference and later ones by value.
fn param<T: Copy>(value: impl Borrow<T>) -> T {
    *value.borrow()
}

/// What the module holds.
struct Module(#[expect(dead_code)] Backend);

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let default_group = param(module_parameters::default_group.value());
        Ok(Self(Backend::new(default_group)?))
    }
}
