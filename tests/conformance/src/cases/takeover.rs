// SPDX-License-Identifier: GPL-2.0

//! What takes a socket over from TCP, or looks into it: the stream must be the same with it, and go on
//! where it is refused.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::RawFd,
    ptr,
};

use nix::errno::Errno;

use super::options::still_there;
use crate::{
    bpf, call,
    case::cases,
    end::End,
    kcm, message, module,
    thread::Caller,
    tls::{self, Direction},
};

const SOCKET: i32 = libc::SOL_SOCKET;
const TCP: i32 = libc::IPPROTO_TCP;
const SO_TIMESTAMPING: i32 = libc::SO_TIMESTAMPING;

/// Exchanges up to which something takes a connection that asks for a ring meanwhile.
const EXCHANGES_MAX: usize = 12;

/// Bytes that a sockmap's program redirects at a time.
const REDIRECTED: usize = 200_000;

cases! {
    /// TLS takes both ends over when nothing is on its way.
    tls: |left| {
        tls_now(left);
    }, |right| {
        tls_now(right);
    };

    /// TLS, with data before it that was not read yet.
    tls_with_unread: |left| {
        left.send(b"in plain words", 0);
        left.see("take over", tls::take_over(left.fd));
        left.see("transmit", tls::set_keys(left.fd, Direction::Transmit));
        left.meet();
        left.send(b"under the seal", 0);
        left.meet();
    }, |right| {
        right.arrived(14);
        right.see("take over", tls::take_over(right.fd));
        right.recv(4, 0);
        right.recv(100, 0);
        right.see("receive", tls::set_keys(right.fd, Direction::Receive));
        right.meet();
        right.recv(14, libc::MSG_WAITALL);
        right.meet();
    };

    /// TLS takes over, but gets no keys: the stream goes on as it is.
    tls_without_keys: |left| {
        left.see("take over", tls::take_over(left.fd));
        left.see("take over", tls::take_over(left.fd));
        still_there(left);
    }, |right| {
        still_there(right);
    };

    /// Upper protocols that there are not.
    unknown_protocol: |left| {
        for name in [*b"none ", *b"\0\0\0\0\0", *b"mptcp", *b"a\xff\0 b"] {
            let text = name.escape_ascii().to_string();
            left.see(&text, call::set(left.fd, TCP, libc::TCP_ULP, name));
            still_there(left);
        }
    }, |right| {
        (0..4).for_each(|_| still_there(right));
    };

    /// TLS takes both ends of a connection that is new, or has been used for a while.
    tls_after bare: |left| {
        for_each_age(left, |left| {
            keys_now(left);
            left.meet();
            still_there(left);
        });
    }, |right| {
        for_each_age(right, |right| {
            keys_now(right);
            right.meet();
            still_there(right);
        });
    };

    /// A sockmap takes one end of such a connection.
    sockmap_after bare: |left| {
        for_each_age(left, |left| {
            let map = bpf::sockmap();
            put_at_last(left, map, 0, left.fd);
            still_there(left);
            left.see("close", call::close(map));
        });
    }, |right| {
        for_each_age(right, still_there);
    };

    /// A sockmap takes the socket, and loses it again.
    sockmap: |left| {
        let map = bpf::sockmap();
        put_at_last(left, map, 0, left.fd);
        still_there(left);
        left.see("take out", bpf::take_out(map));
        still_there(left);
        put_at_last(left, map, 0, left.fd);
        still_there(left);
        left.see("close", call::close(map));
        still_there(left);
    }, |right| {
        (0..4).for_each(|_| still_there(right));
    };

    /// A sockmap takes the socket with data unread; it is closed in there.
    sockmap_with_unread: |left| {
        left.arrived(10);
        let map = bpf::sockmap();
        put_at_last(left, map, 0, left.fd);
        left.unread();
        left.recv(4, 0);
        left.recv(100, 0);
        left.send(b"thanks", 0);
        left.close();
        left.meet();
    }, |right| {
        right.send(b"0123456789", 0);
        right.recv(6, libc::MSG_WAITALL);
        right.recv(100, 0);
        right.meet();
    };

    /// A sockmap whose program lets a socket send back what comes to it, until it is taken out.
    sockmap_echo: |left| {
        let map = bpf::sockmap();
        bpf::redirect(map);
        put_at_last(left, map, 0, left.fd);
        left.meet();
        left.meet();
        left.recv(10, libc::MSG_DONTWAIT);
        left.see("take out", bpf::take_out(map));
        left.meet();
        still_there(left);
    }, |right| {
        right.meet();
        for size in [10, 1000, REDIRECTED] {
            let fd = right.fd;
            let writer = Caller::start(move || call::send_all(fd, &call::pattern(size, size)));
            right.drain(size);
            writer.join();
        }
        right.meet();
        right.meet();
        still_there(right);
    };

    /// A sockmap whose program lets one socket send what comes to another one.
    sockmap_redirect bare: |left| {
        left.establish(|_| {});
        let first = left.fd;
        left.establish(|_| {});
        let second = left.fd;
        let map = bpf::sockmap();
        bpf::redirect(map);
        put_at_last(left, map, 0, first);
        put_at_last(left, map, 1, second);
        left.meet();
        left.meet();
        for (key, fd) in [(1, second), (0, first)] {
            left.see("take out", bpf::take_out_at(map, key));
            left.fd = fd;
            left.meet();
            still_there(left);
        }
    }, |right| {
        right.establish(|_| {});
        let first = right.fd;
        right.establish(|_| {});
        let second = right.fd;
        right.meet();
        for size in [10, 1000, REDIRECTED] {
            let writer = Caller::start(move || call::send_all(second, &call::pattern(size, size)));
            right.fd = first;
            right.drain(size);
            writer.join();
        }
        right.meet();
        for fd in [second, first] {
            right.fd = fd;
            right.meet();
            still_there(right);
        }
    };

    /// A multiplexor in the kernel takes messages out of the stream, and the socket is used again afterwards.
    multiplexor: |left| {
        let kcm = kcm::open();
        left.see("attach", kcm::attach(kcm, left.fd));
        left.meet();
        for _ in 0..4 {
            left.see("message", call::recv(kcm, 2 * kcm::MESSAGE, 0));
        }
        left.see("answer", call::send(kcm, b"thanks", 0));
        left.see("detach", kcm::detach(kcm, left.fd));
        left.meet();
        still_there(left);
    }, |right| {
        right.meet();
        right.send(&call::pattern(0, 4 * kcm::MESSAGE), 0);
        right.recv(6, libc::MSG_WAITALL);
        right.meet();
        still_there(right);
    };

    /// A multiplexor gets the socket when data is there that nobody has read.
    multiplexor_with_unread: |left| {
        left.arrived(3 * kcm::MESSAGE);
        let kcm = kcm::open();
        left.see("attach", kcm::attach(kcm, left.fd));
        for _ in 0..3 {
            left.see("message", call::recv(kcm, 2 * kcm::MESSAGE, 0));
        }
        left.meet();
        left.see("message", call::recv(kcm, 2 * kcm::MESSAGE, 0));
        left.see("close", call::close(kcm));
        left.meet();
    }, |right| {
        right.send(&call::pattern(0, 3 * kcm::MESSAGE), 0);
        right.meet();
        right.send(&call::pattern(0, kcm::MESSAGE), 0);
        right.meet();
    };

    /// Multiplexors take both ends, which speak to each other through them.
    multiplexors: |left| {
        multiplexed(left);
    }, |right| {
        multiplexed(right);
    };

    /// TCP_REPAIR looks into the queues; afterwards all is as before.
    repair: |left| {
        left.arrived(10);
        left.see("on", call::set(left.fd, TCP, libc::TCP_REPAIR, 1));
        left.see("repair", call::get(left.fd, TCP, libc::TCP_REPAIR));
        left.recv(100, libc::MSG_DONTWAIT);
        left.recv(100, libc::MSG_DONTWAIT | libc::MSG_PEEK);
        for queue in [1, 2] {
            left.see("queue", call::set(left.fd, TCP, libc::TCP_REPAIR_QUEUE, queue));
            let sequence = call::get(left.fd, TCP, libc::TCP_QUEUE_SEQ);
            left.see("sequence", sequence.map(drop));
            left.recv(100, libc::MSG_DONTWAIT | libc::MSG_PEEK);
            left.recv(100, libc::MSG_DONTWAIT);
        }
        left.see("no queue", call::set(left.fd, TCP, libc::TCP_REPAIR_QUEUE, 0));
        left.see("off", call::set(left.fd, TCP, libc::TCP_REPAIR, 0));
        left.recv(4, 0);
        left.recv(100, 0);
        left.meet();
        still_there(left);
    }, |right| {
        right.send(b"0123456789", 0);
        right.meet();
        still_there(right);
    };

    /// Both ends sign from now on.
    signed: |left| {
        signed(left);
    }, |right| {
        signed(right);
    };

    /// Both ends sign from the first segment on: the connection stays on TCP.
    signed_first bare: |left| {
        signed_first(left);
    }, |right| {
        signed_first(right);
    };

    /// TCP_ZEROCOPY_RECEIVE gives what it can in pages, and says what else to read.
    zerocopy_receive: |left| {
        call::send_all(left.fd, &call::pattern(0, ZEROCOPY));
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let bytes = zerocopy_receive(right);
        right.see("stream", bytes);
        right.meet();
    };

    /// Timestamps with what is received: sooner or later, messages come with one.
    receive_timestamps: |left| {
        let flags = libc::SOF_TIMESTAMPING_RX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
        left.see("set", call::set(left.fd, SOCKET, SO_TIMESTAMPING, flags));
        left.see("get", call::get(left.fd, SOCKET, SO_TIMESTAMPING));
        still_there(left);
        let found = comes_with_time(left);
        left.see("timestamp", found);
        left.see("off", call::set(left.fd, SOCKET, SO_TIMESTAMPING, 0));
        still_there(left);
        left.arrived(7);
        left.see("without", message::recv(left.fd, &[7], 256, 0));
        left.meet();
    }, |right| {
        still_there(right);
        while right.ask() == "more" {
            call::send_all(right.fd, b"x");
        }
        still_there(right);
        right.send(b"without", 0);
        right.meet();
    };

    /// A timestamp of when what was sent had been acknowledged.
    send_timestamps: |left| {
        let flags = libc::SOF_TIMESTAMPING_TX_ACK
            | libc::SOF_TIMESTAMPING_SOFTWARE
            | libc::SOF_TIMESTAMPING_OPT_ID
            | libc::SOF_TIMESTAMPING_OPT_TSONLY;
        left.see("set", call::set(left.fd, SOCKET, SO_TIMESTAMPING, flags));
        left.send(b"0123456789", 0);
        let fd = left.fd;
        left.until("a timestamp comes", || {
            call::poll(fd, 0, 0).is_ok_and(|events| events.0 & libc::POLLERR as u32 != 0)
        });
        let queued = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        left.recv(100, queued);
        left.recv(100, queued);
        left.poll(super::ALL);
        left.see("off", call::set(left.fd, SOCKET, SO_TIMESTAMPING, 0));
        left.meet();
        still_there(left);
    }, |right| {
        right.recv(10, libc::MSG_WAITALL);
        right.meet();
        still_there(right);
    };

    /// A filter that lets everything pass.
    filter_that_passes: |left| {
        left.see("attach", attach(left.fd, u32::MAX));
        still_there(left);
        left.see("detach", call::set(left.fd, SOCKET, libc::SO_DETACH_FILTER, 0));
        left.see("detach", call::set(left.fd, SOCKET, libc::SO_DETACH_FILTER, 0));
        still_there(left);
    }, |right| {
        still_there(right);
        still_there(right);
    };
}

