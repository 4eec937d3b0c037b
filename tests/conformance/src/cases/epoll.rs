// SPDX-License-Identifier: GPL-2.0

//! What is in an epoll set: added, modified, closed, shared, nested.

use super::{event, no_event, send_in_step};
use crate::{
    call,
    case::cases,
    epoll::Epoll,
    thread::Caller, //
};

const IN: i32 = libc::EPOLLIN;
const OUT: i32 = libc::EPOLLOUT;
const RDHUP: i32 = libc::EPOLLRDHUP;
const EDGE: i32 = libc::EPOLLET;

cases! {
    /// EPOLL_CTL_MOD makes an event of what is there.
    modified: |left| {
        send_in_step(left, &[b"a"]);
    }, |right| {
        let epoll = Epoll::of(right.fd, IN | EDGE);
        right.meet();
        event(right, epoll, "first");
        no_event(right, epoll, "no more");
        let result = epoll.modify(right.fd, IN | EDGE);
        right.see("modified", result);
        event(right, epoll, "again");
        no_event(right, epoll, "no more");
        epoll.modify(right.fd, OUT | EDGE).expect("epoll_ctl");
        event(right, epoll, "the other direction");
        epoll.modify(right.fd, RDHUP).expect("epoll_ctl");
        no_event(right, epoll, "the end alone");
        epoll.modify(right.fd, IN).expect("epoll_ctl");
        event(right, epoll, "each time");
        event(right, epoll, "each time");
        right.recv(100, 0);
        no_event(right, epoll, "read");
        right.meet();
    };

    /// A thread waits while what it waits for is modified to be what is there.
    modified_while_waiting: |left| {
        send_in_step(left, &[b"a"]);
    }, |right| {
        let epoll = Epoll::of(right.fd, RDHUP);
        right.meet();
        right.arrived(1);
        let caller = Caller::asleep(move || epoll.events(-1));
        epoll.modify(right.fd, IN).expect("epoll_ctl");
        right.see("epoll_wait", caller.join());
        right.meet();
    };

    /// A descriptor is added after data came, also while a thread waits.
    added_late: |left| {
        send_in_step(left, &[b"a", b"b"]);
    }, |right| {
        right.meet();
        right.arrived(1);
        let edge = Epoll::of(right.fd, IN | EDGE);
        let result = edge.events(0);
        right.see("edge", result);
        no_event(right, edge, "no more");
        let level = Epoll::of(right.fd, IN);
        let result = level.events(0);
        right.see("level", result);
        let epoll = Epoll::new();
        let caller = Caller::asleep(move || epoll.events(-1));
        epoll.add(right.fd, IN | EDGE).expect("epoll_ctl");
        right.see("while one waits", caller.join());
        right.meet();
        for (name, epoll) in [("edge", edge), ("level", level), ("late", epoll)] {
            event(right, epoll, name);
        }
        right.recv(100, 0);
        for (name, epoll) in [("edge", edge), ("level", level), ("late", epoll)] {
            no_event(right, epoll, name);
        }
        right.meet();
    };

    /// Descriptors are added twice, as duplicates, and taken out.
    members: |left| {
        send_in_step(left, &[b"a"]);
    }, |right| {
        let epoll = Epoll::of(right.fd, IN);
        right.see("twice", epoll.add(right.fd, IN));
        let other = call::duplicate(right.fd);
        right.see("duplicate", epoll.add(other, IN | OUT));
        right.meet();
        right.arrived(1);
        let mut count = 0;
        right.until("both are ready", || {
            let all = epoll.wait(0).expect("epoll_wait");
            count = all.iter().filter(|(_, events)| events.0 & IN as u32 != 0).count();
            count == 2
        });
        right.see("ready", count);
        right.see("taken out", epoll.remove(right.fd));
        right.see("twice", epoll.remove(right.fd));
        right.see("not there", epoll.modify(right.fd, IN));
        event(right, epoll, "the other");
        right.see("taken out", epoll.remove(other));
        no_event(right, epoll, "none");
        right.recv(100, 0);
        right.meet();
    };

    /// A descriptor is closed: events go on while a duplicate is open.
    closed_but_duplicate: |left| {
        send_in_step(left, &[b"a", b"b"]);
        left.polled(RDHUP);
        left.recv(10, 0);
        left.meet();
    }, |right| {
        let epoll = Epoll::of(right.fd, IN);
        let other = call::duplicate(right.fd);
        right.close();
        right.meet();
        event(right, epoll, "first");
        let received = call::recv(other, 10, 0);
        right.see("recv", received);
        no_event(right, epoll, "no more");
        right.meet();
        event(right, epoll, "second");
        let received = call::recv(other, 10, 0);
        right.see("recv", received);
        call::close(other).expect("close");
        no_event(right, epoll, "all closed");
        right.meet();
        right.meet();
    };

    /// A set within a set, of both kinds.
    nested: |left| {
        send_in_step(left, &[b"a", b"b"]);
    }, |right| {
        let inner = Epoll::of(right.fd, IN);
        let level = Epoll::of(inner.0, IN);
        let edge = Epoll::of(inner.0, IN | EDGE);
        no_event(right, level, "fresh, level");
        no_event(right, edge, "fresh, edge");
        let caller = Caller::asleep(move || level.events(-1));
        right.meet();
        right.see("waits", caller.join());
        event(right, edge, "edge");
        event(right, level, "level");
        event(right, inner, "inner");
        no_event(right, edge, "edge, no more");
        event(right, level, "level, still");
        let polled = call::poll(inner.0, IN, 0);
        right.see("poll", polled);
        right.recv(100, 0);
        no_event(right, level, "level, read");
        no_event(right, inner, "inner, read");
        right.meet();
        event(right, level, "level, second");
        event(right, edge, "edge, second");
        right.recv(100, 0);
        right.meet();
    };

    /// EPOLLEXCLUSIVE: one arrival wakes one of two threads that wait, the next the other.
    exclusive: |left| {
        send_in_step(left, &[b"a", b"b"]);
    }, |right| {
        let wanted = IN | libc::EPOLLEXCLUSIVE;
        let [first, second] = [(); 2].map(|()| Epoll::of(right.fd, wanted));
        right.see("modified", first.modify(right.fd, wanted));
        let callers = [first, second].map(|epoll| Caller::asleep(move || epoll.events(-1)));
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
}
