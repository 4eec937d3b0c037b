// SPDX-License-Identifier: GPL-2.0

//! Xen for the other crates.
