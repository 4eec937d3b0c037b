// SPDX-License-Identifier: GPL-2.0

//! Calls on sockets of UDP, and how two of them come to the ring.

use std::{
    mem,
    net::{IpAddr, SocketAddr},
    os::fd::RawFd,
    thread,
    time::Duration, //
};

use nix::{
    errno::Errno,
    sys::socket::{SockaddrLike, SockaddrStorage},
};

use crate::{
    call::{self, check},
    end::End,
    log::Observed,
    module::{self, Flow},
    options::Way,
};

/// Exchanges that each pair of sockets makes before a case begins: enough for its flows to be worth the ring.
const EXCHANGES: u32 = 12;

/// Exchanges after which both flows must be there, if that is the way.
const EXCHANGES_MAX: u32 = 2000;

/// Milliseconds after which a datagram counts as lost.
const LOST_MS: i32 = 1_000;

/// Time between two exchanges beyond the first ones: flows come to the ring in their own time.
const PERIOD: Duration = Duration::from_millis(5);

/// Bytes of each exchange.
const SIZE: usize = 100;

/// A UDP socket for an address's family.
pub(crate) fn socket(address: &SocketAddr) -> Result<RawFd, Errno> {
    call::socket_of(address, libc::SOCK_DGRAM)
}

/// One that is bound to an address, and its port if that was 0.
pub(crate) fn bound(address: SocketAddr) -> (RawFd, u16) {
    let fd = socket(&address).expect("socket");
    call::bind_strictly(fd, &address).expect("bind");
    (fd, call::local(fd).expect("getsockname").port())
}

/// connect(2) to nobody, as sockets of UDP can.
pub(crate) fn disconnect(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: All fields may be zero.
    let mut nobody: libc::sockaddr = unsafe { mem::zeroed() };
    nobody.sa_family = libc::AF_UNSPEC as _;
    let len = size_of_val(&nobody) as libc::socklen_t;
    // SAFETY: The address is valid for reads of its length.
    Errno::result(unsafe { libc::connect(fd, &nobody, len) }).map(drop)
}

/// sendto(2).
pub(crate) fn send_to(
    fd: RawFd,
    bytes: &[u8],
    flags: i32,
    to: &SocketAddr,
) -> Result<usize, Errno> {
    let raw = SockaddrStorage::from(*to);
    let (at, len) = (bytes.as_ptr().cast(), bytes.len());
    // SAFETY: Bytes and address are valid for reads of their lengths.
    check(unsafe { libc::sendto(fd, at, len, flags, raw.as_ptr(), raw.len()) })
}

/// recvfrom(2) of at most `size` bytes: what the call returns, which may be more, the bytes, and who sent them.
pub(crate) fn recv_from(
    fd: RawFd,
    size: usize,
    flags: i32,
) -> Result<(usize, Vec<u8>, Option<SocketAddr>), Errno> {
    let mut bytes = vec![0; size];
    // SAFETY: All fields may be zero.
    let mut name: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut len = size_of_val(&name) as libc::socklen_t;
    let (at, name_at) = (bytes.as_mut_ptr().cast(), (&raw mut name).cast());
    // SAFETY: All are valid for writes of their lengths.
    let count = check(unsafe { libc::recvfrom(fd, at, size, flags, name_at, &mut len) })?;
    bytes.truncate(count);
    // SAFETY: The kernel has filled in so many bytes.
    let storage = unsafe { SockaddrStorage::from_raw((&raw const name).cast(), Some(len)) };
    let v4 = |any: &SockaddrStorage| any.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    let v6 = |any: &SockaddrStorage| any.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()));
    let from = storage.and_then(|any| v4(&any).or(v6(&any)));
    Ok((count, bytes, from))
}

impl End {
    /// Makes two sockets that are connected to each other, one at each end, exchanges datagrams, and waits until both flows are in the
    /// ring if that is the way.
    pub(crate) fn exchange_datagrams(&mut self) {
        let (ours, peer) = (self.address(), self.peer());
        self.fd = self.datagram_pair(SocketAddr::new(ours, 0), SocketAddr::new(peer, 0));
        self.accelerate_datagrams();
    }

