// SPDX-License-Identifier: GPL-2.0

//! What the socket's descriptor says of itself.

use std::{fs, os::fd::RawFd};

use nix::errno::Errno;

use super::{ALL, error};
use crate::{call, case::cases, end::End, tcp_info, thread::Caller};

// These are the same on all architectures that Xen runs on; libc lacks them.
const SIOCATMARK: libc::Ioctl = 0x8905;
const FIOGETOWN: libc::Ioctl = 0x8903;
const FIOSETOWN: libc::Ioctl = 0x8901;
const SIOCOUTQNSD: libc::Ioctl = 0x894b;
const SO_INCOMING_CPU: i32 = 49;
const SO_INCOMING_NAPI_ID: i32 = 56;
const SO_COOKIE: i32 = 57;

cases! {
    /// The file's kind and name in /proc.
    proc_and_stat: |left| {
        let path = format!("/proc/self/fd/{}", left.fd);
        let link = fs::read_link(path).map(|path| path.to_string_lossy().into_owned());
        let link = link.expect("readlink");
        let number = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        let inode = number.and_then(|digits| digits.parse::<u64>().ok());
        left.see("link names an inode", inode.is_some());
        let status = call::status(left.fd).expect("fstat");
        left.see("mode", format!("{:o}", status.st_mode));
        left.see("size", status.st_size);
        left.see("the same inode", inode == Some(status.st_ino));
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", left.fd)).expect("fdinfo");
        for line in info.lines().filter(|line| line.starts_with("pos") || line.starts_with("flags")) {
            left.see("fdinfo", line);
        }
        let opened = fs::File::open(format!("/proc/self/fd/{}", left.fd));
        left.see("open", opened.err().and_then(|error| error.raw_os_error()).unwrap_or(0));
        left.meet();
    }, |right| {
        right.meet();
    };

    /// The inode is the same before and after traffic, and for each duplicate.
    stays_the_same: |left| {
        let before = identity(left.fd);
        left.send(&call::pattern(0, 1 << 18), 0);
        left.recv(1, 0);
        left.see("the same", identity(left.fd) == before);
        let other = call::duplicate(left.fd);
        left.see("the same by dup", identity(other) == before);
        left.meet();
    }, |right| {
        right.drain(1 << 18);
        right.send(b"x", 0);
        right.meet();
    };

    /// The addresses are those of the machines, and the ports each other's.
    addresses: |left| {
        addresses(left);
    }, |right| {
        addresses(right);
    };

    /// Where the caller has little room for the address, or none.
    addresses_cut_short: |left| {
        for size in [0, 1, 2, 8, 16, 28, -1] {
            let mut raw = [0x55u8; 32];
            let mut len: libc::socklen_t = size as u32;
            // SAFETY: There is room for what the kernel writes: at most `size` and 28 bytes.
            let result = unsafe {
                Errno::result(libc::getpeername(left.fd, raw.as_mut_ptr().cast(), &mut len))
            };
            left.see(&format!("getpeername {size}"), result);
            left.see("size", len as i32);
            let written = raw.iter().rposition(|byte| *byte != 0x55).map_or(0, |at| at + 1);
            left.see("not more than fits", result.is_err() || written <= size as usize);
        }
        left.meet();
    }, |right| {
        right.meet();
    };

    /// What kind of a socket it is.
    kind: |left| {
        kind(left);
        left.send(b"x", 0);
        left.meet();
        left.polled(super::RDHUP);
        kind(left);
    }, |right| {
        right.recv(1, 0);
        kind(right);
        right.meet();
        right.close();
    };

    /// SIOCINQ, SIOCOUTQ and SIOCATMARK where nothing is on its way.
    queues: |left| {
        queues(left, 0);
        left.send(&call::pattern(0, 1000), 0);
        left.meet();
        left.meet();
        queues(left, 0);
        left.meet();
    }, |right| {
        right.arrived(1000);
        right.unread();
        queues(right, 1000);
        right.meet();
        right.recv(300, 0);
        queues(right, 700);
        right.recv(700, 0);
        queues(right, 0);
        right.meet();
        right.meet();
    };

    /// What TCP_INFO says between two exchanges.
    tcp_info: |left| {
        left.see("state", tcp_info::state(left.fd));
        left.see("congestion", tcp_info::congestion_state(left.fd));
        left.send(b"x", 0);
        left.recv(1, 0);
        left.see("state", tcp_info::state(left.fd));
        left.meet();
    }, |right| {
        right.recv(1, 0);
        right.see("state", tcp_info::state(right.fd));
        right.send(b"x", 0);
        right.meet();
    };

    /// What TCP_INFO says of times and sizes when all has been acknowledged.
    tcp_info_at_rest: |left| {
        left.send(&call::pattern(0, 10_000), 0);
        left.drain(10_000);
        at_rest(left);
    }, |right| {
        right.drain(10_000);
        right.send(&call::pattern(0, 10_000), 0);
        at_rest(right);
    };

    /// TCP_INFO, and any option, in part.
    info_in_part: |left| {
        let mut whole = [0u8; 512];
        for size in [-1, 0, 1, 4, 8, 104] {
            let mut len = size as libc::socklen_t;
            // SAFETY: There is room for more than `size` bytes.
            let result = unsafe {
                let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
                libc::getsockopt(left.fd, level, name, whole.as_mut_ptr().cast(), &mut len)
            };
            left.see(&format!("{size} bytes"), Errno::result(result));
            left.see("size", len as i32);
        }
        left.see("state", i32::from(whole[0]));
        left.meet();
    }, |right| {
        right.meet();
    };

    /// A cookie stays the same; which CPU and device data comes by can be asked.
    cookie: |left| {
        let before = wide(left.fd, SO_COOKIE);
        left.see("cookie", before.map(|cookie| cookie != 0));
        left.send(&call::pattern(0, 1 << 18), 0);
        left.recv(1, 0);
        left.see("the same", wide(left.fd, SO_COOKIE) == before);
        let napi = call::get(left.fd, libc::SOL_SOCKET, SO_INCOMING_NAPI_ID);
        left.see("NAPI", napi.map(drop));
        // SAFETY: No memory is passed.
        let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
        let cpu = call::get(left.fd, libc::SOL_SOCKET, SO_INCOMING_CPU);
        left.see("CPU is one of ours", cpu.map(|cpu| (0..count).contains(&cpu.into())));
        left.meet();
    }, |right| {
        right.drain(1 << 18);
        right.send(b"x", 0);
        right.meet();
    };

    /// SO_PEEK_OFF: each peek goes on where the last one ended, and reading takes from it.
    peek_offset: |left| {
        left.send(b"0123456789abcdefghij", 0);
        left.meet();
        left.send(b"KLM", 0);
        left.meet();
    }, |right| {
        let peek = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        right.arrived(20);
        peek_off(right);
        set_peek_off(right, 0);
        right.recv(4, peek);
        right.recv(4, peek);
        peek_off(right);
        right.recv(2, 0);
        peek_off(right);
        right.recv(4, peek);
        right.recv(10, 0);
        peek_off(right);
        right.recv(4, peek);
        set_peek_off(right, 6);
        right.recv(100, peek);
        right.recv(100, peek);
        peek_off(right);
        right.meet();
        right.arrived(11);
        right.recv(100, peek);
        for value in [-1, -2, i32::MIN] {
            set_peek_off(right, value);
            right.recv(2, peek);
            right.recv(2, peek);
        }
        set_peek_off(right, 1000);
        right.recv(2, peek);
        right.recv(100, 0);
        right.meet();
    };

    /// A peek at an offset sleeps until there is something.
    peek_offset_waits: |left| {
        sends_to_a_peek(left);
    }, |right| {
        peeks_at_an_offset(right, 4, libc::MSG_PEEK);
    };

    /// The same where nothing else has gone through the connection.
    peek_offset_waits_at_first bare: |left| {
        left.open(|_| {});
        sends_to_a_peek(left);
    }, |right| {
        right.open(|_| {});
        peeks_at_an_offset(right, 4, libc::MSG_PEEK);
    };

    /// A peek at an offset sleeps until there is as much as it wants.
    peek_offset_waits_for_all: |left| {
        sends_to_a_peek(left);
    }, |right| {
        peeks_at_an_offset(right, 2, libc::MSG_PEEK | libc::MSG_WAITALL);
    };

    /// The same where nothing else has gone through the connection.
    peek_offset_waits_for_all_at_first bare: |left| {
        left.open(|_| {});
        sends_to_a_peek(left);
    }, |right| {
        right.open(|_| {});
        peeks_at_an_offset(right, 2, libc::MSG_PEEK | libc::MSG_WAITALL);
    };

    /// Flags and owner of the file.
    flags_and_owner: |left| {
        // SAFETY: No memory is passed.
        let flags = |fd| unsafe { format!("{:o}", libc::fcntl(fd, libc::F_GETFL)) };
        left.see("flags", flags(left.fd));
        for (what, name) in [("nonblocking", libc::FIONBIO), ("signals", libc::FIOASYNC)] {
            for value in [1i32, 0] {
                let result = with_number(left.fd, name, value);
                left.see(&format!("{what} {value}"), result);
                left.see("flags", flags(left.fd));
            }
        }
        left.see("owner", call::ioctl(left.fd, FIOGETOWN));
        // SAFETY: No memory is passed.
        let own = unsafe { libc::getpid() };
        left.see("set owner", with_number(left.fd, FIOSETOWN, own));
        left.see("is owner", call::ioctl(left.fd, FIOGETOWN) == Ok(own));
        // SAFETY: No memory is passed.
        let owner = Errno::result(unsafe { libc::fcntl(left.fd, libc::F_GETOWN) });
        left.see("is owner", owner == Ok(own));
        left.send(b"still", 0);
        left.meet();
    }, |right| {
        right.recv(100, 0);
        right.meet();
    };

    /// What a socket cannot do.
    not_a_file: |left| {
        // SAFETY: No memory is passed but a null pointer, at which nobody looks.
        unsafe {
            let seek = Errno::result(libc::lseek(left.fd, 0, libc::SEEK_CUR));
            left.see("lseek", seek);
            left.see("fsync", Errno::result(libc::fsync(left.fd)));
            left.see("ftruncate", Errno::result(libc::ftruncate(left.fd, 0)));
            left.see("isatty", Errno::result(libc::isatty(left.fd)));
            left.see("flock", Errno::result(libc::flock(left.fd, libc::LOCK_EX)));
            left.see("chmod", Errno::result(libc::fchmod(left.fd, 0o600)));
            let mut byte = 0u8;
            let pread = libc::pread(left.fd, (&raw mut byte).cast(), 1, 1);
            left.see("pread", call::check(pread));
        }
        left.see("ioctl", call::ioctl(left.fd, 0x1234));
        left.see("terminal", call::ioctl(left.fd, libc::TCGETS));
        error(left);
        left.poll(ALL);
        left.send(b"still", 0);
        left.meet();
    }, |right| {
        right.recv(100, 0);
        right.meet();
    };
}

