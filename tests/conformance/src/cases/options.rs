// SPDX-License-Identifier: GPL-2.0

//! Options of a connected socket: what can be set, what is read back, and that the stream goes on.

use std::os::fd::RawFd;

use nix::errno::Errno;

use super::addresses::device;
use crate::{call, case::cases, end::End, thread::Caller};

// These are the same on all architectures that Xen runs on; libc lacks them for some C libraries.
const SO_ZEROCOPY: i32 = 60;
const SO_PREFER_BUSY_POLL: i32 = 69;
const SO_BUSY_POLL_BUDGET: i32 = 70;
const SO_RESERVE_MEM: i32 = 73;
const SO_TXREHASH: i32 = 74;
const SO_RCVMARK: i32 = 75;
const SO_RCVPRIORITY: i32 = 82;
const TCP_TX_DELAY: i32 = 37;

const SOCKET: i32 = libc::SOL_SOCKET;
const TCP: i32 = libc::IPPROTO_TCP;
const IP: i32 = libc::IPPROTO_IP;

/// Options that are a number: what they are called, which they are, and values to set.
const NUMBERS: &[(&str, i32, i32, &[i32])] = &[
    ("REUSEADDR", SOCKET, libc::SO_REUSEADDR, &[0, 1, 7]),
    ("REUSEPORT", SOCKET, libc::SO_REUSEPORT, &[1, 0]),
    ("KEEPALIVE", SOCKET, libc::SO_KEEPALIVE, &[1, 0, 1]),
    ("BROADCAST", SOCKET, libc::SO_BROADCAST, &[1, 0]),
    ("OOBINLINE", SOCKET, libc::SO_OOBINLINE, &[1, 0]),
    ("DONTROUTE", SOCKET, libc::SO_DONTROUTE, &[0]),
    ("NO_CHECK", SOCKET, libc::SO_NO_CHECK, &[1, 0]),
    ("PRIORITY", SOCKET, libc::SO_PRIORITY, &[5, 0]),
    ("MARK", SOCKET, libc::SO_MARK, &[17, 0]),
    ("RCVLOWAT", SOCKET, libc::SO_RCVLOWAT, &[0, 100, -1, 1]),
    ("SNDLOWAT", SOCKET, libc::SO_SNDLOWAT, &[1]),
    ("PASSCRED", SOCKET, libc::SO_PASSCRED, &[1, 0]),
    ("RXQ_OVFL", SOCKET, libc::SO_RXQ_OVFL, &[1, 0]),
    ("WIFI_STATUS", SOCKET, libc::SO_WIFI_STATUS, &[1, 0]),
    ("NOFCS", SOCKET, libc::SO_NOFCS, &[1]),
    (
        "SELECT_ERR_QUEUE",
        SOCKET,
        libc::SO_SELECT_ERR_QUEUE,
        &[1, 0],
    ),
    ("BUSY_POLL", SOCKET, libc::SO_BUSY_POLL, &[50, -1, 0]),
    ("PREFER_BUSY_POLL", SOCKET, SO_PREFER_BUSY_POLL, &[1, 0]),
    ("BUSY_POLL_BUDGET", SOCKET, SO_BUSY_POLL_BUDGET, &[8, -1]),
    ("ZEROCOPY", SOCKET, SO_ZEROCOPY, &[1, 0, 2]),
    ("RESERVE_MEM", SOCKET, SO_RESERVE_MEM, &[-1, 0]),
    ("TXREHASH", SOCKET, SO_TXREHASH, &[0, 1, 2]),
    ("RCVMARK", SOCKET, SO_RCVMARK, &[1, 0]),
    ("RCVPRIORITY", SOCKET, SO_RCVPRIORITY, &[1, 0]),
    ("SNDBUF", SOCKET, libc::SO_SNDBUF, &[0, 4096, -1, 65536]),
    ("RCVBUF", SOCKET, libc::SO_RCVBUF, &[0, 4096, -1, 65536]),
    ("SNDBUFFORCE", SOCKET, libc::SO_SNDBUFFORCE, &[-1, 65536]),
    ("RCVBUFFORCE", SOCKET, libc::SO_RCVBUFFORCE, &[-1, 65536]),
    ("ERROR", SOCKET, libc::SO_ERROR, &[1]),
    ("TYPE", SOCKET, libc::SO_TYPE, &[1]),
    ("ACCEPTCONN", SOCKET, libc::SO_ACCEPTCONN, &[1]),
    ("NODELAY", TCP, libc::TCP_NODELAY, &[1, 0, 2]),
    ("CORK", TCP, libc::TCP_CORK, &[1, 0]),
    ("QUICKACK", TCP, libc::TCP_QUICKACK, &[0, 1, 2]),
    ("KEEPIDLE", TCP, libc::TCP_KEEPIDLE, &[60, 0, 32768]),
    ("KEEPINTVL", TCP, libc::TCP_KEEPINTVL, &[5, 0, 32768]),
    ("KEEPCNT", TCP, libc::TCP_KEEPCNT, &[3, 0, 128]),
    ("SYNCNT", TCP, libc::TCP_SYNCNT, &[4, 0, 256]),
    ("LINGER2", TCP, libc::TCP_LINGER2, &[10, -1, 1 << 20, 0]),
    ("DEFER_ACCEPT", TCP, libc::TCP_DEFER_ACCEPT, &[0]),
    ("WINDOW_CLAMP", TCP, libc::TCP_WINDOW_CLAMP, &[0, 65536]),
    ("MAXSEG", TCP, libc::TCP_MAXSEG, &[1, 1 << 17, 1000]),
    (
        "USER_TIMEOUT",
        TCP,
        libc::TCP_USER_TIMEOUT,
        &[30_000, -1, 0],
    ),
    (
        "THIN_LINEAR",
        TCP,
        libc::TCP_THIN_LINEAR_TIMEOUTS,
        &[1, 0, 2],
    ),
    ("THIN_DUPACK", TCP, libc::TCP_THIN_DUPACK, &[1, 0, 2]),
    ("CLOCK", TCP, libc::TCP_TIMESTAMP, &[1]),
    ("NOTSENT_LOWAT", TCP, libc::TCP_NOTSENT_LOWAT, &[16384, 0]),
    ("SAVE_SYN", TCP, libc::TCP_SAVE_SYN, &[0, 3]),
    ("FASTOPEN", TCP, libc::TCP_FASTOPEN, &[5, -1]),
    ("FASTOPEN_CONNECT", TCP, libc::TCP_FASTOPEN_CONNECT, &[1, 0]),
    ("INQ", TCP, libc::TCP_INQ, &[1, 0, 2]),
    ("TX_DELAY", TCP, TCP_TX_DELAY, &[-1]),
    ("REPAIR_QUEUE", TCP, libc::TCP_REPAIR_QUEUE, &[1]),
    ("QUEUE_SEQ", TCP, libc::TCP_QUEUE_SEQ, &[1]),
    ("TOS", IP, libc::IP_TOS, &[0x10, 0xff, 0]),
    ("TTL", IP, libc::IP_TTL, &[33, 0, 256, 64]),
    ("MTU_DISCOVER", IP, libc::IP_MTU_DISCOVER, &[2, 9, 1]),
    ("RECVERR", IP, libc::IP_RECVERR, &[1, 0]),
    ("RECVTOS", IP, libc::IP_RECVTOS, &[1, 0]),
    ("RECVTTL", IP, libc::IP_RECVTTL, &[1, 0]),
    ("PKTINFO", IP, libc::IP_PKTINFO, &[1, 0]),
    ("FREEBIND", IP, libc::IP_FREEBIND, &[1, 0]),
    ("TRANSPARENT", IP, libc::IP_TRANSPARENT, &[1, 0]),
    ("MINTTL", IP, libc::IP_MINTTL, &[1, 256, 0]),
    // With these a connection leaves the ring for good.
    ("TIMESTAMP", SOCKET, libc::SO_TIMESTAMP, &[1, 0]),
    ("TIMESTAMPNS", SOCKET, libc::SO_TIMESTAMPNS, &[1, 0]),
];

