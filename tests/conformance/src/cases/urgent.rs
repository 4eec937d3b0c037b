// SPDX-License-Identifier: GPL-2.0

//! Urgent bytes.

use crate::{call, case::cases, end::End, thread::Caller};

const SIOCATMARK: libc::Ioctl = 0x8905;

cases! {
    /// A byte out of band: a mark in the stream, where a read ends.
    urgent: |left| {
        left.send(b"abc", 0);
        left.send(b"de", libc::MSG_OOB);
        left.send(b"fgh", 0);
        left.meet();
    }, |right| {
        right.polled(libc::EPOLLPRI);
        right.arrived(4);
        at_mark(right);
        right.poll(libc::EPOLLIN | libc::EPOLLPRI);
        right.recv(10, libc::MSG_OOB | libc::MSG_PEEK);
        right.recv(10, libc::MSG_OOB);
        right.recv(10, libc::MSG_OOB);
        right.poll(libc::EPOLLPRI);
        right.recv(2, 0);
        at_mark(right);
        right.recv(10, 0);
        at_mark(right);
        // At the mark, FIONREAD does not count what is behind it.
        right.unread();
        right.polled(libc::EPOLLIN);
        right.recv(10, 0);
        at_mark(right);
        right.unread();
        right.meet();
    };

    /// Reading past the mark without reading the urgent byte: it is not among the others.
    urgent_unread: |left| {
        left.send(b"abcX", libc::MSG_OOB);
        left.send(b"def", 0);
        left.meet();
    }, |right| {
        right.polled(libc::EPOLLPRI);
        right.arrived(3);
        right.recv(6, libc::MSG_WAITALL);
        right.polled(libc::EPOLLIN);
        right.recv(6, 0);
        right.recv(1, libc::MSG_OOB);
        right.recv(10, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// A peek where nothing but an urgent byte is unread sleeps until more comes.
    urgent_peeked: |left| {
        left.send(b"X", libc::MSG_OOB);
        left.meet();
        left.send(b"abc", 0);
        left.meet();
    }, |right| {
        right.polled(libc::EPOLLPRI);
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 10, libc::MSG_PEEK));
        right.meet();
        right.see("peek", caller.join());
        right.recv(1, libc::MSG_OOB);
        right.recv(10, 0);
        right.meet();
    };

    /// SO_OOBINLINE: the urgent byte is among the others, and reads end before it.
    urgent_inline: |left| {
        left.meet();
        left.send(b"abcX", libc::MSG_OOB);
        left.send(b"def", 0);
        left.meet();
    }, |right| {
        right.see("inline", call::set(right.fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1));
        right.meet();
        right.polled(libc::EPOLLPRI);
        right.arrived(7);
        right.unread();
        right.recv(1, libc::MSG_OOB);
        at_mark(right);
        right.recv(10, 0);
        at_mark(right);
        right.recv(10, 0);
        at_mark(right);
        right.recv(10, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// The urgent byte comes behind bytes that nobody has read.
    urgent_behind_unread: |left| {
        left.send(b"0123456789", 0);
        left.send(b"X", libc::MSG_OOB);
        left.meet();
    }, |right| {
        right.polled(libc::EPOLLPRI);
        right.arrived(10);
        at_mark(right);
        right.recv(4, 0);
        at_mark(right);
        right.recv(10, 0);
        at_mark(right);
        right.recv(1, libc::MSG_OOB);
        right.meet();
    };

    /// Who peeks for all gets what is before the urgent byte.
    peek_before_urgent: |left| {
        left.send(b"abcX", libc::MSG_OOB);
        left.send(b"def", 0);
        left.meet();
    }, |right| {
        right.polled(libc::EPOLLPRI);
        right.arrived(3);
        right.recv(10, libc::MSG_PEEK | libc::MSG_WAITALL);
        right.recv(10, 0);
        right.meet();
    };

    /// Nothing is urgent.
    nothing_urgent: |left| {
        left.send(b"abc", 0);
        left.meet();
        left.recv(1, libc::MSG_OOB);
        at_mark(left);
        left.meet();
    }, |right| {
        right.arrived(3);
        right.recv(1, libc::MSG_OOB);
        at_mark(right);
        right.poll(libc::EPOLLPRI);
        right.recv(10, 0);
        at_mark(right);
        right.meet();
        right.meet();
    };

    /// The second urgent byte makes the first one a byte like all others.
    urgent_twice: |left| {
        left.send(b"abX", libc::MSG_OOB);
        left.meet();
        left.send(b"cdY", libc::MSG_OOB);
        left.meet();
    }, |right| {
        right.polled(libc::EPOLLPRI);
        right.arrived(2);
        right.unread();
        right.meet();
        right.arrived(5);
        right.unread();
        right.recv(1, libc::MSG_OOB);
        right.recv(10, 0);
        at_mark(right);
        right.recv(10, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// An urgent byte alone: nothing to read, but poll says so, and again for the next one.
    urgent_alone: |left| {
        left.send(b"X", libc::MSG_OOB);
        left.meet();
        left.send(b"Y", libc::MSG_OOB);
        left.meet();
        left.send(b"abc", 0);
        left.send(b"", libc::MSG_OOB);
        left.meet();
    }, |right| {
        right.polled(libc::EPOLLPRI);
        right.poll(libc::EPOLLIN | libc::EPOLLPRI);
        at_mark(right);
        right.recv(10, libc::MSG_DONTWAIT);
        // That has gone past it.
        right.recv(1, libc::MSG_OOB);
        right.poll(libc::EPOLLIN | libc::EPOLLPRI);
        right.meet();
        right.polled(libc::EPOLLPRI);
        right.recv(1, libc::MSG_OOB);
        at_mark(right);
        right.poll(libc::EPOLLIN | libc::EPOLLPRI);
        right.recv(10, libc::MSG_DONTWAIT);
        at_mark(right);
        right.meet();
        right.arrived(3);
        right.recv(10, 0);
        right.meet();
    };

    /// A recv that sleeps goes on sleeping when only an urgent byte comes.
    urgent_while_asleep: |left| {
        left.meet();
        left.send(b"X", libc::MSG_OOB);
        let fd = left.fd;
        left.until("it arrives", || call::ioctl(fd, libc::TIOCOUTQ) == Ok(0));
        left.meet();
        left.meet();
        left.send(b"abc", 0);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 10, 0));
        right.meet();
        right.meet();
        right.see("sleeps", caller.falls_asleep());
        right.meet();
        right.see("recv", caller.join());
        right.recv(1, libc::MSG_OOB);
        right.meet();
    };

    /// Afterwards the stream is as it was, in both directions.
    urgent_both_ways: |left| {
        left.send(b"X", libc::MSG_OOB);
        left.polled(libc::EPOLLPRI);
        left.recv(1, libc::MSG_OOB);
        left.send(&call::pattern(0, 100_000), 0);
        left.drain(100_000);
        left.meet();
    }, |right| {
        right.send(b"Y", libc::MSG_OOB);
        right.polled(libc::EPOLLPRI);
        right.recv(1, libc::MSG_OOB);
        right.drain(100_000);
        right.send(&call::pattern(7, 100_000), 0);
        right.meet();
    };
}

fn at_mark(end: &mut End) {
    let result = call::ioctl(end.fd, SIOCATMARK);
    end.see("at mark", result);
}
