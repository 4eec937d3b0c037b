// SPDX-License-Identifier: GPL-2.0

//! Whatever two correct ends do in whatever order, each byte arrives once and in order
//! (protocol §6), nobody sleeps for ever (§4), and all memory comes back (§6.8).

mod common;

use common::pair::{
    Op,
    Pair, //
};
use proptest::prelude::*;
use xenvmc_core::{
    error::SegmentError,
    stream::Source,
    wire::slot,
    Error,
    SharedStore,
    Words, //
};

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => prop_oneof![0..20u32, 0..9000u32].prop_map(Op::Send),
        2 => prop_oneof![0..20u32, 0..9000u32].prop_map(Op::Rogue),
        2 => (0..4u8).prop_map(Op::Enter),
        1 => Just(Op::Reenter),
        2 => Just(Op::Leave),
        4 => prop_oneof![0..20u32, 0..9000u32].prop_map(Op::Deliver),
        6 => prop_oneof![1..20u32, 1..9000u32].prop_map(Op::Read),
        1 => prop_oneof![1..20u32, 1..9000u32].prop_map(Op::Peek),
        1 => Just(Op::Free),
        1 => (1..9000u32).prop_map(Op::WaitRoom),
    ]
}

/// Any value, and often one just before the wrap.
fn start() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), (u32::MAX - 5000)..=u32::MAX, Just(0)]
}

proptest! {
    #![proptest_config(common::cases(400))]

    #[test]
    fn every_byte_arrives_once_and_in_order(
        ring in [start(), start()],
        seq in [start(), start()],
        ops in prop::collection::vec((0..2usize, op()), 1..300),
    ) {
        let mut pair = Pair::new(ring, seq);
        for (side, op) in ops {
            pair.step(side, op).unwrap();
        }
        pair.finish().unwrap();
    }
}

/// Without anybody sleeping, bytes alone cause no notice (protocol §4.1).
#[test]
fn a_busy_reader_is_not_told() {
    let mut pair = Pair::new([0, 0], [0, 0]);
    pair.step(0, Op::Enter(4)).unwrap();
    pair.step(0, Op::Send(100)).unwrap();
    pair.step(1, Op::Read(50)).unwrap();
    let before = pair.ends[1].notices;
    for _ in 0..1000 {
        pair.step(0, Op::Send(100)).unwrap();
        pair.step(1, Op::Read(100)).unwrap();
    }
    assert_eq!(pair.ends[1].notices, before);
    pair.finish().unwrap();
}

/// A ring carries more than the indices can count (protocol §6.4).
#[test]
fn indices_wrap_within_one_segment() {
    let mut pair = Pair::new([u32::MAX - 100_000, 0], [u32::MAX - 10, 0]);
    pair.step(0, Op::Enter(2)).unwrap();
    for _ in 0..40 {
        pair.step(0, Op::Send(9000)).unwrap();
        assert_eq!(pair.read(1, 9000).unwrap(), 9000);
    }
    pair.finish().unwrap();
}

/// A peer that has closed its socket on the ring says nothing any more: TCP goes on where the ring's bytes end (protocol §9.3).
#[test]
fn tcp_goes_on_behind_a_ring_that_is_over() {
    let mut pair = Pair::new([0, 0], [0, 0]);
    pair.step(0, Op::Enter(2)).unwrap();
    pair.step(0, Op::Send(100)).unwrap();
    pair.step(1, Op::Read(100)).unwrap();
    let reader = &mut pair.ends[1].inbound;
    assert!(reader.is_ring());
    reader.finish();
    assert!(!reader.is_ring());
    // As bytes that were unread and are TCP's now; and what the peer writes into its memory means nothing.
    pair.ends[0].slot.word(slot::TX_SEGMENTS).store_relaxed(77);
    let peer = &pair.ends[0].slot;
    let source = pair.ends[1].inbound.clone().look(peer, 0, 70, 100);
    assert_eq!(source, Ok(Source::Tcp(30)));
    peer.word(slot::TX_PROD).store_relaxed(101);
    let source = pair.ends[1].inbound.clone().look(peer, 0, 70, 100);
    assert_eq!(source, Err(Error::Segment(SegmentError::Unexpected)));
}