/// The inode.
fn identity(fd: RawFd) -> u64 {
    call::status(fd).expect("fstat").st_ino
}

fn addresses(end: &mut End) {
    let local = call::local(end.fd).expect("getsockname");
    let remote = call::remote(end.fd).expect("getpeername");
    end.see("own address", local.ip().to_canonical() == end.address());
    end.see("peer", remote.ip().to_canonical() == end.peer());
    end.tell(local.port());
    let told = end.ask();
    end.see("peer's port", told == remote.port().to_string());
}

fn kind(end: &mut End) {
    for (what, name) in [
        ("type", libc::SO_TYPE),
        ("protocol", libc::SO_PROTOCOL),
        ("domain", libc::SO_DOMAIN),
        ("accepting", libc::SO_ACCEPTCONN),
    ] {
        end.see(what, call::get(end.fd, libc::SOL_SOCKET, name));
    }
}

/// Notes the queues' sizes where all that was sent has arrived; `unread` of it was not read.
fn queues(end: &mut End, unread: i32) {
    let fd = end.fd;
    // What the last acknowledgement says may still be on its way.
    end.until("all is acknowledged", || {
        call::ioctl(fd, libc::TIOCOUTQ) == Ok(0)
    });
    end.see("unread", call::ioctl(fd, libc::FIONREAD) == Ok(unread));
    end.see("unsent", call::ioctl(fd, SIOCOUTQNSD));
    end.see("at mark", call::ioctl(fd, SIOCATMARK));
}

