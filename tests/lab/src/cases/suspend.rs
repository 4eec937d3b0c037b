// SPDX-License-Identifier: GPL-2.0

//! Guests that are saved, restored, copied and migrated: their connections live on, and come back to the ring.

use anyhow::{Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS},
    cases::leaks,
    pair::{Load, Pair},
    peer::Pending,
    travel::{self, Receiver, Stopwatch},
};

/// Bytes that flow through the ring, before and after.
const BYTES: u64 = 1 << 20;

/// Bytes that a sleeping reader waits for.
const LITTLE: u64 = 1000;

/// Suspends one after the other that must not leave anything.
const SUSPENDS: usize = 6;

/// How the two ends of a connection under load wait, sender and receiver.
const MODES: [&str; 3] = ["block", "poll", "edge"];

/// Under load, one connection for each way to wait.
fn under_load(bench: &Bench, guests: &[Machine], suspend: impl Fn() -> Result<()>) -> Result<()> {
    let pairs: Vec<Pair> = MODES.iter().map(|_| bench.pair()).collect::<Result<_>>()?;
    let mut loads = Vec::new();
    for (pair, mode) in pairs.iter().zip(MODES) {
        let mode = format!("mode={mode}");
        loads.push(Load::start_as(pair, BYTES, &mode, &mode)?);
    }
    let suspends = count(bench, guests, "suspends")?;
    let resets = bench.resets()?;
    let watches = GUESTS.map(|guest| {
        // A guest that stays sees another instance of the other one.
        let counter = if guests.contains(&guest) {
            "resumes"
        } else {
            "peers_seen"
        };
        let before = bench.counter(guest, counter)?;
        let watch = Stopwatch::start(bench.lab(), guest, counter, before, pairs.len())?;
        Ok::<_, anyhow::Error>((guest, counter, watch))
    });

    suspend()?;

    let expected: Vec<u64> = suspends.iter().map(|count| count + 1).collect();
    let found = count(bench, guests, "suspends")?;
    ensure!(
        found == expected,
        "suspended {found:?} times, not {expected:?}"
    );
    bench.wait_on_ring(&pairs)?;
    for watch in watches {
        let (guest, counter, watch) = watch?;
        let times = watch.stop()?;
        println!(
            "    {guest}, from {counter} on: {times}; ms: {}",
            bench.report(guest, "timeline")?.replace('\n', ", ")
        );
    }
    loads.iter().try_for_each(|load| load.wait_for(BYTES))?;
    Load::end_all(loads, &pairs)?;
    ensure!(bench.resets()? == resets, "connections were reset");
    leaks::nothing_is_left_now(bench)
}

/// A counter of some guests.
fn count(bench: &Bench, guests: &[Machine], name: &str) -> Result<Vec<u64>> {
    guests
        .iter()
        .map(|guest| bench.counter(*guest, name))
        .collect()
}

/// Either guest is saved and restored.
pub(super) fn saved_and_restored(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        bench.reset()?;
        under_load(bench, &[guest], || {
            travel::save_and_restore(bench.lab(), guest)
        })?;
    }
    Ok(())
}

/// Either guest is copied, and goes on in its own domain.
pub(super) fn checkpoint(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        bench.reset()?;
        under_load(bench, &[guest], || travel::checkpoint(bench.lab(), guest))?;
    }
    Ok(())
}

/// Either guest migrates to another domain of the same host.
pub(super) fn migrated_to_itself(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        bench.reset()?;
        under_load(bench, &[guest], || travel::migrate(bench.lab(), guest))?;
    }
    Ok(())
}

/// A guest begins to migrate, and goes on where it was, since the other side fails: before it was suspended, when it has come, or
/// when it was to be started there.
pub(super) fn migration_fails(bench: &Bench) -> Result<()> {
    for (guest, receiver) in [(GUEST1, Receiver::Late), (GUEST2, Receiver::Refusing)] {
        bench.reset()?;
        under_load(bench, &[guest], || {
            travel::fail_to_migrate(bench.lab(), guest, Receiver::Early)?;
            travel::fail_to_migrate(bench.lab(), guest, receiver)
        })?;
    }
    Ok(())
}