/// Asks for bytes until some come with a control message that has their time.
fn comes_with_time(end: &mut End) -> bool {
    let mut found = false;
    for _ in 0..100 {
        end.tell("more");
        let message = message::recv(end.fd, &[1], 256, 0).expect("recvmsg");
        found = message.control.iter().any(|(level, kind, data)| {
            let size = 3 * size_of::<libc::timespec>();
            (*level, *kind, data.len()) == (SOCKET, libc::SCM_TIMESTAMPING, size)
        });
        if found {
            break;
        }
        // The kernel begins to take them a little later.
        end.pause();
    }
    end.tell("enough");
    found
}

/// TLS takes over, with keys for both directions.
fn keys_now(end: &mut End) {
    end.see("take over", tls::take_over(end.fd));
    end.see("transmit", tls::set_keys(end.fd, Direction::Transmit));
    end.see("receive", tls::set_keys(end.fd, Direction::Receive));
}

/// Calls `take` with new connections, one after the other, through which nothing has gone, a few bytes to and fro, and more, up to when they
/// ask for a ring, and beyond.
fn for_each_age(end: &mut End, take: impl Fn(&mut End)) {
    for exchanges in 0..=EXCHANGES_MAX {
        end.see("exchanges", exchanges);
        end.open(|_| {});
        (0..exchanges).for_each(|_| end.exchange());
        take(end);
        end.meet();
        end.close();
    }
}

