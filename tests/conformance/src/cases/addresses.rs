// SPDX-License-Identifier: GPL-2.0

//! Connections between addresses of all kinds.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::RawFd,
};

use nix::{errno::Errno, ifaddrs::getifaddrs, net::if_::if_nametoindex};

use super::options::still_there;
use crate::{call, case::cases, end::End, module};

/// The network of the global IPv6 addresses that the cases give to the machines.
const NETWORK: [u16; 6] = [0xfd77, 0, 0, 0, 0, 0];

/// Exchanges that are more than a connection makes until it asks for a ring.
const EXCHANGES: usize = 12;

/// The option that makes an IPv6 socket one of another family; libc lacks it.
const IPV6_ADDRFORM: i32 = 1;

/// What `SIOCSIFADDR` of an IPv6 socket takes (`struct in6_ifreq`, linux/ipv6.h).
#[repr(C)]
struct In6Ifreq {
    address: [u8; 16],
    prefix_len: u32,
    index: i32,
}

/// The device of this end's address.
pub(super) fn device(end: &End) -> String {
    let ours = end.address();
    let found = getifaddrs().expect("getifaddrs").find(|entry| {
        let any = entry.address.as_ref();
        let v4 = any
            .and_then(|any| any.as_sockaddr_in())
            .map(|v4| v4.ip().into());
        let v6 = any
            .and_then(|any| any.as_sockaddr_in6())
            .map(|v6| v6.ip().into());
        v4.or(v6) == Some(ours)
    });
    found.expect("a device").interface_name
}

/// A global IPv6 address of this end, made from its IPv4 one.
pub(super) fn global_v6(end: &End) -> Ipv6Addr {
    numbered_v6(end, 0)
}

/// One of several such addresses.
pub(super) fn numbered_v6(end: &End, number: u16) -> Ipv6Addr {
    let IpAddr::V4(v4) = end.address() else {
        panic!("no IPv4 address");
    };
    let octets = v4.octets();
    let [a, b, c, d, e, f] = NETWORK;
    let last = u16::from_be_bytes([octets[2], octets[3]]);
    let address = Ipv6Addr::new(a, b, c, d, e, f, number, last);
    let device = device(end);
    // Nobody else has it: it need not be tentative at first. Where the file is not there, nothing is.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{device}/accept_dad"), "0");
    let request = In6Ifreq {
        address: address.octets(),
        prefix_len: 64,
        index: if_nametoindex(device.as_str()).expect("an index") as i32,
    };
    // SAFETY: No memory is passed; then the request is valid for reads.
    let result = unsafe {
        let fd = libc::socket(libc::AF_INET6, libc::SOCK_DGRAM, 0);
        let result = libc::ioctl(fd, libc::SIOCSIFADDR as libc::Ioctl, &raw const request);
        libc::close(fd);
        Errno::result(result)
    };
    assert!(
        matches!(result, Ok(_) | Err(Errno::EEXIST)),
        "{address}: {result:?}"
    );
    address
}

/// The link-local address of this end's device, with its scope; the loopback device has none.
fn link_local(end: &End) -> SocketAddrV6 {
    let device = device(end);
    let found = getifaddrs().expect("getifaddrs").find_map(|entry| {
        let address = *entry.address.as_ref()?.as_sockaddr_in6()?;
        let is_local = entry.interface_name == device && address.ip().is_unicast_link_local();
        is_local.then(|| address.ip())
    });
    let scope = if_nametoindex(device.as_str()).expect("an index");
    SocketAddrV6::new(found.unwrap_or(Ipv6Addr::LOCALHOST), 0, 0, scope)
}

/// Opens a connection: one end listens at `listen`, the other connects to what `connect` makes of the first one's address.
/// `protocols` are those of the active end and of the passive one.
fn open(
    end: &mut End,
    protocols: [i32; 2],
    listen: SocketAddr,
    connect: impl Fn(SocketAddr) -> SocketAddr,
) {
    open_prepared(end, protocols, listen, connect, |_| {});
}

/// The same; the sockets are prepared by `prepare` before they connect, or listen.
fn open_prepared(
    end: &mut End,
    protocols: [i32; 2],
    listen: SocketAddr,
    connect: impl Fn(SocketAddr) -> SocketAddr,
    prepare: impl Fn(RawFd),
) {
    if end.active {
        let address = connect(end.ask().parse().expect("an address"));
        end.fd = socket(&address, protocols[0]);
        prepare(end.fd);
        call::connect(end.fd, &address).expect("connect");
    } else {
        let listener = socket(&listen, protocols[1]);
        prepare(listener);
        call::listen(listener, &listen, 16).expect("listen");
        let port = call::local(listener).expect("getsockname").port();
        end.tell(SocketAddr::new(listen.ip(), port));
        end.fd = call::accept(listener).expect("accept");
        call::close(listener).expect("close");
    }
}

