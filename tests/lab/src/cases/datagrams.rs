// SPDX-License-Identifier: GPL-2.0

//! UDP through the ring: nothing wrong, nothing doubled, nothing out of order, whatever changes meanwhile; and what the network
//! would do to it happens to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS},
    peer::{Answer, Pending, Socket},
    travel,
};

/// A flow stays in the ring for as long as a test may take.
const LONG: &str = "udp=3600";

/// Round trips of an exchange.
const ROUNDS: u64 = 300;

/// Sizes that are the first or last of their kind: of packets, pages, and what a datagram can have.
const SIZES: &str = "sizes=0,1,7,8,9,1472,1473,2048,3500,3501,4064,4096,8192,20000,65507";

/// Time for datagrams that are on their way, in milliseconds; afterwards they are lost.
const SILENCE_MS: u64 = 3_000;

/// Two sockets, the port of the first one, and the address of the second one.
struct Flow {
    a: Socket,
    b: Socket,
    from: u16,
    to: SocketAddr,
}

/// How the first socket names the second one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// Once, by connect(2).
    Connected,
    /// In each call.
    Each,
}

impl Flow {
    /// Sockets of both guests: the first one at `from`, the second one at `to`.
    fn new(bench: &Bench, from: IpAddr, to: IpAddr, naming: Naming) -> Result<Self> {
        let (from, to) = (
            SocketAddr::new(from, bench.port()),
            SocketAddr::new(to, bench.port()),
        );
        // A socket of both families names addresses of IPv4 in its own way.
        let at = match (from, to) {
            (SocketAddr::V4(_), SocketAddr::V6(v6)) => match v6.ip().to_ipv4_mapped() {
                Some(v4) => SocketAddr::new(v4.into(), to.port()),
                None => to,
            },
            _ => to,
        };
        let b = bench.peer(GUEST2)?.udp(unmapped(at), None)?;
        let connected = (naming == Naming::Connected).then_some(to);
        let a = bench.peer(GUEST1)?.udp(from, connected)?;
        let from = from.port();
        Ok(Self { a, b, from, to })
    }

    /// The usual ones.
    fn usual(bench: &Bench, naming: Naming) -> Result<Self> {
        let (from, to) = (GUEST1.address(), GUEST2.address());
        Self::new(bench, from.into(), to.into(), naming)
    }

    /// The usual ones, in the ring both ways.
    fn in_ring(bench: &Bench) -> Result<Self> {
        bench.reload(LONG)?;
        let flow = Self::usual(bench, Naming::Connected)?;
        flow.enter(bench)?;
        Ok(flow)
    }

    /// Round trips, of which no datagram may be lost or changed.
    fn exchange(&self, naming: Naming, rounds: u64, sizes: &str) -> Result<()> {
        let echo = self.b.start(&format!("echo count={rounds}"))?;
        let to = match naming {
            Naming::Connected => String::new(),
            Naming::Each => format!("to={}", self.to),
        };
        let order = format!("exchange {to} first=1 count={rounds} {sizes}");
        let answer = self.a.call(&order)?;
        ensure!(
            answer.number("rounds") == rounds && answer.number("again") == 0,
            "{} round trips, {} lost",
            answer.number("rounds"),
            answer.number("again")
        );
        echo.wait().map(drop)
    }

    /// Exchanges until both ways lead through the ring.
    fn enter(&self, bench: &Bench) -> Result<()> {
        bench.wait("the flows are in the ring", || {
            self.exchange(Naming::Each, 4, "size=100")?;
            self.is_in_ring(bench)
        })
    }

    /// Whether both ways lead through the ring.
    fn is_in_ring(&self, bench: &Bench) -> Result<bool> {
        Ok(self.state(bench, GUEST1)? == "Ring" && self.state(bench, GUEST2)? == "Ring")
    }

