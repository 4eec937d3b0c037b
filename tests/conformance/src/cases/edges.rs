// SPDX-License-Identifier: GPL-2.0

//! When epoll says something: once for each edge, or when it is asked again.

use super::{event, no_event, reset, send_in_step};
use crate::{
    call,
    case::cases,
    epoll::Epoll,
    stream,
    thread::Caller, //
};

const IN: i32 = libc::EPOLLIN;
const OUT: i32 = libc::EPOLLOUT;
const RDHUP: i32 = libc::EPOLLRDHUP;
const EDGE: i32 = libc::EPOLLET;
const ONCE: i32 = libc::EPOLLONESHOT;

cases! {
    /// One event for each arrival, whether there is unread data or not, and none without.
    arrival: |left| {
        send_in_step(left, &[b"a", b"bcd", b"ef", b"g"]);
    }, |right| {
        let epoll = Epoll::of(right.fd, IN | RDHUP | EDGE);
        no_event(right, epoll, "fresh");
        right.meet();
        event(right, epoll, "first");
        no_event(right, epoll, "no more");
        right.meet();
        event(right, epoll, "on top of it");
        no_event(right, epoll, "no more");
        right.recv(2, 0);
        no_event(right, epoll, "a part is read");
        right.meet();
        event(right, epoll, "after a part was read");
        right.recv(100, 0);
        right.recv(100, libc::MSG_DONTWAIT);
        no_event(right, epoll, "all is read");
        right.meet();
        event(right, epoll, "after all was read");
        right.recv(100, 0);
        no_event(right, epoll, "no more");
        right.meet();
    };

    /// The same where room is waited for as well: there always is some, and that is no event.
    both: |left| {
        send_in_step(left, &[b"a", b"b"]);
        left.recv(10, 0);
        left.meet();
    }, |right| {
        let epoll = Epoll::of(right.fd, IN | OUT | RDHUP | EDGE);
        event(right, epoll, "fresh");
        no_event(right, epoll, "no more");
        right.meet();
        event(right, epoll, "first");
        right.recv(100, 0);
        no_event(right, epoll, "no more");
        right.meet();
        event(right, epoll, "second");
        right.recv(100, 0);
        right.meet();
        right.send(b"back", 0);
        no_event(right, epoll, "what we send arrives");
        right.meet();
    };

    /// The end of the stream is an event, once; so is a reset.
    end: |left| {
        left.meet();
        left.shutdown(libc::SHUT_WR);
        left.meet();
        reset(left);
        left.meet();
    }, |right| {
        let epoll = Epoll::of(right.fd, IN | RDHUP | EDGE);
        right.meet();
        event(right, epoll, "end");
        no_event(right, epoll, "no more");
        right.recv(10, 0);
        no_event(right, epoll, "read");
        right.meet();
        let fd = right.fd;
        right.until("the connection is gone", || {
            call::poll(fd, 0, 0).is_ok_and(|seen| seen.0 & libc::POLLHUP as u32 != 0)
        });
        right.pause();
        event(right, epoll, "reset");
        right.recv(10, 0);
        right.meet();
    };

    /// Room is an event when there was none, once.
    room: |left| {
        let epoll = Epoll::of(left.fd, OUT | EDGE);
        event(left, epoll, "fresh");
        no_event(left, epoll, "no more");
        left.send(b"x", 0);
        no_event(left, epoll, "sent");
        let count = stream::fill(left.fd, 0);
        no_event(left, epoll, "full");
        left.tell(count);
        event(left, epoll, "room");
        left.meet();
        no_event(left, epoll, "no more");
        // Being full a second time is like the first.
        let again = stream::fill(left.fd, count);
        no_event(left, epoll, "full");
        left.tell(again);
        event(left, epoll, "room");
        left.meet();
    }, |right| {
        right.drain(1);
        let at = stream::receive_told(right, 0);
        right.meet();
        stream::receive_told(right, at);
        right.meet();
    };

    /// Room that nobody asked for is none: no call was turned away.
    room_not_missed: |left| {
        let epoll = Epoll::of(left.fd, OUT | EDGE);
        event(left, epoll, "fresh");
        left.send(b"0123456789", 0);
        left.meet();
        left.meet();
        no_event(left, epoll, "it was read");
        left.meet();
    }, |right| {
        right.meet();
        right.drain(10);
        right.meet();
        right.meet();
    };

    /// EPOLLONESHOT is one event until it is asked for again, which may be when data waits.
    oneshot: |left| {
        send_in_step(left, &[b"a", b"b", b"c"]);
    }, |right| {
        let epoll = Epoll::of(right.fd, IN | ONCE);
        right.meet();
        event(right, epoll, "first");
        right.meet();
        right.arrived(2);
        no_event(right, epoll, "second");
        let result = epoll.modify(right.fd, IN | ONCE);
        right.see("asked for again", result);
        event(right, epoll, "at once");
        no_event(right, epoll, "no more");
        right.recv(100, 0);
        let result = epoll.modify(right.fd, IN | ONCE | EDGE);
        right.see("asked for again", result);
        no_event(right, epoll, "nothing there");
        right.meet();
        event(right, epoll, "third");
        right.recv(100, 0);
        right.meet();
    };

    /// Two threads wait with one set: an edge wakes one of them.
    for_one: |left| {
        send_in_step(left, &[b"a", b"b"]);
    }, |right| {
        let epoll = Epoll::of(right.fd, IN | EDGE);
        let callers = [(); 2].map(|()| Caller::asleep(move || epoll.events(-1)));
        for awake in 1..=2 {
            right.meet();
            let over = || callers.iter().filter(|caller| caller.is_over()).count();
            right.until("one is awake", || over() >= awake);
            right.pause();
            right.see("awake", over());
        }
        for caller in callers {
            right.see("epoll_wait", caller.join());
        }
        right.recv(100, 0);
        right.meet();
    };

    /// What is below SO_RCVLOWAT is no event.
    low_mark: |left| {
        send_in_step(left, &[b"01234", b"56789", b"a"]);
    }, |right| {
        call::set(right.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 10i32).expect("SO_RCVLOWAT");
        let edge = Epoll::of(right.fd, IN | EDGE);
        let level = Epoll::of(right.fd, IN);
        right.meet();
        right.arrived(5);
        no_event(right, edge, "edge, below");
        no_event(right, level, "level, below");
        right.meet();
        event(right, edge, "edge, at it");
        event(right, level, "level, at it");
        right.recv(9, 0);
        no_event(right, edge, "edge, below");
        no_event(right, level, "level, below");
        // There is more than the new mark now, and that is new.
        call::set(right.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 1i32).expect("SO_RCVLOWAT");
        event(right, edge, "edge, mark below");
        event(right, level, "level, mark below");
        right.recv(10, 0);
        right.meet();
        event(right, edge, "edge, more");
        right.recv(10, 0);
        right.meet();
    };
}
