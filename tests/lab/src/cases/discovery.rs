// SPDX-License-Identifier: GPL-2.0

//! Who sees whom: in any order of insmod, after any change.

use anyhow::{Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS},
    cases::leaks,
    pair::Load,
};

/// Bytes of a transfer.
const BYTES: u64 = 1 << 20;

/// Where a guest announces itself.
const ANNOUNCE: &str = "data/xenvmc/announce";

/// A new connection is accelerated, and carries bytes both ways.
fn works(bench: &Bench) -> Result<()> {
    bench.wait_peers()?;
    let pair = bench.pair()?;
    pair.both_ways(BYTES, "", "")?;
    pair.finish()
}

pub(super) fn frontends_first(bench: &Bench) -> Result<()> {
    bench.unload_all()?;
    bench.load(GUEST2, "")?;
    bench.load(GUEST1, "")?;
    bench.load_backend()?;
    works(bench)
}

pub(super) fn backend_first(bench: &Bench) -> Result<()> {
    bench.unload_all()?;
    bench.load_backend()?;
    bench.load(GUEST1, "")?;
    bench.load(GUEST2, "")?;
    works(bench)
}

pub(super) fn backend_between(bench: &Bench) -> Result<()> {
    bench.unload_all()?;
    bench.load(GUEST1, "")?;
    bench.load_backend()?;
    bench.load(GUEST2, "")?;
    works(bench)
}

/// Connections run on without the backend and with another one.
pub(super) fn backend_comes_and_goes(bench: &Bench) -> Result<()> {
    let pair = bench.pair()?;
    let load = Load::start(&pair, BYTES)?;
    for _ in 0..2 {
        bench.unload_backend()?;
        load.wait_for(BYTES)?;
        bench.load_backend()?;
        load.wait_for(BYTES)?;
        works(bench)?;
    }
    load.stop()?;
    pair.a.close()?;
    pair.b.close()?;
    leaks::nothing_is_left_now(bench)
}

/// A frontend that is loaded again is accelerated again, and its predecessor's peers forget it.
pub(super) fn frontend_comes_and_goes(bench: &Bench) -> Result<()> {
    for guest in GUESTS {
        let (other, address) = (
            if guest == GUEST1 { GUEST2 } else { GUEST1 },
            guest.address().to_string(),
        );
        bench.unload(guest)?;
        bench.wait("the peer is gone", || Ok(!bench.sees(other, &address)?))?;
        bench.load(guest, "")?;
        works(bench)?;
    }
    Ok(())
}

/// An address that a guest gets is known to its peers, and one that it loses no longer.
pub(super) fn address_changes(bench: &Bench) -> Result<()> {
    let address = "10.77.0.112";
    bench.set_dirty();
    bench.shell(GUEST2, &format!("ip address add {address}/24 dev eth0"))?;
    bench.wait_peer(GUEST1, address)?;
    let pair = bench
        .pairs_between(
            &bench.peer(GUEST1)?,
            &bench.peer(GUEST2)?,
            address.parse()?,
            1,
        )?
        .remove(0);
    pair.accelerate()?;
    pair.both_ways(BYTES, "", "")?;
    pair.finish()?;
    bench.shell(GUEST2, &format!("ip address del {address}/24 dev eth0"))?;
    bench.wait("the address is forgotten", || {
        Ok(!bench.sees(GUEST1, address)?)
    })?;
    works(bench)
}

/// Guests of different groups do not see each other, and what runs between them is TCP.
pub(super) fn groups(bench: &Bench) -> Result<()> {
    bench.set_dirty();
    let domid = bench.domid(GUEST2)?;
    let key = format!("/local/domain/{domid}/xenvmc/group");
    bench.shell(Machine::Dom0, &format!("xenstore-write {key} others"))?;
    for (guest, other) in [(GUEST1, GUEST2), (GUEST2, GUEST1)] {
        let address = other.address().to_string();
        bench.wait("the peer is out of sight", || {
            Ok(!bench.sees(guest, &address)?)
        })?;
    }
    let upgrades = bench.counter(GUEST1, "upgrades")?;
    let pair = bench.plain_pair()?;
    for _ in 0..20 {
        pair.exchange(5000)?;
    }
    pair.finish()?;
    ensure!(
        bench.counter(GUEST1, "upgrades")? == upgrades,
        "accelerated across groups"
    );
    bench.shell(Machine::Dom0, &format!("xenstore-rm {key}"))?;
    works(bench)
}

/// An announcement that cannot be understood is refused: one line in the log, one count, no peer.
pub(super) fn malformed_announcements(bench: &Bench) -> Result<()> {
    let long = format!(
        "version=1 features=0x0 instance=0123456789abcdef addresses={}",
        "1".repeat(1500)
    );
    let values = [
        "garbage",
        "version=1",
        "version=1 features=0x0 instance=xyz addresses=10.77.0.12",
        "version=1 features=0x0 instance=0123456789abcdef addresses=10.77.0.300",
        "version=1 version=1 features=0x0 instance=0123456789abcdef addresses=10.77.0.12",
        &long,
    ];
    bench.unload(GUEST2)?;
    let address = GUEST2.address().to_string();
    bench.wait("the peer is gone", || Ok(!bench.sees(GUEST1, &address)?))?;
    for value in values {
        let name = value.get(..60).unwrap_or(value);
        let refused = bench.counter(Machine::Dom0, "announcements_refused")?;
        let lines = bench.kernel_log(Machine::Dom0).lines().count();
        bench.shell(GUEST2, &format!("xenstore-write {ANNOUNCE} '{value}'"))?;
        bench.wait(&format!("{name:?} is refused"), || {
            Ok(bench.counter(Machine::Dom0, "announcements_refused")? == refused + 1)
        })?;
        let log = bench.kernel_log(Machine::Dom0);
        let new: Vec<_> = log
            .lines()
            .skip(lines)
            .filter(|line| line.contains("xenvmc"))
            .collect();
        ensure!(
            new.len() == 1,
            "{} lines in the log for {name:?}: {new:?}",
            new.len()
        );
        ensure!(!bench.sees(GUEST1, &address)?, "a peer from {name:?}");
    }
    bench.shell(GUEST2, &format!("xenstore-rm {ANNOUNCE}"))?;
    bench.load(GUEST2, "")?;
    works(bench)
}

/// A backend of another version is taken for none, which is said once; the next one is not.
pub(super) fn backend_of_another_version(bench: &Bench) -> Result<()> {
    bench.unload_all()?;
    bench.load(GUEST1, "")?;
    let own = format!("/local/domain/{}/xenvmc", bench.domid(GUEST1)?);
    let (peer, address) = (bench.domid(GUEST2)?, GUEST2.address());
    let said = "the backend speaks version 2 of the protocol";
    let lines = || bench.kernel_log(GUEST1).matches(said).count();
    let announcement =
        format!("version=1 features=0x0 instance=0123456789abcdef addresses={address}");
    let line = format!(
        "xenstore-write {own}/peers/{peer} '{announcement}' && \
         xenstore-write {own}/backend 'version=2 instance=000000000000000a'"
    );
    bench.shell(Machine::Dom0, &line)?;
    bench.wait("the guest has looked at it", || Ok(lines() > 0))?;
    let peers = bench.report(GUEST1, "peers")?;
    ensure!(peers.is_empty(), "the guest sees {peers}");
    ensure!(lines() == 1, "{} lines in the log", lines());
    bench.shell(Machine::Dom0, &format!("xenstore-rm {own}"))?;
    bench.load_backend()?;
    bench.load(GUEST2, "")?;
    works(bench)
}
