// SPDX-License-Identifier: GPL-2.0

//! Connections that are older than a module move to the ring, whatever they are doing, and no byte is lost.

use anyhow::{Result, ensure};

use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS},
    pair::{Load, Pair},
};

/// Bytes of a transfer.
const BYTES: u64 = 1 << 20;

/// Bytes of an exchange; TCP takes so many before anybody reads.
const EXCHANGE: u64 = 10_000;

/// Exchanges after which a connection would have been accelerated if it could be.
const EXCHANGES: u32 = 40;

/// A connection from before any module.
fn before_modules(bench: &Bench) -> Result<Pair> {
    bench.unload_all()?;
    let pair = bench.plain_pair()?;
    pair.exchange(EXCHANGE)?;
    Ok(pair)
}

fn is_accelerated_and_right(pair: &Pair) -> Result<()> {
    pair.accelerate()?;
    pair.both_ways(BYTES, "", "")?;
    pair.finish()
}

pub(super) fn idle(bench: &Bench) -> Result<()> {
    let pair = before_modules(bench)?;
    bench.load_all()?;
    is_accelerated_and_right(&pair)
}

/// Bytes flow both ways all the time.
pub(super) fn busy(bench: &Bench) -> Result<()> {
    let pair = before_modules(bench)?;
    let load = Load::start(&pair, BYTES)?;
    bench.load_all()?;
    bench.wait("both directions are on the ring", || pair.is_accelerated())?;
    load.wait_for(BYTES)?;
    load.stop()?;
    pair.a.close()?;
    pair.b.close()
}

/// Readers sleep in the kernel, in TCP's own method, while the modules come.
pub(super) fn sleeping_readers(bench: &Bench) -> Result<()> {
    let pair = before_modules(bench)?;
    let ends = [(&pair.a, &pair.b), (&pair.b, &pair.a)];
    let mut readers = Vec::new();
    for (end, _) in ends {
        let reader = end.start(&format!("recv bytes={BYTES}"))?;
        reader.wait_asleep()?;
        readers.push(reader);
    }
    bench.load_all()?;
    for (reader, (_, sender)) in readers.into_iter().zip(ends) {
        ensure!(reader.is_running(), "the reader was disturbed");
        sender.send(BYTES)?;
        reader.wait()?.exactly(BYTES)?;
    }
    is_accelerated_and_right(&pair)
}

/// One end's module was there before the connection, the other's comes later.
pub(super) fn one_end_later(bench: &Bench) -> Result<()> {
    for (first, later) in [(GUEST1, GUEST2), (GUEST2, GUEST1)] {
        bench.unload_all()?;
        bench.load_backend()?;
        bench.load(first, "")?;
        let pair = bench.plain_pair()?;
        pair.exchange(EXCHANGE)?;
        bench.load(later, "")?;
        bench.wait_peers()?;
        is_accelerated_and_right(&pair)?;
    }
    Ok(())
}

/// Under way from the ring to TCP and to the ring again, with the module of one end.
pub(super) fn reloaded(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    let load = Load::start(&pair, BYTES)?;
    for guest in GUESTS {
        bench.unload(guest)?;
        load.wait_for(BYTES)?;
        bench.load(guest, "")?;
        bench.wait("both directions are on the ring again", || {
            pair.is_accelerated()
        })?;
        load.wait_for(BYTES)?;
    }
    load.stop()?;
    pair.a.close()?;
    pair.b.close()
}

/// The parameter that leaves them alone.
pub(super) fn left_alone(bench: &Bench) -> Result<()> {
    bench.unload_all()?;
    let pair = bench.plain_pair()?;
    bench.load_backend()?;
    for guest in GUESTS {
        bench.load(guest, "adopt_existing=0")?;
    }
    bench.wait_peers()?;
    for _ in 0..EXCHANGES {
        pair.exchange(EXCHANGE)?;
    }
    ensure!(pair.ring_bytes()? == [0, 0], "bytes went through a ring");
    // Those that come later are accelerated.
    bench.pair()?.finish()?;
    pair.finish()
}
