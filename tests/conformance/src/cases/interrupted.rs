// SPDX-License-Identifier: GPL-2.0

//! Signals that come while calls wait.

use std::{net::SocketAddr, os::fd::RawFd};

use crate::{
    call,
    case::cases,
    end::End,
    epoll::Epoll,
    log::Observed,
    select,
    signal,
    stream,
    thread::Caller,
    transfer::{self, RECEIVES, SENDS}, //
};

const IN: i32 = libc::POLLIN as i32;

/// A call that waits for bytes, and what it returns.
type Wait = fn(RawFd) -> String;

/// Those that only wait for them.
const POLLS: &[(&str, Wait)] = &[
    ("poll", |fd| call::poll(fd, IN, -1).text()),
    ("poll with a timeout", |fd| {
        call::poll(fd, IN, 30_000).text()
    }),
    ("ppoll", |fd| select::ppoll(fd, IN).text()),
    ("select", |fd| select::select(fd, IN, -1).text()),
    ("pselect", |fd| select::pselect(fd, IN).text()),
    ("epoll_wait", |fd| Epoll::of(fd, IN).events(-1).text()),
    ("epoll_pwait", epoll_pwait),
];

fn epoll_pwait(fd: RawFd) -> String {
    Epoll::of(fd, IN).wait_unmasked().text()
}

/// Bytes of each message.
const SIZE: usize = 1000;

/// Lets a signal come to a call that waits; returns whether it waits again.
fn interrupt<T: Send + 'static>(end: &mut End, caller: &Caller<T>) -> bool {
    let before = signal::caught();
    caller.signal(libc::SIGUSR1);
    end.until("the signal comes", || signal::caught() > before);
    caller.falls_asleep()
}

/// Sets a limit of time that calls do not reach.
fn set_timeout(end: &mut End, name: i32) {
    let time = libc::timeval {
        tv_sec: 30,
        tv_usec: 0,
    };
    let result = call::set(end.fd, libc::SOL_SOCKET, name, time);
    end.see("timeout", result);
}

/// Lets signals come to all calls that receive; the other end sends as long as it is told to.
fn interrupt_receives(end: &mut End) {
    for (name, receive) in RECEIVES {
        let fd = end.fd;
        let caller = Caller::asleep(move || receive(fd, 100));
        let sleeps = interrupt(end, &caller);
        end.see(&format!("{name} waits again"), sleeps);
        end.tell(u8::from(sleeps));
        let result = caller.join();
        end.see(name, result);
    }
    end.tell("end");
}

/// Lets signals come to all calls that poll.
fn interrupt_polls(end: &mut End) {
    for (name, poll) in POLLS {
        let fd = end.fd;
        let caller = Caller::asleep(move || poll(fd));
        let sleeps = interrupt(end, &caller);
        end.see(&format!("{name} waits again"), sleeps);
        end.tell(u8::from(sleeps));
        let result = caller.join();
        end.see(name, result);
        if sleeps {
            end.recv(100, 0);
        }
    }
    end.tell("end");
}

/// Sends a message each time the other end wants one.
fn send_if_asked(end: &mut End) {
    loop {
        match end.ask().as_str() {
            "0" => {}
            "1" => call::send_all(end.fd, b"hello"),
            _ => break,
        }
    }
    end.send(b"last", 0);
    end.meet();
}

fn receive_last(end: &mut End) {
    end.recv(100, 0);
    end.meet();
}

/// Lets a signal come to calls of these names on a full connection.
fn interrupt_sends(end: &mut End, names: &[&str]) {
    let mut at = stream::fill(end.fd, 0);
    let fd = end.fd;
    for (name, send) in SENDS.iter().filter(|(name, _)| names.contains(name)) {
        let errno = stream::send_until_error(&mut at, |bytes| {
            let caller = Caller::start(move || send(fd, &bytes));
            if caller.falls_asleep() {
                interrupt(end, &caller);
            }
            caller.join()
        });
        end.see(name, Err::<(), _>(errno));
    }
    end.tell(at);
    end.meet();
}

