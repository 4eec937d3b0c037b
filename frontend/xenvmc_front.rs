// SPDX-License-Identifier: GPL-2.0

//! The frontend.

#![forbid(unsafe_code)]
