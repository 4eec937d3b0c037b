// SPDX-License-Identifier: GPL-2.0

//! How long calls wait: timeouts, and the mark below which there is nothing to read.

use std::os::fd::RawFd;

use nix::errno::Errno;

use crate::{
    call,
    case::cases,
    stream,
    thread::Caller,
    transfer::{RECEIVES, SENDS}, //
};

/// Bytes of a high mark: more than a ring holds of which nobody reads.
const HIGH: usize = 300_000;

/// Everything that poll can say.
const ALL: i32 = (libc::POLLIN | libc::POLLPRI | libc::POLLOUT | libc::POLLRDHUP) as i32;

const IN: i32 = libc::POLLIN as i32;

/// Sets `SO_RCVTIMEO` or `SO_SNDTIMEO`.
fn set_timeout(fd: RawFd, name: i32, milliseconds: i32) -> Result<(), Errno> {
    let time = libc::timeval {
        tv_sec: (milliseconds / 1000).into(),
        tv_usec: (milliseconds % 1000 * 1000).into(),
    };
    call::set(fd, libc::SOL_SOCKET, name, time)
}

fn set_mark(fd: RawFd, bytes: i32) -> Result<(), Errno> {
    call::set(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes)
}

cases! {
    /// Nothing comes in time, for none of the calls; then something does, and is received.
    receive_timeout: |left| {
        left.meet();
        left.send(b"hello", 0);
        left.meet();
    }, |right| {
        let result = set_timeout(right.fd, libc::SO_RCVTIMEO, 60);
        right.see("SO_RCVTIMEO", result);
        for (name, receive) in RECEIVES {
            let result = receive(right.fd, 10);
            right.see(name, result);
        }
        right.recv(10, libc::MSG_PEEK);
        right.recv(10, libc::MSG_WAITALL);
        right.meet();
        right.arrived(5);
        right.recv(10, 0);
        right.meet();
    };

    /// MSG_WAITALL returns what has come when the time is over.
    receive_timeout_of_a_part: |left| {
        left.send(b"abc", 0);
        left.meet();
        left.send(b"defghijk", 0);
        left.meet();
    }, |right| {
        let result = set_timeout(right.fd, libc::SO_RCVTIMEO, 60);
        right.see("SO_RCVTIMEO", result);
        right.arrived(3);
        right.recv(8, libc::MSG_WAITALL);
        right.recv(8, libc::MSG_WAITALL);
        right.meet();
        right.arrived(8);
        right.recv(8, libc::MSG_WAITALL);
        right.meet();
    };

    /// Data comes while a call waits that would not wait for ever.
    data_before_timeout: |left| {
        left.meet();
        left.send(b"in time", 0);
        left.meet();
    }, |right| {
        let result = set_timeout(right.fd, libc::SO_RCVTIMEO, 20_000);
        right.see("SO_RCVTIMEO", result);
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 100, 0));
        right.meet();
        right.see("recv", caller.join());
        right.meet();
    };

    /// The end of the stream comes while a call waits that would not wait for ever.
    end_before_timeout: |left| {
        left.meet();
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        set_timeout(right.fd, libc::SO_RCVTIMEO, 20_000).expect("SO_RCVTIMEO");
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 100, libc::MSG_WAITALL));
        right.meet();
        right.see("recv", caller.join());
        right.meet();
    };

    /// A timeout that is taken back is none.
    timeout_taken_back: |left| {
        left.meet();
        left.send(b"late", 0);
        left.meet();
    }, |right| {
        set_timeout(right.fd, libc::SO_RCVTIMEO, 50).expect("SO_RCVTIMEO");
        right.recv(10, 0);
        set_timeout(right.fd, libc::SO_RCVTIMEO, 0).expect("SO_RCVTIMEO");
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 100, 0));
        right.pause();
        right.see("still waits", !caller.is_over());
        right.meet();
        right.see("recv", caller.join());
        right.meet();
    };

    /// A timeout has nothing to do with a peer that reads, nor with poll.
    timeout_and_poll: |left| {
        left.meet();
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        set_timeout(right.fd, libc::SO_RCVTIMEO, 50).expect("SO_RCVTIMEO");
        let fd = right.fd;
        let caller = Caller::asleep(move || call::poll(fd, IN, -1));
        right.pause();
        right.see("still polls", !caller.is_over());
        right.meet();
        right.see("poll", caller.join());
        right.recv(10, 0);
        right.meet();
    };

    /// There is no room in time, for none of the calls; what was counted before comes, and nothing
    /// else.
    send_timeout: |left| {
        let result = set_timeout(left.fd, libc::SO_SNDTIMEO, 60);
        left.see("SO_SNDTIMEO", result);
        let mut count = stream::fill(left.fd, 0);
        for (name, send) in SENDS {
            let fd = left.fd;
            let errno = stream::send_until_error(&mut count, |bytes| send(fd, &bytes));
            left.see(name, Err::<(), _>(errno));
        }
        left.tell(count);
        left.meet();
        left.send(b"room again", 0);
        left.meet();
    }, |right| {
        stream::receive_told(right, 0);
        right.meet();
        right.drain(10);
        right.recv(1, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// There is room for a part in time: its size is what is returned, and comes.
    send_timeout_of_a_part: |left| {
        set_timeout(left.fd, libc::SO_SNDTIMEO, 300).expect("SO_SNDTIMEO");
        let all = call::pattern(0, stream::MUCH);
        let count = call::send(left.fd, &all, 0).expect("send");
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

    /// A call that waits for room goes on while the peer reads, and sends all.
    room_before_timeout: |left| {
        set_timeout(left.fd, libc::SO_SNDTIMEO, 20_000).expect("SO_SNDTIMEO");
        let fd = left.fd;
        let caller = Caller::asleep(move || call::send(fd, &call::pattern(0, stream::MUCH), 0));
        left.meet();
        left.see("send", caller.join());
        left.meet();
    }, |right| {
        right.meet();
        right.drain(stream::MUCH);
        right.meet();
    };

    /// Below the mark there is nothing to read for poll, at it there is; a call that does not wait
    /// takes what is there.
    low_mark: |left| {
        left.send(b"01234", 0);
        left.meet();
        left.send(b"56789", 0);
        left.meet();
        left.send(b"abc", 0);
        left.meet();
    }, |right| {
        let result = set_mark(right.fd, 10);
        right.see("SO_RCVLOWAT", result);
        let mark = call::get(right.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT);
        right.see("is", mark);
        right.arrived(5);
        right.pause();
        right.poll(ALL);
        right.meet();
        let seen = right.polled(IN);
        right.see("at the mark", seen);
        right.recv(4, 0);
        right.poll(ALL);
        right.recv(100, libc::MSG_DONTWAIT);
        right.poll(ALL);
        right.meet();
        right.arrived(3);
        right.poll(ALL);
        right.recv(100, libc::MSG_DONTWAIT);
        right.recv(100, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// A call that waits, waits for the mark, or for as much as it asks for if that is less.
    low_mark_and_calls: |left| {
        for message in [b"01234".as_slice(), b"56789ab", b"abc"] {
            left.meet();
            left.send(message, 0);
        }
        left.meet();
    }, |right| {
        set_mark(right.fd, 10).expect("SO_RCVLOWAT");
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 100, 0));
        right.meet();
        right.arrived(5);
        right.pause();
        right.see("waits for the mark", !caller.is_over());
        right.meet();
        right.see("recv", caller.join());
        right.meet();
        right.arrived(3);
        right.recv(3, 0);
        right.meet();
    };

    /// A call that has taken some below the mark is woken only when the mark is reached once more.
    low_mark_in_call: |left| {
        for message in [b"01234".as_slice(), b"56789", b"abcdefgh"] {
            left.send(message, 0);
            left.meet();
        }
    }, |right| {
        set_mark(right.fd, 10).expect("SO_RCVLOWAT");
        right.arrived(5);
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 100, 0));
        right.meet();
        right.arrived(5);
        right.pause();
        right.see("still waits", !caller.is_over());
        right.meet();
        right.see("recv", caller.join());
        right.meet();
    };

    /// More is waited for than the other end can send before anybody reads, if it does not know of that.
    high_mark: |left| {
        left.meet();
        left.send(&call::pattern(0, HIGH), 0);
        left.meet();
    }, |right| {
        set_mark(right.fd, HIGH as i32).expect("SO_RCVLOWAT");
        right.meet();
        right.polled(IN);
        // Linux, too, may have woken us before all is there, as its memory was short; and then never for the rest.
        set_mark(right.fd, 1).expect("SO_RCVLOWAT");
        right.drain(HIGH);
        right.meet();
    };

    /// The stream ends below the mark.
    low_mark_and_end: |left| {
        left.send(b"01234", 0);
        left.meet();
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        set_mark(right.fd, 1000).expect("SO_RCVLOWAT");
        right.arrived(5);
        let fd = right.fd;
        let caller = Caller::asleep(move || call::poll(fd, IN, -1));
        right.pause();
        right.see("still polls", !caller.is_over());
        right.meet();
        right.see("poll", caller.join());
        right.recv(1000, 0);
        right.recv(1000, 0);
        right.meet();
    };

    /// A call that has taken what is below the mark returns it when the stream ends.
    low_mark_and_end_in_call: |left| {
        left.send(b"01234", 0);
        left.meet();
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        set_mark(right.fd, 1000).expect("SO_RCVLOWAT");
        right.arrived(5);
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 1000, 0));
        right.meet();
        right.see("recv", caller.join());
        right.recv(1000, 0);
        right.meet();
    };

    /// MSG_WAITALL waits for all, wherever the mark is.
    low_mark_and_wait_all: |left| {
        left.send(b"01234", 0);
        left.meet();
        left.send(b"56789", 0);
        left.meet();
    }, |right| {
        set_mark(right.fd, 3).expect("SO_RCVLOWAT");
        right.arrived(5);
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 10, libc::MSG_WAITALL));
        right.meet();
        right.see("recv", caller.join());
        right.meet();
    };

    /// The mark moves while data waits, also under a call that waits.
    low_mark_moves: |left| {
        left.send(b"01234", 0);
        left.meet();
        left.meet();
    }, |right| {
        right.meet();
        right.arrived(5);
        right.poll(ALL);
        set_mark(right.fd, 6).expect("SO_RCVLOWAT");
        right.poll(ALL);
        let fd = right.fd;
        let caller = Caller::asleep(move || call::poll(fd, IN, -1));
        set_mark(right.fd, 5).expect("SO_RCVLOWAT");
        right.see("poll", caller.join());
        right.poll(ALL);
        // None is one.
        let result = set_mark(right.fd, 0);
        right.see("SO_RCVLOWAT", result);
        let mark = call::get(right.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT);
        right.see("is", mark);
        right.recv(4, 0);
        right.poll(ALL);
        right.recv(4, 0);
        right.poll(ALL);
        right.meet();
    };
}
