// SPDX-License-Identifier: GPL-2.0

//! What applications see of sockets of TCP and UDP: cases of two ends each, whose observations are recorded where
//! the modules are absent, and must be the same where they are loaded.
//!
//! It runs as server in one guest and as client in the other, and prints KTAP (the kernel's
//! Documentation/dev-tools/ktap.rst). See Documentation/testing.md.

mod bpf;
mod call;
mod case;
mod cases;
mod child;
mod control;
mod datagram;
mod diag;
mod end;
mod epoll;
mod inherited;
mod kcm;
mod log;
mod memory;
mod message;
mod module;
mod options;
mod passing;
mod process;
mod record;
mod run;
mod select;
mod serve;
mod signal;
mod sigpipe;
mod splice;
mod stream;
mod sysctl;
mod table;
mod tcp_info;
mod thread;
mod tls;
mod transfer;
mod uring;

use std::process::ExitCode;

use clap::Parser;

use crate::options::{Command, Options};

fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::List => {
            cases::all().for_each(|case| println!("{}", case.name()));
            Ok(true)
        }
        Command::Table { directory } => table::print(&directory).map(|()| true),
        Command::Serve { port } => serve::serve(port).map(|()| true),
        Command::Inherited { fd } => {
            inherited::run(fd);
            Ok(true)
        }
        Command::Run(options) => run::run(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("Bail out! {error:#}");
            ExitCode::from(2)
        }
    }
}