fn socket(address: &SocketAddr, protocol: i32) -> RawFd {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: No memory is passed.
    Errno::result(unsafe { libc::socket(family, libc::SOCK_STREAM, protocol) }).expect("socket")
}

/// Bytes both ways, and the end of the stream both ways.
fn use_and_end(end: &mut End) {
    let bytes = 300_000;
    for turn in [true, false] {
        if end.active == turn {
            end.send(&call::pattern(7, bytes), 0);
        } else {
            end.drain(bytes);
        }
        end.meet();
    }
    end.shutdown(libc::SHUT_WR);
    end.recv(1, 0);
    end.meet();
    end.close();
}

/// Uses a connection for as long as others ask for a ring, and beyond; notes what went through one.
fn stays_on_tcp(end: &mut End) {
    (0..EXCHANGES).for_each(|_| end.exchange());
    let bytes = call::pattern(7, 100_000);
    let mut theirs = vec![0; bytes.len()];
    for turn in [true, false] {
        if end.active == turn {
            call::send_all(end.fd, &bytes);
        } else {
            call::receive_all(end.fd, &mut theirs);
        }
    }
    end.see("through a ring", module::through_ring(end.fd));
    end.meet();
}

/// Opens a connection of two IPv6 sockets with IPv4 addresses.
fn open_mapped(end: &mut End) {
    let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
    let IpAddr::V4(peer) = end.peer() else {
        panic!("no IPv4 address");
    };
    open(end, [0, 0], any, |address| {
        SocketAddr::new(IpAddr::V6(peer.to_ipv6_mapped()), address.port())
    });
    let remote = call::remote(end.fd).expect("getpeername");
    end.see("mapped", remote.ip() == IpAddr::V6(peer.to_ipv6_mapped()));
    end.accelerate();
}

fn v4_mapped(end: &mut End) {
    open_mapped(end);
    use_and_end(end);
}

/// Both ends of such a connection, one of which becomes an IPv4 socket with bytes that nobody has read.
fn becomes_v4(end: &mut End) {
    let family = |fd| call::get(fd, libc::SOL_SOCKET, libc::SO_DOMAIN);
    end.arrived(10);
    let form = libc::AF_INET;
    end.see(
        "set",
        call::set(end.fd, libc::IPPROTO_IPV6, IPV6_ADDRFORM, form),
    );
    end.see("family", family(end.fd));
    let remote = call::remote(end.fd).expect("getpeername");
    end.see("of the peer", remote.ip() == end.peer());
    end.unread();
    end.recv(4, 0);
    end.recv(100, 0);
    end.meet();
    still_there(end);
    use_and_end(end);
}

fn v4_and_mapped(end: &mut End) {
    let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
    let peer = end.peer();
    open(end, [0, 0], any, |address| {
        SocketAddr::new(peer, address.port())
    });
    end.accelerate();
    use_and_end(end);
}

/// A connection between global IPv6 addresses; the sockets are prepared by `prepare` before they connect, or listen.
fn global(end: &mut End, prepare: impl Fn(RawFd)) {
    let ours = SocketAddr::new(global_v6(end).into(), 0);
    end.until("the address can be used", || {
        let fd = call::socket(&ours).expect("socket");
        let bound = call::bind(fd, &ours);
        call::close(fd).expect("close");
        bound.is_ok()
    });
    open_prepared(end, [0, 0], ours, |address| address, prepare);
    end.accelerate();
    use_and_end(end);
}

fn scoped(end: &mut End) {
    let ours = link_local(end);
    let scope = ours.scope_id();
    open(end, [0, 0], ours.into(), |address| {
        let SocketAddr::V6(v6) = address else {
            panic!("{address} is no IPv6 address");
        };
        SocketAddrV6::new(*v6.ip(), v6.port(), 0, scope).into()
    });
    let remote = call::remote(end.fd).expect("getpeername");
    let SocketAddr::V6(remote) = remote else {
        panic!("{remote} is no IPv6 address");
    };
    let is_local = remote.ip().is_unicast_link_local() && remote.scope_id() == scope;
    end.see("scoped", is_local || remote.ip().is_loopback());
    stays_on_tcp(end);
    use_and_end(end);
}

