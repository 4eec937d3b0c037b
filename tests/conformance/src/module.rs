// SPDX-License-Identifier: GPL-2.0

//! What the frontend of this guest reports.

use std::{fs, os::fd::RawFd};

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

/// The frontend's line about the datagrams that a connected socket sends; empty if it knows none.
pub(crate) fn flow(fd: RawFd) -> String {
    let (Ok(local), Ok(remote)) = (call::local(fd), call::remote(fd)) else {
        return String::new();
    };
    let words = [
        "direction=out".to_owned(),
        format!("source_port={}", local.port()),
        format!("destination_port={}", remote.port()),
    ];
    line("flows", &words)
}

/// Whether a connected socket's datagrams go into the ring.
pub(crate) fn is_flow_in_ring(fd: RawFd) -> bool {
    flow(fd).split_whitespace().any(|word| word == "state=Ring")
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
