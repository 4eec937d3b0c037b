// SPDX-License-Identifier: GPL-2.0

//! A connection between the two guests, both ends of which a test has in its hands.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::peer::{Pending, Socket};

/// Bytes of each exchange while a connection is on its way to the ring.
const EXCHANGE: u64 = 100;

/// Exchanges after which a connection must have got there.
const EXCHANGES: u32 = 400;

/// Bytes at most that are left unread in a ring.
const UNREAD: u64 = 12_000;

/// How many times as long as an order may take a transfer may stand still: after an outage TCP looks again in intervals that
/// have doubled all the time.
const PATIENCE: u32 = 3;

/// A connection.
pub(crate) struct Pair {
    /// The end that connected.
    pub(crate) a: Socket,
    /// The end that accepted.
    pub(crate) b: Socket,
}

impl Pair {
    /// Of two ends; `seed` says which bytes travel.
    pub(crate) fn new(a: Socket, b: Socket, seed: u64) -> Result<Self> {
        a.set_seeds(seed, !seed)?;
        b.set_seeds(!seed, seed)?;
        Ok(Self { a, b })
    }

    /// The end that connected, or the one that accepted.
    pub(crate) fn end(&self, connected: bool) -> &Socket {
        if connected { &self.a } else { &self.b }
    }

    /// Some bytes each way, one way after the other.
    pub(crate) fn exchange(&self, bytes: u64) -> Result<()> {
        for (from, to) in [(&self.a, &self.b), (&self.b, &self.a)] {
            from.send(bytes)?;
            to.receive(bytes)?;
        }
        Ok(())
    }

    /// Exchanges bytes until both directions are on the ring.
    pub(crate) fn accelerate(&self) -> Result<()> {
        for _ in 0..EXCHANGES {
            self.exchange(EXCHANGE)?;
            if self.is_accelerated()? {
                return Ok(());
            }
        }
        let states =
            [self.a.state()?, self.b.state()?].map(|state| state.word("sends_to").to_owned());
        anyhow::bail!("not accelerated after {EXCHANGES} exchanges: the ends send to {states:?}");
    }

    /// Whether both directions are on the ring.
    pub(crate) fn is_accelerated(&self) -> Result<bool> {
        Ok(
            self.a.state()?.word("sends_to") == "ring"
                && self.b.state()?.word("sends_to") == "ring",
        )
    }

    /// Bytes that went through the ring, from `a` to `b` and back, as the senders say.
    pub(crate) fn ring_bytes(&self) -> Result<[u64; 2]> {
        Ok([
            self.a.state()?.number("ring_sent"),
            self.b.state()?.number("ring_sent"),
        ])
    }

    /// Does something, and fails unless so many bytes went through the ring meanwhile, each way.
    pub(crate) fn through_ring<R>(
        &self,
        bytes: [u64; 2],
        what: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        let before = self.ring_bytes()?;
        let result = what()?;
        let after = self.ring_bytes()?;
        let moved = [after[0] - before[0], after[1] - before[1]];
        ensure!(
            moved == bytes,
            "{moved:?} bytes went through the ring instead of {bytes:?}"
        );
        Ok(result)
    }

    /// Sends what the rings hold without waiting, both ways, and leaves it unread; returns how many bytes from `a` and from `b`.
    pub(crate) fn fill_rings(&self) -> Result<[u64; 2]> {
        let before = self.ring_bytes()?;
        let sent = [self.a.fill(UNREAD)?, self.b.fill(UNREAD)?];
        let after = self.ring_bytes()?;
        ensure!(
            (0..2).all(|i| after[i] - before[i] == sent[i] && sent[i] > 0),
            "not in the ring: {sent:?}"
        );
        Ok(sent)
    }

    /// Sends `bytes` both ways at once, by orders with these words, and checks that all of them went
    /// through the ring.
    pub(crate) fn both_ways(&self, bytes: u64, send: &str, receive: &str) -> Result<()> {
        self.through_ring([bytes; 2], || self.any_way(bytes, send, receive))
    }

    /// The same, whether through the ring or not.
    pub(crate) fn any_way(&self, bytes: u64, send: &str, receive: &str) -> Result<()> {
        let mut running = Vec::new();
        for socket in [&self.a, &self.b] {
            running.push(socket.start(&format!("recv bytes={bytes} {receive}"))?);
            running.push(socket.start(&format!("send bytes={bytes} {send}"))?);
        }
        running
            .into_iter()
            .try_for_each(|pending| pending.wait()?.exactly(bytes).map(drop))
    }

    /// Sends `bytes` both ways through all pairs at once.
    pub(crate) fn all_both_ways(pairs: &[Self], bytes: u64) -> Result<()> {
        let mut running = Vec::new();
        for end in pairs.iter().flat_map(|pair| [&pair.a, &pair.b]) {
            running.push(end.start(&format!("recv bytes={bytes} max=5000"))?);
            running.push(end.start(&format!("send bytes={bytes} max=5000"))?);
        }
        running
            .into_iter()
            .try_for_each(|pending| pending.wait()?.exactly(bytes).map(drop))
    }

