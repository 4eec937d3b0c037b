// SPDX-License-Identifier: GPL-2.0

//! Options that change when bytes go and how many wait, but never which.

use std::{net::SocketAddr, os::fd::RawFd, time::Duration};

use nix::errno::Errno;

use super::{IN, OUT, error, fill, options::still_there, stream};
use crate::{call, case::cases, end::End, sysctl::Sysctl, tcp_info};

const SOCKET: i32 = libc::SOL_SOCKET;
const TCP: i32 = libc::IPPROTO_TCP;

/// Bytes of a stream that is larger than the buffers of these cases.
const MUCH: usize = 1 << 20;

/// Bytes of one where a segment may be larger than a buffer has become, so that TCP is slow.
const LESS: usize = 1 << 14;

/// SO_SNDBUF of a writer that wants to send much before anybody reads.
const LARGE: i32 = 1 << 20;

/// Bytes that are taken at most before anybody reads if buffers are small: a ring has 256 KiB, and those before it were small.
const FITS_MAX: usize = 320 << 10;

/// Time that is enough for a dead peer to be found out.
const KEPT_ALIVE: Duration = Duration::from_secs(6);

/// Connections at once to a listener with few places.
const CROWD: usize = 6;

/// The setting of a machine that allows data with first segments: to clients, to servers, and to all listeners.
const FAST_OPEN: &str = "tcp_fastopen";
const FAST_OPEN_ALLOWED: &str = "0x403";

/// The flag of TCP_INFO which says that data in the first segment was acknowledged; libc lacks it.
const SYN_DATA: u8 = 32;

/// Connections that are enough for one whose first segment has had data.
const FAST_OPENS_MAX: usize = 10;

/// The data.
const FIRST: &[u8] = b"at once";

/// How it gets there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    /// MSG_FASTOPEN.
    ByFlag,
    /// TCP_FASTOPEN_CONNECT.
    ByOption,
}

