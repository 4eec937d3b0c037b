// SPDX-License-Identifier: GPL-2.0

//! Errors that sockets of UDP hear of, and ends.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::RawFd,
};

use super::{IN, OUT, datagram_options::ipv6, error};
use crate::{call, case::cases, datagram, end::End, message, thread::Caller};

const IP: i32 = libc::IPPROTO_IP;
const IPV6: i32 = libc::IPPROTO_IPV6;

/// A port that nobody has.
const NOBODY: u16 = 1;

cases! {
    /// The other end is closed: who sends is refused.
    closed datagrams: |left| {
        left.meet();
        sends_in_vain(left);
    }, |right| {
        tell_at_once();
        right.close();
        right.meet();
    };

    /// The other end is closed while one waits for it.
    closed_while_waiting datagrams: |left| {
        left.meet();
        let fd = left.fd;
        let caller = Caller::asleep(move || call::recv(fd, 10, 0));
        left.send(b"x", 0);
        left.see("recv", caller.join());
    }, |right| {
        tell_at_once();
        right.close();
        right.meet();
    };

    /// The other end is closed, with addresses of IPv6.
    closed_ipv6 bare: |left| {
        ipv6(left);
        left.meet();
        sends_in_vain(left);
    }, |right| {
        ipv6(right);
        tell_at_once();
        right.close();
        right.meet();
    };

    /// IP_RECVERR: what was refused comes back, with who has refused it.
    refused datagrams: |left| {
        left.meet();
        gets_back(left, IP, libc::IP_RECVERR);
    }, |right| {
        tell_at_once();
        right.close();
        right.meet();
    };

    /// IPV6_RECVERR, likewise.
    refused_ipv6 bare: |left| {
        ipv6(left);
        left.meet();
        gets_back(left, IPV6, libc::IPV6_RECVERR);
    }, |right| {
        ipv6(right);
        tell_at_once();
        right.close();
        right.meet();
    };

    /// A socket that is not connected hears of no error, unless it asks for them.
    unconnected datagrams: |left| {
        let nobody = SocketAddr::new(left.peer(), NOBODY);
        left.meet();
        left.see("disconnect", datagram::disconnect(left.fd));
        left.send_to(b"x", 0, &nobody);
        refused_behind(left, &nobody);
        left.see("recv", call::recv(left.fd, 10, libc::MSG_DONTWAIT));
        error(left);
        left.see("set", call::set(left.fd, IP, libc::IP_RECVERR, 1));
        left.send_to(b"y", 0, &nobody);
        refused(left);
        left.see("recvmsg", message::recv(left.fd, &[10], 200, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT));
        left.see("recvmsg", message::recv(left.fd, &[10], 200, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT));
        error(left);
        left.meet();
    }, |right| {
        tell_at_once();
        right.meet();
        right.meet();
    };

    /// What was sent before the end was closed is lost with it.
    closed_with_unread datagrams: |left| {
        left.send(b"x", 0);
        left.send(b"y", 0);
        left.meet();
        left.meet();
        left.recv(10, libc::MSG_DONTWAIT);
    }, |right| {
        right.meet();
        right.unread();
        right.close();
        right.meet();
    };

    /// A sender that is closed at once: what it sent comes.
    sent_and_closed datagrams: |left| {
        for size in [10, 2000, 20_000] {
            left.send(&call::pattern(0, size), 0);
        }
        left.close();
        left.meet();
    }, |right| {
        right.meet();
        for _ in 0..3 {
            right.recv(20_000, 0);
        }
    };

    /// shutdown, which tells the other end nothing.
    shut_down datagrams: |left| {
        left.shutdown(libc::SHUT_WR);
        left.see("send", call::send(left.fd, b"x", libc::MSG_NOSIGNAL));
        left.meet();
        left.recv(10, 0);
        left.shutdown(libc::SHUT_RD);
        left.recv(10, 0);
        left.poll(IN | OUT | libc::POLLRDHUP as i32);
        left.meet();
    }, |right| {
        right.meet();
        right.poll(IN | OUT | libc::POLLRDHUP as i32);
        right.send(b"y", 0);
        right.meet();
    };

    /// shutdown wakes who waits.
    shut_down_while_waiting datagrams: |left| {
        let fd = left.fd;
        let caller = Caller::asleep(move || call::recv(fd, 10, 0));
        left.shutdown(libc::SHUT_RD);
        left.see("recv", caller.join());
        left.meet();
    }, |right| {
        right.meet();
    };

    /// Destinations that make no sense.
    destinations datagrams: |left| {
        let local = left.address();
        left.send_to(b"x", 0, &SocketAddr::new(left.peer(), 0));
        left.send_to(b"x", 0, &SocketAddr::new(Ipv4Addr::BROADCAST.into(), 9));
        left.send_to(b"x", 0, &SocketAddr::new(Ipv4Addr::new(240, 0, 0, 1).into(), 9));
        let v6 = SocketAddr::new(IpAddr::from([0; 16]), 9);
        left.send_to(b"x", 0, &v6);
        left.see("disconnect", datagram::disconnect(left.fd));
        left.send(b"x", 0);
        left.send_to(b"x", 0, &SocketAddr::new(local, NOBODY));
        left.meet();
    }, |right| {
        right.meet();
        right.recv(1, libc::MSG_DONTWAIT);
    };

    /// Buffers that are not there.
    faults datagrams: |left| {
        let nowhere = std::ptr::without_provenance::<libc::c_void>(8);
        // SAFETY: The kernel finds that there is nothing to read.
        let result = unsafe { libc::send(left.fd, nowhere, 10, 0) };
        left.see("send", call::check(result));
        left.send(b"0123456789", 0);
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        right.meet();
        // SAFETY: The kernel finds that there is no room.
        let result = unsafe { libc::recv(right.fd, std::ptr::without_provenance_mut(8), 10, 0) };
        right.see("recv", call::check(result));
        right.recv(10, libc::MSG_DONTWAIT);
        right.recv(10, libc::MSG_DONTWAIT);
    };

    /// Calls that streams have, and datagrams do not.
    calls_of_streams datagrams: |left| {
        // SAFETY: No memory is passed.
        let listened = unsafe { libc::listen(left.fd, 1) };
        left.see("listen", call::check(listened as isize));
        left.see("accept", call::accept(left.fd).map(drop));
        left.see("MSG_OOB", call::send(left.fd, b"x", libc::MSG_OOB));
        left.recv(10, libc::MSG_OOB | libc::MSG_DONTWAIT);
        left.meet();
    }, |right| {
        right.meet();
        right.recv(10, libc::MSG_DONTWAIT);
    };
}

