// SPDX-License-Identifier: GPL-2.0

//! The orderly end of a stream: shutdown, in all orders, with data wherever it may be.

use super::{ALL, RDHUP, broken, error, fill, stream};
use crate::{call, case::cases, end::End, sigpipe, tcp_info, thread::Caller};

/// Bytes that are more than what buffers hold at first.
const MUCH: usize = 1 << 20;

cases! {
    /// All data, then the end, again and again; the other direction goes on.
    fin_with_data_unread: |left| {
        left.send(b"0123456789", 0);
        left.shutdown(libc::SHUT_WR);
        left.recv(100, 0);
        left.meet();
    }, |right| {
        right.polled(RDHUP);
        right.poll(ALL);
        right.unread();
        right.recv(4, 0);
        right.unread();
        right.recv(100, libc::MSG_PEEK);
        right.recv(100, 0);
        right.unread();
        for _ in 0..3 {
            right.recv(100, 0);
        }
        right.recv(100, libc::MSG_PEEK);
        right.recv(100, libc::MSG_DONTWAIT);
        right.recv(0, 0);
        right.poll(ALL);
        right.send(b"still", 0);
        right.meet();
    };

    /// MSG_WAITALL ends at the end of the stream.
    fin_in_wait_all: |left| {
        left.send(b"abc", 0);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.recv(10, libc::MSG_WAITALL);
        right.recv(10, libc::MSG_WAITALL);
        right.meet();
    };

    /// Nobody may send after SHUT_WR; SIGPIPE comes unless it is not wanted.
    send_after_own_shutdown: |left| {
        sigpipe::count();
        left.shutdown(libc::SHUT_WR);
        left.poll(ALL);
        left.meet();
        for flags in [0, libc::MSG_NOSIGNAL, libc::MSG_DONTWAIT, libc::MSG_MORE] {
            left.send(b"late", flags);
            left.see("signals", sigpipe::seen());
        }
        left.send(b"", 0);
        left.see("write", call::write(left.fd, b"late"));
        left.see("signals", sigpipe::seen());
        error(left);
        left.recv(100, 0);
        left.meet();
    }, |right| {
        right.recv(100, 0);
        right.meet();
        right.send(b"still", 0);
        right.meet();
    };

    /// After SHUT_RD there is what came before, then the end.
    shut_rd_with_data_queued: |left| {
        left.arrived(10);
        left.shutdown(libc::SHUT_RD);
        left.poll(ALL);
        left.unread();
        left.recv(4, libc::MSG_PEEK);
        left.recv(4, 0);
        left.recv(100, 0);
        left.recv(100, 0);
        left.poll(ALL);
        left.send(b"still", 0);
        left.meet();
    }, |right| {
        right.send(b"0123456789", 0);
        right.recv(100, 0);
        right.meet();
    };

    /// What arrives after SHUT_RD can be read all the same, and the sender sees no difference.
    shut_rd_then_data: |left| {
        left.shutdown(libc::SHUT_RD);
        left.recv(100, 0);
        left.meet();
        left.arrived(10);
        left.poll(ALL);
        left.recv(4, 0);
        left.recv(100, 0);
        left.recv(100, 0);
        left.send(b"still", 0);
        left.meet();
        // recv does not wait any more, it returns 0 where nothing is there yet.
        let (fd, mut all) = (left.fd, Vec::new());
        left.until("all comes", || {
            all.extend(call::recv(fd, MUCH, 0).expect("recv"));
            all.len() == MUCH
        });
        left.see("after SHUT_RD", all);
        left.meet();
    }, |right| {
        right.meet();
        right.poll(ALL);
        right.send(b"0123456789", 0);
        right.recv(100, 0);
        right.meet();
        call::send_all(right.fd, &call::pattern(0, MUCH));
        right.meet();
    };

    /// A reader that sleeps is woken by its own SHUT_RD.
    shut_rd_wakes_reader: |left| {
        let fd = left.fd;
        let caller = Caller::asleep(move || call::recv(fd, 100, 0));
        left.shutdown(libc::SHUT_RD);
        left.see("recv", caller.join());
        left.send(b"still", 0);
        left.meet();
    }, |right| {
        right.recv(100, 0);
        right.meet();
    };

    /// A writer that sleeps is woken by its own SHUT_WR; what it has sent arrives.
    shut_wr_wakes_writer: |left| {
        let fd = left.fd;
        let bytes = call::pattern(0, 32 << 20);
        let caller = Caller::asleep(move || call::send(fd, &bytes, 0));
        left.shutdown(libc::SHUT_WR);
        let sent = caller.join().expect("some bytes");
        left.see("all was sent", sent == 32 << 20);
        left.send(b"late", 0);
        left.tell(sent);
        left.meet();
    }, |right| {
        let sent: usize = right.ask().parse().expect("a number");
        stream(right, sent);
        right.meet();
    };

    /// RDWR is both at once. What comes then is refused: both ends see a reset.
    shut_rdwr_then_data: |left| {
        sigpipe::count();
        left.shutdown(libc::SHUT_RDWR);
        left.poll(ALL);
        left.recv(100, 0);
        left.send(b"late", 0);
        left.see("signals", sigpipe::seen());
        left.meet();
        left.meet();
        error(left);
        left.recv(100, 0);
        left.send(b"late", 0);
        left.shutdown(libc::SHUT_RDWR);
        left.meet();
    }, |right| {
        sigpipe::count();
        right.meet();
        right.polled(RDHUP);
        right.recv(100, 0);
        right.send(b"refused", 0);
        broken(right);
        right.poll(ALL);
        right.meet();
        right.send(b"late", 0);
        right.see("signals", sigpipe::seen());
        right.send(b"late", 0);
        right.see("signals", sigpipe::seen());
        error(right);
        right.recv(100, 0);
        right.meet();
    };

    /// RDWR with data in both queues.
    shut_rdwr_with_data_queued: |left| {
        left.send(b"to the right", 0);
        left.arrived(11);
        left.shutdown(libc::SHUT_RDWR);
        left.recv(100, 0);
        left.recv(100, 0);
        left.meet();
    }, |right| {
        right.send(b"to the left", 0);
        right.polled(RDHUP);
        right.recv(100, 0);
        right.recv(100, 0);
        right.meet();
    };

    /// Shutdown step by step, and again; what TCP's states are where all has been said.
    shutdown_step_by_step: |left| {
        left.see("state", tcp_info::state(left.fd));
        left.shutdown(libc::SHUT_RD);
        left.shutdown(libc::SHUT_RD);
        left.see("state", tcp_info::state(left.fd));
        left.shutdown(libc::SHUT_WR);
        left.shutdown(libc::SHUT_WR);
        state(left, "FIN_WAIT2");
        left.meet();
        left.shutdown(libc::SHUT_RDWR);
        left.poll(ALL);
        left.meet();
        state(left, "CLOSE");
        left.poll(ALL);
        gone(left);
        left.meet();
    }, |right| {
        right.polled(RDHUP);
        state(right, "CLOSE_WAIT");
        right.poll(ALL);
        right.meet();
        right.meet();
        right.shutdown(libc::SHUT_WR);
        state(right, "CLOSE");
        right.poll(ALL);
        gone(right);
        right.meet();
    };

    /// No such way to shut down: nothing changes.
    shutdown_of_what_is_not: |left| {
        for how in [-1, 3, 4, i32::MAX, i32::MIN] {
            left.see(&format!("shutdown {how}"), call::shutdown(left.fd, how));
        }
        left.send(b"still", 0);
        left.recv(100, 0);
        left.meet();
    }, |right| {
        right.recv(100, 0);
        right.send(b"there", 0);
        right.meet();
    };

    /// One end is done; the other has much to say.
    half_closed: |left| {
        left.send(b"request", 0);
        left.shutdown(libc::SHUT_WR);
        left.drain(MUCH);
        left.recv(100, 0);
        left.meet();
    }, |right| {
        right.recv(100, 0);
        right.recv(100, 0);
        for at in 0..64 {
            call::send_all(right.fd, &call::pattern(at * (MUCH / 64), MUCH / 64));
        }
        right.close();
        right.meet();
    };

    /// Both ends are done at the same time, with data on its way in both directions.
    both_at_once: |left| {
        both_at_once(left);
    }, |right| {
        both_at_once(right);
    };

    /// The end comes while the reader's window is full.
    shutdown_with_full_window: |left| {
        let sent = fill(left);
        left.shutdown(libc::SHUT_WR);
        left.send(b"late", libc::MSG_NOSIGNAL);
        left.tell(sent);
        left.recv(100, 0);
        left.meet();
    }, |right| {
        let sent: usize = right.ask().parse().expect("a number");
        stream(right, sent);
        right.send(b"thanks", 0);
        right.meet();
    };
}

/// Waits until TCP is in this state, and notes it.
fn state(end: &mut End, name: &'static str) {
    let fd = end.fd;
    end.until(name, || tcp_info::state(fd) == Ok(name));
    end.see("state", name);
}

/// What calls return when both directions have ended.
fn gone(end: &mut End) {
    end.recv(100, 0);
    end.send(b"late", libc::MSG_NOSIGNAL);
    error(end);
    let has_address = call::local(end.fd).map(|address| address.ip() == end.address());
    end.see("own address", has_address);
    let has_peer = call::remote(end.fd).map(|address| address.ip() == end.peer());
    end.see("peer", has_peer);
    end.see("shutdown", call::shutdown(end.fd, libc::SHUT_RDWR));
}

fn both_at_once(end: &mut End) {
    end.meet();
    end.send(b"0123456789", 0);
    end.shutdown(libc::SHUT_WR);
    end.recv(10, libc::MSG_WAITALL);
    end.recv(100, 0);
    end.polled(RDHUP);
    end.poll(ALL);
    state(end, "CLOSE");
    gone(end);
    end.meet();
}