fn mptcp(end: &mut End, protocols: [i32; 2]) {
    let address = SocketAddr::new(end.address(), 0);
    open(end, protocols, address, |address| address);
    match protocols[0] {
        // The listener's end becomes one of TCP alone.
        0 => end.accelerate(),
        _ => stays_on_tcp(end),
    }
    use_and_end(end);
}

fn bound_to_device(end: &mut End) {
    let device = device(end);
    end.establish(|fd| bind_to_device(fd, &device).expect("SO_BINDTODEVICE"));
    use_and_end(end);
}

fn bound_to_device_v6(end: &mut End) {
    let device = device(end);
    global(end, |fd| {
        bind_to_device(fd, &device).expect("SO_BINDTODEVICE");
    });
}

fn bind_to_device(fd: RawFd, device: &str) -> Result<(), Errno> {
    let (level, name) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
    let (at, len) = (device.as_ptr().cast(), device.len() as libc::socklen_t);
    // SAFETY: The name is valid for reads of its length.
    Errno::result(unsafe { libc::setsockopt(fd, level, name, at, len) }).map(drop)
}

/// A connection within this machine, to its own address and over the loopback device.
fn within(end: &mut End, address: IpAddr) {
    let address = SocketAddr::new(address, 0);
    let listener = call::socket(&address).expect("socket");
    call::listen(listener, &address, 1).expect("listen");
    let there = call::local(listener).expect("getsockname");
    let client = call::socket(&there).expect("socket");
    end.see("connect", call::connect(client, &there));
    let server = call::accept(listener).expect("accept");
    for _ in 0..20 {
        call::send_all(client, &call::pattern(0, 1000));
        call::receive_all(server, &mut [0; 1000]);
        call::send_all(server, &call::pattern(0, 1000));
        call::receive_all(client, &mut [0; 1000]);
    }
    end.see("shutdown", call::shutdown(client, libc::SHUT_WR));
    end.see("end", call::recv(server, 1, 0));
}

cases! {
    /// IPv6 sockets, with IPv4 addresses at both ends.
    mapped_both bare: |left| {
        v4_mapped(left);
    }, |right| {
        v4_mapped(right);
    };

    /// An IPv6 socket that accepts from an IPv4 one.
    mapped_one bare: |left| {
        v4_and_mapped(left);
    }, |right| {
        v4_and_mapped(right);
    };

    /// IPV6_ADDRFORM: such a socket becomes one of IPv4, with bytes unread.
    addrform bare: |left| {
        open_mapped(left);
        becomes_v4(left);
    }, |right| {
        open_mapped(right);
        right.send(b"0123456789", 0);
        right.meet();
        still_there(right);
        use_and_end(right);
    };

    /// Link-local IPv6 addresses: they stay on TCP.
    v6_link_local bare: |left| {
        scoped(left);
    }, |right| {
        scoped(right);
    };

    /// Sockets that are bound to the device.
    device bare: |left| {
        bound_to_device(left);
    }, |right| {
        bound_to_device(right);
    };

    /// The same with global IPv6 addresses.
    device_v6 bare: |left| {
        bound_to_device_v6(left);
    }, |right| {
        bound_to_device_v6(right);
    };

    /// Sockets of one end that are bound to the device.
    device_one bare: |left| {
        let device = device(left);
        left.establish(|fd| bind_to_device(fd, &device).expect("SO_BINDTODEVICE"));
        use_and_end(left);
    }, |right| {
        right.establish(|_| {});
        use_and_end(right);
    };

    /// Multipath TCP at both ends: it stays on TCP.
    mptcp_both bare: |left| {
        mptcp(left, [libc::IPPROTO_MPTCP; 2]);
    }, |right| {
        mptcp(right, [libc::IPPROTO_MPTCP; 2]);
    };

    /// Multipath TCP at the end that connects: the other one answers with TCP, and both stay there.
    mptcp_active bare: |left| {
        mptcp(left, [libc::IPPROTO_MPTCP, 0]);
    }, |right| {
        mptcp(right, [libc::IPPROTO_MPTCP, 0]);
    };

    /// Multipath TCP at the end that listens, as Go does.
    mptcp_passive bare: |left| {
        mptcp(left, [0, libc::IPPROTO_MPTCP]);
    }, |right| {
        mptcp(right, [0, libc::IPPROTO_MPTCP]);
    };

    /// Connections that stay within the machine.
    own_machine bare: |left| {
        let own = left.address();
        within(left, own);
        within(left, IpAddr::from([127, 0, 0, 1]));
        left.meet();
    }, |right| {
        right.meet();
    };

    /// Global IPv6 addresses.
    v6_global bare: |left| {
        global(left, |_| {});
    }, |right| {
        global(right, |_| {});
    };
}
