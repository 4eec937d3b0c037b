// SPDX-License-Identifier: GPL-2.0

//! Guests that stand still, die, and come again, and what their peers make of it.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS, other},
    cases::leaks,
    pair::Load,
    travel,
};

/// How long a guest stands still.
const PAUSE: Duration = Duration::from_secs(60);

/// Part of that time for which its peer may use a processor: it does nothing but wait.
const IDLE: f64 = 0.25;

/// Bytes that flow through the ring.
const BYTES: u64 = 1 << 20;

/// Bytes of a message.
const LITTLE: u64 = 1000;

/// Messages that are worth a ring.
const MESSAGES: u32 = 20;

/// How often a guest is suspended while its module goes and comes.
const RACES: u32 = 3;

/// Lets the module go and come until it is enough, and then says how often.
const RELOADS: &str = "rm -f /tmp/enough /tmp/reloads
(
n=0
until [ -e /tmp/enough ]; do
	rmmod xenvmc_frontend && insmod /lib/xenvmc/xenvmc_frontend.ko || break
	n=$((n + 1))
done
echo $n >/tmp/reloads
) </dev/null >/dev/null 2>&1 &";

/// CPU seconds that a guest has used.
fn cpu_seconds(bench: &Bench, guest: Machine) -> Result<f64> {
    let domains = bench.lab().domains()?;
    let name = guest.to_string();
    let found = domains.iter().find(|domain| domain.name == name);
    Ok(found.with_context(|| format!("no {guest}"))?.cpu_seconds)
}

/// Either guest stands still for a minute, under load: the other one waits without using its processor, and nothing is lost.
pub(super) fn paused(bench: &Bench) -> Result<()> {
    let resets = bench.resets()?;
    for (guest, other) in [(GUEST1, GUEST2), (GUEST2, GUEST1)] {
        let pairs = [bench.pair()?, bench.pair()?];
        let loads = vec![
            Load::start_as(&pairs[0], BYTES, "mode=block", "mode=block")?,
            Load::start_as(&pairs[1], BYTES, "mode=edge", "mode=edge")?,
        ];
        let used = travel::while_paused(bench.lab(), guest, || {
            let before = cpu_seconds(bench, other)?;
            thread::sleep(PAUSE);
            Ok(cpu_seconds(bench, other)? - before)
        })?;
        println!("    {other} used {used:.1} CPU seconds while {guest} stood still for {PAUSE:?}");
        ensure!(
            used < IDLE * PAUSE.as_secs_f64(),
            "{other} used {used:.1} CPU seconds"
        );
        loads.iter().try_for_each(|load| load.wait_for(BYTES))?;
        Load::end_all(loads, &pairs)?;
    }
    ensure!(resets == bench.resets()?, "connections were reset");
    Ok(())
}

/// A guest stands still when the other one offers it a channel: the offer is taken back, bytes go on over TCP when it is there again, and a
/// later offer is as good as ever.
pub(super) fn offer_without_answer(bench: &Bench) -> Result<()> {
    bench.reload("")?;
    let (offering, answering) = match bench.domid(GUEST1)? < bench.domid(GUEST2)? {
        true => (GUEST1, GUEST2),
        false => (GUEST2, GUEST1),
    };
    // There is no channel as long as only one of them takes connections over.
    bench.unload(offering)?;
    let pair = bench.plain_pair()?;
    let end = pair.end(offering == GUEST1);
    travel::while_paused(bench.lab(), answering, || {
        bench.load(offering, "")?;
        // Few enough for TCP to keep, and enough to be worth a ring.
        for _ in 0..MESSAGES {
            end.send(LITTLE)?;
        }
        bench.wait("the end of the offer", || {
            Ok(bench.counter(offering, "channels_closed")? == 1)
        })
    })?;
    let log = bench.kernel_log(offering);
    ensure!(
        log.contains("no answer to our offer"),
        "the log does not say why the channel ended"
    );
    pair.end(offering != GUEST1)
        .receive(u64::from(MESSAGES) * LITTLE)?;
    pair.accelerate()?;
    pair.both_ways(BYTES, "", "")?;
    ensure!(
        bench.counter(answering, "offers_bad")? == 0,
        "the guest found an offer that was not there any more"
    );
    pair.finish()
}

