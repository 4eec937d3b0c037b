// SPDX-License-Identifier: GPL-2.0

//! What connections are in the middle of when the modules come: with bytes that nobody has read, half-closed, not accepted yet, or with a
//! writer that waits for room.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::{ANSWER, BYTES, EXCHANGES, before_modules, is_accelerated_and_right};
use crate::{
    bench::{Bench, GUEST1, GUEST2},
    cases::addresses::ring_bytes,
    pair::Pair,
    peer::Socket,
};

/// Bytes that TCP takes before anybody reads.
const UNREAD: u64 = 20_000;

/// More than TCP takes before anybody reads.
const MUCH: u64 = 4 << 20;

/// Ways in which a writer waits for room: an order's words.
const WRITERS: [&str; 5] = ["", "mode=poll", "mode=select", "mode=epoll", "mode=edge"];

/// That in which it waits inside of a method of TCP. As the module cannot tell it from a reader, nothing comes to its end through the ring until
/// it has left.
const IN_METHOD: &str = "";

/// Both ends, by whether it is that which connected: of these a case has one each time.
const ENDS: [bool; 2] = [true, false];

/// Sends a little until bytes go through the ring; returns how many were sent, none of which was read.
fn send_until_on_ring(bench: &Bench, ends: &[&Socket]) -> Result<u64> {
    let mut sent = 0;
    bench.wait("it is on the ring with bytes unread", || {
        let mut all = true;
        for end in ends {
            end.send(ANSWER)?;
            all &= end.state()?.word("sends_to") == "ring";
        }
        sent += ANSWER;
        Ok(all)
    })?;
    Ok(sent)
}

/// TCP has bytes for both ends that nobody has read. Once the connection is on the ring, more come behind them.
pub(in crate::cases) fn unread_bytes(bench: &Bench) -> Result<()> {
    let pair = before_modules(bench)?;
    let ends = [&pair.a, &pair.b];
    ends.into_iter().try_for_each(|end| end.send(UNREAD))?;
    bench.load_all()?;
    let over_both = send_until_on_ring(bench, &ends)?;
    let later = || ends.into_iter().try_for_each(|end| end.send(UNREAD));
    pair.through_ring([UNREAD; 2], later)?;
    for end in ends {
        end.receive(UNREAD + over_both + UNREAD)?;
    }
    is_accelerated_and_right(&pair)
}

/// The same where the bytes are read before the connection is on the ring.
pub(in crate::cases) fn unread_bytes_read_first(bench: &Bench) -> Result<()> {
    let pair = before_modules(bench)?;
    let ends = [&pair.a, &pair.b];
    ends.into_iter().try_for_each(|end| end.send(UNREAD))?;
    bench.load_all()?;
    for end in ends {
        end.receive(UNREAD)?;
    }
    is_accelerated_and_right(&pair)
}

/// One end has ended its direction, with bytes before that which the other one has read or not. The other direction stays with TCP.
pub(in crate::cases) fn half_closed(bench: &Bench) -> Result<()> {
    bench.unload_all()?;
    let mut pairs = Vec::new();
    for connected in ENDS {
        for unread in [0, UNREAD] {
            let pair = bench.plain_pair()?;
            pair.exchange(ANSWER)?;
            pair.end(connected).send(unread)?;
            pair.end(connected).shutdown("write")?;
            pairs.push((connected, unread, pair));
        }
    }
    bench.load_all()?;
    let before = ring_bytes(bench)?;
    for (connected, unread, pair) in &pairs {
        let what = format!("{connected} has ended, {unread} bytes are unread");
        goes_on_half_closed(pair, *connected, *unread).context(what)?;
    }
    let moved = ring_bytes(bench)? - before;
    ensure!(moved == 0, "{moved} bytes went through a ring");
    // Another one does not stay there.
    bench.pair()?.finish()
}

