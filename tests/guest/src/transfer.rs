// SPDX-License-Identifier: GPL-2.0

//! Sending and receiving parts of a stream, in all the ways in which programs do it.

use std::{
    os::fd::RawFd,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool,
            AtomicU64,
            Ordering::Relaxed, //
        },
    },
    time::{Duration, Instant},
};

use crate::{
    order::{Answer, Order},
    stream::{self, Random},
    sys::{self, Errno},
};

/// Ways to send, some of which only TCP can.
const CHANGING: [&str; 4] = ["send", "write", "writev", "control"];

/// Largest piece of a vector.
const PIECE: usize = 1500;

/// A direction of a connection, as this end sees it.
pub(crate) struct Direction {
    /// Which bytes travel.
    pub(crate) seed: AtomicU64,
    /// How many have, so far.
    pub(crate) at: AtomicU64,
    /// It is to end soon.
    pub(crate) stop: AtomicBool,
    /// How many came when, if that is written down.
    history: Mutex<Option<History>>,
}

/// Length of the periods of a [`History`].
const PERIOD_MS: u128 = 100;

/// How many bytes came in each period since it began.
struct History {
    start: Instant,
    /// When bytes came last.
    last: Instant,
    /// The longest time without any.
    longest: Duration,
    bytes: Vec<u64>,
}

impl Direction {
    /// One that has not begun.
    pub(crate) fn new() -> Self {
        Self {
            seed: AtomicU64::new(0),
            at: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            history: Mutex::new(None),
        }
    }

    fn history(&self) -> MutexGuard<'_, Option<History>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to write down when bytes come.
    pub(crate) fn record(&self) {
        let now = Instant::now();
        *self.history() = Some(History {
            start: now,
            last: now,
            longest: Duration::ZERO,
            bytes: Vec::new(),
        });
    }

    /// What was written down: the longest time without bytes, and how many came in each period.
    pub(crate) fn recorded(&self) -> Answer {
        let Some(history) = self.history().take() else {
            return Answer::default();
        };
        let bytes: Vec<String> = history.bytes.iter().map(u64::to_string).collect();
        Answer::default()
            .with("period", PERIOD_MS)
            .with("longest", history.longest.as_millis())
            .with("bytes", bytes.join(","))
    }

    /// Notes that bytes were received.
    fn note(&self, count: usize) {
        self.at.fetch_add(count as u64, Relaxed);
        let mut history = self.history();
        let Some(history) = history.as_mut() else {
            return;
        };
        let now = Instant::now();
        history.longest = history.longest.max(now.duration_since(history.last));
        history.last = now;
        let period = now.duration_since(history.start).as_millis() / PERIOD_MS;
        let period = period as usize;
        if history.bytes.len() <= period {
            history.bytes.resize(period + 1, 0);
        }
        history.bytes[period] += count as u64;
    }
}

/// How a transfer waits.
enum Wait {
    /// Inside the call.
    Block,
    /// Not at all: it ends with `EAGAIN`.
    Never,
    /// In poll.
    Poll(i16),
    /// In select.
    Select,
    /// In epoll, also when something else than EAGAIN says that nothing is left.
    Epoll { instance: RawFd, sign: Sign },
}

/// What a program takes for the sign that nothing is left to read or no room to write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// `EAGAIN` alone.
    Again,
    /// A short count as well.
    Short,
    /// A full count, too, if `FIONREAD` says that there is nothing more.
    Asked,
}