/// Lets a signal come to calls of these names on a full connection, then has the other end make room.
fn interrupt_sends_that_go_on(end: &mut End, names: &[&str]) {
    let mut at = 0;
    let fd = end.fd;
    for (name, send) in SENDS.iter().filter(|(name, _)| names.contains(name)) {
        at += stream::fill(end.fd, at);
        // If there is some more room, all is sent at once.
        let caller = loop {
            let caller = Caller::start(move || send(fd, &call::pattern(at, SIZE)));
            if caller.falls_asleep() && interrupt(end, &caller) {
                break caller;
            }
            at += caller.join().expect("all is sent");
        };
        end.see(name, "waits again");
        at += SIZE;
        end.tell(at);
        let result = caller.join();
        end.see(name, result);
        end.meet();
    }
    end.tell(at);
    end.meet();
}

/// Receives all up to where the other end tells, for so many calls that go on and the rest.
fn receive_up_to(end: &mut End, calls: usize) {
    let mut at = 0;
    for call in 0..=calls {
        let goal: usize = end.ask().parse().expect("a number");
        let good = stream::receive(end.fd, at, goal - at);
        end.see("all that was counted comes", good == goal - at);
        at = goal;
        if call < calls {
            end.meet();
        }
    }
    end.meet();
}

/// Lets a signal come to an accept while nobody connects, then has it accept.
fn interrupt_accept(end: &mut End, flags: i32) {
    signal::handle(libc::SIGUSR1, flags);
    let address = SocketAddr::new(end.address(), 0);
    let listener = call::socket(&address).expect("socket");
    call::listen(listener, &address, 16).expect("listen");
    let caller = Caller::asleep(move || call::accept(listener));
    let sleeps = interrupt(end, &caller);
    end.see("accept waits again", sleeps);
    let caller = if sleeps {
        caller
    } else {
        end.see("accept", caller.join().map(drop));
        Caller::asleep(move || call::accept(listener))
    };
    end.tell(call::local(listener).expect("getsockname").port());
    let result = caller.join();
    end.see("accept", result.map(drop));
    end.fd = result.expect("accept");
    end.recv(100, 0);
    end.meet();
}

/// Connects and sends.
fn connect_and_send(end: &mut End) {
    let port = end.ask().parse().expect("a port");
    let address = SocketAddr::new(end.peer(), port);
    end.fd = call::socket(&address).expect("socket");
    let result = call::connect(end.fd, &address);
    end.see("connect", result);
    end.send(b"hello", 0);
    end.meet();
}

/// Lets a signal come to a connect that waits, as another connection has the only place.
fn interrupt_connect(end: &mut End, flags: i32) {
    signal::handle(libc::SIGUSR1, flags);
    let port = end.ask().parse().expect("a port");
    let address = SocketAddr::new(end.peer(), port);
    let first = call::socket(&address).expect("socket");
    call::connect(first, &address).expect("connect");
    end.meet();
    end.fd = call::socket(&address).expect("socket");
    let fd = end.fd;
    let caller = Caller::asleep(move || call::connect(fd, &address));
    let sleeps = interrupt(end, &caller);
    end.see("connect waits again", sleeps);
    let caller = if sleeps {
        caller
    } else {
        end.see("connect", caller.join());
        Caller::asleep(move || call::connect(fd, &address))
    };
    end.meet();
    end.see("connect", caller.join());
    end.see("connect once more", call::connect(fd, &address));
    end.send(b"hello", 0);
    end.recv(100, 0);
    end.meet();
}

/// Listens with a place for one connection; accepts it, and another one, when the other end is there.
fn accept_late(end: &mut End) {
    let address = SocketAddr::new(end.address(), 0);
    let listener = call::socket(&address).expect("socket");
    call::listen(listener, &address, 0).expect("listen");
    end.tell(call::local(listener).expect("getsockname").port());
    end.fd = listener;
    end.polled(IN);
    end.meet();
    end.meet();
    call::accept(listener).expect("accept");
    end.fd = call::accept(listener).expect("accept");
    end.recv(5, libc::MSG_WAITALL);
    end.send(b"thanks", 0);
    end.meet();
}

/// Lets a signal come to a close that lingers, as the connection is full.
fn interrupt_close(end: &mut End) {
    call::linger(end.fd, 60).expect("SO_LINGER");
    let sent = stream::fill(end.fd, 0);
    let fd = std::mem::replace(&mut end.fd, -1);
    let caller = Caller::start(move || call::close(fd));
    // What is in a ring counts as acknowledged: it need not wait.
    if caller.falls_asleep() {
        interrupt(end, &caller);
    }
    end.see("close", caller.join());
    end.tell(sent);
    end.meet();
}

