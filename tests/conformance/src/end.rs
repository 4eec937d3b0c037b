// SPDX-License-Identifier: GPL-2.0

//! One end of a case: its socket, what it saw, and how it keeps in step with the other end.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::RawFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::errno::Errno;

use crate::{
    call,
    control::{Control, Message, Outcome},
    log::{Events, Observed},
    module::{self, Flow},
    options::Way,
    tcp_info,
};

/// Bytes of each exchange while a connection is on its way to the ring.
const EXCHANGE: usize = 100;

/// Exchanges that each connection makes before a case begins: enough for it to ask for a ring.
const EXCHANGES: u32 = 8;

/// Exchanges after which it must be there, if that is the way.
const EXCHANGES_MAX: u32 = 2000;

/// Time in which what must come has come.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often we look.
const LOOK_PERIOD: Duration = Duration::from_millis(2);

/// One end.
pub(crate) struct End {
    /// The socket of the connection; -1 without one.
    pub(crate) fd: RawFd,
    /// The way in which the case runs.
    pub(crate) way: Way,
    /// Round trips of each case of wakeups.
    pub(crate) rounds: usize,
    /// Whether this end connects.
    pub(crate) active: bool,
    control: Control,
    outcome: Outcome,
    /// What this end had sent over TCP when it was on the ring.
    began: Option<Sent>,
    /// Bytes that it has sent over TCP since then, or in an earlier connection, if that was more.
    over_tcp: u64,
    /// Flows that were in the ring, and what had gone over the network then.
    in_ring: Vec<(Flow, Option<u64>)>,
}

/// What a socket has sent over TCP.
struct Sent {
    /// The socket's inode.
    inode: u64,
    /// Bytes.
    bytes: u64,
}

impl End {
    /// An end without a connection.
    pub(crate) fn new(control: Control, way: Way, rounds: usize, active: bool) -> Self {
        Self {
            fd: -1,
            way,
            rounds,
            active,
            control,
            outcome: Outcome::default(),
            began: None,
            over_tcp: 0,
            in_ring: Vec::new(),
        }
    }

    /// Notes what was seen.
    pub(crate) fn see(&mut self, what: &str, seen: impl Observed) {
        self.outcome.lines.push(format!("{what}: {}", seen.text()));
    }

    /// Notes what is worth knowing, but need not be the same each time.
    pub(crate) fn note(&mut self, text: String) {
        self.outcome.notes.push(text);
    }

    /// Waits for the other end to come here as well. Whatever it did before has been done.
    pub(crate) fn meet(&mut self) {
        self.say(&Message::Meet);
        match self.hear() {
            Message::Meet => {}
            other => panic!("out of step: {other:?}"),
        }
    }

    /// Tells the other end something that [`End::ask`] returns there.
    pub(crate) fn tell(&mut self, word: impl ToString) {
        self.say(&Message::Word(word.to_string()));
    }

    /// Waits for what the other end tells.
    pub(crate) fn ask(&mut self) -> String {
        match self.hear() {
            Message::Word(word) => word,
            other => panic!("out of step: {other:?}"),
        }
    }

    fn say(&mut self, message: &Message) {
        if let Err(error) = self.control.say(message) {
            panic!("control connection: {error:#}");
        }
    }

    fn hear(&mut self) -> Message {
        match self.control.hear() {
            Ok(message) => message,
            Err(error) => panic!("control connection: {error:#}"),
        }
    }

    /// The address of this end's machine, as the control connection has it.
    pub(crate) fn address(&self) -> IpAddr {
        self.control.address().expect("our address").to_canonical()
    }

    /// The address of the other end's machine.
    pub(crate) fn peer(&self) -> IpAddr {
        self.control.peer().expect("an address").to_canonical()
    }

    /// Opens the connection, uses it, and waits until it is on the ring if that is the way. The sockets
    /// are prepared by `prepare` before they connect, or listen.
    pub(crate) fn establish(&mut self, prepare: impl Fn(RawFd)) {
        self.open(prepare);
        self.accelerate();
    }