impl Wait {
    fn new(order: &Order, fd: RawFd, is_send: bool) -> Result<Self, String> {
        let (poll, epoll) = if is_send {
            (libc::POLLOUT, libc::EPOLLOUT)
        } else {
            (libc::POLLIN, libc::EPOLLIN)
        };
        let level = epoll as u32;
        let edge = level | libc::EPOLLET as u32;
        let instance = |events| sys::epoll(fd, events).map_err(sys::name);
        let mode: String = order.find("mode").unwrap_or_else(|| "block".into());
        let wait = match mode.as_str() {
            "block" => Self::Block,
            "never" => Self::Never,
            "poll" => Self::Poll(poll),
            "select" => Self::Select,
            "epoll" => Self::Epoll {
                instance: instance(level)?,
                sign: Sign::Again,
            },
            "edge" => Self::Epoll {
                instance: instance(edge)?,
                sign: Sign::Again,
            },
            "edge-short" => Self::Epoll {
                instance: instance(edge)?,
                sign: Sign::Short,
            },
            "edge-asked" => Self::Epoll {
                instance: instance(edge)?,
                sign: Sign::Asked,
            },
            other => return Err(format!("no mode {other}")),
        };
        sys::set_nonblocking(fd, !matches!(wait, Self::Block)).map_err(sys::name)?;
        Ok(wait)
    }

    /// Waits until a call is worth another try; false: never.
    fn wait(&self, fd: RawFd) -> Result<bool, Errno> {
        match self {
            Self::Block | Self::Never => return Ok(false),
            Self::Poll(events) => drop(sys::poll(fd, *events, -1)?),
            Self::Select => sys::select(fd, false)?,
            Self::Epoll { instance, .. } => drop(sys::epoll_wait(*instance)?),
        }
        Ok(true)
    }

    fn is_over_after(&self, fd: RawFd, count: usize, wanted: usize) -> Result<bool, Errno> {
        Ok(match self {
            Self::Epoll { sign, .. } if *sign != Sign::Again && count < wanted => true,
            Self::Epoll {
                sign: Sign::Asked, ..
            } => sys::ioctl(fd, libc::FIONREAD)? == 0,
            _ => false,
        })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Self::Epoll { instance, .. } = self {
            let _ = sys::close(*instance);
        }
    }
}

/// Descriptors that some calls need besides the socket.
struct Helpers {
    file: RawFd,
    pipe: [RawFd; 2],
}

impl Helpers {
    fn new() -> Result<Self, String> {
        let file = sys::memory_file().map_err(sys::name)?;
        let pipe = sys::pipe().map_err(sys::name)?;
        Ok(Self { file, pipe })
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        for fd in [self.file, self.pipe[0], self.pipe[1]] {
            let _ = sys::close(fd);
        }
    }
}

