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
    let text = fs::read_to_string(format!("{REPORTS}/connections")).unwrap_or_default();
    let found = text.lines().find(|line| {
        words
            .iter()
            .all(|word| line.split_whitespace().any(|other| other == word))
    });
    found.unwrap_or_default().to_owned()
}

/// Whether a connection's bytes go into the ring.
pub(crate) fn sends_to_ring(fd: RawFd) -> bool {
    connection(fd)
        .split_whitespace()
        .any(|word| word == "sends_to=ring")
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
    counter("tx_bytes") + counter("rx_bytes")
}
