// SPDX-License-Identifier: GPL-2.0

//! Processes that are killed, and calls that are interrupted by signals.

use anyhow::{Result, ensure};

use crate::{
    bench::{Bench, GUEST1, GUEST2},
    pair::{Load, Pair},
    peer::Peer,
};
use std::sync::Arc;

/// Bytes that a ring has room for from the beginning.
const SOME: u64 = 12_000;

/// Bytes that have come before something happens.
const BYTES: u64 = 1 << 20;

/// More bytes than any ring and TCP have room for.
const TOO_MANY: u64 = 64 << 20;

/// Connections of processes that are killed.
const DOOMED: usize = 8;

/// Signals during a transfer.
const SIGNALS: u64 = 15;

/// A connection of which one end, or both, belong to processes of their own.
fn pair_of(bench: &Bench, from: &Arc<Peer>, to: &Arc<Peer>) -> Result<Pair> {
    let pair = bench
        .pairs_between(from, to, GUEST2.address().into(), 1)?
        .remove(0);
    pair.accelerate()?;
    Ok(pair)
}

/// What a process sent before it was killed arrives, and then the end of the stream.
pub(super) fn killed_sender(bench: &Bench) -> Result<()> {
    let doomed = bench.another_peer(GUEST1)?;
    let pair = pair_of(bench, &doomed, &bench.peer(GUEST2)?)?;
    let before = pair.ring_bytes()?;
    let sent = pair.a.fill(SOME)?;
    ensure!(pair.ring_bytes()?[0] - before[0] == sent, "not in the ring");
    doomed.kill()?;
    pair.b.receive_all()?.ended(sent)?;
    pair.b.close()
}

/// The same while bytes are on the way: what arrives is right, and it ends.
pub(super) fn killed_sender_at_work(bench: &Bench) -> Result<()> {
    for guest in [GUEST1, GUEST2] {
        let doomed = bench.another_peer(guest)?;
        let (from, to) = if guest == GUEST1 {
            (doomed.clone(), bench.peer(GUEST2)?)
        } else {
            (bench.peer(GUEST1)?, doomed.clone())
        };
        let pair = pair_of(bench, &from, &to)?;
        let (sender, receiver) = if guest == GUEST1 {
            (&pair.a, &pair.b)
        } else {
            (&pair.b, &pair.a)
        };
        let _sending = sender.start("send")?;
        let receiving = receiver.start("recv")?;
        while receiver.call("progress")?.number("received") < BYTES {
            ensure!(receiving.is_running(), "the receiver has ended");
        }
        ensure!(
            receiver.state()?.number("ring_received") >= BYTES / 2,
            "not through the ring"
        );
        doomed.kill()?;
        let answer = receiving.wait()?.clean()?;
        ensure!(answer.is_at_end(), "no end of file");
        receiver.close()?;
    }
    Ok(())
}

/// A sender, asleep or not, hears that the receiver was killed.
pub(super) fn killed_receiver(bench: &Bench) -> Result<()> {
    for mode in ["block", "poll"] {
        let doomed = bench.another_peer(GUEST2)?;
        let pair = pair_of(bench, &bench.peer(GUEST1)?, &doomed)?;
        let sending = pair
            .a
            .start(&format!("send bytes={TOO_MANY} mode={mode}"))?;
        sending.wait_asleep()?;
        doomed.kill()?;
        let error = sending.wait()?.error().to_owned();
        ensure!(
            ["ECONNRESET", "EPIPE"].contains(&error.as_str()),
            "{mode}: {error:?}"
        );
        pair.a.close()?;
    }
    Ok(())
}

/// Both at once, with bytes on the way both ways and many connections.
pub(super) fn killed_both(bench: &Bench) -> Result<()> {
    let doomed = [bench.another_peer(GUEST1)?, bench.another_peer(GUEST2)?];
    let pairs = bench.pairs_between(&doomed[0], &doomed[1], GUEST2.address().into(), DOOMED)?;
    pairs.iter().try_for_each(Pair::accelerate)?;
    let mut running = Vec::new();
    for end in pairs.iter().flat_map(|pair| [&pair.a, &pair.b]) {
        running.push(end.start("send")?);
        running.push(end.start("recv")?);
    }
    for pair in &pairs {
        let start = pair.a.state()?.number("ring_received");
        while pair.a.state()?.number("ring_received") < start + SOME {}
    }
    doomed[0].kill()?;
    doomed[1].kill()?;
    bench.wait_no_connections()
}

/// A signal ends a receiver that sleeps with `EINTR`, unless its handler restarts calls.
pub(super) fn interrupted_receiver(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    let peer = pair.a.peer();
    for restart in [true, false] {
        let [before, _] = peer.signals(Some(restart))?;
        let receiving = pair.a.start("recv bytes=1000")?;
        receiving.wait_asleep()?;
        receiving.interrupt()?;
        bench.wait("the signal is handled", || {
            Ok(peer.signals(None)?[0] == before + 1)
        })?;
        if restart {
            receiving.wait_asleep()?;
            pair.b.send(1000)?;
            receiving.wait()?.exactly(1000)?;
        } else {
            receiving.wait()?.failed(0, "EINTR")?;
            pair.b.send(1000)?;
            pair.a.receive(1000)?;
        }
    }
    peer.signals(Some(true))?;
    pair.finish()
}

/// The same for a sender that waits for room; what it has sent is counted exactly.
pub(super) fn interrupted_sender(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    let peer = pair.a.peer();
    peer.signals(Some(false))?;
    // A call that has sent something returns that; the next one sleeps with nothing sent.
    let sending = pair.a.start(&format!("send bytes={TOO_MANY} max=1000"))?;
    while sending.sleeps()? {
        sending.interrupt()?;
    }
    let answer = sending.wait()?;
    ensure!(answer.error() == "EINTR", "{:?}", answer.error());
    pair.b.receive(answer.bytes())?;
    peer.signals(Some(true))?;
    pair.finish()
}

/// Signals at any time in a transfer cost no byte.
pub(super) fn signals_under_load(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    let before = pair.ring_bytes()?;
    let load = Load::start(&pair, BYTES)?;
    for _ in 0..SIGNALS {
        load.interrupt()?;
    }
    load.wait_for(BYTES)?;
    let after = pair.ring_bytes()?;
    ensure!(after[0] - before[0] >= BYTES, "not through the ring");
    load.stop()
}
