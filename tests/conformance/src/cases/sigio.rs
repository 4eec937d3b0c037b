// SPDX-License-Identifier: GPL-2.0

//! Signals that tell what happens to a socket: SIGIO, the one of F_SETSIG, and SIGURG.

use std::{os::fd::RawFd, time::Duration};

use nix::errno::Errno;

use crate::{
    case::cases,
    end::End,
    log::Events,
    signal,
    stream, //
};

const IN: i32 = libc::POLLIN as i32;
const OUT: i32 = libc::POLLOUT as i32;

/// Time in which a signal has come that must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Not in libc: the command that chooses the signal, as asm-generic/fcntl.h has it.
const F_SETSIG: i32 = 10;

/// fcntl(2) with a number.
fn control(fd: RawFd, command: i32, value: i32) -> Result<(), Errno> {
    // SAFETY: No memory is passed.
    Errno::result(unsafe { libc::fcntl(fd, command, value) }).map(drop)
}

/// Has a signal sent to this process for what happens to the socket, and blocked; 0 stands for SIGIO
/// without more to it.
fn ask_for_signal(end: &mut End, number: i32) {
    signal::block(if number == 0 { libc::SIGIO } else { number });
    // SAFETY: No memory is passed.
    let result = control(end.fd, libc::F_SETOWN, unsafe { libc::getpid() });
    end.see("F_SETOWN", result);
    if number != 0 {
        let result = control(end.fd, F_SETSIG, number);
        end.see("F_SETSIG", result);
    }
    let result = control(end.fd, libc::F_SETFL, libc::O_ASYNC);
    end.see("O_ASYNC", result);
}

/// Waits for a signal; notes what it says of the descriptor.
fn signalled(end: &mut End, number: i32, what: &str) {
    let Some(info) = signal::wait(number, PATIENCE) else {
        return end.see(what, "no signal");
    };
    let names = [
        (1, "POLL_IN"),
        (2, "POLL_OUT"),
        (3, "POLL_MSG"),
        (4, "POLL_ERR"),
        (5, "POLL_PRI"),
        (6, "POLL_HUP"),
    ];
    let name = names
        .iter()
        .find(|(code, _)| *code == info.code)
        .map_or("other", |(_, name)| name);
    end.see(what, name);
    end.see("of that descriptor", info.fd == end.fd);
    end.see("events", Events(info.band as u32));
}

cases! {
    /// SIGIO tells of data, and of the end.
    data_and_end: |left| {
        left.meet();
        left.send(b"abc", 0);
        left.meet();
        left.send(b"def", 0);
        left.meet();
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        ask_for_signal(right, 0);
        for what in ["data", "more", "end"] {
            right.meet();
            let came = signal::wait(libc::SIGIO, PATIENCE).is_some();
            right.see(what, came);
            right.polled(IN);
            right.recv(100, 0);
            signal::forget(libc::SIGIO);
        }
        right.pause();
        let came = signal::wait(libc::SIGIO, Duration::ZERO).is_some();
        right.see("nothing", came);
        right.meet();
    };

    /// Data that nobody reads is told of again when more comes.
    data_on_top: |left| {
        left.meet();
        left.send(b"abc", 0);
        left.meet();
        left.send(b"def", 0);
        left.meet();
    }, |right| {
        ask_for_signal(right, 0);
        for bytes in [3, 6] {
            right.meet();
            let came = signal::wait(libc::SIGIO, PATIENCE).is_some();
            right.see("data", came);
            right.arrived(bytes);
        }
        right.recv(100, 0);
        right.meet();
    };

    /// The signal of F_SETSIG says which descriptor it is about, and what of it.
    with_information: |left| {
        left.meet();
        left.send(b"abc", 0);
        left.meet();
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let number = libc::SIGRTMIN() + 1;
        ask_for_signal(right, number);
        right.meet();
        signalled(right, number, "data");
        right.recv(100, 0);
        signal::forget(number);
        right.meet();
        signalled(right, number, "end");
        right.recv(100, 0);
        right.meet();
    };

    /// Both have ended.
    both_end: |left| {
        left.recv(10, 0);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let number = libc::SIGRTMIN() + 1;
        ask_for_signal(right, number);
        right.shutdown(libc::SHUT_WR);
        signalled(right, number, "end");
        right.recv(100, 0);
        right.meet();
    };

    /// There is room again.
    room: |left| {
        let number = libc::SIGRTMIN() + 1;
        ask_for_signal(left, number);
        let count = stream::fill(left.fd, 0);
        signal::forget(number);
        left.tell(count);
        signalled(left, number, "room");
        left.polled(OUT);
        left.meet();
    }, |right| {
        stream::receive_told(right, 0);
        right.meet();
    };

    /// SIGURG tells of urgent data, without O_ASYNC.
    urgent: |left| {
        left.meet();
        left.send(b"!", libc::MSG_OOB);
        left.meet();
    }, |right| {
        signal::block(libc::SIGURG);
        // SAFETY: No memory is passed.
        let result = control(right.fd, libc::F_SETOWN, unsafe { libc::getpid() });
        right.see("F_SETOWN", result);
        right.meet();
        let came = signal::wait(libc::SIGURG, PATIENCE).is_some();
        right.see("urgent", came);
        right.polled(libc::POLLPRI.into());
        right.recv(1, libc::MSG_OOB);
        right.meet();
    };

    /// No signal comes once O_ASYNC is taken back.
    taken_back: |left| {
        left.meet();
        left.send(b"abc", 0);
        left.meet();
    }, |right| {
        ask_for_signal(right, 0);
        let result = control(right.fd, libc::F_SETFL, 0);
        right.see("no O_ASYNC", result);
        right.meet();
        right.arrived(3);
        right.pause();
        let came = signal::wait(libc::SIGIO, Duration::ZERO).is_some();
        right.see("signal", came);
        right.recv(100, 0);
        right.meet();
    };
}
