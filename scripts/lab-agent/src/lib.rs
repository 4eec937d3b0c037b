// SPDX-License-Identifier: GPL-2.0

//! What the lab driver and the agents say to each other over TCP.

pub mod wire;
