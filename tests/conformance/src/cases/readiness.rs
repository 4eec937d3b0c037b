// SPDX-License-Identifier: GPL-2.0

//! What poll, select and epoll say in each state of a connection.

use super::reset;
use crate::{
    call,
    case::cases,
    end::End,
    epoll::Epoll,
    log::{Events, Observed},
    select,
    stream,
    thread::Caller, //
};

const IN: i32 = libc::POLLIN as i32;
const PRI: i32 = libc::POLLPRI as i32;
const OUT: i32 = libc::POLLOUT as i32;
const RDHUP: i32 = libc::POLLRDHUP as i32;

/// Everything that poll can say.
const ALL: i32 = IN | PRI | OUT | RDHUP;

/// With the other names of these.
const NAMES: i32 =
    ALL | (libc::POLLRDNORM | libc::POLLRDBAND | libc::POLLWRNORM) as i32 | libc::POLLWRBAND as i32;

/// Notes what the calls say of the present state. `epoll` has the descriptor since before that state.
fn look(end: &mut End, epoll: Epoll, state: &str) {
    let polled = call::poll(end.fd, NAMES, 0).expect("poll");
    let selected = select::select(end.fd, IN | OUT | PRI, 0);
    let now = Epoll::of(end.fd, ALL).events(0).expect("epoll_wait");
    let mut seen = Events(0);
    // The wake-up may come after the state.
    end.until(&format!("epoll says {}", now.text()), || {
        seen = epoll.events(0).expect("epoll_wait");
        seen == now
    });
    end.see(&format!("{state}, poll"), polled);
    end.see(&format!("{state}, select"), selected);
    end.see(&format!("{state}, epoll"), seen);
}

/// Waits until poll says all of these.
fn until_polled(end: &mut End, events: i32) {
    let fd = end.fd;
    let what = Events(events as u32);
    end.until(&format!("poll says {}", what.text()), || {
        call::poll(fd, events, 0).is_ok_and(|seen| seen.0 & what.0 == what.0)
    });
}

fn error(end: &mut End) {
    let error = call::get(end.fd, libc::SOL_SOCKET, libc::SO_ERROR);
    end.see("SO_ERROR", error);
}

