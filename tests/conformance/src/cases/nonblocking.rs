// SPDX-License-Identifier: GPL-2.0

//! Sockets that do not wait, by all the ways to make them so.

use std::{net::SocketAddr, os::fd::RawFd, ptr};

use nix::errno::Errno;

use crate::{
    call,
    case::cases,
    end::End,
    stream,
    thread::Caller,
    transfer::{RECEIVES, SENDS}, //
};

const IN: i32 = libc::POLLIN as i32;
const OUT: i32 = libc::POLLOUT as i32;

/// What F_GETFL says of waiting.
fn is_nonblocking(fd: RawFd) -> bool {
    // SAFETY: No memory is passed.
    unsafe { libc::fcntl(fd, libc::F_GETFL) & libc::O_NONBLOCK != 0 }
}

/// FIONBIO.
fn set_by_ioctl(fd: RawFd, on: bool) -> Result<(), Errno> {
    let value = i32::from(on);
    // SAFETY: `value` is valid for reads.
    Errno::result(unsafe { libc::ioctl(fd, libc::FIONBIO, &raw const value) }).map(drop)
}

/// Opens the connection with sockets that are made so that they do not wait.
fn open(end: &mut End) {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
    let new = |address: &SocketAddr| call::socket_of(address, kind).expect("socket");
    if end.active {
        let port = end.ask().parse().expect("a port");
        let address = SocketAddr::new(end.peer(), port);
        end.fd = new(&address);
        let result = call::connect(end.fd, &address);
        end.see("connect", result);
        end.polled(OUT);
        let error = call::get(end.fd, libc::SOL_SOCKET, libc::SO_ERROR);
        end.see("SO_ERROR", error);
        end.meet();
    } else {
        let address = SocketAddr::new(end.address(), 0);
        let listener = new(&address);
        call::listen(listener, &address, 16).expect("listen");
        let result = call::accept(listener).map(drop);
        end.see("accept", result);
        end.tell(call::local(listener).expect("getsockname").port());
        call::poll(listener, IN, -1).expect("poll");
        // SAFETY: Null pointers say that nobody wants the address.
        end.fd = Errno::result(unsafe {
            libc::accept4(
                listener,
                ptr::null_mut(),
                ptr::null_mut(),
                libc::SOCK_NONBLOCK,
            )
        })
        .expect("accept4");
        call::close(listener).expect("close");
        end.meet();
    }
}

/// A socket that does not wait: no call does.
fn no_call_waits(end: &mut End) {
    let is = is_nonblocking(end.fd);
    end.see("O_NONBLOCK", is);
    for (name, receive) in RECEIVES {
        let result = receive(end.fd, 10);
        end.see(name, result);
    }
    end.recv(10, libc::MSG_WAITALL);
    end.recv(10, libc::MSG_PEEK);
}

cases! {
    /// O_NONBLOCK by fcntl, and back.
    by_fcntl: |left| {
        left.meet();
        left.send(b"waited for", 0);
        left.meet();
    }, |right| {
        call::set_nonblocking(right.fd, true).expect("fcntl");
        no_call_waits(right);
        call::set_nonblocking(right.fd, false).expect("fcntl");
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 100, 0));
        right.meet();
        right.see("recv", caller.join());
        right.meet();
    };

    /// FIONBIO, and back.
    by_ioctl: |left| {
        left.meet();
        left.send(b"waited for", 0);
        left.meet();
    }, |right| {
        let result = set_by_ioctl(right.fd, true);
        right.see("FIONBIO", result);
        no_call_waits(right);
        let result = set_by_ioctl(right.fd, false);
        right.see("FIONBIO", result);
        let is = is_nonblocking(right.fd);
        right.see("O_NONBLOCK", is);
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 100, 0));
        right.meet();
        right.see("recv", caller.join());
        right.meet();
    };

    /// SOCK_NONBLOCK of socket(2) and accept4(2).
    by_creation bare: |left| {
        open(left);
        no_call_waits(left);
        left.meet();
        call::set_nonblocking(left.fd, false).expect("fcntl");
        left.accelerate();
        call::set_nonblocking(left.fd, true).expect("fcntl");
        no_call_waits(left);
        left.meet();
        left.send(b"hello", 0);
        left.meet();
    }, |right| {
        open(right);
        no_call_waits(right);
        right.meet();
        call::set_nonblocking(right.fd, false).expect("fcntl");
        right.accelerate();
        call::set_nonblocking(right.fd, true).expect("fcntl");
        no_call_waits(right);
        right.meet();
        right.arrived(5);
        right.recv(10, libc::MSG_WAITALL);
        right.recv(10, libc::MSG_WAITALL);
        right.meet();
    };

    /// A descriptor and its duplicate wait or do not wait together.
    with_duplicate: |left| {
        left.meet();
    }, |right| {
        let other = call::duplicate(right.fd);
        call::set_nonblocking(other, true).expect("fcntl");
        no_call_waits(right);
        right.meet();
    };

    /// A call that waits goes on to wait when its socket shall not any longer; the next does not.
    while_a_call_waits: |left| {
        left.meet();
        left.send(b"hello", 0);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 100, 0));
        call::set_nonblocking(right.fd, true).expect("fcntl");
        right.pause();
        right.see("still waits", !caller.is_over());
        right.recv(100, 0);
        right.meet();
        right.see("recv", caller.join());
        right.recv(100, 0);
        right.meet();
    };

    /// On a connection that is full, no call sends anything or waits; what was counted comes.
    full: |left| {
        call::set_nonblocking(left.fd, true).expect("fcntl");
        let mut count = stream::fill(left.fd, 0);
        for (name, send) in SENDS {
            let fd = left.fd;
            let errno = stream::send_until_error(&mut count, |bytes| send(fd, &bytes));
            left.see(name, Err::<(), _>(errno));
        }
        left.tell(count);
        left.meet();
        left.polled(OUT);
        left.send(b"room again", 0);
        left.meet();
    }, |right| {
        stream::receive_told(right, 0);
        right.meet();
        right.drain(10);
        right.recv(1, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// One large call sends what there is room for; what was counted comes.
    full_by_one_call: |left| {
        let all = call::pattern(0, stream::MUCH);
        let count = call::send(left.fd, &all, libc::MSG_DONTWAIT).expect("send");
        left.see("some are sent", count > 0 && count < all.len());
        left.tell(count);
        left.meet();
        left.send(b"room again", 0);
        left.meet();
    }, |right| {
        stream::receive_told(right, 0);
        right.meet();
        right.drain(10);
        right.meet();
    };
}
