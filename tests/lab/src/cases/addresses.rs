// SPDX-License-Identifier: GPL-2.0

//! Addresses that are not simply a peer's: of other interfaces, of other namespaces, translated, or gone.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS},
    pair::Pair,
    peer::Peer,
};

/// Bytes that go each way.
const BYTES: u64 = 200_000;

/// Exchanges after which a connection that could be accelerated is.
const EXCHANGES: u32 = 20;

/// A namespace, with an address behind the guest's own that only the guest knows.
const NAMESPACE: &str = "box";
const INSIDE: &str = "10.79.0.2";

/// An address that guests get besides their own, and leave again.
const MOVING: &str = "10.77.0.112";

/// A guest that is there where there are many.
const THIRD_GUEST: Machine = Machine::Guest(3);

/// The guests' addresses on their second interfaces, which the lab itself needs.
const SECOND: [&str; 2] = ["10.78.0.11", "10.78.0.12"];

/// Those on the third ones, which only these tests have.
pub(super) const THIRD: [&str; 2] = ["10.80.0.11", "10.80.0.12"];

/// What containers and the translation of addresses need; it is built in or there are modules.
const MODULES: &str =
    "for module in veth nft_chain_nat nft_masq nft_nat; do modprobe $module || :; done";

/// What a test has changed in a machine, with the line that changes it back.
pub(super) struct Change<'a> {
    bench: &'a Bench,
    machine: Machine,
    undo: String,
}

impl<'a> Change<'a> {
    /// Runs a line that changes something; `undo` runs when it is dropped.
    pub(super) fn make(bench: &'a Bench, machine: Machine, line: &str, undo: &str) -> Result<Self> {
        let change = Self {
            bench,
            machine,
            undo: undo.to_owned(),
        };
        // Half of it may be done when it fails.
        bench.shell(machine, &format!("set -e; {line}"))?;
        Ok(change)
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.bench.shell(self.machine, &self.undo) {
            println!("    {}: {error:#}", self.machine);
        }
    }
}

/// A connection from one process to another, which listens on an address that may be another one than the first connects to.
fn connect(
    from: &Arc<Peer>,
    to: &Arc<Peer>,
    target: SocketAddr,
    local: SocketAddr,
) -> Result<Pair> {
    let listener = to.listen(local)?;
    let (a, b) = (from.connect(target)?, listener.accept()?);
    listener.close()?;
    Pair::new(a, b, u64::from(local.port()))
}

pub(super) fn ring_bytes(bench: &Bench) -> Result<u64> {
    let sent = GUESTS.map(|guest| bench.counter(guest, "tx_bytes"));
    sent.into_iter().sum()
}

/// All works, and nothing goes through a ring.
fn stays_on_tcp(bench: &Bench, pair: &Pair) -> Result<()> {
    let before = ring_bytes(bench)?;
    for _ in 0..EXCHANGES {
        pair.exchange(1000)?;
    }
    pair.any_way(BYTES, "", "")?;
    pair.finish()?;
    let moved = ring_bytes(bench)? - before;
    ensure!(moved == 0, "{moved} bytes went through a ring");
    Ok(())
}

/// Connections between the guests' own addresses are accelerated as ever.
fn others_are_accelerated(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    pair.both_ways(BYTES, "", "")?;
    pair.finish()
}

fn pair_to(bench: &Bench, address: &str) -> Result<Pair> {
    let (from, to) = (bench.peer(GUEST1)?, bench.peer(GUEST2)?);
    Ok(bench
        .pairs_between(&from, &to, address.parse()?, 1)?
        .remove(0))
}

