// SPDX-License-Identifier: GPL-2.0

//! The protocol without I/O.

#![forbid(unsafe_code)]
