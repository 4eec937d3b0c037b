// SPDX-License-Identifier: GPL-2.0

//! Sockets that are bound to a device (SO_BINDTODEVICE).

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};

use super::addresses::{Change, THIRD, ring_bytes, third_interfaces};
use crate::{
    bench::{Bench, GUEST1, GUEST2},
    pair::Pair,
};

/// Bytes that go each way.
const BYTES: u64 = 200_000;

/// The devices of the guests' first addresses and of their second ones.
const FIRST: &str = "device=eth0";
const SECOND: &str = "device=eth1";

/// The guests' IPv6 addresses on their third interfaces.
const THIRD_V6: [&str; 2] = ["fd80::11", "fd80::12"];

/// Opens a connection to an address of the second guest, by orders with words for each end.
fn open(bench: &Bench, address: IpAddr, connect: &str, listen: &str) -> Result<Pair> {
    let to = SocketAddr::new(address, bench.port());
    let listener = bench.peer(GUEST2)?.listen_as(to, listen)?;
    let a = bench.peer(GUEST1)?.connect_as(to, connect)?;
    let b = listener.accept()?;
    listener.close()?;
    Pair::new(a, b, u64::from(to.port()))
}

/// The connection gets to the ring, and all bytes go through it.
fn goes_through_ring(pair: &Pair) -> Result<()> {
    pair.accelerate()?;
    pair.both_ways(BYTES, "", "")?;
    pair.finish()
}

/// At either end and at both, over both families.
pub(super) fn at_either_end(bench: &Bench) -> Result<()> {
    let addresses: [IpAddr; 2] = [GUEST2.address().into(), GUEST2.address6().into()];
    for address in addresses {
        if address.is_ipv6() {
            bench.wait_peer(GUEST1, &address.to_string())?;
        }
        for (connect, listen) in [(FIRST, FIRST), (FIRST, ""), ("", FIRST)] {
            goes_through_ring(&open(bench, address, connect, listen)?)?;
        }
    }
    Ok(())
}

/// To the device that is a virtual router's (VRF), and to that router: the packets come through both.
pub(super) fn in_a_virtual_router(bench: &Bench) -> Result<()> {
    third_interfaces(bench)?;
    // A device that comes into a router loses its IPv6 addresses.
    let [there, here] = THIRD_V6;
    let add_there = format!("ip -6 address replace {there}/64 dev eth2 nodad");
    let del_there = format!("ip -6 address del {there}/64 dev eth2");
    let _there = Change::make(bench, GUEST1, &add_there, &del_there)?;
    let line = format!(
        "modprobe vrf || :; ip link add router type vrf table 77; ip link set router up; \
         ip link set eth2 master router; ip -6 address replace {here}/64 dev eth2 nodad"
    );
    let undo = format!(
        "ip link set eth2 nomaster; ip link del router; ip -6 address del {here}/64 dev eth2; \
         ip address replace {}/24 dev eth2; ip link set eth2 up",
        THIRD[1]
    );
    let _router = Change::make(bench, GUEST2, &line, &undo)?;
    for address in [THIRD[1], here] {
        bench.wait_peer(GUEST1, address)?;
        for listen in ["device=router", "device=eth2"] {
            goes_through_ring(&open(bench, address.parse()?, "", listen)?)?;
        }
    }
    Ok(())
}

/// Lets packets between the guests' first addresses take any of their devices: who asks for an address hears of each, and nobody minds.
fn any_device(bench: &Bench) -> Result<[Change<'_>; 2]> {
    let line = "for name in all eth0 eth1; do \
                echo 0 >/proc/sys/net/ipv4/conf/$name/rp_filter; \
                echo 0 >/proc/sys/net/ipv4/conf/$name/arp_ignore; done";
    let change = |guest| Change::make(bench, guest, line, ":");
    Ok([change(GUEST1)?, change(GUEST2)?])
}

/// To the second device, where packets for the first one's address arrive, as the routes have it.
pub(super) fn where_packets_arrive(bench: &Bench) -> Result<()> {
    let _any = any_device(bench)?;
    let route = |guest, to, from| {
        let [add, del] =
            ["add", "del"].map(|verb| format!("ip route {verb} {to}/32 dev eth1 src {from}"));
        Change::make(bench, guest, &add, &del)
    };
    let (one, two) = (GUEST1.address(), GUEST2.address());
    let _routes = [route(GUEST1, two, one)?, route(GUEST2, one, two)?];
    goes_through_ring(&open(bench, two.into(), SECOND, SECOND)?)
}

/// Two connections with the same addresses and ports, which only their devices tell apart: each gets its own bytes through the ring, and
/// neither is taken for a false claim to the other.
pub(super) fn same_addresses_and_ports(bench: &Bench) -> Result<()> {
    let _any = any_device(bench)?;
    let from = SocketAddr::new(GUEST1.address().into(), bench.port());
    let to = SocketAddr::new(GUEST2.address().into(), bench.port());
    let mut pairs = Vec::new();
    for (index, device) in [FIRST, SECOND].into_iter().enumerate() {
        let listener = bench.peer(GUEST2)?.listen_as(to, device)?;
        let a = bench
            .peer(GUEST1)?
            .connect_as(to, &format!("{device} from={from}"))?;
        let b = listener.accept()?;
        listener.close()?;
        pairs.push(Pair::new(
            a,
            b,
            (u64::from(to.port()) << 32) | index as u64,
        )?);
    }
    bench.exchange_until_on_ring(pairs.len(), || Pair::all_both_ways(&pairs, BYTES))?;
    let before = ring_bytes(bench)?;
    Pair::all_both_ways(&pairs, BYTES)?;
    let (moved, all) = (ring_bytes(bench)? - before, 2 * BYTES * pairs.len() as u64);
    ensure!(moved == all, "{moved} of {all} bytes went through a ring");
    Pair::finish_all(&pairs)
}
