// SPDX-License-Identifier: GPL-2.0

//! One end of the connections that the lab tests are about: makes socket calls at the command of the
//! test, which talks to it over standard input and output. Each order is carried out by a thread of
//! its own, so that any number of calls can be under way at once.

mod datagram;
mod hang;
mod order;
mod stream;
mod sys;
mod transfer;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, Write},
    net::SocketAddr,
    os::fd::RawFd,
    sync::{
        Arc,
        LazyLock,
        Mutex,
        MutexGuard,
        atomic::Ordering::Relaxed, //
    },
    thread,
    time::Duration,
};

use order::{Answer, Order};
use transfer::Direction;

/// Where the module shows its connections.
const CONNECTIONS: &str = "/sys/kernel/debug/xenvmc/connections";

/// How often we look whether a thread sleeps.
const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// Stack of a thread; there are hundreds.
const STACK: usize = 256 << 10;

/// A socket, and where its streams are.
struct Socket {
    fd: RawFd,
    tx: Direction,
    rx: Direction,
}

/// What all threads share.
#[derive(Default)]
struct Table {
    sockets: BTreeMap<u64, Arc<Socket>>,
    last: u64,
    /// The threads that carry out orders.
    threads: BTreeMap<u64, i32>,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

fn table() -> MutexGuard<'static, Table> {
    TABLE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn main() {
    if let Err(errno) = sys::allow_descriptors() {
        eprintln!("setrlimit: {}", sys::name(errno));
        return;
    }
    if let Err(errno) = sys::count_signals(true) {
        eprintln!("sigaction: {}", sys::name(errno));
        return;
    }
    for line in io::stdin().lock().lines() {
        let Some(order) = line.ok().as_deref().and_then(Order::parse) else {
            continue;
        };
        let id = order.id;
        table().threads.insert(id, 0);
        let started = thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || carry_out(&order));
        if let Err(error) = started {
            say(id, &format!(" failed=thread:{error}"));
        }
    }
    // The test has ended; so do we, whatever still waits.
    std::process::exit(0);
}

fn carry_out(order: &Order) {
    table().threads.insert(order.id, sys::thread_id());
    let result = obey(order);
    table().threads.remove(&order.id);
    match result {
        Ok(answer) => say(order.id, answer.text()),
        // What went wrong has spaces, and so it comes last.
        Err(why) => say(order.id, &format!(" failed={why}")),
    }
}

fn say(id: u64, text: &str) {
    let mut out = io::stdout().lock();
    // The test that is gone does not listen any more.
    let _ = writeln!(out, "{id}{text}").and_then(|()| out.flush());
}

fn add(fd: RawFd) -> Result<Answer, String> {
    let ports = sys::ports(fd).unwrap_or_default();
    let mut table = table();
    table.last += 1;
    let handle = table.last;
    let socket = Socket {
        fd,
        tx: Direction::new(),
        rx: Direction::new(),
    };
    table.sockets.insert(handle, Arc::new(socket));
    Ok(Answer::default()
        .with("socket", handle)
        .with("local", ports[0])
        .with("remote", ports[1]))
}

/// A new socket of TCP, bound to a device if the order names one.
fn stream_socket(order: &Order, address: &SocketAddr) -> Result<RawFd, String> {
    let fd = sys::socket(address).map_err(sys::name)?;
    if let Some(device) = order.find::<String>("device") {
        let bound = sys::bind_to_device(fd, &device);
        bound.map_err(|errno| format!("SO_BINDTODEVICE: {}", sys::name(errno)))?;
    }
    Ok(fd)
}

fn socket(order: &Order) -> Result<Arc<Socket>, String> {
    let handle: u64 = order.get("socket")?;
    table()
        .sockets
        .get(&handle)
        .cloned()
        .ok_or_else(|| format!("no socket {handle}"))
}

/// An answer with the error of a call, if it has one: that is for the test to judge.
fn outcome(result: Result<(), sys::Errno>) -> Answer {
    match result {
        Ok(()) => Answer::default(),
        Err(errno) => Answer::default().with("error", sys::name(errno)),
    }
}

