// SPDX-License-Identifier: GPL-2.0

//! Processes that stop while they wait, and go on.

use std::os::fd::RawFd;

use nix::errno::Errno;

use crate::{
    call,
    case::cases,
    end::End,
    epoll::Epoll,
    log::Observed, //
};

const IN: i32 = libc::POLLIN as i32;

/// A call that waits for bytes, and what it returns.
type Wait = fn(RawFd) -> String;

/// Stops a process that waits in `wait`, has the other end send, and lets it go on; notes what the call
/// returned.
fn stop(end: &mut End, name: &str, wait: Wait) {
    let [from, to] = call::pipe().expect("pipe");
    // SAFETY: This process has one thread.
    let child = Errno::result(unsafe { libc::fork() }).expect("fork");
    if child == 0 {
        let text = wait(end.fd);
        let written = call::write(to, text.as_bytes());
        // SAFETY: No memory is passed.
        unsafe { libc::_exit(i32::from(written.is_err())) }
    }
    call::close(to).expect("close");
    let asleep = || {
        let text = std::fs::read_to_string(format!("/proc/{child}/syscall")).unwrap_or_default();
        text.starts_with(|first: char| first.is_ascii_digit())
    };
    end.until("the child waits", asleep);
    // It may have been seen asleep in another call before that one.
    end.pause();
    end.until("the child waits", asleep);
    let mut status = 0;
    // SAFETY: `status` is valid for writes.
    unsafe {
        libc::kill(child, libc::SIGSTOP);
        libc::waitpid(child, &mut status, libc::WUNTRACED);
    }
    end.see("stopped", libc::WIFSTOPPED(status));
    end.tell(1);
    end.arrived(5);
    // SAFETY: `status` is valid for writes.
    unsafe {
        libc::kill(child, libc::SIGCONT);
        libc::waitpid(child, &mut status, 0);
    }
    let text = call::read(from, 100).expect("read");
    end.see(name, String::from_utf8_lossy(&text).into_owned());
    end.see("status", status);
    call::close(from).expect("close");
    end.recv(100, libc::MSG_DONTWAIT);
}

cases! {
    /// A process stops while it waits, and goes on when there is something to read.
    waiting: |left| {
        for _ in 0..3 {
            left.ask();
            left.send(b"hello", 0);
        }
        left.meet();
    }, |right| {
        stop(right, "recv", |fd| call::recv(fd, 100, 0).text());
        stop(right, "poll", |fd| call::poll(fd, IN, -1).text());
        stop(right, "epoll_wait", |fd| Epoll::of(fd, IN).events(-1).text());
        right.meet();
    };

    /// A process stops while it waits with a timeout.
    waiting_with_timeout: |left| {
        left.ask();
        left.send(b"hello", 0);
        left.meet();
    }, |right| {
        let time = libc::timeval {
            tv_sec: 30,
            tv_usec: 0,
        };
        call::set(right.fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, time).expect("SO_RCVTIMEO");
        stop(right, "recv", |fd| call::recv(fd, 100, 0).text());
        right.meet();
    };
}
