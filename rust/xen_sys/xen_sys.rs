// SPDX-License-Identifier: GPL-2.0

//! Generated bindings to the kernel's Xen headers.
//!
//! This crate may not be directly used. It is named by `xenvmc_xen` alone, which wraps what is
//! needed in safe types.
//!
//! What is bound is declared by `bindings_helper.h` and selected by `bindgen_parameters`. Types
//! that the kernel crate's own bindings have are those, so that each C type is one Rust type, and
//! all of them can be named through this crate; bindgen's layout assertions check that both fit.

#![allow(
    clippy::all,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]

mod bindings {
    pub use kernel::bindings::*;
    use kernel::ffi;
    use pin_init::{
        MaybeZeroable,
        Zeroable, //
    };

    type __kernel_size_t = usize;
    type __kernel_ssize_t = isize;

    include!(concat!(
        env!("XENVMC_OBJ"),
        "/rust/xen_sys/bindings_generated.rs"
    ));
}

mod helpers {
    use super::bindings::*;
    use kernel::ffi;

    include!(concat!(
        env!("XENVMC_OBJ"),
        "/rust/xen_sys/helpers_generated.rs"
    ));
}

pub use bindings::*;
pub use helpers::*;