    /// Where the datagrams go that leave a guest: `Network`, `Ring`, or in between; empty if the module does not know the flow.
    fn state(&self, bench: &Bench, guest: Machine) -> Result<String> {
        let (mut source, mut destination) = (self.from, self.to.port());
        if guest == GUEST2 {
            std::mem::swap(&mut source, &mut destination);
        }
        let report = bench.report(guest, "flows")?;
        let words = [
            "direction=out".to_owned(),
            format!("source_port={source}"),
            format!("destination_port={destination}"),
        ];
        let is_it = |line: &&str| {
            let mut all = words.iter();
            all.all(|word| line.split_whitespace().any(|other| other == word))
        };
        let line = report.lines().find(is_it).unwrap_or_default();
        let state = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("state="));
        Ok(state.unwrap_or_default().to_owned())
    }

    fn close(self) -> Result<()> {
        self.a.close()?;
        self.b.close()
    }
}

/// An address as a socket of its own family has it.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => v6
            .to_ipv4_mapped()
            .map_or(address, |v4| SocketAddr::new(v4.into(), address.port())),
        IpAddr::V4(_) => address,
    }
}

/// Datagrams that went through the ring out of a guest.
fn through_ring(bench: &Bench, guest: Machine) -> Result<u64> {
    bench.counter(guest, "udp_tx_datagrams")
}

/// Exchanges, all through the ring.
fn all_through_ring(
    bench: &Bench,
    flow: &Flow,
    naming: Naming,
    rounds: u64,
    sizes: &str,
) -> Result<()> {
    let count = |guest: &Machine| through_ring(bench, *guest);
    let before = GUESTS.iter().map(count).collect::<Result<Vec<_>>>()?;
    flow.exchange(naming, rounds, sizes)?;
    let after = GUESTS.iter().map(count).collect::<Result<Vec<_>>>()?;
    for (before, after) in before.iter().zip(&after) {
        ensure!(
            after - before == rounds,
            "{} of {rounds} went through the ring",
            after - before
        );
    }
    Ok(())
}

fn round_trips_of(bench: &Bench, from: IpAddr, to: IpAddr) -> Result<()> {
    for naming in [Naming::Connected, Naming::Each] {
        let flow = Flow::new(bench, from, to, naming)?;
        flow.enter(bench)?;
        all_through_ring(bench, &flow, naming, ROUNDS, SIZES)?;
        flow.close()?;
    }
    Ok(())
}

/// Datagrams of all sizes, connected and not.
pub(super) fn round_trips(bench: &Bench) -> Result<()> {
    bench.reload(LONG)?;
    round_trips_of(bench, GUEST1.address().into(), GUEST2.address().into())?;
    round_trips_of(bench, Ipv4Addr::UNSPECIFIED.into(), GUEST2.address().into())
}

/// The same with IPv6, and with IPv4 addresses of a socket of IPv6.
pub(super) fn round_trips_ipv6(bench: &Bench) -> Result<()> {
    bench.reload(LONG)?;
    round_trips_of(bench, GUEST1.address6().into(), GUEST2.address6().into())?;
    let mapped = GUEST2.address().to_ipv6_mapped();
    round_trips_of(bench, Ipv6Addr::UNSPECIFIED.into(), mapped.into())
}

/// What a receiver said is in order, and nothing of it came twice.
fn in_order(answer: Answer) -> Result<Answer> {
    let answer = answer.clean()?;
    for what in ["disordered", "doubled"] {
        ensure!(
            answer.number(what) == 0,
            "{} datagrams {what}",
            answer.number(what)
        );
    }
    ensure!(answer.number("received") > 0, "nothing came");
    Ok(answer)
}

/// Starts to receive until nothing has come for a while.
fn gather(socket: &Socket) -> Result<Pending> {
    socket.start(&format!("gather timeout={SILENCE_MS}"))
}