/// Sends to nobody, and sees what each call that can tell says of it.
fn sends_in_vain(left: &mut End) {
    left.send(b"x", 0);
    refused(left);
    left.poll(IN | OUT);
    error(left);
    error(left);
    left.poll(IN | OUT);
    left.send(b"y", 0);
    refused(left);
    left.see("recv", call::recv(left.fd, 10, libc::MSG_DONTWAIT));
    left.see("recv", call::recv(left.fd, 10, libc::MSG_DONTWAIT));
    left.send(b"z", 0);
    refused(left);
    left.see("send", call::send(left.fd, b"z", 0));
}

/// Sends to nobody while a call waits, and sees what comes back where an option asks for that.
fn gets_back(left: &mut End, level: i32, option: i32) {
    left.see("set", call::set(left.fd, level, option, 1));
    let fd = left.fd;
    let caller = Caller::asleep(move || call::recv(fd, 10, 0));
    left.send(b"hello", 0);
    left.see("recv", caller.join());
    let queued = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    left.see("recvmsg", message::recv(left.fd, &[10], 200, queued));
    left.see("recvmsg", message::recv(left.fd, &[10], 200, queued));
    error(left);
}

/// Lets this end's machine answer each datagram that nobody takes, not only some in a second.
pub(super) fn tell_at_once() {
    for name in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
        fs::write(format!("/proc/sys/net/{name}"), "0").expect(name);
    }
}

/// Waits until the socket has an error.
pub(super) fn refused(end: &mut End) {
    let fd = end.fd;
    refused_at(end, fd);
}

fn refused_at(end: &mut End, fd: RawFd) {
    end.until("it is refused", || {
        call::poll(fd, 0, 0).is_ok_and(|events| events.0 & libc::POLLERR as u32 != 0)
    });
}

/// Waits until what was sent to a port that nobody has is refused by now: what another socket sends there afterwards is.
fn refused_behind(end: &mut End, nobody: &SocketAddr) {
    let (fd, _) = datagram::bound(SocketAddr::new(end.address(), 0));
    call::connect(fd, nobody).expect("connect");
    call::send(fd, b"behind", 0).expect("send");
    refused_at(end, fd);
    call::close(fd).expect("close");
}