/// Those whose value TCP changes by itself.
const RESTLESS: &[&str] = &["QUICKACK", "MAXSEG", "WINDOW_CLAMP", "CLOCK"];

/// Those whose value TCP changes by itself until somebody sets them.
const AUTOMATIC: &[&str] = &["SNDBUF", "RCVBUF", "RCVLOWAT"];

cases! {
    /// What each option is on a connection that has been used.
    all_read: |left| {
        for (what, level, name, _) in NUMBERS {
            let value = call::get(left.fd, *level, *name);
            if RESTLESS.contains(what) || AUTOMATIC.contains(what) {
                left.see(what, value.map(drop));
            } else {
                left.see(what, value);
            }
        }
        still_there(left);
    }, |right| {
        still_there(right);
    };

    /// Each option set to each value, and read back, with bytes both ways under each.
    all_set: |left| {
        all_set(left);
        still_there(left);
    }, |right| {
        for (what, _, _, values) in NUMBERS {
            for value in *values {
                exchange(right, false, what, *value);
            }
        }
        still_there(right);
    };

    /// Both ends set them, one value after the other, with bytes both ways under each.
    all_set_in_step: |left| {
        set_in_step(left, true);
    }, |right| {
        set_in_step(right, false);
    };

    /// Options that are set while a stream flows.
    set_in_stream: |left| {
        let fd = left.fd;
        let writer = Caller::start(move || {
            (0..8).for_each(|at| call::send_all(fd, &call::pattern(at << 16, 1 << 16)));
        });
        toggle(left.fd);
        writer.join();
        left.recv(100, 0);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let reader = Caller::start(move || {
            let mut all = vec![0; 8 << 16];
            call::receive_all(fd, &mut all);
            all
        });
        toggle(right.fd);
        right.see("stream", reader.join());
        right.send(b"thanks", 0);
        right.meet();
    };

    /// Options that are read while a stream flows.
    read_in_stream: |left| {
        let fd = left.fd;
        let writer = Caller::start(move || {
            (0..64).for_each(|at| call::send_all(fd, &call::pattern(at << 16, 1 << 16)));
        });
        while !writer.is_over() {
            for (_, level, name, _) in NUMBERS {
                let _ = call::get(fd, *level, *name);
            }
        }
        writer.join();
        left.recv(100, 0);
        left.meet();
    }, |right| {
        right.drain(64 << 16);
        right.send(b"thanks", 0);
        right.meet();
    };

    /// The congestion control by name.
    congestion: |left| {
        for name in ["reno", "cubic", "", "no such one", "a name that is longer than any name there is"] {
            let result = set_text(left.fd, TCP, libc::TCP_CONGESTION, name);
            left.see(&format!("set {name}"), result);
            let text = get_text(left.fd, TCP, libc::TCP_CONGESTION);
            // What it is where nothing could be set is the machine's choice.
            left.see("is it", text.map(|text| text == name));
            still_there(left);
        }
    }, |right| {
        (0..5).for_each(|_| still_there(right));
    };

    /// How close(2) lingers, and how long calls wait.
    times: |left| {
        for (on, time) in [(1, 5), (0, 7), (1, -1), (0, 0)] {
            let linger = libc::linger { l_onoff: on, l_linger: time };
            left.see("set linger", call::set(left.fd, SOCKET, libc::SO_LINGER, linger));
            left.see("linger", get_bytes(left.fd, SOCKET, libc::SO_LINGER));
        }
        for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
            for (seconds, micros) in [(5, 0), (0, 500_000), (0, 1_000_000), (-1, 0), (0, -1), (0, 0)] {
                let time = libc::timeval { tv_sec: seconds, tv_usec: micros };
                left.see("set time", call::set(left.fd, SOCKET, name, time));
                left.see("time", get_bytes(left.fd, SOCKET, name));
            }
        }
        still_there(left);
    }, |right| {
        still_there(right);
    };

    /// A rate that slows nothing down.
    pacing: |left| {
        for rate in [1u64 << 40, u64::MAX] {
            left.see("set", call::set(left.fd, SOCKET, libc::SO_MAX_PACING_RATE, rate));
            left.see("rate", get_bytes(left.fd, SOCKET, libc::SO_MAX_PACING_RATE));
            still_there(left);
        }
    }, |right| {
        still_there(right);
        still_there(right);
    };

    /// The connection is tied to the device by which it goes, to none, and to one that there is not.
    device: |left| {
        let name = device(left);
        for (what, device) in [("its own", name.as_str()), ("none", ""), ("unknown", "no-such-one")] {
            let result = set_text(left.fd, SOCKET, libc::SO_BINDTODEVICE, device);
            left.see(what, result);
            let text = get_text(left.fd, SOCKET, libc::SO_BINDTODEVICE);
            left.see("is it", text.map(|text| text == device));
            still_there(left);
        }
    }, |right| {
        (0..3).for_each(|_| still_there(right));
    };
}

