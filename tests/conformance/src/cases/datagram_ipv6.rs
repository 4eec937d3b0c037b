// SPDX-License-Identifier: GPL-2.0

//! What only datagrams of IPv6 have.

use std::{
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::RawFd,
};

use super::{
    addresses::numbered_v6,
    datagram_options::{ipv6, wait_usable},
};
use crate::{call, case::cases, datagram, end::End, message, module::Flow};

const IPV6: i32 = libc::IPPROTO_IPV6;

/// Options of linux/in6.h that the library does not have.
const IPV6_FLOWINFO: i32 = 11;
const IPV6_FLOWLABEL_MGR: i32 = 32;
const IPV6_FLOWINFO_SEND: i32 = 33;

/// Labels that programs choose: this one, and the next one at the end that connects.
const LABEL: u32 = 0x12340;

/// The largest payload of a datagram over IPv4, and over IPv6.
const LARGEST_V4: usize = 65_507;
const LARGEST: usize = 65_527;

/// What `IPV6_FLOWLABEL_MGR` takes (`struct in6_flowlabel_req`, linux/in6.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct LabelRequest {
    destination: [u8; 16],
    label: [u8; 4],
    action: u8,
    share: u8,
    flags: u16,
    expires: u16,
    linger: u16,
    rest: u32,
}

cases! {
    /// IPV6_HOPLIMIT and IPV6_TCLASS with a datagram that is sent: for that one alone.
    hops_and_class bare: |left| {
        ipv6(left);
        left.meet();
        left.send(b"as usual", 0);
        let (hops, class) = (33i32.to_ne_bytes(), 0x28i32.to_ne_bytes());
        let both = [
            message::control(IPV6, libc::IPV6_HOPLIMIT, &hops),
            message::control(IPV6, libc::IPV6_TCLASS, &class),
        ];
        left.see("for one", message::send(left.fd, &[b"for one"], &both.concat(), 0));
        left.send(b"as usual again", 0);
        let many = message::control(IPV6, libc::IPV6_HOPLIMIT, &256i32.to_ne_bytes());
        left.see("too many", message::send(left.fd, &[b"none"], &many, 0));
        left.meet();
        left.meet();
    }, |right| {
        ipv6(right);
        for option in [libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVTCLASS] {
            right.see("set", call::set(right.fd, IPV6, option, 1));
        }
        right.meet();
        right.meet();
        for _ in 0..3 {
            right.see("recvmsg", message::recv(right.fd, &[100], 200, 0));
        }
        right.see("recv", call::recv(right.fd, 1, libc::MSG_DONTWAIT));
        right.meet();
    };

    /// IPV6_PKTINFO with a datagram that is sent: another address of the machine, which it then comes from.
    other_source bare: |left| {
        ipv6(left);
        let source = numbered_v6(left, 1);
        wait_usable(left, source);
        let fd = left.fd;
        let local = call::local(fd).expect("getsockname");
        let source = SocketAddr::new(source.into(), local.port());
        left.tell(source);
        let to = SocketAddr::new(call::remote(fd).expect("getpeername").ip(), left.ask().parse().expect("a port"));
        call::connect(fd, &to).expect("connect");
        let control = from(source);
        left.send_until_in_ring(Flow::between(source, to), || {
            message::send(fd, &[b"x"], &control, 0).expect("sendmsg");
        });
        for size in [5, 2000, 20_000] {
            left.see("sendmsg", message::send(fd, &[&call::pattern(0, size)], &control, 0));
            left.meet();
        }
        let nobody = from("[2001:db8::1]:0".parse().expect("an address"));
        left.see("another's", message::send(fd, &[b"y"], &nobody, 0));
        left.see("as usual", call::send(fd, b"z", 0));
        left.meet();
    }, |right| {
        ipv6(right);
        let left = call::remote(right.fd).expect("getpeername");
        let local = call::local(right.fd).expect("getsockname");
        // One that takes what comes from anybody.
        let (fd, port) = datagram::bound(SocketAddr::new(local.ip(), 0));
        right.fd = fd;
        let source: SocketAddr = right.ask().parse().expect("an address");
        right.wait_seen(source.ip());
        right.tell(port);
        right.receive_until_in_ring(|right| datagram::receive_late(right.fd));
        for size in [5, 2000, 20_000] {
            right.recv_from(size, 0, &source);
            right.meet();
        }
        right.meet();
        right.recv_from(100, 0, &left);
    };

    /// IPV6_FLOWINFO: the label of the packets, which the kernel makes for a socket, or the program chooses.
    flow_labels bare: |left| {
        ipv6(left);
        labels(left);
    }, |right| {
        ipv6(right);
        labels(right);
    };

    /// Larger ones than IPv4 can have, the largest ones, and one that is too large.
    largest bare: |left| {
        ipv6(left);
        for size in [LARGEST_V4, LARGEST_V4 + 1, LARGEST] {
            left.send(&call::pattern(size, size), 0);
            left.meet();
        }
        left.send(&call::pattern(0, LARGEST + 1), 0);
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        ipv6(right);
        for _ in 0..3 {
            right.recv(LARGEST, 0);
            right.meet();
        }
        right.meet();
        right.recv(LARGEST, 0);
        right.recv(1, libc::MSG_DONTWAIT);
    };
}

