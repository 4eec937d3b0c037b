// SPDX-License-Identifier: GPL-2.0

//! Rules of either guest and of Dom0 hold for datagrams, whichever way they go.

use std::{collections::BTreeSet, net::SocketAddr};

use anyhow::{Result, ensure};
use lab_driver::Machine;

use super::{
    flow::{Flow, LONG, Naming, ROUNDS, SILENCE_MS, all_through_ring, through_ring},
    stream::Stream,
};
use crate::{
    bench::{Bench, GUEST1, GUEST2},
    cases::addresses::Change,
};

/// Datagrams that a rule is to drop.
const COUNT: u64 = 20;

/// Seconds for which Dom0 knows of a request: much longer than a flow stays in the ring where the setting is 2, and shorter than it takes to leave it
/// five times.
const TRACKED_S: u32 = 8;

/// How often a request is refused until it is taken for one that does not become right by waiting.
const REFUSALS: u64 = 5;

/// A rule of the receiving guest holds for what comes through the ring, from the moment that it is there.
pub(in crate::cases) fn receiver_filters(bench: &Bench) -> Result<()> {
    let flow = Flow::in_ring(bench)?;
    let port = flow.to.port();
    bench.shell(
        GUEST2,
        &format!("nft 'table inet lab {{ chain input {{ type filter hook input priority 0; udp dport {port} counter drop; }}; }}'"),
    )?;
    let result = dropped(bench, &flow);
    bench.shell(GUEST2, "nft delete table inet lab")?;
    result?;
    flow.exchange(Naming::Connected, ROUNDS, "max=1400")?;
    flow.close()
}

fn dropped(bench: &Bench, flow: &Flow) -> Result<()> {
    let gathering = flow.b.start("gather timeout=1000")?;
    flow.a.call("blast first=1 count=50 size=100")?.clean()?;
    let came = gathering.wait()?.number("received");
    ensure!(came == 0, "{came} datagrams passed the rule");
    let rules = bench.shell(GUEST2, "nft list table inet lab")?;
    ensure!(
        rules.contains("packets 50 "),
        "the rule has not seen all: {rules}"
    );
    Ok(())
}

/// A flow that a rule of the receiving guest drops from the beginning does not get to the ring.
pub(in crate::cases) fn receiver_filters_from_the_beginning(bench: &Bench) -> Result<()> {
    bench.reload(LONG)?;
    let flow = Flow::usual(bench, Naming::Connected)?;
    let port = flow.to.port();
    bench.shell(
        GUEST2,
        &format!("nft 'table inet lab {{ chain input {{ type filter hook input priority 0; udp dport {port} drop; }}; }}'"),
    )?;
    let result = stays_on_network(bench, &flow, "not-seen");
    bench.shell(GUEST2, "nft delete table inet lab")?;
    result?;
    flow.close()
}

/// Sends until the request for a flow has been given up for `reason`: none of it has gone through the ring.
pub(super) fn stays_on_network(bench: &Bench, flow: &Flow, reason: &str) -> Result<()> {
    // There is a channel: what does not come does not make the receiver want one, and it may be the one to offer.
    bench.pair()?.finish()?;
    let before = bench.declines(flow.source, reason)?;
    bench.wait("the request is given up", || {
        send_some(flow)?;
        Ok(bench.declines(flow.source, reason)? != before)
    })?;
    ensure!(
        through_ring(bench, flow.source)? == 0,
        "datagrams went through a ring"
    );
    Ok(())
}

/// Sends until the peer has refused a new flow several times for `reason`: none of it has gone through the ring. The modules were just
/// loaded.
pub(super) fn is_refused(bench: &Bench, flow: &Flow, reason: &str) -> Result<()> {
    bench.pair()?.finish()?;
    bench.wait(&format!("the request is refused as {reason}"), || {
        send_some(flow)?;
        Ok(bench.declines(flow.source, reason)?[1] >= REFUSALS)
    })?;
    ensure!(
        through_ring(bench, flow.source)? == 0,
        "datagrams went through a ring"
    );
    Ok(())
}

/// Sends a few datagrams.
pub(super) fn send_some(flow: &Flow) -> Result<()> {
    let order = format!("blast to={} first=1 count=5 size=100", flow.to);
    flow.a.call(&order).map(drop)
}

/// Puts a rule into a table of its own, until that is dropped.
fn rule<'a>(
    bench: &'a Bench,
    machine: Machine,
    family: &str,
    chain: &str,
    rule: &str,
) -> Result<Change<'a>> {
    let line = format!(
        "nft 'table {family} lab {{ chain lab {{ type filter hook {chain} priority 0; {rule}; }}; }}'"
    );
    let undo = format!("nft delete table {family} lab");
    Change::make(bench, machine, &line, &undo)
}

