// SPDX-License-Identifier: GPL-2.0

//! What is written where, step by step, as the protocol says.

mod common;

use common::{
    HostFence,
    Slot, //
};
use xenvmc_core::{
    error::SegmentError,
    segment::{
        Kind,
        Mode,
        Record,
        Writer, //
    },
    stream::{
        Followed,
        Inbound,
        Outbound,
        Source, //
    },
    wire::{
        self,
        slot, //
    },
    Extent,
    SharedLoad,
    Words, //
};

fn extent(page: u32, order: u8) -> Extent {
    Extent::new(page, order).unwrap()
}

/// Record `number` as it lies in the slot.
fn record(slot: &Slot, number: u32) -> [u32; 4] {
    let at = slot::record(number);
    [0, 4, 8, 12].map(|word| slot.word(at + word).load_relaxed())
}

fn word(slot: &Slot, offset: u32) -> u32 {
    slot.word(offset).load_relaxed()
}

/// Both ends of a new direction.
struct Line {
    tx: Slot,
    rx: Slot,
    out: Outbound,
    inbound: Inbound,
}

impl Line {
    fn new() -> Self {
        Self {
            tx: Slot::new(0, 0),
            rx: Slot::new(0, 0),
            out: Outbound::new(),
            inbound: Inbound::new(),
        }
    }

    fn publish(&mut self) -> bool {
        self.out.publish(&self.tx, &self.rx).unwrap()
    }

    fn produce(&mut self, len: u32) -> bool {
        assert!(self.out.room(&self.rx).unwrap() >= len);
        self.out.commit::<HostFence, _, _>(len, &self.tx, &self.rx)
    }

    fn look(&mut self, copied_seq: u32, rcv_nxt: u32) -> Source {
        self.inbound
            .look(&self.tx, 64, copied_seq, rcv_nxt)
            .unwrap()
    }

    fn tell(&mut self) -> bool {
        self.inbound.publish::<HostFence, _, _>(&self.rx, &self.tx)
    }
}

/// protocol §6.2, §6.3: to the ring and back, word by word.
#[test]
fn to_the_ring_and_back() {
    let mut line = Line::new();
    let ring = extent(16, 2);
    assert_eq!(line.out.mode(), Mode::Tcp);
    assert_eq!(line.out.room(&line.rx), Ok(0));

    line.out.enter_ring(ring, 500).unwrap();
    assert_eq!(word(&line.tx, slot::TX_SEGMENTS), 0, "nothing is said yet");
    assert_eq!(line.out.room(&line.rx), Ok(0));
    assert!(!line.publish(), "bytes will tell");
    assert_eq!(record(&line.tx, 0), [0x202, 0, 500, 16]);
    assert_eq!(word(&line.tx, slot::TX_SEGMENTS), 1);
    assert_eq!(line.out.room(&line.rx), Ok(16384));

    // 20 bytes of TCP come first, of which 5 have arrived.
    assert_eq!(line.look(480, 485), Source::Tcp(5));
    line.produce(100);
    assert_eq!(line.look(485, 500), Source::Tcp(15));
    let bytes = Source::Ring {
        extent: ring,
        bytes: 100,
    };
    assert_eq!(line.look(500, 500), bytes);
    assert_eq!(word(&line.rx, slot::RX_SEGMENTS), 0, "nothing is said yet");
    line.inbound.consume(60);
    line.tell();
    assert_eq!(word(&line.rx, slot::RX_CONS), 60);
    assert_eq!(word(&line.rx, slot::RX_SEGMENTS), 1);

    line.out.leave_ring();
    assert!(line.publish(), "the reader may sleep while TCP has bytes");
    assert_eq!(record(&line.tx, 1), [1, 100, 500, 0]);
    assert_eq!(line.look(500, 530).bytes(), 40, "the ring comes first");
    line.inbound.consume(40);
    assert_eq!(line.look(500, 530), Source::Tcp(30));
    assert_eq!(line.out.poll_free(&line.rx), Ok(None));
    assert!(line.tell(), "there is an extent to take back");
    assert_eq!(line.out.poll_free(&line.rx), Ok(Some(ring)));
    assert_eq!(line.out.poll_free(&line.rx), Ok(None));
}

/// protocol §6.7: a write that slipped into TCP is put where it belongs.
#[test]
fn a_rogue_write_has_its_place() {
    let mut line = Line::new();
    let ring = extent(0, 0);
    line.out.enter_ring(ring, 70).unwrap();
    line.publish();
    line.produce(10);
    line.out.rogue(75);
    assert_eq!(line.out.room(&line.rx), Ok(0), "first the records");
    assert!(line.publish());
    line.produce(3);
    assert_eq!(record(&line.tx, 1), [1, 10, 70, 0]);
    assert_eq!(record(&line.tx, 2), [2, 10, 75, 0]);

    assert_eq!(line.look(70, 75).bytes(), 10);
    line.inbound.consume(10);
    assert_eq!(line.look(70, 75), Source::Tcp(5));
    assert_eq!(line.look(75, 75).bytes(), 3);
    line.tell();
    assert_eq!(line.out.poll_free(&line.rx), Ok(None), "still in use");
}

