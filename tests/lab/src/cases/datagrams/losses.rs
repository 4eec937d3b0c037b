// SPDX-License-Identifier: GPL-2.0

//! What is lost when flows change their way: nothing, but by a guest that is away.

use anyhow::{Context, Result, ensure};
use lab_driver::{Lab, Machine};

use super::{
    flow::{Flow, LONG, Naming, ROUNDS, all_through_ring},
    stream::Stream,
};
use crate::{
    bench::{Bench, GUEST1, GUESTS, other},
    cases::addresses::Change,
    travel,
};

/// Datagrams before and after what happens.
const SOME: u64 = 100;

/// Lets a guest's packets leave it all at once, every so often.
const BURSTS: &str =
    "modprobe sch_netem; tc qdisc add dev eth0 root netem slot 100ms 130ms limit 10000";

/// What a guest goes through, and its name.
type Event = (&'static str, fn(&Lab, Machine) -> Result<()>);

const EVENTS: [Event; 3] = [
    ("saved and restored", travel::save_and_restore),
    ("copied", travel::checkpoint),
    ("migrated", travel::migrate),
];

/// A stream enters the ring.
pub(in crate::cases) fn nothing_lost_at_entry(bench: &Bench) -> Result<()> {
    for source in GUESTS {
        bench.reload(LONG)?;
        let flow = Flow::out_of(bench, source)?;
        let stream = Stream::start(&flow)?;
        stream.wait_in_ring(bench)?;
        stream.wait_for(bench, SOME)?;
        stream.stop_whole()?;
        flow.close()?;
    }
    Ok(())
}

/// Waits until the flow out of `source` has gone and come three times.
fn wait_changes(bench: &Bench, source: Machine) -> Result<()> {
    bench.wait("the flow has gone and come three times", || {
        Ok(bench.counter(source, "udp_flows_left")? >= 3
            && bench.counter(source, "udp_flows_entered")? >= 4)
    })
}

/// A stream goes back to the network when its time is over, and comes again.
pub(in crate::cases) fn nothing_lost_at_expiry(bench: &Bench) -> Result<()> {
    for source in GUESTS {
        bench.reload("udp=1")?;
        let flow = Flow::out_of(bench, source)?;
        let stream = Stream::start(&flow)?;
        wait_changes(bench, source)?;
        stream.stop_whole()?;
        // When they knew nothing of each other one may have counted more than the other; later both count the same ones.
        let reader = other(source);
        let [exact, marked] =
            ["exact", "marked"].map(|how| bench.counter(reader, &format!("udp_handovers_{how}")));
        let (exact, marked) = (exact?, marked?);
        ensure!(
            marked <= 1 && exact >= 3,
            "{exact} handovers were exact, {marked} needed a marker"
        );
        flow.close()?;
    }
    Ok(())
}

/// The network between them stands still again and again, as if it had lost what is on the way, and then delivers many
/// at once: none of them comes behind one that took the ring.
pub(in crate::cases) fn network_in_bursts(bench: &Bench) -> Result<()> {
    for source in GUESTS {
        bench.reload("udp=1")?;
        let _bursts = Change::make(bench, source, BURSTS, "tc qdisc del dev eth0 root")?;
        let flow = Flow::out_of(bench, source)?;
        let stream = Stream::start(&flow)?;
        wait_changes(bench, source)?;
        stream.stop_whole()?;
        let marked = bench.counter(other(source), "udp_handovers_marked")?;
        ensure!(marked > 0, "no flow needed a marker");
        flow.close()?;
    }
    Ok(())
}

/// The module of the sender or of the reader goes, and comes again.
pub(in crate::cases) fn nothing_lost_at_unload(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        bench.reload(LONG)?;
        let flow = Flow::out_of(bench, GUEST1)?;
        let stream = Stream::start(&flow)?;
        stream.wait_in_ring(bench)?;
        stream.wait_for(bench, SOME)?;
        bench.unload(guest)?;
        stream.wait_for(bench, SOME)?;
        bench.load(guest, LONG)?;
        stream.wait_in_ring(bench)?;
        stream.wait_for(bench, SOME)?;
        let whole = stream.stop_whole();
        whole.with_context(|| format!("the module of {guest} went and came"))?;
        flow.close()?;
    }
    Ok(())
}