/// The call of which `method` is the name, or any.
fn choose<'a>(method: &'a str, all: &[&'a str], random: &mut Random) -> &'a str {
    if method == "any" {
        all[random.below(all.len() as u64) as usize]
    } else {
        method
    }
}

/// What an order asks of either transfer.
struct Plan {
    total: u64,
    max: usize,
    method: String,
    fixed: bool,
    once: bool,
    random: Random,
}

impl Plan {
    fn new(order: &Order, seed: u64) -> Self {
        Self {
            total: order.find("bytes").unwrap_or(u64::MAX),
            max: order.find("max").unwrap_or(65536),
            method: order.find("method").unwrap_or_else(|| "send".into()),
            fixed: order.find::<u8>("fixed").is_some(),
            once: order.find::<u8>("once").is_some(),
            random: Random::new(seed ^ order.id),
        }
    }

    fn size(&mut self, done: u64) -> usize {
        let size = if self.fixed {
            self.max
        } else {
            self.random.size(self.max)
        };
        usize::try_from(self.total - done).map_or(size, |left| size.min(left))
    }
}

/// Carries out `send`: sends part of the stream until so many bytes are sent, or the direction is to
/// stop, or an error comes.
pub(crate) fn send(fd: RawFd, direction: &Direction, order: &Order) -> Result<Answer, String> {
    let seed = direction.seed.load(Relaxed);
    let wait = Wait::new(order, fd, true)?;
    let (helpers, mut plan) = (Helpers::new()?, Plan::new(order, seed));
    let mut buffer = vec![0; plan.max];
    let (mut done, mut calls, mut error) = (0, 0u64, None);
    while done < plan.total && !direction.stop.load(Relaxed) {
        let size = plan.size(done);
        let at = direction.at.load(Relaxed);
        let bytes = &mut buffer[..size];
        stream::fill(seed, at, bytes);
        let piece = plan.random.size(PIECE);
        let all = ["write", "send", "writev", "sendmsg", "sendfile"];
        let method = match plan.method.as_str() {
            "changing" => choose("any", &CHANGING, &mut plan.random),
            method => choose(method, &all, &mut plan.random),
        };
        let result = match method {
            "control" => sys::sendmsg_with_control(fd, bytes),
            "write" => sys::write(fd, bytes),
            "send" => sys::send(fd, bytes, 0),
            "writev" => sys::writev(fd, bytes, piece),
            "sendmsg" => sys::sendmsg(fd, bytes, piece, 0),
            "sendfile" => sys::set_content(helpers.file, bytes)
                .and_then(|()| sys::sendfile(fd, helpers.file, size)),
            "splice" => {
                let some = &bytes[..size.min(4096)];
                let filled = sys::write(helpers.pipe[1], some);
                filled.and_then(|count| splice_all(helpers.pipe[0], fd, count, &wait))
            }
            other => return Err(format!("no way to send: {other}")),
        };
        calls += 1;
        match result {
            Ok(count) => {
                done += count as u64;
                direction.at.fetch_add(count as u64, Relaxed);
                if plan.once {
                    break;
                }
                if !wait.is_over_after(fd, count, size).map_err(sys::name)? {
                    continue;
                }
            }
            Err(libc::EAGAIN) if !matches!(wait, Wait::Block | Wait::Never) => {}
            Err(errno) => {
                error = Some(errno);
                break;
            }
        }
        let waited = if matches!(wait, Wait::Select) {
            sys::select(fd, true).map(|()| true)
        } else {
            wait.wait(fd)
        };
        match waited {
            Ok(_) => {}
            Err(errno) => {
                error = Some(errno);
                break;
            }
        }
    }
    Ok(answer(done, calls, error))
}

/// Moves all that is in a pipe to a socket.
fn splice_all(pipe: RawFd, fd: RawFd, count: usize, wait: &Wait) -> Result<usize, Errno> {
    let mut done = 0;
    while done < count {
        match sys::splice(pipe, fd, count - done, 0) {
            Ok(moved) => done += moved,
            Err(libc::EAGAIN) if matches!(wait, Wait::Poll(_)) => drop(wait.wait(fd)?),
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Carries out `recv`: receives and checks part of the stream until so many bytes have come, or the
/// stream is at its end, or an error comes.
pub(crate) fn recv(fd: RawFd, direction: &Direction, order: &Order) -> Result<Answer, String> {
    let seed = direction.seed.load(Relaxed);
    let wait = Wait::new(order, fd, false)?;
    let (helpers, mut plan) = (Helpers::new()?, Plan::new(order, seed));
    let uring = (plan.method == "uring").then(sys::io_uring);
    let mut uring = uring.transpose().map_err(sys::name)?;
    let mut buffer = vec![0; plan.max];
    let (mut done, mut calls, mut error, mut is_at_end) = (0, 0u64, None, false);
    while done < plan.total {
        let size = plan.size(done);
        let at = direction.at.load(Relaxed);
        let bytes = &mut buffer[..size];
        let piece = plan.random.size(PIECE);
        let all = ["read", "recv", "readv", "recvmsg", "peek", "splice"];
        let result = match choose(&plan.method, &all, &mut plan.random) {
            "read" => sys::read(fd, bytes),
            "recv" | "send" => sys::recv(fd, bytes, 0),
            "readv" => sys::readv(fd, bytes, piece),
            "recvmsg" => sys::recvmsg(fd, bytes, piece, 0),
            "waitall" => match sys::recv(fd, bytes, libc::MSG_WAITALL) {
                Ok(count) if count < size && count > 0 => {
                    // Less than all is right at the end only.
                    stream_ends(fd, direction, at, &bytes[..count], seed)?;
                    Ok(count)
                }
                result => result,
            },
            "peek" => match sys::recv(fd, bytes, libc::MSG_PEEK) {
                Ok(count) if count > 0 => {
                    check(seed, at, &bytes[..count], "peeked")?;
                    bytes.fill(0xa5);
                    match sys::recv(fd, &mut bytes[..count], 0) {
                        Ok(again) if again != count => {
                            return Err(format!("{count} bytes peeked at {at}, {again} received"));
                        }
                        result => result,
                    }
                }
                result => result,
            },
            "uring" => match &mut uring {
                Some(ring) => sys::recv_in(ring, fd, bytes),
                None => return Err("no io_uring".into()),
            },
            "splice" => sys::splice(fd, helpers.pipe[1], size.min(4096), 0).and_then(|count| {
                if count == 0 {
                    Ok(0)
                } else {
                    sys::read(helpers.pipe[0], &mut bytes[..count])
                }
            }),
            other => return Err(format!("no way to receive: {other}")),
        };
        calls += 1;
        match result {
            Ok(0) => {
                is_at_end = true;
                break;
            }
            Ok(count) => {
                check(seed, at, &bytes[..count], "received")?;
                done += count as u64;
                direction.note(count);
                if plan.once {
                    break;
                }
                if !wait.is_over_after(fd, count, size).map_err(sys::name)? || done >= plan.total {
                    continue;
                }
            }
            Err(libc::EAGAIN) if !matches!(wait, Wait::Block | Wait::Never) => {}
            Err(errno) => {
                error = Some(errno);
                break;
            }
        }
        match wait.wait(fd) {
            Ok(_) => {}
            Err(errno) => {
                error = Some(errno);
                break;
            }
        }
    }
    Ok(answer(done, calls, error).with("end", u8::from(is_at_end)))
}

/// Fails unless the stream ends behind `bytes`, which were received at `at`.
fn stream_ends(fd: RawFd, _: &Direction, at: u64, bytes: &[u8], seed: u64) -> Result<(), String> {
    check(seed, at, bytes, "received")?;
    match sys::recv(fd, &mut [0], libc::MSG_PEEK | libc::MSG_DONTWAIT) {
        Ok(0) => Ok(()),
        other => Err(format!(
            "MSG_WAITALL returned {} bytes at {at}, and then: {other:?}",
            bytes.len()
        )),
    }
}

/// Fails unless `bytes` are what the stream has at `at`.
fn check(seed: u64, at: u64, bytes: &[u8], how: &str) -> Result<(), String> {
    let Some(bad) = stream::first_difference(seed, at, bytes) else {
        return Ok(());
    };
    let index = (bad - at) as usize;
    let got = &bytes[index..bytes.len().min(index + 16)];
    // Where in the stream those bytes belong tells lost ones from doubled ones.
    let window = bad.saturating_sub(1 << 20)..bad + (1 << 20);
    let mut around = vec![0; (window.end - window.start) as usize];
    stream::fill(seed, window.start, &mut around);
    let belongs = around
        .windows(got.len())
        .position(|part| part == got && got.len() >= 4);
    let belongs = belongs.map_or("nowhere near".into(), |at| {
        format!("at {}", window.start + at as u64)
    });
    Err(format!(
        "wrong bytes: {} {how} at {at}, first wrong one at {bad}, {got:02x?}, which belong {belongs}",
        bytes.len()
    ))
}

fn answer(bytes: u64, calls: u64, error: Option<Errno>) -> Answer {
    let answer = Answer::default().with("bytes", bytes).with("calls", calls);
    match error {
        Some(errno) => answer.with("error", sys::name(errno)),
        None => answer,
    }
}