/// A rule somewhere on the way, behind the one at which datagrams leave for the ring, holds, at the latest, when the flow's time in the
/// ring is over.
fn holds_in_time(bench: &Bench, machine: Machine, family: &str, chain: &str) -> Result<()> {
    bench.reload("udp=1")?;
    let flow = Flow::usual(bench, Naming::Connected)?;
    flow.enter(bench)?;
    let port = flow.to.port();
    let dropping = rule(
        bench,
        machine,
        family,
        chain,
        &format!("udp dport {port} drop"),
    )?;
    bench.wait("nothing comes any more", || {
        let gathering = flow.b.start("gather timeout=500")?;
        let order = format!("blast first=1 count={COUNT} size=100");
        flow.a.call(&order)?.clean()?;
        Ok(gathering.wait()?.number("received") == 0)
    })?;
    drop(dropping);
    flow.enter(bench)?;
    flow.close()
}

/// A rule in Dom0 against a flow that is in the ring.
pub(in crate::cases) fn dom0_filters(bench: &Bench) -> Result<()> {
    holds_in_time(bench, Machine::Dom0, "bridge", "forward")
}

/// A rule at the device of the guest that sends, which datagrams in the ring do not get to.
pub(in crate::cases) fn sender_filters_at_its_device(bench: &Bench) -> Result<()> {
    holds_in_time(bench, GUEST1, "netdev", "egress device eth0")
}

/// A flow that a rule in Dom0 drops from the beginning does not get to the ring.
pub(in crate::cases) fn dom0_filters_from_the_beginning(bench: &Bench) -> Result<()> {
    bench.reload(LONG)?;
    let flow = Flow::usual(bench, Naming::Connected)?;
    let drops = format!("udp dport {} drop", flow.to.port());
    let _rule = rule(bench, Machine::Dom0, "bridge", "forward", &drops)?;
    is_refused(bench, &flow, "not-seen")?;
    let came = flow.b.call("gather timeout=500")?.number("received");
    ensure!(came == 0, "{came} datagrams passed the rule");
    flow.close()
}

/// Dom0 lets requests and what belongs to them pass, and nothing else, and forgets a request when none of that was seen for a while. The server
/// alone sends after the first requests, for longer than that: its flow is on the network often enough.
pub(in crate::cases) fn dom0_tracks(bench: &Bench) -> Result<()> {
    bench.reload("udp=2")?;
    bench.shell(
        Machine::Dom0,
        "modprobe nf_conntrack_bridge; modprobe nft_ct",
    )?;
    let flow = Flow::out_of(bench, GUEST2)?;
    let server = SocketAddr::new(GUEST2.address().into(), flow.from);
    let port = server.port();
    // Markers have a wrong checksum, which tracking does not let pass.
    let rules = format!(
        "udp dport {port} ct state new,established accept; udp sport {port} ct state established accept; \
         ct state invalid drop; udp dport {port} drop; udp sport {port} counter drop"
    );
    let _rule = rule(bench, Machine::Dom0, "bridge", "forward", &rules)?;
    let order = format!("blast to={server} first=1 count=5 size=100");
    flow.b.call(&order)?.clean()?;
    let gather = format!("gather count=5 timeout={SILENCE_MS}");
    let came = flow.a.call(&gather)?.number("received");
    ensure!(came == 5, "{came} requests of 5 have come");
    let stream = Stream::start(&flow)?;
    stream.wait_for(bench, 1)?;
    // The next datagram that Dom0 sees makes it so.
    let _times = Change::make(
        bench,
        Machine::Dom0,
        &tracked_for([TRACKED_S; 2]),
        &tracked_for([30, 120]),
    )?;
    bench.wait("the flow has gone and come five times", || {
        Ok(bench.counter(GUEST2, "udp_flows_left")? >= 5
            && bench.counter(GUEST2, "udp_flows_entered")? >= 6)
    })?;
    stream.stop_whole()?;
    let rules = bench.shell(Machine::Dom0, "nft list table bridge lab")?;
    ensure!(rules.contains("packets 0 "), "some were dropped: {rules}");
    flow.close()
}

/// A line that says for how many seconds connection tracking knows of a flow of UDP, at first and when answers have come.
fn tracked_for(seconds: [u32; 2]) -> String {
    let names = ["udp_timeout", "udp_timeout_stream"];
    let lines = names.iter().zip(seconds).map(|(name, seconds)| {
        format!("echo {seconds} >/proc/sys/net/netfilter/nf_conntrack_{name}")
    });
    lines.collect::<Vec<_>>().join("; ")
}