/// A stream that begins on the network and goes on through the ring stays in order, without a gap at the switch.
pub(super) fn stream_enters_the_ring(bench: &Bench) -> Result<()> {
    bench.reload(LONG)?;
    let flow = Flow::usual(bench, Naming::Connected)?;
    let gathering = gather(&flow.b)?;
    let sending = flow.a.start("blast first=1 max=1400")?;
    bench.wait("the stream is in the ring", || {
        Ok(flow.state(bench, GUEST1)? == "Ring")
    })?;
    bench.wait("much went through the ring", || {
        Ok(through_ring(bench, GUEST1)? > 5_000)
    })?;
    flow.a.call("stop")?;
    sending.wait()?.clean()?;
    in_order(gathering.wait()?)?;
    // What a full buffer of a slow reader has lost was delivered up to there.
    bench.wait("all that was sent is delivered", || {
        let delivered = bench.counter(GUEST2, "udp_rx_datagrams")?;
        Ok(delivered == through_ring(bench, GUEST1)?)
    })?;
    flow.close()
}

/// Whichever guest sends, and whichever is the one that offers channels: there is none yet, and nothing but its datagrams asks for one.
pub(super) fn either_may_begin(bench: &Bench) -> Result<()> {
    for (from, to) in [(GUEST1, GUEST2), (GUEST2, GUEST1)] {
        bench.reload(LONG)?;
        let [source, target] =
            [from, to].map(|guest| SocketAddr::new(guest.address().into(), bench.port()));
        let receiver = bench.peer(to)?.udp(target, None)?;
        let sender = bench.peer(from)?.udp(source, Some(target))?;
        let gathering = gather(&receiver)?;
        let sending = sender.start("blast first=1 max=1400")?;
        bench.wait("some went through the ring", || {
            Ok(through_ring(bench, from)? > 0)
        })?;
        sender.call("stop")?;
        sending.wait()?.clean()?;
        in_order(gathering.wait()?)?;
        sender.close()?;
        receiver.close()?;
    }
    Ok(())
}

/// Flows go back to the network when their time is over, and come again; nothing is lost, doubled or out of order by that.
pub(super) fn flows_come_and_go(bench: &Bench) -> Result<()> {
    bench.reload("udp=1")?;
    let flow = Flow::usual(bench, Naming::Connected)?;
    flow.enter(bench)?;
    let gathering = gather(&flow.b)?;
    let sending = flow.a.start("blast first=1 max=1400")?;
    bench.wait("the flow has gone and come three times", || {
        Ok(bench.counter(GUEST1, "udp_flows_left")? >= 3)
    })?;
    flow.a.call("stop")?;
    sending.wait()?.clean()?;
    in_order(gathering.wait()?)?;
    // One at a time, so that the network has no reason to lose any.
    let left = bench.counter(GUEST1, "udp_flows_left")?;
    bench.wait("the flow has gone and come twice", || {
        flow.exchange(Naming::Connected, 50, "max=1400")?;
        Ok(bench.counter(GUEST1, "udp_flows_left")? >= left + 2)
    })?;
    flow.close()
}

/// UDP_SEGMENT: one call, several datagrams.
pub(super) fn segments(bench: &Bench) -> Result<()> {
    let flow = Flow::in_ring(bench)?;
    let before = through_ring(bench, GUEST1)?;
    for (size, segment, parts) in [(14_000, 1400, 10), (1_401, 1_400, 2), (60_000, 1_000, 60)] {
        let gathering = flow.b.start(&format!("gather count={parts} raw=1"))?;
        let order = format!("blast first=1 count=1 size={size} segment={segment}");
        flow.a.call(&order)?.clean()?;
        let answer = gathering.wait()?.clean()?;
        ensure!(
            answer.number("bytes") == size,
            "{} bytes of {size}",
            answer.number("bytes")
        );
    }
    let count = through_ring(bench, GUEST1)? - before;
    ensure!(count == 72, "{count} datagrams of 72 went through the ring");
    flow.close()
}

