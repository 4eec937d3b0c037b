// SPDX-License-Identifier: GPL-2.0

//! The ends of connections: each call returns what it would return over TCP.

use anyhow::{Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUESTS},
    pair::Pair,
    peer::Socket,
};

/// Bytes that a ring has room for from the beginning.
const SOME: u64 = 12_000;

/// More bytes than any ring and TCP have room for.
const TOO_MANY: u64 = 64 << 20;

/// Bytes for a transfer that takes a while.
const BYTES: u64 = 1 << 20;

/// Events of poll(2): there is something to read; the other end sends no more.
const POLL_IN: u64 = 0x1;
const POLL_READ_HANG_UP: u64 = 0x2000;

/// Puts bytes into the ring from one end, all of which stay there; returns how many.
fn fill(pair: &Pair, from: &Socket) -> Result<u64> {
    let before = pair.ring_bytes()?;
    let sent = from.fill(SOME)?;
    let after = pair.ring_bytes()?;
    let moved = after[0] + after[1] - before[0] - before[1];
    ensure!(
        sent > 0 && moved == sent,
        "{moved} of {sent} bytes are in the ring"
    );
    Ok(sent)
}

/// One end ends its direction first, behind unread bytes; the other one still sends for a while.
fn half_close(pair: &Pair, first: &Socket, second: &Socket) -> Result<()> {
    let sent = fill(pair, first)?;
    first.shutdown("write")?;
    second.receive_all()?.ended(sent)?;
    let sending = second.start(&format!("send bytes={BYTES}"))?;
    first.receive(BYTES)?;
    sending.wait()?.exactly(BYTES)?;
    let sent = fill(pair, second)?;
    second.close()?;
    first.receive_all()?.ended(sent)?;
    first.close()
}

pub(super) fn half_close_connecting_first(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    half_close(&pair, &pair.a, &pair.b)
}

pub(super) fn half_close_accepting_first(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    half_close(&pair, &pair.b, &pair.a)
}

/// Both end their directions before either reads.
pub(super) fn half_close_both_at_once(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    let sent = [fill(&pair, &pair.a)?, fill(&pair, &pair.b)?];
    pair.a.shutdown("write")?;
    pair.b.shutdown("write")?;
    pair.a.receive_all()?.ended(sent[1])?;
    pair.b.receive_all()?.ended(sent[0])?;
    pair.a.close()?;
    pair.b.close()
}

/// poll sees the end of the stream as it does over TCP, and so does a receiver that sleeps in it.
pub(super) fn poll_sees_the_end(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    let wanted = POLL_IN | POLL_READ_HANG_UP;
    let polling = pair.a.start(&format!("poll events={POLL_READ_HANG_UP}"))?;
    let receivers = ["epoll", "edge", "select"].map(|mode| -> Result<_> {
        let pair = bench.pair()?;
        let receiver = pair.a.start(&format!("recv mode={mode}"))?;
        receiver.wait_asleep()?;
        Ok((pair, receiver))
    });
    polling.wait_asleep()?;
    pair.b.shutdown("write")?;
    polling.wait()?;
    let events = pair
        .a
        .call(&format!("poll events={wanted}"))?
        .number("events");
    ensure!(events & wanted == wanted, "poll says {events:#x}");
    for receiver in receivers {
        let (pair, receiver) = receiver?;
        pair.b.close()?;
        receiver.wait()?.ended(0)?;
        pair.a.close()?;
    }
    pair.finish_after_end()
}

/// A reset that follows data: first all data, then `ECONNRESET`, and then the end.
pub(super) fn reset_behind_data(bench: &Bench) -> Result<()> {
    for _ in 0..3 {
        let pair = bench.pair()?;
        let sent = fill(&pair, &pair.a)?;
        pair.a.set("linger", 0)?;
        pair.a.close()?;
        pair.b.receive_all()?.failed(sent, "ECONNRESET")?;
        pair.b.receive_all()?.ended(0)?;
        pair.b.close()?;
    }
    Ok(())
}

/// Closing with unread data tells the other end so.
pub(super) fn close_with_unread_data(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    fill(&pair, &pair.a)?;
    pair.b.close()?;
    pair.a.receive_all()?.failed(0, "ECONNRESET")?;
    let [_, before] = pair.a.peer().signals(None)?;
    pair.a.call("send bytes=1")?.failed(0, "EPIPE")?;
    let [_, after] = pair.a.peer().signals(None)?;
    ensure!(after == before + 1, "{} times SIGPIPE", after - before);
    pair.a.close()
}

/// A sender that waits for room hears of the reset.
pub(super) fn close_wakes_sender(bench: &Bench) -> Result<()> {
    for mode in ["block", "poll", "edge"] {
        let pair = bench.pair()?;
        let sending = pair
            .a
            .start(&format!("send bytes={TOO_MANY} mode={mode}"))?;
        sending.wait_asleep()?;
        pair.b.close()?;
        let error = sending.wait()?.error().to_owned();
        ensure!(
            ["ECONNRESET", "EPIPE"].contains(&error.as_str()),
            "{mode}: {error:?}"
        );
        pair.a.close()?;
    }
    Ok(())
}

