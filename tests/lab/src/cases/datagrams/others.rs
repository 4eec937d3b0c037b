// SPDX-License-Identifier: GPL-2.0

//! Datagrams that are left on the network, and those that a program has its own rules for: all go on as without the modules.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};

use super::flow::{Flow, LONG, Naming, ROUNDS, gather, in_order, through_ring};
use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS},
    peer::Socket,
};

/// Datagrams.
const COUNT: u64 = 100;

/// How they are sent: slow enough for the network.
const SLOWLY: &str = "first=1 count=100 size=100 gap_us=5000";

/// A group that nobody else is in.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 77, 0, 1);

/// Sends datagrams to a socket; all come.
fn all_come(from: &Socket, order: &str, to: &Socket) -> Result<()> {
    let gathering = gather(to)?;
    from.call(order)?.clean()?;
    let received = in_order(gathering.wait()?)?.number("received");
    ensure!(received == COUNT, "{received} of {COUNT} have come");
    Ok(())
}

fn nothing_through_rings(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        let count = through_ring(bench, guest)?;
        ensure!(
            count == 0,
            "{count} datagrams of {guest} went through a ring"
        );
    }
    Ok(())
}

/// An address that is not of one guest alone.
fn to_many(
    bench: &Bench,
    to: Ipv4Addr,
    prepare: impl FnOnce(&Socket, &Socket) -> Result<()>,
) -> Result<()> {
    bench.reload(LONG)?;
    // There is a channel.
    bench.pair()?.finish()?;
    let port = bench.port();
    let here = SocketAddr::new(GUEST1.address().into(), bench.port());
    let a = bench.peer(GUEST1)?.udp(here, None)?;
    let there = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let b = bench.peer(GUEST2)?.udp(there, None)?;
    prepare(&a, &b)?;
    all_come(&a, &format!("blast to={to}:{port} {SLOWLY}"), &b)?;
    nothing_through_rings(bench)?;
    a.close()?;
    b.close()
}

/// Datagrams to a group of which the other guest is a member.
pub(in crate::cases) fn multicast(bench: &Bench) -> Result<()> {
    to_many(bench, GROUP, |_, b| {
        let at = GUEST2.address();
        b.call(&format!("join group={GROUP} at={at}"))?
            .clean()
            .map(drop)
    })
}

/// Datagrams to all, of this network and of any.
pub(in crate::cases) fn broadcast(bench: &Bench) -> Result<()> {
    let [a, b, c, _] = GUEST1.address().octets();
    for to in [Ipv4Addr::new(a, b, c, 255), Ipv4Addr::BROADCAST] {
        to_many(bench, to, |a, _| a.set("broadcast", 1))?;
    }
    Ok(())
}

/// UDP-Lite, if the guests' kernel has it.
pub(in crate::cases) fn udp_lite(bench: &Bench) -> Result<()> {
    bench.reload(LONG)?;
    bench.pair()?.finish()?;
    let flow = match Flow::lite(bench) {
        Err(error) if format!("{error:#}").contains("EPROTONOSUPPORT") => {
            println!("    this kernel has no UDP-Lite");
            return Ok(());
        }
        flow => flow?,
    };
    flow.exchange(Naming::Connected, ROUNDS, "max=1400")?;
    nothing_through_rings(bench)?;
    for guest in GUESTS {
        let state = flow.state(bench, guest)?;
        ensure!(state.is_empty(), "{guest} knows the flow: {state}");
    }
    flow.close()
}

/// What a socket asks for that a record cannot express, while its flow is in the ring: the flow leaves, with a reason, and nothing is lost.
pub(in crate::cases) fn left_alone(bench: &Bench) -> Result<()> {
    let stamps_of_what_leaves = 0x12;
    let three_that_mean_nothing = 0x0001_0101;
    for (option, value, reason) in [
        ("timestamping", stamps_of_what_leaves, "timestamps"),
        ("ip-options", three_that_mean_nothing, "option"),
    ] {
        let flow = Flow::in_ring(bench)?;
        let declined = bench.declines(GUEST1, reason)?[0];
        let before = through_ring(bench, GUEST1)?;
        flow.a.set(option, value)?;
        all_come(&flow.a, &format!("blast {SLOWLY}"), &flow.b)?;
        let moved = through_ring(bench, GUEST1)? - before;
        ensure!(
            moved == 0,
            "{option}: {moved} datagrams went through the ring"
        );
        ensure!(
            bench.declines(GUEST1, reason)?[0] > declined,
            "{option}: the reason is not counted"
        );
        flow.close()?;
    }
    Ok(())
}

/// SO_ATTACH_FILTER at the reader: the filter sees what comes through the ring, and what it does not want does not come.
pub(in crate::cases) fn socket_filter(bench: &Bench) -> Result<()> {
    let flow = Flow::in_ring(bench)?;
    flow.b.call("filter longest=500")?.clean()?;
    let before = through_ring(bench, GUEST1)?;
    let gathering = gather(&flow.b)?;
    let order = format!("blast first=1 count={COUNT} sizes=500,501 gap_us=5000");
    flow.a.call(&order)?.clean()?;
    let answer = in_order(gathering.wait()?)?;
    ensure!(
        answer.number("received") == COUNT / 2 && answer.number("bytes") == COUNT / 2 * 500,
        "{} datagrams with {} bytes passed the filter, {} with 500 bytes each should",
        answer.number("received"),
        answer.number("bytes"),
        COUNT / 2
    );
    let count = through_ring(bench, GUEST1)? - before;
    ensure!(count == COUNT, "{count} of {COUNT} went through the ring");
    flow.close()
}