/// A namespace in the first guest, whose packets the guest translates as container engines do.
fn namespace(bench: &Bench, port: u16) -> Result<Change<'_>> {
    let enter = format!("ip netns exec {NAMESPACE}");
    let line = format!(
        "{MODULES}; ip netns add {NAMESPACE}; ip link add v0 type veth peer name v1 netns {NAMESPACE}; \
         ip address add 10.79.0.1/24 dev v0; ip link set v0 up; \
         {enter} ip link set lo up; {enter} ip address add {INSIDE}/24 dev v1; {enter} ip link set v1 up; \
         {enter} ip route add default via 10.79.0.1; echo 1 >/proc/sys/net/ipv4/ip_forward; \
         nft 'table ip lab {{ \
             chain out {{ type nat hook postrouting priority 100; oifname eth0 masquerade; }}; \
             chain in {{ type nat hook prerouting priority -100; \
                         iifname eth0 tcp dport {port} dnat to {INSIDE}; }}; }}'"
    );
    let undo = format!(
        "nft delete table ip lab; ip link del v0; ip netns del {NAMESPACE}; echo 0 >/proc/sys/net/ipv4/ip_forward"
    );
    Change::make(bench, GUEST1, &line, &undo)
}

/// A container that connects to the other guest: there it looks like a connection of the guest's own.
pub(super) fn out_of_a_namespace(bench: &Bench) -> Result<()> {
    let _namespace = namespace(bench, bench.port())?;
    let declined = bench.declines(GUEST2, "no-such-socket")?;
    let inside = bench.peer_in_namespace(GUEST1, NAMESPACE)?;
    let target = SocketAddr::new(GUEST2.address().into(), bench.port());
    stays_on_tcp(
        bench,
        &connect(&inside, &bench.peer(GUEST2)?, target, target)?,
    )?;
    ensure!(
        bench.declines(GUEST2, "no-such-socket")?[1] > declined[1],
        "the reason is not counted"
    );
    others_are_accelerated(bench)
}

/// A port of the guest that leads into a container.
pub(super) fn into_a_namespace(bench: &Bench) -> Result<()> {
    let port = bench.port();
    let _namespace = namespace(bench, port)?;
    let inside = bench.peer_in_namespace(GUEST1, NAMESPACE)?;
    let target = SocketAddr::new(GUEST1.address().into(), port);
    let local = SocketAddr::new(INSIDE.parse()?, port);
    stays_on_tcp(
        bench,
        &connect(&bench.peer(GUEST2)?, &inside, target, local)?,
    )?;
    others_are_accelerated(bench)
}

/// Gives both guests a third interface, unless they have it. It stays: kernels warn when netfront's interfaces are taken away.
pub(super) fn third_interfaces(bench: &Bench) -> Result<()> {
    let bridge = "[ -e /sys/class/net/xenbr2 ] || { ip link add xenbr2 type bridge && ip link set xenbr2 up; }";
    bench.shell(Machine::Dom0, bridge)?;
    for (guest, address) in GUESTS.into_iter().zip(THIRD) {
        if bench.try_shell(guest, "[ -e /sys/class/net/eth2 ]")?.status != 0 {
            let attach = format!("xl network-attach {guest} bridge=xenbr2 script=vif-lab");
            bench.shell(Machine::Dom0, &attach)?;
        }
        let line = format!(
            "until [ -e /sys/class/net/eth2 ]; do sleep 0.1; done; \
             ip address replace {address}/24 dev eth2 && ip link set eth2 up"
        );
        bench.shell(guest, &line)?;
    }
    bench.wait_peer(GUEST1, THIRD[1])?;
    bench.wait_peer(GUEST2, THIRD[0])
}

/// An interface of netfront that belongs to a container.
pub(super) fn interface_of_a_namespace(bench: &Bench) -> Result<()> {
    third_interfaces(bench)?;
    let enter = format!("ip netns exec {NAMESPACE}");
    let [inside, outside] = THIRD;
    let line = format!(
        "ip netns add {NAMESPACE}; ip link set eth2 netns {NAMESPACE}; \
         {enter} ip address add {inside}/24 dev eth2; {enter} ip link set eth2 up"
    );
    // It comes back by itself.
    let undo = format!(
        "ip netns del {NAMESPACE}; until [ -e /sys/class/net/eth2 ]; do sleep 0.1; done; \
         ip address replace {inside}/24 dev eth2; ip link set eth2 up"
    );
    let change = Change::make(bench, GUEST1, &line, &undo)?;
    bench.wait("the interface is out of sight", || {
        Ok(!bench.sees(GUEST2, inside)?)
    })?;
    let peer = bench.peer_in_namespace(GUEST1, NAMESPACE)?;
    let target = SocketAddr::new(outside.parse()?, bench.port());
    stays_on_tcp(
        bench,
        &connect(&peer, &bench.peer(GUEST2)?, target, target)?,
    )?;
    drop(peer);
    drop(change);
    bench.wait_peer(GUEST2, inside)?;
    let pair = pair_to(bench, outside)?;
    pair.accelerate()?;
    pair.finish()
}