/// Either guest is saved and restored, copied, and migrated, with streams both ways and round trips: whatever the event itself has
/// lost, nothing is doubled or out of order, nobody hangs, and all go through the ring again, without a loss.
pub(in crate::cases) fn suspended_under_load(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        for (name, event) in EVENTS {
            under_load(bench, guest, event).with_context(|| format!("{guest} was {name}"))?;
        }
    }
    Ok(())
}

fn under_load(bench: &Bench, guest: Machine, event: fn(&Lab, Machine) -> Result<()>) -> Result<()> {
    bench.reload(LONG)?;
    let (forth, back) = (
        Flow::out_of(bench, GUESTS[0])?,
        Flow::out_of(bench, GUESTS[1])?,
    );
    let trips = Flow::usual(bench, Naming::Connected)?;
    trips.enter(bench)?;
    let streams = [Stream::start(&forth)?, Stream::start(&back)?];
    let echo = trips.b.start("echo patient=1")?;
    let exchange = trips.a.start("exchange first=1 max=1400 patient=1")?;
    for stream in &streams {
        stream.wait_in_ring(bench)?;
        stream.wait_for(bench, SOME)?;
    }
    let positions = || {
        let all = streams.iter().map(Stream::position);
        all.collect::<Result<Vec<u64>>>()
    };
    let entered = || {
        let all = GUESTS.map(|guest| bench.counter(guest, "udp_flows_entered"));
        all.into_iter().collect::<Result<Vec<u64>>>()
    };
    let suspends = bench.counter(guest, "suspends")?;
    let (first, entered_before) = (positions()?, entered()?);

    event(bench.lab(), guest)?;

    ensure!(
        bench.counter(guest, "suspends")? == suspends + 1,
        "it was not suspended once"
    );
    bench.wait_peers()?;
    bench.wait("all flows are in the ring again", || {
        // Each guest has a stream and one way of the round trips.
        let have_entered = entered_before
            .iter()
            .zip(entered()?)
            .all(|(before, now)| now >= before + 2);
        Ok(have_entered
            && streams[0].is_in_ring(bench)?
            && streams[1].is_in_ring(bench)?
            && trips.is_in_ring(bench)?)
    })?;
    let last = positions()?;
    for stream in &streams {
        stream.wait_for(bench, SOME)?;
    }
    let rounds = || Ok::<_, anyhow::Error>(trips.a.call("progress")?.number("sent"));
    let goal = rounds()? + SOME;
    bench.wait("round trips go on", || Ok(rounds()? >= goal))?;
    for ((stream, first), last) in streams.into_iter().zip(first).zip(last) {
        lost_only_between(stream, first, last)?;
    }
    trips.a.call("stop")?;
    exchange.wait()?.clean()?;
    trips.b.call("stop")?;
    echo.wait()?.clean()?;
    // Those that were sent again.
    for end in [&trips.b, &trips.a] {
        end.call("gather timeout=1000")?;
    }
    all_through_ring(bench, &trips, Naming::Connected, ROUNDS, "max=1400")?;
    for flow in [trips, forth, back] {
        flow.close()?;
    }
    Ok(())
}

/// Ends a stream that may have lost datagrams from number `first` on, and none from number `last` on.
fn lost_only_between(stream: Stream<'_>, first: u64, last: u64) -> Result<()> {
    let (sent, answer) = stream.stop()?;
    let number = |name| answer.number(name);
    println!("    {} of {sent} datagrams were lost", number("lost"));
    ensure!(
        number("first") == 1 && number("last") == sent,
        "datagrams from {} to {} have come, and {sent} were sent",
        number("first"),
        number("last")
    );
    ensure!(
        number("lost") == 0 || (number("first_lost") >= first && number("last_lost") < last),
        "{} datagrams were lost from {} to {}, and the guest was away from {first} to {last} at most",
        number("lost"),
        number("first_lost"),
        number("last_lost")
    );
    Ok(())
}
