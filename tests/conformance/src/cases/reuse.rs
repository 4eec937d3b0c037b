// SPDX-License-Identifier: GPL-2.0

//! What outlives a connection: its listener, its port, its socket.

use std::{net::SocketAddr, os::fd::RawFd};

use nix::errno::Errno;

use super::{ALL, IN, RDHUP, broken, error};
use crate::{call, case::cases, end::End, tcp_info};

cases! {
    /// A listener is closed: what it has accepted goes on, what it has not is reset.
    listener_closed bare: |left| {
        listener_closed(left);
    }, |right| {
        listener_closed(right);
    };

    /// connect(2) to AF_UNSPEC resets the connection; the socket connects again.
    disconnect_and_connect: |left| {
        left.meet();
        left.see("disconnect", disconnect(left.fd));
        disconnected(left);
        let address = SocketAddr::new(left.peer(), left.ask().parse().expect("a port"));
        left.see("connect", call::connect(left.fd, &address));
        dialogue(left, true);
    }, |right| {
        right.meet();
        broken(right);
        right.recv(100, 0);
        right.recv(100, 0);
        right.close();
        let (listener, address) = listen(right);
        right.tell(address.port());
        right.fd = call::accept(listener).expect("accept");
        dialogue(right, false);
    };

    /// AF_UNSPEC with data in both queues: nothing of it is left.
    disconnect_with_unread: |left| {
        left.arrived(10);
        left.see("disconnect", disconnect(left.fd));
        left.unread();
        disconnected(left);
        let address = SocketAddr::new(left.peer(), left.ask().parse().expect("a port"));
        left.see("connect", call::connect(left.fd, &address));
        left.recv(100, libc::MSG_DONTWAIT);
        dialogue(left, true);
    }, |right| {
        right.send(b"0123456789", 0);
        broken(right);
        right.close();
        let (listener, address) = listen(right);
        right.tell(address.port());
        right.fd = call::accept(listener).expect("accept");
        dialogue(right, false);
    };

    /// A socket that was connected becomes a listener.
    disconnect_and_listen: |left| {
        left.meet();
        left.see("disconnect", disconnect(left.fd));
        // SAFETY: No memory is passed.
        let result = Errno::result(unsafe { libc::listen(left.fd, 4) }).map(drop);
        left.see("listen", result);
        left.see("state", tcp_info::state(left.fd));
        let accepting = call::get(left.fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN);
        left.see("accepting", accepting);
        left.tell(call::local(left.fd).expect("getsockname").port());
        let accepted = call::accept(left.fd).expect("accept");
        left.recv(100, libc::MSG_DONTWAIT);
        left.close();
        left.fd = accepted;
        dialogue(left, false);
    }, |right| {
        right.meet();
        broken(right);
        right.close();
        let address = SocketAddr::new(right.peer(), right.ask().parse().expect("a port"));
        right.fd = call::socket(&address).expect("socket");
        right.see("connect", call::connect(right.fd, &address));
        dialogue(right, true);
    };

    /// connect, bind and listen with a socket that is connected.
    connected_already: |left| {
        let address = call::remote(left.fd).expect("getpeername");
        left.see("connect", call::connect(left.fd, &address));
        let any = SocketAddr::new(left.address(), 0);
        left.see("bind", call::bind(left.fd, &any));
        // SAFETY: No memory is passed.
        let result = Errno::result(unsafe { libc::listen(left.fd, 4) }).map(drop);
        left.see("listen", result);
        left.see("accept", call::accept(left.fd));
        left.poll(ALL);
        left.send(b"still", 0);
        left.recv(100, 0);
        left.meet();
    }, |right| {
        right.recv(100, 0);
        right.send(b"there", 0);
        right.meet();
    };

    /// The left end leaves first, and its end is in TIME_WAIT when the same two ports are used again.
    same_ports_again bare: |left| {
        same_ports_again(left, true);
    }, |right| {
        same_ports_again(right, false);
    };

    /// The same ports again after a reset, which leaves no TIME_WAIT behind.
    same_ports_after_reset bare: |left| {
        same_ports_after_reset(left, true);
    }, |right| {
        same_ports_after_reset(right, false);
    };

    /// Connections one after the other through one listener, each with its own bytes.
    one_after_the_other bare: |left| {
        one_after_the_other(left);
    }, |right| {
        one_after_the_other(right);
    };
}

/// connect(2) to AF_UNSPEC.
fn disconnect(fd: RawFd) -> Result<(), Errno> {
    let nowhere = [0u8; 16];
    let size = nowhere.len() as libc::socklen_t;
    // SAFETY: The address is valid for reads of its length; AF_UNSPEC is 0.
    Errno::result(unsafe { libc::connect(fd, nowhere.as_ptr().cast(), size) }).map(drop)
}

/// What there is after AF_UNSPEC.
fn disconnected(end: &mut End) {
    end.see("state", tcp_info::state(end.fd));
    end.see("peer", call::remote(end.fd).map(drop));
    end.poll(ALL);
    end.recv(100, 0);
    end.send(b"x", libc::MSG_NOSIGNAL);
    error(end);
}