/// A guest is suspended while its peer stands still: connections with bytes that only the peer has are reset, and those that come
/// later are as good as ever.
pub(super) fn paused_while_the_other_is_suspended(bench: &Bench) -> Result<()> {
    for (guest, other) in [(GUEST1, GUEST2), (GUEST2, GUEST1)] {
        let pair = bench.pair()?;
        let plain = bench.plain_pair()?;
        plain.exchange(LITTLE)?;
        pair.fill_rings()?;
        let before = bench.counter(guest, "connections_reset")?;
        travel::while_paused(bench.lab(), other, || {
            travel::checkpoint(bench.lab(), guest)
        })?;
        let reset = bench.counter(guest, "connections_reset")? - before;
        ensure!(
            reset == 1,
            "{reset} connections were reset, and one had used the ring"
        );
        for end in [&pair.a, &pair.b] {
            let error = end.receive_all()?.error().to_owned();
            ensure!(
                error == "ECONNRESET",
                "an end of it got {error:?} after its bytes"
            );
            end.close()?;
        }
        bench.wait_peers()?;
        plain.accelerate()?;
        plain.both_ways(BYTES, "", "")?;
        plain.finish()?;
    }
    leaks::nothing_is_left_now(bench)
}

/// A guest boots anew, or is destroyed and made again, while it has connections: its peer finds the new one.
pub(super) fn comes_again(bench: &Bench) -> Result<()> {
    // A guest that boots anew ends its processes first, which close their connections.
    for (line, is_orderly) in [
        ("xl reboot -F guest2", true),
        ("xl destroy guest2; xl create -q /lab/guest2.cfg", false),
    ] {
        bench.reset()?;
        let domid = bench.domid(GUEST2)?;
        let pairs = [bench.pair()?, bench.pair()?];
        let receiving = pairs[0].a.start("recv")?;
        receiving.wait_asleep()?;
        let sending = pairs[1].a.start("send bytes=67108864")?;
        sending.wait_asleep()?;
        bench.anew(GUEST2, || {
            bench.shell(Machine::Dom0, line)?;
            let received = receiving.wait()?;
            if is_orderly {
                received.ended(0)?;
            } else {
                received.failed(0, "ECONNRESET")?;
            }
            let error = sending.wait()?.error().to_owned();
            ensure!(
                ["ECONNRESET", "EPIPE"].contains(&error.as_str()),
                "a sender got {error:?}"
            );
            for pair in &pairs {
                pair.a.close()?;
            }
            Ok(())
        })?;
        ensure!(bench.domid(GUEST2)? != domid, "the same domain");
        bench.load(GUEST2, "")?;
        bench.wait_peers()?;
        let pair = bench.pair()?;
        pair.both_ways(BYTES, "", "")?;
        pair.finish()?;
        leaks::nothing_is_left_now(bench)?;
    }
    Ok(())
}

/// A guest is destroyed, and another one gets its number: its peer takes it for what it is, with a module that comes later or that was
/// there when the guest was copied.
pub(super) fn number_comes_again(bench: &Bench) -> Result<()> {
    for (guest, has_module) in [(GUEST2, false), (GUEST1, true)] {
        bench.reset()?;
        let (stays, domid) = (other(guest), bench.domid(guest)?);
        if !has_module {
            bench.unload(guest)?;
        }
        travel::keep_copy(bench.lab(), guest)?;
        if !has_module {
            bench.load(guest, "")?;
        }
        bench.wait_peers()?;
        let pairs = [bench.pair()?, bench.pair()?];
        let receiving = pairs[0].end(stays == GUEST1).start("recv")?;
        receiving.wait_asleep()?;
        let load = Load::start(&pairs[1], BYTES)?;
        let seen = bench.counter(stays, "peers_seen")?;
        bench.anew(guest, || {
            // Nothing of its peer's keeps the number in use.
            let line = format!(
                "xl destroy {guest} && while xl list {domid} >/dev/null 2>&1; do usleep 50000; done"
            );
            bench.shell(Machine::Dom0, &line)?;
            receiving.wait()?.failed(0, "ECONNRESET")?;
            load.lost(stays == GUEST1)?;
            for pair in &pairs {
                pair.end(stays == GUEST1).close()?;
            }
            travel::restore_copy(bench.lab(), guest)
        })?;
        ensure!(bench.domid(guest)? == domid, "it has another number");
        if !has_module {
            bench.load(guest, "")?;
        }
        bench.wait_peers()?;
        ensure!(
            bench.counter(stays, "peers_seen")? > seen,
            "{stays} takes it for the one before"
        );
        let pair = bench.pair()?;
        pair.both_ways(BYTES, "", "")?;
        pair.finish()?;
        leaks::nothing_is_left_now(bench)?;
    }
    Ok(())
}