cases! {
    /// Small buffers from the beginning.
    small_buffers_first bare: |left| {
        left.establish(make_small);
        small_buffers(left, LESS);
        little_fits(left);
    }, |right| {
        right.establish(make_small);
        small_buffers(right, LESS);
        receive_all_that_fits(right);
    };

    /// Buffers become small on a connection that has been used.
    small_buffers_later: |left| {
        make_small(left.fd);
        small_buffers(left, LESS);
        little_fits(left);
    }, |right| {
        small_buffers(right, LESS);
        receive_all_that_fits(right);
    };

    /// A large buffer of the writer: about so much is taken before anybody reads.
    large_buffer: |left| {
        left.see("set", call::set(left.fd, SOCKET, libc::SO_SNDBUF, LARGE));
        let sent = fill(left);
        left.see("about as much", (256 << 10..=4 << 20).contains(&sent));
        left.tell(sent);
        left.meet();
    }, |right| {
        receive_all_that_fits(right);
    };

    /// The writer's buffer becomes small while it holds data, and large again.
    small_buffers_with_data: |left| {
        let sent = fill(left);
        make_small(left.fd);
        left.tell(sent);
        left.meet();
        left.see("large", call::set(left.fd, SOCKET, libc::SO_SNDBUF, 1 << 20));
        call::send_all(left.fd, &call::pattern(0, MUCH));
        left.meet();
    }, |right| {
        let sent: usize = right.ask().parse().expect("a number");
        let mut all = vec![0; sent];
        call::receive_all(right.fd, &mut all);
        right.see("all came", all == call::pattern(0, sent));
        right.meet();
        right.drain(MUCH);
        right.meet();
    };

    /// Nobody reads: the writer must stop, and go on when somebody does.
    back_pressure: |left| {
        let sent = fill(left);
        left.see("bounded by 16 MB", sent <= 16 << 20);
        left.poll(OUT);
        left.tell(sent);
        left.polled(OUT);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let sent: usize = right.ask().parse().expect("a number");
        stream(right, sent);
        right.meet();
    };

    /// Nobody reads for longer than TCP_USER_TIMEOUT allows: the connection is over for who sends. Who reads then gets what came
    /// before, and a reset.
    user_timeout: |left| {
        left.see("set", call::set(left.fd, TCP, libc::TCP_USER_TIMEOUT, 2000u32));
        let piece = call::pattern(0, call::PIECE);
        let error = loop {
            if let Err(error) = call::send(left.fd, &piece, 0) {
                break error;
            }
        };
        left.see("send", Err::<(), _>(error));
        left.send(b"more", libc::MSG_NOSIGNAL);
        left.recv(10, 0);
        left.meet();
    }, |right| {
        right.meet();
        let error = loop {
            match call::recv(right.fd, call::PIECE, 0) {
                Ok(part) if part.is_empty() => break None,
                Ok(_) => {}
                Err(error) => break Some(error),
            }
        };
        right.see("recv", error.map_or(Ok(()), Err));
        right.recv(10, 0);
    };

    /// Somebody reads before the time is over: the stream goes on.
    user_timeout_not_reached: |left| {
        left.see("set", call::set(left.fd, TCP, libc::TCP_USER_TIMEOUT, 60_000u32));
        let size = 1 << 20;
        for _ in 0..2 {
            call::send_all(left.fd, &call::pattern(0, size));
            left.meet();
        }
        left.recv(10, 0);
    }, |right| {
        for _ in 0..2 {
            (0..5).for_each(|_| right.pause());
            let mut bytes = vec![0; 1 << 20];
            call::receive_all(right.fd, &mut bytes);
            right.see("right", bytes == call::pattern(0, 1 << 20));
            right.meet();
        }
        right.send(b"thanks", 0);
    };

    /// Corked bytes arrive when the cork is out.
    cork: |left| {
        for round in 0..5 {
            cork(left.fd, 1);
            for part in ["one ", "two ", "three"] {
                left.send(part.as_bytes(), 0);
            }
            left.see("cork", call::get(left.fd, TCP, libc::TCP_CORK));
            cork(left.fd, 0);
            left.see(&format!("round {round}"), call::get(left.fd, TCP, libc::TCP_CORK));
            left.recv(100, 0);
        }
        left.meet();
    }, |right| {
        for _ in 0..5 {
            right.recv(13, libc::MSG_WAITALL);
            right.send(b"thanks", 0);
        }
        right.meet();
    };

    /// A cork that stays does not keep anything back for ever.
    cork_stays: |left| {
        cork(left.fd, 1);
        left.send(b"corked", 0);
        left.recv(100, 0);
        left.meet();
    }, |right| {
        right.recv(6, libc::MSG_WAITALL);
        right.send(b"thanks", 0);
        right.meet();
    };

    /// What is corked goes before the end of the stream.
    cork_and_shutdown: |left| {
        cork(left.fd, 1);
        left.send(b"corked", 0);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.recv(100, libc::MSG_WAITALL);
        right.recv(100, 0);
        right.meet();
    };

    /// What is corked goes when the socket is closed.
    cork_and_close: |left| {
        cork(left.fd, 1);
        left.send(b"corked", libc::MSG_MORE);
        left.close();
        left.meet();
    }, |right| {
        right.recv(100, libc::MSG_WAITALL);
        right.recv(100, 0);
        right.meet();
    };

    /// MSG_MORE, then the rest; and more that never comes, which TCP_NODELAY sends.
    more: |left| {
        left.send(b"head ", libc::MSG_MORE);
        left.send(b"body", 0);
        left.recv(100, 0);
        left.send(b"head ", libc::MSG_MORE);
        left.see("nodelay", call::set(left.fd, TCP, libc::TCP_NODELAY, 1));
        left.recv(100, 0);
        left.send(b"again", libc::MSG_MORE);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.recv(9, libc::MSG_WAITALL);
        right.send(b"thanks", 0);
        right.recv(5, libc::MSG_WAITALL);
        right.send(b"thanks", 0);
        right.recv(100, libc::MSG_WAITALL);
        right.meet();
    };

    /// A request in two parts and its response, with TCP_NODELAY at one end and both, and without.
    two_part_requests: |left| {
        for on in [0, 1] {
            left.see("nodelay", call::set(left.fd, TCP, libc::TCP_NODELAY, on));
            for _ in 0..10 {
                call::send_all(left.fd, b"head");
                call::send_all(left.fd, b"body");
                let mut reply = [0; 5];
                call::receive_all(left.fd, &mut reply);
                assert!(reply == *b"reply");
            }
        }
        still_there(left);
    }, |right| {
        for _ in 0..20 {
            let mut request = [0; 8];
            call::receive_all(right.fd, &mut request);
            assert!(request == *b"headbody");
            call::send_all(right.fd, b"reply");
        }
        still_there(right);
    };

    /// Quick and delayed acknowledgements.
    quick_ack: |left| {
        for round in 0..10 {
            left.see("set", call::set(left.fd, TCP, libc::TCP_QUICKACK, round % 2));
            left.send(b"request", 0);
            left.recv(100, 0);
        }
        left.meet();
    }, |right| {
        for round in 0..10 {
            right.see("set", call::set(right.fd, TCP, libc::TCP_QUICKACK, round / 2 % 2));
            right.recv(7, libc::MSG_WAITALL);
            right.send(b"reply", 0);
        }
        right.meet();
    };

    /// With a small TCP_NOTSENT_LOWAT there is no room for more while data waits; then there is.
    not_sent: |left| {
        left.see("set", call::set(left.fd, TCP, libc::TCP_NOTSENT_LOWAT, 1));
        let sent = fill(left);
        left.poll(OUT);
        left.tell(sent);
        left.polled(OUT);
        left.poll(OUT);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let sent: usize = right.ask().parse().expect("a number");
        stream(right, sent);
        right.meet();
    };

    /// Segments as small as they may be.
    small_segments: |left| {
        left.see("set", call::set(left.fd, TCP, libc::TCP_MAXSEG, 88));
        left.see("set", call::set(left.fd, TCP, libc::TCP_WINDOW_CLAMP, 8192));
        call::send_all(left.fd, &call::pattern(0, 1 << 16));
        left.drain(1 << 16);
        left.meet();
    }, |right| {
        right.drain(1 << 16);
        call::send_all(right.fd, &call::pattern(0, 1 << 16));
        right.meet();
    };

    /// A listener that waits for data has no connection until there is some.
    defer_accept bare: |left| {
        defer_accept(left);
    }, |right| {
        defer_accept(right);
    };

    /// Data with the first segment, where TCP allows it; the stream is the same if not.
    fast_open bare: |left| {
        fast_open(left);
    }, |right| {
        fast_open(right);
    };

    /// Data with the first segment, from the second connection on, where the listener's machine allows it.
    fast_open_allowed bare: |left| {
        fast_opens(left, First::ByFlag);
    }, |right| {
        fast_opens(right, First::ByFlag);
    };

    /// The same by TCP_FASTOPEN_CONNECT: connect(2) returns at once, and the segment goes with the first bytes.
    fast_open_connect bare: |left| {
        fast_opens(left, First::ByOption);
    }, |right| {
        fast_opens(right, First::ByOption);
    };

    /// More connections than a listener has places for: all are there when somebody accepts, with what was sent before.
    backlog bare: |left| {
        backlog(left);
    }, |right| {
        backlog(right);
    };

    /// A connection that nobody uses is kept alive as long as the peer answers.
    keep_alive: |left| {
        for (level, name, value) in [
            (TCP, libc::TCP_KEEPIDLE, 1),
            (TCP, libc::TCP_KEEPINTVL, 1),
            (TCP, libc::TCP_KEEPCNT, 3),
            (SOCKET, libc::SO_KEEPALIVE, 1),
        ] {
            left.see("set", call::set(left.fd, level, name, value));
        }
        std::thread::sleep(KEPT_ALIVE);
        left.poll(super::ALL);
        error(left);
        left.meet();
        left.meet();
        still_there(left);
    }, |right| {
        right.meet();
        right.poll(super::ALL);
        error(right);
        right.meet();
        still_there(right);
    };
}

