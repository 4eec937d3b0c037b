// SPDX-License-Identifier: GPL-2.0

//! The pattern that fills a connection, and is checked at the other end.

use std::{os::fd::RawFd, thread, time::Duration};

use nix::errno::Errno;

use crate::{call, end::End};

/// Bytes of each call.
const PIECE: usize = 16 << 10;

/// More than a connection holds whose other end reads nothing.
pub(crate) const MUCH: usize = 8 << 20;

/// Bytes of each part that calls try to send through a full connection, and how often.
pub(crate) const PART: usize = 1000;
const TRIES_MAX: u32 = 1000;

/// Time between two looks whether a full connection is still full, and how often it must be. TCP may
/// find some more room later, such as when it probes a window that is closed.
const FULL_PERIOD: Duration = Duration::from_millis(50);
const FULL_LOOKS: u32 = 8;

/// Sends until nothing more can be sent, and that stays so; returns how much it was. The stream so far
/// is `at` bytes long.
pub(crate) fn fill(fd: RawFd, at: usize) -> usize {
    let (mut sent, mut looks) = (0, 0);
    while looks < FULL_LOOKS {
        let piece = call::pattern(at + sent, PIECE);
        match call::send(fd, &piece, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) {
            Ok(count) => (sent, looks) = (sent + count, 0),
            Err(Errno::EAGAIN) => {
                looks += 1;
                thread::sleep(FULL_PERIOD);
            }
            Err(errno) => panic!("send: {errno}"),
        }
    }
    sent
}

/// Has `send` send parts of the stream until it fails, on a connection that is full, or soon is;
/// returns the error, and
/// moves `at` by what was sent.
pub(crate) fn send_until_error(
    at: &mut usize,
    mut send: impl FnMut(Vec<u8>) -> Result<usize, Errno>,
) -> Errno {
    for _ in 0..TRIES_MAX {
        match send(call::pattern(*at, PART)) {
            Ok(count) => *at += count,
            Err(errno) => return errno,
        }
    }
    panic!("there always is room");
}

/// Sends so many bytes.
pub(crate) fn send(fd: RawFd, at: usize, count: usize) {
    for done in (0..count).step_by(PIECE) {
        call::send_all(fd, &call::pattern(at + done, PIECE.min(count - done)));
    }
}

/// Receives so many bytes; returns how many are as they were sent, until the first that is not or
/// until there are no more.
pub(crate) fn receive(fd: RawFd, at: usize, count: usize) -> usize {
    let mut good = 0;
    while good < count {
        match call::recv(fd, PIECE.min(count - good), 0) {
            Ok(part) if !part.is_empty() && part == call::pattern(at + good, part.len()) => {
                good += part.len();
            }
            _ => break,
        }
    }
    good
}

/// Receives as many bytes as the other end tells; notes whether all are as they were sent. Returns how
/// many there were.
pub(crate) fn receive_told(end: &mut End, at: usize) -> usize {
    let count = end.ask().parse().expect("a number");
    let good = receive(end.fd, at, count);
    end.see("all that was counted comes", good == count);
    count
}
