// SPDX-License-Identifier: GPL-2.0

//! The two-sided protocols under every order of loads and stores that the memory model allows.
//!
//! The same source as in the guests runs here over the atomics of the model checker. What wakes a
//! sleeper (a notice and an event) is a flag behind a mutex, so that a lost one is a deadlock.

use loom::{
    cell::UnsafeCell,
    sync::{
        atomic::{
            fence,
            AtomicU32,
            Ordering, //
        },
        Arc,
        Condvar,
        Mutex, //
    },
    thread, //
};
use xenvmc_core::{
    channel::{
        self,
        PeerState, //
    },
    datagram::{
        record::{
            Fields,
            Record, //
        },
        ring::{
            Reader,
            Sender, //
        },
        ORDER_MIN,
        PAYLOAD_MAX, //
    },
    queue,
    segment::Mode,
    stream::{
        Inbound,
        Outbound,
        Source, //
    },
    wake,
    wire::slot,
    Extent,
    Fence,
    SharedLoad,
    SharedStore,
    Words, //
};

/// One word of the model's memory.
#[derive(Clone)]
struct Word(Arc<AtomicU32>);

impl Word {
    fn new(value: u32) -> Self {
        Self(Arc::new(AtomicU32::new(value)))
    }
}

impl SharedLoad for Word {
    fn load_relaxed(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn load_acquire(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}

impl SharedStore for Word {
    fn store_relaxed(&self, value: u32) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn store_release(&self, value: u32) {
        self.0.store(value, Ordering::Release);
    }
}

struct LoomFence;

impl Fence for LoomFence {
    fn full() {
        fence(Ordering::SeqCst);
    }
}

/// A slot of which only the words that are used exist, because each costs the checker.
#[derive(Clone)]
struct Slot(Arc<Vec<(u32, Word)>>);

impl Slot {
    fn new(offsets: &[u32]) -> Self {
        Self(Arc::new(
            offsets.iter().map(|&at| (at, Word::new(0))).collect(),
        ))
    }
}

impl Words for Slot {
    type Word = Word;

    fn word(&self, offset: u32) -> Word {
        let (_, word) = self.0.iter().find(|(at, _)| *at == offset).unwrap();
        word.clone()
    }
}

/// The event channel: wakes who waits, and is remembered if nobody does.
#[derive(Clone)]
struct Event(Arc<(Mutex<bool>, Condvar)>);

impl Event {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    fn notify(&self) {
        *self.0 .0.lock().unwrap() = true;
        self.0 .1.notify_one();
    }

    fn wait(&self) {
        let mut raised = self.0 .0.lock().unwrap();
        while !*raised {
            raised = self.0 .1.wait(raised).unwrap();
        }
        *raised = false;
    }
}

fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A reader that sleeps is woken by what comes, and sees the bytes (protocol §4).
#[test]
fn data_wakes_the_reader() {
    check(4, || {
        let (prod, event) = (Word::new(0), Word::new(0));
        let data = Arc::new([UnsafeCell::new(0u8), UnsafeCell::new(0)]);
        let bell = Event::new();
        let sender = {
            let (prod, event, data, bell) =
                (prod.clone(), event.clone(), data.clone(), bell.clone());
            thread::spawn(move || {
                for at in 0..2u32 {
                    // SAFETY: The checker proves that nobody else accesses the byte meanwhile.
                    data[at as usize].with_mut(|byte| unsafe { *byte = 7 });
                    if wake::publish::<LoomFence>(&prod, at, at + 1, &event) {
                        bell.notify();
                    }
                }
            })
        };
        let mut cons = 0;
        while cons < 2 {
            let seen = prod.load_acquire();
            for at in cons..seen {
                // SAFETY: As above.
                data[at as usize].with(|byte| assert_eq!(unsafe { *byte }, 7));
            }
            cons = seen;
            if cons < 2 && wake::arm::<LoomFence>(&event, cons, &prod) {
                bell.wait();
            }
        }
        sender.join().unwrap();
    });
}

/// The words of one direction: the sender's and the reader's slot.
fn direction(records: u32) -> (Slot, Slot) {
    let mut tx = vec![slot::TX_PROD, slot::TX_SPACE_EVENT, slot::TX_SEGMENTS];
    for record in 0..records {
        tx.extend((0..4).map(|word| slot::record(record) + 4 * word));
    }
    let rx = [slot::RX_CONS, slot::RX_DATA_EVENT, slot::RX_SEGMENTS];
    (Slot::new(&tx), Slot::new(&rx))
}

/// A writer that sleeps on a full ring is woken when the reader takes something, and does not
/// overwrite what was not read (protocol §4, §6.5).
#[test]
fn space_wakes_the_writer() {
    check(4, || {
        let (tx, rx) = direction(3);
        let bell = Event::new();
        // Stands for the bytes of the whole extent.
        let extent_bytes = Arc::new(UnsafeCell::new(0u32));
        let mut out = Outbound::new();
        let mut inbound = Inbound::new();
        out.enter_ring(Extent::new(0, 0).unwrap(), 0).unwrap();
        out.publish(&tx, &rx).unwrap();
        assert_eq!(out.room(&rx).unwrap(), 4096);
        // SAFETY: The checker proves that nobody else accesses it meanwhile.
        extent_bytes.with_mut(|bytes| unsafe { *bytes = 1 });
        out.commit::<LoomFence, _, _>(4096, &tx, &rx);

        let reader = {
            let (tx, rx, bell) = (tx.clone(), rx.clone(), bell.clone());
            let extent_bytes = extent_bytes.clone();
            thread::spawn(move || {
                let source = inbound.look(&tx, 1, 0, 0).unwrap();
                assert_eq!(source.bytes(), 4096);
                // SAFETY: As above.
                extent_bytes.with(|bytes| assert_eq!(unsafe { *bytes }, 1));
                inbound.consume(4096);
                if inbound.publish::<LoomFence, _, _>(&rx, &tx) {
                    bell.notify();
                }
            })
        };
        loop {
            if out.room(&rx).unwrap() == 4096 {
                // SAFETY: As above.
                extent_bytes.with_mut(|bytes| unsafe { *bytes = 2 });
                break;
            }
            if out.arm::<LoomFence, _, _>(4096, &tx, &rx).unwrap() {
                bell.wait();
            }
        }
        reader.join().unwrap();
    });
}

/// A reader finds each boundary before it could take a byte beyond it, in the ring or in TCP
/// (protocol §6.5, §6.6).
#[test]
fn boundaries_come_before_bytes() {
    check(4, || {
        let (tx, rx) = direction(3);
        let rcv_nxt = Word::new(100);
        let mut out = Outbound::new();
        let mut inbound = Inbound::new();
        let sender = {
            let (tx, rx, rcv_nxt) = (tx.clone(), rx.clone(), rcv_nxt.clone());
            thread::spawn(move || {
                out.enter_ring(Extent::new(0, 0).unwrap(), 100).unwrap();
                out.publish(&tx, &rx).unwrap();
                assert_eq!(out.room(&rx).unwrap(), 4096);
                out.commit::<LoomFence, _, _>(3, &tx, &rx);
                out.leave_ring();
                out.publish(&tx, &rx).unwrap();
                // TCP: whatever was done before the segment left is visible when it has arrived.
                rcv_nxt.store_release(102);
                assert_eq!(out.mode(), Mode::Tcp);
            })
        };
        let (mut ring, mut copied) = (0, 100u32);
        for _ in 0..2 {
            let arrived = rcv_nxt.load_acquire();
            match inbound.look(&tx, 1, copied, arrived).unwrap() {
                Source::Ring { bytes, .. } => {
                    ring += bytes;
                    inbound.consume(bytes);
                }
                Source::Tcp(bytes) => {
                    // A byte of TCP is never taken before those of the ring.
                    assert!(bytes == 0 || ring == 3);
                    copied += bytes;
                }
            }
        }
        inbound.publish::<LoomFence, _, _>(&rx, &tx);
        sender.join().unwrap();
        while (ring, copied) != (3, 102) {
            match inbound
                .look(&tx, 1, copied, rcv_nxt.load_acquire())
                .unwrap()
            {
                Source::Ring { bytes, .. } => {
                    assert!(bytes > 0);
                    ring += bytes;
                    inbound.consume(bytes);
                }
                Source::Tcp(bytes) => {
                    assert!(bytes > 0 && ring == 3);
                    copied += bytes;
                }
            }
        }
    });
}

/// An extent that the writer takes back is one that the reader reads no more (protocol §6.8).
#[test]
fn an_extent_is_freed_after_its_reader() {
    check(4, || {
        let (tx, rx) = direction(3);
        let old_bytes = Arc::new(UnsafeCell::new(1u32));
        let mut out = Outbound::new();
        let mut inbound = Inbound::new();
        let old = Extent::new(0, 0).unwrap();
        out.enter_ring(old, 0).unwrap();
        out.publish(&tx, &rx).unwrap();
        out.room(&rx).unwrap();
        out.commit::<LoomFence, _, _>(8, &tx, &rx);
        out.enter_ring(Extent::new(2, 1).unwrap(), 0).unwrap();
        out.publish(&tx, &rx).unwrap();

        let reader = {
            let (tx, rx, old_bytes) = (tx.clone(), rx.clone(), old_bytes.clone());
            thread::spawn(move || {
                assert_eq!(
                    inbound.look(&tx, 4, 0, 0).unwrap(),
                    Source::Ring {
                        extent: old,
                        bytes: 8,
                    }
                );
                // SAFETY: The checker proves that nobody else accesses it meanwhile.
                old_bytes.with(|bytes| assert_eq!(unsafe { *bytes }, 1));
                inbound.consume(8);
                inbound.look(&tx, 4, 0, 0).unwrap();
                inbound.publish::<LoomFence, _, _>(&rx, &tx)
            })
        };
        let mut freed = false;
        let mut free = |out: &mut Outbound| {
            if let Some(extent) = out.poll_free(&rx).unwrap() {
                assert_eq!(extent, old);
                // SAFETY: As above.
                old_bytes.with_mut(|bytes| unsafe { *bytes = 2 });
                freed = true;
            }
        };
        free(&mut out);
        free(&mut out);
        assert!(reader.join().unwrap(), "the writer is told");
        free(&mut out);
        assert!(freed);
    });
}

/// A writer that waits for room in the log of records is woken (protocol §6.5).
#[test]
fn room_in_the_log_wakes_the_writer() {
    check(4, || {
        let (tx, rx) = direction(8);
        let bell = Event::new();
        let mut out = Outbound::new();
        let mut inbound = Inbound::new();
        let extent = Extent::new(0, 0).unwrap();
        for turn in 0..4 {
            out.enter_ring(extent, turn).unwrap();
            out.publish(&tx, &rx).unwrap();
            if turn == 0 {
                out.room(&rx).unwrap();
                out.commit::<LoomFence, _, _>(1, &tx, &rx);
            }
            out.leave_ring();
            if turn < 3 {
                out.publish(&tx, &rx).unwrap();
            }
        }
        let reader = {
            let (tx, rx, bell) = (tx.clone(), rx.clone(), bell.clone());
            thread::spawn(move || {
                // Enters the first record, which ends no segment of the ring.
                inbound.look(&tx, 1, 0, 0).unwrap();
                if inbound.publish::<LoomFence, _, _>(&rx, &tx) {
                    bell.notify();
                }
            })
        };
        loop {
            // The eighth record, and then the ninth.
            out.publish(&tx, &rx).unwrap();
            out.enter_ring(extent, 9).unwrap();
            out.publish(&tx, &rx).unwrap();
            if out.is_settled() {
                break;
            }
            if out.arm::<LoomFence, _, _>(1, &tx, &rx).unwrap() {
                bell.wait();
            }
        }
        reader.join().unwrap();
    });
}

/// With at most one notice outstanding per connection, the last change is seen (protocol §5.3).
#[test]
fn the_last_change_is_noticed() {
    check(4, || {
        let changes = Word::new(0);
        let (prod, entry) = (Word::new(0), [Word::new(0), Word::new(0)]);
        let (cons, event) = (Word::new(0), Word::new(0));
        let bell = Event::new();
        let sender = {
            let (changes, prod, entry) = (changes.clone(), prod.clone(), entry.clone());
            let (cons, event, bell) = (cons.clone(), event.clone(), bell.clone());
            thread::spawn(move || {
                let mut queue = queue::Producer::starting_at(0, 2);
                let mut posted = queue::Posted::none();
                for change in 1..=2 {
                    changes.store_release(change);
                    if queue.is_outstanding::<LoomFence>(&posted, &cons).unwrap() {
                        continue;
                    }
                    entry[queue.push() as usize].store_relaxed(5);
                    posted = queue.posted();
                    if queue.publish::<LoomFence>(&prod, &event) {
                        bell.notify();
                    }
                }
            })
        };
        let mut queue = queue::Consumer::starting_at(0, 2);
        let mut seen = 0;
        while seen < 2 {
            while let Some(at) = queue.peek(&prod).unwrap() {
                assert_eq!(entry[at as usize].load_relaxed(), 5);
                queue.take::<LoomFence>(&cons);
                seen = changes.load_acquire();
            }
            if seen < 2 && queue.arm::<LoomFence>(&event, &prod) {
                bell.wait();
            }
        }
        sender.join().unwrap();
    });
}

/// One end of a channel that is being closed.
struct Closer {
    state: channel::State,
    peer: PeerState,
    word: Word,
    peer_word: Word,
    bell: Event,
    peer_bell: Event,
}

impl Closer {
    /// Closes, and returns when the other end needs nothing of ours any more. `drain` takes what
    /// is in the peer's ring; it is complete once the peer is in CLOSING.
    fn close(mut self, mut drain: impl FnMut()) {
        self.go(channel::Event::Close);
        while self.state != channel::State::Done {
            let word = self.peer_word.load_acquire();
            if let Some(event) = self.peer.handle_word(word).unwrap() {
                self.go(event);
                continue;
            }
            if self.state == channel::State::Closing && self.peer.is_closing() {
                drain();
                self.go(channel::Event::Drained);
                continue;
            }
            if self.state == channel::State::Drained && self.peer.is_drained() {
                self.go(channel::Event::PeerDrained);
                continue;
            }
            self.bell.wait();
        }
    }

    fn go(&mut self, event: channel::Event) {
        let next = self.state.next(event).unwrap();
        if next.word() != self.state.word() {
            // All that was done before /before/ the state.
            self.word.store_release(next.word());
            self.peer_bell.notify();
        }
        self.state = next;
    }
}

/// Two ends that close at once both come to the end, each with what was in the other's ring, and
/// neither reads memory that the other has taken back (protocol §9.3).
#[test]
fn both_ends_close() {
    check(4, || {
        let words = [Word::new(1), Word::new(1)];
        let bells = [Event::new(), Event::new()];
        // What is in the ring of each end: written before CLOSING, overwritten when it is over.
        let rings = Arc::new([UnsafeCell::new(0u32), UnsafeCell::new(0)]);
        let run = move |me: usize| {
            let closer = Closer {
                state: channel::State::Open,
                peer: PeerState::default(),
                word: words[me].clone(),
                peer_word: words[1 - me].clone(),
                bell: bells[me].clone(),
                peer_bell: bells[1 - me].clone(),
            };
            // SAFETY: The checker proves that nobody else accesses it meanwhile.
            rings[me].with_mut(|bytes| unsafe { *bytes = 9 });
            closer.close(|| {
                // SAFETY: As above.
                rings[1 - me].with(|bytes| assert_eq!(unsafe { *bytes }, 9));
            });
            // SAFETY: As above.
            rings[me].with_mut(|bytes| unsafe { *bytes = 0 });
        };
        let other = {
            let run = run.clone();
            thread::spawn(move || run(1))
        };
        run(0);
        other.join().unwrap();
    });
}

/// Datagrams: a reader that only looks for a while, and then sleeps, is woken by what comes; a sender that sleeps for room is woken
/// when the reader has taken something, and does not write over what was not read (protocol §10.3).
#[test]
fn datagrams_wake_both_ends() {
    check(3, || {
        let (tx, rx) = direction(0);
        let (to_reader, to_sender) = (Event::new(), Event::new());
        let extent = Extent::new(0, ORDER_MIN).unwrap();
        // Stands for the bytes of the whole extent: one datagram of the largest size fills it.
        let content = Arc::new(UnsafeCell::new(0u32));
        let sender = {
            let (tx, rx, content) = (tx.clone(), rx.clone(), content.clone());
            let (to_reader, to_sender) = (to_reader.clone(), to_sender.clone());
            thread::spawn(move || {
                let mut sender = Sender::new(extent);
                let cons = rx.word(slot::RX_CONS);
                for number in 1..=2 {
                    while !sender.has_room(PAYLOAD_MAX, &cons).unwrap() {
                        let event = tx.word(slot::TX_SPACE_EVENT);
                        if sender.arm::<LoomFence>(PAYLOAD_MAX, &event, &cons) {
                            to_sender.wait();
                        }
                    }
                    // SAFETY: The checker proves that nobody else accesses it meanwhile.
                    content.with_mut(|content| unsafe { *content = number });
                    sender.push(PAYLOAD_MAX);
                    let event = rx.word(slot::RX_DATA_EVENT);
                    if sender.publish::<LoomFence>(&tx.word(slot::TX_PROD), &event) {
                        to_reader.notify();
                    }
                }
            })
        };
        let record = Record {
            len: PAYLOAD_MAX,
            flow: 0,
            segment: 0,
            fields: Fields::default(),
        };
        let mut reader = Reader::new(extent);
        let (prod, event) = (tx.word(slot::TX_PROD), rx.word(slot::RX_DATA_EVENT));
        for number in 1..=2 {
            reader.disarm(&event);
            while reader.look(&prod).unwrap() == 0 {
                if reader.arm::<LoomFence>(&event, &prod) {
                    to_reader.wait();
                }
            }
            // SAFETY: As above.
            content.with(|content| assert_eq!(unsafe { *content }, number));
            reader.take(&record);
            let event = tx.word(slot::TX_SPACE_EVENT);
            if reader.publish::<LoomFence>(&rx.word(slot::RX_CONS), &event) {
                to_sender.notify();
            }
        }
        sender.join().unwrap();
    });
}
