// SPDX-License-Identifier: GPL-2.0

//! What is measured: one [`Plan`] for the whole demo, one for the quick one, and one for what acceleration costs.

use std::fmt;

use clap::ValueEnum;
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
    /// Datagrams in one direction, as many as possible; those that are received count.
    #[serde(rename = "UDP_STREAM")]
    Datagrams,
    /// A request and an answer at a time, in datagrams.
    #[serde(rename = "UDP_RR")]
    DatagramRequestResponse,
    /// Several connections in one direction at once, by our own probe: netperf has one.
    #[serde(rename = "STREAMS")]
    Streams,
}

impl Test {
    /// netperf's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "TCP_STREAM",
            Self::RequestResponse => "TCP_RR",
            Self::ConnectRequestResponse => "TCP_CRR",
            Self::Datagrams => "UDP_STREAM",
            Self::DatagramRequestResponse => "UDP_RR",
            Self::Streams => "STREAMS",
        }
    }

    /// Whether it is about as many bytes as possible; if not, it is about transactions.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Stream | Self::Datagrams | Self::Streams)
    }

    /// Unit of its results.
    pub fn unit(self) -> &'static str {
        if self.is_stream() { "Mb/s" } else { "1/s" }
    }

    /// What costs are counted per.
    pub fn per(self) -> &'static str {
        if self.is_stream() {
            "MB"
        } else {
            "transaction"
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
    /// To which end.
    pub target: Target,
    /// Connections at once whose bytes are counted.
    pub streams: u32,
    /// Connections beside those whose readers are slow; their bytes are not counted.
    pub slow: u32,
}

/// What the client talks to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The other guest.
    #[default]
    Server,
    /// Its own guest: connections that are none of ours.
    Loopback,
}

impl Row {
    /// Some runs of a test, with no goal.
    pub const fn new(test: Test, size: u32) -> Self {
        Self {
            test,
            size,
            goal: None,
            runs: RUNS,
            target: Target::Server,
            streams: 1,
            slow: 0,
        }
    }

    /// So many streams at once, and some more with slow readers.
    const fn streams(streams: u32, slow: u32) -> Self {
        Self {
            streams,
            slow,
            ..Self::new(Test::Streams, 16384)
        }
    }

    const fn over_loopback(self) -> Self {
        Self {
            target: Target::Loopback,
            ..self
        }
    }

    /// What it is called in a table.
    pub fn name(&self) -> String {
        match (self.test, self.target, self.slow) {
            (Test::Streams, _, 0) => format!("{} streams", self.streams),
            (Test::Streams, _, slow) => format!("{} and {slow} slow", self.streams),
            (test, Target::Server, _) => test.name().to_owned(),
            (test, Target::Loopback, _) => format!("{} lo", test.name()),
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
        f.pad(&format!("{} {} B", self.name(), self.size))
    }
}

/// What acceleration costs, in parts that take a few minutes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Many connections at once.
    Streams,
    /// Connections with one request, and connections that ask for a ring.
    Asking,
    /// Connections to a guest without the module.
    Elsewhere,
    /// Connections within one guest.
    Loopback,
}