/// A receiver that is gone: its guest says so over the network, and the sender hears it as an error.
pub(super) fn nobody_listens(bench: &Bench) -> Result<()> {
    let flow = Flow::in_ring(bench)?;
    flow.b.close()?;
    bench.wait("the sender is refused", || {
        let answer = flow.a.call("blast first=1 count=1 size=10")?;
        Ok(answer.error() == "ECONNREFUSED")
    })?;
    flow.a.close()
}

/// A rule of the receiving guest holds for what comes through the ring, from the moment that it is there.
pub(super) fn receiver_filters(bench: &Bench) -> Result<()> {
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
pub(super) fn receiver_filters_from_the_beginning(bench: &Bench) -> Result<()> {
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
fn stays_on_network(bench: &Bench, flow: &Flow, reason: &str) -> Result<()> {
    // There is a channel: what does not come does not make the receiver want one, and it may be the one to offer.
    bench.pair()?.finish()?;
    let before = bench.declines(GUEST1, reason)?;
    bench.wait("the request is given up", || {
        flow.a
            .call(&format!("blast to={} first=1 count=5 size=100", flow.to))?;
        Ok(bench.declines(GUEST1, reason)? != before)
    })?;
    ensure!(
        through_ring(bench, GUEST1)? == 0,
        "datagrams went through a ring"
    );
    Ok(())
}

/// A rule in Dom0 against a flow holds, at the latest, when the flow's time in the ring is over.
pub(super) fn dom0_filters(bench: &Bench) -> Result<()> {
    bench.reload("udp=1")?;
    let flow = Flow::usual(bench, Naming::Connected)?;
    flow.enter(bench)?;
    let port = flow.to.port();
    bench.shell(
        Machine::Dom0,
        &format!("nft 'table bridge lab {{ chain forward {{ type filter hook forward priority 0; udp dport {port} drop; }}; }}'"),
    )?;
    let silence = bench.wait("nothing comes any more", || {
        let gathering = flow.b.start("gather timeout=500")?;
        flow.a.call("blast first=1 count=20 size=100")?.clean()?;
        Ok(gathering.wait()?.number("received") == 0)
    });
    bench.shell(Machine::Dom0, "nft delete table bridge lab")?;
    silence?;
    flow.enter(bench)?;
    flow.close()
}

/// An address that a guest announces, and that the network leads elsewhere: it gets nothing.
pub(super) fn false_address(bench: &Bench) -> Result<()> {
    bench.reload(LONG)?;
    let theirs = Machine::Dom0.address();
    // It answers no question about the address on the network, so that the true owner has it there.
    let ignore = |how: u8| format!("echo {how} >/proc/sys/net/ipv4/conf/all/arp_ignore");
    bench.shell(
        GUEST2,
        &format!(
            "{}; ip address add {theirs}/32 scope host dev eth0",
            ignore(3)
        ),
    )?;
    bench.set_dirty();
    let result = gets_nothing(bench, theirs.into());
    bench.shell(
        GUEST2,
        &format!("ip address del {theirs}/32 dev eth0; {}", ignore(0)),
    )?;
    result
}

fn gets_nothing(bench: &Bench, address: IpAddr) -> Result<()> {
    bench.wait("the address is announced", || {
        bench.sees(GUEST1, &address.to_string())
    })?;
    let flow = Flow::new(bench, GUEST1.address().into(), address, Naming::Each)?;
    stays_on_network(bench, &flow, "not-proven")?;
    ensure!(
        bench.counter(GUEST1, "udp_probes_sent")? > 0,
        "nothing was asked"
    );
    let answer = flow.b.call("gather timeout=500")?;
    ensure!(answer.number("received") == 0, "the liar got datagrams");
    flow.close()
}

/// A peer that has no module, or leaves UDP alone.
pub(super) fn peer_without(bench: &Bench) -> Result<()> {
    bench.unload_all()?;
    bench.load_backend()?;
    bench.load(GUEST1, LONG)?;
    let flow = Flow::usual(bench, Naming::Connected)?;
    flow.exchange(Naming::Connected, 50, "max=1400")?;
    bench.load(GUEST2, "udp=0")?;
    bench.wait_peers()?;
    flow.exchange(Naming::Connected, 50, "max=1400")?;
    ensure!(
        through_ring(bench, GUEST1)? == 0,
        "datagrams went through a ring"
    );
    flow.close()
}

/// Modules that are removed and come again under load: everything goes on, in order.
fn reload_under_load(bench: &Bench, guest: Machine) -> Result<()> {
    let flow = Flow::in_ring(bench)?;
    let gathering = gather(&flow.b)?;
    let sending = flow.a.start("blast first=1 max=1400")?;
    let progress = || Ok::<_, anyhow::Error>(flow.b.call("progress")?.number("received"));
    let more = |count: u64| {
        let goal = progress()? + count;
        bench.wait("more comes", || Ok(progress()? >= goal))
    };
    more(500)?;
    bench.unload(guest)?;
    more(200)?;
    bench.load(guest, LONG)?;
    bench.wait("the stream is in the ring again", || {
        Ok(flow.state(bench, GUEST1)? == "Ring")
    })?;
    more(500)?;
    flow.a.call("stop")?;
    sending.wait()?.clean()?;
    in_order(gathering.wait()?)?;
    flow.close()
}

pub(super) fn sender_is_unloaded(bench: &Bench) -> Result<()> {
    reload_under_load(bench, GUEST1)
}

pub(super) fn receiver_is_unloaded(bench: &Bench) -> Result<()> {
    reload_under_load(bench, GUEST2)
}

/// Round trips of which none may be lost while a module goes.
pub(super) fn unloaded_between_round_trips(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        let flow = Flow::in_ring(bench)?;
        let echo = flow.b.start("echo")?;
        let exchange = flow.a.start("exchange first=1 max=1400")?;
        let progress = || Ok::<_, anyhow::Error>(flow.a.call("progress")?.number("sent"));
        let more = || {
            let goal = progress()? + 30;
            bench.wait("more round trips", || Ok(progress()? >= goal))
        };
        more()?;
        bench.unload(guest)?;
        more()?;
        flow.a.call("stop")?;
        let again = exchange.wait()?.number("again");
        ensure!(again == 0, "{again} datagrams were lost");
        flow.b.call("stop")?;
        echo.wait()?;
        flow.close()?;
    }
    Ok(())
}

/// A receiver that stands still: who sends is told to come again, and has room a moment later, since there may be others to send to.
pub(super) fn full_ring(bench: &Bench) -> Result<()> {
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

/// A receiver whose guest disappears: nobody hangs.
pub(super) fn peer_disappears(bench: &Bench) -> Result<()> {
    let flow = Flow::in_ring(bench)?;
    let sending = flow.a.start("blast first=1 size=1400")?;
    bench.destroy(GUEST2)?;
    bench.wait("the channel is gone", || {
        Ok(bench.report(GUEST1, "peers")?.is_empty())
    })?;
    flow.a.call("stop")?;
    let error = sending.wait()?.error().to_owned();
    ensure!(
        ["", "EHOSTUNREACH"].contains(&error.as_str()),
        "the sender got {error}"
    );
    flow.a.close()?;
    bench.unload(GUEST1)
}

/// A guest that is saved and restored: the flow goes on, and comes to the ring again.
pub(super) fn saved_and_restored(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        let flow = Flow::in_ring(bench)?;
        travel::save_and_restore(bench.lab(), guest)?;
        bench.wait_peers()?;
        // The network of a guest that has just come back may lose some.
        flow.b.call("gather timeout=1000")?;
        bench.wait("the flow is in the ring again", || {
            let echo = flow.b.start("echo count=4")?;
            flow.a.call("exchange first=1 count=4 size=100")?;
            echo.wait()?;
            flow.is_in_ring(bench)
        })?;
        flow.close()?;
    }
    Ok(())
}