/// Sets each option to each of its values.
fn all_set(end: &mut End) {
    for (what, level, name, values) in NUMBERS {
        for value in *values {
            let result = call::set(end.fd, *level, *name, *value);
            end.see(&format!("set {what} {value}"), result);
            let seen = call::get(end.fd, *level, *name);
            match RESTLESS.contains(what) {
                true => end.see(what, seen.map(drop)),
                false => end.see(what, seen),
            }
            exchange(end, true, what, *value);
        }
    }
}

/// Sets options one after the other, with an exchange under each value; `first` says who speaks first.
fn set_in_step(end: &mut End, first: bool) {
    for (what, level, name, values) in NUMBERS {
        // A corked end would only wait for its own timer.
        if *what == "CORK" {
            continue;
        }
        for value in *values {
            let result = call::set(end.fd, *level, *name, *value);
            end.see(&format!("set {what} {value}"), result);
            exchange(end, first, what, *value);
        }
    }
    still_there(end);
}

/// Some bytes to and fro after an option was set, unless nothing would come below such a mark; `first` says who speaks first.
fn exchange(end: &mut End, first: bool, what: &str, value: i32) {
    if (what, value) == ("RCVLOWAT", -1) {
        return;
    }
    let mut bytes = call::pattern(0, 100);
    if first {
        call::send_all(end.fd, &bytes);
        call::receive_all(end.fd, &mut bytes);
    } else {
        call::receive_all(end.fd, &mut bytes);
        call::send_all(end.fd, &bytes);
    }
    assert!(bytes == call::pattern(0, 100), "after {what} {value}");
}