/// Somebody else takes bytes out of TCP: the reader follows as long as none of the ring come before.
#[test]
fn follows_another_reader() {
    let mut line = Line::new();
    assert_eq!(line.inbound.follow(&line.tx, 64, 40), Ok(Followed::Yes));
    line.out.enter_ring(extent(0, 0), 70).unwrap();
    line.publish();
    assert_eq!(line.inbound.follow(&line.tx, 64, 60), Ok(Followed::Yes));
    // Bytes behind the boundary, before the record that says so.
    assert_eq!(line.inbound.follow(&line.tx, 64, 75), Ok(Followed::NotYet));
    line.out.leave_ring();
    line.publish();
    assert_eq!(line.inbound.follow(&line.tx, 64, 75), Ok(Followed::Yes));
    assert_eq!(line.look(75, 80), Source::Tcp(5));
    // Through an empty segment that it has not entered, and into one that has bytes.
    line.out.enter_ring(extent(0, 0), 90).unwrap();
    line.publish();
    line.out.leave_ring();
    line.publish();
    assert_eq!(line.inbound.follow(&line.tx, 64, 95), Ok(Followed::Yes));
    line.out.enter_ring(extent(0, 0), 100).unwrap();
    line.publish();
    line.produce(3);
    assert_eq!(line.inbound.follow(&line.tx, 64, 100), Ok(Followed::Yes));
    assert_eq!(
        line.inbound.follow(&line.tx, 64, 101),
        Ok(Followed::Overtaken)
    );
}

/// protocol §6.6.2: bytes in TCP for which no record is there yet are left alone.
#[test]
fn bytes_without_a_record_wait() {
    let mut line = Line::new();
    line.out.enter_ring(extent(0, 0), 70).unwrap();
    line.publish();
    let nothing = Source::Ring {
        extent: extent(0, 0),
        bytes: 0,
    };
    assert_eq!(line.look(70, 75), nothing);
}

/// protocol §6.8: a ring grows, the old extent comes back when it was left.
#[test]
fn a_ring_grows() {
    let mut line = Line::new();
    let (small, large) = (extent(0, 0), extent(4, 2));
    line.out.enter_ring(small, 9).unwrap();
    line.publish();
    line.produce(4096);
    assert_eq!(line.out.room(&line.rx), Ok(0));
    line.out.enter_ring(large, 9).unwrap();
    line.publish();
    assert_eq!(record(&line.tx, 1), [0x202, 4096, 9, 4]);
    assert_eq!(
        line.out.room(&line.rx),
        Ok(16384),
        "what is unread lies elsewhere"
    );
    line.produce(16384);
    let first = Source::Ring {
        extent: small,
        bytes: 4096,
    };
    assert_eq!(line.look(9, 9), first);
    line.inbound.consume(4096);
    line.tell();
    assert_eq!(line.out.poll_free(&line.rx), Ok(None), "not entered yet");
    let second = Source::Ring {
        extent: large,
        bytes: 16384,
    };
    assert_eq!(line.look(9, 9), second);
    assert!(line.tell());
    assert_eq!(line.out.poll_free(&line.rx), Ok(Some(small)));
}

/// protocol §6.8: the ring of an idle connection shrinks, and the reader need not wake up for the old extent to come back.
#[test]
fn an_idle_ring_shrinks() {
    let mut line = Line::new();
    let (large, small) = (extent(4, 2), extent(0, 0));
    line.out.enter_ring(large, 9).unwrap();
    line.publish();
    line.produce(10);
    assert_eq!(line.look(9, 9).bytes(), 10);
    line.inbound.consume(6);
    line.tell();
    line.out.enter_ring(small, 9).unwrap();
    assert_eq!(line.out.poll_free(&line.rx), Ok(None), "not published");
    line.publish();
    assert_eq!(line.out.poll_free(&line.rx), Ok(None), "not read");
    line.inbound.consume(4);
    line.tell();
    assert_eq!(word(&line.rx, slot::RX_SEGMENTS), 1, "not entered");
    assert_eq!(line.out.poll_free(&line.rx), Ok(Some(large)));
    assert_eq!(line.out.poll_free(&line.rx), Ok(None), "in use");

    line.produce(5);
    let next = Source::Ring {
        extent: small,
        bytes: 5,
    };
    assert_eq!(line.look(9, 9), next);
}

