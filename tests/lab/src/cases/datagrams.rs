// SPDX-License-Identifier: GPL-2.0

//! UDP through the ring: nothing wrong, nothing doubled, nothing out of order, whatever changes meanwhile; and what the network
//! would do to it happens to it.

mod claims;
mod flow;
mod losses;
mod others;
mod room;
mod rules;
mod stream;

pub(super) use claims::{
    false_address,
    false_address_ipv6,
    false_source,
    false_source_ipv6, //
};
pub(super) use losses::{
    network_in_bursts, nothing_lost_at_entry, nothing_lost_at_expiry, nothing_lost_at_unload,
    suspended_under_load,
};
pub(super) use others::{broadcast, left_alone, multicast, socket_filter, udp_lite};
pub(super) use room::{full_ring, full_ring_blocks, full_ring_times_out, receive_buffer_is_full};
pub(super) use rules::{
    conntracked, dom0_filters, dom0_filters_from_the_beginning, dom0_tracks, receiver_filters,
    receiver_filters_from_the_beginning, sender_filters, sender_filters_at_its_device,
    sender_filters_from_the_beginning,
};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use lab_driver::Machine;

use self::flow::{
    Flow,
    LONG,
    Naming,
    ROUNDS,
    all_through_ring,
    gather,
    in_order,
    through_ring, //
};
use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS, other},
    cases::leaks,
    travel,
};

/// Sizes that are the first or last of their kind: of packets, pages, and what a datagram can have.
const SIZES: &str = "sizes=0,1,7,8,9,1472,1473,2048,3500,3501,4064,4096,8192,20000,65507";

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

/// UDP_GRO: what one call has sent comes in one, with the size of its parts.
pub(super) fn segments_in_one(bench: &Bench) -> Result<()> {
    let flow = Flow::in_ring(bench)?;
    flow.b.set("gro", 1)?;
    let before = through_ring(bench, GUEST1)?;
    for (size, segment) in [(14_000, 1_400), (1_401, 1_400), (60_000, 1_000)] {
        let reading = flow.b.start("parts")?;
        let order = format!("blast first=1 count=1 size={size} segment={segment}");
        flow.a.call(&order)?.clean()?;
        let answer = reading.wait()?;
        let (bytes, parts) = (answer.number("bytes"), answer.number("segment"));
        ensure!(
            (bytes, parts) == (size, segment),
            "{bytes} bytes in parts of {parts} instead of {size} in parts of {segment}"
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

/// A peer that has no module, or leaves UDP alone; and a guest that does so itself.
pub(super) fn peer_without(bench: &Bench) -> Result<()> {
    bench.unload_all()?;
    bench.load_backend()?;
    bench.load(GUEST1, LONG)?;
    let flow = Flow::usual(bench, Naming::Connected)?;
    flow.exchange(Naming::Connected, 50, "max=1400")?;
    ensure!(
        through_ring(bench, GUEST1)? == 0,
        "datagrams went through a ring"
    );
    for unwilling in [GUEST2, GUEST1] {
        for guest in GUESTS {
            bench.unload(guest)?;
        }
        bench.load(unwilling, "udp=0")?;
        bench.load(other(unwilling), LONG)?;
        bench.wait_peers()?;
        stays_with_one(bench, &flow, other(unwilling))?;
    }
    flow.close()
}

/// The guest `willing` gives up asking the other one, which leaves UDP alone. Round trips go on over the network.
fn stays_with_one(bench: &Bench, flow: &Flow, willing: Machine) -> Result<()> {
    // There is a channel.
    bench.pair()?.finish()?;
    let declines = || Ok::<_, anyhow::Error>(bench.declines(willing, "not-proven")?[0]);
    let before = declines()?;
    bench.wait("the request is given up", || {
        flow.exchange(Naming::Connected, 10, "max=1400")?;
        Ok(declines()? > before)
    })?;
    for guest in GUESTS {
        let count = through_ring(bench, guest)?;
        ensure!(
            count == 0,
            "{count} datagrams of {guest} went through a ring"
        );
    }
    let state = flow.state(bench, other(willing))?;
    ensure!(state.is_empty(), "the flow is known: {state}");
    Ok(())
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
    leaks::nothing_is_left_now(bench)
}
