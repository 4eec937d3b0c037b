// SPDX-License-Identifier: GPL-2.0

//! Labs: Xen with Dom0 and up to eight guests in an emulator, on a machine that needs no
//! virtualisation of its own.
//!
//! A [`Lab`] outlives the program that made it, until [`Lab::down`]. Its files are in
//! `build/lab/NAME` below the checkout: the hypervisor's and Dom0's console in `console.log`, the
//! guests' in `share/console`.
//!
//! ```no_run
//! use lab_driver::{Lab, Machine, Options, Progress};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::up("example", &Options::default(), &mut Progress::to_stderr())?;
//! let output = lab.exec(Machine::Guest(1), &["uname", "-r"])?;
//! println!("{}", output.text());
//! lab.down()?;
//! # Ok(())
//! # }
//! ```

mod boot;
mod checkout;
mod client;
mod debug;
mod guest;
mod health;
mod image;
pub mod interrupt;
mod lab;
mod machine;
mod options;
mod progress;
mod qemu;
pub mod scan;
mod state;
mod tool;
mod xen;

pub use client::{Command, Gone, Output, Stream};
pub use lab::Lab;
pub use machine::Machine;
pub use options::{GuestType, MAX_GUESTS, Options};
pub use progress::Progress;
pub use xen::Domain;
