// SPDX-License-Identifier: GPL-2.0

//! io_uring. What it reads into stays for as long as the process.

use io_uring::{cqueue, opcode, squeue, types};

use super::{calls::unbroken, fill, reset};
use crate::{
    call,
    case::cases,
    end::End,
    message,
    splice,
    stream,
    uring::{self, Buffers, Uring}, //
};

/// Size of each buffer that is provided.
const PROVIDED: usize = 16;

/// The option that asks for the number of bytes that are left.
const INQ: i32 = 36;

/// Messages for a ring of buffers; some need two of these.
const MESSAGES: &[&str] = &[
    "a",
    "bcd",
    "0123456789abcdef",
    "0123456789abcdef0123",
    "e",
    "fg",
    "0123456789abcdefghijklmnop",
    "h",
    "the last one",
];

cases! {
    /// send and recv of what is there.
    send_and_recv: |left| {
        let mut ring = Uring::new();
        ring.submit(0, &[send(left, b"hello", 0)]);
        ring.see(left, "send", 1);
        ring.submit(0, &[send(left, b"", 0)]);
        ring.see(left, "send nothing", 1);
        left.meet();
    }, |right| {
        let mut ring = Uring::new();
        right.arrived(5);
        let [peeked, part, rest] = [room(10), room(2), room(10)];
        ring.submit(0, &[recv(right, peeked, libc::MSG_PEEK)]);
        ring.see(right, "peek", 1);
        ring.submit(0, &[recv(right, part, 0)]);
        ring.see(right, "recv", 1);
        ring.submit(0, &[recv(right, rest, 0)]);
        ring.see(right, "recv", 1);
        ring.submit(0, &[recv(right, room(10), libc::MSG_DONTWAIT)]);
        ring.see(right, "recv none", 1);
        for at in [peeked, part, rest] {
            right.see("bytes", bytes(at));
        }
        right.meet();
    };

    /// read and write, also by a worker.
    read_and_write: |left| {
        let mut ring = Uring::new();
        let fd = types::Fd(left.fd);
        let write = |bytes: &'static [u8]| {
            opcode::Write::new(fd, bytes.as_ptr(), bytes.len() as u32).build()
        };
        ring.submit(0, &[write(b"abc")]);
        ring.see(left, "write", 1);
        ring.submit(0, &[write(b"defg").flags(squeue::Flags::ASYNC)]);
        ring.see(left, "write by a worker", 1);
        ring.submit(0, &[send(left, b"hi", 0).flags(squeue::Flags::ASYNC)]);
        ring.see(left, "send by a worker", 1);
        left.meet();
    }, |right| {
        let mut ring = Uring::new();
        right.arrived(9);
        let (first, second, third) = (room(3), room(4), room(10));
        let fd = types::Fd(right.fd);
        let read = |(at, len)| opcode::Read::new(fd, at, len).build();
        ring.submit(0, &[read(first)]);
        ring.see(right, "read", 1);
        ring.submit(0, &[read(second).flags(squeue::Flags::ASYNC)]);
        ring.see(right, "read by a worker", 1);
        ring.submit(0, &[recv(right, third, 0).flags(squeue::Flags::ASYNC)]);
        ring.see(right, "recv by a worker", 1);
        for at in [first, second, third] {
            right.see("bytes", bytes(at));
        }
        right.meet();
    };

    /// recv before there is anything.
    recv_waits: |left| {
        sends_now_and_then(left);
    }, |right| {
        receives_before_there_is_any(right, Uring::new());
    };

    /// The same, taken by a thread of the kernel.
    recv_waits_polled: |left| {
        sends_now_and_then(left);
    }, |right| {
        receives_before_there_is_any(right, Uring::polled());
    };

    /// sendmsg and recvmsg, with pieces and control data, also by a worker.
    messages: |left| {
        let mut ring = Uring::new();
        for flags in [squeue::Flags::empty(), squeue::Flags::ASYNC] {
            for _ in 0..2 {
                let pieces = message::pieces(&[b"ab", b"", b"cdefg"]).leak();
                let header = Box::leak(Box::new(message::header(pieces)));
                let entry = opcode::SendMsg::new(types::Fd(left.fd), &raw const *header).build();
                ring.submit(0, &[entry.flags(flags)]);
                ring.see(left, "sendmsg", 1);
            }
            left.meet();
        }
        left.meet();
    }, |right| {
        let mut ring = Uring::new();
        right.see("set", call::set(right.fd, libc::IPPROTO_TCP, INQ, 1));
        for flags in [squeue::Flags::empty(), squeue::Flags::ASYNC] {
            right.arrived(14);
            for size in [3, 100] {
                let control = recv_message(right, &mut ring, size, flags);
                right.see("left", control[2] as u32);
            }
            right.meet();
        }
        right.meet();
    };

    /// MSG_WAITALL waits for all pieces.
    wait_all: |left| {
        left.meet();
        left.send(b"abc", 0);
        left.meet();
        left.send(b"defghij", 0);
        left.send(b"klm", 0);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let mut ring = Uring::new();
        let (to, rest) = (room(10), room(10));
        ring.submit(0, &[recv(right, to, libc::MSG_WAITALL)]);
        right.meet();
        right.pause();
        right.see("quiet", ring.is_quiet());
        right.meet();
        ring.see(right, "recv", 1);
        right.see("bytes", bytes(to));
        ring.submit(0, &[recv(right, rest, libc::MSG_WAITALL)]);
        ring.see(right, "recv", 1);
        right.see("bytes", bytes(rest));
        right.meet();
    };

    /// A recv that is linked to a send begins when that has ended.
    linked: |left| {
        let mut ring = Uring::new();
        let to = room(8);
        ring.submit(0, &[
            send(left, b"hello", 0).flags(squeue::Flags::IO_LINK),
            recv(left, to, libc::MSG_WAITALL),
        ]);
        ring.see(left, "linked", 2);
        left.see("bytes", bytes(to));
        left.meet();
    }, |right| {
        right.recv(5, libc::MSG_WAITALL);
        right.send(b"and back", 0);
        right.meet();
    };

    /// A recv that ends because time is over, or somebody says so.
    cancelled: |left| {
        left.meet();
        left.send(b"abc", 0);
        left.meet();
    }, |right| {
        let mut ring = Uring::new();
        let to = room(10);
        ring.submit(0, &[recv(right, to, 0)]);
        right.see("quiet", ring.is_quiet());
        ring.submit(1, &[opcode::AsyncCancel::new(0).build()]);
        ring.see(right, "cancelled", 2);
        let time = types::Timespec::new().nsec(20_000_000);
        ring.submit(0, &[
            recv(right, to, 0).flags(squeue::Flags::IO_LINK),
            opcode::LinkTimeout::new(&time).build(),
        ]);
        ring.see(right, "too late", 2);
        ring.submit(0, &[opcode::AsyncCancel::new(7).build()]);
        ring.see(right, "nothing to cancel", 1);
        right.meet();
        right.arrived(3);
        right.recv(10, 0);
        right.meet();
    };

    /// poll, once and for several events.
    poll: |left| {
        left.meet();
        left.send(b"abc", 0);
        left.meet();
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let mut ring = Uring::new();
        let fd = types::Fd(right.fd);
        let poll = |events: i32| opcode::PollAdd::new(fd, events as u32).build();
        ring.submit(0, &[poll(libc::EPOLLOUT)]);
        ring.see(right, "poll to write", 1);
        ring.submit(0, &[poll(libc::EPOLLIN)]);
        right.see("quiet", ring.is_quiet());
        right.meet();
        ring.see(right, "poll to read", 1);
        right.recv(3, libc::MSG_WAITALL);
        ring.submit(0, &[poll(libc::EPOLLRDHUP)]);
        right.see("quiet", ring.is_quiet());
        right.meet();
        ring.see(right, "poll for the end", 1);
        right.meet();
    };

    /// send without a copy: two completions.
    send_without_copy: |left| {
        let bytes = call::pattern(0, 50_000).leak();
        let mut ring = Uring::new();
        let entry = |len: u32| {
            let operation = opcode::SendZc::new(types::Fd(left.fd), bytes.as_ptr(), len);
            operation.flags(libc::MSG_WAITALL).build()
        };
        let (small, large) = (entry(10), entry(50_000));
        ring.submit(0, &[small]);
        ring.see(left, "send", 2);
        ring.submit(0, &[large]);
        left.meet();
        let mut sent = 0;
        for entry in ring.wait(2) {
            sent += entry.result();
        }
        left.see("sent", sent);
        left.meet();
    }, |right| {
        right.drain(10);
        right.meet();
        right.drain(50_000);
        right.meet();
    };

    /// One recv for many messages, each into a buffer of those that were provided.
    many_messages: |left| {
        for text in ["a", "bcd", "0123456789abcdef", "0123456789abcdef0123", "e"] {
            left.ask();
            left.send(text.as_bytes(), 0);
        }
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let mut ring = Uring::new();
        let (at, _) = room(8 * PROVIDED);
        let provide = opcode::ProvideBuffers::new(at, PROVIDED as i32, 8, 1, 0).build();
        ring.submit(0, &[provide]);
        ring.see(right, "provide", 1);
        ring.submit(0, &[opcode::RecvMulti::new(types::Fd(right.fd), 1).build()]);
        // The fourth one needs two buffers.
        for messages in [1, 1, 1, 2, 1] {
            right.tell("next");
            for _ in 0..messages {
                for entry in ring.wait(1) {
                    let count = uring::result(&entry);
                    let buffer = io_uring::cqueue::buffer_select(entry.flags());
                    let buffer = usize::from(buffer.expect("a buffer"));
                    let more = io_uring::cqueue::more(entry.flags());
                    let len = *count.as_ref().expect("bytes") as u32;
                    let start = at.wrapping_add(buffer * PROVIDED);
                    right.see(&format!("more {more}, buffer {buffer}"), bytes((start, len)));
                }
            }
        }
        ring.see(right, "end", 1);
        right.meet();
    };

    /// The same with a ring of buffers, each of which is given back: there is one for any number of messages.
    ring_of_buffers: |left| {
        for text in MESSAGES {
            left.ask();
            left.send(text.as_bytes(), 0);
        }
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let mut ring = Uring::new();
        let buffers = Buffers::register(&ring, 4, 1);
        right.see("register", buffers.as_ref().map(drop).map_err(|errno| *errno));
        let mut buffers = buffers.expect("buffers");
        ring.submit(0, &[opcode::RecvMulti::new(types::Fd(right.fd), 1).build()]);
        for text in MESSAGES {
            right.tell("next");
            let mut left = text.len();
            while left > 0 {
                let entry = ring.wait(1).remove(0);
                let count = uring::result(&entry).expect("bytes");
                let number = cqueue::buffer_select(entry.flags()).expect("a buffer");
                let more = cqueue::more(entry.flags());
                let what = format!("more {more}, buffer {number}");
                right.see(&what, buffers.bytes(number, count));
                buffers.give(number);
                left -= count;
            }
        }
        ring.see(right, "end", 1);
        right.meet();
    };

    /// One recv for many messages, of which a reset is the last.
    many_and_reset: |left| {
        left.send(b"abc", 0);
        left.meet();
        reset(left);
        left.meet();
    }, |right| {
        let mut ring = Uring::new();
        let (at, _) = room(8 * PROVIDED);
        let provide = opcode::ProvideBuffers::new(at, PROVIDED as i32, 8, 1, 0).build();
        ring.submit(0, &[provide]);
        ring.see(right, "provide", 1);
        ring.submit(0, &[opcode::RecvMulti::new(types::Fd(right.fd), 1).build()]);
        ring.see(right, "recv", 1);
        right.see("bytes", bytes((at, 3)));
        right.meet();
        ring.see(right, "reset", 1);
        right.poll(super::ALL);
        super::error(right);
        right.recv(10, 0);
        right.meet();
    };

    /// One poll for many messages, until it is removed.
    many_polls: |left| {
        for _ in 0..3 {
            left.meet();
            left.send(b"abc", 0);
        }
        left.meet();
    }, |right| {
        let mut ring = Uring::new();
        let poll = opcode::PollAdd::new(types::Fd(right.fd), libc::POLLIN as u32).multi(true);
        ring.submit(0, &[poll.build()]);
        right.see("quiet", ring.is_quiet());
        for _ in 0..3 {
            right.meet();
            ring.see(right, "poll", 1);
            right.recv(10, 0);
        }
        right.see("quiet", ring.is_quiet());
        ring.submit(1, &[opcode::PollRemove::new(0).build()]);
        ring.see(right, "remove", 2);
        right.meet();
    };

    /// A recv that is linked to a poll.
    poll_and_recv: |left| {
        for text in ["abc", "defg"] {
            left.meet();
            left.send(text.as_bytes(), 0);
        }
        left.meet();
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let mut ring = Uring::new();
        let fd = types::Fd(right.fd);
        for _ in 0..3 {
            let to = room(10);
            let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
            ring.submit(0, &[
                poll.flags(squeue::Flags::IO_LINK),
                recv(right, to, libc::MSG_DONTWAIT),
            ]);
            right.see("quiet", ring.is_quiet());
            right.meet();
            ring.see(right, "linked", 2);
            right.see("bytes", bytes(to));
        }
        right.meet();
    };

    /// A send that waits for room is cancelled: nothing of it comes.
    send_cancelled: |left| {
        let sent = fill(left);
        let mut ring = Uring::new();
        ring.submit(0, &[send(left, call::pattern(0, 1000).leak(), 0)]);
        left.see("quiet", ring.is_quiet());
        ring.submit(1, &[opcode::AsyncCancel::new(0).build()]);
        ring.see(left, "cancelled", 2);
        left.tell(sent);
        left.meet();
        left.send(b"and on", 0);
        left.meet();
    }, |right| {
        stream::receive_told(right, 0);
        right.meet();
        right.drain(6);
        right.recv(1, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// No buffer is left for what comes: it stays in the stream.
    no_buffer: |left| {
        left.send(b"0123456789", 0);
        left.meet();
        unbroken(left);
    }, |right| {
        let mut ring = Uring::new();
        let (at, _) = room(4);
        let provide = opcode::ProvideBuffers::new(at, 4, 1, 1, 0).build();
        ring.submit(0, &[provide]);
        ring.see(right, "provide", 1);
        right.arrived(10);
        ring.submit(0, &[opcode::RecvMulti::new(types::Fd(right.fd), 1).build()]);
        ring.see(right, "recv", 2);
        right.see("bytes", bytes((at, 4)));
        right.recv(10, 0);
        right.meet();
        unbroken(right);
    };

    /// splice and shutdown, as operations of the ring.
    splice_and_shutdown: |left| {
        let [from, to] = call::pipe().expect("pipe");
        left.see("write", call::write(to, b"0123456789"));
        let mut ring = Uring::new();
        let fd = types::Fd(left.fd);
        ring.submit(0, &[opcode::Splice::new(types::Fd(from), -1, fd, -1, 10).build()]);
        ring.see(left, "splice", 1);
        ring.submit(0, &[opcode::Shutdown::new(fd, libc::SHUT_WR).build()]);
        ring.see(left, "shutdown", 1);
        ring.submit(0, &[send(left, b"x", libc::MSG_NOSIGNAL)]);
        ring.see(left, "send", 1);
        left.meet();
    }, |right| {
        let [from, to] = call::pipe().expect("pipe");
        right.polled(libc::EPOLLRDHUP);
        let mut ring = Uring::new();
        let fd = types::Fd(right.fd);
        for _ in 0..2 {
            ring.submit(0, &[opcode::Splice::new(fd, -1, types::Fd(to), -1, 20).build()]);
            ring.see(right, "splice", 1);
        }
        right.see("pipe", call::read(from, 100));
        right.see("more", splice::splice(right.fd, to, 10, 0));
        right.meet();
    };

    /// Much goes both ways at once.
    both_ways: |left| {
        both_ways(left, Uring::new());
    }, |right| {
        both_ways(right, Uring::new());
    };

    /// The same, taken by threads of the kernel.
    both_ways_polled: |left| {
        both_ways(left, Uring::polled());
    }, |right| {
        both_ways(right, Uring::polled());
    };
}

/// Sends and receives 1 MB at once.
fn both_ways(end: &mut End, mut ring: Uring) {
    const SIZE: usize = 1 << 20;
    let to = room(SIZE);
    ring.submit(
        0,
        &[
            send(end, call::pattern(0, SIZE).leak(), libc::MSG_WAITALL),
            recv(end, to, libc::MSG_WAITALL),
        ],
    );
    ring.see(end, "operation", 2);
    end.see("bytes", bytes(to));
    end.meet();
}

pub(super) fn send(end: &End, bytes: &'static [u8], flags: i32) -> squeue::Entry {
    opcode::Send::new(types::Fd(end.fd), bytes.as_ptr(), bytes.len() as u32)
        .flags(flags)
        .build()
}

pub(super) fn recv(end: &End, (at, len): (*mut u8, u32), flags: i32) -> squeue::Entry {
    opcode::Recv::new(types::Fd(end.fd), at, len)
        .flags(flags)
        .build()
}

/// Sends two messages and the end, each when the other end says so.
fn sends_now_and_then(end: &mut End) {
    for text in ["abc", "defg"] {
        end.meet();
        end.send(text.as_bytes(), 0);
    }
    end.meet();
    end.shutdown(libc::SHUT_WR);
    end.meet();
}

/// Receives a message of two pieces, the second one of `size` bytes, and returns its control data.
pub(super) fn recv_message(
    end: &mut End,
    ring: &mut Uring,
    size: usize,
    flags: squeue::Flags,
) -> &'static [u64] {
    let rooms = vec![vec![b'.'; 1], vec![b'.'; size]].leak();
    let pieces = message::rooms(rooms).leak();
    let header = Box::leak(Box::new(message::header(pieces)));
    // Numbers, as these are aligned for what the kernel writes.
    let control = vec![0u64; 8].leak();
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(control);
    let entry = opcode::RecvMsg::new(types::Fd(end.fd), &raw mut *header).build();
    ring.submit(0, &[entry.flags(flags)]);
    ring.see(end, "recvmsg", 1);
    end.see("bytes", rooms.concat());
    end.see("control", header.msg_controllen);
    end.see("flags", format!("{:#x}", header.msg_flags));
    control
}

/// Waits three times for what the other end sends then, or for its end.
pub(super) fn receives_before_there_is_any(end: &mut End, mut ring: Uring) {
    for flags in [
        squeue::Flags::empty(),
        squeue::Flags::ASYNC,
        squeue::Flags::empty(),
    ] {
        let to = room(10);
        ring.submit(0, &[recv(end, to, 0).flags(flags)]);
        end.see("quiet", ring.is_quiet());
        end.meet();
        ring.see(end, "recv", 1);
        end.see("bytes", bytes(to));
    }
    end.meet();
}

/// Room that stays, filled with dots.
pub(super) fn room(len: usize) -> (*mut u8, u32) {
    (vec![b'.'; len].leak().as_mut_ptr(), len as u32)
}

/// What is in it.
pub(super) fn bytes((at, len): (*mut u8, u32)) -> Vec<u8> {
    // SAFETY: It is valid for ever, and nobody writes to it now.
    unsafe { std::slice::from_raw_parts(at, len as usize) }.to_vec()
}