/// What is measured, how often and for how long.
pub struct Plan {
    /// Netfront against xenvmc.
    pub rows: Vec<Row>,
    /// No module against the module in the client alone.
    pub no_module: Vec<Row>,
    /// Connections that ask for a ring as late as usual against those that ask at once.
    pub upgrade: Vec<Row>,
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
        use Test::{
            ConnectRequestResponse, DatagramRequestResponse, Datagrams, RequestResponse, Stream,
        };
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
                Row::new(ConnectRequestResponse, 1).at_par(1.0, 12),
                Row::new(Datagrams, 1400).at_least(10.0),
                Row::new(Datagrams, 16384).at_least(15.0),
                Row::new(DatagramRequestResponse, 1).at_least(10.0),
            ],
            no_module: vec![
                Row::new(Stream, 16384).at_par(0.98, 6),
                Row::new(RequestResponse, 1).at_par(0.98, 6),
                Row::new(DatagramRequestResponse, 1).at_par(0.99, 6),
                Row::new(Datagrams, 1400).at_par(0.99, 6),
            ],
            upgrade: Vec::new(),
            bound_streams: vec![64, 256, 1024, 4096, 16384, 65536],
            bound_transactions: vec![1, 64, 1024, 16384],
            bound_runs: 1,
            seconds: 2,
        }
    }

    /// What shows in a few minutes how things are.
    pub fn quick() -> Self {
        use Test::{ConnectRequestResponse, DatagramRequestResponse, RequestResponse, Stream};
        Self {
            rows: vec![
                Row::new(Stream, 16384).at_least(10.0),
                Row::new(RequestResponse, 1).at_least(8.0),
                Row::new(ConnectRequestResponse, 1).at_par(1.0, 4),
                Row::new(DatagramRequestResponse, 1).at_least(10.0),
            ],
            no_module: vec![Row::new(Stream, 16384).at_par(0.98, 3)],
            upgrade: Vec::new(),
            bound_streams: vec![16384],
            bound_transactions: vec![1],
            bound_runs: 1,
            seconds: 2,
        }
    }

    /// What acceleration costs those that it does not serve, and what it does to many connections at once: all of it, or a part.
    pub fn costs(part: Option<Part>) -> Self {
        use Test::{
            ConnectRequestResponse, DatagramRequestResponse, Datagrams, RequestResponse, Stream,
        };
        let of = |wanted: Part, rows: &[Row]| match part {
            Some(part) if part != wanted => Vec::new(),
            _ => rows.to_vec(),
        };
        let at_par = [
            Row::new(Stream, 16384),
            Row::new(RequestResponse, 1),
            Row::new(ConnectRequestResponse, 1),
            Row::new(Datagrams, 1400),
            Row::new(DatagramRequestResponse, 1),
        ]
        .map(|row| row.at_par(0.99, 6));
        let streams = [
            Row::streams(1, 0),
            Row::streams(8, 0),
            Row::streams(8, 1),
            Row::streams(64, 0),
        ];
        let short = Row::new(ConnectRequestResponse, 1);
        let short = [short.at_par(1.0, 6)];
        let asking = short.map(|row| Row { goal: None, ..row });
        let loopback = at_par.map(Row::over_loopback);
        Self {
            rows: [of(Part::Streams, &streams), of(Part::Asking, &short)].concat(),
            no_module: [of(Part::Elsewhere, &at_par), of(Part::Loopback, &loopback)].concat(),
            upgrade: of(Part::Asking, &asking),
            bound_streams: Vec::new(),
            bound_transactions: Vec::new(),
            bound_runs: 0,
            seconds: 2,
        }
    }

    /// Number of all runs.
    pub fn steps(&self) -> u32 {
        let rows = self.rows.iter().chain(&self.no_module).chain(&self.upgrade);
        let pairs: u32 = rows.map(|row| row.runs).sum();
        // Three bounds for each size of a stream: memcpy, /dev/zero, loopback.
        let bounds = self.bound_streams.len() * 3 + self.bound_transactions.len();
        pairs * 2 + bounds as u32 * self.bound_runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_the_whole() {
        let all = Plan::costs(None);
        let parts: Vec<Plan> = Part::value_variants()
            .iter()
            .map(|&part| Plan::costs(Some(part)))
            .collect();
        assert!(parts.iter().all(|part| part.steps() > 0));
        assert_eq!(parts.iter().map(Plan::steps).sum::<u32>(), all.steps());
        let names = |rows: Vec<Row>| rows.iter().map(Row::name).collect::<Vec<_>>();
        let rows = parts.iter().flat_map(|part| part.rows.clone()).collect();
        assert_eq!(names(rows), names(all.rows));
    }
}