/// Who goes on sending to one that has closed gets `EPIPE` and SIGPIPE.
pub(super) fn send_to_closed(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    pair.b.close()?;
    let [_, before] = pair.a.peer().signals(None)?;
    let answer = pair.a.call(&format!("send bytes={TOO_MANY} max=1000"))?;
    ensure!(
        ["EPIPE", "ECONNRESET"].contains(&answer.error()),
        "{:?} after {}",
        answer.error(),
        answer.bytes()
    );
    pair.a.call("send bytes=1")?.failed(0, "EPIPE")?;
    let [_, after] = pair.a.peer().signals(None)?;
    ensure!(after > before, "no SIGPIPE");
    pair.a.close()
}

/// shutdown(2) wakes this end's own sleepers.
pub(super) fn shutdown_wakes_own_calls(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    let receiving = pair.a.start("recv")?;
    receiving.wait_asleep()?;
    pair.a.shutdown("read")?;
    receiving.wait()?.ended(0)?;
    let sending = pair.a.start(&format!("send bytes={TOO_MANY}"))?;
    sending.wait_asleep()?;
    pair.a.shutdown("write")?;
    let answer = sending.wait()?;
    ensure!(answer.error() == "EPIPE", "{:?}", answer.error());
    pair.b.receive_all()?.ended(answer.bytes())?;
    pair.b.close()?;
    pair.a.close()
}

/// SO_RCVTIMEO and SO_SNDTIMEO end calls with `EAGAIN`, and nothing is lost.
pub(super) fn timeouts(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    pair.a.set("receive-timeout", 300)?;
    pair.a.receive_all()?.failed(0, "EAGAIN")?;
    pair.b.send(1000)?;
    pair.a.call("recv bytes=2000")?.failed(1000, "EAGAIN")?;
    pair.a.set("send-timeout", 300)?;
    let answer = pair.a.call(&format!("send bytes={TOO_MANY}"))?;
    ensure!(
        answer.error() == "EAGAIN",
        "{:?} after {}",
        answer.error(),
        answer.bytes()
    );
    pair.b.receive(answer.bytes())?;
    pair.a.set("receive-timeout", 0)?;
    pair.a.set("send-timeout", 0)?;
    pair.through_ring([1000, 1000], || pair.exchange(1000))?;
    pair.finish()
}

/// A guest is paused that has not heard of all bytes: TCP_USER_TIMEOUT ends the connection for who sent them. When it goes on, it
/// has the bytes, and its own next ones are refused.
pub(super) fn peer_is_paused_for_too_long(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    pair.a.set("user-timeout", 2000)?;
    let sent = fill(&pair, &pair.a)?;
    let timeouts = bench.counter(GUEST1, "user_timeouts")?;
    bench.shell(Machine::Dom0, "xl pause guest2")?;
    let send_and_wait = || {
        pair.a.send(SOME)?;
        pair.a.receive_all()?.failed(0, "ETIMEDOUT")
    };
    let ended = send_and_wait();
    bench.shell(Machine::Dom0, "xl unpause guest2")?;
    ended?;
    ensure!(
        bench.counter(GUEST1, "user_timeouts")? == timeouts + 1,
        "it was not the ring's time that ended"
    );
    pair.a.close()?;
    pair.b.receive(sent + SOME)?;
    let answer = pair.b.call(&format!("send bytes={TOO_MANY} max=1000"))?;
    ensure!(
        ["EPIPE", "ECONNRESET"].contains(&answer.error()),
        "{:?} after {}",
        answer.error(),
        answer.bytes()
    );
    pair.b.close()
}

/// FIONREAD and SO_RCVLOWAT count what is in the ring.
pub(super) fn unread_is_counted(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    let sent = fill(&pair, &pair.a)?;
    let unread = pair.b.call("unread")?.bytes();
    ensure!(unread == sent, "{unread} unread instead of {sent}");
    pair.b.set("receive-low-water", (sent + 1) as i32)?;
    let events = pair.b.call("poll events=1 timeout=0")?.number("events");
    ensure!(
        events == 0,
        "readable below the low-water mark: {events:#x}"
    );
    pair.a.send(1)?;
    let polled = pair.b.start("poll events=1")?.wait()?;
    ensure!(
        polled.number("events") == POLL_IN,
        "{:#x}",
        polled.number("events")
    );
    pair.b.receive(sent + 1)?;
    pair.finish()
}

/// Both ends are shut down, and stay: there is nothing more to say.
pub(super) fn shut_down_at_both_ends(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    pair.a.shutdown("both")?;
    pair.b.shutdown("both")?;
    let notices = || -> Result<Vec<u64>> {
        let counts = GUESTS.map(|guest| bench.counter(guest, "notices_sent"));
        counts.into_iter().collect()
    };
    let mut last = notices()?;
    bench.wait("the guests say nothing any more", || {
        let now = notices()?;
        Ok(std::mem::replace(&mut last, now.clone()) == now)
    })?;
    pair.a.close()?;
    pair.b.close()
}

/// A connection that is over has no place in the report, though the other end is not closed yet.
pub(super) fn report_forgets_the_closed(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    pair.a.shutdown("write")?;
    pair.b.receive_all()?.ended(0)?;
    pair.b.close()?;
    pair.a.receive_all()?.ended(0)?;
    let port = format!("local_port={} ", pair.a.port());
    pair.a.close()?;
    bench.wait("the report forgets the connection", || {
        Ok(!bench.report(GUEST1, "connections")?.contains(&port))
    })
}
