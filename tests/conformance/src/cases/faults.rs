// SPDX-License-Identifier: GPL-2.0

//! Memory that the kernel cannot read or write: errors, and streams that stay whole.
//!
//! How much of a message goes before such memory ends it depends on how the kernel cuts it into packets;
//! only messages that are surely one packet show a count.

use std::ptr;

use nix::errno::Errno;

use super::calls::unbroken;
use crate::{
    call,
    case::cases,
    memory::{self, KERNEL, PAGE, Pages},
    message,
    options::Way,
    splice,
    thread::Caller, //
};

/// Bytes of a message of which not all is there. So much arrives although nobody reads.
const LARGE: usize = 8 * PAGE;

/// Bytes that come in many pieces, and room for some of them.
const MUCH: usize = 256 << 10;
const ROOM: usize = 100 << 10;

cases! {
    /// send from memory that is not there.
    send_from_nowhere: |left| {
        let (fd, pages) = (left.fd, Pages::new(PAGE));
        left.see("bad page", memory::send(fd, pages.bad(), 10, 0));
        left.see("null", memory::send(fd, ptr::null(), 10, 0));
        left.see("the kernel's", memory::send(fd, KERNEL, 10, 0));
        left.see("null, of no bytes", memory::send(fd, ptr::null(), 0, 0));
        left.see("bad page, of no bytes", memory::send(fd, pages.bad(), 0, 0));
        left.see("many", memory::send(fd, pages.bad(), PAGE, libc::MSG_DONTWAIT | libc::MSG_MORE));
        unbroken(left);
    }, |right| {
        unbroken(right);
    };

    /// recv to memory that is not there: nothing is lost.
    recv_to_nowhere: |left| {
        left.send(b"0123456789", 0);
        left.meet();
        unbroken(left);
    }, |right| {
        let (fd, pages) = (right.fd, Pages::new(PAGE));
        right.arrived(10);
        right.see("bad page", memory::recv(fd, pages.bad(), 10, 0));
        right.see("null", memory::recv(fd, ptr::null_mut(), 10, 0));
        right.see("the kernel's", memory::recv(fd, KERNEL, 10, 0));
        right.see("null, of no bytes", memory::recv(fd, ptr::null_mut(), 0, 0));
        right.see("peek", memory::recv(fd, pages.bad(), 10, libc::MSG_PEEK));
        right.see("wait for all", memory::recv(fd, pages.bad(), 10, libc::MSG_WAITALL));
        pages.protect();
        right.see("read-only page", memory::recv(fd, pages.last(10), 10, 0));
        right.unread();
        right.recv(10, 0);
        right.see("none left", memory::recv(fd, pages.bad(), 10, libc::MSG_DONTWAIT));
        right.meet();
        unbroken(right);
    };

    /// Whoever waits for bytes learns only then that there is no room for them.
    recv_to_nowhere_later: |left| {
        left.meet();
        left.send(b"0123456789", 0);
        left.meet();
    }, |right| {
        let (fd, pages) = (right.fd, Pages::new(PAGE));
        let bad = pages.bad().expose_provenance();
        let caller = Caller::asleep(move || {
            memory::recv(fd, ptr::with_exposed_provenance_mut(bad), 10, 0)
        });
        right.see("the kernel's", memory::recv(fd, KERNEL, 10, 0));
        right.meet();
        right.see("recv", caller.join());
        right.arrived(10);
        right.recv(10, 0);
        right.meet();
    };

    /// A small message whose second half is not there: nothing of it goes.
    send_half: |left| {
        let (fd, pages) = (left.fd, Pages::new(PAGE));
        pages.put(b"0123456789");
        left.see("send 20 of 10", memory::send(fd, pages.last(10), 20, 0));
        left.see("send 10 of 10", memory::send(fd, pages.last(10), 10, 0));
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.drain(100);
        right.meet();
    };

    /// Room for half of a small message: nothing of it is taken.
    recv_half: |left| {
        left.send(b"0123456789abcdefghij", 0);
        left.meet();
    }, |right| {
        let (fd, pages) = (right.fd, Pages::new(PAGE));
        right.arrived(20);
        right.see("recv 20 to 10", memory::recv(fd, pages.last(10), 20, 0));
        right.see("peek 20 to 10", memory::recv(fd, pages.last(10), 20, libc::MSG_PEEK));
        right.unread();
        right.see("recv 5 to 10", memory::recv(fd, pages.last(10), 5, 0));
        right.see("bytes", pages.get(10, 5));
        right.see("recv 11 to 10", memory::recv(fd, pages.last(10), 11, 0));
        right.recv(20, 0);
        right.meet();
    };

    /// Room for more than what comes, not all of it there: what is not needed is not missed.
    recv_enough: |left| {
        left.send(b"0123456789", 0);
        left.meet();
    }, |right| {
        let (fd, pages) = (right.fd, Pages::new(PAGE));
        right.arrived(10);
        right.see("recv 100 to 10", memory::recv(fd, pages.last(10), 100, 0));
        right.see("bytes", pages.get(10, 10));
        right.meet();
    };

    /// The second piece is not there.
    second_piece: |left| {
        let (fd, pages) = (left.fd, Pages::new(PAGE));
        let mut pieces = message::pieces(&[b"0123456789", b"abcdefghij"]);
        pieces[1].iov_base = pages.bad().cast();
        // SAFETY: The kernel refuses what is not valid for reads.
        left.see("writev", call::check(unsafe { libc::writev(fd, pieces.as_ptr(), 2) }));
        let header = message::header(&mut pieces);
        // SAFETY: As above.
        left.see("sendmsg", call::check(unsafe { libc::sendmsg(fd, &header, 0) }));
        pieces[1].iov_base = KERNEL.cast();
        // SAFETY: As above.
        left.see("writev, the kernel's", call::check(unsafe { libc::writev(fd, pieces.as_ptr(), 2) }));
        left.send(b"0123456789abcdefghij", 0);
        left.meet();
        unbroken(left);
    }, |right| {
        let (fd, pages) = (right.fd, Pages::new(PAGE));
        let mut parts = [vec![0; 10], vec![0; 10]];
        let mut pieces = message::rooms(&mut parts);
        pieces[1].iov_base = pages.bad().cast();
        right.arrived(20);
        // SAFETY: The kernel refuses what is not valid for writes.
        right.see("readv", call::check(unsafe { libc::readv(fd, pieces.as_ptr(), 2) }));
        let mut header = message::header(&mut pieces);
        // SAFETY: As above.
        right.see("recvmsg", call::check(unsafe { libc::recvmsg(fd, &mut header, 0) }));
        right.recv(10, 0);
        // SAFETY: As above. What there is fits into the first piece.
        right.see("readv of enough", call::check(unsafe { libc::readv(fd, pieces.as_ptr(), 2) }));
        right.see("bytes", std::mem::take(&mut parts[0]));
        right.meet();
        unbroken(right);
    };

    /// Headers, pieces, names, control data that are not there.
    headers: |left| {
        let (fd, pages) = (left.fd, Pages::new(PAGE));
        let (bad, mut bytes) = (pages.bad(), *b"0123456789");
        // SAFETY: The kernel refuses what is not valid.
        left.see("sendmsg", call::check(unsafe { libc::sendmsg(fd, bad.cast(), 0) }));
        // SAFETY: As above.
        left.see("recvmsg", call::check(unsafe { libc::recvmsg(fd, bad.cast(), libc::MSG_DONTWAIT) }));
        // SAFETY: As above.
        left.see("writev", call::check(unsafe { libc::writev(fd, bad.cast(), 1) }));
        // SAFETY: As above.
        left.see("readv", call::check(unsafe { libc::readv(fd, bad.cast(), 1) }));
        // SAFETY: As above.
        left.see("sendmmsg", Errno::result(unsafe { libc::sendmmsg(fd, bad.cast(), 1, 0) }));
        let mut see = |what: &str, change: &dyn Fn(&mut libc::msghdr)| {
            let mut pieces = message::pieces(&[&bytes]);
            pieces[0].iov_base = bytes.as_mut_ptr().cast();
            let mut header = message::header(&mut pieces);
            change(&mut header);
            // SAFETY: As above.
            left.see(&format!("sendmsg, {what}"), call::check(unsafe { libc::sendmsg(fd, &header, 0) }));
            // SAFETY: As above.
            let result = call::check(unsafe { libc::recvmsg(fd, &mut header, libc::MSG_DONTWAIT) });
            left.see(&format!("recvmsg, {what}"), result);
        };
        see("pieces", &|header| header.msg_iov = bad.cast());
        see("a name", &|header| (header.msg_name, header.msg_namelen) = (bad.cast(), 16));
        see("control data", &|header| (header.msg_control, header.msg_controllen) = (bad.cast(), 64));
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.drain(100);
        right.meet();
    };

    /// What recvmsg cannot return, but has received: it is taken all the same.
    unreturned: |left| {
        left.send(b"0123456789", 0);
        left.meet();
    }, |right| {
        right.see("set", call::set(right.fd, libc::IPPROTO_TCP, 36, 1));
        right.arrived(10);
        let pages = Pages::new(PAGE);
        for (name, control) in [(false, true), (true, false)] {
            let mut parts = [vec![0; 3]];
            let mut rooms = message::rooms(&mut parts);
            let mut header = message::header(&mut rooms);
            if control {
                (header.msg_control, header.msg_controllen) = (pages.bad().cast(), 64);
            }
            if name {
                (header.msg_name, header.msg_namelen) = (pages.bad().cast(), 16);
            }
            // SAFETY: The kernel refuses what is not valid for writes.
            right.see("recvmsg", call::check(unsafe { libc::recvmsg(right.fd, &mut header, 0) }));
            right.see("flags", header.msg_flags);
            right.see("control", header.msg_controllen);
            right.see("bytes", std::mem::take(&mut parts[0]));
        }
        right.recv(10, 0);
        right.meet();
    };

    /// ioctls that have no room for their number.
    ioctls: |left| {
        let pages = Pages::new(PAGE);
        for request in [libc::FIONREAD, libc::TIOCOUTQ, 0x894b, 0x8905] {
            // SAFETY: The kernel refuses what is not valid for writes.
            let result = Errno::result(unsafe { libc::ioctl(left.fd, request, pages.bad()) });
            left.see(&format!("ioctl {request:#x}"), result);
        }
        unbroken(left);
    }, |right| {
        unbroken(right);
    };

    /// A large message that ends where memory does: what went is the beginning of it, and no more
    /// than there was; the rest follows.
    send_large_half: |left| {
        let bytes = call::pattern(0, LARGE);
        let pages = Pages::new(LARGE);
        pages.put(&bytes);
        let (mut sent, mut most) = (0, true);
        for _ in 0..3 {
            let left_over = LARGE - sent;
            let result = memory::send(left.fd, pages.last(left_over), left_over + PAGE, 0);
            left.note(format!("{result:?}"));
            match result {
                Ok(count) => {
                    most &= count <= left_over;
                    sent += count;
                }
                Err(errno) => left.note(format!("after {sent} of {LARGE}: {errno}")),
            }
            if sent == LARGE {
                break;
            }
        }
        left.see("no more than there was", most);
        call::send_all(left.fd, &bytes[sent..]);
        left.see("nothing there", memory::send(left.fd, pages.bad(), PAGE, 0));
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.drain(LARGE + 1);
        right.meet();
    };

    /// Room for half of a large message: what is taken is the beginning, and the rest is still there.
    recv_large_half: |left| {
        left.send(&call::pattern(0, LARGE), 0);
        left.send(&call::pattern(LARGE, LARGE), 0);
        left.meet();
    }, |right| {
        let half = LARGE / 2;
        let (pages, mut all) = (Pages::new(half), Vec::new());
        right.arrived(LARGE);
        for flags in [0, libc::MSG_WAITALL, libc::MSG_DONTWAIT] {
            let result = memory::recv(right.fd, pages.last(half), LARGE, flags);
            right.note(format!("{result:?}"));
            if let Ok(count) = result {
                all.extend(pages.get(half, count));
            }
        }
        let mut rest = vec![0; 2 * LARGE - all.len()];
        call::receive_all(right.fd, &mut rest);
        all.extend(rest);
        right.see("all", all);
        right.recv(1, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// Room for a part of what many pieces bring: those that fit are taken, and the rest is still there.
    recv_many_pieces: |left| {
        left.meet();
        left.send(&call::pattern(0, MUCH), 0);
        left.meet();
    }, |right| {
        let (fd, pages) = (right.fd, Pages::new(ROOM));
        let at = pages.last(ROOM).expose_provenance();
        let caller = Caller::asleep(move || {
            let to = ptr::with_exposed_provenance_mut(at);
            memory::recv(fd, to, 2 * ROOM, libc::MSG_WAITALL)
        });
        right.meet();
        let result = caller.join();
        right.note(format!("{result:?}"));
        let taken = result.unwrap_or(0);
        right.see("no more than there is room for", taken <= ROOM);
        right.see("some on the ring", taken > 0 || right.way != Way::Ring);
        let mut all = pages.get(ROOM, taken);
        all.resize(MUCH, 0);
        call::receive_all(right.fd, &mut all[taken..]);
        right.see("all", all);
        right.recv(1, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// A message of many pieces, sent while somebody reads, that ends where memory does.
    send_many_pieces: |left| {
        let bytes = call::pattern(0, 4 * MUCH);
        let pages = Pages::new(bytes.len());
        pages.put(&bytes);
        let from = pages.last(bytes.len());
        let result = memory::send(left.fd, from, bytes.len() + PAGE, 0);
        left.note(format!("{result:?}"));
        let sent = result.unwrap_or(0);
        left.see("some", sent > 0);
        left.see("no more than there was", sent <= bytes.len());
        call::send_all(left.fd, &bytes[sent..]);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        right.drain(4 * MUCH + 1);
        right.meet();
    };

    /// Memory that is there, but that nobody has touched: sent, it is zeros; it can be filled.
    untouched: |left| {
        let pages = Pages::new(LARGE);
        left.see("send", memory::send(left.fd, pages.last(LARGE), LARGE, 0));
        left.send(&call::pattern(0, LARGE), 0);
        left.meet();
    }, |right| {
        let pages = Pages::new(LARGE);
        for _ in 0..2 {
            let result = memory::recv(right.fd, pages.last(LARGE), LARGE, libc::MSG_WAITALL);
            right.see("recv", result);
            right.see("bytes", pages.get(LARGE, LARGE));
        }
        right.meet();
    };

    /// Memory behind the end of a file.
    behind_the_end_of_a_file: |left| {
        let page = file_page();
        left.see("send", memory::send(left.fd, page, 10, 0));
        left.meet();
        unbroken(left);
    }, |right| {
        right.meet();
        call::send_all(right.fd, b"still there");
        right.arrived(11);
        right.see("recv", memory::recv(right.fd, file_page(), 10, 0));
        right.recv(20, 0);
        right.meet();
    };
}

/// A page that is mapped from a file that has none.
fn file_page() -> *mut u8 {
    let (file, access) = (splice::file(b""), libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: New memory is mapped.
    let start = unsafe { libc::mmap(ptr::null_mut(), PAGE, access, libc::MAP_SHARED, file, 0) };
    assert!(start != libc::MAP_FAILED, "mmap: {}", Errno::last());
    start.cast()
}
