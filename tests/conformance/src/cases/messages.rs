// SPDX-License-Identifier: GPL-2.0

//! sendmsg and recvmsg, one message or several, with control data.

use std::{mem, os::fd::RawFd, ptr};

use nix::errno::Errno;

use super::calls::unbroken;
use crate::{call, case::cases, end::End, message};

/// Level of options and control messages of TCP.
const TCP: i32 = libc::IPPROTO_TCP;

/// The option that asks for the number of bytes that are left, and the control message that has it.
const INQ: i32 = 36;

/// The most pieces that a message may have.
const PIECES_MAX: usize = 1024;

/// Bytes of a page, and of as many pages as a message may have pieces.
const PAGE: usize = 4096;
const PAGES: usize = PIECES_MAX * PAGE;

cases! {
    /// Messages in pieces.
    pieces: |left| {
        left.see("sendmsg", message::send(left.fd, &[b"ab", b"", b"cdefg", b"h"], b"", 0));
        left.see("sendmsg no pieces", message::send(left.fd, &[], b"", 0));
        left.meet();
    }, |right| {
        right.arrived(8);
        received(right, &[1, 0, 3], 0, libc::MSG_PEEK);
        received(right, &[1, 0, 3], 0, 0);
        received(right, &[2, 100, 5], 0, libc::MSG_PEEK);
        received(right, &[2, 100, 5], 64, 0);
        received(right, &[], 0, libc::MSG_DONTWAIT);
        received(right, &[1], 0, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// The flags that a message returns.
    returned_flags: |left| {
        left.send(b"0123456789", 0);
        left.meet();
    }, |right| {
        right.arrived(10);
        received(right, &[2], 0, libc::MSG_TRUNC);
        received(right, &[2], 0, libc::MSG_EOR);
        received(right, &[2], 0, libc::MSG_CMSG_CLOEXEC | libc::MSG_WAITALL);
        received(right, &[2], 0, libc::MSG_PEEK | libc::MSG_DONTWAIT);
        received(right, &[2], 0, libc::MSG_ERRQUEUE);
        right.meet();
    };

    /// TCP_INQ: how many bytes are left, after each read.
    bytes_left: |left| {
        left.send(b"0123456789", 0);
        left.meet();
        left.meet();
        left.send(b"abcdef", 0);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.see("set", call::set(right.fd, TCP, INQ, 1));
        right.see("get", call::get(right.fd, TCP, INQ));
        right.meet();
        right.arrived(10);
        received(right, &[3], 64, 0);
        received(right, &[3], 64, libc::MSG_PEEK);
        received(right, &[2, 1], 64, 0);
        received(right, &[1], 0, 0);
        received(right, &[1], 16, 0);
        received(right, &[100], 64, 0);
        received(right, &[100], 64, libc::MSG_DONTWAIT);
        right.meet();
        right.polled(libc::EPOLLRDHUP);
        received(right, &[2], 64, 0);
        received(right, &[4], 64, 0);
        received(right, &[4], 64, 0);
        right.see("unset", call::set(right.fd, TCP, INQ, 0));
        received(right, &[4], 64, 0);
        right.see("set to 2", call::set(right.fd, TCP, INQ, 2));
        right.meet();
    };

    /// TCP_INQ with much data: what is left, counted down to none.
    much_left: |left| {
        left.send(&call::pattern(0, 20_000), 0);
        left.meet();
    }, |right| {
        right.see("set", call::set(right.fd, TCP, INQ, 1));
        right.arrived(20_000);
        for _ in 0..4 {
            received(right, &[5000], 64, 0);
        }
        right.meet();
    };

    /// SO_TIMESTAMP: sooner or later, messages come with one.
    timestamp: |left| {
        while left.ask() == "more" {
            call::send_all(left.fd, b"x");
        }
        unbroken(left);
    }, |right| {
        right.see("set", call::set(right.fd, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1));
        let mut found = false;
        for _ in 0..100 {
            right.tell("more");
            let message = message::recv(right.fd, &[1], 64, 0).expect("recvmsg");
            found = message.control.iter().any(|(level, kind, data)| {
                (*level, *kind, data.len()) == (libc::SOL_SOCKET, libc::SO_TIMESTAMP, 16)
            });
            if found {
                break;
            }
            // The kernel begins to take them a little later.
            right.pause();
        }
        right.tell("enough");
        right.see("timestamp", found);
        unbroken(right);
    };

    /// Control data that makes no sense to a stream.
    control_data: |left| {
        let (fd, number) = (left.fd, 1i32.to_ne_bytes());
        let mut see = |what: &str, control: &[u8]| {
            let result = message::send(fd, &[what.as_bytes()], control, libc::MSG_NOSIGNAL);
            left.see(what, result);
        };
        see("unknown type", &message::control(libc::SOL_SOCKET, 0x7777, &number));
        see("unknown level", &message::control(0x7777, 1, &number));
        see("of TCP", &message::control(TCP, INQ, &number));
        see("of IP", &message::control(libc::IPPROTO_IP, libc::IP_TTL, &number));
        see("mark", &message::control(libc::SOL_SOCKET, libc::SO_MARK, &number));
        see("mark of 2 bytes", &message::control(libc::SOL_SOCKET, libc::SO_MARK, &number[..2]));
        see("rights", &message::control(libc::SOL_SOCKET, libc::SCM_RIGHTS, &number));
        see("time to send", &message::control(libc::SOL_SOCKET, libc::SCM_TXTIME, &[0; 8]));
        let mut long = message::control(libc::SOL_SOCKET, libc::SO_MARK, &number);
        long[0] = 200;
        see("longer than all", &long);
        long[0] = 3;
        see("shorter than its header", &long);
        see("less than a header", &long[..8]);
        let two = [
            message::control(TCP, INQ, &number),
            message::control(libc::SOL_SOCKET, 0x7777, &number),
        ];
        see("the second one", &two.concat());
        see("very long", &message::control(TCP, INQ, &vec![0; 1 << 22]));
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.drain(1000);
        right.meet();
    };

    /// Headers that say impossible things.
    headers: |left| {
        let fd = left.fd;
        let bytes = [b'x'; 4];
        let mut pieces = vec![message::pieces(&[&bytes])[0]; PIECES_MAX + 1];
        let mut see = |what: &str, change: &dyn Fn(&mut libc::msghdr)| {
            let mut header = message::header(&mut pieces[..1]);
            change(&mut header);
            // SAFETY: What the header points to is valid for reads, as far as it is read.
            let result = call::check(unsafe { libc::sendmsg(fd, &header, libc::MSG_NOSIGNAL) });
            left.see(what, result);
        };
        let (mut name, mut control) = ([0xffu8; 200], [0u8; 64]);
        let (name, control) = (name.as_mut_ptr().cast(), control.as_mut_ptr().cast());
        see("nothing special", &|_| {});
        see("a name", &|header| (header.msg_name, header.msg_namelen) = (name, 16));
        see("a long name", &|header| (header.msg_name, header.msg_namelen) = (name, 200));
        see("a negative name", &|header| (header.msg_name, header.msg_namelen) = (name, u32::MAX));
        see("a name's length", &|header| header.msg_namelen = 16);
        see("flags", &|header| header.msg_flags = -1);
        see("control of none", &|header| header.msg_control = control);
        see("a control's length", &|header| header.msg_controllen = 64);
        see("too long control", &|header| {
            (header.msg_control, header.msg_controllen) = (control, usize::MAX);
        });
        see("pieces that are not", &|header| header.msg_iov = ptr::null_mut());
        see("no pieces", &|header| header.msg_iovlen = 0);
        see("1024 pieces", &|header| header.msg_iovlen = PIECES_MAX);
        see("1025 pieces", &|header| header.msg_iovlen = PIECES_MAX + 1);
        see("very many pieces", &|header| header.msg_iovlen = usize::MAX);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.drain(1 << 16);
        right.meet();
    };

    /// As many pieces as there may be, and one more.
    many_pieces: |left| {
        let bytes = call::pattern(0, 3 * PIECES_MAX);
        let parts: Vec<_> = bytes.chunks(3).collect();
        left.see("writev", message::writev(left.fd, &parts));
        left.see("sendmsg", message::send(left.fd, &parts, b"", 0));
        let parts = vec![b"x".as_slice(); PIECES_MAX + 1];
        left.see("writev of one more", message::writev(left.fd, &parts));
        left.see("sendmsg of one more", message::send(left.fd, &parts, b"", 0));
        left.meet();
        unbroken(left);
    }, |right| {
        right.arrived(6 * PIECES_MAX);
        right.see("readv", message::readv(right.fd, &[3; PIECES_MAX]));
        received(right, &[4; PIECES_MAX], 0, libc::MSG_PEEK);
        right.see("readv of one more", message::readv(right.fd, &[3; PIECES_MAX + 1]));
        received(right, &[3; PIECES_MAX + 1], 0, 0);
        received(right, &[3; PIECES_MAX], 0, 0);
        right.meet();
        unbroken(right);
    };

    /// As many pieces as there may be, each of a page.
    many_pages: |left| {
        let bytes = call::pattern(0, PAGES);
        let parts: Vec<_> = bytes.chunks(PAGE).collect();
        left.see("writev", message::writev(left.fd, &parts));
        left.see("sendmsg", message::send(left.fd, &parts, b"", 0));
        left.meet();
    }, |right| {
        right.see("readv", read_pages(right.fd));
        received(right, &[PAGE; PIECES_MAX], 0, libc::MSG_WAITALL);
        right.meet();
    };

    /// Pieces of lengths that are none.
    impossible_pieces: |left| {
        let fd = left.fd;
        let bytes = [b'x'; 4];
        let mut see = |what: &str, lens: [usize; 2]| {
            let mut pieces = [message::pieces(&[&bytes])[0]; 2];
            pieces[0].iov_len = lens[0];
            pieces[1].iov_len = lens[1];
            // SAFETY: The kernel refuses what is not valid for reads.
            let result = call::check(unsafe { libc::writev(fd, pieces.as_ptr(), 2) });
            left.see(&format!("writev, {what}"), result);
            let header = message::header(&mut pieces);
            // SAFETY: As above.
            let result = call::check(unsafe { libc::sendmsg(fd, &header, 0) });
            left.see(&format!("sendmsg, {what}"), result);
            // SAFETY: As above.
            let result = call::check(unsafe { libc::readv(fd, pieces.as_ptr(), 2) });
            left.see(&format!("readv, {what}"), result);
        };
        see("negative", [usize::MAX, 1]);
        see("negative afterwards", [1, usize::MAX]);
        see("more than there are addresses", [isize::MAX as usize, 1]);
        // SAFETY: The kernel refuses so many.
        let result = call::check(unsafe { libc::writev(fd, ptr::null(), -1) });
        left.see("writev of -1 pieces", result);
        unbroken(left);
    }, |right| {
        unbroken(right);
    };

    /// sendmmsg and recvmmsg: several messages.
    several: |left| {
        left.see("none", send_several(left.fd, &[], 0));
        left.see("three", send_several(left.fd, &[b"abc", b"", b"defgh"], 0));
        left.meet();
        left.meet();
        left.see("two", send_several(left.fd, &[b"ab", b"cdef"], libc::MSG_MORE));
        left.meet();
    }, |right| {
        receive_several(right, 0, libc::MSG_DONTWAIT, None);
        right.arrived(8);
        receive_several(right, 2, 0, None);
        receive_several(right, 1, libc::MSG_DONTWAIT, None);
        right.meet();
        receive_several(right, 1, libc::MSG_WAITFORONE, Some((0, -1)));
        right.meet();
        right.arrived(6);
        // The third one would have to wait.
        receive_several(right, 3, libc::MSG_WAITFORONE, None);
        right.meet();
    };

    /// recvmmsg looks at its time after each message.
    several_in_time: |left| {
        left.send(b"0123456789", 0);
        left.meet();
    }, |right| {
        right.arrived(10);
        receive_several(right, 2, 0, Some((0, 0)));
        receive_several(right, 2, 0, Some((100, 0)));
        receive_several(right, 2, libc::MSG_DONTWAIT, Some((100, 0)));
        receive_several(right, 2, 0, Some((0, 1_000_000_000)));
        right.meet();
    };

    /// Several messages, then the end.
    several_ended: |left| {
        left.send(b"0123", 0);
        left.shutdown(libc::SHUT_WR);
        left.see("three", send_several(left.fd, &[b"a", b"b", b"c"], libc::MSG_NOSIGNAL));
        left.meet();
    }, |right| {
        right.polled(libc::EPOLLRDHUP);
        receive_several(right, 3, 0, None);
        receive_several(right, 3, 0, None);
        right.meet();
    };
}

/// Reads as many pages as a message may have pieces, by calls that each ask for all that is left.
fn read_pages(fd: RawFd) -> Vec<u8> {
    let mut all = vec![0; PAGES];
    let mut done = 0;
    while done < PAGES {
        let rooms: Vec<_> = all[done..]
            .chunks_mut(PAGE)
            .map(|part| libc::iovec {
                iov_base: part.as_mut_ptr().cast(),
                iov_len: part.len(),
            })
            .collect();
        // SAFETY: The pieces are valid for writes.
        let count = unsafe { libc::readv(fd, rooms.as_ptr(), rooms.len() as i32) };
        let count = call::check(count).expect("readv");
        assert!(count > 0, "the stream ends after {done} bytes");
        done += count;
    }
    all
}

/// recvmsg(2), noted.
fn received(end: &mut End, sizes: &[usize], control_size: usize, flags: i32) {
    let result = message::recv(end.fd, sizes, control_size, flags);
    let total: usize = sizes.iter().sum();
    end.see(&format!("recvmsg {total}, {flags:#x}"), result);
}

/// sendmmsg(2): how many messages, and how many bytes of each.
fn send_several(fd: i32, messages: &[&[u8]], flags: i32) -> Result<String, Errno> {
    let mut pieces: Vec<_> = messages
        .iter()
        .map(|bytes| message::pieces(&[bytes]))
        .collect();
    let mut headers: Vec<_> = pieces
        .iter_mut()
        .map(|pieces| libc::mmsghdr {
            msg_hdr: message::header(pieces),
            msg_len: 0,
        })
        .collect();
    let len = headers.len() as u32;
    // SAFETY: All that the headers point to is valid for reads.
    let result = unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), len, flags) };
    let count = Errno::result(result)? as usize;
    let lens: Vec<_> = headers[..count].iter().map(|each| each.msg_len).collect();
    Ok(format!("{count} {lens:?}"))
}

