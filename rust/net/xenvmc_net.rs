// SPDX-License-Identifier: GPL-2.0

//! Sockets for the other crates.
