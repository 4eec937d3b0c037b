// SPDX-License-Identifier: GPL-2.0

//! Options of sockets of UDP, and whom they are connected to.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::RawFd,
};

use super::addresses::global_v6;
use crate::{call, case::cases, datagram, end::End, message, module::Flow};

const IP: i32 = libc::IPPROTO_IP;
const IPV6: i32 = libc::IPPROTO_IPV6;
const SOCKET: i32 = libc::SOL_SOCKET;

/// Datagrams that no small buffer holds, and bytes of each.
const MANY: usize = 64;
const SIZE: usize = 1000;

/// Flows to a port that several sockets have, and datagrams of one of them that is in the ring.
const SOURCES: usize = 20;
const EACH: usize = 8;

cases! {
    /// SO_RCVBUF: what finds no room is dropped, and not what was there before.
    small_receive_buffer datagrams: |left| {
        left.meet();
        for number in 0..MANY {
            call::send(left.fd, &call::pattern(number, SIZE), 0).expect("send");
        }
        left.meet();
        left.meet();
        left.send(b"after that", 0);
    }, |right| {
        right.see("set", call::set(right.fd, SOCKET, libc::SO_RCVBUF, 4096));
        right.see("get", call::get(right.fd, SOCKET, libc::SO_RCVBUF));
        right.meet();
        right.meet();
        right.pause();
        let mut count = 0;
        while let Ok(bytes) = call::recv(right.fd, SIZE, libc::MSG_DONTWAIT) {
            // The first ones, without a gap.
            assert!(bytes == call::pattern(count, SIZE), "datagram {count} is another one");
            count += 1;
        }
        right.note(format!("{count} came"));
        right.see("some came", count > 0);
        right.see("not all came", count < MANY);
        right.meet();
        right.recv(100, 0);
    };

    /// SO_SNDBUF: a small one is enough, and one that is too small for a datagram is not.
    small_send_buffer datagrams: |left| {
        left.see("set", call::set(left.fd, SOCKET, libc::SO_SNDBUF, 1));
        left.see("get", call::get(left.fd, SOCKET, libc::SO_SNDBUF));
        for _ in 0..5 {
            left.send(&call::pattern(0, 1000), 0);
            left.meet();
        }
        left.send(&call::pattern(0, 60_000), 0);
        left.meet();
    }, |right| {
        for _ in 0..5 {
            right.recv(1000, 0);
            right.meet();
        }
        right.meet();
        right.recv(1, libc::MSG_DONTWAIT);
    };

    /// IP_MTU_DISCOVER: a datagram that would have to be cut is not sent.
    mtu datagrams: |left| {
        for how in [libc::IP_PMTUDISC_DO, libc::IP_PMTUDISC_PROBE, libc::IP_PMTUDISC_DONT, libc::IP_PMTUDISC_WANT] {
            left.see("set", call::set(left.fd, IP, libc::IP_MTU_DISCOVER, how));
            left.see("mtu", call::get(left.fd, IP, libc::IP_MTU));
            left.send(&call::pattern(0, 1472), 0);
            left.send(&call::pattern(0, 1473), 0);
            left.meet();
            left.meet();
        }
    }, |right| {
        for _ in 0..4 {
            right.meet();
            right.recv(2000, 0);
            right.pause();
            let more = call::recv(right.fd, 2000, libc::MSG_DONTWAIT);
            right.see("more", more);
            right.meet();
        }
    };

    /// Options that say how a packet is sent.
    sending_options datagrams: |left| {
        for (name, level, option, value) in [
            ("SO_PRIORITY", SOCKET, libc::SO_PRIORITY, 3),
            ("SO_MARK", SOCKET, libc::SO_MARK, 7),
            ("SO_DONTROUTE", SOCKET, libc::SO_DONTROUTE, 1),
            ("SO_NO_CHECK", SOCKET, libc::SO_NO_CHECK, 1),
            ("SO_BROADCAST", SOCKET, libc::SO_BROADCAST, 1),
            ("IP_TTL", IP, libc::IP_TTL, 1),
        ] {
            left.see(name, call::set(left.fd, level, option, value));
            left.see("get", call::get(left.fd, level, option));
            left.send(name.as_bytes(), 0);
            left.meet();
        }
    }, |right| {
        for _ in 0..6 {
            right.recv(100, 0);
            right.meet();
        }
    };

    /// Options that nothing of this concerns keep their values.
    receiving_options datagrams: |left| {
        left.meet();
    }, |right| {
        for (name, level, option, value) in [
            ("SO_BUSY_POLL", SOCKET, libc::SO_BUSY_POLL, 50),
            ("SO_RCVLOWAT", SOCKET, libc::SO_RCVLOWAT, 100),
            ("UDP_NO_CHECK6_RX", libc::IPPROTO_UDP, 102, 1),
        ] {
            right.see(name, call::get(right.fd, level, option).map(|value| value.min(1)));
            right.see("set", call::set(right.fd, level, option, value));
            right.see("get", call::get(right.fd, level, option));
        }
        right.meet();
    };

    /// A socket that changes whom it is connected to, and back: each time it hears that one alone.
    changed_peer datagrams: |left| {
        let first = call::remote(left.fd).expect("getpeername");
        let second = SocketAddr::new(first.ip(), left.ask().parse().expect("a port"));
        for _ in 0..2 {
            for peer in [second, first] {
                left.see("connect", call::connect(left.fd, &peer));
                left.see("is it", call::remote(left.fd) == Ok(peer));
                left.meet();
                left.send(b"hello", 0);
                left.meet();
                left.recv(100, 0);
                left.recv(1, libc::MSG_DONTWAIT);
                left.meet();
            }
        }
    }, |right| {
        let (first, left) = (right.fd, call::remote(right.fd).expect("getpeername"));
        let (second, port) = datagram::bound(SocketAddr::new(right.address(), 0));
        right.tell(port);
        for _ in 0..2 {
            for [hears, other] in [[second, first], [first, second]] {
                right.meet();
                right.fd = hears;
                right.recv_from(100, 0, &left);
                right.see("answer of another one", datagram::send_to(other, b"no", 0, &left));
                right.see("answer", datagram::send_to(hears, b"yes", 0, &left));
                right.meet();
                right.meet();
                right.pause();
                refused(other);
            }
        }
    };

    /// SO_REUSEPORT: all datagrams of a flow come to one of the sockets, the same one wherever they go through; those of several flows to more
    /// than one.
    shared_port bare: |left| {
        let group = SocketAddr::new(left.peer(), left.ask().parse().expect("a port"));
        let any = SocketAddr::new(left.address(), 0);
        let (fd, _) = datagram::bound(any);
        call::connect(fd, &group).expect("connect");
        left.send_until_in_ring(Flow::of(fd), || {
            call::send(fd, b"x", 0).expect("send");
        });
        for _ in 0..EACH {
            call::send(fd, b"y", 0).expect("send");
            left.meet();
        }
        for _ in 0..SOURCES {
            datagram::send_to(datagram::bound(any).0, b"z", 0, &group).expect("sendto");
        }
        left.meet();
    }, |right| {
        let mut address = SocketAddr::new(right.address(), 0);
        let fds = [(); 3].map(|()| {
            let fd = datagram::socket(&address).expect("socket");
            call::set(fd, SOCKET, libc::SO_REUSEPORT, 1).expect("SO_REUSEPORT");
            call::bind_strictly(fd, &address).expect("bind");
            address = call::local(fd).expect("getsockname");
            fd
        });
        right.tell(address.port());
        let (mut before, mut after, mut others) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        right.receive_until_in_ring(|right| {
            before.insert(taker(right, &fds, b"x"));
        });
        for _ in 0..EACH {
            after.insert(taker(right, &fds, b"y"));
            right.meet();
        }
        right.see("sockets", before.len());
        right.see("the same", after == before);
        for _ in 0..SOURCES {
            others.insert(taker(right, &fds, b"z"));
        }
        right.see("more than one", others.len() > 1);
        right.meet();
    };

    /// Addresses of IPv6, and what the packets say.
    ipv6 bare: |left| {
        ipv6(left);
        left.see("hops", call::set(left.fd, IPV6, libc::IPV6_UNICAST_HOPS, 33));
        left.see("class", call::set(left.fd, IPV6, libc::IPV6_TCLASS, 0x28));
        left.send(b"hello", 0);
        left.send(&call::pattern(0, 20_000), 0);
        left.meet();
        left.meet();
    }, |right| {
        ipv6(right);
        for option in [libc::IPV6_RECVPKTINFO, libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVTCLASS] {
            right.see("set", call::set(right.fd, IPV6, option, 1));
        }
        right.meet();
        right.see("recvmsg", message::recv(right.fd, &[100], 200, 0));
        right.drain(20_000);
        right.meet();
    };

    /// Addresses of IPv4 at sockets of IPv6.
    ipv6_mapped bare: |left| {
        mapped(left);
        left.meet();
        left.send(b"hello", 0);
        left.recv(100, 0);
    }, |right| {
        mapped(right);
        right.see("set", call::set(right.fd, IPV6, libc::IPV6_RECVPKTINFO, 1));
        right.see("set", call::set(right.fd, IP, libc::IP_PKTINFO, 1));
        right.meet();
        right.see("recvmsg", message::recv(right.fd, &[100], 200, 0));
        right.send(b"and back", 0);
    };

    /// A socket at no address: answers come from the one that was asked.
    any_address bare: |left| {
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let peer = SocketAddr::new(left.peer(), 0);
        left.fd = left.datagram_pair(any, peer);
        left.accelerate_datagrams();
        left.send(b"hello", 0);
        let remote = call::remote(left.fd).expect("getpeername");
        left.recv_from(100, 0, &remote);
    }, |right| {
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let peer = SocketAddr::new(right.peer(), 0);
        right.fd = right.datagram_pair(any, peer);
        right.accelerate_datagrams();
        let remote = call::remote(right.fd).expect("getpeername");
        right.recv_from(100, 0, &remote);
        right.send(b"and back", 0);
    };
}