/// Both guests are away before the first one is back.
pub(super) fn both_saved(bench: &Bench) -> Result<()> {
    under_load(bench, &GUESTS, || {
        travel::save_and_restore_all(bench.lab(), &GUESTS)
    })
}

/// Both guests are suspended at the same time.
pub(super) fn both_copied_at_once(bench: &Bench) -> Result<()> {
    under_load(bench, &GUESTS, || {
        std::thread::scope(|scope| {
            let copies = GUESTS.map(|guest| {
                let lab = bench.lab();
                scope.spawn(move || travel::checkpoint(lab, guest))
            });
            copies
                .into_iter()
                .try_for_each(|copy| copy.join().expect("a copy panicked"))
        })
    })
}

/// Readers that sleep, in the call or in poll, sleep on in the new domain, and are woken by what comes later.
pub(super) fn saved_while_idle_readers_sleep(bench: &Bench) -> Result<()> {
    for guest in [GUEST1, GUEST2] {
        let pairs = [bench.pair()?, bench.pair()?, bench.pair()?];
        let mut waiting: Vec<Pending> = Vec::new();
        for (pair, mode) in pairs.iter().zip(MODES) {
            for end in [&pair.a, &pair.b] {
                let pending = end.start(&format!("recv bytes={LITTLE} mode={mode}"))?;
                pending.wait_asleep()?;
                waiting.push(pending);
            }
        }
        travel::save_and_restore(bench.lab(), guest)?;
        bench.wait_peers()?;
        ensure!(
            waiting.iter().all(Pending::is_running),
            "a reader was woken by the suspend"
        );
        for pair in &pairs {
            pair.a.send(LITTLE)?;
            pair.b.send(LITTLE)?;
        }
        waiting
            .into_iter()
            .try_for_each(|pending| pending.wait()?.exactly(LITTLE).map(drop))?;
        for pair in &pairs {
            pair.accelerate()?;
            pair.both_ways(BYTES, "", "")?;
            pair.finish()?;
        }
    }
    Ok(())
}

/// Bytes that nobody has read yet come first afterwards, whoever is saved.
pub(super) fn saved_with_unread_bytes(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        let pair = bench.pair()?;
        let sent = pair.fill_rings()?;
        travel::save_and_restore(bench.lab(), guest)?;
        pair.a.send(LITTLE)?;
        pair.b.send(LITTLE)?;
        pair.b.receive(sent[0] + LITTLE)?;
        pair.a.receive(sent[1] + LITTLE)?;
        bench.wait_peers()?;
        pair.accelerate()?;
        pair.finish()?;
    }
    leaks::nothing_is_left_now(bench)
}

/// After some suspends, everything is as it was after the first ones: memory, pages without memory, references to the module.
pub(super) fn leaves_nothing(bench: &Bench) -> Result<()> {
    let travels = |count| {
        for guest in (0..count).map(|turn| GUESTS[turn % 2]) {
            let pair = bench.pair()?;
            let load = Load::start(&pair, BYTES)?;
            travel::checkpoint(bench.lab(), guest)?;
            bench.wait("it is on the ring again", || pair.is_accelerated())?;
            load.stop()?;
            pair.a.close()?;
            pair.b.close()?;
        }
        bench.wait_no_connections()?;
        leaks::no_references(bench, &GUESTS)?;
        leaks::nothing_is_left_now(bench)
    };
    travels(2)?;
    let before = GUESTS.map(|guest| leaks::Memory::of(bench, guest));
    bench.load_all()?;
    travels(SUSPENDS)?;
    for (guest, before) in GUESTS.into_iter().zip(before) {
        before?.wait_back(bench, guest)?;
    }
    Ok(())
}