    /// As [`Pair::finish`], for all at once.
    pub(crate) fn finish_all(pairs: &[Self]) -> Result<()> {
        let ends = || pairs.iter().flat_map(|pair| [&pair.a, &pair.b]);
        let start = |order: &str| {
            ends()
                .map(|end| end.start(order))
                .collect::<Result<Vec<_>>>()
        };
        let shutdowns = start("shutdown how=write")?;
        shutdowns
            .into_iter()
            .try_for_each(|pending| pending.wait()?.clean().map(drop))?;
        let receivers = start("recv")?;
        receivers
            .into_iter()
            .try_for_each(|pending| pending.wait()?.ended(0).map(drop))?;
        let closes = start("close")?;
        closes
            .into_iter()
            .try_for_each(|pending| pending.wait()?.clean().map(drop))
    }

    /// Ends it in order, one end after the other, and checks that nothing was left on the way.
    pub(crate) fn finish(&self) -> Result<()> {
        for (from, to) in [(&self.a, &self.b), (&self.b, &self.a)] {
            from.shutdown("write")?;
            to.receive_all()?.ended(0)?;
        }
        self.a.close()?;
        self.b.close()
    }

    /// Ends it where `b` has ended its direction already, and `a` knows.
    pub(crate) fn finish_after_end(&self) -> Result<()> {
        self.a.receive_all()?.ended(0)?;
        self.a.close()?;
        self.b.receive_all()?.ended(0)?;
        self.b.close()
    }
}

/// Bytes that flow both ways until they are told to stop.
pub(crate) struct Load<'a> {
    pair: &'a Pair,
    senders: [Pending; 2],
    receivers: [Pending; 2],
}

impl<'a> Load<'a> {
    /// Begins, and waits until at least `bytes` have come through both ways.
    pub(crate) fn start(pair: &'a Pair, bytes: u64) -> Result<Self> {
        Self::start_as(pair, bytes, "", "")
    }

    /// The same with orders that have these words.
    pub(crate) fn start_as(pair: &'a Pair, bytes: u64, send: &str, receive: &str) -> Result<Self> {
        let [send, receive] = [format!("send {send}"), format!("recv {receive}")];
        let receivers = [pair.b.start(&receive)?, pair.a.start(&receive)?];
        let senders = [pair.a.start(&send)?, pair.b.start(&send)?];
        let load = Self {
            pair,
            senders,
            receivers,
        };
        load.wait_for(bytes)?;
        Ok(load)
    }

    /// Waits until at least `bytes` more have come through both ways.
    pub(crate) fn wait_for(&self, bytes: u64) -> Result<()> {
        let ends = [&self.pair.a, &self.pair.b];
        for end in ends {
            let received = || Ok::<_, anyhow::Error>(end.call("progress")?.number("received"));
            let start = received()?;
            let (mut last, mut since) = (start, Instant::now());
            while last < start + bytes {
                let now = received()?;
                if now != last {
                    (last, since) = (now, Instant::now());
                }
                ensure!(
                    since.elapsed() < PATIENCE * end.peer().timeout(),
                    "a transfer stands still after {} of {bytes} bytes: {}",
                    last - start,
                    self.result()
                );
                let running = self
                    .senders
                    .iter()
                    .chain(&self.receivers)
                    .all(Pending::is_running);
                ensure!(running, "a transfer ended by itself: {}", self.result());
            }
        }
        Ok(())
    }

    /// Sends a signal to each of the threads.
    pub(crate) fn interrupt(&self) -> Result<()> {
        self.senders
            .iter()
            .chain(&self.receivers)
            .try_for_each(Pending::interrupt)
    }

    fn result(&self) -> String {
        let states = self
            .senders
            .iter()
            .chain(&self.receivers)
            .map(Pending::is_running);
        format!(
            "senders and receivers that run: {:?}",
            states.collect::<Vec<_>>()
        )
    }

    /// Stops all, and closes the connections.
    pub(crate) fn end_all(loads: Vec<Self>, pairs: &[Pair]) -> Result<()> {
        loads.into_iter().try_for_each(Self::stop)?;
        pairs
            .iter()
            .flat_map(|pair| [&pair.a, &pair.b])
            .try_for_each(Socket::close)
    }

    /// The guest of one end is gone: at the other one, that which connected or that which accepted, both calls end, and one of them at least
    /// says why. TCP says it once: who receives after that finds the end of the stream.
    pub(crate) fn lost(self, connected: bool) -> Result<()> {
        let [from_a, from_b] = self.senders;
        let [to_b, to_a] = self.receivers;
        let (sender, receiver) = if connected {
            (from_a, to_a)
        } else {
            (from_b, to_b)
        };
        let [sent, received] = [sender.wait()?, receiver.wait()?];
        let errors = [sent.error().to_owned(), received.error().to_owned()];
        let is_told = errors.iter().any(|error| error == "ECONNRESET");
        let is_over = received.is_at_end() || errors[1] == "ECONNRESET";
        ensure!(
            is_told && is_over && ["ECONNRESET", "EPIPE"].contains(&errors[0].as_str()),
            "calls whose other end was destroyed ended with {errors:?}"
        );
        Ok(())
    }

    /// Stops, and checks that each byte that was sent has come.
    pub(crate) fn stop(self) -> Result<()> {
        let ends = [&self.pair.a, &self.pair.b];
        let mut sent = Vec::new();
        for (end, sender) in ends.iter().zip(self.senders) {
            end.call("stop")?;
            sent.push(sender.wait()?.clean()?.bytes());
        }
        for end in ends {
            end.shutdown("write")?;
        }
        for (receiver, sent) in self.receivers.into_iter().zip(sent) {
            receiver.wait()?.ended(sent)?;
        }
        Ok(())
    }
}
