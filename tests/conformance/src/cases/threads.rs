// SPDX-License-Identifier: GPL-2.0

//! Several threads with one socket.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use crate::{
    call,
    case::cases,
    end::End,
    stream,
    thread::Caller, //
};

/// Threads of each case.
const THREADS: usize = 4;

/// Bytes of each call that is more than fits before anybody reads, and after how many of them all who reads them pauses.
const LARGE: usize = 512 << 10;
const PAUSE: usize = 256 << 10;

/// Bytes of a stream that several read.
const SHARED: usize = 256 << 10;

/// Bytes that go in each direction when both are in use.
const EACH_WAY: usize = 2 << 20;

/// How many times each byte has come.
fn histogram(bytes: &[u8]) -> Vec<u8> {
    let mut counts = [0u32; 256];
    bytes.iter().for_each(|byte| counts[*byte as usize] += 1);
    counts
        .iter()
        .flat_map(|count| count.to_le_bytes())
        .collect()
}

/// Several threads read until the end; notes what they got together.
fn read_together(end: &mut End, flags: i32) {
    let fd = end.fd;
    let callers: Vec<_> = (1..=THREADS)
        .map(|index| {
            Caller::start(move || {
                let mut all = Vec::new();
                loop {
                    match call::recv(fd, 331 * index, flags) {
                        Ok(part) if part.is_empty() => return all,
                        Ok(part) => all.extend(part),
                        Err(errno) => panic!("recv: {errno}"),
                    }
                }
            })
        })
        .collect();
    let all: Vec<_> = callers.into_iter().flat_map(Caller::join).collect();
    end.see("bytes", all.len());
    end.see("each as often", histogram(&all));
    end.meet();
}

/// A record by which one can tell who sent it, and as which.
fn record(thread: usize, index: usize, size: usize) -> Vec<u8> {
    let mut bytes = call::pattern(thread * 1000 + index, size);
    bytes[0] = thread as u8;
    bytes[1] = index as u8;
    bytes
}

/// Several threads send records of one call each, as many in each round as always fit.
fn write_together(end: &mut End, rounds: usize, each: usize, size: usize) {
    let fd = end.fd;
    let barrier = Arc::new(Barrier::new(THREADS + 1));
    let callers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let barrier = Arc::clone(&barrier);
            Caller::start(move || {
                let mut whole = 0;
                for round in 0..rounds {
                    barrier.wait();
                    for index in 0..each {
                        let bytes = record(thread, round * each + index, size);
                        whole += usize::from(call::send(fd, &bytes, 0) == Ok(size));
                    }
                    barrier.wait();
                }
                whole
            })
        })
        .collect();
    for _ in 0..rounds {
        barrier.wait();
        barrier.wait();
        end.meet();
    }
    let whole: usize = callers.into_iter().map(Caller::join).sum();
    end.see("records", whole);
}

/// Receives them; notes whether each is whole, and each thread's are in order.
fn read_records(end: &mut End, rounds: usize, each: usize, size: usize) {
    let (mut whole, mut next) = (0, [0; THREADS]);
    let mut bytes = vec![0; size];
    for _ in 0..rounds {
        for _ in 0..each * THREADS {
            call::receive_all(end.fd, &mut bytes);
            let thread = bytes[0] as usize % THREADS;
            if bytes == record(thread, next[thread], size) {
                whole += 1;
            }
            next[thread] += 1;
        }
        end.meet();
    }
    end.see("whole and in order", whole);
}

/// The byte at a position of what a thread sends.
fn numbered(thread: usize, index: usize) -> u8 {
    ((thread << 6) | (index % 64)) as u8
}

/// Several threads send much in one call each, on a connection that is soon full.
fn write_much_together(end: &mut End) {
    let fd = end.fd;
    let callers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let bytes: Vec<_> = (0..LARGE).map(|index| numbered(thread, index)).collect();
            Caller::start(move || call::send(fd, &bytes, 0))
        })
        .collect();
    let asleep = callers.iter().filter(|caller| caller.falls_asleep());
    end.note(format!("{} wait for room", asleep.count()));
    end.meet();
    for caller in callers {
        end.see("send", caller.join());
    }
    end.meet();
}

