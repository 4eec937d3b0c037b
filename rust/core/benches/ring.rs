// SPDX-License-Identifier: GPL-2.0

//! Bytes per second between two threads through the ring, against a UNIX socket pair and memcpy.
//!
//! Both ends are the core's own: the segments, indices, barriers and wake-ups of the guests, over
//! the host's atomics. A notice, with the event behind it, is the unparking of a thread; before it
//! sleeps, a thread spins for as long as the core's policy says. Every byte is copied once on each
//! side, as with a socket.

use std::{
    cell::UnsafeCell,
    hint,
    io::{
        Read,
        Write, //
    },
    os::unix::net::UnixStream,
    sync::{
        atomic::{
            fence,
            AtomicU32,
            Ordering, //
        },
        Arc, //
    },
    thread::{
        self,
        Thread, //
    },
    time::{
        Duration,
        Instant, //
    },
};

use criterion::{
    BenchmarkId,
    Criterion,
    Throughput, //
};
use xenvmc_core::{
    policy::Spin,
    stream::{
        Inbound,
        Outbound,
        Source, //
    },
    Extent,
    Fence,
    SharedLoad,
    SharedStore,
    Words, //
};

/// Sizes of a message in bytes.
const SIZES: [usize; 6] = [64, 256, 1024, 4096, 16384, 65536];

/// Pages of the ring, as log2: 256 KiB.
const ORDER: u8 = 6;

/// How long a thread may spin before it sleeps, in nanoseconds.
const SPIN_CAP_NS: u32 = 50_000;

struct Word<'a>(&'a AtomicU32);

impl SharedLoad for Word<'_> {
    fn load_relaxed(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn load_acquire(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}

impl SharedStore for Word<'_> {
    fn store_relaxed(&self, value: u32) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn store_release(&self, value: u32) {
        self.0.store(value, Ordering::Release);
    }
}

struct HostFence;

impl Fence for HostFence {
    fn full() {
        fence(Ordering::SeqCst);
    }
}

/// A connection slot; its two lines are written by different threads only in the peer's copy.
#[repr(align(4096))]
struct Slot([AtomicU32; 64]);

impl Slot {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

impl<'a> Words for &'a Slot {
    type Word = Word<'a>;

    fn word(&self, offset: u32) -> Word<'a> {
        Word(&self.0[offset as usize / 4])
    }
}

/// The pages of one extent.
struct Pages(UnsafeCell<Vec<u8>>);

// SAFETY: The bytes are accessed through raw pointers, by the sender only where the ring gives it
// room, and by the reader only where the ring says that there is something.
unsafe impl Sync for Pages {}

impl Pages {
    fn new(extent: Extent) -> Self {
        Self(UnsafeCell::new(vec![0; extent.bytes() as usize]))
    }

    fn at(&self, offset: u32) -> *mut u8 {
        // SAFETY: The vector is neither moved nor resized, and `offset` is that of a span of its
        // extent.
        unsafe { (*self.0.get()).as_mut_ptr().add(offset as usize) }
    }
}

/// What both threads see.
struct Shared {
    sender: Slot,
    reader: Slot,
    pages: Pages,
}

/// Spins for as long as `spin` finds worth while, then sleeps, until `ready`.
///
/// `arm` asks to be woken, and says whether the thread may sleep.
fn wait(spin: &mut Spin, mut ready: impl FnMut() -> bool, mut arm: impl FnMut() -> bool) {
    let budget = spin.budget(SPIN_CAP_NS, false);
    if budget > 0 {
        let begin = Instant::now();
        loop {
            if ready() {
                spin.handle_hit(SPIN_CAP_NS);
                return;
            }
            if begin.elapsed().as_nanos() >= u128::from(budget) {
                break;
            }
            hint::spin_loop();
        }
    }
    let begin = Instant::now();
    while arm() && !ready() {
        thread::park_timeout(Duration::from_secs(1));
    }
    spin.handle_sleep(begin.elapsed().as_nanos() as u32, SPIN_CAP_NS);
}

