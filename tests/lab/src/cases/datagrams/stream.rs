// SPDX-License-Identifier: GPL-2.0

//! Datagrams that go one way, one after the other, at a pace that the network keeps up with: what is lost of them the network has not lost.

use anyhow::{Result, ensure};

use super::flow::{Flow, SILENCE_MS, in_order};
use crate::{
    bench::Bench,
    peer::{Answer, Pending},
};

/// Microseconds between two datagrams: much longer than the network needs for one.
const GAP_US: u64 = 5_000;

/// Bytes that the reader's socket takes, so that it loses nothing while its program does not get the processor.
const BUFFER: i32 = 4 << 20;

/// Such a stream, from a flow's first socket to its second one.
pub(super) struct Stream<'a> {
    flow: &'a Flow,
    sending: Pending,
    gathering: Pending,
}

impl<'a> Stream<'a> {
    /// Begins. A flow has one stream: what its sockets say of their progress is of that one.
    pub(super) fn start(flow: &'a Flow) -> Result<Self> {
        flow.b.set("receive-buffer-force", BUFFER)?;
        let gather = format!("gather patient=1 timeout={SILENCE_MS}");
        let blast = format!("blast first=1 max=1400 gap_us={GAP_US} patient=1");
        let gathering = flow.b.start(&gather)?;
        let sending = flow.a.start(&blast)?;
        Ok(Self {
            flow,
            sending,
            gathering,
        })
    }

    /// The number of the next datagram that is sent, or of the last one.
    pub(super) fn position(&self) -> Result<u64> {
        Ok(self.flow.a.call("progress")?.number("sent"))
    }

    /// Waits until so many more have come.
    pub(super) fn wait_for(&self, bench: &Bench, count: u64) -> Result<()> {
        let received = || Ok::<_, anyhow::Error>(self.flow.b.call("progress")?.number("received"));
        let goal = received()? + count;
        bench.wait("more datagrams come", || {
            ensure!(
                self.sending.is_running() && self.gathering.is_running(),
                "a stream has ended by itself"
            );
            Ok(received()? >= goal)
        })
    }

    /// Whether it goes through the ring.
    pub(super) fn is_in_ring(&self, bench: &Bench) -> Result<bool> {
        Ok(self.flow.state(bench, self.flow.source)? == "Ring")
    }

    /// Waits until that is so.
    pub(super) fn wait_in_ring(&self, bench: &Bench) -> Result<()> {
        bench.wait("the stream is in the ring", || self.is_in_ring(bench))
    }

    /// Ends; returns how many datagrams were sent, and what the reader says, which is in order and has nothing twice.
    pub(super) fn stop(self) -> Result<(u64, Answer)> {
        self.flow.a.call("stop")?;
        let sent = self.sending.wait()?.clean()?.number("sent");
        self.flow.b.call("enough")?;
        let answer = in_order(self.gathering.wait()?)?;
        Ok((sent, answer))
    }

    /// The same, where nothing may be lost.
    pub(super) fn stop_whole(self) -> Result<()> {
        let (sent, answer) = self.stop()?;
        ensure!(
            answer.number("received") == sent && answer.number("lost") == 0,
            "{} datagrams of {sent} have come, from {} to {}; lost between those: {}, from {} to {}",
            answer.number("received"),
            answer.number("first"),
            answer.number("last"),
            answer.number("lost"),
            answer.number("first_lost"),
            answer.number("last_lost")
        );
        Ok(())
    }
}
