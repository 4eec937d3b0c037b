// SPDX-License-Identifier: GPL-2.0

//! What calls that move bytes return.

use std::ptr;

use nix::errno::Errno;

use crate::{
    call,
    case::cases,
    end::End,
    message,
    thread::Caller, //
};

cases! {
    /// What is sent arrives.
    send_and_recv: |left| {
        left.send(b"hello", 0);
        left.recv(100, 0);
    }, |right| {
        right.recv(100, 0);
        right.send(b"and back", 0);
    };

    /// write and read.
    write_and_read: |left| {
        left.see("write", call::write(left.fd, b"hello"));
        left.see("write nothing", call::write(left.fd, b""));
        left.arrived(8);
        left.see("read part", call::read(left.fd, 4));
        left.see("read nothing", call::read(left.fd, 0));
        left.see("read the rest", call::read(left.fd, 100));
        left.meet();
    }, |right| {
        right.arrived(5);
        right.see("read", call::read(right.fd, 5));
        right.see("write", call::write(right.fd, b"and back"));
        right.meet();
        right.shutdown(libc::SHUT_WR);
        right.see("read nothing", call::read(right.fd, 0));
    };

    /// writev and readv, with pieces of no bytes among the others.
    writev_and_readv: |left| {
        left.see("writev", message::writev(left.fd, &[b"ab", b"", b"cdefg", b"h"]));
        left.see("writev nothing", message::writev(left.fd, &[b"", b""]));
        left.see("writev no pieces", message::writev(left.fd, &[]));
        left.meet();
    }, |right| {
        right.see("readv no pieces", message::readv(right.fd, &[]));
        right.arrived(8);
        right.see("readv part", message::readv(right.fd, &[1, 0, 3]));
        right.see("readv the rest", message::readv(right.fd, &[2, 100, 5]));
        right.meet();
    };

    /// Peeking takes nothing away, before and after a partial read.
    peek: |left| {
        left.send(b"0123456789", 0);
        left.meet();
    }, |right| {
        right.arrived(10);
        right.recv(4, libc::MSG_PEEK);
        right.recv(4, 0);
        right.recv(4, libc::MSG_PEEK);
        right.recv(100, libc::MSG_PEEK);
        right.recv(100, 0);
        right.recv(1, libc::MSG_PEEK | libc::MSG_DONTWAIT);
        right.meet();
    };

    /// Nothing is there to be read.
    nothing_to_read: |left| {
        left.meet();
    }, |right| {
        right.recv(10, libc::MSG_DONTWAIT);
        right.recv(0, libc::MSG_DONTWAIT);
        right.recv(0, libc::MSG_PEEK | libc::MSG_DONTWAIT);
        right.meet();
    };

    /// Messages of no bytes.
    zero_length: |left| {
        left.send(b"", 0);
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        right.arrived(1);
        right.recv(0, 0);
        right.recv(10, 0);
        right.meet();
    };

    /// recv of no bytes waits for some, and leaves them there; read of none waits for nothing.
    zero_length_waits: |left| {
        left.meet();
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        let fd = right.fd;
        right.see("read 0", call::read(fd, 0));
        right.see("readv 0", message::readv(fd, &[0, 0]));
        let caller = Caller::start(move || call::recv(fd, 0, 0));
        right.see("recv 0 sleeps", caller.falls_asleep());
        right.meet();
        right.see("recv 0", caller.join());
        right.arrived(1);
        right.recv(0, libc::MSG_WAITALL);
        right.recv(10, 0);
        right.meet();
    };

    /// Operations of no bytes after the end of the stream.
    zero_length_after_the_end: |left| {
        left.send(b"x", 0);
        left.shutdown(libc::SHUT_WR);
        left.meet();
        left.shutdown(libc::SHUT_RD);
        left.send(b"", libc::MSG_NOSIGNAL);
        left.see("write 0", Caller::start({
            // SAFETY: No handler is set.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
            let fd = left.fd;
            move || call::write(fd, b"")
        }).join());
    }, |right| {
        right.arrived(1);
        right.polled(libc::EPOLLRDHUP);
        right.recv(0, 0);
        right.recv(10, 0);
        right.recv(0, 0);
        right.recv(10, 0);
        right.recv(0, libc::MSG_DONTWAIT);
        right.recv(10, libc::MSG_DONTWAIT);
        right.recv(10, libc::MSG_PEEK);
        right.see("read 0", call::read(right.fd, 0));
        right.meet();
    };

    /// There is no position in a stream.
    positions: |left| {
        let fd = left.fd;
        // SAFETY: No memory is passed.
        left.see("lseek", Errno::result(unsafe { libc::lseek(fd, 0, libc::SEEK_SET) }));
        // SAFETY: No memory is passed.
        left.see("tell", Errno::result(unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) }));
        // SAFETY: No memory is passed.
        left.see("truncate", Errno::result(unsafe { libc::ftruncate(fd, 0) }));
        // SAFETY: No memory is passed.
        left.see("sync", Errno::result(unsafe { libc::fsync(fd) }));
        // SAFETY: The bytes are valid for reads.
        left.see("pwrite", call::check(unsafe { libc::pwrite(fd, b"ab".as_ptr().cast(), 2, 0) }));
        left.see("pwritev2 at 0", message::pwritev2(fd, b"ab", 0, 0));
        left.see("pwritev2 at -2", message::pwritev2(fd, b"ab", -2, 0));
        left.see("pwritev2", message::pwritev2(fd, b"ab", -1, 0));
        left.meet();
    }, |right| {
        let fd = right.fd;
        right.arrived(2);
        let mut bytes = [0; 4];
        // SAFETY: The bytes are valid for writes.
        right.see("pread", call::check(unsafe { libc::pread(fd, bytes.as_mut_ptr().cast(), 4, 0) }));
        right.see("preadv2 at 0", message::preadv2(fd, 4, 0, 0));
        right.see("preadv2", message::preadv2(fd, 4, -1, 0));
        right.meet();
    };

    /// The flags of preadv2 and pwritev2.
    positioned_flags: |left| {
        let fd = left.fd;
        for flag in RWF {
            left.see(&format!("pwritev2 {flag:#x}"), message::pwritev2(fd, b"ab", -1, flag));
        }
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.polled(libc::EPOLLRDHUP);
        let fd = right.fd;
        for flag in RWF {
            right.see(&format!("preadv2 {flag:#x}"), message::preadv2(fd, 1, -1, flag));
        }
        right.drain(100);
        right.meet();
    };

    /// preadv2 that must not wait.
    positioned_without_waiting: |left| {
        left.meet();
        left.send(b"abc", 0);
        left.meet();
    }, |right| {
        right.see("none", message::preadv2(right.fd, 4, -1, libc::RWF_NOWAIT));
        right.meet();
        right.arrived(3);
        right.see("some", message::preadv2(right.fd, 4, -1, libc::RWF_NOWAIT));
        right.see("none", message::preadv2(right.fd, 4, -1, libc::RWF_NOWAIT));
        right.meet();
    };

    /// Bytes go one way while others wait to be read.
    send_with_bytes_unread: |left| {
        left.send(b"one", 0);
        left.arrived(3);
        left.send(b"two", 0);
        left.arrived(6);
        left.recv(10, 0);
        left.meet();
    }, |right| {
        right.arrived(3);
        right.send(b"ONE", 0);
        right.arrived(6);
        right.send(b"TWO", 0);
        right.recv(10, 0);
        right.meet();
    };

    /// sendto with an address, recvfrom that asks for one: nobody needs one here.
    addresses: |left| {
        let (fd, address) = (left.fd, [0xffu8; 16]);
        // SAFETY: The bytes and the address are valid for reads.
        let sent = call::check(unsafe {
            libc::sendto(fd, b"abc".as_ptr().cast(), 3, 0, address.as_ptr().cast(), 16)
        });
        left.see("sendto", sent);
        // SAFETY: The bytes are valid for reads.
        let sent = call::check(unsafe { libc::sendto(fd, b"d".as_ptr().cast(), 1, 0, ptr::null(), 200) });
        left.see("sendto nobody", sent);
        // SAFETY: The bytes and the address are valid for reads, as far as they are read.
        let sent = call::check(unsafe {
            libc::sendto(fd, b"e".as_ptr().cast(), 1, 0, address.as_ptr().cast(), 1 << 20)
        });
        left.see("sendto a long address", sent);
        left.send(b"f", 0);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.polled(libc::EPOLLRDHUP);
        let (mut bytes, mut address, mut len) = ([0; 3], [0u8; 128], 128);
        // SAFETY: All three are valid for writes of their sizes.
        let count = call::check(unsafe {
            libc::recvfrom(right.fd, bytes.as_mut_ptr().cast(), 3, 0,
                address.as_mut_ptr().cast(), &mut len)
        });
        right.see("recvfrom", count);
        right.see("address", len);
        right.drain(10);
        right.meet();
    };

    /// A descriptor that is no socket, and one that is none.
    no_socket: |left| {
        left.see("recv", call::recv(-1, 1, 0));
        left.see("send", call::send(-1, b"x", 0));
        let [from, to] = call::pipe().expect("pipe");
        left.see("recv", call::recv(from, 1, 0));
        left.see("send", call::send(to, b"x", 0));
        unbroken(left);
    }, |right| {
        unbroken(right);
    };

    /// Flags that nobody knows, and those that are the kernel's own.
    unknown_flags: |left| {
        for bit in 0..31 {
            let flag = 1 << bit;
            // Those that ask for something have cases of their own.
            if flag & (libc::MSG_OOB | libc::MSG_MORE) == 0 {
                let result = call::send(left.fd, b"x", flag | libc::MSG_NOSIGNAL);
                left.see(&format!("send {flag:#x}"), result);
            }
        }
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.polled(libc::EPOLLRDHUP);
        for bit in 0..31 {
            let flag = 1 << bit;
            let result = call::recv(right.fd, 1, flag);
            right.see(&format!("recv {flag:#x}"), result);
        }
        right.drain(100);
        right.meet();
    };
}

/// All flags of preadv2 and pwritev2, and two that are none.
const RWF: [i32; 9] = [1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 1 << 30];

/// Shows that the stream still carries bytes in both directions.
pub(super) fn unbroken(end: &mut End) {
    call::send_all(end.fd, b"still there");
    end.arrived(11);
    end.recv(20, 0);
    end.meet();
}