    /// A socket at `ours` that is connected to the other end's, which is at `theirs`; ports are found.
    pub(crate) fn datagram_pair(&mut self, ours: SocketAddr, mut theirs: SocketAddr) -> RawFd {
        let (fd, port) = bound(ours);
        self.tell(port);
        theirs.set_port(self.ask().parse().expect("a port"));
        call::connect(fd, &theirs).expect("connect");
        // Who is not connected yet takes what comes from anybody.
        self.meet();
        fd
    }

    /// Waits until the frontend knows that an address, which may be new, is the other end's, if flows are to get to the ring.
    pub(crate) fn wait_seen(&mut self, address: IpAddr) {
        if self.way == Way::Ring {
            self.until("the address is announced", || module::sees(address));
        }
    }

    /// Exchanges datagrams until both flows of `fd` are in the ring, if that is the way.
    pub(crate) fn accelerate_datagrams(&mut self) {
        let fd = self.fd;
        let flow = Flow::of(fd);
        for round in 0..EXCHANGES_MAX {
            let bytes = [0; SIZE];
            if self.active {
                call::send(fd, &bytes, 0).expect("send");
                receive_late(fd);
            } else {
                receive_late(fd);
                call::send(fd, &bytes, 0).expect("send");
            }
            let ready = self.is_ready(round, &flow);
            self.tell(u8::from(ready));
            let theirs = self.ask() == "1";
            if theirs && ready {
                self.note_in_ring(flow);
                return self.discard();
            }
        }
        panic!("not in the ring: {}", flow.line());
    }

    /// Calls `send`, which sends one datagram of a flow, until that is in the ring if that is the way. The other end calls
    /// [`End::receive_until_in_ring`] meanwhile.
    pub(crate) fn send_until_in_ring(&mut self, flow: Flow, mut send: impl FnMut()) {
        for round in 0..EXCHANGES_MAX {
            send();
            let ready = self.is_ready(round, &flow);
            self.tell(u8::from(ready));
            self.meet();
            if ready {
                return self.note_in_ring(flow);
            }
        }
        panic!("not in the ring: {}", flow.line());
    }

    /// Calls `receive` for each of those datagrams.
    pub(crate) fn receive_until_in_ring(&mut self, mut receive: impl FnMut(&mut Self)) {
        let mut is_last = false;
        while !is_last {
            is_last = self.ask() == "1";
            receive(self);
            self.meet();
        }
    }

    /// Whether there were enough exchanges, and a flow is in the ring if that is the way. If that takes longer, it gets the time.
    fn is_ready(&self, round: u32, flow: &Flow) -> bool {
        if round >= EXCHANGES {
            thread::sleep(PERIOD);
        }
        round >= EXCHANGES && (self.way != Way::Ring || flow.is_in_ring())
    }

    /// Takes what came late.
    fn discard(&mut self) {
        self.meet();
        while call::recv(self.fd, SIZE, libc::MSG_DONTWAIT).is_ok() {}
        self.meet();
    }

    /// sendto(2), noted.
    pub(crate) fn send_to(&mut self, bytes: &[u8], flags: i32, to: &SocketAddr) {
        let result = send_to(self.fd, bytes, flags, to);
        self.see(&format!("sendto {}", bytes.len()), result);
    }

    /// recvfrom(2), noted, with whether it came from `from`.
    pub(crate) fn recv_from(&mut self, size: usize, flags: i32, from: &SocketAddr) {
        let result = recv_from(self.fd, size, flags);
        let text = result.map(|(count, bytes, sender)| {
            let is_it = sender == Some(*from);
            format!("{count}: {}, from it: {is_it}", bytes.text())
        });
        self.see(&format!("recvfrom {size}"), text);
    }
}

/// Takes a datagram, if one comes.
pub(crate) fn receive_late(fd: RawFd) {
    if call::poll(fd, libc::POLLIN.into(), LOST_MS).is_ok_and(|events| events.0 != 0) {
        let _ = call::recv(fd, SIZE, libc::MSG_DONTWAIT);
    }
}