/// recvmmsg(2) of messages of 4 bytes each, with a time of seconds and nanoseconds, noted.
fn receive_several(end: &mut End, count: usize, flags: i32, time: Option<(i64, i64)>) {
    let mut parts = vec![[vec![0u8; 4]]; count];
    let mut pieces: Vec<_> = parts.iter_mut().map(|part| message::rooms(part)).collect();
    let mut headers: Vec<_> = pieces
        .iter_mut()
        .map(|pieces| libc::mmsghdr {
            msg_hdr: message::header(pieces),
            msg_len: 0,
        })
        .collect();
    // SAFETY: All fields may be zero.
    let mut timeout: libc::timespec = unsafe { mem::zeroed() };
    let mut at = ptr::null_mut();
    if let Some((seconds, nanoseconds)) = time {
        (timeout.tv_sec, timeout.tv_nsec) = (seconds, nanoseconds);
        at = &raw mut timeout;
    }
    let len = count as u32;
    // SAFETY: All that the headers point to is valid for writes.
    let result = unsafe { libc::recvmmsg(end.fd, headers.as_mut_ptr(), len, flags, at) };
    let result = Errno::result(result).map(|count| {
        let all: Vec<_> = headers[..count as usize]
            .iter()
            .zip(&parts)
            .map(|(header, [part])| part[..header.msg_len as usize].escape_ascii().to_string())
            .collect();
        format!("{count} {all:?}")
    });
    end.see(&format!("recvmmsg {count} {flags:#x} {time:?}"), result);
}
