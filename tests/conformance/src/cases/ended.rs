// SPDX-License-Identifier: GPL-2.0

//! Sockets that end while threads wait with them.

use super::reset;
use crate::{
    call,
    case::cases,
    end::End,
    stream,
    thread::Caller, //
};

const IN: i32 = libc::POLLIN as i32;
const ALL: i32 = (libc::POLLIN | libc::POLLPRI | libc::POLLOUT | libc::POLLRDHUP) as i32;

/// A call waits to send much; `stop` stops it. Notes what comes of it, and of the next two.
fn stop_sending(end: &mut End, stop: impl FnOnce(&mut End)) -> usize {
    let fd = end.fd;
    let caller = Caller::asleep(move || call::send(fd, &call::pattern(0, stream::MUCH), 0));
    stop(end);
    let count = caller.join().expect("some bytes");
    end.see("some are sent", count > 0 && count < stream::MUCH);
    end.send(b"more", libc::MSG_NOSIGNAL);
    end.send(b"more", libc::MSG_NOSIGNAL);
    count
}

/// Waits until the connection is gone both ways.
fn hung_up(end: &mut End) {
    let fd = end.fd;
    let is_up = || call::poll(fd, ALL, 0).is_ok_and(|seen| seen.0 & libc::POLLHUP as u32 != 0);
    end.until("the connection is gone", is_up);
}

cases! {
    /// A descriptor is closed while a thread waits in recv with it: that waits on, and keeps the
    /// connection until it has got something.
    closed_while_receiving: |left| {
        left.meet();
        left.pause();
        left.poll(ALL);
        left.send(b"abc", 0);
        left.polled(libc::POLLRDHUP.into());
        left.recv(10, 0);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 100, 0));
        right.close();
        right.pause();
        right.see("still waits", !caller.is_over());
        right.meet();
        right.see("recv", caller.join());
        right.meet();
    };

    /// The same if what it gets is the end of the stream.
    closed_while_receiving_the_end: |left| {
        left.meet();
        left.shutdown(libc::SHUT_WR);
        left.recv(10, 0);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 100, 0));
        right.close();
        right.meet();
        right.see("recv", caller.join());
        right.meet();
    };

    /// A descriptor is closed while a thread waits in poll with it: it waits on, and learns of what
    /// comes, which then nobody has read.
    closed_while_polling: |left| {
        left.meet();
        left.pause();
        left.poll(ALL);
        left.send(b"abc", 0);
        hung_up(left);
        left.recv(10, 0);
        left.recv(10, 0);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let caller = Caller::asleep(move || call::poll(fd, IN, -1));
        right.close();
        right.pause();
        right.see("still waits", !caller.is_over());
        right.meet();
        right.see("poll", caller.join());
        right.meet();
    };

    /// A descriptor is closed while a thread waits in send with it: all comes, then the end.
    closed_while_sending: |left| {
        let fd = left.fd;
        let caller = Caller::asleep(move || call::send(fd, &call::pattern(0, stream::MUCH), 0));
        left.close();
        left.meet();
        left.see("send", caller.join());
        left.meet();
    }, |right| {
        right.meet();
        right.drain(stream::MUCH);
        right.recv(10, 0);
        right.meet();
    };

    /// A duplicate is closed while a thread waits with it: nothing happens.
    duplicate_closed_while_receiving: |left| {
        left.meet();
        left.send(b"abc", 0);
        left.meet();
        left.recv(10, 0);
        left.meet();
    }, |right| {
        let other = call::duplicate(right.fd);
        let caller = Caller::asleep(move || call::recv(other, 100, 0));
        let result = call::close(other);
        right.see("close", result);
        right.pause();
        right.see("still waits", !caller.is_over());
        right.meet();
        right.see("recv", caller.join());
        right.meet();
        right.send(b"still here", 0);
        right.meet();
    };

    /// shutdown ends the wait of a thread in recv.
    shut_down_while_receiving: |left| {
        left.recv(10, 0);
        left.meet();
        left.send(b"too late", libc::MSG_NOSIGNAL);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 100, 0));
        // This one has no effect on it.
        right.shutdown(libc::SHUT_WR);
        right.pause();
        right.see("still waits", !caller.is_over());
        right.shutdown(libc::SHUT_RD);
        right.see("recv", caller.join());
        right.meet();
        right.meet();
    };

    /// SHUT_RDWR does so as well, for all that wait, and with what MSG_WAITALL has.
    shut_down_while_waiting_for_all: |left| {
        left.send(b"abc", 0);
        left.meet();
        left.recv(10, 0);
        left.meet();
    }, |right| {
        right.arrived(3);
        let fd = right.fd;
        let first = Caller::asleep(move || call::recv(fd, 10, libc::MSG_WAITALL));
        let second = Caller::asleep(move || call::recv(fd, 10, 0));
        let third = Caller::asleep(move || call::poll(fd, IN, -1));
        right.shutdown(libc::SHUT_RDWR);
        right.see("first", first.join());
        right.see("second", second.join());
        right.see("third", third.join());
        right.meet();
        right.meet();
    };

    /// shutdown ends the wait of a thread in send: what it counted comes, then the end.
    shut_down_while_sending: |left| {
        let count = stop_sending(left, |left| left.shutdown(libc::SHUT_WR));
        left.tell(count);
        left.meet();
    }, |right| {
        stream::receive_told(right, 0);
        right.recv(10, 0);
        right.meet();
    };

    /// The peer resets while threads wait in recv and poll.
    reset_while_receiving: |left| {
        left.meet();
        reset(left);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let receiver = Caller::asleep(move || call::recv(fd, 100, 0));
        right.meet();
        right.see("recv", receiver.join());
        right.recv(100, 0);
        right.send(b"more", libc::MSG_NOSIGNAL);
        right.poll(ALL);
        right.meet();
    };

    /// The peer resets while a thread waits in poll.
    reset_while_polling: |left| {
        left.meet();
        reset(left);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let caller = Caller::asleep(move || call::poll(fd, IN, -1).map(drop));
        right.meet();
        right.see("poll", caller.join());
        hung_up(right);
        right.poll(ALL);
        right.recv(100, 0);
        right.recv(100, 0);
        right.meet();
    };

    /// The peer resets while a thread waits in send.
    reset_while_sending: |left| {
        stop_sending(left, |left| {
            left.meet();
            hung_up(left);
        });
        left.meet();
    }, |right| {
        right.meet();
        reset(right);
        right.meet();
    };
}
