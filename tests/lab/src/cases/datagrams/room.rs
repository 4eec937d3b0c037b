// SPDX-License-Identifier: GPL-2.0

//! Where datagrams find no room: in a ring that is not read, and in a socket that is not read.

use anyhow::{Context, Result, ensure};
use lab_driver::Machine;

use super::flow::{Flow, Naming, through_ring};
use crate::{
    bench::{Bench, GUEST1, GUEST2},
    travel,
};

/// Datagrams that more than fill a ring and a socket's buffer.
const MANY: u64 = 100_000;

/// Time after which a send gives up, in milliseconds: before what waits for a reader that takes nothing is dropped.
const SEND_TIMEOUT_MS: i32 = 100;

/// Bytes that a small receive buffer is asked to have.
const SMALL: i32 = 8_192;

/// Datagrams that do not fit there.
const BURST: u64 = 200;

/// A receiver that stands still: who sends is told to come again, and has room a moment later, since there may be others to send to.
pub(in crate::cases) fn full_ring(bench: &Bench) -> Result<()> {
    let flow = Flow::in_ring(bench)?;
    let pause = |verb: &str| bench.shell(Machine::Dom0, &format!("xl {verb} {GUEST2}"));
    pause("pause")?;
    let result = fills_up(bench, &flow);
    pause("unpause")?;
    result?;
    // Whatever came meanwhile, in the ring and over the network.
    flow.b.call("gather timeout=1000")?;
    flow.exchange(Naming::Connected, 10, "size=100")?;
    flow.close()
}

fn fills_up(bench: &Bench, flow: &Flow) -> Result<()> {
    let before = bench.counter(GUEST1, "udp_tx_stalled")?;
    let answer = flow
        .a
        .call("blast first=1 count=100000 size=1400 mode=never")?;
    ensure!(
        answer.error() == "EAGAIN",
        "{:?} instead of EAGAIN",
        answer.error()
    );
    let sent = answer.number("sent");
    ensure!(sent > 100, "only {sent} datagrams fit");
    let events = flow.a.call("poll events=4 timeout=20000")?.number("events");
    ensure!(events & 4 != 0, "there is no room for others either");
    ensure!(
        bench.counter(GUEST1, "udp_tx_stalled")? > before,
        "there was room all the time"
    );
    Ok(())
}

/// The same for who waits: the sender sleeps, and goes on afterwards.
pub(in crate::cases) fn full_ring_blocks(bench: &Bench) -> Result<()> {
    let flow = Flow::in_ring(bench)?;
    let waited = bench.counter(GUEST1, "udp_tx_waited")?;
    let gathering = flow.b.start("gather patient=1 timeout=1000")?;
    let sending = travel::while_paused(bench.lab(), GUEST2, || {
        let sending = flow.a.start("blast first=1 size=1400")?;
        sending.wait_asleep()?;
        Ok(sending)
    })?;
    ensure!(
        bench.counter(GUEST1, "udp_tx_waited")? > waited,
        "the ring was not full"
    );
    let sent = || Ok::<_, anyhow::Error>(flow.a.call("progress")?.number("sent"));
    let goal = sent()? + 1_000;
    bench.wait("the sender goes on", || Ok(sent()? >= goal))?;
    flow.a.call("stop")?;
    sending.wait()?.clean()?;
    flow.b.call("enough")?;
    // Who stands still for so long loses some, and the order (protocol §10.5).
    let doubled = gathering.wait()?.clean()?.number("doubled");
    ensure!(doubled == 0, "{doubled} datagrams came twice");
    flow.exchange(Naming::Connected, 10, "size=100")?;
    flow.close()
}

/// The same for who waits for a while only: SO_SNDTIMEO.
pub(in crate::cases) fn full_ring_times_out(bench: &Bench) -> Result<()> {
    let flow = Flow::in_ring(bench)?;
    flow.a.set("send-timeout", SEND_TIMEOUT_MS)?;
    let waited = bench.counter(GUEST1, "udp_tx_waited")?;
    let answer = travel::while_paused(bench.lab(), GUEST2, || {
        flow.a
            .call(&format!("blast first=1 count={MANY} size=1400"))
    })?;
    ensure!(
        answer.error() == "EAGAIN",
        "{:?} instead of EAGAIN after {} datagrams",
        answer.error(),
        answer.number("sent")
    );
    ensure!(
        answer.number("sent") > 100,
        "only {} datagrams fit",
        answer.number("sent")
    );
    ensure!(
        bench.counter(GUEST1, "udp_tx_waited")? > waited,
        "the ring was not full"
    );
    flow.b.call("gather timeout=1000")?;
    flow.exchange(Naming::Connected, 10, "size=100")?;
    flow.close()
}

/// What the second guest's kernel has counted.
struct Drops {
    /// Datagrams for which a buffer had no room.
    buffer_errors: u64,
    /// Datagrams that came, and were not for a program.
    errors: u64,
    /// What the socket at a port has dropped.
    of_socket: u64,
}

impl Drops {
    fn now(bench: &Bench, port: u16) -> Result<Self> {
        let text = bench.shell(GUEST2, "grep '^Udp:' /proc/net/snmp")?;
        let mut lines = text.lines();
        let (names, values) = lines.next().zip(lines.next()).context("no counters")?;
        let find = |wanted: &str| {
            let mut pairs = names.split_whitespace().zip(values.split_whitespace());
            let found = pairs.find(|(name, _)| *name == wanted);
            let (_, value) = found.with_context(|| format!("no counter {wanted}"))?;
            value.parse::<u64>().context(wanted.to_owned())
        };
        let sockets = bench.shell(GUEST2, "cat /proc/net/udp")?;
        let local = format!(":{port:04X}");
        let line = sockets.lines().find(|line| {
            let address = line.split_whitespace().nth(1);
            address.is_some_and(|address| address.ends_with(&local))
        });
        let drops = line.and_then(|line| line.split_whitespace().last());
        Ok(Self {
            buffer_errors: find("RcvbufErrors")?,
            errors: find("InErrors")?,
            of_socket: drops.context("no such socket")?.parse()?,
        })
    }
}

/// A socket with a small buffer, which nobody reads: what it has no room for is dropped, and counted where it is for others.
pub(in crate::cases) fn receive_buffer_is_full(bench: &Bench) -> Result<()> {
    let flow = Flow::in_ring(bench)?;
    flow.b.set("receive-buffer", SMALL)?;
    let port = flow.to.port();
    let before = Drops::now(bench, port)?;
    let delivered = || bench.counter(GUEST2, "udp_rx_datagrams");
    let (delivered_before, sent_before) = (delivered()?, through_ring(bench, GUEST1)?);
    flow.a
        .call(&format!("blast first=1 count={BURST} size=1000"))?
        .clean()?;
    bench.wait("all are delivered", || {
        Ok(delivered()? == delivered_before + BURST)
    })?;
    let sent = through_ring(bench, GUEST1)? - sent_before;
    ensure!(sent == BURST, "{sent} of {BURST} went through the ring");
    let received = flow.b.call("gather timeout=500")?.clean()?;
    let received = received.number("received");
    ensure!(
        received > 0 && received < BURST,
        "{received} of {BURST} found room"
    );
    let after = Drops::now(bench, port)?;
    let counted = [
        after.buffer_errors - before.buffer_errors,
        after.errors - before.errors,
        after.of_socket - before.of_socket,
    ];
    ensure!(
        counted == [BURST - received; 3],
        "{} were dropped, and RcvbufErrors, InErrors and the socket's drops have grown by {counted:?}",
        BURST - received
    );
    flow.close()
}
