// SPDX-License-Identifier: GPL-2.0

//! An address that a guest has and announces, and that the network leads elsewhere: the guest gets nothing for it through a ring, and can
//! send nothing as it.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use lab_driver::Machine;

use super::{
    flow::{Flow, LONG, Naming, through_ring},
    rules::{is_refused, send_some, stays_on_network},
};
use crate::{
    bench::{Bench, GUEST1, GUEST2},
    cases::addresses::Change,
};

/// An address of a machine, of the same family as another one.
fn address(machine: Machine, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => machine.address().into(),
        IpAddr::V6(_) => machine.address6().into(),
    }
}

/// Lets a guest's network lead an address to a machine's device, whoever answers questions about it.
fn leads_to<'a>(
    bench: &'a Bench,
    guest: Machine,
    address: IpAddr,
    machine: Machine,
    device: &str,
) -> Result<Change<'a>> {
    let ethernet = bench.shell(machine, &format!("cat /sys/class/net/{device}/address"))?;
    let line = format!(
        "ip neighbour replace {address} lladdr {} dev eth0 nud permanent",
        ethernet.trim()
    );
    let undo = format!("ip neighbour del {address} dev eth0");
    Change::make(bench, guest, &line, &undo)
}

/// Lets the second guest have an address of Dom0's, and announce it, until that is dropped. The first one finds Dom0 there.
fn claim(bench: &Bench, theirs: IpAddr) -> Result<[Change<'_>; 3]> {
    bench.set_dirty();
    let to_dom0 = leads_to(bench, GUEST1, theirs, Machine::Dom0, "xenbr0")?;
    // The answer to a question that is asked as Dom0 would go there.
    let to_guest1 = leads_to(bench, GUEST2, address(GUEST1, theirs), GUEST1, "eth0")?;
    let ignore = |how: u8| format!("echo {how} >/proc/sys/net/ipv4/conf/all/arp_ignore");
    let (add, del) = match theirs {
        IpAddr::V4(v4) => (
            format!("{}; ip address add {v4}/32 scope host dev eth0", ignore(3)),
            format!("ip address del {v4}/32 dev eth0; {}", ignore(0)),
        ),
        IpAddr::V6(v6) => (
            format!("ip -6 address add {v6}/128 dev eth0 nodad"),
            format!("ip -6 address del {v6}/128 dev eth0"),
        ),
    };
    let claimed = Change::make(bench, GUEST2, &add, &del)?;
    bench.wait("the address is announced", || {
        bench.sees(GUEST1, &theirs.to_string())
    })?;
    // Taken back in this order.
    Ok([claimed, to_guest1, to_dom0])
}

fn gets_nothing(bench: &Bench, theirs: IpAddr) -> Result<()> {
    bench.reload(LONG)?;
    let _claim = claim(bench, theirs)?;
    let flow = Flow::new(bench, address(GUEST1, theirs), theirs, Naming::Each)?;
    stays_on_network(bench, &flow, "not-proven")?;
    ensure!(
        bench.counter(GUEST1, "udp_probes_sent")? > 0,
        "nothing was asked"
    );
    let answer = flow.b.call("gather timeout=500")?;
    ensure!(answer.number("received") == 0, "the liar got datagrams");
    flow.close()
}

/// It gets nothing.
pub(in crate::cases) fn false_address(bench: &Bench) -> Result<()> {
    gets_nothing(bench, Machine::Dom0.address().into())
}

/// The same with IPv6.
pub(in crate::cases) fn false_address_ipv6(bench: &Bench) -> Result<()> {
    gets_nothing(bench, Machine::Dom0.address6().into())
}

fn sends_nothing(bench: &Bench, theirs: IpAddr) -> Result<()> {
    bench.reload(LONG)?;
    let _claim = claim(bench, theirs)?;
    let to = address(GUEST1, theirs);
    let flow = Flow::of(bench, GUEST2, theirs, to, Naming::Each)?;
    is_refused(bench, &flow, "not-proven")?;
    // The second probe says that the first one has got no answer in its time.
    bench.wait("the sender's address was asked for twice", || {
        send_some(&flow)?;
        Ok(bench.counter(GUEST1, "udp_probes_sent")? >= 2)
    })?;
    ensure!(
        bench.declines(GUEST1, "not-proven")?[0] > 0,
        "the reason is not counted"
    );
    let delivered = bench.counter(GUEST1, "udp_rx_datagrams")?;
    ensure!(
        delivered == 0 && through_ring(bench, GUEST2)? == 0,
        "the liar sent through a ring, and {delivered} datagrams were delivered"
    );
    let came = flow.b.call("gather timeout=500")?.number("received");
    ensure!(came > 0, "the network itself has let nothing pass");
    let state = flow.state(bench, GUEST2)?;
    ensure!(
        ["Network", "Asking"].contains(&state.as_str()),
        "the liar's flow is in the state {state:?}"
    );
    flow.close()
}

/// What it sends as the other one stays on the network, which lets it pass.
pub(in crate::cases) fn false_source(bench: &Bench) -> Result<()> {
    sends_nothing(bench, Machine::Dom0.address().into())
}

/// The same with IPv6.
pub(in crate::cases) fn false_source_ipv6(bench: &Bench) -> Result<()> {
    sends_nothing(bench, Machine::Dom0.address6().into())
}
