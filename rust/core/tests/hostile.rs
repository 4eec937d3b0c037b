// SPDX-License-Identifier: GPL-2.0

//! A peer that writes anything at any time (protocol §1.2): the answer is right, or an error. No
//! panic, no wrap of a checked sum, nothing outside of what was granted.

mod common;

use common::{
    cases,
    pair::{
        Op,
        Pair,
        PAGES, //
    },
    HostFence, //
};
use proptest::prelude::*;
use xenvmc_core::{
    segment::Mode,
    stream::Source,
    wire::slot,
    Error,
    SharedLoad,
    SharedStore,
    Words, //
};

/// The words of a slot that a peer reads.
fn offset() -> impl Strategy<Value = u32> {
    let named = vec![
        slot::TX_PROD,
        slot::TX_SPACE_EVENT,
        slot::TX_SEGMENTS,
        slot::TX_FLAGS,
        slot::RX_CONS,
        slot::RX_DATA_EVENT,
        slot::RX_SEGMENTS,
        slot::RX_FLAGS,
    ];
    prop_oneof![
        prop::sample::select(named),
        (0..32u32).prop_map(|word| slot::RECORDS + 4 * word),
    ]
}

/// Any value, or one near to what is there.
fn lie() -> impl Strategy<Value = (bool, u32)> {
    prop_oneof![
        any::<u32>().prop_map(|value| (false, value)),
        (0..12u32).prop_map(|value| (false, value)),
        (0..9000u32).prop_map(|step| (true, step)),
        (0..9000u32).prop_map(|step| (true, step.wrapping_neg())),
        (0..32u32).prop_map(|bit| (true, 1 << bit)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..9000u32).prop_map(Op::Send),
        (0..900u32).prop_map(Op::Rogue),
        (0..4u8).prop_map(Op::Enter),
        Just(Op::Leave),
        (0..9000u32).prop_map(Op::Deliver),
        (1..9000u32).prop_map(Op::Read),
    ]
}

