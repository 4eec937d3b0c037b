// SPDX-License-Identifier: GPL-2.0

//! What the frontend of this guest reports.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::fd::RawFd,
};

use crate::call;

const REPORTS: &str = "/sys/kernel/debug/xenvmc";

/// The frontend's line about a connection; empty if it knows none.
pub(crate) fn connection(fd: RawFd) -> String {
    let (Ok(local), Ok(remote)) = (call::local(fd), call::remote(fd)) else {
        return String::new();
    };
    let words = [
        format!("local_port={}", local.port()),
        format!("remote_port={}", remote.port()),
    ];
    line("connections", &words)
}

/// The line of a report that has all these words; empty if there is none.
fn line(report: &str, words: &[String]) -> String {
    let text = fs::read_to_string(format!("{REPORTS}/{report}")).unwrap_or_default();
    let found = text.lines().find(|line| {
        words
            .iter()
            .all(|word| line.split_whitespace().any(|other| other == word))
    });
    found.unwrap_or_default().to_owned()
}

/// Bytes of a connection that went through a ring, in both directions: 0 if the frontend knows none.
pub(crate) fn through_ring(fd: RawFd) -> u64 {
    let line = connection(fd);
    let words = line.split_whitespace();
    words
        .filter_map(|word| word.split_once('='))
        .filter(|(key, _)| ["ring_sent", "ring_received"].contains(key))
        .filter_map(|(_, bytes)| bytes.parse::<u64>().ok())
        .sum()
}

/// Whether a connection's bytes go into the ring.
pub(crate) fn sends_to_ring(fd: RawFd) -> bool {
    connection(fd)
        .split_whitespace()
        .any(|word| word == "sends_to=ring")
}

/// Whether a peer announces an address.
pub(crate) fn sees(address: IpAddr) -> bool {
    let text = fs::read_to_string(format!("{REPORTS}/peers")).unwrap_or_default();
    let lists = text
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("addresses="));
    let mut all = lists.flat_map(|list| list.split(','));
    all.any(|other| other == address.to_string())
}

/// Datagrams that go from one address to another one, by the words that the frontend's report has for them.
#[derive(Clone)]
pub(crate) struct Flow(Vec<String>);

impl Flow {
    /// Those from `source`, which is an address of this guest, to `destination`.
    pub(crate) fn between(source: SocketAddr, destination: SocketAddr) -> Self {
        Self(vec![
            "direction=out".to_owned(),
            format!("source={}", source.ip().to_canonical()),
            format!("source_port={}", source.port()),
            format!("destination={}", destination.ip().to_canonical()),
            format!("destination_port={}", destination.port()),
        ])
    }

    /// Those that a connected socket sends.
    pub(crate) fn of(fd: RawFd) -> Self {
        let local = call::local(fd).expect("getsockname");
        Self::between(local, call::remote(fd).expect("getpeername"))
    }

    /// The frontend's line about it; empty if it knows none.
    pub(crate) fn line(&self) -> String {
        line("flows", &self.0)
    }

    /// Whether it goes through the ring.
    pub(crate) fn is_in_ring(&self) -> bool {
        self.over_network().is_some()
    }

    /// If it goes through the ring: how many datagrams have gone over the network before, or since it was there last.
    pub(crate) fn over_network(&self) -> Option<u64> {
        let line = self.line();
        let mut words = line.split_whitespace();
        let is_in_ring = words.any(|word| word == "state=Ring");
        let count = words.find_map(|word| word.strip_prefix("network="));
        count.filter(|_| is_in_ring)?.parse().ok()
    }
}

/// How often connections of this guest were declined for a reason: 0 without the module.
pub(crate) fn declines(reason: &str) -> u64 {
    let text = fs::read_to_string(format!("{REPORTS}/declines")).unwrap_or_default();
    let count = text.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        (words.next() == Some(reason)).then(|| words.next()?.parse().ok())?
    });
    count.unwrap_or(0)
}

/// Bytes that all rings have moved, in both directions: 0 without the module.
pub(crate) fn ring_bytes() -> u64 {
    let text = fs::read_to_string(format!("{REPORTS}/counters")).unwrap_or_default();
    let counter = |name: &str| -> u64 {
        let value = text.lines().find_map(|line| {
            let (key, value) = line.split_once(char::is_whitespace)?;
            (key == name).then(|| value.trim().parse().ok())?
        });
        value.unwrap_or(0)
    };
    ["tx_bytes", "rx_bytes", "udp_tx_bytes", "udp_rx_bytes"]
        .map(counter)
        .iter()
        .sum()
}
