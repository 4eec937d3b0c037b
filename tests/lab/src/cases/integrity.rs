// SPDX-License-Identifier: GPL-2.0

//! Each byte comes once, unchanged and in order, however it is sent and received.

use anyhow::{Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS},
    pair::{Load, Pair},
};

/// Bytes of a transfer.
const BYTES: u64 = 4 << 20;

/// Bytes of a transfer in small pieces.
const FEW_BYTES: u64 = 1 << 20;

/// Connections at once.
const MANY: usize = 200;

/// Bytes that each of them moves, each way.
const BYTES_OF_EACH: u64 = 8_000;

/// A transfer both ways at once, with messages of random sizes.
fn both_ways(bench: &Bench, bytes: u64, send: &str, receive: &str) -> Result<()> {
    let pair = bench.pair()?;
    pair.both_ways(bytes, send, receive)?;
    pair.finish()
}

pub(super) fn both_ways_blocking(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "", "")
}

pub(super) fn both_ways_poll(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "mode=poll", "mode=poll")
}

pub(super) fn both_ways_select(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "mode=select", "mode=select")
}

pub(super) fn both_ways_epoll_level(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "mode=epoll", "mode=epoll")
}

pub(super) fn both_ways_epoll_edge(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "mode=edge", "mode=edge")
}

/// As programs do that take a short count for the sign that nothing is left.
pub(super) fn both_ways_epoll_edge_short(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "mode=edge-short", "mode=edge-short")
}

/// As nginx does, which asks how much is left after a read that filled its buffer, and waits for an edge if that is nothing.
pub(super) fn both_ways_epoll_edge_asked(bench: &Bench) -> Result<()> {
    both_ways(
        bench,
        BYTES,
        "mode=edge max=4096",
        "mode=edge-asked max=4096",
    )
}

pub(super) fn all_calls(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "method=any", "method=any")
}

pub(super) fn vectors(bench: &Bench) -> Result<()> {
    both_ways(bench, FEW_BYTES, "method=writev", "method=readv")?;
    both_ways(bench, FEW_BYTES, "method=sendmsg", "method=recvmsg")
}

pub(super) fn sendfile(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "method=sendfile", "")?;
    both_ways(bench, FEW_BYTES, "method=sendfile mode=poll", "mode=poll")
}

pub(super) fn splice(bench: &Bench) -> Result<()> {
    both_ways(bench, FEW_BYTES, "method=splice", "method=splice")
}

pub(super) fn peek(bench: &Bench) -> Result<()> {
    both_ways(bench, FEW_BYTES, "", "method=peek")
}

pub(super) fn wait_all(bench: &Bench) -> Result<()> {
    both_ways(bench, BYTES, "", "method=waitall max=100000")
}

pub(super) fn small_messages(bench: &Bench) -> Result<()> {
    both_ways(bench, 100_000, "max=64", "max=64")
}

/// Connections, one after the other, of which both ends ask for the ring at about the same time.
const CROSSING: u64 = 20;

/// A request and an answer at a time: both ends find their connection worth a ring at the same call, and ask.
pub(super) fn both_ask_at_once(bench: &Bench) -> Result<()> {
    let names = ["upgrades", "channels_broken", "connections_reset"];
    let count = |guest: Machine| -> Result<Vec<u64>> {
        names
            .iter()
            .map(|name| bench.counter(guest, name))
            .collect()
    };
    bench.shell(GUEST2, "netserver -N >/dev/null")?;
    let once = format!("netperf -H {} -t TCP_RR -P 0 -l -100", GUEST2.address());
    bench.pair()?.finish()?;
    let before = GUESTS.map(count);
    for _ in 0..CROSSING {
        bench.shell(GUEST1, &once)?;
    }
    bench.shell(GUEST2, "killall netserver")?;
    for (guest, before) in GUESTS.into_iter().zip(before) {
        let counts = count(guest)?.into_iter().zip(before?);
        let moved: Vec<u64> = counts.map(|(after, before)| after - before).collect();
        ensure!(
            moved[0] >= CROSSING && moved[1..] == [0, 0],
            "{guest}, {names:?}: {moved:?} for {CROSSING} connections"
        );
    }
    Ok(())
}