/// Reads `total` bytes in pieces of `size`.
fn receive(shared: &Shared, sender: &Thread, total: usize, size: usize) {
    let (own, peer) = (&&shared.reader, &&shared.sender);
    let mut inbound = Inbound::new();
    let mut spin = Spin::new();
    let mut buffer = vec![0u8; size];
    let mut left = total;
    while left > 0 {
        let Ok(Source::Ring { extent, bytes }) = inbound.look(peer, 1 << ORDER, 0, 0) else {
            thread::yield_now();
            continue;
        };
        if bytes == 0 {
            let (seen, word) = (inbound.cons(), peer.word(0));
            wait(
                &mut spin,
                || word.load_relaxed() != seen,
                || inbound.arm::<HostFence, _, _>(own, peer),
            );
            continue;
        }
        let len = bytes.min(size as u32);
        let mut to = 0;
        for span in inbound.spans(extent, len) {
            // SAFETY: The span lies within the extent and belongs to the reader; the buffer has
            // `size` bytes, of which `len` at most are written.
            unsafe {
                let from = shared.pages.at(span.offset);
                from.copy_to_nonoverlapping(buffer.as_mut_ptr().add(to), span.len as usize);
            }
            to += span.len as usize;
        }
        inbound.consume(len);
        if inbound.publish::<HostFence, _, _>(own, peer) {
            sender.unpark();
        }
        hint::black_box(&buffer);
        left -= len as usize;
    }
}

/// Sends `total` bytes in pieces of `size`.
fn send(shared: &Shared, reader: &Thread, total: usize, size: usize) {
    let (own, peer) = (&&shared.sender, &&shared.reader);
    let mut out = Outbound::new();
    let mut spin = Spin::new();
    let extent = Extent::new(0, ORDER).expect("there is such an extent");
    out.enter_ring(extent, 0).expect("nothing is in use yet");
    out.publish(own, peer).expect("the reader is correct");
    let buffer = vec![7u8; size];
    let mut sent = 0;
    while sent < total {
        let rest = (size - sent % size) as u32;
        let len = out.room(peer).expect("the reader is correct").min(rest);
        if len == 0 {
            let want = rest.min(extent.bytes() / 2);
            let (seen, word) = (peer.word(64).load_relaxed(), peer.word(64));
            wait(
                &mut spin,
                || word.load_relaxed() != seen,
                || out.arm::<HostFence, _, _>(want, own, peer).unwrap_or(false),
            );
            continue;
        }
        let mut from = sent % size;
        for span in out.spans(len) {
            // SAFETY: The span lies within the extent and belongs to the sender; the buffer has
            // `size` bytes, of which no more than `rest` are read.
            unsafe {
                let to = shared.pages.at(span.offset);
                to.copy_from_nonoverlapping(buffer.as_ptr().add(from), span.len as usize);
            }
            from += span.len as usize;
        }
        if out.commit::<HostFence, _, _>(len, own, peer) {
            reader.unpark();
        }
        sent += len as usize;
    }
}

/// How long it takes to bring `count` messages of `size` bytes through the ring.
fn through_ring(size: usize, count: u64) -> Duration {
    let total = size * count as usize;
    let extent = Extent::new(0, ORDER).expect("there is such an extent");
    let shared = Arc::new(Shared {
        sender: Slot::new(),
        reader: Slot::new(),
        pages: Pages::new(extent),
    });
    let sender = thread::current();
    let begin = Instant::now();
    let reader = {
        let shared = shared.clone();
        thread::spawn(move || receive(&shared, &sender, total, size))
    };
    send(&shared, reader.thread(), total, size);
    reader.join().expect("the reader does not panic");
    begin.elapsed()
}

/// The same through a socket pair.
fn through_socket(size: usize, count: u64) -> Duration {
    let (mut here, mut there) = UnixStream::pair().expect("sockets can be made");
    let begin = Instant::now();
    let reader = thread::spawn(move || {
        let mut buffer = vec![0u8; size];
        let mut left = size * count as usize;
        while left > 0 {
            let len = there.read(&mut buffer).expect("the socket works");
            assert!(len > 0);
            left -= len;
        }
    });
    let buffer = vec![7u8; size];
    for _ in 0..count {
        here.write_all(&buffer).expect("the socket works");
    }
    reader.join().expect("the reader does not panic");
    begin.elapsed()
}

/// Messages of one measurement at least, so that starting a thread does not count.
fn batch(size: usize) -> u64 {
    ((16 << 20) / size) as u64
}

fn ring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    for size in SIZES {
        let batch = batch(size);
        group.throughput(Throughput::Bytes(size as u64 * batch));
        group.bench_function(BenchmarkId::new("ring", size), |b| {
            b.iter_custom(|times| through_ring(size, batch * times));
        });
        group.bench_function(BenchmarkId::new("socketpair", size), |b| {
            b.iter_custom(|times| through_socket(size, batch * times));
        });
        let from = vec![7u8; size];
        let mut to = vec![0u8; size];
        group.bench_function(BenchmarkId::new("memcpy", size), |b| {
            b.iter(|| {
                for _ in 0..batch {
                    to.copy_from_slice(hint::black_box(&from));
                    hint::black_box(&mut to);
                }
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    ring(&mut criterion);
    criterion.final_summary();
}