    /// Opens the connection through which nothing has gone.
    pub(crate) fn open(&mut self, prepare: impl Fn(RawFd)) {
        if self.active {
            let port = self.ask().parse().expect("a port");
            let address = SocketAddr::new(self.peer(), port);
            self.fd = call::socket(&address).expect("socket");
            prepare(self.fd);
            call::connect(self.fd, &address).expect("connect");
        } else {
            let address = SocketAddr::new(self.address(), 0);
            let listener = call::socket(&address).expect("socket");
            prepare(listener);
            call::listen(listener, &address, 16).expect("listen");
            self.tell(call::local(listener).expect("getsockname").port());
            self.fd = call::accept(listener).expect("accept");
            call::close(listener).expect("close");
        }
    }

    /// Exchanges bytes until both directions are on the ring, if that is the way.
    pub(crate) fn accelerate(&mut self) {
        let fd = self.fd;
        for round in 0..EXCHANGES_MAX {
            self.exchange();
            if round < EXCHANGES {
                continue;
            }
            let ready = self.way != Way::Ring || module::sends_to_ring(fd);
            self.tell(u8::from(ready));
            if self.ask() == "1" && ready {
                self.began = sent_over_tcp(fd);
                return;
            }
        }
        panic!("not on the ring: {}", module::connection(fd));
    }

    /// A few bytes to and fro.
    pub(crate) fn exchange(&mut self) {
        let mut buffer = [0; EXCHANGE];
        if self.active {
            call::send_all(self.fd, &buffer);
            call::receive_all(self.fd, &mut buffer);
        } else {
            call::receive_all(self.fd, &mut buffer);
            call::send_all(self.fd, &buffer);
        }
    }

    /// Bytes that this end of a connection has sent over TCP since it was on the ring; of several, the one with most of them. As far as can be
    /// told: of sockets that this end has, or has closed by [`End::close`].
    pub(crate) fn over_tcp(&mut self) -> u64 {
        self.count_tcp();
        self.over_tcp
    }

    fn count_tcp(&mut self) {
        if let (Some(began), Some(now)) = (&self.began, sent_over_tcp(self.fd)) {
            if began.inode == now.inode {
                let bytes = now.bytes.saturating_sub(began.bytes);
                self.over_tcp = self.over_tcp.max(bytes);
            }
        }
    }

    /// Takes note of a flow that has got to the ring, if that is the way: from now on none of its datagrams may go over the network.
    pub(crate) fn note_in_ring(&mut self, flow: Flow) {
        if self.way == Way::Ring {
            let count = flow.over_network();
            self.in_ring.push((flow, count));
        }
    }

    /// What the frontend says of those flows of [`End::note_in_ring`] that are not in the ring any more, or were out of it meanwhile: then they
    /// were counted anew.
    pub(crate) fn out_of_ring(&self) -> Vec<String> {
        let has_left = |(flow, count): &&(Flow, Option<u64>)| {
            let now = flow.over_network();
            now.is_none() || now != *count
        };
        let all = self.in_ring.iter().filter(has_left);
        all.map(|(flow, count)| format!("{}, {count:?} before", flow.line()))
            .collect()
    }

    /// Waits until so many bytes can be read, by what FIONREAD says.
    pub(crate) fn arrived(&mut self, bytes: usize) {
        let fd = self.fd;
        self.until(&format!("{bytes} bytes arrive"), || {
            call::ioctl(fd, libc::FIONREAD).is_ok_and(|count| count as usize >= bytes)
        });
    }

    /// Waits until poll says at least one of these events.
    pub(crate) fn polled(&mut self, events: i32) -> Events {
        let seen = call::poll(self.fd, events, PATIENCE.as_millis() as i32).expect("poll");
        assert!(
            seen.0 != 0,
            "nothing came of {}",
            Events(events as u32).text()
        );
        seen
    }

