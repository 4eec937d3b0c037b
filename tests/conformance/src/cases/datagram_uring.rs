// SPDX-License-Identifier: GPL-2.0

//! io_uring with datagrams. What it reads into stays for as long as the process.

use io_uring::{cqueue, opcode, squeue, types};

use super::uring::{bytes, receives_before_there_is_any, recv, recv_message, room, send};
use crate::{
    call,
    case::cases,
    log::Events,
    message,
    uring::{self, Buffers, Uring}, //
};

const IP: i32 = libc::IPPROTO_IP;

/// Datagrams for a ring of buffers, each of which has 16 bytes.
const DATAGRAMS: &[&str] = &[
    "a",
    "bcd",
    "0123456789abcdef",
    "0123456789abcdefghijk",
    "e",
    "fg",
    "the last one",
];

cases! {
    /// send and recv of what is there, also by a worker.
    send_and_recv datagrams: |left| {
        let mut ring = Uring::new();
        ring.submit(0, &[send(left, b"hello", 0)]);
        ring.see(left, "send", 1);
        ring.submit(0, &[send(left, b"", 0)]);
        ring.see(left, "send nothing", 1);
        ring.submit(0, &[send(left, b"0123456789", 0).flags(squeue::Flags::ASYNC)]);
        ring.see(left, "send by a worker", 1);
        ring.submit(0, &[send(left, call::pattern(0, 20_000).leak(), 0)]);
        ring.see(left, "send much", 1);
        ring.submit(0, &[send(left, call::pattern(0, 70_000).leak(), 0)]);
        ring.see(left, "send too much", 1);
        left.meet();
    }, |right| {
        let mut ring = Uring::new();
        right.meet();
        let [peeked, part, none, all, much] = [10, 2, 10, 10, 30_000].map(room);
        let worker = squeue::Flags::ASYNC;
        for (what, entry) in [
            ("peek", recv(right, peeked, libc::MSG_PEEK)),
            ("recv a part", recv(right, part, libc::MSG_TRUNC)),
            ("recv nothing", recv(right, none, 0)),
            ("recv by a worker", recv(right, all, 0).flags(worker)),
            ("recv much", recv(right, much, 0)),
            ("recv none", recv(right, room(10), libc::MSG_DONTWAIT)),
        ] {
            ring.submit(0, &[entry]);
            ring.see(right, what, 1);
        }
        for at in [peeked, part, none, all, much] {
            right.see("bytes", bytes(at));
        }
    };

    /// recv before there is anything.
    recv_waits datagrams: |left| {
        for text in ["abc", "defg", ""] {
            left.meet();
            left.send(text.as_bytes(), 0);
        }
        left.meet();
    }, |right| {
        receives_before_there_is_any(right, Uring::new());
    };

    /// A recv that is linked to a send begins when that has ended.
    linked datagrams: |left| {
        let mut ring = Uring::new();
        let to = room(8);
        let linked = send(left, b"hello", 0).flags(squeue::Flags::IO_LINK);
        ring.submit(0, &[linked, recv(left, to, 0)]);
        ring.see(left, "linked", 2);
        left.see("bytes", bytes(to));
        left.meet();
    }, |right| {
        right.recv(100, 0);
        right.send(b"and back", 0);
        right.meet();
    };

    /// sendmsg and recvmsg, with pieces and control data.
    messages datagrams: |left| {
        let mut ring = Uring::new();
        let ttl = message::control(IP, libc::IP_TTL, &33i32.to_ne_bytes()).leak();
        for control in [&mut [][..], ttl] {
            let pieces = message::pieces(&[b"ab", b"", b"cdefg"]).leak();
            let header = Box::leak(Box::new(message::header(pieces)));
            if !control.is_empty() {
                header.msg_control = control.as_mut_ptr().cast();
                header.msg_controllen = control.len();
            }
            let entry = opcode::SendMsg::new(types::Fd(left.fd), &raw const *header).build();
            ring.submit(0, &[entry]);
            ring.see(left, "sendmsg", 1);
            left.meet();
        }
    }, |right| {
        let mut ring = Uring::new();
        right.see("set", call::set(right.fd, IP, libc::IP_RECVTTL, 1));
        for size in [3, 100] {
            right.meet();
            recv_message(right, &mut ring, size, squeue::Flags::empty());
        }
    };

    /// One recv for many datagrams, each into a buffer of a ring; one that is too long for a buffer is cut. A datagram of no bytes is the last.
    many_datagrams datagrams: |left| {
        for text in DATAGRAMS {
            left.ask();
            left.send(text.as_bytes(), 0);
        }
        left.ask();
        left.send(b"", 0);
        left.meet();
    }, |right| {
        let mut ring = Uring::new();
        let mut buffers = Buffers::register(&ring, 4, 1).expect("buffers");
        ring.submit(0, &[opcode::RecvMulti::new(types::Fd(right.fd), 1).build()]);
        for _ in DATAGRAMS {
            right.tell("next");
            let entry = ring.wait(1).remove(0);
            let count = uring::result(&entry).expect("bytes");
            let number = cqueue::buffer_select(entry.flags()).expect("a buffer");
            let what = format!("more {}, buffer {number}", cqueue::more(entry.flags()));
            right.see(&what, buffers.bytes(number, count));
            buffers.give(number);
        }
        right.tell("next");
        ring.see(right, "nothing", 1);
        right.meet();
    };

    /// poll, and a recv that is taken back.
    poll_and_cancel datagrams: |left| {
        left.meet();
        left.send(b"abc", 0);
        left.meet();
    }, |right| {
        let mut ring = Uring::new();
        let fd = types::Fd(right.fd);
        ring.submit(0, &[recv(right, room(10), 0)]);
        right.see("quiet", ring.is_quiet());
        ring.submit(1, &[opcode::AsyncCancel::new(0).build()]);
        ring.see(right, "cancelled", 2);
        ring.submit(0, &[opcode::PollAdd::new(fd, libc::EPOLLIN as u32).build()]);
        right.see("quiet", ring.is_quiet());
        right.meet();
        let events = ring.wait(1).remove(0).result();
        right.see("poll", Events(events as u32));
        right.recv(10, 0);
        right.meet();
    };

    /// send without a copy: two completions.
    send_without_copy datagrams: |left| {
        let bytes = call::pattern(0, 20_000).leak();
        let mut ring = Uring::new();
        for len in [10, 1000, 20_000] {
            let fd = types::Fd(left.fd);
            ring.submit(0, &[opcode::SendZc::new(fd, bytes.as_ptr(), len).build()]);
            left.meet();
            ring.see(left, "send", 2);
        }
    }, |right| {
        for _ in 0..3 {
            right.recv(30_000, 0);
            right.meet();
        }
    };

    /// The other end is closed while a recv waits.
    refused datagrams: |left| {
        let mut ring = Uring::new();
        left.meet();
        ring.submit(0, &[recv(left, room(10), 0)]);
        left.see("quiet", ring.is_quiet());
        left.send(b"x", 0);
        ring.see(left, "recv", 1);
        ring.submit(0, &[send(left, b"y", 0)]);
        ring.see(left, "send", 1);
        super::datagram_errors::refused(left);
        ring.submit(0, &[send(left, b"z", 0)]);
        ring.see(left, "send", 1);
    }, |right| {
        super::datagram_errors::tell_at_once();
        right.close();
        right.meet();
    };
}
