// SPDX-License-Identifier: GPL-2.0

//! How a process leaves its socket, with data on its way: close, exit, death.

use super::{RDHUP, fill, stream};
use crate::{call, case::cases, child::Child, end::End, thread::Caller};

/// Bytes that are more than what buffers hold at first.
const MUCH: usize = 1 << 20;

cases! {
    /// close(2) does not take back what was sent.
    close_with_data_in_flight: |left| {
        left.send(&call::pattern(0, MUCH), 0);
        left.close();
        left.meet();
    }, |right| {
        stream(right, MUCH);
        right.meet();
    };

    /// close(2) while the reader's window is full.
    close_with_full_window: |left| {
        let sent = fill(left);
        left.close();
        left.tell(sent);
        left.meet();
    }, |right| {
        let sent: usize = right.ask().parse().expect("a number");
        stream(right, sent);
        right.meet();
    };

    /// A reader that sleeps is woken by the other end's close, and one that polls.
    close_wakes_reader: |left| {
        left.meet();
        left.close();
        left.meet();
    }, |right| {
        let fd = right.fd;
        let reader = Caller::asleep(move || call::recv(fd, 100, 0));
        let poller = Caller::asleep(move || call::poll(fd, RDHUP, -1));
        right.meet();
        right.see("recv", reader.join());
        right.see("poll", poller.join());
        right.meet();
    };

    /// A process exits without closing: what it has sent arrives, then the end.
    exit_with_data_in_flight: |left| {
        let fd = left.fd;
        let child = Child::start(|_| {
            call::send_all(fd, &call::pattern(0, MUCH));
            String::new()
        });
        left.close();
        left.see("exit", child.join());
        left.meet();
    }, |right| {
        stream(right, MUCH);
        right.meet();
    };

    /// A process is killed after it has sent.
    kill_with_data_in_flight: |left| {
        let fd = left.fd;
        let mut child = Child::start(|report| {
            call::send_all(fd, &call::pattern(0, 16 << 10));
            report.say("sent");
            loop {
                // SAFETY: No memory is passed.
                unsafe { libc::pause() };
            }
        });
        left.close();
        child.hear(4);
        child.kill();
        left.meet();
    }, |right| {
        right.meet();
        stream(right, 16 << 10);
    };

    /// A process is killed while it sends: what arrives is a beginning of the stream, then it ends.
    kill_in_send: |left| {
        let fd = left.fd;
        let child = Child::start(|_| {
            loop {
                call::send_all(fd, &call::pattern(0, 1 << 16));
            }
        });
        left.close();
        left.meet();
        child.kill();
        left.meet();
    }, |right| {
        right.arrived(1);
        right.meet();
        right.meet();
        let mut bytes = Vec::new();
        let end = loop {
            match call::recv(right.fd, 1 << 16, 0) {
                Ok(part) if part.is_empty() => break Ok(()),
                Ok(part) => bytes.extend(part),
                Err(errno) => break Err(errno),
            }
        };
        right.see("end", end);
        let expected = call::pattern(0, 1 << 16);
        let is_good = bytes.chunks(1 << 16).all(|part| *part == expected[..part.len()]);
        right.see("some bytes", !bytes.is_empty());
        right.see("in order", is_good);
    };

    /// close(2) that lingers returns when the other end has taken all.
    linger: |left| {
        linger_for(left, 20);
        left.send(&call::pattern(0, MUCH), 0);
        left.close();
        left.meet();
    }, |right| {
        right.pause();
        stream(right, MUCH);
        right.meet();
    };

    /// close(2) that lingers gives up, but what was sent still arrives.
    linger_in_vain: |left| {
        linger_for(left, 1);
        let sent = fill(left);
        left.close();
        left.tell(sent);
        left.meet();
    }, |right| {
        let sent: usize = right.ask().parse().expect("a number");
        stream(right, sent);
        right.meet();
    };
}

/// Makes close(2) wait.
fn linger_for(end: &mut End, seconds: i32) {
    let result = call::linger(end.fd, seconds);
    end.see("linger", result);
}