/// Notes what TCP_INFO says when all that was sent has been acknowledged.
fn at_rest(end: &mut End) {
    end.meet();
    let fd = end.fd;
    end.until("all is acknowledged", || {
        call::ioctl(fd, libc::TIOCOUTQ) == Ok(0)
    });
    let info = tcp_info::get(fd).expect("TCP_INFO");
    end.see("round trip takes time", info.tcpi_rtt > 0);
    end.see("segments have a size", info.tcpi_snd_mss > 0);
    end.see("they come in one", info.tcpi_rcv_mss > 0);
    end.see("a window", info.tcpi_snd_cwnd > 0);
    end.see("path", info.tcpi_pmtu > 0);
    end.see("unacknowledged", info.tcpi_unacked);
    end.see("sent again", info.tcpi_retrans);
    end.see("lost", info.tcpi_lost);
    end.meet();
}

fn wide(fd: RawFd, name: i32) -> Result<u64, Errno> {
    let (mut value, mut size) = (0u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: Both are valid for writes of their sizes.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &mut size,
        )
    };
    Errno::result(result).map(|_| value)
}

fn peek_off(end: &mut End) {
    let result = call::get(end.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF);
    end.see("peek offset", result);
}

fn set_peek_off(end: &mut End, value: i32) {
    let result = call::set(end.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, value);
    end.see(&format!("set peek offset {value}"), result);
}

/// ioctl(2) that is passed a number.
fn with_number(fd: RawFd, request: libc::Ioctl, mut value: i32) -> Result<(), Errno> {
    // SAFETY: `value` is valid for reads of the number that these requests take.
    Errno::result(unsafe { libc::ioctl(fd, request, &raw mut value) }).map(drop)
}

/// Sends four bytes, and four more when the other end sleeps.
fn sends_to_a_peek(end: &mut End) {
    end.send(b"0123", 0);
    end.meet();
    end.send(b"4567", 0);
    end.meet();
}

/// Peeks at so many bytes of the first four, and at four more.
fn peeks_at_an_offset(end: &mut End, first: usize, flags: i32) {
    end.arrived(4);
    set_peek_off(end, 0);
    end.recv(first, flags);
    let fd = end.fd;
    let caller = Caller::asleep(move || call::recv(fd, 4, flags));
    end.meet();
    end.see("peek", caller.join());
    peek_off(end);
    end.recv(8, libc::MSG_WAITALL);
    end.meet();
}
