// SPDX-License-Identifier: GPL-2.0

//! Calls that send and receive datagrams.

use std::{net::SocketAddr, time::Instant};

use super::{IN, OUT, event, no_event};
use crate::{
    call,
    case::cases,
    datagram,
    end::End,
    epoll::Epoll,
    message,
    thread::Caller,
    transfer::{RECEIVES, SENDS}, //
};

/// The largest payload of a datagram over IPv4.
const LARGEST: usize = 65_507;

/// Sizes that are the first or last of their kind, for packets and pages.
const SIZES: [usize; 14] = [
    0, 1, 7, 8, 9, 1472, 1473, 2048, 3500, 3501, 4096, 8192, 20_000, LARGEST,
];

cases! {
    /// A datagram each way.
    send_and_recv datagrams: |left| {
        left.send(b"hello", 0);
        left.recv(100, 0);
    }, |right| {
        right.recv(100, 0);
        right.send(b"and back", 0);
    };

    /// sendto names the destination, recvfrom the source.
    sendto_and_recvfrom datagrams: |left| {
        named(left);
    }, |right| {
        named(right);
    };

    /// Each datagram is read by itself; what there is no room for is lost.
    boundaries datagrams: |left| {
        left.send(b"0123456789", 0);
        left.send(b"abc", 0);
        left.send(b"de", 0);
        left.send(b"fghijk", 0);
        left.meet();
    }, |right| {
        right.meet();
        right.recv(4, 0);
        right.recv(100, 0);
        right.recv(2, 0);
        right.recv(0, 0);
        right.recv(1, libc::MSG_DONTWAIT);
    };

    /// Datagrams of no bytes are datagrams.
    zero_length datagrams: |left| {
        left.send(b"", 0);
        left.see("write nothing", call::write(left.fd, b""));
        left.see("sendmsg no pieces", message::send(left.fd, &[], b"", 0));
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        right.meet();
        right.unread();
        right.poll(IN);
        right.recv(10, 0);
        right.see("recvmsg", message::recv(right.fd, &[10], 0, 0));
        right.recv(0, 0);
        right.recv(10, 0);
        right.recv(10, libc::MSG_DONTWAIT);
    };

    /// MSG_TRUNC: the length that a datagram had.
    truncated datagrams: |left| {
        for _ in 0..3 {
            left.send(b"0123456789", 0);
        }
        left.meet();
    }, |right| {
        right.meet();
        let remote = call::remote(right.fd).expect("getpeername");
        right.recv_from(4, libc::MSG_TRUNC | libc::MSG_PEEK, &remote);
        right.recv_from(4, libc::MSG_TRUNC, &remote);
        right.recv_from(0, libc::MSG_TRUNC, &remote);
        right.recv_from(100, libc::MSG_TRUNC, &remote);
    };

    /// Peeking takes nothing away.
    peek datagrams: |left| {
        left.send(b"0123456789", 0);
        left.send(b"abc", 0);
        left.meet();
    }, |right| {
        right.meet();
        right.recv(4, libc::MSG_PEEK);
        right.recv(100, libc::MSG_PEEK);
        right.unread();
        right.recv(4, 0);
        right.recv(100, libc::MSG_PEEK);
        right.recv(100, 0);
        right.recv(1, libc::MSG_PEEK | libc::MSG_DONTWAIT);
    };

    /// SO_PEEK_OFF: where peeking goes on.
    peek_offset datagrams: |left| {
        left.send(b"0123456789", 0);
        left.send(b"abcdef", 0);
        left.meet();
    }, |right| {
        right.meet();
        right.see("set", call::set(right.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, 2));
        for _ in 0..4 {
            right.recv(4, libc::MSG_PEEK | libc::MSG_DONTWAIT);
        }
        right.see("get", call::get(right.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF));
        right.recv(4, 0);
        right.recv(4, libc::MSG_PEEK | libc::MSG_DONTWAIT);
    };

    /// FIONREAD: the bytes of the next datagram.
    unread datagrams: |left| {
        left.meet();
        left.send(b"0123456789", 0);
        left.send(b"abc", 0);
        left.meet();
    }, |right| {
        right.unread();
        right.meet();
        right.meet();
        right.unread();
        right.recv(1, 0);
        right.unread();
        right.recv(100, 0);
        right.unread();
    };

    /// SIOCOUTQ: what was sent has left, sooner or later.
    unsent datagrams: |left| {
        left.send(&call::pattern(0, 5000), 0);
        let fd = left.fd;
        left.until("all has left", || call::ioctl(fd, libc::TIOCOUTQ) == Ok(0));
        left.meet();
    }, |right| {
        right.meet();
        right.drain(5000);
    };

    /// Datagrams of all sizes, one at a time.
    sizes datagrams: |left| {
        for size in SIZES {
            left.send(&call::pattern(size, size), 0);
            left.meet();
        }
    }, |right| {
        for size in SIZES {
            right.recv(LARGEST, 0);
            let _ = size;
            right.meet();
        }
    };

    /// More than a datagram can have.
    too_large datagrams: |left| {
        left.send(&call::pattern(0, LARGEST + 1), 0);
        left.send(&call::pattern(0, 100_000), 0);
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        right.meet();
        right.recv(LARGEST, 0);
        right.recv(1, libc::MSG_DONTWAIT);
    };

    /// All calls that send, and all that receive.
    all_calls datagrams: |left| {
        for (name, send) in SENDS {
            left.see(name, send(left.fd, b"abcdefgh"));
            left.meet();
        }
        for _ in RECEIVES {
            left.send(b"12345678", 0);
            left.meet();
        }
    }, |right| {
        for _ in SENDS {
            right.meet();
            right.recv(100, 0);
        }
        for (name, receive) in RECEIVES {
            right.meet();
            right.see(name, receive(right.fd, 5));
        }
    };

    /// MSG_MORE and UDP_CORK: one datagram of several calls.
    corked datagrams: |left| {
        left.send(b"ab", libc::MSG_MORE);
        left.send(b"cd", libc::MSG_MORE);
        left.send(b"ef", 0);
        left.meet();
        left.meet();
        left.see("set", call::set(left.fd, libc::IPPROTO_UDP, libc::UDP_CORK, 1));
        left.send(b"012", 0);
        left.send(b"345", 0);
        left.pause();
        left.meet();
        left.meet();
        left.see("unset", call::set(left.fd, libc::IPPROTO_UDP, libc::UDP_CORK, 0));
        left.meet();
    }, |right| {
        right.meet();
        right.recv(100, 0);
        right.meet();
        right.meet();
        right.recv(100, libc::MSG_DONTWAIT);
        right.meet();
        right.meet();
        right.recv(100, 0);
    };

    /// Datagrams that come one after the other stay in order.
    in_order datagrams: |left| {
        for number in 0..200u32 {
            call::send(left.fd, &number.to_be_bytes(), 0).expect("send");
            if number % 20 == 19 {
                left.meet();
            }
        }
    }, |right| {
        let mut numbers = Vec::new();
        for number in 0..200u32 {
            if number % 20 == 0 {
                right.meet();
            }
            numbers.push(call::recv(right.fd, 4, 0).expect("recv"));
        }
        let expected = (0..200u32).map(|number| number.to_be_bytes().to_vec());
        right.see("in order", numbers.into_iter().eq(expected));
    };

    /// Nothing is there to be read, and a read that waits.
    waits datagrams: |left| {
        left.meet();
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        right.recv(10, libc::MSG_DONTWAIT);
        let fd = right.fd;
        let caller = Caller::start(move || call::recv(fd, 10, 0));
        right.see("sleeps", caller.falls_asleep());
        right.meet();
        right.see("recv", caller.join());
        right.meet();
    };

    /// Two readers that wait: each gets one.
    two_readers datagrams: |left| {
        left.meet();
        left.send(b"x", 0);
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let callers = [(); 2].map(|()| Caller::asleep(move || call::recv(fd, 10, 0)));
        right.meet();
        for caller in callers {
            right.see("recv", caller.join());
        }
        right.meet();
    };

    /// SO_RCVTIMEO.
    receive_timeout datagrams: |left| {
        left.meet();
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        let time = libc::timeval { tv_sec: 0, tv_usec: 300_000 };
        right.see("set", call::set(right.fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, time));
        let start = Instant::now();
        right.recv(10, 0);
        right.see("waited", start.elapsed().as_millis() >= 250);
        right.meet();
        right.meet();
        right.recv(10, 0);
    };

    /// O_NONBLOCK.
    nonblocking datagrams: |left| {
        left.see("set", call::set_nonblocking(left.fd, true));
        left.recv(10, 0);
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        right.see("set", call::set_nonblocking(right.fd, true));
        right.meet();
        right.recv(10, 0);
        right.recv(10, 0);
    };

    /// A signal interrupts a read.
    interrupted datagrams: |left| {
        left.meet();
    }, |right| {
        let fd = right.fd;
        // SAFETY: All fields may be zero, and the handler does nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
            libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
        }
        let caller = Caller::asleep(move || call::recv(fd, 10, 0));
        caller.signal(libc::SIGUSR1);
        right.see("recv", caller.join());
        right.meet();
    };

    /// poll, before and after a datagram.
    poll datagrams: |left| {
        left.poll(IN | OUT);
        left.meet();
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        right.poll(IN | OUT);
        right.meet();
        let events = right.polled(IN);
        right.see("polled", events);
        right.meet();
        right.recv(10, 0);
        right.poll(IN | OUT);
    };

    /// epoll, edge-triggered: an event for each datagram that comes.
    epoll_edges datagrams: |left| {
        for _ in 0..3 {
            left.meet();
            left.send(b"x", 0);
            left.meet();
        }
    }, |right| {
        let epoll = Epoll::of(right.fd, libc::EPOLLIN | libc::EPOLLET);
        no_event(right, epoll, "nothing");
        for _ in 0..3 {
            right.meet();
            event(right, epoll, "came");
            right.meet();
            no_event(right, epoll, "nothing more");
        }
        right.recv(10, 0);
        no_event(right, epoll, "read");
    };

    /// epoll, level-triggered.
    epoll_levels datagrams: |left| {
        left.meet();
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        let epoll = Epoll::of(right.fd, libc::EPOLLIN);
        right.meet();
        event(right, epoll, "came");
        right.meet();
        event(right, epoll, "still there");
        right.recv(10, 0);
        no_event(right, epoll, "read");
    };

    /// A socket with two descriptors; one is closed.
    duplicated datagrams: |left| {
        left.send(b"x", 0);
        left.meet();
        left.recv(10, 0);
    }, |right| {
        let other = call::duplicate(right.fd);
        right.close();
        right.fd = other;
        right.recv(10, 0);
        right.meet();
        right.send(b"y", 0);
    };
}

extern "C" fn nothing(_: i32) {}

/// Each end sends to the other by name, first from a socket that is connected, then from one that is not; and one that is not connected any
/// more.
fn named(end: &mut End) {
    let remote = call::remote(end.fd).expect("getpeername");
    end.send_to(b"by name", 0, &remote);
    end.recv_from(100, 0, &remote);
    end.meet();
    end.see("disconnect", datagram::disconnect(end.fd));
    end.see("send", call::send(end.fd, b"to nobody", 0));
    end.see("getpeername", call::remote(end.fd).map(drop));
    let (fd, port) = datagram::bound(SocketAddr::new(end.address(), 0));
    end.fd = fd;
    end.tell(port);
    let remote = SocketAddr::new(end.peer(), end.ask().parse().expect("a port"));
    for _ in 0..20 {
        end.send_to(b"by name", 0, &remote);
        end.recv_from(100, 0, &remote);
    }
}
