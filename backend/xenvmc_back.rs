// SPDX-License-Identifier: GPL-2.0

//! The backend.

#![forbid(unsafe_code)]
