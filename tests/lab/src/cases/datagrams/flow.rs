// SPDX-License-Identifier: GPL-2.0

//! What the tests of datagrams work with: two sockets between which datagrams go, and what is known of them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use lab_driver::Machine;

use crate::{
    bench::{Bench, GUEST1, GUEST2, GUESTS, other},
    peer::{Answer, Pending, Socket},
};

/// A flow stays in the ring for as long as a test may take.
pub(super) const LONG: &str = "udp=3600";

/// Round trips of an exchange.
pub(super) const ROUNDS: u64 = 300;

/// Time for datagrams that are on their way, in milliseconds; afterwards they are lost.
pub(super) const SILENCE_MS: u64 = 3_000;

/// Two sockets of different guests.
pub(super) struct Flow {
    /// The first one.
    pub(super) a: Socket,
    /// The second one.
    pub(super) b: Socket,
    /// The guest that has the first one.
    pub(super) source: Machine,
    /// The port of the first one.
    pub(super) from: u16,
    /// The address of the second one.
    pub(super) to: SocketAddr,
}

/// How the first socket names the second one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Once, by connect(2).
    Connected,
    /// In each call.
    Each,
}

impl Flow {
    /// Sockets of both guests: the first guest's at `from`, the second one's at `to`.
    pub(super) fn new(bench: &Bench, from: IpAddr, to: IpAddr, naming: Naming) -> Result<Self> {
        Self::of(bench, GUEST1, from, to, naming)
    }

    /// The same, where the first socket is one of `source`.
    pub(super) fn of(
        bench: &Bench,
        source: Machine,
        from: IpAddr,
        to: IpAddr,
        naming: Naming,
    ) -> Result<Self> {
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
        let b = bench.peer(other(source))?.udp(unmapped(at), None)?;
        let connected = (naming == Naming::Connected).then_some(to);
        let a = bench.peer(source)?.udp(from, connected)?;
        let from = from.port();
        Ok(Self {
            a,
            b,
            source,
            from,
            to,
        })
    }

    /// The usual ones.
    pub(super) fn usual(bench: &Bench, naming: Naming) -> Result<Self> {
        let (from, to) = (GUEST1.address(), GUEST2.address());
        Self::new(bench, from.into(), to.into(), naming)
    }

    /// Connected ones, the first of which is one of `source`.
    pub(super) fn out_of(bench: &Bench, source: Machine) -> Result<Self> {
        let (from, to) = (source.address(), other(source).address());
        Self::of(bench, source, from.into(), to.into(), Naming::Connected)
    }

    /// Connected ones of UDP-Lite.
    pub(super) fn lite(bench: &Bench) -> Result<Self> {
        let from = SocketAddr::new(GUEST1.address().into(), bench.port());
        let to = SocketAddr::new(GUEST2.address().into(), bench.port());
        Ok(Self {
            b: bench.peer(GUEST2)?.udp_lite(to, None)?,
            a: bench.peer(GUEST1)?.udp_lite(from, Some(to))?,
            source: GUEST1,
            from: from.port(),
            to,
        })
    }

    /// The usual ones, in the ring both ways.
    pub(super) fn in_ring(bench: &Bench) -> Result<Self> {
        bench.reload(LONG)?;
        let flow = Self::usual(bench, Naming::Connected)?;
        flow.enter(bench)?;
        Ok(flow)
    }

    /// Round trips, of which no datagram may be lost or changed.
    pub(super) fn exchange(&self, naming: Naming, rounds: u64, sizes: &str) -> Result<()> {
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
    pub(super) fn enter(&self, bench: &Bench) -> Result<()> {
        bench.wait("the flows are in the ring", || {
            self.exchange(Naming::Each, 4, "size=100")?;
            self.is_in_ring(bench)
        })
    }

    /// Whether both ways lead through the ring.
    pub(super) fn is_in_ring(&self, bench: &Bench) -> Result<bool> {
        Ok(self.state(bench, GUEST1)? == "Ring" && self.state(bench, GUEST2)? == "Ring")
    }

    /// Where the datagrams go that leave a guest: `Network`, `Ring`, or in between; empty if the module does not know the flow.
    pub(super) fn state(&self, bench: &Bench, guest: Machine) -> Result<String> {
        let (mut source, mut destination) = (self.from, self.to.port());
        if guest != self.source {
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

    pub(super) fn close(self) -> Result<()> {
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
pub(super) fn through_ring(bench: &Bench, guest: Machine) -> Result<u64> {
    bench.counter(guest, "udp_tx_datagrams")
}

/// Exchanges, all through the ring.
pub(super) fn all_through_ring(
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

/// What a receiver said is in order, and nothing of it came twice.
pub(super) fn in_order(answer: Answer) -> Result<Answer> {
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
pub(super) fn gather(socket: &Socket) -> Result<Pending> {
    socket.start(&format!("gather timeout={SILENCE_MS}"))
}
