// SPDX-License-Identifier: GPL-2.0

//! MSG_ZEROCOPY, and its notifications.

use nix::errno::Errno;

use crate::{call, case::cases, end::End, message};

cases! {
    /// Without SO_ZEROCOPY the flag means nothing, and nothing is notified.
    not_asked_for: |left| {
        left.send(b"0123456789", libc::MSG_ZEROCOPY);
        left.send(&call::pattern(0, 20_000), libc::MSG_ZEROCOPY);
        left.meet();
        left.recv(10, libc::MSG_ERRQUEUE);
        left.poll(libc::EPOLLERR);
    }, |right| {
        right.drain(20_010);
        right.meet();
    };

    /// With it, each message is notified, once it has arrived; the stream goes on.
    asked_for: |left| {
        left.see("set", call::set(left.fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1));
        left.see("get", call::get(left.fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY));
        let bytes = call::pattern(0, 20_000);
        left.send(&bytes[..10], libc::MSG_ZEROCOPY);
        left.send(&bytes[10..], libc::MSG_ZEROCOPY);
        left.send(b"not this one", 0);
        left.send(b"", libc::MSG_ZEROCOPY);
        left.send(b"x", libc::MSG_ZEROCOPY);
        notified(left, 3);
        left.recv(10, libc::MSG_ERRQUEUE);
        left.poll(libc::EPOLLERR | libc::EPOLLIN);
        left.meet();
        left.recv(10, 0);
        left.meet();
    }, |right| {
        right.drain(20_013);
        right.meet();
        right.send(b"and back", 0);
        right.meet();
    };

    /// A notification comes although nobody reads, and does not end a recv.
    nobody_reads: |left| {
        left.see("set", call::set(left.fd, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1));
        left.send(b"0123456789", libc::MSG_ZEROCOPY);
        let events = left.polled(0);
        left.see("polled", events);
        left.recv(10, libc::MSG_DONTWAIT);
        left.send(b"more", 0);
        left.meet();
        left.recv(8, libc::MSG_WAITALL);
        notified(left, 1);
        left.meet();
    }, |right| {
        right.arrived(14);
        right.meet();
        right.send(b"and back", 0);
        right.recv(20, 0);
        right.meet();
    };
}

/// Waits until so many messages have been notified, in one notification or several.
fn notified(end: &mut End, messages: u32) {
    let mut next = 0;
    while next < messages {
        end.polled(0);
        let message = match message::recv(end.fd, &[1], 256, libc::MSG_ERRQUEUE) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => continue,
            Err(errno) => panic!("recvmsg: {errno}"),
        };
        assert!(message.bytes.is_empty(), "a notification has no bytes");
        for (level, kind, data) in message.control {
            end.note(format!("control message {level} {kind}"));
            let word = |at: usize| {
                let bytes = data[at..at + 4].try_into();
                u32::from_ne_bytes(bytes.expect("4 bytes"))
            };
            // Of struct sock_extended_err. Whether there was a copy all the same is not said here.
            assert_eq!(word(0), 0, "the error");
            assert_eq!(data[4], 5, "SO_EE_ORIGIN_ZEROCOPY");
            assert_eq!(word(8), next, "the first message");
            next = word(12) + 1;
        }
    }
    end.see("notified", next);
}
