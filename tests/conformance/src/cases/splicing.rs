// SPDX-License-Identifier: GPL-2.0

//! splice, tee, vmsplice, and sendfile.

use std::ptr;

use nix::errno::Errno;

use super::calls::unbroken;
use crate::{
    call,
    case::cases,
    splice,
    thread::Caller, //
};

/// Bytes that go through a pipe and back.
const ECHOED: usize = 1 << 20;

/// More than a pipe holds.
const MUCH: usize = 1 << 18;

cases! {
    /// From a socket into a pipe, in parts.
    splice_from: |left| {
        left.send(b"0123456789", 0);
        left.meet();
    }, |right| {
        let [from, to] = call::pipe().expect("pipe");
        right.arrived(10);
        right.see("none", splice::splice(right.fd, to, 0, 0));
        right.see("part", splice::splice(right.fd, to, 4, 0));
        right.unread();
        right.see("pipe", call::read(from, 100));
        right.see("peek", call::recv(right.fd, 2, libc::MSG_PEEK));
        right.see("rest", splice::splice(right.fd, to, 100, libc::SPLICE_F_MOVE));
        right.see("pipe", call::read(from, 100));
        right.unread();
        right.meet();
    };

    /// Nothing is there: who must not wait does not, and SPLICE_F_NONBLOCK speaks of the pipe only.
    splice_from_empty: |left| {
        left.meet();
        left.send(b"abc", 0);
        left.meet();
    }, |right| {
        let (fd, [from, to]) = (right.fd, call::pipe().expect("pipe"));
        call::set_nonblocking(fd, true).expect("fcntl");
        right.see("nonblocking", splice::splice(fd, to, 10, 0));
        right.see("nonblocking", splice::splice(fd, to, 10, libc::SPLICE_F_NONBLOCK));
        call::set_nonblocking(fd, false).expect("fcntl");
        let caller = Caller::start(move || splice::splice(fd, to, 10, libc::SPLICE_F_NONBLOCK));
        right.see("sleeps", caller.falls_asleep());
        right.meet();
        right.see("splice", caller.join());
        right.see("pipe", call::read(from, 100));
        right.meet();
    };

    /// splice waits for bytes, and for the end.
    splice_from_waits: |left| {
        left.meet();
        left.send(b"abc", 0);
        left.meet();
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let (fd, [from, to]) = (right.fd, call::pipe().expect("pipe"));
        for _ in 0..2 {
            let caller = Caller::asleep(move || splice::splice(fd, to, 10, 0));
            right.meet();
            right.see("splice", caller.join());
        }
        right.see("pipe", call::read(from, 100));
        right.see("at the end", splice::splice(fd, to, 10, libc::SPLICE_F_NONBLOCK));
        right.meet();
    };

    /// A pipe that is full.
    splice_to_full_pipe: |left| {
        left.send(b"abc", 0);
        left.meet();
    }, |right| {
        let (fd, [from, to]) = (right.fd, call::pipe().expect("pipe"));
        right.arrived(3);
        call::set_nonblocking(to, true).expect("fcntl");
        while call::write(to, &[0; 4096]).is_ok() {}
        right.see("full", splice::splice(fd, to, 10, 0));
        call::set_nonblocking(to, false).expect("fcntl");
        right.see("full", splice::splice(fd, to, 10, libc::SPLICE_F_NONBLOCK));
        right.unread();
        while call::read(from, 4096).is_ok_and(|part| part.len() == 4096)
            && call::ioctl(from, libc::FIONREAD) != Ok(0) {}
        right.see("empty", splice::splice(fd, to, 10, libc::SPLICE_F_NONBLOCK));
        right.see("pipe", call::read(from, 10));
        right.meet();
    };

    /// From a pipe into a socket.
    splice_to: |left| {
        let [from, to] = call::pipe().expect("pipe");
        left.see("write", call::write(to, b"0123456789"));
        left.see("none", splice::splice(from, left.fd, 0, 0));
        left.see("part", splice::splice(from, left.fd, 4, libc::SPLICE_F_MORE));
        left.see("rest", splice::splice(from, left.fd, 100, 0));
        left.see("empty", splice::splice(from, left.fd, 100, libc::SPLICE_F_NONBLOCK));
        left.see("close", call::close(to));
        left.see("ended", splice::splice(from, left.fd, 100, 0));
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.drain(100);
        right.meet();
    };

    /// The copy that tee makes is sent on as well.
    tee: |left| {
        left.send(b"0123456789", 0);
        left.recv(10, libc::MSG_WAITALL);
        left.meet();
    }, |right| {
        let [from, to] = call::pipe().expect("pipe");
        let [copy_from, copy_to] = call::pipe().expect("pipe");
        right.arrived(10);
        right.see("splice", splice::splice(right.fd, to, 10, 0));
        right.see("tee", splice::tee(from, copy_to, 100, 0));
        right.see("back", splice::splice(copy_from, right.fd, 100, 0));
        right.see("pipe", call::read(from, 100));
        right.see("tee from a socket", splice::tee(right.fd, copy_to, 100, 0));
        right.meet();
    };

    /// Pages of the application itself.
    vmsplice: |left| {
        let bytes = call::pattern(0, 20_000).leak();
        let [from, to] = call::pipe().expect("pipe");
        left.see("vmsplice", splice::vmsplice(to, bytes));
        left.see("splice", splice::splice(from, left.fd, 20_000, 0));
        left.see("vmsplice to a socket", splice::vmsplice(left.fd, bytes));
        left.meet();
    }, |right| {
        right.drain(20_000);
        right.meet();
    };

    /// Where splice makes no sense.
    splice_refused: |left| {
        let (fd, [from, to]) = (left.fd, call::pipe().expect("pipe"));
        let mut at = 0;
        left.see("two sockets", splice::splice(fd, fd, 10, 0));
        left.see("from the wrong end", splice::splice(to, fd, 10, 0));
        left.see("to the wrong end", splice::splice(fd, from, 10, 0));
        left.see("unknown flags", splice::splice(from, fd, 10, 0x100));
        // SAFETY: The position is valid for writes.
        let result = unsafe { libc::splice(fd, &mut at, to, ptr::null_mut(), 10, 0) };
        left.see("from a position", call::check(result));
        // SAFETY: As above.
        let result = unsafe { libc::splice(from, ptr::null_mut(), fd, &mut at, 10, 0) };
        left.see("to a position", call::check(result));
        let file = splice::file(b"abc");
        left.see("from a file", splice::splice(file, fd, 10, 0));
        left.see("sendfile to a file", splice::sendfile(file, fd, None, 10));
        left.see("sendfile at a position", splice::sendfile(to, fd, Some(&mut at), 10));
        // SAFETY: Null pointers say that there are no positions.
        let result = unsafe {
            libc::copy_file_range(file, ptr::null_mut(), fd, ptr::null_mut(), 3, 0)
        };
        left.see("copy_file_range", call::check(result));
        unbroken(left);
    }, |right| {
        unbroken(right);
    };

    /// All goes through a pipe, and back.
    echo_by_splice: |left| {
        let fd = left.fd;
        let sender = Caller::start(move || call::send(fd, &call::pattern(0, ECHOED), 0));
        left.drain(ECHOED);
        left.see("send", sender.join());
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let (fd, [from, to]) = (right.fd, call::pipe().expect("pipe"));
        let result = (|| -> Result<usize, Errno> {
            let mut total = 0;
            loop {
                let mut count = splice::splice(fd, to, 1 << 16, 0)?;
                if count == 0 {
                    return Ok(total);
                }
                total += count;
                while count > 0 {
                    count -= splice::splice(from, fd, count, libc::SPLICE_F_MORE)?;
                }
            }
        })();
        right.see("echoed", result);
        right.meet();
    };

    /// sendfile from the file's position, from one of its own, and of more than there is.
    sendfile: |left| {
        let file = splice::file(b"0123456789");
        let mut at = 7;
        left.see("none", splice::sendfile(left.fd, file, None, 0));
        left.see("part", splice::sendfile(left.fd, file, None, 4));
        left.see("at 7", splice::sendfile(left.fd, file, Some(&mut at), 2));
        left.see("then at", at);
        left.see("the rest and more", splice::sendfile(left.fd, file, None, 100));
        left.see("at the end", splice::sendfile(left.fd, file, None, 100));
        at = 100;
        left.see("behind it", splice::sendfile(left.fd, file, Some(&mut at), 100));
        at = -1;
        left.see("before it", splice::sendfile(left.fd, file, Some(&mut at), 100));
        left.shutdown(libc::SHUT_WR);
        left.see("after the end", {
            // SAFETY: No handler is set.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
            splice::sendfile(left.fd, file, Some(&mut 0), 5)
        });
        left.meet();
    }, |right| {
        right.drain(100);
        right.meet();
    };

    /// A large file, whose bytes change when they have arrived.
    sendfile_large: |left| {
        let file = splice::file(&call::pattern(0, MUCH));
        left.see("sendfile", splice::sendfile(left.fd, file, Some(&mut 0), MUCH));
        left.meet();
        // SAFETY: The bytes are valid for reads.
        let result = call::check(unsafe { libc::pwrite(file, b"new".as_ptr().cast(), 3, 5) });
        left.see("write", result);
        left.see("sendfile", splice::sendfile(left.fd, file, Some(&mut 0), MUCH));
        left.meet();
    }, |right| {
        right.drain(MUCH);
        right.meet();
        right.drain(MUCH);
        right.meet();
    };

    /// sendfile that must not wait: it goes on where it stopped.
    sendfile_nonblocking: |left| {
        let (file, len) = (splice::file(&call::pattern(0, 1 << 20)), 4 << 20);
        call::set_nonblocking(left.fd, true).expect("fcntl");
        let mut sent = 0usize;
        while sent < len {
            let mut at = (sent % (1 << 20)) as i64;
            match splice::sendfile(left.fd, file, Some(&mut at), len - sent) {
                Ok(count) => {
                    assert_eq!(at as usize, sent % (1 << 20) + count, "the position");
                    sent += count;
                }
                Err(Errno::EAGAIN) => drop(left.polled(libc::EPOLLOUT)),
                Err(errno) => panic!("sendfile: {errno}"),
            }
        }
        left.meet();
    }, |right| {
        right.drain(4 << 20);
        right.meet();
    };

    /// sendfile can also read from a socket, if it writes to a pipe.
    sendfile_from: |left| {
        left.send(b"0123456789", 0);
        left.meet();
    }, |right| {
        let [from, to] = call::pipe().expect("pipe");
        right.arrived(10);
        right.see("sendfile", splice::sendfile(to, right.fd, None, 4));
        right.unread();
        right.recv(10, 0);
        right.see("close", call::close(to));
        right.see("pipe", call::read(from, 10));
        right.meet();
    };
}
