// SPDX-License-Identifier: GPL-2.0

//! What the flags of send and recv do.

use std::ptr;

use nix::errno::Errno;

use super::calls::unbroken;
use crate::{
    call,
    case::cases,
    thread::Caller, //
};

cases! {
    /// MSG_WAITALL waits for all, whatever the pieces are.
    wait_all: |left| {
        left.send(b"abc", 0);
        left.pause();
        left.send(b"def", 0);
        left.pause();
        left.send(b"ghij", 0);
        left.meet();
    }, |right| {
        right.recv(10, libc::MSG_WAITALL);
        right.meet();
    };

    /// MSG_WAITALL and bytes that are all there already, and more than these.
    wait_all_there: |left| {
        left.send(b"abcdefghij", 0);
        left.meet();
    }, |right| {
        right.arrived(10);
        right.recv(4, libc::MSG_WAITALL);
        right.recv(6, libc::MSG_WAITALL | libc::MSG_DONTWAIT);
        right.recv(6, libc::MSG_WAITALL | libc::MSG_DONTWAIT);
        right.meet();
    };

    /// MSG_WAITALL and MSG_DONTWAIT: what is there.
    wait_all_without_waiting: |left| {
        left.send(b"abc", 0);
        left.meet();
    }, |right| {
        right.arrived(3);
        right.recv(10, libc::MSG_WAITALL | libc::MSG_DONTWAIT);
        right.meet();
    };

    /// The end of the stream ends MSG_WAITALL.
    wait_all_ended: |left| {
        left.send(b"abc", 0);
        left.meet();
        left.send(b"def", 0);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let fd = right.fd;
        right.arrived(3);
        let caller = Caller::asleep(move || call::recv(fd, 10, libc::MSG_WAITALL));
        right.meet();
        right.see("recv", caller.join());
        right.recv(10, libc::MSG_WAITALL);
        right.meet();
    };

    /// MSG_WAITALL of more than any buffer holds.
    wait_all_of_much: |left| {
        left.send(&call::pattern(0, 4 << 20), 0);
        left.meet();
    }, |right| {
        right.recv(4 << 20, libc::MSG_WAITALL);
        right.meet();
    };

    /// MSG_PEEK waits for all with MSG_WAITALL, and takes nothing.
    peek_all: |left| {
        left.send(b"abc", 0);
        left.meet();
        left.send(b"defghij", 0);
        left.meet();
    }, |right| {
        let fd = right.fd;
        right.arrived(3);
        let caller = Caller::asleep(move || call::recv(fd, 10, libc::MSG_PEEK | libc::MSG_WAITALL));
        right.meet();
        right.see("recv 10 PEEK WAITALL", caller.join());
        right.recv(20, 0);
        right.meet();
    };

    /// The end of the stream ends MSG_PEEK with MSG_WAITALL.
    peek_all_ended: |left| {
        left.send(b"abc", 0);
        left.meet();
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let fd = right.fd;
        right.arrived(3);
        let caller = Caller::asleep(move || call::recv(fd, 10, libc::MSG_PEEK | libc::MSG_WAITALL));
        right.meet();
        right.see("recv 10 PEEK WAITALL", caller.join());
        right.recv(10, libc::MSG_PEEK | libc::MSG_WAITALL);
        right.recv(10, libc::MSG_WAITALL);
        right.recv(10, libc::MSG_PEEK);
        right.meet();
    };

    /// MSG_PEEK waits for the first byte.
    peek_waits: |left| {
        left.meet();
        left.send(b"abc", 0);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 10, libc::MSG_PEEK));
        right.meet();
        right.see("recv 10 PEEK", caller.join());
        right.recv(10, 0);
        right.meet();
    };

    /// SO_PEEK_OFF: each peek goes on where the last one ended.
    peek_offset: |left| {
        left.send(b"0123456789", 0);
        left.meet();
    }, |right| {
        right.arrived(10);
        right.see("set", call::set(right.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, 2));
        right.recv(3, libc::MSG_PEEK);
        right.recv(3, libc::MSG_PEEK);
        right.see("offset", call::get(right.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF));
        right.recv(4, 0);
        right.see("offset", call::get(right.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF));
        right.recv(3, libc::MSG_PEEK | libc::MSG_DONTWAIT);
        right.recv(10, libc::MSG_PEEK | libc::MSG_DONTWAIT);
        right.see("set", call::set(right.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, -1));
        right.recv(10, libc::MSG_PEEK | libc::MSG_DONTWAIT);
        right.recv(10, 0);
        right.meet();
    };

    /// MSG_TRUNC throws bytes away; with MSG_PEEK it counts them.
    truncate: |left| {
        left.send(b"0123456789", 0);
        left.meet();
    }, |right| {
        right.arrived(10);
        right.recv(4, libc::MSG_PEEK | libc::MSG_TRUNC);
        right.recv(3, libc::MSG_TRUNC);
        right.recv(2, 0);
        // SAFETY: With MSG_TRUNC nothing is written.
        let count = call::check(unsafe { libc::recv(right.fd, ptr::null_mut(), 2, libc::MSG_TRUNC) });
        right.see("recv 2 TRUNC to nowhere", count);
        right.recv(100, libc::MSG_PEEK | libc::MSG_TRUNC);
        right.recv(100, libc::MSG_TRUNC);
        right.recv(100, libc::MSG_TRUNC | libc::MSG_DONTWAIT);
        right.meet();
    };

    /// MSG_TRUNC waits for all with MSG_WAITALL.
    truncate_all: |left| {
        left.send(b"abc", 0);
        left.meet();
        left.send(b"defgh", 0);
        left.meet();
    }, |right| {
        let fd = right.fd;
        right.arrived(3);
        let caller = Caller::asleep(move || call::recv(fd, 6, libc::MSG_TRUNC | libc::MSG_WAITALL));
        right.meet();
        right.see("recv 6 TRUNC WAITALL", caller.join());
        right.recv(2, libc::MSG_WAITALL);
        right.meet();
    };

    /// MSG_MORE holds bytes back for a while; they come before what follows.
    more: |left| {
        left.send(b"ab", libc::MSG_MORE);
        left.send(b"cd", libc::MSG_MORE);
        left.send(b"", 0);
        left.send(b"ef", 0);
        left.meet();
        // Nothing follows: it comes all the same.
        left.send(b"gh", libc::MSG_MORE);
        left.meet();
    }, |right| {
        right.arrived(6);
        right.recv(10, 0);
        right.meet();
        right.arrived(2);
        right.recv(10, 0);
        right.meet();
    };

    /// MSG_MORE, then the end.
    more_ended: |left| {
        left.send(b"ab", libc::MSG_MORE);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.drain(10);
        right.meet();
    };

    /// Flags that have no meaning for a stream change nothing.
    without_meaning: |left| {
        left.send(b"a", libc::MSG_EOR);
        left.send(b"b", libc::MSG_DONTROUTE);
        left.send(b"c", libc::MSG_CONFIRM);
        left.send(b"d", libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
        left.send(b"e", libc::MSG_WAITALL | libc::MSG_PEEK | libc::MSG_TRUNC);
        left.send(b"f", libc::MSG_EOR | libc::MSG_MORE);
        left.send(b"g", libc::MSG_CTRUNC | libc::MSG_ERRQUEUE);
        left.meet();
    }, |right| {
        right.arrived(7);
        right.recv(2, libc::MSG_NOSIGNAL);
        right.recv(2, libc::MSG_EOR | libc::MSG_DONTROUTE | libc::MSG_CONFIRM);
        right.recv(10, libc::MSG_MORE | libc::MSG_CTRUNC | libc::MSG_ZEROCOPY);
        right.meet();
    };

    /// The queue of errors is empty: MSG_ERRQUEUE waits for nothing.
    no_errors: |left| {
        left.send(b"abc", 0);
        left.recv(10, libc::MSG_ERRQUEUE);
        left.recv(0, libc::MSG_ERRQUEUE);
        left.recv(10, libc::MSG_ERRQUEUE | libc::MSG_PEEK | libc::MSG_WAITALL);
        left.meet();
        left.meet();
    }, |right| {
        right.arrived(3);
        right.recv(10, libc::MSG_ERRQUEUE);
        right.recv(10, 0);
        right.meet();
        right.shutdown(libc::SHUT_WR);
        right.recv(10, libc::MSG_ERRQUEUE);
        right.meet();
    };

    /// MSG_FASTOPEN comes too late.
    fast_open: |left| {
        left.send(b"abc", libc::MSG_FASTOPEN);
        unbroken(left);
    }, |right| {
        unbroken(right);
    };

    /// MSG_DONTWAIT until the buffers are full, then until they are empty: each byte once.
    without_waiting: |left| {
        let bytes = call::pattern(0, 1 << 16);
        let mut sent = 0;
        let errno = loop {
            match call::send(left.fd, &bytes[sent % bytes.len()..], libc::MSG_DONTWAIT) {
                Ok(count) => sent += count,
                Err(errno) => break errno,
            }
        };
        left.see("full", Err::<(), Errno>(errno));
        left.see("some bytes", sent > 0);
        left.tell(sent);
        left.meet();
    }, |right| {
        let sent: usize = right.ask().parse().expect("a number");
        let (bytes, mut all) = (call::pattern(0, 1 << 16), Vec::new());
        while all.len() < sent {
            right.polled(libc::EPOLLIN);
            match call::recv(right.fd, 1 << 16, libc::MSG_DONTWAIT) {
                Ok(part) => all.extend(part),
                Err(errno) => panic!("{errno}: it was readable"),
            }
        }
        let same = all.chunks(1 << 16).all(|part| part == &bytes[..part.len()]);
        right.see("all came", all.len() == sent);
        right.see("as they were", same);
        right.recv(10, libc::MSG_DONTWAIT);
        right.meet();
    };
}
