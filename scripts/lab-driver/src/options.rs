// SPDX-License-Identifier: GPL-2.0

//! What a lab shall be like.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// Most guests in a lab.
pub const MAX_GUESTS: u8 = 8;

/// How guests are virtualised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestType {
    /// Hardware page tables, paravirtual devices: Xen's recommended mode.
    #[default]
    Pvh,
    /// Paravirtual altogether.
    Pv,
}

impl GuestType {
    /// The name in a guest's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pvh => "pvh",
            Self::Pv => "pv",
        }
    }
}

/// What a lab shall be like.
#[derive(Clone, Debug, Args, Serialize, Deserialize)]
pub struct Options {
    /// Guests, from 1 to 8.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_GUESTS)))]
    pub guests: u8,
    /// How the guests are virtualised.
    #[arg(long = "type", value_enum, default_value_t)]
    pub kind: GuestType,
    /// Virtual CPUs of each guest.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub vcpus: u8,
    /// Memory of each guest in MiB; at least 512 (768 with the debug kernel), and what the packages need, when not given.
    #[arg(long, value_parser = clap::value_parser!(u64).range(128..))]
    pub memory: Option<u64>,
    /// Debian packages for the guests, with all that they depend on; unpacked, none of their scripts runs.
    #[arg(long, value_delimiter = ' ')]
    pub packages: Vec<String>,
    /// Put the modules into the machines, but don't load them.
    #[arg(long)]
    pub no_modules: bool,
    /// Let the guests run the kernel with checks (scripts/debug-kernel); it and the module for it are made if need be.
    #[arg(long)]
    #[serde(default)]
    pub debug_kernel: bool,
    /// Leave room for one guest more, as one that migrates within the lab needs, and in Dom0's memory for all guests in files.
    #[arg(long)]
    #[serde(default)]
    pub spare: bool,
    /// Let another host be connected to this one's networks: a lab that is made with --join.
    #[arg(long)]
    #[serde(default)]
    pub open: bool,
    /// Be another host on the networks of that lab, which was made with --open and is up: without guests of its own, and with room for
    /// two that migrate here.
    #[arg(long, conflicts_with_all = ["open", "guests"])]
    #[serde(default)]
    pub join: Option<String>,
    /// CPUs of the emulated machine; the first one is Dom0's, the others are the guests'.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    pub smp: u8,
}

/// Guests that a lab has room for that joins another one.
const ROOM: u8 = 2;

impl Options {
    /// How many guests there may be at once.
    pub(crate) fn room(&self) -> u8 {
        let others = if self.join.is_some() { ROOM } else { 0 };
        self.guests + u8::from(self.spare) + others
    }

    /// The host's number on the networks.
    pub(crate) fn host(&self) -> u8 {
        if self.join.is_some() { 2 } else { 1 }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            guests: 2,
            kind: GuestType::default(),
            vcpus: 1,
            memory: None,
            packages: Vec::new(),
            no_modules: false,
            debug_kernel: false,
            spare: false,
            open: false,
            join: None,
            smp: 3,
        }
    }
}