cases! {
    /// Data comes, and is read bit by bit.
    data: |left| {
        left.meet();
        left.send(b"0123456789", 0);
        left.meet();
    }, |right| {
        let epoll = Epoll::of(right.fd, ALL);
        look(right, epoll, "fresh");
        right.meet();
        right.arrived(10);
        look(right, epoll, "data");
        right.recv(4, 0);
        look(right, epoll, "less");
        right.recv(6, libc::MSG_PEEK);
        look(right, epoll, "peeked");
        right.recv(6, 0);
        look(right, epoll, "none");
        right.meet();
    };

    /// A connection becomes full, and is emptied.
    full: |left| {
        let epoll = Epoll::of(left.fd, ALL);
        let count = stream::fill(left.fd, 0);
        look(left, epoll, "full");
        left.meet();
        left.tell(count);
        left.meet();
        until_polled(left, OUT);
        look(left, epoll, "emptied");
        left.send(b"and on", 0);
        left.meet();
    }, |right| {
        let epoll = Epoll::of(right.fd, ALL);
        right.meet();
        look(right, epoll, "much to read");
        stream::receive_told(right, 0);
        look(right, epoll, "none");
        right.meet();
        right.drain(6);
        right.meet();
    };

    /// Threads wait for room, in each of the calls.
    waiting_for_room: |left| {
        let count = stream::fill(left.fd, 0);
        let fd = left.fd;
        let callers = [
            ("poll", Caller::asleep(move || call::poll(fd, OUT, -1))),
            ("select", Caller::asleep(move || select::select(fd, OUT, -1))),
            ("ppoll", Caller::asleep(move || select::ppoll(fd, OUT))),
            ("pselect", Caller::asleep(move || select::pselect(fd, OUT))),
            ("epoll", Caller::asleep(move || Epoll::of(fd, OUT).events(-1))),
        ];
        left.tell(count);
        for (name, caller) in callers {
            left.see(name, caller.join());
        }
        left.meet();
    }, |right| {
        stream::receive_told(right, 0);
        right.meet();
    };

    /// Threads wait for data, in each of the calls; one also for room, which there is.
    waiting_for_data: |left| {
        left.meet();
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let callers = [
            ("poll", Caller::asleep(move || call::poll(fd, IN | RDHUP, -1))),
            ("select", Caller::asleep(move || select::select(fd, IN | PRI, -1))),
            ("ppoll", Caller::asleep(move || select::ppoll(fd, IN | PRI))),
            ("pselect", Caller::asleep(move || select::pselect(fd, IN))),
            ("epoll", Caller::asleep(move || Epoll::of(fd, IN).events(-1))),
        ];
        let result = call::poll(fd, IN | OUT, -1);
        right.see("both", result);
        right.meet();
        for (name, caller) in callers {
            right.see(name, caller.join());
        }
        right.recv(10, 0);
        right.meet();
    };

    /// A thread waits for both on a full connection: data comes first, then room.
    waiting_for_both: |left| {
        let count = stream::fill(left.fd, 0);
        let fd = left.fd;
        let caller = Caller::asleep(move || call::poll(fd, IN | OUT, -1));
        left.meet();
        left.see("poll", caller.join());
        left.recv(10, 0);
        let caller = Caller::asleep(move || call::poll(fd, IN | OUT, -1));
        left.tell(count);
        left.see("poll", caller.join());
        left.meet();
    }, |right| {
        right.meet();
        right.send(b"first", 0);
        stream::receive_told(right, 0);
        right.meet();
    };

    /// The peer sends no more.
    peer_ends: |left| {
        left.send(b"abc", 0);
        left.shutdown(libc::SHUT_WR);
        left.drain(5);
        left.meet();
    }, |right| {
        let epoll = Epoll::of(right.fd, ALL);
        until_polled(right, RDHUP);
        look(right, epoll, "the end and data");
        right.recv(10, 0);
        look(right, epoll, "the end");
        right.recv(10, 0);
        look(right, epoll, "after the end");
        right.send(b"still", 0);
        right.meet();
    };

    /// This end sends no more, then the peer does not.
    both_end: |left| {
        left.recv(10, 0);
        left.meet();
        left.send(b"abc", 0);
        left.shutdown(libc::SHUT_WR);
        left.meet();
        let epoll = Epoll::of(left.fd, ALL);
        look(left, epoll, "the other end");
        left.meet();
    }, |right| {
        let epoll = Epoll::of(right.fd, ALL);
        right.shutdown(libc::SHUT_WR);
        look(right, epoll, "this end");
        right.meet();
        until_polled(right, RDHUP);
        look(right, epoll, "both ends and data");
        right.recv(10, 0);
        look(right, epoll, "both ends");
        right.recv(10, 0);
        error(right);
        right.meet();
        right.meet();
    };

    /// This end says that it receives no more.
    receiving_ends: |left| {
        left.meet();
        left.recv(10, 0);
        left.meet();
    }, |right| {
        let epoll = Epoll::of(right.fd, ALL);
        right.shutdown(libc::SHUT_RD);
        look(right, epoll, "receives no more");
        right.recv(10, 0);
        right.meet();
        right.send(b"but sends", 0);
        right.shutdown(libc::SHUT_WR);
        look(right, epoll, "nor sends");
        right.meet();
    };

    /// The peer resets.
    reset: |left| {
        reset(left);
        left.meet();
    }, |right| {
        let epoll = Epoll::of(right.fd, ALL);
        until_polled(right, libc::POLLHUP.into());
        look(right, epoll, "reset");
        error(right);
        look(right, epoll, "reset and known");
        error(right);
        right.recv(10, 0);
        right.send(b"x", libc::MSG_NOSIGNAL);
        look(right, epoll, "reset and tried");
        right.meet();
    };

    /// The peer resets while data waits.
    reset_with_data: |left| {
        left.send(b"abc", 0);
        left.meet();
        reset(left);
        left.meet();
    }, |right| {
        let epoll = Epoll::of(right.fd, ALL);
        right.arrived(3);
        right.meet();
        until_polled(right, libc::POLLHUP.into());
        look(right, epoll, "reset");
        right.recv(10, 0);
        look(right, epoll, "tried");
        right.recv(10, 0);
        look(right, epoll, "tried again");
        right.meet();
    };

    /// The peer closes while it has not read all: its connection is reset.
    closed_with_unread_data: |left| {
        left.arrived(3);
        left.close();
        left.meet();
    }, |right| {
        right.send(b"abc", 0);
        let epoll = Epoll::of(right.fd, ALL);
        until_polled(right, libc::POLLHUP.into());
        look(right, epoll, "reset");
        right.recv(10, 0);
        right.recv(10, 0);
        right.meet();
    };

    /// Urgent data comes.
    urgent: |left| {
        left.send(b"ab", 0);
        left.send(b"!", libc::MSG_OOB);
        left.meet();
        left.send(b"cd", 0);
        left.meet();
    }, |right| {
        let epoll = Epoll::of(right.fd, ALL);
        until_polled(right, PRI);
        right.arrived(2);
        look(right, epoll, "urgent and before");
        right.recv(10, 0);
        look(right, epoll, "urgent");
        right.recv(1, libc::MSG_OOB);
        look(right, epoll, "read");
        right.meet();
        until_polled(right, IN);
        look(right, epoll, "after");
        right.recv(10, 0);
        look(right, epoll, "none");
        right.meet();
    };

    /// A thread waits for urgent data: other data does not wake it.
    waiting_for_urgent: |left| {
        left.meet();
        left.send(b"ab", 0);
        left.meet();
        left.send(b"!", libc::MSG_OOB);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let caller = Caller::asleep(move || call::poll(fd, PRI, -1));
        right.meet();
        right.arrived(2);
        right.pause();
        right.see("still waits", !caller.is_over());
        right.meet();
        right.see("poll", caller.join());
        right.recv(1, libc::MSG_OOB);
        right.recv(10, 0);
        right.meet();
    };
}