fn obey(order: &Order) -> Result<Answer, String> {
    match order.verb.as_str() {
        "hello" => Ok(Answer::default().with("pid", std::process::id())),
        "listen" => {
            let address: SocketAddr = order.get("address")?;
            let fd = stream_socket(order, &address)?;
            sys::listen(fd, &address).map_err(sys::name)?;
            add(fd)
        }
        "connect" => {
            let address: SocketAddr = order.get("address")?;
            let fd = stream_socket(order, &address)?;
            if let Some(from) = order.find::<SocketAddr>("from") {
                sys::bind(fd, &from).map_err(|errno| format!("bind: {}", sys::name(errno)))?;
            }
            sys::connect(fd, &address).map_err(|errno| format!("connect: {}", sys::name(errno)))?;
            add(fd)
        }
        "accept" => add(sys::accept(socket(order)?.fd).map_err(sys::name)?),
        "udp" | "udp-lite" => {
            let address: SocketAddr = order.get("address")?;
            let is_lite = order.verb == "udp-lite";
            let fd = sys::udp(&address, is_lite).map_err(sys::name)?;
            if let Some(to) = order.find::<SocketAddr>("to") {
                sys::connect(fd, &to).map_err(sys::name)?;
            }
            add(fd)
        }
        "blast" => socket(order).and_then(|socket| datagram::blast(socket.fd, &socket.tx, order)),
        "gather" => socket(order).and_then(|socket| datagram::gather(socket.fd, &socket.rx, order)),
        "parts" => datagram::parts(socket(order)?.fd),
        "echo" => socket(order).and_then(|socket| datagram::echo(socket.fd, &socket.tx, order)),
        "exchange" => {
            socket(order).and_then(|socket| datagram::exchange(socket.fd, &socket.tx, order))
        }
        "seed" => {
            let socket = socket(order)?;
            socket.tx.seed.store(order.get("tx")?, Relaxed);
            socket.rx.seed.store(order.get("rx")?, Relaxed);
            Ok(Answer::default())
        }
        "send" => socket(order).and_then(|socket| transfer::send(socket.fd, &socket.tx, order)),
        "recv" => socket(order).and_then(|socket| transfer::recv(socket.fd, &socket.rx, order)),
        "hang" => hang::call(socket(order)?.fd, order.get::<String>("how")? == "send"),
        "unhang" => hang::release(),
        "stop" => {
            socket(order)?.tx.stop.store(true, Relaxed);
            Ok(Answer::default())
        }
        "enough" => {
            socket(order)?.rx.stop.store(true, Relaxed);
            Ok(Answer::default())
        }
        "join" => {
            let (group, at) = (order.get("group")?, order.get("at")?);
            Ok(outcome(sys::join(socket(order)?.fd, group, at)))
        }
        "filter" => {
            let longest: u32 = order.get("longest")?;
            Ok(outcome(sys::attach_filter(socket(order)?.fd, longest)))
        }
        "progress" => {
            let socket = socket(order)?;
            let (sent, received) = (socket.tx.at.load(Relaxed), socket.rx.at.load(Relaxed));
            Ok(Answer::default()
                .with("sent", sent)
                .with("received", received))
        }
        "record" => {
            socket(order)?.rx.record();
            Ok(Answer::default())
        }
        "recorded" => Ok(socket(order)?.rx.recorded()),
        "shutdown" => {
            let how = match order.get::<String>("how")?.as_str() {
                "read" => libc::SHUT_RD,
                "write" => libc::SHUT_WR,
                _ => libc::SHUT_RDWR,
            };
            Ok(outcome(sys::shutdown(socket(order)?.fd, how)))
        }
        "close" => {
            let fd = socket(order)?.fd;
            table().sockets.remove(&order.get("socket")?);
            Ok(outcome(sys::close(fd)))
        }
        "urgent" => Ok(outcome(sys::send_urgent(socket(order)?.fd))),
        "set" => set(order),
        "each" => each(order),
        "error" => {
            let value = sys::option(socket(order)?.fd, libc::SOL_SOCKET, libc::SO_ERROR);
            Ok(outcome(value.and_then(|errno| {
                if errno == 0 { Ok(()) } else { Err(errno) }
            })))
        }
        "unread" => {
            let count = sys::ioctl(socket(order)?.fd, libc::FIONREAD).map_err(sys::name)?;
            Ok(Answer::default().with("bytes", count))
        }
        "poll" => {
            let (events, timeout) = (order.get("events")?, order.find("timeout").unwrap_or(-1));
            let events = sys::poll(socket(order)?.fd, events, timeout).map_err(sys::name)?;
            Ok(Answer::default().with("events", events))
        }
        "state" => state(order),
        "asleep" => asleep(order),
        "interrupt" => {
            // Whoever has ended needs no signal.
            Ok(outcome(thread_of(order)?.map_or(Ok(()), sys::interrupt)))
        }
        "signals" => {
            if let Some(restart) = order.find::<u8>("restart") {
                sys::count_signals(restart == 1).map_err(sys::name)?;
            }
            let [usr1, pipe] = sys::signals();
            Ok(Answer::default().with("usr1", usr1).with("pipe", pipe))
        }
        "die" => {
            sys::die();
            Err("we are still alive".into())
        }
        other => Err(format!("no such order: {other}")),
    }
}