/// protocol §6.5.4: a full log holds everything back, and what waits is not fixed.
#[test]
fn a_full_log_holds_back() {
    let mut line = Line::new();
    for turn in 0..4 {
        assert_eq!(line.out.log_room(&line.rx), Ok(wire::RECORDS - 2 * turn));
        line.out.enter_ring(extent(0, 0), 100 + turn).unwrap();
        line.publish();
        line.out.leave_ring();
        line.publish();
    }
    assert_eq!(word(&line.tx, slot::TX_SEGMENTS), wire::RECORDS);
    assert_eq!(line.out.log_room(&line.rx), Ok(0));
    line.out.enter_ring(extent(0, 0), 104).unwrap();
    line.publish();
    assert!(!line.out.is_settled());
    assert_eq!(line.out.room(&line.rx), Ok(0));
    assert_eq!(
        line.out.arm::<HostFence, _, _>(1, &line.tx, &line.rx),
        Ok(true)
    );
    // Somebody writes, and the ring is to be larger: one record says it all.
    line.out.rogue(110);
    line.out.enter_ring(extent(2, 1), 110).unwrap();
    line.publish();
    assert_eq!(word(&line.tx, slot::TX_SEGMENTS), wire::RECORDS);

    assert_eq!(
        line.look(100, 100),
        Source::Tcp(0),
        "to the second segment of TCP"
    );
    assert!(line.tell());
    assert_eq!(
        line.out.arm::<HostFence, _, _>(1, &line.tx, &line.rx),
        Ok(false)
    );
    assert_eq!(line.out.log_room(&line.rx), Ok(0), "a record is due");
    line.publish();
    assert_eq!(
        line.out.log_room(&line.rx),
        Ok(1),
        "none for a record behind the next one"
    );
    assert!(line.out.is_settled());
    assert_eq!(record(&line.tx, 8), [0x102, 0, 110, 2]);
    assert_eq!(line.out.room(&line.rx), Ok(8192));
}

/// protocol §6.5.4: what was never said needs no record, and its extent is free at once.
#[test]
fn a_change_of_mind_is_not_told() {
    let mut line = Line::new();
    line.out.enter_ring(extent(0, 0), 1).unwrap();
    line.out.leave_ring();
    assert!(!line.publish());
    assert_eq!(word(&line.tx, slot::TX_SEGMENTS), 0);
    assert_eq!(line.out.poll_free(&line.rx), Ok(Some(extent(0, 0))));
}

/// protocol §6.8: extents that nobody takes back are not forgotten.
#[test]
fn extents_are_not_forgotten() {
    let mut writer = Writer::new();
    let mut held = Vec::new();
    for page in 0.. {
        match writer.enter_ring(extent(page, 0), 0) {
            Ok(fresh) => assert!(fresh),
            Err(error) => {
                assert_eq!(error, SegmentError::Extents);
                break;
            }
        }
        held.push(extent(page, 0));
    }
    assert_eq!(held.len(), wire::RECORDS as usize + 2);
    let expected = Record {
        kind: Kind::Ring(held[9]),
        at_ring: 0,
        at_seq: 0,
    };
    assert_eq!(writer.poll_publish(0, 0), Ok(Some((0, expected))));
    while let Some(extent) = writer.poll_free(0, false).unwrap() {
        held.retain(|&e| e != extent);
    }
    assert_eq!(held, [extent(9, 0)]);
    assert_eq!(writer.poll_abandoned(), Some(extent(9, 0)));
    assert_eq!(writer.poll_abandoned(), None);
}

/// protocol §4: who waits for much is not woken by little.
#[test]
fn waiting_for_more_than_one_byte() {
    let mut line = Line::new();
    line.out.enter_ring(extent(0, 0), 0).unwrap();
    line.publish();
    line.look(0, 0);
    assert!(line
        .inbound
        .arm_for::<HostFence, _, _>(100, &line.rx, &line.tx));
    assert!(!line.produce(99));
    assert!(line.produce(1));
    line.produce(3996);
    assert_eq!(
        line.out.arm::<HostFence, _, _>(2048, &line.tx, &line.rx),
        Ok(true)
    );
    line.look(0, 0);
    line.inbound.consume(2047);
    assert!(!line.tell());
    line.inbound.consume(1);
    assert!(line.tell());
    assert_eq!(
        line.out.arm::<HostFence, _, _>(2048, &line.tx, &line.rx),
        Ok(false)
    );
}

/// protocol §6.9
#[test]
fn the_end_is_marked() {
    let mut line = Line::new();
    line.out.end(&line.tx);
    assert_eq!(word(&line.tx, slot::TX_FLAGS), wire::TX_END);
}