/// A connection that carries bytes in both directions, and ends.
fn dialogue(end: &mut End, active: bool) {
    const SIZE: usize = 1 << 18;
    // The ring is asked for by the end that connects, whichever began the case.
    let before = std::mem::replace(&mut end.active, active);
    end.accelerate();
    end.active = before;
    let fd = end.fd;
    if active {
        call::send_all(fd, &call::pattern(0, SIZE));
        end.drain(SIZE);
        end.shutdown(libc::SHUT_WR);
        end.recv(100, 0);
    } else {
        end.drain(SIZE);
        call::send_all(fd, &call::pattern(SIZE, SIZE));
        end.recv(100, 0);
        end.shutdown(libc::SHUT_WR);
    }
    end.meet();
}

fn listen(end: &mut End) -> (RawFd, SocketAddr) {
    let any = SocketAddr::new(end.address(), 0);
    let listener = call::socket(&any).expect("socket");
    call::listen(listener, &any, 16).expect("listen");
    (listener, call::local(listener).expect("getsockname"))
}

fn listener_closed(end: &mut End) {
    if end.active {
        let address = SocketAddr::new(end.peer(), end.ask().parse().expect("a port"));
        end.fd = call::socket(&address).expect("socket");
        call::connect(end.fd, &address).expect("connect");
        end.meet();
        let waiting = call::socket(&address).expect("socket");
        end.see("connect", call::connect(waiting, &address));
        end.see("send", call::send(waiting, b"anyone?", 0));
        end.meet();
        let accepted = std::mem::replace(&mut end.fd, waiting);
        broken(end);
        end.recv(100, 0);
        end.recv(100, 0);
        end.fd = accepted;
        let refused = call::socket(&address).expect("socket");
        end.see("connect", call::connect(refused, &address));
    } else {
        let (listener, address) = listen(end);
        end.tell(address.port());
        end.fd = call::accept(listener).expect("accept");
        end.meet();
        // The other one is complete when it can be accepted.
        let accepted = std::mem::replace(&mut end.fd, listener);
        end.polled(IN);
        end.meet();
        end.close();
        end.fd = accepted;
    }
    dialogue(end, end.active);
}

/// Opens a connection from a port of its own; returns the listener, or the address that was connected to,
/// and the own address.
fn with_ports(end: &mut End) -> (Option<RawFd>, SocketAddr, SocketAddr) {
    if end.active {
        let to = SocketAddr::new(end.peer(), end.ask().parse().expect("a port"));
        end.fd = call::socket(&to).expect("socket");
        call::bind(end.fd, &SocketAddr::new(end.address(), 0)).expect("bind");
        call::connect(end.fd, &to).expect("connect");
        (None, to, call::local(end.fd).expect("getsockname"))
    } else {
        let (listener, address) = listen(end);
        end.tell(address.port());
        end.fd = call::accept(listener).expect("accept");
        (Some(listener), address, address)
    }
}

/// Connects once more, or accepts it.
fn again(end: &mut End, listener: Option<RawFd>, to: &SocketAddr, from: &SocketAddr) {
    if let Some(listener) = listener {
        end.fd = call::accept(listener).expect("accept");
        let same = call::remote(end.fd).map(|address| address.port().to_string());
        end.tell(same.expect("getpeername"));
    } else {
        end.fd = call::socket(to).expect("socket");
        end.see("bind", call::bind(end.fd, from));
        end.see("connect", call::connect(end.fd, to));
        let same = end.ask() == from.port().to_string();
        end.see("same ports", same);
    }
    dialogue(end, end.active);
}

fn same_ports_again(end: &mut End, first: bool) {
    let (listener, to, from) = with_ports(end);
    end.accelerate();
    let closed = |end: &mut End| {
        let fd = end.fd;
        end.until("it is closed", || tcp_info::state(fd) == Ok("CLOSE"));
    };
    if first {
        end.send(b"farewell", 0);
        end.shutdown(libc::SHUT_WR);
        closed(end);
        end.recv(100, 0);
    } else {
        end.polled(RDHUP);
        end.recv(100, 0);
        end.shutdown(libc::SHUT_WR);
        closed(end);
    }
    end.close();
    end.meet();
    if listener.is_none() {
        let strict = call::socket(&from).expect("socket");
        end.see("port is taken", call::bind_strictly(strict, &from));
        call::close(strict).expect("close");
    }
    again(end, listener, &to, &from);
}

fn same_ports_after_reset(end: &mut End, first: bool) {
    let (listener, to, from) = with_ports(end);
    end.accelerate();
    if first {
        call::linger(end.fd, 0).expect("SO_LINGER");
    } else {
        broken(end);
        error(end);
    }
    end.close();
    end.meet();
    again(end, listener, &to, &from);
}

fn one_after_the_other(end: &mut End) {
    const COUNT: usize = 8;
    let (listener, to, _) = with_ports(end);
    for round in 0..COUNT {
        end.accelerate();
        end.send(format!("this is round {round}").as_bytes(), 0);
        end.arrived(15);
        end.recv(100, 0);
        end.close();
        // The next one begins while this one is still on its way out.
        if round + 1 == COUNT {
            break;
        }
        end.fd = match listener {
            Some(listener) => call::accept(listener).expect("accept"),
            None => {
                let fd = call::socket(&to).expect("socket");
                end.see("connect", call::connect(fd, &to));
                fd
            }
        };
    }
    end.meet();
}