/// SO_SNDBUF and SO_RCVBUF of 4 KiB.
fn make_small(fd: RawFd) {
    for name in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
        call::set(fd, SOCKET, name, 4096).expect("setsockopt");
    }
}

/// A stream in each direction, one after the other.
fn small_buffers(end: &mut End, size: usize) {
    end.meet();
    if end.active {
        call::send_all(end.fd, &call::pattern(0, size));
        end.drain(size);
    } else {
        end.drain(size);
        call::send_all(end.fd, &call::pattern(size, size));
    }
    let small = call::get(end.fd, SOCKET, libc::SO_SNDBUF).map(|size| size == 8192);
    end.see("twice of what was set", small);
    let small = call::get(end.fd, SOCKET, libc::SO_RCVBUF).map(|size| size == 8192);
    end.see("twice of what was set", small);
    end.meet();
}

/// Sends until nothing more fits.
fn little_fits(end: &mut End) {
    let sent = fill(end);
    end.see("little", sent <= FITS_MAX);
    end.tell(sent);
    end.meet();
}

fn receive_all_that_fits(end: &mut End) {
    crate::stream::receive_told(end, 0);
    end.meet();
}

fn cork(fd: RawFd, on: i32) {
    call::set(fd, TCP, libc::TCP_CORK, on).expect("setsockopt");
}