/// Waits until one of these sockets has something, which is `expected`; returns which one.
fn taker(end: &mut End, fds: &[RawFd], expected: &[u8]) -> usize {
    let mut found = None;
    end.until("it has come to a socket", || {
        found = fds.iter().position(|fd| {
            let bytes = call::recv(*fd, 10, libc::MSG_DONTWAIT);
            bytes.is_ok_and(|bytes| bytes == expected)
        });
        found.is_some()
    });
    found.expect("a socket")
}

/// Takes an error that a socket may have.
fn refused(fd: i32) {
    let _ = call::get(fd, SOCKET, libc::SO_ERROR);
}

/// Sockets of global addresses of IPv6.
pub(super) fn ipv6(end: &mut End) {
    let ours = global_v6(end);
    wait_usable(end, ours);
    end.tell(ours);
    let theirs: Ipv6Addr = end.ask().parse().expect("an address");
    end.wait_seen(theirs.into());
    end.fd = end.datagram_pair(
        SocketAddr::new(ours.into(), 0),
        SocketAddr::new(theirs.into(), 0),
    );
    end.accelerate_datagrams();
}

/// Waits until sockets can have an address.
pub(super) fn wait_usable(end: &mut End, address: Ipv6Addr) {
    end.until("the address can be used", || {
        let fd = datagram::socket(&SocketAddr::new(address.into(), 0)).expect("socket");
        let bound = call::bind_strictly(fd, &SocketAddr::new(address.into(), 0));
        call::close(fd).expect("close");
        bound.is_ok()
    });
}

/// Sockets of both families that are connected by IPv4.
fn mapped(end: &mut End) {
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let IpAddr::V4(peer) = end.peer() else {
        panic!("no IPv4 address");
    };
    let peer = SocketAddr::new(peer.to_ipv6_mapped().into(), 0);
    end.fd = end.datagram_pair(any, peer);
    end.accelerate_datagrams();
}
