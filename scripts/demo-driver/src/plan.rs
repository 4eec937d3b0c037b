// SPDX-License-Identifier: GPL-2.0

//! What is measured: one [`Plan`] for the whole demo, one for the quick one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Runs of each side of a row, where nothing else is said.
const RUNS: u32 = 3;

/// What netperf does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Test {
    /// One direction, as much as possible.
    #[serde(rename = "TCP_STREAM")]
    Stream,
    /// A request and an answer at a time, over one connection.
    #[serde(rename = "TCP_RR")]
    RequestResponse,
    /// Connect, one request, one answer, close.
    #[serde(rename = "TCP_CRR")]
    ConnectRequestResponse,
}

impl Test {
    /// netperf's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "TCP_STREAM",
            Self::RequestResponse => "TCP_RR",
            Self::ConnectRequestResponse => "TCP_CRR",
        }
    }

    /// Unit of its results.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Stream => "Mb/s",
            Self::RequestResponse | Self::ConnectRequestResponse => "1/s",
        }
    }

    /// What costs are counted per.
    pub fn per(self) -> &'static str {
        match self {
            Self::Stream => "MB",
            Self::RequestResponse | Self::ConnectRequestResponse => "transaction",
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// What netperf does.
    pub test: Test,
    /// Bytes of a message, in both directions for a transaction.
    pub size: u32,
    /// The least ratio that is asked for.
    pub goal: Option<f64>,
    /// Runs of each side.
    pub runs: u32,
}

impl Row {
    /// Some runs of a test, with no goal.
    pub const fn new(test: Test, size: u32) -> Self {
        Self {
            test,
            size,
            goal: None,
            runs: RUNS,
        }
    }

    /// A row that shall show no difference: the smaller the difference to find, the more runs.
    const fn at_par(self, goal: f64, runs: u32) -> Self {
        Self {
            goal: Some(goal),
            runs,
            ..self
        }
    }

    const fn at_least(self, goal: f64) -> Self {
        Self {
            goal: Some(goal),
            ..self
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} {} B", self.test.name(), self.size))
    }
}

/// What is measured, how often and for how long.
pub struct Plan {
    /// Netfront against xenvmc.
    pub rows: Vec<Row>,
    /// No module against the module in the client alone.
    pub no_module: Vec<Row>,
    /// Sizes of streams whose bounds inside a guest are measured.
    pub bound_streams: Vec<u32>,
    /// Sizes of transactions for which loopback is measured.
    pub bound_transactions: Vec<u32>,
    /// Runs of each bound.
    pub bound_runs: u32,
    /// Seconds of each run of netperf.
    pub seconds: u32,
}

impl Plan {
    /// Everything.
    pub fn full() -> Self {
        use Test::{ConnectRequestResponse, RequestResponse, Stream};
        Self {
            rows: vec![
                Row::new(Stream, 64),
                Row::new(Stream, 256),
                Row::new(Stream, 1024),
                Row::new(Stream, 4096),
                Row::new(Stream, 16384).at_least(10.0),
                Row::new(Stream, 65536),
                Row::new(RequestResponse, 1).at_least(8.0),
                Row::new(RequestResponse, 64),
                Row::new(RequestResponse, 1024),
                Row::new(RequestResponse, 16384),
                Row::new(ConnectRequestResponse, 1).at_par(1.0, 8),
            ],
            no_module: vec![
                Row::new(Stream, 16384).at_par(0.98, 8),
                Row::new(RequestResponse, 1).at_par(0.98, 8),
            ],
            bound_streams: vec![64, 256, 1024, 4096, 16384, 65536],
            bound_transactions: vec![1, 64, 1024, 16384],
            bound_runs: 2,
            seconds: 2,
        }
    }

    /// What shows in a few minutes how things are.
    pub fn quick() -> Self {
        use Test::{ConnectRequestResponse, RequestResponse, Stream};
        Self {
            rows: vec![
                Row::new(Stream, 1024),
                Row::new(Stream, 16384).at_least(10.0),
                Row::new(RequestResponse, 1).at_least(8.0),
                Row::new(ConnectRequestResponse, 1).at_par(1.0, 4),
            ],
            no_module: vec![Row::new(Stream, 16384).at_par(0.98, 3)],
            bound_streams: vec![16384],
            bound_transactions: vec![1],
            bound_runs: 1,
            seconds: 2,
        }
    }

    /// Number of all runs.
    pub fn steps(&self) -> u32 {
        let rows = self.rows.iter().chain(&self.no_module);
        let pairs: u32 = rows.map(|row| row.runs).sum();
        // Three bounds for each size of a stream: memcpy, /dev/zero, loopback.
        let bounds = self.bound_streams.len() * 3 + self.bound_transactions.len();
        pairs * 2 + bounds as u32 * self.bound_runs
    }
}
