// SPDX-License-Identifier: GPL-2.0

//! The end of a connection by reset: who sees which error, and what of the data there is left.

use super::{ALL, RDHUP, broken, error};
use crate::{call, case::cases, child::Child, end::End, sigpipe, tcp_info, thread::Caller};

cases! {
    /// close(2) with data that nobody read resets; the other end still reads what came before.
    close_with_unread: |left| {
        left.send(b"0123456789", 0);
        left.arrived(5);
        left.meet();
        left.close();
        left.meet();
    }, |right| {
        right.send(b"never", 0);
        right.arrived(10);
        right.meet();
        broken(right);
        right.poll(ALL);
        right.unread();
        right.recv(4, 0);
        right.recv(4, libc::MSG_PEEK);
        right.recv(100, 0);
        after_reset(right);
        right.meet();
    };

    /// close(2) after a part was read.
    close_with_part_unread: |left| {
        left.arrived(10);
        left.recv(4, 0);
        left.close();
        left.meet();
    }, |right| {
        right.send(b"0123456789", 0);
        broken(right);
        after_reset(right);
        right.meet();
    };

    /// Without anything unread, the first send after the other end's close still succeeds.
    send_to_closed: |left| {
        left.close();
        left.meet();
    }, |right| {
        sigpipe::count();
        right.polled(RDHUP);
        right.poll(ALL);
        right.recv(100, 0);
        right.send(b"x", 0);
        broken(right);
        right.poll(ALL);
        for flags in [0, libc::MSG_NOSIGNAL, 0] {
            right.send(b"y", flags);
            right.see("signals", sigpipe::seen());
        }
        right.recv(100, 0);
        error(right);
        right.poll(ALL);
        right.meet();
    };

    /// What was received before one's own send broke the connection is still there.
    send_to_closed_with_unread: |left| {
        left.send(b"0123456789", 0);
        left.close();
        left.meet();
    }, |right| {
        right.arrived(10);
        right.polled(RDHUP);
        right.send(b"x", 0);
        broken(right);
        right.unread();
        right.recv(4, 0);
        right.recv(100, 0);
        right.recv(100, 0);
        error(right);
        right.send(b"y", libc::MSG_NOSIGNAL);
        right.meet();
    };

    /// SO_LINGER of no time resets.
    linger_of_no_time: |left| {
        left.send(b"0123456789", 0);
        left.meet();
        reset_on_close(left);
        left.close();
        left.meet();
    }, |right| {
        right.arrived(10);
        right.meet();
        broken(right);
        right.poll(ALL);
        right.recv(100, 0);
        after_reset(right);
        right.meet();
    };

    /// Reading SO_ERROR takes the error away: there is the end of the stream, and no error any more.
    error_is_told_once: |left| {
        left.send(b"0123456789", 0);
        left.meet();
        reset_on_close(left);
        left.close();
        left.meet();
    }, |right| {
        sigpipe::count();
        right.arrived(10);
        right.meet();
        broken(right);
        error(right);
        error(right);
        right.poll(ALL);
        right.recv(100, 0);
        right.recv(100, 0);
        right.send(b"y", 0);
        right.see("signals", sigpipe::seen());
        error(right);
        right.meet();
    };

    /// The one who sends learns of the reset first: the error, then EPIPE and a signal.
    send_after_reset: |left| {
        reset_on_close(left);
        left.close();
        left.meet();
    }, |right| {
        sigpipe::count();
        broken(right);
        for _ in 0..3 {
            right.send(b"y", 0);
            right.see("signals", sigpipe::seen());
        }
        right.recv(100, 0);
        right.poll(ALL);
        right.meet();
    };

    /// Calls of a socket that was reset.
    calls_after_reset: |left| {
        reset_on_close(left);
        left.close();
        left.meet();
    }, |right| {
        broken(right);
        right.see("state", tcp_info::state(right.fd));
        right.see("has peer", call::remote(right.fd).map(drop));
        for how in [libc::SHUT_RD, libc::SHUT_WR, libc::SHUT_RDWR] {
            right.shutdown(how);
        }
        right.unread();
        right.recv(0, 0);
        right.recv(100, libc::MSG_PEEK);
        right.recv(100, libc::MSG_PEEK);
        right.send(b"", 0);
        let nodelay = call::set(right.fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        right.see("nodelay", nodelay);
        right.see("read", call::read(right.fd, 10));
        right.see("write", call::write(right.fd, b"x"));
        right.close();
        right.meet();
    };

    /// A reset in a direction that had ended already.
    reset_after_fin: |left| {
        left.send(b"0123456789", 0);
        left.shutdown(libc::SHUT_WR);
        left.meet();
        reset_on_close(left);
        left.close();
        left.meet();
    }, |right| {
        right.polled(RDHUP);
        right.recv(4, 0);
        right.meet();
        broken(right);
        right.poll(ALL);
        right.recv(100, 0);
        right.recv(100, 0);
        right.send(b"x", libc::MSG_NOSIGNAL);
        error(right);
        right.meet();
    };

    /// A reset of an end that has shut down its own direction.
    reset_after_own_fin: |left| {
        left.polled(RDHUP);
        left.recv(100, 0);
        reset_on_close(left);
        left.close();
        left.meet();
    }, |right| {
        right.shutdown(libc::SHUT_WR);
        broken(right);
        after_reset(right);
        right.meet();
    };

    /// A reader, a poller and a writer sleep when the reset comes.
    reset_wakes_reader: |left| {
        left.meet();
        reset_on_close(left);
        left.close();
        left.meet();
    }, |right| {
        let fd = right.fd;
        let reader = Caller::asleep(move || call::recv(fd, 100, 0));
        right.meet();
        right.see("recv", reader.join());
        broken_but_told(right);
        right.meet();
    };

    /// A writer that sleeps is told how much it has sent, then the error.
    reset_wakes_writer: |left| {
        left.meet();
        reset_on_close(left);
        left.close();
        left.meet();
    }, |right| {
        let fd = right.fd;
        let bytes = vec![7; 32 << 20];
        let writer = Caller::asleep(move || call::send(fd, &bytes, 0));
        right.meet();
        let sent = writer.join();
        right.see("some bytes", sent.map(|count| count > 0 && count < 32 << 20));
        right.send(b"x", libc::MSG_NOSIGNAL);
        right.send(b"x", libc::MSG_NOSIGNAL);
        right.recv(100, 0);
        right.meet();
    };

    /// A poller that waits for nothing is told of the reset.
    reset_wakes_poller: |left| {
        left.meet();
        reset_on_close(left);
        left.close();
        left.meet();
    }, |right| {
        let fd = right.fd;
        let poller = Caller::asleep(move || call::poll(fd, 0, -1).map(|seen| seen.0 != 0));
        right.meet();
        right.see("woken", poller.join());
        broken(right);
        after_reset(right);
        right.meet();
    };

    /// A process is killed that had not read all.
    kill_with_unread: |left| {
        let fd = left.fd;
        left.arrived(10);
        let mut child = Child::start(|report| {
            call::send_all(fd, b"last words");
            report.say("sent");
            loop {
                // SAFETY: No memory is passed.
                unsafe { libc::pause() };
            }
        });
        left.close();
        child.hear(4);
        left.meet();
        child.kill();
        left.meet();
    }, |right| {
        right.send(b"0123456789", 0);
        right.arrived(10);
        right.meet();
        broken(right);
        right.recv(100, 0);
        after_reset(right);
        right.meet();
    };

    /// Data meets an end that is closed while more of it is on its way: the writer is stopped.
    close_in_stream: |left| {
        left.arrived(1);
        left.recv(1, 0);
        left.close();
        left.meet();
    }, |right| {
        let errno = loop {
            if let Err(errno) = call::send(right.fd, &[7; 1 << 16], libc::MSG_NOSIGNAL) {
                break errno;
            }
        };
        // It depends on whether there was unread data when it was closed.
        let known = [nix::errno::Errno::ECONNRESET, nix::errno::Errno::EPIPE];
        right.see("stopped", known.contains(&errno));
        right.send(b"x", libc::MSG_NOSIGNAL);
        right.recv(100, 0);
        right.meet();
    };

    /// Both ends reset.
    both_reset: |left| {
        left.meet();
        reset_on_close(left);
        left.close();
        left.meet();
    }, |right| {
        right.meet();
        reset_on_close(right);
        right.close();
        right.meet();
    };
}

/// Makes close(2) reset.
fn reset_on_close(end: &mut End) {
    let result = call::linger(end.fd, 0);
    end.see("linger", result);
}

/// What there is when all data has been read.
fn after_reset(end: &mut End) {
    end.recv(100, 0);
    broken_but_told(end);
}

/// What there is when the error has been told.
fn broken_but_told(end: &mut End) {
    end.recv(100, 0);
    end.recv(100, libc::MSG_PEEK);
    error(end);
    end.send(b"x", libc::MSG_NOSIGNAL);
    end.poll(ALL);
    end.see("state", tcp_info::state(end.fd));
}
