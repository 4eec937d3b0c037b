// SPDX-License-Identifier: GPL-2.0

//! The cases, a file for each kind.

mod addresses;
mod blocking;
mod boundary;
mod calls;
mod datagram_errors;
mod datagram_ipv6;
mod datagram_messages;
mod datagram_options;
mod datagram_uring;
mod datagrams;
mod descriptors;
mod diagnosis;
mod edges;
mod ended;
mod ending;
mod epoll;
mod faults;
mod flags;
mod interrupted;
mod leaving;
mod messages;
mod nonblocking;
mod options;
mod processes;
mod readiness;
mod refusals;
mod reset;
mod reuse;
mod sigio;
mod splicing;
mod stopped;
mod takeover;
mod threads;
mod tuning;
mod urgent;
mod uring;
mod volumes;
mod wakeups;
mod zerocopy;

use nix::errno::Errno;

use crate::{call, case::Case, end::End, epoll::Epoll};

/// Milliseconds in which an event that must come has come.
const EVENT_PATIENCE_MS: i32 = 10_000;

/// All cases, in the order in which they run.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [
        addresses::CASES,
        blocking::CASES,
        boundary::CASES,
        calls::CASES,
        datagram_errors::CASES,
        datagram_ipv6::CASES,
        datagram_messages::CASES,
        datagram_options::CASES,
        datagram_uring::CASES,
        datagrams::CASES,
        descriptors::CASES,
        diagnosis::CASES,
        edges::CASES,
        ended::CASES,
        ending::CASES,
        epoll::CASES,
        faults::CASES,
        flags::CASES,
        interrupted::CASES,
        leaving::CASES,
        messages::CASES,
        nonblocking::CASES,
        options::CASES,
        processes::CASES,
        readiness::CASES,
        refusals::CASES,
        reset::CASES,
        reuse::CASES,
        sigio::CASES,
        splicing::CASES,
        stopped::CASES,
        takeover::CASES,
        threads::CASES,
        tuning::CASES,
        urgent::CASES,
        uring::CASES,
        volumes::CASES,
        wakeups::CASES,
        zerocopy::CASES,
    ]
    .into_iter()
    .flatten()
}

/// The case of this name.
pub(crate) fn find(name: &str) -> Option<&'static Case> {
    all().find(|case| case.name() == name)
}

/// Cases whose connections leave the ring, or may, by the beginnings of their names: for what they are about, or since they send more than
/// fits before anybody reads. In all others no byte goes over TCP once a connection is on the ring. Flows of datagrams leave it for what a record
/// cannot express: times of what leaves, memory that the program may still write, and payloads that IPv4 could not have; in all others no datagram
/// goes over the network.
const LEAVING: &[&str] = &[
    "addresses::addrform",
    "boundary::",
    "calls::unknown_flags",
    "datagram_ipv6::largest",
    "datagram_messages::send_timestamps",
    "datagram_uring::send_without_copy",
    "datagrams::all_calls",
    "descriptors::peek_offset",
    "messages::control_data",
    "messages::timestamp",
    "options::all_set",
    "options::pacing",
    "readiness::urgent",
    "readiness::waiting_for_urgent",
    "refusals::bad_addresses",
    "sigio::urgent",
    "takeover::",
    "tuning::user_timeout",
    "urgent::",
    "uring::send_without_copy",
    "zerocopy::",
];

/// Whether the connection of a case, or its datagrams, may leave the ring.
pub(crate) fn may_leave(case: &Case) -> bool {
    LEAVING.iter().any(|name| case.name().starts_with(name))
}

/// Events of poll, as numbers for [`call::poll`].
const IN: i32 = libc::POLLIN as i32;
const OUT: i32 = libc::POLLOUT as i32;
const RDHUP: i32 = libc::POLLRDHUP as i32;

/// All of them that TCP knows.
const ALL: i32 = IN | OUT | RDHUP | libc::POLLPRI as i32;

/// Notes SO_ERROR, which reading clears.
fn error(end: &mut End) {
    let number = call::get(end.fd, libc::SOL_SOCKET, libc::SO_ERROR);
    let name = number.map(|number| match number {
        0 => "none".to_owned(),
        _ => format!("{:?}", Errno::from_raw(number)),
    });
    end.see("error", name);
}

/// Waits until the connection is broken, and the error is there to be seen.
fn broken(end: &mut End) {
    let fd = end.fd;
    let signs = (libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP) as u32;
    end.until("it is broken", || {
        call::poll(fd, ALL, 0).is_ok_and(|events| events.0 & signs == signs)
    });
}

/// Sends a stream from its beginning until nothing more fits, as nobody reads; returns how much it was.
fn fill(end: &mut End) -> usize {
    let sent = crate::stream::fill(end.fd, 0);
    end.note(format!("{sent} bytes fit"));
    end.see("fits", sent > 0);
    sent
}

/// Notes that all of a stream came, and its end.
fn stream(end: &mut End, bytes: usize) {
    let mut all = vec![0; bytes];
    call::receive_all(end.fd, &mut all);
    end.see("all came", all == call::pattern(0, bytes));
    end.recv(100, 0);
    end.recv(100, 0);
}

/// Closes so that the peer's connection is reset.
fn reset(end: &mut End) {
    call::linger(end.fd, 0).expect("SO_LINGER");
    end.close();
}

/// Sends, each time when the other end is ready for it.
fn send_in_step(end: &mut End, messages: &[&[u8]]) {
    for message in messages {
        end.meet();
        end.send(message, 0);
    }
    end.meet();
}

/// Waits for an event.
fn event(end: &mut End, epoll: Epoll, what: &str) {
    let result = epoll.events(EVENT_PATIENCE_MS);
    end.see(what, result);
}

/// Gives one time to come that shall not.
fn no_event(end: &mut End, epoll: Epoll, what: &str) {
    end.pause();
    let result = epoll.events(0);
    end.see(what, result);
}
