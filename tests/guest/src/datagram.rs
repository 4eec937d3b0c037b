// SPDX-License-Identifier: GPL-2.0

//! Datagrams: each has its number in its first eight bytes, and otherwise what the stream of its number has, so that a
//! receiver can tell those that are lost, doubled, out of order, or wrong.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    os::fd::RawFd,
    sync::atomic::Ordering::Relaxed, //
    thread,
    time::Duration,
};

use crate::{
    order::{Answer, Order},
    stream::{Random, fill, first_difference},
    sys,
    transfer::Direction,
};

/// Bytes of the number.
const NUMBER: usize = 8;

/// Time in which an answer has come, unless it was lost, in milliseconds: the emulator may stand still for a while.
const ANSWER_MS: i32 = 5_000;

/// How often who waits for datagrams looks whether he is to stop, in milliseconds.
const STOP_PERIOD_MS: i32 = 100;

/// Time until who is patient tries again after an error, in microseconds.
const AGAIN_US: u64 = 10_000;

/// The largest datagram of IPv4.
const MAX: usize = 65_507;

/// The bytes of datagram `number` with `len` bytes.
fn content(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    if let Some((head, rest)) = bytes.split_at_mut_checked(NUMBER) {
        head.copy_from_slice(&number.to_le_bytes());
        fill(number, 0, rest);
    }
    bytes
}

/// The number of a datagram, if its bytes are right. One that is too short for a number is number 0.
fn number(bytes: &[u8]) -> Result<u64, String> {
    let Some((head, rest)) = bytes.split_first_chunk::<NUMBER>() else {
        return match bytes.iter().all(|byte| *byte == 0) {
            true => Ok(0),
            false => Err(format!("a datagram of {} bytes is not empty", bytes.len())),
        };
    };
    let number = u64::from_le_bytes(*head);
    match first_difference(number, 0, rest) {
        None => Ok(number),
        Some(at) => Err(format!("datagram {number} is wrong at byte {at}")),
    }
}

/// The sizes that an order asks for: `size=N`, `sizes=N,N,…` in turn, or `max=N` for random ones.
struct Sizes {
    list: Vec<usize>,
    max: Option<usize>,
    random: Random,
}

impl Sizes {
    fn new(order: &Order) -> Result<Self, String> {
        let list: String = order.find("sizes").unwrap_or_default();
        let mut list: Vec<usize> = list
            .split(',')
            .filter_map(|size| size.parse().ok())
            .collect();
        list.extend(order.find::<usize>("size"));
        let max = order.find("max");
        if list.is_empty() && max.is_none() {
            return Err("no size".into());
        }
        Ok(Self {
            list,
            max,
            random: Random::new(order.find("first").unwrap_or(0)),
        })
    }

    fn next(&mut self, index: u64) -> usize {
        match self.max {
            Some(max) => NUMBER + self.random.below((max - NUMBER) as u64 + 1) as usize,
            None => self.list[index as usize % self.list.len()],
        }
    }
}

/// Whether an error is one that a network has while its other end is away: who is patient goes on after it. Nothing was sent then.
fn is_passing(errno: sys::Errno) -> bool {
    [
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::ENETDOWN,
        libc::ENOBUFS,
    ]
    .contains(&errno)
}

fn is_patient(order: &Order) -> bool {
    order.find("patient").unwrap_or(0) == 1
}

/// Sends `count` datagrams, with the numbers from `first` on, or until it is told to stop; after each one it sleeps for `gap_us`
/// microseconds.
pub(crate) fn blast(fd: RawFd, tx: &Direction, order: &Order) -> Result<Answer, String> {
    let (first, count): (u64, u64) = (order.get("first")?, order.find("count").unwrap_or(u64::MAX));
    let to: Option<SocketAddr> = order.find("to");
    let (segment, now) = (order.find("segment").unwrap_or(0), order.find("mode"));
    let now = now.is_some_and(|mode: String| mode == "never");
    let gap: Option<u64> = order.find("gap_us");
    let is_patient = is_patient(order);
    let mut sizes = Sizes::new(order)?;
    let (mut sent, mut error) = (0, None);
    while sent < count && !tx.stop.load(Relaxed) {
        let bytes = content(first + sent, sizes.next(sent));
        match sys::send_datagram(fd, &bytes, to.as_ref(), segment, now) {
            Ok(len) if len == bytes.len() => sent += 1,
            Ok(len) => return Err(format!("{len} bytes of {} were sent", bytes.len())),
            Err(errno) if is_patient && is_passing(errno) => {
                thread::sleep(Duration::from_micros(AGAIN_US));
                continue;
            }
            Err(errno) => {
                error = Some(errno);
                break;
            }
        }
        tx.at.store(first + sent, Relaxed);
        if let Some(gap) = gap {
            thread::sleep(Duration::from_micros(gap));
        }
    }
    tx.stop.store(false, Relaxed);
    Ok(error
        .map_or_else(Answer::default, |errno| {
            Answer::default().with("error", sys::name(errno))
        })
        .with("sent", sent))
}