/// The direction that is open goes on, and then ends; `connected` says which end has ended the other one.
fn goes_on_half_closed(pair: &Pair, connected: bool, unread: u64) -> Result<()> {
    let (ended, open) = (pair.end(connected), pair.end(!connected));
    // In many calls, so that it would be worth a ring.
    let receiver = ended.start(&format!("recv bytes={BYTES}"))?;
    let sender = open.start(&format!("send bytes={BYTES} max=5000"))?;
    sender.wait()?.exactly(BYTES)?;
    receiver.wait()?.exactly(BYTES)?;
    open.receive_all()?.ended(unread)?;
    open.shutdown("write")?;
    ended.receive_all()?.ended(0)?;
    ended.close()?;
    open.close()
}

/// Connections that are established wait in the queue of a listener, with bytes and without, while the modules come. More bytes come before they
/// are accepted. Then they go to the ring.
pub(in crate::cases) fn not_accepted_yet(bench: &Bench) -> Result<()> {
    for (from, to) in [(GUEST1, GUEST2), (GUEST2, GUEST1)] {
        bench.unload_all()?;
        let address = SocketAddr::new(to.address().into(), bench.port());
        let (from, to) = (bench.peer(from)?, bench.peer(to)?);
        let listener = to.listen(address)?;
        for (index, unread) in [0, UNREAD].into_iter().enumerate() {
            let seed = (u64::from(address.port()) << 32) | index as u64;
            let a = from.connect(address)?;
            a.set_seeds(seed, !seed)?;
            a.send(unread)?;
            let what = || format!("{unread} bytes before the modules");
            bench.load_all()?;
            let more = a.start(&format!("send bytes={UNREAD} max={ANSWER}"))?;
            more.wait()?.exactly(UNREAD).with_context(what)?;
            let pair = Pair::new(a, listener.accept()?, seed)?;
            pair.b.receive(unread + UNREAD).with_context(what)?;
            is_accelerated_and_right(&pair).with_context(what)?;
            bench.unload_all()?;
        }
        listener.close()?;
    }
    Ok(())
}

/// Writers that wait for room, in TCP's own method or outside, while the modules come. The other direction goes to the ring meanwhile if it can.
/// Each byte that they have for TCP comes, and then the connection is on the ring both ways.
pub(in crate::cases) fn sleeping_writers(bench: &Bench) -> Result<()> {
    bench.unload_all()?;
    let mut writers = Vec::new();
    for words in WRITERS {
        for connected in ENDS {
            let pair = bench.plain_pair()?;
            pair.exchange(ANSWER)?;
            let order = format!("send bytes={MUCH} {words}");
            let writer = pair.end(connected).start(&order)?;
            writer.wait_asleep()?;
            writers.push((words, connected, pair, writer));
        }
    }
    bench.load_all()?;
    for (words, connected, pair, writer) in writers {
        let what = || format!("{words:?}, connected: {connected}");
        answers_meanwhile(bench, &pair, words, connected).with_context(what)?;
        ensure!(writer.is_running(), "{}: disturbed", what());
        let other = pair.end(!connected);
        other.receive(MUCH).with_context(what)?;
        writer.wait()?.exactly(MUCH).with_context(what)?;
        is_accelerated_and_right(&pair).with_context(what)?;
    }
    Ok(())
}

/// Sends a little to the end where a writer waits, until that comes through the ring, or as often as it may take.
fn answers_meanwhile(bench: &Bench, pair: &Pair, words: &str, connected: bool) -> Result<()> {
    let (end, other) = (pair.end(connected), pair.end(!connected));
    // A program that polls has made its calls return at once.
    let mode = match words {
        IN_METHOD => "",
        _ => "mode=poll",
    };
    let answer = || {
        other.send(ANSWER)?;
        let received = end.call(&format!("recv bytes={ANSWER} {mode}"))?;
        received.exactly(ANSWER).map(drop)
    };
    if words == IN_METHOD {
        return (0..EXCHANGES).try_for_each(|_| answer());
    }
    bench.wait("answers come through the ring", || {
        answer()?;
        Ok(other.state()?.word("sends_to") == "ring")
    })
}