/// Sends some datagrams one by one, none of which comes; returns the errors that the sender met.
fn errors_of(flow: &Flow) -> Result<BTreeSet<String>> {
    let mut errors = BTreeSet::new();
    for _ in 0..COUNT {
        let answer = flow.a.call("blast first=1 count=1 size=100")?;
        errors.insert(answer.error().to_owned());
    }
    let came = flow.b.call("gather timeout=500")?.number("received");
    ensure!(came == 0, "{came} datagrams passed the rule");
    Ok(errors)
}

/// A rule for what the guest itself sends.
fn output_rule<'a>(bench: &'a Bench, flow: &Flow) -> Result<Change<'a>> {
    let drops = format!("udp dport {} drop", flow.to.port());
    rule(bench, GUEST1, "ip", "output", &drops)
}

/// A flow that a rule of the guest that sends drops from the beginning: its sender is told so, as without the modules, and once the rule is
/// gone it gets to the ring as others do.
pub(in crate::cases) fn sender_filters_from_the_beginning(bench: &Bench) -> Result<()> {
    bench.unload_all()?;
    let flow = Flow::usual(bench, Naming::Connected)?;
    let without = {
        let _rule = output_rule(bench, &flow)?;
        errors_of(&flow)?
    };
    flow.close()?;
    bench.load_backend()?;
    bench.reload(LONG)?;
    let flow = Flow::usual(bench, Naming::Connected)?;
    let with = {
        let _rule = output_rule(bench, &flow)?;
        errors_of(&flow)?
    };
    ensure!(
        with == without && with.iter().eq(["EPERM"]),
        "the sender gets {with:?} with the modules, {without:?} without"
    );
    let state = flow.state(bench, GUEST1)?;
    ensure!(state.is_empty(), "the flow is known: {state}");
    ensure!(
        through_ring(bench, GUEST1)? == 0,
        "datagrams went through a ring"
    );
    flow.enter(bench)?;
    flow.close()
}

/// A rule of the guest that sends, against a flow that is in the ring, holds when the flow's time there is over, or before.
pub(in crate::cases) fn sender_filters(bench: &Bench) -> Result<()> {
    bench.reload("udp=1")?;
    let flow = Flow::usual(bench, Naming::Connected)?;
    flow.enter(bench)?;
    let dropping = output_rule(bench, &flow)?;
    bench.wait("the sender is told of the rule", || {
        let answer = flow.a.call("blast first=1 count=1 size=100")?;
        Ok(answer.error() == "EPERM")
    })?;
    flow.b.call("gather timeout=500")?;
    let errors = errors_of(&flow)?;
    ensure!(errors.iter().eq(["EPERM"]), "the sender gets {errors:?}");
    drop(dropping);
    flow.enter(bench)?;
    flow.close()
}

/// Both guests let pass what connection tracking knows, and nothing else: so the flow gets to the ring, both ways, and stays there.
pub(in crate::cases) fn conntracked(bench: &Bench) -> Result<()> {
    bench.reload(LONG)?;
    let flow = Flow::usual(bench, Naming::Connected)?;
    let port = flow.to.port();
    let table = |first: &str, second: &str| {
        let (first, second) = (
            format!(
                "type filter hook {first} priority 0; udp dport {port} ct state new,established accept; udp dport {port} counter drop;"
            ),
            format!(
                "type filter hook {second} priority 0; udp sport {port} ct state established accept; udp sport {port} counter drop;"
            ),
        );
        format!(
            "modprobe nft_ct || :; nft 'table ip lab {{ chain requests {{ {first} }}; chain replies {{ {second} }}; }}'"
        )
    };
    let undo = "nft delete table ip lab";
    let _sender = Change::make(bench, GUEST1, &table("output", "input"), undo)?;
    let _receiver = Change::make(bench, GUEST2, &table("input", "output"), undo)?;
    flow.enter(bench)?;
    all_through_ring(bench, &flow, Naming::Connected, ROUNDS, "max=1400")?;
    for guest in [GUEST1, GUEST2] {
        let rules = bench.shell(guest, "nft list table ip lab")?;
        ensure!(
            rules.matches("packets 0 ").count() == 2,
            "{guest} has dropped some: {rules}"
        );
    }
    ensure!(flow.is_in_ring(bench)?, "the flow has left the ring");
    flow.close()
}
