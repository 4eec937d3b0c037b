// SPDX-License-Identifier: GPL-2.0

//! One socket in several descriptors and processes.

use nix::errno::Errno;

use super::RDHUP;
use crate::{
    call,
    case::cases,
    child::Child,
    end::End,
    inherited,
    log::Observed,
    passing,
    thread::Caller, //
};

cases! {
    /// Two descriptors of one socket; it is closed with the last one.
    dup: |left| {
        let other = call::duplicate(left.fd);
        left.send(b"one ", 0);
        left.see("send by dup", call::send(other, b"two ", 0));
        left.close();
        left.fd = other;
        left.send(b"three", 0);
        left.recv(100, 0);
        left.meet();
        left.close();
        left.meet();
    }, |right| {
        right.recv(13, libc::MSG_WAITALL);
        right.send(b"still", 0);
        right.meet();
        right.recv(100, 0);
        right.meet();
    };

    /// dup2 over the socket's descriptor closes it.
    dup2_over: |left| {
        let [from, to] = call::pipe().expect("pipe");
        left.send(b"farewell", 0);
        // SAFETY: No memory is passed, and the descriptor is this case's.
        let result = Errno::result(unsafe { libc::dup2(to, left.fd) });
        let fd = left.fd;
        left.see("dup2", result.map(|new| new == fd));
        left.see("write", call::write(left.fd, b"into the pipe"));
        left.see("read", call::read(from, 100));
        left.send(b"not a socket", 0);
        left.meet();
    }, |right| {
        right.recv(100, libc::MSG_WAITALL);
        right.recv(100, 0);
        right.meet();
    };

    /// dup2 over the descriptor while a thread sleeps in recv: the call keeps the socket until it ends.
    dup2_under_a_reader: |left| {
        let [_, to] = call::pipe().expect("pipe");
        let fd = left.fd;
        let reader = Caller::asleep(move || call::recv(fd, 100, 0));
        // SAFETY: No memory is passed, and the descriptor is this case's.
        unsafe { libc::dup2(to, fd) };
        left.meet();
        left.see("recv", reader.join());
        left.meet();
    }, |right| {
        right.meet();
        right.send(b"for the sleeper", 0);
        right.recv(100, 0);
        right.meet();
    };

    /// A descriptor of another number.
    dup_to_a_number: |left| {
        for (name, command) in [("DUPFD", libc::F_DUPFD), ("CLOEXEC", libc::F_DUPFD_CLOEXEC)] {
            // SAFETY: No memory is passed.
            let result = Errno::result(unsafe { libc::fcntl(left.fd, command, 200) });
            left.see(name, result);
            let fd = result.expect("a descriptor");
            // SAFETY: No memory is passed.
            left.see("flags", Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) }));
            left.see("send", call::send(fd, b"x", 0));
            left.see("recv", call::recv(fd, 1, 0));
        }
        left.meet();
    }, |right| {
        for _ in 0..2 {
            right.recv(1, 0);
            right.send(b"y", 0);
        }
        right.meet();
    };

    /// O_NONBLOCK belongs to the socket, not to the descriptor.
    nonblocking_by_dup: |left| {
        let other = call::duplicate(left.fd);
        call::set_nonblocking(other, true).expect("fcntl");
        left.recv(100, 0);
        call::set_nonblocking(left.fd, false).expect("fcntl");
        left.meet();
        left.see("recv by dup", call::recv(other, 100, 0));
        left.meet();
    }, |right| {
        right.meet();
        right.pause();
        right.send(b"late", 0);
        right.meet();
    };

    /// A child reads some, its parent the rest.
    child_reads_some: |left| {
        let fd = left.fd;
        left.arrived(10);
        let child = Child::start(|_| call::recv(fd, 4, 0).text());
        left.see("child", child.join());
        left.recv(100, 0);
        let child = Child::start(|_| call::recv(fd, 5, libc::MSG_WAITALL).text());
        left.meet();
        left.see("child", child.join());
        left.recv(5, libc::MSG_WAITALL);
        left.meet();
    }, |right| {
        right.send(b"0123456789", 0);
        right.meet();
        right.send(b"abcdefghij", 0);
        right.meet();
    };

    /// Child and parent write by turns.
    child_writes_too: |left| {
        let fd = left.fd;
        for round in 0..4 {
            let child = Child::start(|_| call::send(fd, format!("child {round} ").as_bytes(), 0).text());
            left.see("child", child.join());
            left.send(format!("parent {round} ").as_bytes(), 0);
        }
        left.recv(100, 0);
        left.meet();
    }, |right| {
        right.recv(4 * (8 + 9), libc::MSG_WAITALL);
        right.send(b"thanks", 0);
        right.meet();
    };

    /// Child and parent write at once: every message of either is whole, as each is one call.
    writers_at_once: |left| {
        let fd = left.fd;
        let child = Child::start(|_| {
            (0..60).for_each(|_| call::send_all(fd, &[b'c'; 64]));
            String::new()
        });
        (0..60).for_each(|_| call::send_all(fd, &[b'p'; 64]));
        left.see("child", child.join());
        left.meet();
    }, |right| {
        let mut all = vec![0; 2 * 60 * 64];
        call::receive_all(right.fd, &mut all);
        let is_whole = all.chunks(64).all(|part| part.iter().all(|byte| *byte == part[0]));
        right.see("whole", is_whole);
        right.see("of the child", all.iter().filter(|byte| **byte == b'c').count());
        right.meet();
    };

    /// One process reads while another writes, a stream in each direction.
    reader_and_writer: |left| {
        both_directions(left);
    }, |right| {
        both_directions(right);
    };

    /// One process closes; the other goes on, and its close is the end.
    parent_closes: |left| {
        let fd = left.fd;
        let child = Child::start(|_| {
            let received = call::recv(fd, 100, 0).text();
            let sent = call::send(fd, b"from the child", 0).text();
            format!("{received}, {sent}")
        });
        left.close();
        left.meet();
        left.see("child", child.join());
        left.meet();
    }, |right| {
        right.meet();
        right.send(b"anyone?", 0);
        right.recv(14, libc::MSG_WAITALL);
        right.recv(100, 0);
        right.meet();
    };

    /// A child's exit leaves its parent's socket alone; a child's shutdown does not.
    child_ends: |left| {
        let fd = left.fd;
        left.see("child", Child::start(|_| call::close(fd).text()).join());
        left.see("child", Child::start(|_| String::new()).join());
        left.send(b"still", 0);
        left.recv(100, 0);
        let child = Child::start(|_| call::shutdown(fd, libc::SHUT_WR).text());
        left.see("child", child.join());
        left.send(b"late", libc::MSG_NOSIGNAL);
        left.recv(100, 0);
        left.meet();
    }, |right| {
        right.recv(100, 0);
        right.send(b"there", 0);
        right.polled(RDHUP);
        right.recv(100, 0);
        right.send(b"thanks", 0);
        right.meet();
    };

    /// A grandchild has it when child and parent are gone from it.
    grandchild: |left| {
        let fd = left.fd;
        let child = Child::start(|_| {
            let grandchild = Child::start(|_| {
                let received = call::recv(fd, 100, 0).text();
                format!("{received}, {}", call::send(fd, b"from afar", 0).text())
            });
            format!("{}, {}", call::close(fd).text(), grandchild.join())
        });
        left.close();
        left.meet();
        left.see("family", child.join());
        left.meet();
    }, |right| {
        right.meet();
        right.send(b"anyone?", 0);
        right.recv(9, libc::MSG_WAITALL);
        right.recv(100, 0);
        right.meet();
    };

    /// A new program goes on with the socket.
    exec: |left| {
        let fd = left.fd;
        let child = Child::start(|report| inherited::exec(fd, report.fd()).err().text());
        left.see("program", child.join());
        left.send(b" and its parent", 0);
        left.meet();
    }, |right| {
        right.recv(20, libc::MSG_WAITALL);
        right.send(b"hello", 0);
        right.recv(15, libc::MSG_WAITALL);
        right.meet();
    };

    /// A descriptor that is closed at exec.
    exec_with_cloexec: |left| {
        let fd = left.fd;
        let child = Child::start(|report| {
            // SAFETY: No memory is passed.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
            inherited::exec(fd, report.fd()).err().text()
        });
        left.see("program", child.join());
        left.send(b"still", 0);
        left.meet();
    }, |right| {
        right.recv(100, 0);
        right.meet();
    };

    /// Another process gets the socket by SCM_RIGHTS, and uses it there alone.
    passed_to_child: |left| {
        let [here, there] = passing::pair();
        let fd = left.fd;
        let child = Child::start(|_| {
            // It came by fork, too; only what is received counts.
            call::close(fd).expect("close");
            let fd = passing::take(there).expect("a descriptor");
            let sent = call::send(fd, b"from the child", 0).text();
            format!("{sent}, {}", call::recv(fd, 100, 0).text())
        });
        left.see("give", passing::give(here, left.fd));
        left.close();
        left.see("child", child.join());
        left.meet();
    }, |right| {
        right.recv(14, libc::MSG_WAITALL);
        right.send(b"hello", 0);
        right.recv(100, 0);
        right.meet();
    };

    /// While the socket is nowhere but in a UNIX socket's queue, data arrives all the same.
    passed_in_flight: |left| {
        let [here, there] = passing::pair();
        left.send(b"before", 0);
        left.see("give", passing::give(here, left.fd));
        left.close();
        left.meet();
        left.meet();
        left.fd = passing::take(there).expect("a descriptor");
        left.recv(6, libc::MSG_WAITALL);
        left.send(b"after", 0);
        left.recv(100, 0);
        left.meet();
    }, |right| {
        right.recv(6, libc::MSG_WAITALL);
        right.meet();
        right.send(b"during", 0);
        right.meet();
        right.recv(100, 0);
        right.send(b"thanks", 0);
        right.meet();
    };

    /// A socket that is passed on and never taken is closed with the queue.
    passed_and_lost: |left| {
        let [here, there] = passing::pair();
        left.see("give", passing::give(here, left.fd));
        left.close();
        left.meet();
        left.see("close", call::close(here));
        left.see("close", call::close(there));
        left.meet();
    }, |right| {
        right.meet();
        right.recv(100, 0);
        right.meet();
    };

    /// A process takes the socket out of another one, by pidfd_getfd.
    fetched_from_child: |left| {
        let [from, to] = call::pipe().expect("pipe");
        let mut child = Child::start(|report| {
            report.say("ready");
            call::read(from, 1).text()
        });
        let number = left.fd;
        left.close();
        child.hear(5);
        let fetched = passing::fetch(child.id(), number);
        left.see("fetch", fetched.map(drop));
        left.fd = fetched.expect("a descriptor");
        call::write(to, b"!").expect("write");
        left.see("child", child.join());
        left.send(b"fetched", 0);
        left.recv(100, 0);
        left.close();
        left.meet();
    }, |right| {
        right.recv(7, libc::MSG_WAITALL);
        right.send(b"hello", 0);
        right.recv(100, 0);
        right.meet();
    };
}

/// A child writes a stream, its parent reads the other end's.
fn both_directions(end: &mut End) {
    const SIZE: usize = 1 << 20;
    let fd = end.fd;
    let child = Child::start(|_| {
        (0..16).for_each(|at| call::send_all(fd, &call::pattern(at * (SIZE / 16), SIZE / 16)));
        String::new()
    });
    end.drain(SIZE);
    end.see("child", child.join());
    end.meet();
}
