// SPDX-License-Identifier: GPL-2.0

//! A frontend that is removed gives its connections back to TCP; they live on.

use anyhow::{Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS},
    cases::leaks,
    pair::{Load, Pair},
    peer::Pending,
};

/// Bytes that flow through the ring, before.
const BYTES: u64 = 2 << 20;

/// Bytes that flow over TCP, in between and after: an emulated network takes minutes for more.
const BYTES_ON_TCP: u64 = BYTES / 16;

/// Bytes that flow over TCP beside others.
const LITTLE: u64 = 20_000;

/// Bytes of one message.
const FEW: u64 = 100;

/// Connections under load at once.
const CONNECTIONS: usize = 3;

/// Removes frontends while bytes flow both ways, and then loads them again.
fn under_load(bench: &Bench, guests: &[Machine]) -> Result<()> {
    let pairs: Vec<Pair> = (0..CONNECTIONS)
        .map(|_| bench.pair())
        .collect::<Result<_>>()?;
    let mut loads = Vec::new();
    for pair in &pairs {
        let before = pair.ring_bytes()?;
        loads.push(Load::start(pair, BYTES)?);
        let after = pair.ring_bytes()?;
        ensure!(
            (0..2).all(|i| after[i] - before[i] >= BYTES),
            "the load is not on the ring: {before:?} {after:?}"
        );
    }
    for guest in guests {
        bench.unload(*guest)?;
        loads
            .iter()
            .try_for_each(|load| load.wait_for(BYTES_ON_TCP))?;
    }
    for guest in guests {
        bench.load(*guest, "")?;
    }
    loads
        .iter()
        .try_for_each(|load| load.wait_for(BYTES_ON_TCP))?;
    Load::end_all(loads, &pairs)?;
    leaks::nothing_is_left_now(bench)
}

pub(super) fn under_load_connecting_side(bench: &Bench) -> Result<()> {
    under_load(bench, &[GUEST1])
}

pub(super) fn under_load_accepting_side(bench: &Bench) -> Result<()> {
    under_load(bench, &[GUEST2])
}

pub(super) fn under_load_both_sides(bench: &Bench) -> Result<()> {
    under_load(bench, &[GUEST1, GUEST2])
}

/// Nothing more is accelerated in a guest; when the connections that were have ended, its module goes. One that came meanwhile goes on
/// over TCP, and moves to the ring when the module is back.
pub(super) fn disabled_first(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        let (old, resets) = (bench.pair()?, bench.resets()?);
        let load = Load::start(&old, BYTES)?;
        bench.set(guest, "enabled", "0")?;
        let new = bench.plain_pair()?;
        let load_on_tcp = Load::start(&new, LITTLE)?;
        let before = old.ring_bytes()?;
        load.wait_for(BYTES)?;
        let after = old.ring_bytes()?;
        ensure!(
            // What was in the rings before has come, too: 1 MiB at most.
            (0..2).all(|i| after[i] - before[i] >= BYTES / 2) && old.is_accelerated()?,
            "what was on the ring has left it: {before:?} {after:?}"
        );
        load.stop()?;
        old.a.close()?;
        old.b.close()?;
        bench.wait("the module has no connection any more", || {
            Ok(bench.report(guest, "connections")?.is_empty())
        })?;
        ensure!(new.ring_bytes()? == [0, 0], "bytes went through a ring");
        ensure!(bench.resets()? == resets, "connections were reset");
        bench.unload(guest)?;
        load_on_tcp.wait_for(LITTLE)?;
        bench.load(guest, "")?;
        bench.wait_on_ring(std::slice::from_ref(&new))?;
        load_on_tcp.wait_for(BYTES)?;
        load_on_tcp.stop()?;
        new.a.close()?;
        new.b.close()?;
    }
    leaks::nothing_is_left_now(bench)
}

/// Receivers that sleep, in the call or in poll, sleep on, and are woken by what comes later.
pub(super) fn blocked_receivers(bench: &Bench) -> Result<()> {
    for guest in [GUEST1, GUEST2] {
        let pairs = [bench.pair()?, bench.pair()?, bench.pair()?];
        let mut waiting = Vec::new();
        for (pair, mode) in pairs.iter().zip(["block", "poll", "edge"]) {
            for end in [&pair.a, &pair.b] {
                let pending = end.start(&format!("recv bytes=1000 mode={mode}"))?;
                pending.wait_asleep()?;
                waiting.push(pending);
            }
        }
        bench.unload(guest)?;
        ensure!(
            waiting.iter().all(|pending| pending.is_running()),
            "a receiver was woken by the removal"
        );
        for pair in &pairs {
            pair.a.send(1000)?;
            pair.b.send(1000)?;
        }
        waiting
            .into_iter()
            .try_for_each(|pending| pending.wait()?.exactly(1000).map(drop))?;
        pairs.iter().try_for_each(Pair::finish)?;
        bench.load(guest, "")?;
        bench.wait_peers()?;
    }
    Ok(())
}