/// Sets options on and off, those that may cost time but no bytes.
fn toggle(fd: RawFd) {
    for round in 0..100 {
        for (level, name, values) in [
            (TCP, libc::TCP_NODELAY, [1, 0]),
            (TCP, libc::TCP_CORK, [1, 0]),
            (TCP, libc::TCP_QUICKACK, [0, 1]),
            (TCP, libc::TCP_NOTSENT_LOWAT, [4096, 0]),
            (SOCKET, libc::SO_KEEPALIVE, [1, 0]),
            (SOCKET, libc::SO_PRIORITY, [3, 0]),
            (SOCKET, libc::SO_SNDBUF, [65536, 1 << 18]),
            (SOCKET, libc::SO_RCVBUF, [65536, 1 << 18]),
            (SOCKET, libc::SO_RCVLOWAT, [1, 0]),
            (IP, libc::IP_TOS, [0x10, 0]),
        ] {
            call::set(fd, level, name, values[round % 2]).expect("setsockopt");
        }
    }
}

/// Both ends say something to each other, and find it as it was said.
pub(super) fn still_there(end: &mut End) {
    end.send(&call::pattern(1000, 5000), 0);
    let mut all = vec![0; 5000];
    call::receive_all(end.fd, &mut all);
    end.see("still there", all == call::pattern(1000, 5000));
    end.meet();
}

fn set_text(fd: RawFd, level: i32, name: i32, text: &str) -> Result<(), Errno> {
    let size = text.len() as libc::socklen_t;
    // SAFETY: The text is valid for reads of its length.
    let result = unsafe { libc::setsockopt(fd, level, name, text.as_ptr().cast(), size) };
    Errno::result(result).map(drop)
}

fn get_text(fd: RawFd, level: i32, name: i32) -> Result<String, Errno> {
    let bytes = get_bytes(fd, level, name)?;
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn get_bytes(fd: RawFd, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0u8; 64];
    let mut size = bytes.len() as libc::socklen_t;
    // SAFETY: Both are valid for writes of their sizes.
    let result = unsafe { libc::getsockopt(fd, level, name, bytes.as_mut_ptr().cast(), &mut size) };
    Errno::result(result)?;
    bytes.truncate(size as usize);
    Ok(bytes)
}