/// IPV6_PKTINFO that says where a datagram comes from.
fn from(source: SocketAddr) -> Vec<u8> {
    let SocketAddr::V6(v6) = source else {
        panic!("{source} is no IPv6 address");
    };
    let any_device = [0; 4];
    let information = [&v6.ip().octets()[..], &any_device].concat();
    message::control(IPV6, libc::IPV6_PKTINFO, &information)
}

/// Each end sends with a label of the kernel's making, and with one of its own, and sees the other one's.
fn labels(end: &mut End) {
    end.see("set", call::set(end.fd, IPV6, IPV6_FLOWINFO, 1));
    end.meet();
    for _ in 0..2 {
        end.send(b"the kernel's", 0);
    }
    let [first, second] = [(); 2].map(|()| label(end.fd));
    end.see("there is one", first != 0);
    end.see("the same", first == second);
    end.meet();
    let SocketAddr::V6(remote) = call::remote(end.fd).expect("getpeername") else {
        panic!("no IPv6 address");
    };
    let chosen = LABEL + u32::from(end.active);
    end.see("get a label", get_label(end.fd, remote.ip(), chosen));
    end.see("set", call::set(end.fd, IPV6, IPV6_FLOWINFO_SEND, 1));
    let labelled = SocketAddrV6::new(*remote.ip(), remote.port(), chosen.to_be(), 0);
    end.see("connect", call::connect(end.fd, &labelled.into()));
    end.meet();
    for size in [5, 2000, 20_000] {
        end.send(&call::pattern(0, size), 0);
        let seen = label(end.fd);
        end.see("label", format!("{seen:#x}"));
    }
    end.meet();
}

/// Takes a datagram; returns its label, 0 if it has none.
fn label(fd: RawFd) -> u32 {
    let message = message::recv(fd, &[30_000], 200, 0).expect("recvmsg");
    let found = message.control.iter().find_map(|(level, kind, data)| {
        let bytes = <[u8; 4]>::try_from(&data[..]).ok()?;
        ((*level, *kind) == (IPV6, IPV6_FLOWINFO)).then(|| u32::from_be_bytes(bytes) & 0xf_ffff)
    });
    found.unwrap_or(0)
}

/// Asks the kernel for a label, which others may have, too.
fn get_label(fd: RawFd, to: &Ipv6Addr, label: u32) -> Result<(), nix::errno::Errno> {
    let (get, create, for_all) = (0, 1, 255);
    let request = LabelRequest {
        destination: to.octets(),
        label: label.to_be_bytes(),
        action: get,
        share: for_all,
        flags: create,
        expires: 0,
        linger: 0,
        rest: 0,
    };
    call::set(fd, IPV6, IPV6_FLOWLABEL_MGR, request)
}