/// What one end does with the peer's slot, until it finds an error.
fn use_peer(pair: &mut Pair) -> Result<(), Error> {
    let [me, peer] = &mut pair.ends;
    for _ in 0..20 {
        let copied = peer.tcp.copied_seq;
        // Whatever it finds: it ends, and goes nowhere else.
        let _ = me.inbound.clone().follow(&peer.slot, PAGES, copied);
        let source = me
            .inbound
            .look(&peer.slot, PAGES, copied, peer.tcp.rcv_nxt)?;
        if let Source::Ring { extent, bytes } = source {
            assert!(extent.fits(PAGES), "outside of what is mapped");
            assert!(bytes <= extent.bytes());
            let spans = me.inbound.spans(extent, bytes);
            assert!(spans.clone().all(|s| s.offset + s.len <= extent.bytes()));
            assert_eq!(spans.map(|s| s.len).sum::<u32>(), bytes);
            me.inbound.consume(bytes);
        } else {
            assert!(source.bytes() <= peer.tcp.rcv_nxt.wrapping_sub(copied));
            peer.tcp.copied_seq = copied.wrapping_add(source.bytes());
        }
        me.inbound.publish::<HostFence, _, _>(&me.slot, &peer.slot);
        me.inbound.arm::<HostFence, _, _>(&me.slot, &peer.slot);
        me.out.publish(&me.slot, &peer.slot)?;
        let room = me.out.room(&peer.slot)?;
        if let Mode::Ring { extent, .. } = me.out.mode() {
            assert!(room <= extent.bytes());
            let len = room.min(100);
            assert!(me
                .out
                .spans(len)
                .all(|s| s.offset + s.len <= extent.bytes()));
            me.out.commit::<HostFence, _, _>(len, &me.slot, &peer.slot);
            me.out.arm::<HostFence, _, _>(1, &me.slot, &peer.slot)?;
        } else {
            assert_eq!(room, 0);
        }
        while me.out.poll_free(&peer.slot)?.is_some() {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn a_lying_peer_harms_nobody(
        ring in any::<[u32; 2]>(),
        seq in any::<[u32; 2]>(),
        ops in prop::collection::vec((0..2usize, op()), 0..60),
        lies in prop::collection::vec((offset(), lie()), 1..8),
    ) {
        let mut pair = Pair::new(ring, seq);
        for (side, op) in ops {
            pair.step(side, op).unwrap();
        }
        for (offset, (relative, value)) in lies {
            let word = pair.ends[1].slot.word(offset);
            let value = if relative { word.load_relaxed().wrapping_add(value) } else { value };
            word.store_release(value);
            if use_peer(&mut pair).is_err() {
                return Ok(());
            }
        }
    }
}

/// A pair with 5000 bytes in a ring of 8 KiB from end 1 to end 0, of which 1000 were read.
fn busy() -> Pair {
    let mut pair = Pair::new([0, 0], [1000, 2000]);
    pair.step(1, Op::Send(10)).unwrap();
    pair.step(1, Op::Deliver(10)).unwrap();
    pair.step(1, Op::Enter(1)).unwrap();
    pair.step(1, Op::Send(5000)).unwrap();
    pair.step(0, Op::Read(1010)).unwrap();
    pair
}

/// What `end 0` says when the peer's word at `offset` is `value`.
fn look_at(offset: u32, value: u32) -> Result<Source, Error> {
    let mut pair = busy();
    pair.ends[1].slot.word(offset).store_release(value);
    look(&mut pair)
}

fn look(pair: &mut Pair) -> Result<Source, Error> {
    let [me, peer] = &mut pair.ends;
    me.inbound
        .look(&peer.slot, PAGES, peer.tcp.copied_seq, peer.tcp.rcv_nxt)
}

/// Publishes a second record by hand, as a lying peer does, and looks.
fn second_record(words: [u32; 4]) -> Result<Source, Error> {
    let mut pair = busy();
    let peer = &pair.ends[1].slot;
    for (at, word) in words.into_iter().enumerate() {
        peer.word(slot::record(1) + 4 * at as u32)
            .store_relaxed(word);
    }
    peer.word(slot::TX_SEGMENTS).store_release(2);
    look(&mut pair)
}

/// protocol §6.3, §6.4: each impossible value has its error.
#[test]
fn lies_of_a_sender_are_named() {
    use xenvmc_core::error::{
        RingError as R,
        SegmentError as S, //
    };
    assert_eq!(look_at(slot::TX_PROD, 5000).map(|s| s.bytes()), Ok(4000));
    assert_eq!(look_at(slot::TX_PROD, 4999), Err(R::Producer.into()));
    assert_eq!(look_at(slot::TX_PROD, 999), Err(R::Producer.into()));
    assert_eq!(look_at(slot::TX_PROD, 1000 + 8193), Err(R::Producer.into()));
    assert_eq!(look_at(slot::TX_SEGMENTS, 0), Err(S::Published.into()));
    assert_eq!(look_at(slot::TX_SEGMENTS, 10), Err(S::Published.into()));

    let seq = 2010;
    assert!(second_record([1, 5000, seq, 0]).is_ok());
    assert!(second_record([0x102, 5000, seq, 4]).is_ok());
    for (words, error) in [
        ([3, 5000, seq, 0], S::Kind(3)),
        ([0x1_0001, 5000, seq, 0], S::Reserved),
        ([1, 5000, seq, 1], S::Reserved),
        ([1, 999, seq, 0], S::Ring),
        ([1, 1000 + 8193, seq, 0], S::Ring),
        ([1, 5000, seq + 1, 0], S::Sequence),
        ([0x102, 5000, seq + 1, 4], S::Sequence),
        ([0x102, 5000, seq, 5], S::Extent),
        ([0xb02, 5000, seq, 0], S::Extent),
        ([0x102, 5000, seq, PAGES], S::Extent),
        ([0x102, 5000, seq, 0], S::Extent),
    ] {
        assert_eq!(second_record(words), Err(error.into()), "{words:?}");
    }
}

/// protocol §6.3: the same while the direction is on TCP.
#[test]
fn lies_before_the_first_segment_are_named() {
    use xenvmc_core::error::SegmentError as S;
    let first = |prod: u32, words: Option<[u32; 4]>| {
        let mut pair = Pair::new([0, 0], [0, 7000]);
        let peer = &pair.ends[1].slot;
        peer.word(slot::TX_PROD).store_release(prod);
        if let Some(words) = words {
            for (at, word) in words.into_iter().enumerate() {
                peer.word(slot::record(0) + 4 * at as u32)
                    .store_relaxed(word);
            }
            peer.word(slot::TX_SEGMENTS).store_release(1);
        }
        look(&mut pair)
    };
    assert_eq!(first(0, None), Ok(Source::Tcp(0)));
    assert!(first(10, Some([2, 0, 7000, 0])).is_ok());
    assert_eq!(first(1, None), Err(S::Unexpected.into()));
    assert_eq!(first(0, Some([1, 0, 7000, 0])), Err(S::Order.into()));
    assert_eq!(first(0, Some([2, 1, 7000, 0])), Err(S::Ring.into()));
    assert_eq!(first(0, Some([2, 0, 6999, 0])), Err(S::Sequence.into()));
    assert_eq!(first(0, Some([2, 0, 7000, PAGES])), Err(S::Extent.into()));
}

/// protocol §6.5, §6.8: each impossible value of a reader has its error.
#[test]
fn lies_of_a_reader_are_named() {
    use xenvmc_core::error::{
        RingError as R,
        SegmentError as S, //
    };
    let sender = |offset: u32, value: u32| {
        let mut pair = busy();
        pair.ends[0].slot.word(offset).store_release(value);
        let [peer, me] = &mut pair.ends;
        let room = me.out.room(&peer.slot);
        room.and_then(|room| me.out.poll_free(&peer.slot).map(|_| room))
    };
    assert_eq!(sender(slot::RX_CONS, 1000), Ok(8192 - 4000));
    assert_eq!(sender(slot::RX_CONS, 5001), Err(R::Consumer.into()));
    assert_eq!(sender(slot::RX_SEGMENTS, 2), Err(S::Entered.into()));
    assert_eq!(sender(slot::RX_SEGMENTS, u32::MAX), Err(S::Entered.into()));
}