/// Receives what the other end tells, and the end.
fn receive_to_the_end(end: &mut End) {
    stream::receive_told(end, 0);
    end.recv(100, 0);
    end.meet();
}

cases! {
    /// Signals whose handler says nothing of restarting come to calls that receive.
    receives: |left| {
        send_if_asked(left);
    }, |right| {
        signal::handle(libc::SIGUSR1, 0);
        interrupt_receives(right);
        receive_last(right);
    };

    /// With SA_RESTART they wait again.
    receives_with_restart: |left| {
        send_if_asked(left);
    }, |right| {
        signal::handle(libc::SIGUSR1, libc::SA_RESTART);
        interrupt_receives(right);
        receive_last(right);
    };

    /// Even with SA_RESTART, they do not if they have a timeout.
    receives_with_restart_and_timeout: |left| {
        send_if_asked(left);
    }, |right| {
        signal::handle(libc::SIGUSR1, libc::SA_RESTART);
        set_timeout(right, libc::SO_RCVTIMEO);
        interrupt_receives(right);
        receive_last(right);
    };

    /// Signals come to calls that poll.
    polls: |left| {
        send_if_asked(left);
    }, |right| {
        signal::handle(libc::SIGUSR1, 0);
        interrupt_polls(right);
        receive_last(right);
    };

    /// These never wait again.
    polls_with_restart: |left| {
        send_if_asked(left);
    }, |right| {
        signal::handle(libc::SIGUSR1, libc::SA_RESTART);
        interrupt_polls(right);
        receive_last(right);
    };

    /// A signal that is blocked comes to the calls that let it in, though it came before they began.
    masks: |left| {
        left.meet();
    }, |right| {
        signal::handle(libc::SIGUSR1, 0);
        signal::block(libc::SIGUSR1);
        let fd = right.fd;
        for (name, wait) in [
            ("ppoll", select::ppoll as fn(_, _) -> _),
            ("pselect", select::pselect as fn(_, _) -> _),
        ] {
            // SAFETY: No memory is passed.
            unsafe { libc::raise(libc::SIGUSR1) };
            right.see(name, wait(fd, IN));
            right.see("caught", signal::caught());
        }
        // SAFETY: No memory is passed.
        unsafe { libc::raise(libc::SIGUSR1) };
        right.see("epoll_pwait", epoll_pwait(fd));
        right.see("caught", signal::caught());
        right.meet();
    };

    /// MSG_WAITALL returns what it has when a signal comes, with SA_RESTART or without.
    part_of_wait_all: |left| {
        for _ in 0..2 {
            left.send(b"abc", 0);
            left.meet();
            left.send(b"defg", 0);
            left.meet();
        }
    }, |right| {
        for flags in [0, libc::SA_RESTART] {
            signal::handle(libc::SIGUSR1, flags);
            right.arrived(3);
            let fd = right.fd;
            let caller = Caller::asleep(move || call::recv(fd, 7, libc::MSG_WAITALL));
            let sleeps = interrupt(right, &caller);
            right.see("waits again", sleeps);
            right.see("recv", caller.join());
            right.meet();
            right.recv(4, libc::MSG_WAITALL);
            right.meet();
        }
    };

    /// The same below the mark.
    part_below_mark: |left| {
        left.send(b"abc", 0);
        left.meet();
    }, |right| {
        signal::handle(libc::SIGUSR1, libc::SA_RESTART);
        call::set(right.fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, 10i32).expect("SO_RCVLOWAT");
        right.arrived(3);
        let fd = right.fd;
        let caller = Caller::asleep(move || call::recv(fd, 100, 0));
        let sleeps = interrupt(right, &caller);
        right.see("waits again", sleeps);
        right.see("recv", caller.join());
        right.recv(10, libc::MSG_DONTWAIT);
        right.meet();
    };

    /// Signals come to calls on a full connection; nothing of what they were to send comes.
    sends: |left| {
        signal::handle(libc::SIGUSR1, 0);
        let names = SENDS.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        interrupt_sends(left, &names);
    }, |right| {
        receive_up_to(right, 0);
    };

    /// With SA_RESTART they wait again, and send all once.
    sends_with_restart: |left| {
        signal::handle(libc::SIGUSR1, libc::SA_RESTART);
        interrupt_sends_that_go_on(left, &["send", "writev", "sendmmsg"]);
    }, |right| {
        receive_up_to(right, 3);
    };

    /// So do these.
    writes_with_restart: |left| {
        signal::handle(libc::SIGUSR1, libc::SA_RESTART);
        interrupt_sends_that_go_on(left, &["write", "sendmsg"]);
    }, |right| {
        receive_up_to(right, 2);
    };

    /// Even with SA_RESTART, they do not if they have a timeout.
    sends_with_restart_and_timeout: |left| {
        signal::handle(libc::SIGUSR1, libc::SA_RESTART);
        set_timeout(left, libc::SO_SNDTIMEO);
        let names = SENDS.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        interrupt_sends(left, &names);
    }, |right| {
        receive_up_to(right, 0);
    };

    /// So do those that have the bytes from elsewhere.
    sends_from_elsewhere_with_restart: |left| {
        signal::handle(libc::SIGUSR1, libc::SA_RESTART);
        interrupt_sends_that_go_on(left, &["sendfile", "splice"]);
    }, |right| {
        receive_up_to(right, 2);
    };

    /// A signal comes when some has been sent: that is what is counted, and what comes.
    part_of_send: |left| {
        signal::handle(libc::SIGUSR1, libc::SA_RESTART);
        let fd = left.fd;
        let caller = Caller::asleep(move || call::send(fd, &call::pattern(0, stream::MUCH), 0));
        let sleeps = interrupt(left, &caller);
        left.see("waits again", sleeps);
        let count = caller.join().expect("send");
        left.see("some are sent", count > 0 && count < stream::MUCH);
        left.tell(count);
        left.meet();
        left.send(b"and on", 0);
        left.meet();
    }, |right| {
        stream::receive_told(right, 0);
        right.meet();
        right.drain(6);
        right.meet();
    };

    /// The same of a file: its position tells how much was sent.
    part_of_sendfile: |left| {
        signal::handle(libc::SIGUSR1, libc::SA_RESTART);
        let file = transfer::memory_file(&call::pattern(0, stream::MUCH));
        let fd = left.fd;
        let caller = Caller::asleep(move || transfer::sendfile(fd, file, stream::MUCH));
        let sleeps = interrupt(left, &caller);
        left.see("waits again", sleeps);
        let count = caller.join().expect("sendfile");
        left.see("some are sent", count > 0 && count < stream::MUCH);
        // SAFETY: No memory is passed.
        let at = unsafe { libc::lseek(file, 0, libc::SEEK_CUR) };
        left.see("so many are gone", at as usize == count);
        left.tell(count);
        left.meet();
        let rest = transfer::sendfile(fd, file, SIZE);
        left.see("sendfile", rest);
        left.meet();
    }, |right| {
        let at = stream::receive_told(right, 0);
        right.meet();
        let good = stream::receive(right.fd, at, SIZE);
        right.see("and on", good);
        right.meet();
    };

    /// A signal comes to accept.
    accept bare: |left| {
        interrupt_accept(left, 0);
    }, |right| {
        connect_and_send(right);
    };

    /// With SA_RESTART it waits again.
    accept_with_restart bare: |left| {
        interrupt_accept(left, libc::SA_RESTART);
    }, |right| {
        connect_and_send(right);
    };

    /// A signal comes to a connect to a listener that has no room; the next one waits on for the same connection.
    connect bare: |left| {
        interrupt_connect(left, 0);
    }, |right| {
        accept_late(right);
    };

    /// With SA_RESTART it waits again.
    connect_with_restart bare: |left| {
        interrupt_connect(left, libc::SA_RESTART);
    }, |right| {
        accept_late(right);
    };

    /// A signal comes while close waits for what was not acknowledged; all of it comes all the same.
    close_that_lingers: |left| {
        signal::handle(libc::SIGUSR1, 0);
        interrupt_close(left);
    }, |right| {
        receive_to_the_end(right);
    };

    /// So it does with SA_RESTART.
    close_that_lingers_with_restart: |left| {
        signal::handle(libc::SIGUSR1, libc::SA_RESTART);
        interrupt_close(left);
    }, |right| {
        receive_to_the_end(right);
    };
}
