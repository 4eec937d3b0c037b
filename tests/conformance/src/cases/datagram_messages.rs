// SPDX-License-Identifier: GPL-2.0

//! sendmsg and recvmsg with datagrams, one or several, with control data.

use std::{
    mem,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::RawFd,
    ptr,
};

use nix::errno::Errno;

use crate::{
    call::{self, check},
    case::cases,
    datagram,
    end::End,
    message,
    module::Flow,
};

const IP: i32 = libc::IPPROTO_IP;
const UDP: i32 = libc::IPPROTO_UDP;
const SOCKET: i32 = libc::SOL_SOCKET;

/// Times of live and types of service that packets have in none of these cases otherwise.
const TTL: i32 = 33;
const TOS: i32 = 0x28;

/// Bytes of the datagrams that a call with UDP_SEGMENT is cut into.
const SEGMENT: u16 = 1000;

/// Datagrams of the calls that have several.
const SEVERAL: usize = 8;

/// Datagrams that no small buffer holds.
const MANY: usize = 64;

/// What the last number of a machine's second address is more than that of the first one.
const SECOND: u8 = 200;

cases! {
    /// Messages in pieces.
    pieces datagrams: |left| {
        left.see("sendmsg", message::send(left.fd, &[b"ab", b"", b"cdefg", b"h"], b"", 0));
        left.see("sendmsg", message::send(left.fd, &[b"0123456789"], b"", 0));
        left.meet();
    }, |right| {
        right.meet();
        received(right, &[1, 0, 3], 0, libc::MSG_PEEK);
        received(right, &[1, 0, 3, 100], 0, 0);
        received(right, &[2, 3], 0, 0);
        received(right, &[1], 0, libc::MSG_DONTWAIT);
    };

    /// The flags that a message returns.
    returned_flags datagrams: |left| {
        for _ in 0..5 {
            left.send(b"0123456789", 0);
        }
        left.meet();
    }, |right| {
        right.meet();
        received(right, &[2], 0, 0);
        received(right, &[2], 0, libc::MSG_TRUNC);
        received(right, &[20], 0, libc::MSG_EOR);
        received(right, &[2], 0, libc::MSG_CMSG_CLOEXEC | libc::MSG_WAITALL);
        received(right, &[10], 0, libc::MSG_PEEK | libc::MSG_DONTWAIT);
        received(right, &[10], 0, libc::MSG_ERRQUEUE);
    };

    /// IP_RECVTTL and IP_RECVTOS: what the sender has set for its socket, or for one datagram.
    ttl_and_tos datagrams: |left| {
        left.send(b"as usual", 0);
        let (ttl, tos) = (TTL.to_ne_bytes(), TOS.to_ne_bytes());
        let both = [message::control(IP, libc::IP_TTL, &ttl), message::control(IP, libc::IP_TOS, &tos)];
        left.see("for one", message::send(left.fd, &[b"for one"], &both.concat(), 0));
        left.see("set", call::set(left.fd, IP, libc::IP_TTL, TTL + 1));
        left.see("set", call::set(left.fd, IP, libc::IP_TOS, TOS + 4));
        left.send(b"for all", 0);
        left.see("for one", message::send(left.fd, &[b"for one"], &both.concat(), 0));
        left.meet();
        left.meet();
    }, |right| {
        right.see("set", call::set(right.fd, IP, libc::IP_RECVTTL, 1));
        right.see("set", call::set(right.fd, IP, libc::IP_RECVTOS, 1));
        right.meet();
        for _ in 0..4 {
            received(right, &[100], 200, 0);
        }
        right.meet();
    };

    /// IP_PKTINFO: where a datagram came to.
    packet_information datagrams: |left| {
        left.meet();
        left.send(b"x", 0);
        left.send(b"y", 0);
        left.meet();
    }, |right| {
        right.see("set", call::set(right.fd, IP, libc::IP_PKTINFO, 1));
        right.meet();
        right.meet();
        received(right, &[100], 200, 0);
        // There is no room for all of it.
        received(right, &[100], 20, 0);
    };

    /// IP_ORIGDSTADDR, which has a port of its own each time.
    original_destination datagrams: |left| {
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        right.see("set", call::set(right.fd, IP, libc::IP_RECVORIGDSTADDR, 1));
        right.meet();
        let local = call::local(right.fd).expect("getsockname");
        let message = message::recv(right.fd, &[100], 200, 0).expect("recvmsg");
        for (level, kind, data) in &message.control {
            let port = data.get(2..4).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
            right.see(&format!("{level} {kind}"), data.len());
            right.see("the port", port == Some(local.port()));
        }
    };

    /// SO_TIMESTAMP and SO_TIMESTAMPNS: datagrams come with a time, which does not go back.
    timestamps datagrams: |left| {
        for _ in 0..2 {
            while left.ask() == "more" {
                call::send(left.fd, b"x", 0).expect("send");
            }
        }
    }, |right| {
        for name in [libc::SO_TIMESTAMP, libc::SO_TIMESTAMPNS] {
            right.see("set", call::set(right.fd, SOCKET, name, 1));
            stamped(right, name, 1);
        }
    };

    /// SO_TIMESTAMPING: datagrams come with the kernel's time, and with none of a device.
    receive_timestamps datagrams: |left| {
        while left.ask() == "more" {
            call::send(left.fd, b"x", 0).expect("send");
        }
    }, |right| {
        let flags = libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
        right.see("set", call::set(right.fd, SOCKET, libc::SO_TIMESTAMPING, flags));
        right.see("get", call::get(right.fd, SOCKET, libc::SO_TIMESTAMPING));
        stamped(right, libc::SO_TIMESTAMPING, 3);
    };

    /// SO_TIMESTAMPING: the times when a datagram was queued and when it left, of all of them and then of one.
    send_timestamps datagrams: |left| {
        let report = libc::SOF_TIMESTAMPING_SOFTWARE
            | libc::SOF_TIMESTAMPING_OPT_ID
            | libc::SOF_TIMESTAMPING_OPT_TSONLY;
        let both = libc::SOF_TIMESTAMPING_TX_SCHED | libc::SOF_TIMESTAMPING_TX_SOFTWARE;
        left.see("set", call::set(left.fd, SOCKET, libc::SO_TIMESTAMPING, report | both));
        for _ in 0..2 {
            left.send(b"of all", 0);
            left_at(left);
            left_at(left);
        }
        left.see("set", call::set(left.fd, SOCKET, libc::SO_TIMESTAMPING, report));
        left.send(b"of none", 0);
        let control = message::control(SOCKET, libc::SO_TIMESTAMPING, &both.to_ne_bytes());
        left.see("sendmsg", message::send(left.fd, &[b"of one"], &control, 0));
        left_at(left);
        left_at(left);
        left.see("set", call::set(left.fd, SOCKET, libc::SO_TIMESTAMPING, 0));
        left.send(b"at last", 0);
        left.pause();
        left.recv(100, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT);
        left.meet();
    }, |right| {
        for _ in 0..5 {
            right.recv(100, 0);
        }
        right.meet();
    };

    /// SO_RXQ_OVFL: how many were dropped, once some were.
    dropped datagrams: |left| {
        for _ in 0..3 {
            left.send(b"x", 0);
        }
        left.meet();
    }, |right| {
        right.see("set", call::set(right.fd, SOCKET, libc::SO_RXQ_OVFL, 1));
        right.meet();
        received(right, &[100], 200, 0);
    };

    /// SO_RXQ_OVFL: the next one that comes after some were dropped says how many those were.
    drops_are_counted datagrams: |left| {
        left.meet();
        for _ in 0..MANY {
            call::send(left.fd, &[0; 1000], 0).expect("send");
        }
        left.meet();
        left.send(b"after that", 0);
        left.meet();
    }, |right| {
        right.see("set", call::set(right.fd, SOCKET, libc::SO_RCVBUF, 4096));
        right.see("set", call::set(right.fd, SOCKET, libc::SO_RXQ_OVFL, 1));
        right.meet();
        let fd = right.fd;
        right.until("some are dropped", || drops(fd) > 0);
        let mut count = 0;
        right.until("all have come, or were dropped", || {
            while call::recv(fd, 1000, libc::MSG_DONTWAIT).is_ok() {
                count += 1;
            }
            count + drops(fd) == MANY
        });
        right.note(format!("{count} came"));
        right.meet();
        let message = message::recv(fd, &[100], 64, 0).expect("recvmsg");
        right.see("bytes", message.bytes);
        for (level, kind, data) in message.control {
            let number = <[u8; 4]>::try_from(data).map(u32::from_ne_bytes);
            right.see(&format!("{level} {kind}"), number.is_ok_and(|number| number as usize + count == MANY));
        }
        right.meet();
    };

    /// IP_PKTINFO with a datagram that is sent: another address of the machine, which it then comes from.
    other_source bare: |left| {
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let (fd, port) = datagram::bound(any);
        let source = SocketAddr::new(second(left.address()).into(), port);
        left.tell(source);
        let to = SocketAddr::new(left.peer(), left.ask().parse().expect("a port"));
        call::connect(fd, &to).expect("connect");
        // The device of the route; the address to send from, and the other one of the structure.
        let information = [[0; 4], second(left.address()).octets(), [0; 4]].concat();
        let control = message::control(IP, libc::IP_PKTINFO, &information);
        left.send_until_in_ring(Flow::between(source, to), || {
            message::send(fd, &[b"x"], &control, 0).expect("sendmsg");
        });
        for size in [5, 2000, 20_000] {
            left.see("sendmsg", message::send(fd, &[&call::pattern(0, size)], &control, 0));
            left.meet();
        }
        let nobody = [[0; 4], [203, 0, 113, 1], [0; 4]].concat();
        let control = message::control(IP, libc::IP_PKTINFO, &nobody);
        left.see("another's", message::send(fd, &[b"y"], &control, 0));
        left.see("as usual", call::send(fd, b"z", 0));
        left.meet();
    }, |right| {
        let (fd, port) = datagram::bound(SocketAddr::new(right.address(), 0));
        right.fd = fd;
        let source: SocketAddr = right.ask().parse().expect("an address");
        right.wait_seen(source.ip());
        right.tell(port);
        right.receive_until_in_ring(|right| {
            datagram::receive_late(right.fd);
        });
        for size in [5, 2000, 20_000] {
            right.recv_from(size, 0, &source);
            right.meet();
        }
        right.meet();
        right.recv_from(100, 0, &SocketAddr::new(right.peer(), source.port()));
    };

    /// UDP_SEGMENT: one call, several datagrams.
    segments datagrams: |left| {
        let bytes = call::pattern(0, 3500);
        let cut = message::control(UDP, libc::UDP_SEGMENT, &SEGMENT.to_ne_bytes());
        left.see("sendmsg", message::send(left.fd, &[&bytes], &cut, 0));
        left.meet();
        left.meet();
        left.see("set", call::set(left.fd, UDP, libc::UDP_SEGMENT, i32::from(SEGMENT)));
        left.send(&bytes, 0);
        left.meet();
        left.meet();
        // Not more than that: one datagram.
        left.send(&bytes[..1000], 0);
        left.send(&bytes[..1001], 0);
        left.see("unset", call::set(left.fd, UDP, libc::UDP_SEGMENT, 0));
        left.meet();
        left.meet();
        let odd = message::control(UDP, libc::UDP_SEGMENT, &[1, 0, 0, 0]);
        left.see("of another size", message::send(left.fd, &[&bytes], &odd, 0));
        let many = message::control(UDP, libc::UDP_SEGMENT, &1u16.to_ne_bytes());
        left.see("too many", message::send(left.fd, &[&bytes], &many, 0));
        left.meet();
        left.meet();
    }, |right| {
        for count in [4, 4, 3] {
            right.meet();
            for _ in 0..count {
                right.recv(5000, 0);
            }
            right.recv(1, libc::MSG_DONTWAIT);
            right.meet();
        }
        right.meet();
        right.recv(1, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// UDP_GRO: datagrams of one call come as one, with their size, if not each time; all bytes come.
    coalesced datagrams: |left| {
        let cut = message::control(UDP, libc::UDP_SEGMENT, &SEGMENT.to_ne_bytes());
        let bytes = call::pattern(0, 3500);
        left.meet();
        while left.ask() == "more" {
            let result = message::send(left.fd, &[&bytes], &cut, 0);
            assert!(result == Ok(bytes.len()), "sendmsg: {result:?}");
        }
    }, |right| {
        right.see("set", call::set(right.fd, UDP, libc::UDP_GRO, 1));
        right.see("get", call::get(right.fd, UDP, libc::UDP_GRO));
        right.meet();
        let mut is_reported = false;
        for _ in 0..100 {
            right.tell("more");
            is_reported |= receive_coalesced(right);
            if is_reported {
                break;
            }
        }
        right.tell("enough");
        right.see("reported", is_reported);
    };

    /// sendmmsg and recvmmsg.
    several datagrams: |left| {
        left.see("sendmmsg", send_several(left.fd));
        left.meet();
        left.meet();
    }, |right| {
        right.meet();
        right.see("peek", receive_several(right.fd, 3, libc::MSG_PEEK | libc::MSG_DONTWAIT).map(|all| all.len()));
        for count in [3, SEVERAL - 3] {
            let all = receive_several(right.fd, count, 0).expect("recvmmsg");
            right.see("messages", all.len());
            for bytes in all {
                right.see("message", bytes);
            }
        }
        right.see("none", receive_several(right.fd, 3, libc::MSG_DONTWAIT).map(|all| all.len()));
        right.meet();
    };

    /// recvmmsg with MSG_WAITFORONE returns what is there once something is.
    wait_for_one datagrams: |left| {
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        right.meet();
        right.see("messages", receive_several(right.fd, 3, libc::MSG_WAITFORONE).map(|all| all.len()));
    };

    /// Control data that makes no sense to a datagram.
    control_data datagrams: |left| {
        let (fd, number) = (left.fd, 1i32.to_ne_bytes());
        let mut see = |what: &str, control: &[u8]| {
            let result = message::send(fd, &[what.as_bytes()], control, 0);
            left.see(what, result);
        };
        see("unknown type", &message::control(SOCKET, 0x7777, &number));
        see("unknown level", &message::control(0x7777, 1, &number));
        see("unknown of IP", &message::control(IP, 0x7777, &number));
        see("unknown of UDP", &message::control(UDP, 0x7777, &number));
        see("a time of live of 0", &message::control(IP, libc::IP_TTL, &0i32.to_ne_bytes()));
        see("a priority", &message::control(SOCKET, libc::SO_PRIORITY, &number));
        left.meet();
    }, |right| {
        right.meet();
        right.recv(100, 0);
        while let Ok(bytes) = call::recv(right.fd, 100, libc::MSG_DONTWAIT) {
            right.see("more", bytes);
        }
    };
}

/// recvmsg(2), noted, but for the name, whose port is another one each time.
fn received(end: &mut End, sizes: &[usize], control: usize, flags: i32) {
    let result = message::recv(end.fd, sizes, control, flags);
    end.see("recvmsg", result);
}

/// Asks for datagrams until one has so many times, of which the first is set; it and a later one are in order.
fn stamped(end: &mut End, name: i32, count: usize) {
    let mut times: Vec<[i64; 2]> = Vec::new();
    for _ in 0..100 {
        end.tell("more");
        let message = message::recv(end.fd, &[1], 64, 0).expect("recvmsg");
        let of = |(level, kind, data): &(i32, i32, Vec<u8>)| {
            let is_it = (*level, *kind, data.len()) == (SOCKET, name, 16 * count);
            is_it.then(|| {
                assert!(is_first_set(data), "another time is set: {data:?}");
                let half = |at: usize| i64::from_ne_bytes(data[at..at + 8].try_into().expect("8"));
                [half(0), half(8)]
            })
        };
        times.extend(message.control.iter().find_map(of));
        if times.len() == 2 {
            break;
        }
        // The kernel begins to take them a little later.
        end.pause();
    }
    end.tell("enough");
    end.see("times", times.len());
    end.see("in order", times.is_sorted());
}

/// Whether the first of some times is set, and no other.
fn is_first_set(times: &[u8]) -> bool {
    let (first, others) = times.split_at(16);
    first.iter().any(|byte| *byte != 0) && others.iter().all(|byte| *byte == 0)
}

/// Receives what one call has sent in segments, whole and in order; returns whether one of the messages said that it is several datagrams.
fn receive_coalesced(end: &mut End) -> bool {
    let (mut bytes, mut is_reported) = (Vec::new(), false);
    while bytes.len() < 3500 {
        let message = message::recv(end.fd, &[10_000], 64, 0).expect("recvmsg");
        for (level, kind, data) in &message.control {
            let size = i32::from(SEGMENT).to_ne_bytes();
            let is_size = (*level, *kind) == (UDP, libc::UDP_GRO) && *data == size;
            assert!(is_size, "control data {level} {kind} {data:?}");
            is_reported = true;
        }
        bytes.extend(message.bytes);
    }
    assert!(bytes == call::pattern(0, 3500), "other bytes have come");
    is_reported
}

/// Datagrams that found no room in a socket's buffer, by SO_MEMINFO.
fn drops(fd: RawFd) -> usize {
    // Those that `sock_diag` has, too; the last one is the one that we want.
    const NUMBERS: usize = 9;
    let mut numbers = [0u32; NUMBERS];
    let mut size = size_of_val(&numbers) as libc::socklen_t;
    let at = (&raw mut numbers).cast();
    // SAFETY: Both are valid for writes of their sizes.
    let result = unsafe { libc::getsockopt(fd, SOCKET, libc::SO_MEMINFO, at, &mut size) };
    Errno::result(result).expect("SO_MEMINFO");
    numbers[NUMBERS - 1] as usize
}

/// Another address of the machine that has this one: loopback has all, and the lab gives it to its guests.
fn second(address: IpAddr) -> Ipv4Addr {
    let IpAddr::V4(v4) = address else {
        panic!("no IPv4 address");
    };
    let [a, b, c, d] = v4.octets();
    Ipv4Addr::new(a, b, c, d + SECOND)
}

/// Waits for a time of a datagram that was sent; notes which time it is, and of which datagram.
fn left_at(end: &mut End) {
    // What of `struct sock_extended_err` has a meaning here.
    const REPORT: usize = 16;
    let fd = end.fd;
    end.until("a time comes", || {
        call::poll(fd, 0, 0).is_ok_and(|events| events.0 & libc::POLLERR as u32 != 0)
    });
    let message = message::recv(fd, &[10], 256, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT);
    let message = message.expect("recvmsg");
    end.see("payload", message.bytes.len());
    for (level, kind, data) in &message.control {
        if (*level, *kind) == (SOCKET, libc::SCM_TIMESTAMPING) {
            end.see("a time", is_first_set(data));
        } else {
            let report = data[..REPORT.min(data.len())].to_vec();
            end.see(&format!("{level} {kind}"), report);
        }
    }
}

/// sendmmsg(2) of small messages.
fn send_several(fd: RawFd) -> Result<usize, Errno> {
    let texts: Vec<_> = (0..SEVERAL)
        .map(|number| format!("message {number}"))
        .collect();
    let mut parts: Vec<_> = texts
        .iter()
        .map(|text| message::pieces(&[text.as_bytes()]))
        .collect();
    let mut all: Vec<_> = parts.iter_mut().map(|pieces| several(pieces)).collect();
    // SAFETY: All that the headers point to is valid for reads.
    check(unsafe { libc::sendmmsg(fd, all.as_mut_ptr(), SEVERAL as u32, 0) } as isize)
}

/// recvmmsg(2) of at most `count`.
fn receive_several(fd: RawFd, count: usize, flags: i32) -> Result<Vec<Vec<u8>>, Errno> {
    let mut rooms = vec![[vec![0; 100]]; count];
    let mut parts: Vec<_> = rooms.iter_mut().map(|room| message::rooms(room)).collect();
    let mut all: Vec<_> = parts.iter_mut().map(|pieces| several(pieces)).collect();
    let at = all.as_mut_ptr();
    // SAFETY: All that the headers point to is valid for writes.
    let got = unsafe { libc::recvmmsg(fd, at, count as u32, flags as _, ptr::null_mut()) };
    let got = check(got as isize)?;
    let cut =
        |(header, [room]): (&libc::mmsghdr, [Vec<u8>; 1])| room[..header.msg_len as usize].to_vec();
    Ok(all.iter().zip(rooms).take(got).map(cut).collect())
}

fn several(pieces: &mut [libc::iovec]) -> libc::mmsghdr {
    // SAFETY: All fields may be zero.
    let mut all: libc::mmsghdr = unsafe { mem::zeroed() };
    all.msg_hdr = message::header(pieces);
    all
}
