// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// What applications see of sockets of TCP and UDP, case by case.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Print the names of all cases
    List,
    /// Print a table of what was recorded in the three ways
    Table {
        /// Directory with the records, GROUP-WAY.json
        directory: PathBuf,
    },
    /// Be the other end of clients' cases, until killed
    Serve {
        /// Port to listen on
        #[arg(long, default_value_t = 7700)]
        port: u16,
    },
    /// Use a socket that was open before this program began; for cases
    #[command(hide = true)]
    Inherited {
        /// Its descriptor
        fd: i32,
    },
    /// Run cases and print KTAP
    Run(RunOptions),
}

/// How cases run.
#[derive(Args)]
pub(crate) struct RunOptions {
    /// Address of the server
    #[arg(long)]
    pub(crate) server: IpAddr,
    /// Port of the server
    #[arg(long, default_value_t = 7700)]
    pub(crate) port: u16,
    /// What is loaded
    #[arg(long, value_enum)]
    pub(crate) way: Way,
    /// Round trips of each case of wakeups
    #[arg(long, default_value_t = 200)]
    pub(crate) rounds: usize,
    /// Cases at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,
    /// File to write observations to
    #[arg(long)]
    pub(crate) record: Option<PathBuf>,
    /// File of observations that these must be like
    #[arg(long)]
    pub(crate) expect: Option<PathBuf>,
    /// Cases whose names begin with one of these; all if there is none
    pub(crate) names: Vec<String>,
}

/// The three ways in which the cases run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// The modules are loaded nowhere
    Absent,
    /// They are loaded, but not in the other guest
    Alone,
    /// They are loaded, and the connections must be on the ring
    Ring,
}

impl Way {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Alone => "alone",
            Self::Ring => "ring",
        }
    }

    /// That of this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Absent, Self::Alone, Self::Ring]
            .into_iter()
            .find(|way| way.name() == name)
    }
}