fn listen(end: &mut End, prepare: impl Fn(&mut End, RawFd)) -> RawFd {
    let any = SocketAddr::new(end.address(), 0);
    let listener = call::socket(&any).expect("socket");
    prepare(end, listener);
    call::listen(listener, &any, 16).expect("listen");
    end.tell(call::local(listener).expect("getsockname").port());
    listener
}

fn defer_accept(end: &mut End) {
    if end.active {
        let address = SocketAddr::new(end.peer(), end.ask().parse().expect("a port"));
        end.fd = call::socket(&address).expect("socket");
        end.see("connect", call::connect(end.fd, &address));
        end.meet();
        end.meet();
        end.send(b"here", 0);
    } else {
        let listener = listen(end, |end, fd| {
            end.see("set", call::set(fd, TCP, libc::TCP_DEFER_ACCEPT, 30));
        });
        end.meet();
        end.fd = listener;
        end.poll(IN);
        call::set_nonblocking(listener, true).expect("fcntl");
        end.see("accept", call::accept(listener).map(drop));
        end.meet();
        end.polled(IN);
        end.fd = call::accept(listener).expect("accept");
        end.recv(4, libc::MSG_WAITALL);
        call::close(listener).expect("close");
    }
    end.accelerate();
    still_there(end);
}

fn fast_open(end: &mut End) {
    if end.active {
        let address = SocketAddr::new(end.peer(), end.ask().parse().expect("a port"));
        end.fd = call::socket(&address).expect("socket");
        let sent = send_first(end.fd, &address);
        end.see("send", sent);
        if sent.is_err() {
            end.see("connect", call::connect(end.fd, &address));
            call::send_all(end.fd, FIRST);
        }
    } else {
        let listener = listen(end, |end, fd| {
            end.see("set", call::set(fd, TCP, libc::TCP_FASTOPEN, 5));
        });
        end.fd = call::accept(listener).expect("accept");
        call::close(listener).expect("close");
        end.recv(FIRST.len(), libc::MSG_WAITALL);
    }
    end.accelerate();
    still_there(end);
}

/// sendto(2) that connects.
fn send_first(fd: RawFd, address: &SocketAddr) -> Result<usize, Errno> {
    use nix::sys::socket::SockaddrLike;
    let raw = nix::sys::socket::SockaddrStorage::from(*address);
    let (at, size, flags) = (FIRST.as_ptr().cast(), FIRST.len(), libc::MSG_FASTOPEN);
    // SAFETY: Both are valid for reads of their lengths.
    call::check(unsafe { libc::sendto(fd, at, size, flags, raw.as_ptr(), raw.len()) })
}