/// Carries out an order for each socket of a range, one after the other; the sum of what they moved, and the first error.
fn each(order: &Order) -> Result<Answer, String> {
    let (first, last): (u64, u64) = (order.get("first")?, order.get("last")?);
    let verb: String = order.get("verb")?;
    let (mut bytes, mut count) = (0, 0);
    for handle in first..=last {
        let answer = obey(&order.with(&verb, "socket", handle))?;
        if let Some(error) = answer.find("error") {
            return Err(format!("{verb}, socket {handle}: {error}"));
        }
        bytes += answer
            .find("bytes")
            .and_then(|bytes| bytes.parse::<u64>().ok())
            .unwrap_or(0);
        count += 1;
    }
    Ok(Answer::default().with("bytes", bytes).with("count", count))
}

fn set(order: &Order) -> Result<Answer, String> {
    let (fd, value) = (socket(order)?.fd, order.get::<i32>("value")?);
    let time = libc::timeval {
        tv_sec: i64::from(value) / 1000,
        tv_usec: i64::from(value) % 1000 * 1000,
    };
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: value,
    };
    let level = libc::SOL_SOCKET;
    let result = match order.get::<String>("name")?.as_str() {
        "linger" => sys::set_option(fd, level, libc::SO_LINGER, linger),
        "receive-timeout" => sys::set_option(fd, level, libc::SO_RCVTIMEO, time),
        "send-timeout" => sys::set_option(fd, level, libc::SO_SNDTIMEO, time),
        "receive-low-water" => sys::set_option(fd, level, libc::SO_RCVLOWAT, value),
        "receive-buffer" => sys::set_option(fd, level, libc::SO_RCVBUF, value),
        "receive-buffer-force" => sys::set_option(fd, level, libc::SO_RCVBUFFORCE, value),
        "broadcast" => sys::set_option(fd, level, libc::SO_BROADCAST, value),
        "ip-options" => sys::set_option(fd, libc::IPPROTO_IP, libc::IP_OPTIONS, value),
        "gro" => sys::set_option(fd, libc::IPPROTO_UDP, libc::UDP_GRO, value),
        "send-buffer" => sys::set_option(fd, level, libc::SO_SNDBUF, value),
        "tos" => sys::set_option(fd, libc::IPPROTO_IP, libc::IP_TOS, value),
        "nodelay" => sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, value),
        "cork" => sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_CORK, value),
        "user-timeout" => sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, value),
        "pacing" => sys::set_option(fd, level, libc::SO_MAX_PACING_RATE, value),
        "timestamping" => sys::set_option(fd, level, libc::SO_TIMESTAMPING, value),
        // One that no kernel has.
        "upper-protocol" => sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_ULP, *b"none"),
        other => return Err(format!("no option {other}")),
    };
    Ok(outcome(result))
}

/// What the module says about a connection: nothing when it does not know it.
fn state(order: &Order) -> Result<Answer, String> {
    let [local, remote] = sys::ports(socket(order)?.fd).map_err(sys::name)?;
    let text = fs::read_to_string(CONNECTIONS).unwrap_or_default();
    let has = |line: &str, word: &str| line.split_whitespace().any(|other| other == word);
    let (local, remote) = (
        format!("local_port={local}"),
        format!("remote_port={remote}"),
    );
    let line = text
        .lines()
        .find(|line| has(line, &local) && has(line, &remote))
        .unwrap_or_default();
    let pair = |word: &str| {
        word.split_once('=')
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
    };
    let add = |answer: Answer, (name, value): (String, String)| answer.with(&name, value);
    Ok(line
        .split_whitespace()
        .filter_map(pair)
        .fold(Answer::default(), add))
}

/// The thread that carries out an order: none when that is over, 0 when it has not begun.
fn thread_of(order: &Order) -> Result<Option<i32>, String> {
    Ok(table().threads.get(&order.get("order")?).copied())
}

/// Waits until the thread that carries out an order sleeps in a socket call or in a poll, or has ended.
fn asleep(order: &Order) -> Result<Answer, String> {
    let wanted = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_readv,
        libc::SYS_writev,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_sendfile,
        libc::SYS_splice,
        libc::SYS_poll,
        libc::SYS_select,
        libc::SYS_epoll_wait,
        libc::SYS_pselect6,
        libc::SYS_io_uring_enter,
        libc::SYS_accept,
    ];
    while let Some(thread) = thread_of(order)? {
        // It is "running" while it does, and the number of the call while it sleeps.
        let text =
            fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
        let number = text
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok());
        if number.is_some_and(|number: i64| wanted.contains(&number)) {
            return Ok(Answer::default());
        }
        thread::sleep(LOOK_PERIOD);
    }
    Ok(Answer::default().with("over", 1))
}
