// SPDX-License-Identifier: GPL-2.0

//! Runs in a guest: how fast it can copy memory, and read `/dev/zero`, in pieces of one size; and how fast several
//! connections are together.
//!
//! `demo-probe memcpy|zero BYTES MILLISECONDS` prints bytes per second.
//!
//! `demo-probe sink PORT` takes what is sent to it. `demo-probe streams ADDRESS PORT BYTES MILLISECONDS STREAMS SLOW` sends
//! messages of that size over so many connections, and over some more whose readers are slow, and prints bytes per second of
//! the former.

use std::{
    env,
    error::Error,
    fs::File,
    hint::black_box,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes moved between two looks at the clock, about.
const BATCH_BYTES: usize = 4 << 20;

/// Time in which connections get up to speed, before anything is counted.
const WARM_UP: Duration = Duration::from_secs(4);

/// Bytes that a reader takes at a time.
const READ_BYTES: usize = 64 << 10;

/// Bytes that a slow one takes, and how long it rests in between.
const SLOW_BYTES: usize = 4 << 10;
const SLOW_PAUSE: Duration = Duration::from_millis(50);

/// First byte of a connection that wants a slow reader.
const SLOW: u8 = b's';

/// First byte of any other.
const FAST: u8 = b'f';

/// Stack of a thread that does nothing but read or write.
const STACK: usize = 128 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["sink", port] => sink(port.parse()?),
        ["streams", address, port, size, time, streams, slow] => {
            let target = SocketAddr::new(address.parse()?, port.parse()?);
            let time = Duration::from_millis(time.parse()?);
            let rate = send(target, size.parse()?, time, streams.parse()?, slow.parse()?)?;
            println!("{rate:.0}");
            Ok(())
        }
        [what, size, milliseconds] => {
            let time = Duration::from_millis(milliseconds.parse()?);
            println!("{:.0}", in_memory(what, size.parse()?, time)?);
            Ok(())
        }
        _ => Err(
            "usage: demo-probe memcpy|zero BYTES MILLISECONDS, or sink PORT, or streams …".into(),
        ),
    }
}

/// Copies or reads pieces of `size` bytes for this time; returns bytes per second.
fn in_memory(what: &str, size: usize, time: Duration) -> Result<f64, Box<dyn Error>> {
    let mut target = vec![1_u8; size];
    match what {
        "memcpy" => {
            let source = vec![2_u8; size];
            measure(size, time, || {
                black_box(&mut target).copy_from_slice(black_box(&source));
                Ok(())
            })
        }
        "zero" => {
            let mut zero = File::open("/dev/zero")?;
            measure(size, time, || Ok(zero.read_exact(&mut target)?))
        }
        other => Err(format!("{other}: neither memcpy nor zero").into()),
    }
}

/// Takes what is sent to this port, until it is killed.
fn sink(port: u16) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    loop {
        let (stream, _) = listener.accept()?;
        thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || swallow(stream))?;
    }
}

/// Reads until the connection ends, however that is.
fn swallow(mut stream: TcpStream) -> io::Result<()> {
    let mut first = [0];
    stream.read_exact(&mut first)?;
    let is_slow = first[0] == SLOW;
    let mut buffer = vec![0; if is_slow { SLOW_BYTES } else { READ_BYTES }];
    while stream.read(&mut buffer)? > 0 {
        if is_slow {
            thread::sleep(SLOW_PAUSE);
        }
    }
    Ok(())
}

/// Sends over all connections at once; returns the bytes per second of those that are not slow.
fn send(
    target: SocketAddr,
    size: usize,
    time: Duration,
    streams: usize,
    slow: usize,
) -> Result<f64, Box<dyn Error>> {
    let sent = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    for number in 0..streams + slow {
        let (sent, is_slow) = (sent.clone(), number >= streams);
        let mut stream = TcpStream::connect(target)?;
        stream.write_all(&[if is_slow { SLOW } else { FAST }])?;
        let sender = move || -> io::Result<()> {
            let message = vec![3_u8; size];
            loop {
                stream.write_all(&message)?;
                if !is_slow {
                    sent.fetch_add(size as u64, Relaxed);
                }
            }
        };
        threads.push(thread::Builder::new().stack_size(STACK).spawn(sender)?);
    }
    thread::sleep(WARM_UP);
    let (start, before) = (Instant::now(), sent.load(Relaxed));
    thread::sleep(time);
    let (elapsed, after) = (start.elapsed(), sent.load(Relaxed));
    if let Some(ended) = threads.into_iter().find(|thread| thread.is_finished()) {
        return Err(format!("a stream ended by itself: {:?}", ended.join()).into());
    }
    Ok((after - before) as f64 / elapsed.as_secs_f64())
}

/// Moves pieces of `size` bytes for this time; returns bytes per second.
fn measure(
    size: usize,
    time: Duration,
    mut piece: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let batch = (BATCH_BYTES / size.max(1)).max(1);
    let (start, mut pieces) = (Instant::now(), 0_usize);
    loop {
        for _ in 0..batch {
            piece()?;
        }
        pieces += batch;
        let elapsed = start.elapsed();
        if elapsed >= time {
            return Ok((pieces * size) as f64 / elapsed.as_secs_f64());
        }
    }
}