/// Puts a socket into a place of a sockmap, which the frontend may refuse for the moment.
fn put_at_last(end: &mut End, map: RawFd, key: u32, fd: RawFd) {
    let mut result = Err(Errno::EBUSY);
    end.until("it is put", || {
        result = bpf::put_at(map, key, fd);
        result != Err(Errno::EBUSY)
    });
    end.see("put", result);
}

fn tls_now(end: &mut End) {
    const SIZE: usize = 1 << 18;
    keys_now(end);
    end.meet();
    still_there(end);
    if end.active {
        call::send_all(end.fd, &call::pattern(0, SIZE));
        end.drain(SIZE);
    } else {
        end.drain(SIZE);
        call::send_all(end.fd, &call::pattern(SIZE, SIZE));
    }
    end.meet();
}

/// `struct tcp_md5sig`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Signature {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix: u8,
    key_size: u16,
    device: i32,
    key: [u8; 80],
}

/// Has a socket sign what it sends to an address, and want what comes from there to be signed. A case about that fails where the kernel
/// cannot do it: it would show nothing.
fn sign(fd: RawFd, peer: IpAddr) -> Result<(), Errno> {
    use nix::sys::socket::{SockaddrLike, SockaddrStorage};
    let peer = SockaddrStorage::from(SocketAddr::new(peer, 0));
    // SAFETY: All fields may be zero, and the address fits.
    let signature = unsafe {
        let mut signature: Signature = std::mem::zeroed();
        let to = (&raw mut signature.address).cast::<u8>();
        ptr::copy_nonoverlapping(peer.as_ptr().cast(), to, peer.len() as usize);
        signature.key_size = 6;
        signature.key[..6].copy_from_slice(b"secret");
        signature
    };
    let result = call::set(fd, TCP, libc::TCP_MD5SIG, signature);
    assert_ne!(result, Err(Errno::ENOPROTOOPT), "the kernel signs nothing");
    result
}