/// A service of a guest under an address of Dom0, which translates both addresses.
pub(super) fn translated_in_dom0(bench: &Bench) -> Result<()> {
    let server = GUEST2.address();
    let line = format!(
        "{MODULES}; ip address add {MOVING}/32 dev xenbr0; echo 1 >/proc/sys/net/ipv4/ip_forward; \
         nft 'table ip lab {{ \
             chain out {{ type nat hook postrouting priority 100; ip daddr {server} masquerade; }}; \
             chain in {{ type nat hook prerouting priority -100; ip daddr {MOVING} dnat to {server}; }}; }}'"
    );
    let undo = format!(
        "nft delete table ip lab; ip address del {MOVING}/32 dev xenbr0; echo 0 >/proc/sys/net/ipv4/ip_forward"
    );
    let _change = Change::make(bench, Machine::Dom0, &line, &undo)?;
    let port = bench.port();
    let target = SocketAddr::new(MOVING.parse()?, port);
    let local = SocketAddr::new(server.into(), port);
    let (from, to) = (bench.peer(GUEST1)?, bench.peer(GUEST2)?);
    stays_on_tcp(bench, &connect(&from, &to, target, local)?)?;
    others_are_accelerated(bench)
}

pub(super) fn second_interface(bench: &Bench) -> Result<()> {
    bench.wait_peer(GUEST1, SECOND[1])?;
    let pair = pair_to(bench, SECOND[1])?;
    pair.accelerate()?;
    pair.both_ways(BYTES, "", "")?;
    pair.finish()
}

/// The second guest's address is taken away while a connection is on the ring, and given back: no byte is lost.
pub(super) fn interface_comes_and_goes(bench: &Bench) -> Result<()> {
    third_interfaces(bench)?;
    let address = THIRD[1];
    let pair = pair_to(bench, address)?;
    pair.accelerate()?;
    let unread = pair.b.fill(50_000)?;
    let declined = bench.declines(GUEST1, "not-co-resident")?[0];
    let gone = Change::make(
        bench,
        GUEST2,
        &format!("ip link set eth2 down; ip address del {address}/24 dev eth2"),
        &format!("ip address replace {address}/24 dev eth2; ip link set eth2 up"),
    )?;
    bench.wait("the connection goes back to TCP", || {
        Ok(bench.count_on_ring()? == 0)
    })?;
    ensure!(
        bench.declines(GUEST1, "not-co-resident")?[0] > declined,
        "the reason is not counted"
    );
    drop(gone);
    pair.a.receive(unread)?;
    pair.any_way(BYTES, "", "")?;
    pair.finish()?;
    others_are_accelerated(bench)
}

/// Where an address goes, connections to it go as TCP's: here to Dom0, which knows nothing of them.
pub(super) fn moves_to_another_machine(bench: &Bench) -> Result<()> {
    let add = |machine: Machine, device: &str| {
        let change = Change::make(
            bench,
            machine,
            &format!("ip address add {MOVING}/32 dev {device}"),
            &format!("ip address del {MOVING}/32 dev {device}"),
        );
        bench.shell(GUEST1, "ip neighbour flush all")?;
        change
    };
    let with_module = {
        let here = add(GUEST2, "eth0")?;
        bench.wait_peer(GUEST1, MOVING)?;
        let pair = pair_to(bench, MOVING)?;
        pair.accelerate()?;
        pair.both_ways(BYTES, "", "")?;
        drop(here);
        let _there = add(Machine::Dom0, "xenbr0")?;
        bench.wait("the connection goes back to TCP", || {
            Ok(bench.count_on_ring()? == 0)
        })?;
        what_comes_of(&pair)?
    };
    bench.set_dirty();
    bench.unload_all()?;
    let without = {
        let here = add(GUEST2, "eth0")?;
        let pair = pair_to(bench, MOVING)?;
        pair.any_way(BYTES, "", "")?;
        drop(here);
        let _there = add(Machine::Dom0, "xenbr0")?;
        what_comes_of(&pair)?
    };
    ensure!(
        with_module == without,
        "{with_module:?} with the modules, {without:?} without"
    );
    Ok(())
}

