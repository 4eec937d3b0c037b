// SPDX-License-Identifier: GPL-2.0

//! A guest that disappears.

use anyhow::{Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUEST2},
    pair::Pair,
};

/// More bytes than any ring and TCP have room for.
const TOO_MANY: u64 = 64 << 20;

/// What the guest had sent is delivered; then, and for whoever waits, the connection is reset.
pub(super) fn guest_with_connections(bench: &Bench) -> Result<()> {
    let pairs: Vec<Pair> = (0..4).map(|_| bench.pair()).collect::<Result<_>>()?;
    let [unread, receiver, poller, sender] = &pairs[..] else {
        unreachable!()
    };
    let before = unread.ring_bytes()?;
    let sent = unread.b.fill(12_000)?;
    ensure!(
        unread.ring_bytes()?[1] - before[1] == sent,
        "not in the ring"
    );
    let receiving = receiver.a.start("recv")?;
    let polling = poller.a.start("recv mode=edge")?;
    let sending = sender.a.start(&format!("send bytes={TOO_MANY}"))?;
    for pending in [&receiving, &polling, &sending] {
        pending.wait_asleep()?;
    }

    bench.destroy(GUEST2)?;

    receiving.wait()?.failed(0, "ECONNRESET")?;
    polling.wait()?.failed(0, "ECONNRESET")?;
    let error = sending.wait()?.error().to_owned();
    ensure!(
        ["ECONNRESET", "EPIPE"].contains(&error.as_str()),
        "the sender got {error:?}"
    );
    unread.a.receive_all()?.failed(sent, "ECONNRESET")?;
    for pair in &pairs {
        pair.a.close()?;
    }
    bench.wait("no connection is left", || {
        Ok(bench.report(GUEST1, "connections")?.is_empty())
    })?;
    bench.wait("the peer is gone", || {
        Ok(bench.report(GUEST1, "peers")?.is_empty())
    })?;
    // Nothing of ours keeps the dead domain.
    bench.wait("the domain is gone altogether", || {
        let list = bench.shell(Machine::Dom0, "xl list")?;
        Ok(list.lines().count() == 3)
    })?;
    bench.unload(GUEST1)
}