fn signed(end: &mut End) {
    end.meet();
    let peer = call::remote(end.fd).expect("getpeername").ip();
    end.see("sign", sign(end.fd, peer));
    end.meet();
    still_there(end);
}

fn signed_first(end: &mut End) {
    let peer = end.peer();
    end.open(|fd| sign(fd, peer).expect("TCP_MD5SIG"));
    (0..EXCHANGES_MAX).for_each(|_| end.exchange());
    still_there(end);
    end.see("through a ring", module::through_ring(end.fd));
    end.meet();
}

/// Bytes for zero-copy reception, and those of the address space for them.
const ZEROCOPY: usize = 1 << 19;
const WINDOW: usize = 1 << 16;

/// The beginning of `struct tcp_zerocopy_receive`.
#[repr(C)]
struct Zerocopy {
    address: u64,
    length: u32,
    skip: u32,
}

/// All of the stream, by pages and by recv.
fn zerocopy_receive(end: &mut End) -> Vec<u8> {
    let mut all = Vec::new();
    let mut mapped = 0;
    // SAFETY: The kernel chooses where there is room.
    let window = unsafe {
        let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
        libc::mmap(ptr::null_mut(), WINDOW, read, shared, end.fd, 0)
    };
    end.see("mmap", window != libc::MAP_FAILED);
    loop {
        if window == libc::MAP_FAILED {
            break;
        }
        let mut request = Zerocopy {
            address: window.addr() as u64,
            length: WINDOW as u32,
            skip: 0,
        };
        let mut size = size_of_val(&request) as libc::socklen_t;
        // SAFETY: The request is valid for reads and writes, and the window is nobody else's.
        let result = unsafe {
            let at = (&raw mut request).cast();
            libc::getsockopt(end.fd, TCP, libc::TCP_ZEROCOPY_RECEIVE, at, &mut size)
        };
        match Errno::result(result) {
            Ok(_) => {}
            // This is how it says that there is nothing more.
            Err(Errno::EIO) => break,
            Err(errno) => {
                end.see("getsockopt", Err::<(), _>(errno));
                break;
            }
        }
        // SAFETY: The kernel has mapped so many bytes there; they do not change.
        let pages =
            unsafe { std::slice::from_raw_parts(window.cast::<u8>(), request.length as usize) };
        all.extend_from_slice(pages);
        mapped += pages.len();
        let mut left = request.skip as usize;
        while left > 0 {
            let part = call::recv(end.fd, left, 0).expect("recv");
            assert!(!part.is_empty(), "less than what was promised");
            left -= part.len();
            all.extend(part);
        }
        if request.length == 0 && request.skip == 0 {
            // There is nothing now: something comes, or the end.
            match call::recv(end.fd, 1, 0).expect("recv") {
                part if part.is_empty() => break,
                part => all.extend(part),
            }
        }
    }
    end.note(format!("{mapped} bytes in pages"));
    // If there is another way only.
    if all.is_empty() {
        all.resize(ZEROCOPY, 0);
        call::receive_all(end.fd, &mut all);
    }
    all
}

/// This end speaks through a multiplexor.
fn multiplexed(end: &mut End) {
    let kcm = kcm::open();
    end.see("attach", kcm::attach(kcm, end.fd));
    end.meet();
    for _ in 0..3 {
        end.see("send", call::send(kcm, &call::pattern(0, kcm::MESSAGE), 0));
        end.see("message", call::recv(kcm, 2 * kcm::MESSAGE, 0));
    }
    end.meet();
    end.see("detach", kcm::detach(kcm, end.fd));
    end.meet();
    still_there(end);
}

/// Attaches a filter that lets so much of each segment pass.
fn attach(fd: RawFd, verdict: u32) -> Result<(), Errno> {
    let mut code = [libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: verdict,
    }];
    let program = libc::sock_fprog {
        len: 1,
        filter: code.as_mut_ptr(),
    };
    call::set(fd, SOCKET, libc::SO_ATTACH_FILTER, program)
}