/// An address goes from the second guest to the third one. An old connection to it does not follow, although somebody listens at its port there, and
/// nothing of it comes to either; a new one reaches the third guest, and goes to its ring.
pub(super) fn moves_to_a_third_guest(bench: &Bench) -> Result<()> {
    // Whatever comes of it: the third one is not as later tests want it.
    bench.set_spent();
    bench.equip(THIRD_GUEST)?;
    bench.load(THIRD_GUEST, "")?;
    bench.wait_peer(THIRD_GUEST, &GUEST1.address().to_string())?;
    let with_modules = what_comes_of_moving(bench, true)?;
    bench.unload(THIRD_GUEST)?;
    bench.unload_all()?;
    let without = what_comes_of_moving(bench, false)?;
    ensure!(
        with_modules == without,
        "{with_modules:?} with the modules, {without:?} without"
    );
    Ok(())
}

/// What an old connection meets when the address that it leads to has moved to the third guest.
fn what_comes_of_moving(bench: &Bench, with_modules: bool) -> Result<String> {
    let target = SocketAddr::new(MOVING.parse()?, bench.port());
    let from = bench.peer(GUEST1)?;
    let add = |guest: Machine| {
        let change = Change::make(
            bench,
            guest,
            &format!("ip address add {MOVING}/32 dev eth0"),
            &format!("ip address del {MOVING}/32 dev eth0"),
        )?;
        bench.shell(GUEST1, "ip neighbour flush all")?;
        if with_modules {
            bench.wait("the address is the guest's alone", || {
                says_alone(bench, guest)
            })?;
        }
        Ok::<_, anyhow::Error>(change)
    };
    let begin = |guest: Machine| {
        let pair = connect(&from, &bench.peer(guest)?, target, target)?;
        if with_modules {
            pair.accelerate()?;
            pair.both_ways(BYTES, "", "")?;
        } else {
            pair.any_way(BYTES, "", "")?;
        }
        Ok::<_, anyhow::Error>(pair)
    };
    let here = add(GUEST2)?;
    let old = begin(GUEST2)?;
    drop(here);
    let _there = add(THIRD_GUEST)?;
    bench.wait("the old connection goes back to TCP", || {
        Ok(bench.count_on_ring()? == 0)
    })?;
    let new = begin(THIRD_GUEST)?;
    let met = what_comes_of(&old)?;
    new.any_way(BYTES, "", "")?;
    new.finish()?;
    Ok(met)
}

/// Whether, by what the first guest's module says, an address belongs to this guest and to no other.
fn says_alone(bench: &Bench, guest: Machine) -> Result<bool> {
    let domid = format!("domid={}", bench.domid(guest)?);
    let report = bench.report(GUEST1, "peers")?;
    let mut owners = report.lines().filter(|line| {
        let mut words = line.split_whitespace();
        let addresses = words.find_map(|word| word.strip_prefix("addresses="));
        addresses.is_some_and(|list| list.split(',').any(|address| address == MOVING))
    });
    let owner = owners.next();
    let is_it = owner.is_some_and(|line| line.split_whitespace().any(|word| word == domid));
    Ok(is_it && owners.next().is_none())
}

/// What the first guest's end meets when it goes on.
fn what_comes_of(pair: &Pair) -> Result<String> {
    let receiver = pair.a.start("recv")?;
    pair.a.send(1)?;
    let answer = receiver.wait()?;
    let unread = pair.b.call("unread")?.bytes();
    ensure!(unread == 0, "{unread} bytes came to where the address was");
    pair.a.close()?;
    // The other end has nobody to talk to any more.
    pair.b.set("linger", 0)?;
    pair.b.close()?;
    Ok(format!("{} bytes, {}", answer.bytes(), answer.error()))
}