/// A guest's frontend is removed and loaded again and again while the guest is suspended: whatever the suspend meets is finished
/// before or afterwards, and nothing is lost.
pub(super) fn unloaded_while_suspended(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    let load = Load::start(&pair, BYTES)?;
    bench.shell(GUEST1, RELOADS)?;
    let mut suspended = 0;
    for _ in 0..RACES {
        // A suspend that finds rmmod waiting for the thread that suspends is given up.
        suspended += u32::from(travel::checkpoint(bench.lab(), GUEST1).is_ok());
    }
    bench.set_dirty();
    bench.shell(GUEST1, "touch /tmp/enough")?;
    bench.wait("the last removal is over", || {
        let said = bench.shell(GUEST1, "cat /tmp/reloads 2>/dev/null || :")?;
        Ok(!said.is_empty())
    })?;
    let reloads = bench.shell(GUEST1, "cat /tmp/reloads")?;
    println!("    suspended {suspended} times, and reloaded {reloads} times");
    bench.wait_peers()?;
    bench.wait_on_ring(std::slice::from_ref(&pair))?;
    load.stop()?;
    pair.a.close()?;
    pair.b.close()?;
    leaks::nothing_is_left_now(bench)
}

/// The daemon of Xenstore is replaced while it runs, which is all that Xen survives: connections do not care, and guests still find
/// each other.
pub(super) fn xenstored_comes_anew(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    let load = Load::start(&pair, BYTES)?;
    // Another program in the same process, at other addresses.
    let place = || bench.shell(Machine::Dom0, "head -n 1 /proc/$(pidof xenstored)/maps");
    let before = place()?;
    bench.shell(
        Machine::Dom0,
        "xenstore-control live-update -F -t 30 /usr/sbin/xenstored",
    )?;
    ensure!(place()? != before, "it is still the old one");
    load.wait_for(BYTES)?;
    for guest in GUESTS {
        bench.unload(guest)?;
        bench.wait("the other one has heard of it", || {
            Ok(!bench.sees(other(guest), &guest.address().to_string())?)
        })?;
        bench.load(guest, "")?;
        bench.wait_peers()?;
        load.wait_for(LITTLE)?;
    }
    bench.wait_on_ring(std::slice::from_ref(&pair))?;
    load.stop()?;
    pair.a.close()?;
    pair.b.close()?;
    leaks::nothing_is_left_now(bench)
}

/// A peer that speaks another version of the protocol is left alone, and that is said.
pub(super) fn another_version(bench: &Bench) -> Result<()> {
    bench.set_dirty();
    bench.unload(GUEST2)?;
    let domid = bench.domid(GUEST2)?;
    let address = GUEST2.address();
    for version in [0, 2] {
        let path = format!("/local/domain/{domid}/data/xenvmc/announce");
        let value = format!(
            "version={version} features=0x0 instance=00000000000000a{version} addresses={address}"
        );
        bench.shell(Machine::Dom0, &format!("xenstore-write {path} '{value}'"))?;
        bench.wait("guest1 sees the other version", || {
            let peers = bench.report(GUEST1, "peers")?;
            Ok(peers.contains(&format!(" version={version} ")))
        })?;
        let said = format!("speaks version {version} of the protocol");
        let lines = bench.kernel_log(GUEST1).matches(&said).count();
        ensure!(lines == 1, "{lines} lines in the log");
        let before = bench.declines(GUEST1, "version")?;
        let pair = bench.plain_pair()?;
        for _ in 0..8 {
            pair.exchange(LITTLE)?;
        }
        ensure!(
            bench.report(GUEST1, "connections")?.is_empty(),
            "the connection was taken over"
        );
        ensure!(
            bench.declines(GUEST1, "version")?[0] == before[0] + 1,
            "the reason was not counted"
        );
        pair.finish()?;
        bench.shell(
            Machine::Dom0,
            &format!("xenstore-rm /local/domain/{domid}/data/xenvmc"),
        )?;
    }
    // The same connection, with a peer that has learnt this one, moves to the ring.
    let pair = bench.plain_pair()?;
    pair.exchange(LITTLE)?;
    bench.load(GUEST2, "")?;
    bench.wait_peers()?;
    pair.accelerate()?;
    pair.finish()
}