pub(super) fn many_connections(bench: &Bench) -> Result<()> {
    let resets = GUESTS.map(|guest| bench.counter(guest, "connections_reset"));
    let pairs = bench.plain_pairs(MANY)?;
    bench.exchange_until_on_ring(MANY, || Pair::all_both_ways(&pairs, BYTES_OF_EACH))?;
    let before = GUESTS.map(|guest| bench.counter(guest, "tx_bytes"));
    Pair::all_both_ways(&pairs, BYTES_OF_EACH)?;
    for (guest, before) in GUESTS.into_iter().zip(before) {
        let moved = bench.counter(guest, "tx_bytes")? - before?;
        ensure!(
            moved == MANY as u64 * BYTES_OF_EACH,
            "{guest} sent {moved} bytes through rings"
        );
    }
    Pair::finish_all(&pairs)?;
    for (guest, before) in GUESTS.into_iter().zip(resets) {
        ensure!(
            bench.counter(guest, "connections_reset")? == before?,
            "connections were reset"
        );
    }
    Ok(())
}

/// Bytes that make a connection worth a ring, and that TCP takes before anybody reads.
const WORTH: u64 = 40_000;

/// The modules have just been loaded, and who sends makes no call any more when the guests have a channel at last.
pub(super) fn sent_before_channel(bench: &Bench) -> Result<()> {
    bench.unload_all()?;
    bench.load_all()?;
    let pair = bench.plain_pair()?;
    let sent = pair.a.fill(WORTH)?;
    bench.wait("both ends have agreed on the ring", || {
        let connections = bench.report(GUEST1, "connections")?;
        Ok(connections.contains("agreement=Active"))
    })?;
    pair.b.receive(sent)?;
    pair.accelerate()?;
    pair.finish()
}

/// Bytes of a single call, many times what TCP takes of it from a sender whose receiver reads little.
const LARGE_CALL: u64 = 8 << 20;

/// What is read of it at a time until the ring is there.
const FIRST_READS: u64 = 16 << 10;

/// SO_SNDBUF of its socket. Without one, TCP's may have grown to 4 MiB, half of the call, before the ring is there.
const SEND_BUFFER: i32 = 128 << 10;

/// All that a connection sends is one call: it begins over TCP, and most of it takes the ring. The receiver takes little
/// until then, or TCP might carry most of it before the ring is there.
pub(super) fn one_large_call(bench: &Bench) -> Result<()> {
    let pair = bench.plain_pair()?;
    pair.a.set("send-buffer", SEND_BUFFER)?;
    let left = bench.counter(GUEST1, "ring_left")?;
    let order = format!("send bytes={LARGE_CALL} max={LARGE_CALL} fixed=1");
    let sender = pair.a.start(&order)?;
    let mut taken = 0;
    bench.wait("the call has got to the ring", || {
        pair.b.receive(FIRST_READS)?;
        taken += FIRST_READS;
        Ok(pair.a.state()?.word("sends_to") == "ring")
    })?;
    let receiver = pair.b.start("recv")?;
    let answer = sender.wait()?.exactly(LARGE_CALL)?;
    ensure!(
        answer.number("calls") == 1,
        "{} calls",
        answer.number("calls")
    );
    let [moved, _] = pair.ring_bytes()?;
    let left = bench.counter(GUEST1, "ring_left")? - left;
    ensure!(
        moved > LARGE_CALL / 2,
        "{moved} of {LARGE_CALL} bytes went through the ring: {taken} were read before, and it was left {left} times"
    );
    pair.a.shutdown("write")?;
    receiver.wait()?.ended(LARGE_CALL - taken)?;
    pair.b.shutdown("write")?;
    pair.finish_after_end()
}

/// Times that each direction goes back to TCP, at least: thousands in all, with the way to the ring.
const CHANGES: u64 = 1_000;

/// Both directions change between the ring and TCP at random places, thousands of times, while bytes flow.
pub(super) fn thousands_of_changes(bench: &Bench) -> Result<()> {
    let count = || -> Result<u64> {
        let left = GUESTS.map(|guest| bench.counter(guest, "ring_left"));
        let [first, second] = left;
        Ok(first?.min(second?))
    };
    let pair = bench.pair()?;
    let load = Load::start_as(
        &pair,
        BYTES_OF_EACH,
        "method=changing max=3000",
        "method=any max=5000",
    )?;
    let start = count()?;
    while count()? < start + CHANGES {
        load.wait_for(BYTES_OF_EACH)?;
    }
    load.stop()?;
    pair.a.close()?;
    pair.b.close()
}

/// Both ends send much before either reads, as TCP lets them.
pub(super) fn much_before_reading(bench: &Bench) -> Result<()> {
    let bytes = 200_000;
    let pair = bench.pair()?;
    let ends = [&pair.a, &pair.b];
    pair.through_ring([bytes; 2], || {
        ends.iter().try_for_each(|end| end.send(bytes))?;
        ends.iter().try_for_each(|end| end.receive(bytes))
    })?;
    pair.finish()
}
