// SPDX-License-Identifier: GPL-2.0

//! What tools such as `ss` tell of a connection.

use std::{fs, net::SocketAddr};

use super::{ALL, error};
use crate::{
    call,
    case::cases,
    diag,
    end::End,
    thread::Caller, //
};

cases! {
    /// State, addresses, user, inode, and what else there is to know; queues of a connection on which all is read.
    told: |left| {
        told(left);
        left.send(&call::pattern(0, 100_000), 0);
        left.meet();
        told(left);
        left.meet();
    }, |right| {
        told(right);
        right.drain(100_000);
        right.meet();
        told(right);
        right.meet();
    };

    /// Bytes that nobody has read: no more of them are told of than there are.
    unread: |left| {
        left.send(&call::pattern(0, 5000), 0);
        left.meet();
        until_empty(left);
        left.meet();
    }, |right| {
        right.arrived(5000);
        right.meet();
        let queues = diag::find(ends(right)).map(|told| told.queues);
        right.note(format!("queues {queues:?}"));
        right.see("no more than there are", queues.map(|[unread, _]| unread <= 5000));
        right.drain(5000);
        until_empty(right);
        right.meet();
    };

    /// The states through which a connection ends.
    states: |left| {
        let ends = ends(left);
        left.shutdown(libc::SHUT_WR);
        until_state(left, ends, "FIN_WAIT2");
        left.meet();
        left.meet();
        left.recv(10, 0);
        left.recv(10, 0);
        // A packet that comes twice may end that early.
        left.until("it is over", || {
            diag::find(ends).map_or(true, |told| told.state == "TIME_WAIT")
        });
        left.close();
    }, |right| {
        let ends = ends(right);
        until_state(right, ends, "CLOSE_WAIT");
        right.recv(10, 0);
        right.meet();
        right.send(b"the last", 0);
        right.meet();
        right.close();
        right.until("it is gone", || diag::find(ends).is_err());
        right.see("found", diag::find(ends).map(drop));
    };

    /// A connection that an administrator ends, with somebody asleep at each end.
    destroyed: |left| {
        let fd = left.fd;
        let ends = ends(left);
        let caller = Caller::asleep(move || call::recv(fd, 10, 0));
        left.meet();
        left.see("destroy", diag::destroy(ends));
        left.see("recv", caller.join());
        left.poll(ALL);
        left.see("send", call::send(fd, b"x", libc::MSG_NOSIGNAL));
        left.recv(10, 0);
        error(left);
        left.see("found", diag::find(ends).map(drop));
        left.meet();
    }, |right| {
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 10, 0));
        right.meet();
        right.see("recv", caller.join());
        right.see("send", call::send(fd, b"x", libc::MSG_NOSIGNAL));
        right.recv(10, 0);
        right.meet();
    };

    /// The same with bytes that nobody has read.
    destroyed_with_unread: |left| {
        let ends = ends(left);
        left.send(b"0123456789", 0);
        left.arrived(7);
        left.meet();
        left.see("destroy", diag::destroy(ends));
        left.recv(4, 0);
        left.recv(10, 0);
        left.recv(10, 0);
        left.recv(10, 0);
        left.meet();
    }, |right| {
        right.send(b"unread!", 0);
        right.arrived(10);
        right.meet();
        super::broken(right);
        right.recv(4, 0);
        right.recv(10, 0);
        right.recv(10, 0);
        right.recv(10, 0);
        right.meet();
    };
}

/// The connection's addresses: this end's, the other end's.
fn ends(end: &End) -> [SocketAddr; 2] {
    [call::local(end.fd), call::remote(end.fd)].map(|address| address.expect("an address"))
}

/// Notes what is told of the connection once all is acknowledged.
fn told(end: &mut End) {
    let ends = ends(end);
    until_empty(end);
    let told = match diag::find(ends) {
        Ok(told) => told,
        Err(errno) => return end.see("found", Err::<(), _>(errno)),
    };
    end.see("state", told.state);
    end.see("addresses", told.addresses == ends);
    end.see("queues", format!("{:?}", told.queues));
    end.see("user", told.user);
    let link = fs::read_link(format!("/proc/self/fd/{}", end.fd)).expect("readlink");
    let inode = format!("socket:[{}]", told.inode);
    end.see("inode", link.to_str() == Some(&inode));
    end.see("attributes", format!("{:?}", told.attributes));
    end.see(
        "in /proc",
        diag::state_in_proc(told.inode).unwrap_or("none"),
    );
    end.meet();
}

/// Waits until nothing is unread or unacknowledged.
fn until_empty(end: &mut End) {
    let ends = ends(end);
    end.until("the queues are empty", || {
        diag::find(ends).is_ok_and(|told| told.queues == [0, 0])
    });
}

/// Waits until the connection is told to be in a state.
fn until_state(end: &mut End, ends: [SocketAddr; 2], state: &str) {
    end.until(&format!("it is in {state}"), || {
        diag::find(ends).is_ok_and(|told| told.state == state)
    });
    end.see("state", state);
}