    /// Waits until something is so.
    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(
                start.elapsed() < PATIENCE,
                "this does not come true: {what}"
            );
            thread::sleep(LOOK_PERIOD);
        }
    }

    /// Time for what shall not happen, and for what is on its way to come.
    pub(crate) fn pause(&mut self) {
        thread::sleep(Duration::from_millis(100));
    }

    /// send(2), noted.
    pub(crate) fn send(&mut self, bytes: &[u8], flags: i32) {
        let result = call::send(self.fd, bytes, flags);
        self.see(&format!("send {}{}", bytes.len(), Flags(flags)), result);
    }

    /// recv(2) of at most `size` bytes, noted.
    pub(crate) fn recv(&mut self, size: usize, flags: i32) {
        let result = call::recv(self.fd, size, flags);
        self.see(&format!("recv {size}{}", Flags(flags)), result);
    }

    /// recv(2) until so many bytes have come or there are no more; what came is noted, not in which
    /// pieces.
    pub(crate) fn drain(&mut self, bytes: usize) {
        let mut all = Vec::new();
        let result: Result<(), Errno> = loop {
            match call::recv(self.fd, call::PIECE.min(bytes - all.len()), 0) {
                Ok(part) if part.is_empty() => break Ok(()),
                Ok(part) => all.extend(part),
                Err(errno) => break Err(errno),
            }
            if all.len() == bytes {
                break Ok(());
            }
        };
        self.see(&format!("receive {bytes}"), all);
        if result.is_err() {
            self.see("then", result);
        }
    }

    /// poll(2) without waiting, noted.
    pub(crate) fn poll(&mut self, events: i32) {
        let seen = call::poll(self.fd, events, 0).expect("poll");
        self.see("poll", seen);
    }

    /// shutdown(2), noted.
    pub(crate) fn shutdown(&mut self, how: i32) {
        let names = ["RD", "WR", "RDWR"];
        let result = call::shutdown(self.fd, how);
        self.see(&format!("shutdown {}", names[how as usize]), result);
    }

    /// close(2), noted.
    pub(crate) fn close(&mut self) {
        self.count_tcp();
        let result = call::close(std::mem::replace(&mut self.fd, -1));
        self.see("close", result);
    }

    /// FIONREAD, noted.
    pub(crate) fn unread(&mut self) {
        let result = call::ioctl(self.fd, libc::FIONREAD);
        self.see("unread", result);
    }

    /// Ends the case here; returns what both ends saw: this one, the other.
    pub(crate) fn finish(mut self, failure: Option<String>) -> [Outcome; 2] {
        self.outcome.failure = failure;
        let ours = self.outcome;
        // If the other end is gone, it has nothing to say.
        let _ = self.control.say(&Message::Ended(ours.clone()));
        let theirs = loop {
            match self.control.hear() {
                Ok(Message::Ended(theirs)) => break theirs,
                Ok(_) => {}
                Err(error) => {
                    break Outcome {
                        failure: Some(format!("{error:#}")),
                        ..Outcome::default()
                    };
                }
            }
        };
        [ours, theirs]
    }
}

/// What a socket has sent over TCP; none if it is none of TCP's, if there is no such descriptor, or if the other end has ended: then nobody reads
/// a ring any more.
fn sent_over_tcp(fd: RawFd) -> Option<Sent> {
    let info = tcp_info::get(fd).ok()?;
    if !["ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2"].contains(&tcp_info::name(info.tcpi_state)) {
        return None;
    }
    Some(Sent {
        inode: call::status(fd).ok()?.st_ino,
        bytes: info.tcpi_bytes_sent - info.tcpi_bytes_retrans,
    })
}

/// Flags of send and recv.
struct Flags(i32);

impl std::fmt::Display for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [
            (libc::MSG_OOB, "OOB"),
            (libc::MSG_PEEK, "PEEK"),
            (libc::MSG_DONTWAIT, "DONTWAIT"),
            (libc::MSG_WAITALL, "WAITALL"),
            (libc::MSG_TRUNC, "TRUNC"),
            (libc::MSG_NOSIGNAL, "NOSIGNAL"),
            (libc::MSG_MORE, "MORE"),
            (libc::MSG_ERRQUEUE, "ERRQUEUE"),
            (libc::MSG_ZEROCOPY, "ZEROCOPY"),
            (libc::MSG_EOR, "EOR"),
            (libc::MSG_DONTROUTE, "DONTROUTE"),
            (libc::MSG_CONFIRM, "CONFIRM"),
        ];
        names
            .iter()
            .filter(|(bit, _)| self.0 & bit != 0)
            .try_for_each(|(_, name)| write!(f, " {name}"))
    }
}