/// Connections one after the other, until data came with a first segment. The first one may have to ask for a cookie.
fn fast_opens(end: &mut End, first: First) {
    if !end.active {
        let allowed = Sysctl::set(FAST_OPEN, FAST_OPEN_ALLOWED);
        let listener = listen(end, |end, fd| {
            end.see("set", call::set(fd, TCP, libc::TCP_FASTOPEN, 5));
        });
        while end.ask() == "more" {
            end.fd = call::accept(listener).expect("accept");
            let mut bytes = vec![0; FIRST.len()];
            call::receive_all(end.fd, &mut bytes);
            assert!(bytes == FIRST);
            call::send_all(end.fd, b"thanks");
            assert!(call::recv(end.fd, 1, 0) == Ok(Vec::new()), "the end");
            call::close(end.fd).expect("close");
        }
        end.fd = call::accept(listener).expect("accept");
        end.recv(FIRST.len(), libc::MSG_WAITALL);
        call::close(listener).expect("close");
        drop(allowed);
    } else {
        let address = SocketAddr::new(end.peer(), end.ask().parse().expect("a port"));
        let mut is_there = false;
        for _ in 0..FAST_OPENS_MAX {
            end.tell("more");
            end.fd = connect_first(&address, first);
            let mut bytes = [0; 6];
            call::receive_all(end.fd, &mut bytes);
            let info = tcp_info::get(end.fd).expect("TCP_INFO");
            call::close(end.fd).expect("close");
            is_there = info.tcpi_options & SYN_DATA != 0;
            if is_there {
                break;
            }
        }
        end.see("data with the first segment", is_there);
        end.tell("enough");
        end.fd = connect_first(&address, first);
    }
    end.accelerate();
    still_there(end);
}

/// A connection whose first segment may have data.
fn connect_first(address: &SocketAddr, first: First) -> RawFd {
    let fd = call::socket(address).expect("socket");
    match first {
        First::ByFlag => {
            let sent = send_first(fd, address).expect("sendto");
            assert!(sent == FIRST.len());
        }
        First::ByOption => {
            call::set(fd, TCP, libc::TCP_FASTOPEN_CONNECT, 1).expect("setsockopt");
            call::connect(fd, address).expect("connect");
            call::send_all(fd, FIRST);
        }
    }
    fd
}

/// One end has a crowd of connections, and sends the number of each on it; the other one lets them wait, and then accepts all.
fn backlog(end: &mut End) {
    let fds = if end.active {
        let address = SocketAddr::new(end.peer(), end.ask().parse().expect("a port"));
        let fds = [(); CROWD].map(|()| call::socket(&address).expect("socket"));
        let mut waiting = Vec::new();
        for (number, fd) in fds.into_iter().enumerate() {
            call::set_nonblocking(fd, true).expect("fcntl");
            end.see("connect", call::connect(fd, &address));
            if call::send(fd, &[number as u8], libc::MSG_NOSIGNAL).is_err() {
                waiting.push(number);
            }
        }
        end.note(format!("{} could not send at once", waiting.len()));
        end.meet();
        for number in waiting {
            end.fd = fds[number];
            end.polled(OUT);
            call::send_all(end.fd, &[number as u8]);
        }
        for (number, fd) in fds.into_iter().enumerate() {
            call::set_nonblocking(fd, false).expect("fcntl");
            let mut reply = [0];
            call::receive_all(fd, &mut reply);
            end.see("number", reply == [number as u8]);
        }
        fds
    } else {
        let any = SocketAddr::new(end.address(), 0);
        let listener = call::socket(&any).expect("socket");
        call::listen(listener, &any, 1).expect("listen");
        end.tell(call::local(listener).expect("getsockname").port());
        end.meet();
        // Who sends waits for all before it: none may keep the others from their places.
        let accepted = [(); CROWD].map(|()| call::accept(listener).expect("accept"));
        let mut fds = [-1; CROWD];
        for fd in accepted {
            let mut number = [0];
            call::receive_all(fd, &mut number);
            call::send_all(fd, &number);
            let place = &mut fds[usize::from(number[0])];
            assert!(*place < 0, "{} came twice", number[0]);
            *place = fd;
        }
        end.fd = listener;
        end.poll(IN);
        call::close(listener).expect("close");
        fds
    };
    for fd in fds {
        end.fd = fd;
        end.accelerate();
        still_there(end);
    }
}