/// At the other end a program hangs in the middle of a receive, and one in a send, as their memory does not come: their connections are lost with
/// the module, and no others.
pub(super) fn beside_calls_that_hang(bench: &Bench) -> Result<()> {
    let [receives, sends, unread, busy] =
        [bench.pair()?, bench.pair()?, bench.pair()?, bench.pair()?];
    let load = Load::start(&busy, BYTES)?;
    let sent = unread.fill_rings()?;
    receives.a.send(LITTLE)?;
    let hanging = [
        receives.b.start("hang how=recv")?,
        sends.b.start("hang how=send")?,
    ];
    hanging.iter().try_for_each(Pending::wait_asleep)?;
    let resets = bench.counter(GUEST2, "connections_reset")?;

    bench.unload(GUEST1)?;

    ensure!(
        hanging.iter().all(Pending::is_running),
        "a call that hangs has ended"
    );
    load.wait_for(BYTES_ON_TCP)?;
    unread.a.send(LITTLE)?;
    unread.b.receive(sent[0] + LITTLE)?;
    unread.a.receive(sent[1])?;
    unread.finish()?;
    receives.b.peer().order("unhang")?.wait()?;
    hanging
        .into_iter()
        .try_for_each(|pending| pending.wait().map(drop))?;
    for pair in [receives, sends] {
        pair.a.receive_all()?.failed(0, "ECONNRESET")?;
        pair.a.close()?;
        pair.b.close()?;
    }
    bench.load(GUEST1, "")?;
    bench.wait_peers()?;
    bench.wait_on_ring(std::slice::from_ref(&busy))?;
    load.wait_for(BYTES)?;
    load.stop()?;
    let resets = bench.counter(GUEST2, "connections_reset")? - resets;
    ensure!(resets <= 2, "{resets} connections were reset");
    leaks::nothing_is_left_now(bench)
}

/// Bytes that nobody has read yet come first, whoever's frontend is removed.
pub(super) fn unread_bytes(bench: &Bench) -> Result<()> {
    for guest in [GUEST1, GUEST2] {
        let pair = bench.pair()?;
        let sent = pair.fill_rings()?;
        bench.unload(guest)?;
        pair.a.send(5000)?;
        pair.b.send(5000)?;
        pair.b.receive(sent[0] + 5000)?;
        pair.a.receive(sent[1] + 5000)?;
        pair.finish()?;
        bench.load(guest, "")?;
        bench.wait_peers()?;
    }
    Ok(())
}

/// Bytes in the ring lie between bytes of TCP, of which the reader has read those before. It may have had those on both sides in one packet.
pub(super) fn unread_between_bytes_of_tcp(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        let pairs = [bench.pair()?, bench.pair()?, bench.pair()?];
        for pair in &pairs {
            pair.through_ring([2 * FEW, 0], || {
                // What has control data goes over TCP.
                for method in ["control", "send", "control", "send", "control"] {
                    let order = format!("send bytes={FEW} method={method}");
                    pair.a.call(&order)?.exactly(FEW)?;
                }
                Ok(())
            })?;
            bench.wait("all of it has come", || {
                Ok(pair.b.call("unread")?.bytes() == 5 * FEW)
            })?;
            pair.b.receive(FEW)?;
        }
        bench.unload(guest)?;
        for pair in &pairs {
            pair.b.receive(4 * FEW)?;
            pair.exchange(LITTLE)?;
            pair.finish()?;
        }
        bench.load(guest, "")?;
        bench.wait_peers()?;
    }
    Ok(())
}

/// Connections that the other end has closed while its bytes are unread, or when all was read, come to their ends; others live on.
pub(super) fn closed_by_the_other_end(bench: &Bench) -> Result<()> {
    for (guest, other) in [(GUEST1, GUEST2), (GUEST2, GUEST1)] {
        let [living, read, unread] = [bench.pair()?, bench.pair()?, bench.pair()?];
        let [near, far] = match guest {
            GUEST1 => [[&read.a, &unread.a], [&read.b, &unread.b]],
            _ => [[&read.b, &unread.b], [&read.a, &unread.a]],
        };
        living.exchange(5000)?;
        far[1].send(5000)?;
        far.iter().try_for_each(|end| end.close())?;
        bench.wait("the closed ends are gone", || {
            Ok(bench.report(other, "connections")?.lines().count() == 1)
        })?;
        let resets = bench.counter(other, "connections_reset")?;
        bench.unload(guest)?;
        near[0].receive_all()?.ended(0)?;
        near[1].receive_all()?.ended(5000)?;
        living.exchange(5000)?;
        living.finish()?;
        ensure!(
            resets == bench.counter(other, "connections_reset")?,
            "connections were reset"
        );
        near.iter().try_for_each(|end| end.close())?;
        bench.load(guest, "")?;
        bench.wait_peers()?;
    }
    Ok(())
}

/// An urgent byte that is on its way before there is a ring, and that nobody has read past.
pub(super) fn urgent_byte(bench: &Bench) -> Result<()> {
    let pair = bench.plain_pair()?;
    pair.a.send_urgent()?;
    let mut unread = 0;
    bench.wait("the other direction is on the ring", || {
        pair.b.send(100)?;
        pair.a.receive(100)?;
        pair.a.send(100)?;
        unread += 100;
        Ok(pair.b.state()?.word("sends_to") == "ring")
    })?;
    ensure!(
        pair.ring_bytes()?[0] == 0,
        "bytes behind the urgent one are in the ring"
    );
    bench.unload(GUEST2)?;
    pair.b.receive(unread)?;
    pair.exchange(5000)?;
    pair.finish()?;
    bench.load(GUEST2, "")?;
    bench.wait_peers()
}