/// Receives that, with pauses; notes whether what each thread has sent came in sequence.
fn read_sequences(end: &mut End) {
    let mut next = [0; THREADS];
    let (mut all, mut wrong) = (0, 0usize);
    end.meet();
    while all < THREADS * LARGE {
        let part = call::recv(end.fd, call::PIECE, 0).expect("recv");
        assert!(!part.is_empty(), "the stream ends after {all} bytes");
        for byte in &part {
            let thread = usize::from(byte >> 6);
            wrong += usize::from(*byte != numbered(thread, next[thread]));
            next[thread] += 1;
        }
        if (all + part.len()) / PAUSE > all / PAUSE {
            end.pause();
        }
        all += part.len();
    }
    end.see("out of sequence", wrong);
    end.see("of each as much", next == [LARGE; THREADS]);
    end.meet();
}

/// Sends and receives at the same time.
fn both_ways(end: &mut End, ours: usize, theirs: usize) {
    let fd = end.fd;
    let sender = thread::spawn(move || stream::send(fd, ours, EACH_WAY));
    let good = stream::receive(fd, theirs, EACH_WAY);
    end.see("received", good);
    sender.join().expect("all is sent");
    end.meet();
}

cases! {
    /// Several threads read one stream: each byte comes to one of them.
    readers: |left| {
        stream::send(left.fd, 0, SHARED);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        read_together(right, 0);
    };

    /// So it is if each waits for all that it asks for.
    readers_of_all: |left| {
        stream::send(left.fd, 0, SHARED);
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        read_together(right, libc::MSG_WAITALL);
    };

    /// Several threads send small records: none is torn.
    writers: |left| {
        write_together(left, 25, 8, 100);
    }, |right| {
        read_records(right, 25, 8, 100);
    };

    /// Several threads send larger records: none is torn.
    writers_of_large_records: |left| {
        write_together(left, 20, 2, 4000);
    }, |right| {
        read_records(right, 20, 2, 4000);
    };

    /// Several threads wait for room at once: what each sends arrives in sequence, whatever of the others' comes between.
    writers_of_more_than_fits: |left| {
        write_much_together(left);
    }, |right| {
        read_sequences(right);
    };

    /// Both ends send and receive at the same time.
    both_directions: |left| {
        both_ways(left, 0, 12345);
    }, |right| {
        both_ways(right, 12345, 0);
    };

    /// One message wakes one of those that wait for one; the end of the stream wakes all.
    one_gets_it: |left| {
        for _ in 0..2 {
            left.meet();
            left.send(b"x", 0);
            left.meet();
        }
        left.shutdown(libc::SHUT_WR);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let receive = move || call::recv(fd, 100, 0);
        let callers: Vec<_> = (0..THREADS).map(|_| Caller::asleep(receive)).collect();
        for awake in 1..=2 {
            right.meet();
            let over = || callers.iter().filter(|caller| caller.is_over()).count();
            right.until("one gets it", || over() >= awake);
            right.pause();
            right.see("awake", over());
            right.meet();
        }
        let mut results: Vec<_> = callers.into_iter().map(|caller| caller.join()).collect();
        results.sort_by_key(|result| result.as_ref().map_or(0, Vec::len));
        for result in results {
            right.see("recv", result);
        }
        right.meet();
    };

    /// Those that peek all see it.
    all_peek: |left| {
        left.meet();
        left.send(b"x", 0);
        left.meet();
    }, |right| {
        let fd = right.fd;
        let peek = move || call::recv(fd, 100, libc::MSG_PEEK);
        let callers: Vec<_> = (0..THREADS).map(|_| Caller::asleep(peek)).collect();
        right.meet();
        for caller in callers {
            right.see("recv", caller.join());
        }
        right.recv(100, 0);
        right.meet();
    };
}
