// SPDX-License-Identifier: GPL-2.0

//! Connections that are older than a module move to the ring, whatever they are doing, and no byte is lost.

mod states;

pub(super) use states::{
    half_closed, not_accepted_yet, sleeping_writers, unread_bytes, unread_bytes_read_first,
};

use anyhow::{Context, Result, ensure};

use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS},
    pair::{Load, Pair},
    peer::{Pending, Socket},
};

/// Bytes of a transfer.
const BYTES: u64 = 1 << 20;

/// Bytes of an exchange; TCP takes so many before anybody reads.
const EXCHANGE: u64 = 10_000;

/// Bytes of an answer.
const ANSWER: u64 = 100;

/// Exchanges after which a connection would have been accelerated if it could be.
const EXCHANGES: u32 = 40;

/// Ways to sleep for bytes: an order's words, and whether the sleeper is inside of a method of TCP, which it leaves only when TCP has
/// got bytes.
const SLEEPS: [(&str, bool); 9] = [
    ("", true),
    ("method=peek", true),
    ("method=waitall max=100000", true),
    ("method=splice", true),
    ("method=uring", false),
    ("mode=poll", false),
    ("mode=select", false),
    ("mode=epoll", false),
    ("mode=edge", false),
];

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

/// A connection at one end of which somebody sleeps.
struct Sleeper {
    /// The words of its order.
    words: &'static str,
    is_in_method: bool,
    /// Whether it is at the end that connected.
    connected: bool,
    pair: Pair,
    reader: Pending,
}

impl Sleeper {
    /// One on a new connection.
    fn new(bench: &Bench, way: (&'static str, bool), connected: bool) -> Result<Self> {
        let (words, is_in_method) = way;
        let pair = bench.plain_pair()?;
        pair.exchange(EXCHANGE)?;
        let reader = pair
            .end(connected)
            .start(&format!("recv bytes={BYTES} {words}"))?;
        reader.wait_asleep()?;
        Ok(Self {
            words,
            is_in_method,
            connected,
            pair,
            reader,
        })
    }

    /// The end where nobody sleeps.
    fn other(&self) -> &Socket {
        self.pair.end(!self.connected)
    }

    /// Another task of the sleeper's program sends a little, which is received.
    fn answer(&self) -> Result<()> {
        // A program that polls has made its calls return at once.
        let mode = match self.words.starts_with("mode=") {
            true => "mode=poll",
            false => "",
        };
        let end = self.pair.end(self.connected);
        end.call(&format!("send bytes={ANSWER} {mode}"))?
            .exactly(ANSWER)?;
        self.other().receive(ANSWER)
    }

    /// The other end sends, through the ring or not; the sleeper gets each byte.
    fn wake(self, through_ring: bool) -> Result<()> {
        ensure!(self.reader.is_running(), "the sleeper was disturbed");
        let before = self.other().state()?.number("ring_sent");
        self.other().send(BYTES)?;
        self.reader.wait()?.exactly(BYTES)?;
        let end = self.pair.end(!self.connected);
        let moved = end.state()?.number("ring_sent") - before;
        ensure!(
            !through_ring || moved == BYTES,
            "{moved} bytes went through the ring"
        );
        is_accelerated_and_right(&self.pair)
    }
}

/// Sleepers of all kinds at both ends of connections, each of its own, while the modules come.
fn all_sleepers(bench: &Bench) -> Result<Vec<Sleeper>> {
    bench.unload_all()?;
    let mut sleepers = Vec::new();
    for way in SLEEPS {
        for connected in [true, false] {
            let sleeper = Sleeper::new(bench, way, connected);
            sleepers.push(sleeper.with_context(|| way.0)?);
        }
    }
    bench.load_all()?;
    Ok(sleepers)
}

/// Sleepers of all kinds, to which bytes come before anything else happens: over TCP, at first.
pub(super) fn sleepers_of_all_kinds(bench: &Bench) -> Result<()> {
    for sleeper in all_sleepers(bench)? {
        let what = format!("{:?}, connected: {}", sleeper.words, sleeper.connected);
        sleeper.wake(false).context(what)?;
    }
    Ok(())
}

/// The same, while bytes in the other direction bring their connections to the ring. Bytes come through it to those that it can
/// wake, and through TCP to those that only TCP can wake.
pub(super) fn sleepers_on_the_ring(bench: &Bench) -> Result<()> {
    let sleepers = all_sleepers(bench)?;
    bench.wait("all that can be on the ring are", || {
        let mut all = true;
        for sleeper in &sleepers {
            sleeper.answer()?;
            let state = sleeper.pair.end(sleeper.connected).state()?;
            let is_ready = state.number("receives_ready") == 1;
            ensure!(
                !(is_ready && sleeper.is_in_method),
                "{:?}: bytes would come that do not wake it",
                sleeper.words
            );
            all &= state.word("sends_to") == "ring" && (is_ready || sleeper.is_in_method);
        }
        for guest in GUESTS {
            all &= bench.declines(guest, "foreign-reader")?[0] > 0;
        }
        Ok(all)
    })?;
    for sleeper in sleepers {
        let what = format!("{:?}, connected: {}", sleeper.words, sleeper.connected);
        let through_ring = !sleeper.is_in_method;
        sleeper.wake(through_ring).context(what)?;
    }
    Ok(())
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