/// Receives datagrams until `count` have come, or none has for `timeout` milliseconds, and says what they were like. Who is patient waits
/// for that silence only when it was told that it is enough.
pub(crate) fn gather(fd: RawFd, rx: &Direction, order: &Order) -> Result<Answer, String> {
    let (count, timeout): (u64, i32) = (
        order.find("count").unwrap_or(u64::MAX),
        order.find("timeout").unwrap_or(-1),
    );
    // Parts of datagrams have no numbers of their own.
    let raw = order.find("raw").unwrap_or(0) == 1;
    let is_patient = is_patient(order);
    let mut buffer = vec![0; MAX + 1];
    let (mut seen, mut bytes) = (BTreeSet::new(), 0);
    let (mut received, mut disordered, mut doubled, mut last) = (0, 0, 0, None);
    let mut error = None;
    while received < count {
        // What comes between the two is not silence.
        let is_enough = !is_patient || rx.stop.load(Relaxed);
        if sys::poll(fd, libc::POLLIN, timeout).map_err(sys::name)? == 0 {
            if is_enough {
                break;
            }
            continue;
        }
        match sys::recv(fd, &mut buffer, 0) {
            Ok(len) => {
                let number = if raw {
                    received
                } else {
                    number(&buffer[..len])?
                };
                received += 1;
                bytes += len;
                disordered += u64::from(last.is_some_and(|last| number < last));
                doubled += u64::from(!seen.insert(number));
                last = Some(number);
                rx.at.store(received, Relaxed);
            }
            Err(errno) => {
                error = Some(errno);
                break;
            }
        }
    }
    rx.stop.store(false, Relaxed);
    let (first, last) = (seen.first().copied(), seen.last().copied());
    let pairs = seen.iter().zip(seen.iter().skip(1));
    let gaps: Vec<(u64, u64)> = pairs
        .filter(|(before, after)| *after - *before > 1)
        .map(|(before, after)| (before + 1, after - 1))
        .collect();
    let span = last.zip(first).map_or(0, |(last, first)| last - first + 1);
    Ok(error
        .map_or_else(Answer::default, |errno| {
            Answer::default().with("error", sys::name(errno))
        })
        .with("received", received)
        .with("bytes", bytes)
        .with("disordered", disordered)
        .with("doubled", doubled)
        .with("lost", span - seen.len() as u64)
        .with("first_lost", gaps.first().map_or(0, |gap| gap.0))
        .with("last_lost", gaps.last().map_or(0, |gap| gap.1))
        .with("first", first.unwrap_or(0))
        .with("last", last.unwrap_or(0)))
}

/// Receives what one call has sent in segments, as far as it comes in one message; says how long that and its parts are.
pub(crate) fn parts(fd: RawFd) -> Result<Answer, String> {
    let mut buffer = vec![0; MAX + 1];
    let (len, segment) = sys::recv_parts(fd, &mut buffer).map_err(sys::name)?;
    number(&buffer[..len])?;
    Ok(Answer::default()
        .with("bytes", len)
        .with("segment", segment))
}

/// Sends each of `count` datagrams back to where it came from, or until it is told to stop.
pub(crate) fn echo(fd: RawFd, tx: &Direction, order: &Order) -> Result<Answer, String> {
    let count: u64 = order.find("count").unwrap_or(u64::MAX);
    let is_patient = is_patient(order);
    let mut buffer = vec![0; MAX + 1];
    let mut rounds = 0;
    while rounds < count && !tx.stop.load(Relaxed) {
        if sys::poll(fd, libc::POLLIN, STOP_PERIOD_MS).map_err(sys::name)? == 0 {
            continue;
        }
        let len = match sys::echo(fd, &mut buffer) {
            Err(errno) if is_patient && is_passing(errno) => continue,
            result => result.map_err(sys::name)?,
        };
        number(&buffer[..len])?;
        rounds += 1;
        tx.at.store(rounds, Relaxed);
    }
    tx.stop.store(false, Relaxed);
    Ok(Answer::default().with("rounds", rounds))
}

/// Sends `count` datagrams, or until it is told to stop, one after the answer to the other, which must be the same. One whose answer does not
/// come in time is sent again, and counted; who is patient does that as often as need be.
pub(crate) fn exchange(fd: RawFd, tx: &Direction, order: &Order) -> Result<Answer, String> {
    let (first, count): (u64, u64) = (order.get("first")?, order.find("count").unwrap_or(u64::MAX));
    let to: Option<SocketAddr> = order.find("to");
    let is_patient = is_patient(order);
    let mut sizes = Sizes::new(order)?;
    let mut buffer = vec![0; MAX + 1];
    let (mut rounds, mut again) = (0, 0);
    'rounds: while rounds < count && !tx.stop.load(Relaxed) {
        let bytes = content(first + rounds, sizes.next(rounds));
        let mut is_to_send = true;
        while !tx.stop.load(Relaxed) {
            if is_to_send {
                match sys::send_datagram(fd, &bytes, to.as_ref(), 0, false) {
                    Err(errno) if is_patient && is_passing(errno) => {
                        thread::sleep(Duration::from_micros(AGAIN_US));
                        continue;
                    }
                    result => result.map_err(sys::name)?,
                };
            }
            is_to_send = true;
            if sys::poll(fd, libc::POLLIN, ANSWER_MS).map_err(sys::name)? == 0 {
                again += 1;
                if again > 10 && !is_patient {
                    return Err(format!(
                        "no answer in round {rounds}, {} bytes",
                        bytes.len()
                    ));
                }
                continue;
            }
            let len = match sys::recv(fd, &mut buffer, 0) {
                // Whether the answer comes nevertheless is not known.
                Err(errno) if is_patient && is_passing(errno) => {
                    again += 1;
                    continue;
                }
                result => result.map_err(sys::name)?,
            };
            if buffer[..len] == bytes {
                rounds += 1;
                tx.at.store(rounds, Relaxed);
                continue 'rounds;
            }
            number(&buffer[..len])?;
            if again == 0 {
                return Err(format!(
                    "{len} bytes instead of {} in round {rounds}",
                    bytes.len()
                ));
            }
            // A late answer to one that was sent twice; this one's is on its way.
            is_to_send = false;
        }
    }
    tx.stop.store(false, Relaxed);
    Ok(Answer::default()
        .with("rounds", rounds)
        .with("again", again))
}
