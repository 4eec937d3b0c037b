// SPDX-License-Identifier: GPL-2.0

//! Each message wakes who waits for it: many small ones, with many ways to wait.

use std::{
    collections::BTreeMap,
    hint,
    os::fd::RawFd,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use crate::{
    call,
    case::cases,
    end::End,
    epoll::Epoll,
    log::Events,
    select,
    thread::Caller, //
};

const IN: i32 = libc::POLLIN as i32;

/// Longest time between two messages, where there is some.
const DELAY_MAX_US: u64 = 50;

/// Connections to one thread, and messages of each.
const CONNECTIONS: usize = 16;
const MESSAGES: usize = 30;

/// Bytes of each such message: connection, index, and some more.
const SIZE: usize = 20;

/// A way to wait for a byte and to receive it.
type Receive = Box<dyn FnMut() -> Result<Vec<u8>, Errno>>;

fn by_recv(fd: RawFd) -> Receive {
    Box::new(move || call::recv(fd, 1, 0))
}

/// One that waits by `wait`, and then must not have to.
fn by(fd: RawFd, wait: fn(RawFd) -> Result<Events, Errno>) -> Receive {
    Box::new(move || {
        wait(fd)?;
        call::recv(fd, 1, libc::MSG_DONTWAIT)
    })
}

fn by_poll(fd: RawFd) -> Receive {
    by(fd, |fd| call::poll(fd, IN, -1))
}

fn by_select(fd: RawFd) -> Receive {
    by(fd, |fd| select::select(fd, IN, -1))
}

fn by_epoll(fd: RawFd) -> Receive {
    let epoll = Epoll::of(fd, IN);
    Box::new(move || {
        epoll.events(-1)?;
        call::recv(fd, 1, libc::MSG_DONTWAIT)
    })
}

/// By edges: first tries, and waits only if there is nothing.
fn by_edge(fd: RawFd) -> Receive {
    let epoll = Epoll::of(fd, IN | libc::EPOLLET);
    Box::new(move || {
        loop {
            match call::recv(fd, 1, libc::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => epoll.events(-1)?,
                result => return result,
            };
        }
    })
}

/// Numbers that look random, and are the same each time.
struct Delays(u64);

impl Delays {
    /// Lets a part of the time pass without sleeping.
    fn pass(&mut self) {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let (start, time) = (Instant::now(), Duration::from_micros(self.0 % DELAY_MAX_US));
        while start.elapsed() < time {
            hint::spin_loop();
        }
    }
}

/// Sends the left end's bytes, and waits for each to come back.
fn ping(end: &mut End, receive: fn(RawFd) -> Receive, mut delays: Option<Delays>) {
    let mut receive = receive(end.fd);
    let mut good = 0;
    for round in 0..end.rounds {
        if let Some(delays) = &mut delays {
            delays.pass();
        }
        let byte = call::pattern(round, 1);
        call::send_all(end.fd, &byte);
        good += usize::from(receive() == Ok(byte));
    }
    end.see("all come back", good == end.rounds);
    end.meet();
}

/// Sends back what comes.
fn pong(end: &mut End, receive: fn(RawFd) -> Receive, mut delays: Option<Delays>) {
    let mut receive = receive(end.fd);
    for _ in 0..end.rounds {
        let byte = receive().expect("a byte");
        if let Some(delays) = &mut delays {
            delays.pass();
        }
        call::send_all(end.fd, &byte);
    }
    end.meet();
}

/// A message.
fn message(connection: usize, index: usize) -> Vec<u8> {
    call::pattern(connection * 1000 + index, SIZE)
}

/// Opens several connections.
fn connect(end: &mut End) -> Vec<RawFd> {
    let open = |_| {
        end.establish(|_| {});
        end.fd
    };
    (0..CONNECTIONS).map(open).collect()
}

/// Sends back what comes by any of the connections, until all have ended.
fn serve(end: &mut End, edge: bool) {
    let fds = connect(end);
    let epoll = Epoll::new();
    for fd in &fds {
        let events = if edge { IN | libc::EPOLLET } else { IN };
        epoll.add(*fd, events).expect("epoll_ctl");
    }
    let mut counts: BTreeMap<_, _> = fds.iter().map(|fd| (*fd, 0)).collect();
    let mut open = fds.len();
    end.meet();
    while open > 0 {
        for (fd, _) in epoll.wait(-1).expect("epoll_wait") {
            // By level, one call for each event will do.
            loop {
                match call::recv(fd, 1000, libc::MSG_DONTWAIT) {
                    Ok(part) if part.is_empty() => {
                        epoll.remove(fd).expect("epoll_ctl");
                        open -= 1;
                        break;
                    }
                    Ok(part) => {
                        *counts.get_mut(&fd).expect("one of ours") += part.len();
                        call::send_all(fd, &part);
                    }
                    Err(Errno::EAGAIN) if edge => break,
                    Err(errno) => panic!("recv: {errno}"),
                }
                if !edge {
                    break;
                }
            }
        }
    }
    for fd in fds {
        end.see("bytes", counts[&fd]);
    }
    end.meet();
}

/// Sends by all of them, and waits for what comes back.
fn use_all(end: &mut End) {
    let fds = connect(end);
    end.meet();
    let mut good = 0;
    for index in 0..MESSAGES {
        for (connection, fd) in fds.iter().enumerate() {
            call::send_all(*fd, &message(connection, index));
        }
        for (connection, fd) in fds.iter().enumerate() {
            let mut bytes = vec![0; SIZE];
            call::receive_all(*fd, &mut bytes);
            good += usize::from(bytes == message(connection, index));
        }
    }
    end.see("good", good);
    for fd in &fds {
        call::shutdown(*fd, libc::SHUT_WR).expect("shutdown");
    }
    end.meet();
}

cases! {
    /// Who waits in recv.
    recv: |left| {
        ping(left, by_recv, None);
    }, |right| {
        pong(right, by_recv, None);
    };

    /// Who waits in poll.
    poll: |left| {
        ping(left, by_poll, None);
    }, |right| {
        pong(right, by_poll, None);
    };

    /// Who waits in select.
    select: |left| {
        ping(left, by_select, None);
    }, |right| {
        pong(right, by_select, None);
    };

    /// Who waits for edges.
    epoll_edge: |left| {
        ping(left, by_edge, None);
    }, |right| {
        pong(right, by_edge, None);
    };

    /// Who waits in recv, some time after what was before.
    recv_with_delays: |left| {
        ping(left, by_recv, Some(Delays(1)));
    }, |right| {
        pong(right, by_recv, Some(Delays(2)));
    };

    /// The same with edges.
    epoll_edge_with_delays: |left| {
        ping(left, by_edge, Some(Delays(3)));
    }, |right| {
        pong(right, by_edge, Some(Delays(4)));
    };

    /// Each end waits in another way.
    mixed_with_delays: |left| {
        ping(left, by_epoll, Some(Delays(5)));
    }, |right| {
        pong(right, by_poll, Some(Delays(6)));
    };

    /// One thread waits for many connections.
    many_to_one bare: |left| {
        serve(left, false);
    }, |right| {
        use_all(right);
    };

    /// The same with edges.
    many_to_one_by_edges bare: |left| {
        serve(left, true);
    }, |right| {
        use_all(right);
    };

    /// Many connections, each with a thread that waits; messages wake the right ones.
    many_threads bare: |left| {
        let fds = connect(left);
        let callers: Vec<_> = fds
            .iter()
            .map(|fd| {
                let fd = *fd;
                Caller::asleep(move || call::recv(fd, 100, 0))
            })
            .collect();
        left.meet();
        for (index, caller) in callers.into_iter().enumerate() {
            if index % 3 == 0 {
                left.see("recv", caller.join());
            } else {
                left.see("still waits", !caller.is_over());
            }
        }
        left.meet();
    }, |right| {
        let fds = connect(right);
        right.meet();
        for (index, fd) in fds.iter().enumerate().step_by(3) {
            call::send_all(*fd, &message(index, 0));
        }
        right.meet();
    };
}
