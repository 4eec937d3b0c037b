// SPDX-License-Identifier: GPL-2.0

//! Bytes that come one after the other by both ways: those of a message with control data go over TCP, those before and after it
//! through the ring. For who reads they are one stream.

use super::{ALL, IN, RDHUP, broken, error, event, no_event, options::still_there, reset};
use crate::{
    call,
    case::cases,
    end::End,
    epoll::Epoll,
    message,
    splice,
    thread::Caller,
    transfer::RECEIVES, //
};

const SOCKET: i32 = libc::SOL_SOCKET;
const TCP: i32 = libc::IPPROTO_TCP;

/// The option that asks for the number of bytes that are left. As control data of what is sent it means nothing.
const INQ: i32 = 36;

/// Messages of a long exchange by both ways.
const MESSAGES: usize = 60;

cases! {
    /// Peeks, and reads of a part and of the rest.
    peek: |left| {
        three(left);
        left.meet();
    }, |right| {
        right.arrived(9);
        right.unread();
        right.recv(9, libc::MSG_PEEK);
        right.recv(2, libc::MSG_PEEK);
        right.recv(5, libc::MSG_PEEK | libc::MSG_WAITALL);
        right.recv(100, libc::MSG_PEEK | libc::MSG_DONTWAIT);
        right.recv(9, libc::MSG_PEEK | libc::MSG_WAITALL);
        right.recv(4, 0);
        right.unread();
        right.recv(100, libc::MSG_PEEK);
        right.recv(5, libc::MSG_PEEK | libc::MSG_WAITALL);
        right.recv(100, 0);
        right.unread();
        right.recv(100, libc::MSG_PEEK | libc::MSG_DONTWAIT);
        right.poll(ALL);
        right.meet();
    };

    /// One read takes all.
    at_once: |left| {
        for _ in RECEIVES {
            three(left);
            left.meet();
            left.meet();
        }
    }, |right| {
        for (name, receive) in RECEIVES {
            right.meet();
            right.arrived(9);
            right.see(name, receive(right.fd, 100));
            right.unread();
            right.meet();
        }
    };

    /// Reads of two bytes each, by all calls in turn.
    in_parts: |left| {
        for _ in 0..3 {
            three(left);
        }
        left.meet();
    }, |right| {
        right.arrived(27);
        for (name, receive) in RECEIVES.iter().cycle().take(13) {
            right.see(name, receive(right.fd, 2));
        }
        right.recv(100, 0);
        right.meet();
    };

    /// MSG_TRUNC throws away across the boundary.
    truncate: |left| {
        three(left);
        left.meet();
        three(left);
        left.meet();
    }, |right| {
        right.arrived(9);
        right.recv(7, libc::MSG_PEEK | libc::MSG_TRUNC);
        right.recv(4, libc::MSG_TRUNC);
        right.unread();
        right.recv(1, 0);
        right.recv(100, libc::MSG_TRUNC);
        right.meet();
        right.arrived(9);
        right.recv(9, libc::MSG_TRUNC | libc::MSG_WAITALL);
        right.recv(9, libc::MSG_TRUNC | libc::MSG_DONTWAIT);
        right.meet();
    };

    /// Pieces whose borders are not those of the messages, and how much is left.
    pieces: |left| {
        three(left);
        three(left);
        left.meet();
    }, |right| {
        right.see("set", call::set(right.fd, TCP, INQ, 1));
        right.arrived(18);
        for flags in [libc::MSG_PEEK, 0] {
            right.see("recvmsg", message::recv(right.fd, &[2, 0, 5], 64, flags));
        }
        right.see("readv", message::readv(right.fd, &[1, 4, 0, 1]));
        right.see("recvmsg", message::recv(right.fd, &[1, 100], 64, 0));
        right.meet();
    };

    /// Into a pipe, in parts.
    splice: |left| {
        three(left);
        left.meet();
    }, |right| {
        let [from, to] = call::pipe().expect("pipe");
        right.arrived(9);
        for size in [4, 1, 100] {
            right.see("splice", splice::splice(right.fd, to, size, 0));
            right.unread();
        }
        right.see("pipe", call::read(from, 100));
        right.recv(1, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// Calls that wait for all nine get them, though only the first three are there when they begin.
    sleeps_across: |left| {
        for _ in 0..4 {
            left.send(b"abc", 0);
            left.meet();
            over_tcp(left, b"def");
            left.send(b"ghi", 0);
            left.meet();
        }
    }, |right| {
        for flags in [0, libc::MSG_PEEK, libc::MSG_TRUNC, 0] {
            let fd = right.fd;
            right.arrived(3);
            let all = flags | libc::MSG_WAITALL;
            let caller = Caller::asleep(move || call::recv(fd, 9, all));
            right.meet();
            right.see(&format!("recv with {flags:#x}"), caller.join());
            if flags == libc::MSG_PEEK {
                right.recv(100, 0);
            }
            right.meet();
        }
    };

    /// A reader that waits is woken by each, and so is poll.
    wakes: |left| {
        for _ in 0..2 {
            one_by_one(left);
        }
        left.meet();
    }, |right| {
        let fd = right.fd;
        for _ in 0..3 {
            let caller = Caller::asleep(move || call::recv(fd, 100, 0));
            right.meet();
            right.see("recv", caller.join());
        }
        for _ in 0..3 {
            let caller = Caller::asleep(move || call::poll(fd, IN, -1));
            right.meet();
            right.see("poll", caller.join());
            right.recv(100, 0);
        }
        right.meet();
    };

    /// Each is an event of its own for who waits for edges.
    edges: |left| {
        one_by_one(left);
        left.meet();
    }, |right| {
        let epoll = Epoll::of(right.fd, IN | RDHUP | libc::EPOLLET);
        for what in ["first", "second", "third"] {
            right.meet();
            event(right, epoll, what);
        }
        right.arrived(9);
        right.recv(100, 0);
        no_event(right, epoll, "no more");
        right.meet();
    };

    /// Peeks at an offset that moves.
    peek_offset: |left| {
        three(left);
        left.meet();
        left.meet();
        three(left);
        left.meet();
    }, |right| {
        let peek = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        right.arrived(9);
        right.see("set", call::set(right.fd, SOCKET, libc::SO_PEEK_OFF, 0));
        for _ in 0..3 {
            right.recv(4, peek);
        }
        right.see("offset", call::get(right.fd, SOCKET, libc::SO_PEEK_OFF));
        right.recv(5, 0);
        right.see("offset", call::get(right.fd, SOCKET, libc::SO_PEEK_OFF));
        right.see("unset", call::set(right.fd, SOCKET, libc::SO_PEEK_OFF, -1));
        right.recv(100, peek);
        right.recv(100, 0);
        right.meet();
        right.meet();
        right.arrived(9);
        right.recv(100, 0);
        right.meet();
    };

    /// The end comes behind them.
    end_behind: |left| {
        three(left);
        left.shutdown(libc::SHUT_WR);
        left.recv(100, 0);
        left.meet();
    }, |right| {
        right.arrived(9);
        right.polled(RDHUP);
        right.poll(ALL);
        right.unread();
        right.recv(100, libc::MSG_PEEK | libc::MSG_WAITALL);
        right.recv(4, 0);
        right.unread();
        right.recv(100, libc::MSG_WAITALL);
        right.recv(100, 0);
        right.recv(100, libc::MSG_PEEK);
        right.send(b"thanks", 0);
        right.meet();
    };

    /// The end comes behind the one that went over TCP.
    end_behind_tcp: |left| {
        left.send(b"abc", 0);
        over_tcp(left, b"def");
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let [from, to] = call::pipe().expect("pipe");
        right.polled(RDHUP);
        right.unread();
        right.see("splice", splice::splice(right.fd, to, 2, 0));
        right.see("readv", message::readv(right.fd, &[1, 2]));
        right.see("splice", splice::splice(right.fd, to, 100, 0));
        right.see("splice", splice::splice(right.fd, to, 100, 0));
        right.see("pipe", call::read(from, 100));
        right.recv(100, 0);
        right.meet();
    };

    /// A reset comes behind them: they can still be read.
    reset_behind: |left| {
        three(left);
        left.meet();
        reset(left);
        left.meet();
    }, |right| {
        right.arrived(9);
        right.meet();
        broken(right);
        right.poll(ALL);
        right.unread();
        right.recv(9, libc::MSG_PEEK);
        right.recv(4, 0);
        right.recv(100, libc::MSG_PEEK);
        right.recv(100, 0);
        right.recv(100, 0);
        right.recv(100, 0);
        error(right);
        right.send(b"x", libc::MSG_NOSIGNAL);
        right.meet();
    };

    /// A reset comes behind the one that went over TCP; SO_ERROR tells of it before the bytes are read.
    reset_behind_tcp: |left| {
        left.send(b"abc", 0);
        over_tcp(left, b"def");
        left.meet();
        reset(left);
        left.meet();
    }, |right| {
        right.arrived(6);
        right.meet();
        broken(right);
        error(right);
        right.recv(100, libc::MSG_WAITALL);
        right.recv(100, 0);
        right.meet();
    };

    /// Much of both kinds, in both directions; afterwards the ring is where bytes go, as before.
    woven: |left| {
        woven(left);
        still_there(left);
    }, |right| {
        woven(right);
        still_there(right);
    };

    /// Much of both kinds that nobody reads for a while.
    woven_unread: |left| {
        let mut at = 0;
        (0..MESSAGES).for_each(|number| at += weave(left, at, number));
        left.meet();
        left.meet();
    }, |right| {
        right.meet();
        let total = (0..MESSAGES).map(woven_size).sum();
        right.arrived(total);
        right.see("unread", call::ioctl(right.fd, libc::FIONREAD) == Ok(total as i32));
        let mut all = Vec::new();
        for size in 1.. {
            match call::recv(right.fd, size, libc::MSG_DONTWAIT) {
                Ok(part) if !part.is_empty() => all.extend(part),
                _ => break,
            }
        }
        right.see("all came", all == call::pattern(0, total));
        right.meet();
    };
}

/// Three bytes through the ring, three over TCP, and three through the ring.
fn three(end: &mut End) {
    end.send(b"abc", 0);
    over_tcp(end, b"def");
    end.send(b"ghi", 0);
}

/// The same, each when the other end is there for it.
fn one_by_one(end: &mut End) {
    end.meet();
    end.send(b"abc", 0);
    end.meet();
    over_tcp(end, b"def");
    end.meet();
    end.send(b"ghi", 0);
}

/// Sends with control data that changes nothing, noted.
fn over_tcp(end: &mut End, bytes: &[u8]) {
    let result = send_over_tcp(end, bytes);
    end.see("sendmsg with control data", result);
}

fn send_over_tcp(end: &End, bytes: &[u8]) -> Result<usize, nix::errno::Errno> {
    let control = message::control(TCP, INQ, &1i32.to_ne_bytes());
    message::send(end.fd, &[bytes], &control, libc::MSG_NOSIGNAL)
}

/// Bytes of a message of a long exchange.
fn woven_size(number: usize) -> usize {
    1 + number * number % 97
}

/// Sends a part of the stream from `at`, one of three over TCP; returns its size.
fn weave(end: &End, at: usize, number: usize) -> usize {
    let bytes = call::pattern(at, woven_size(number));
    let sent = match number % 3 {
        1 => send_over_tcp(end, &bytes),
        _ => call::send(end.fd, &bytes, libc::MSG_NOSIGNAL),
    };
    assert!(sent == Ok(bytes.len()), "{sent:?}");
    bytes.len()
}

/// Both ends send at the same time, and read all.
fn woven(end: &mut End) {
    let mut at = 0;
    for number in 0..MESSAGES {
        at += weave(end, at, number);
    }
    let mut all = vec![0; at];
    call::receive_all(end.fd, &mut all);
    end.see("all came", all == call::pattern(0, at));
    end.meet();
    end.accelerate();
}
