// SPDX-License-Identifier: GPL-2.0

//! Messages of all sizes, and what is counted of them on their way.

use super::fill;
use crate::{
    call,
    case::cases,
    end::End,
    stream,
    thread::Caller, //
};

/// Bytes that each end sends while it receives as many.
const BOTH_WAYS: usize = 2 << 20;

/// Bytes that have not been sent yet.
const SIOCOUTQNSD: libc::Ioctl = 0x894b;

cases! {
    /// A message larger than any buffer.
    large_message: |left| {
        left.send(&call::pattern(0, 2 << 20), 0);
        left.meet();
    }, |right| {
        right.drain(2 << 20);
        right.meet();
    };

    /// Such messages both ways at once.
    large_both_ways: |left| {
        both_ways(left, 0);
    }, |right| {
        both_ways(right, 1);
    };

    /// Many small messages: each byte once.
    many_small: |left| {
        let bytes = call::pattern(0, 8000);
        bytes.chunks(4).for_each(|part| call::send_all(left.fd, part));
        left.meet();
    }, |right| {
        right.drain(8000);
        right.meet();
    };

    /// Many small reads of one large message.
    many_small_reads: |left| {
        left.send(&call::pattern(0, 14_000), 0);
        left.meet();
    }, |right| {
        right.arrived(14_000);
        let mut all = Vec::new();
        while all.len() < 14_000 {
            all.extend(call::recv(right.fd, 7, 0).expect("recv"));
        }
        right.see("bytes", all);
        right.recv(7, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// Tiny and large messages by turns.
    by_turns: |left| {
        let bytes = call::pattern(0, 2 << 20);
        let (mut at, mut large) = (0, false);
        while at < bytes.len() {
            let len = if large { 100_001 } else { 1 }.min(bytes.len() - at);
            assert_eq!(call::send(left.fd, &bytes[at..at + len], 0), Ok(len));
            (at, large) = (at + len, !large);
        }
        left.meet();
    }, |right| {
        right.drain(2 << 20);
        right.meet();
    };

    /// Messages of all sizes about powers of two.
    all_sizes: |left| {
        let mut at = 0;
        for len in sizes() {
            left.send(&call::pattern(at, len), 0);
            at += len;
        }
        left.meet();
    }, |right| {
        for len in sizes() {
            right.drain(len);
        }
        right.recv(1, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// Messages that are answered, of growing sizes.
    round_trips: |left| {
        let mut at = 0;
        for len in 1..200 {
            call::send_all(left.fd, &call::pattern(at, len));
            let mut answer = vec![0; len];
            call::receive_all(left.fd, &mut answer);
            assert!(answer == call::pattern(at, len), "it differs at {at}");
            at += len;
        }
        left.see("bytes", at);
        left.meet();
    }, |right| {
        for len in 1..200 {
            let mut bytes = vec![0; len];
            call::receive_all(right.fd, &mut bytes);
            call::send_all(right.fd, &bytes);
        }
        right.meet();
    };

    /// FIONREAD: what can be read, before and after the end.
    unread: |left| {
        left.meet();
        left.send(b"0123456789", 0);
        left.meet();
        left.shutdown(libc::SHUT_WR);
        left.meet();
        left.unread();
    }, |right| {
        right.unread();
        right.meet();
        right.arrived(10);
        right.unread();
        right.recv(4, libc::MSG_PEEK);
        right.unread();
        right.recv(4, 0);
        right.unread();
        right.meet();
        right.polled(libc::EPOLLRDHUP);
        right.unread();
        right.recv(10, 0);
        right.unread();
        right.recv(10, 0);
        right.unread();
        right.meet();
    };

    /// SIOCOUTQ and SIOCOUTQNSD: nothing is left once all is there, read or not; then the end counts.
    unsent: |left| {
        all_sent(left);
        unsent(left);
        left.meet();
        left.send(&call::pattern(0, 5000), 0);
        all_sent(left);
        unsent(left);
        left.meet();
        left.shutdown(libc::SHUT_WR);
        all_sent(left);
        unsent(left);
        left.meet();
    }, |right| {
        all_sent(right);
        unsent(right);
        right.meet();
        right.arrived(5000);
        right.meet();
        right.drain(5001);
        unsent(right);
        right.meet();
    };

    /// They count what there is no room for; nothing, when all was read.
    unsent_when_full: |left| {
        let sent = fill(left);
        for (name, request) in [("SIOCOUTQ", libc::TIOCOUTQ), ("SIOCOUTQNSD", SIOCOUTQNSD)] {
            let count = call::ioctl(left.fd, request);
            left.see(name, count.map(|count| count > 0 && count as usize <= sent));
        }
        left.tell(sent);
        all_sent(left);
        unsent(left);
        left.meet();
    }, |right| {
        stream::receive_told(right, 0);
        right.meet();
    };

    /// What these say of sockets that are not connected.
    unconnected bare: |left| {
        let address = (left.address(), 0).into();
        left.fd = call::socket(&address).expect("socket");
        counts(left);
        left.see("bind", call::bind(left.fd, &address));
        counts(left);
        left.see("listen", call::listen(left.fd, &address, 1));
        left.close();
        left.fd = call::socket(&address).expect("socket");
        left.see("listen", call::listen(left.fd, &address, 1));
        counts(left);
        left.recv(1, 0);
        left.send(b"x", libc::MSG_NOSIGNAL);
    }, |right| {
        let address = (right.address(), 0).into();
        right.fd = call::socket(&address).expect("socket");
        right.recv(1, 0);
        right.recv(0, 0);
        right.recv(1, libc::MSG_OOB);
        right.recv(1, libc::MSG_ERRQUEUE);
        right.send(b"x", libc::MSG_NOSIGNAL);
        right.send(b"", libc::MSG_NOSIGNAL);
        right.send(b"x", libc::MSG_OOB | libc::MSG_NOSIGNAL);
    };
}

/// Sends much while it receives as much.
fn both_ways(end: &mut End, at: usize) {
    let fd = end.fd;
    let sender = Caller::start(move || call::send(fd, &call::pattern(at, BOTH_WAYS), 0));
    end.drain(BOTH_WAYS);
    end.meet();
    end.see("send", sender.join());
    end.meet();
}

fn sizes() -> impl Iterator<Item = usize> {
    (0..18).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1])
}

/// Waits until the other end's kernel has all.
fn all_sent(end: &mut End) {
    let fd = end.fd;
    end.until("all is sent", || call::ioctl(fd, libc::TIOCOUTQ) == Ok(0));
}

fn unsent(end: &mut End) {
    let fd = end.fd;
    end.see("SIOCOUTQ", call::ioctl(fd, libc::TIOCOUTQ));
    end.see("SIOCOUTQNSD", call::ioctl(fd, SIOCOUTQNSD));
}

fn counts(end: &mut End) {
    end.unread();
    unsent(end);
}
