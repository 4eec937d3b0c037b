// SPDX-License-Identifier: GPL-2.0

//! Sequences of operations against a plain model, from arbitrary start indices.

mod common;

use std::collections::VecDeque;

use common::{
    cases,
    HostFence,
    Slot, //
};
use proptest::prelude::*;
use xenvmc_core::{
    arena::{
        Arena,
        PeerArena,
        SlotPage, //
    },
    error::{
        ArenaError,
        QueueError, //
    },
    extent::Spans,
    queue,
    ring::{
        Consumer,
        Producer, //
    },
    wake,
    wire::SlotId,
    Extent,
    SharedLoad,
    SharedStore,
    Words, //
};

/// Any index, and often one just before the wrap.
fn start() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), (u32::MAX - 20_000)..=u32::MAX]
}

proptest! {
    #![proptest_config(cases(1000))]

    /// protocol §4.1: a step notifies exactly if the event lies within it.
    #[test]
    fn crossing_is_being_passed(old in start(), step in 0..100_000u32, at in 0..100_000u32) {
        let crossed = wake::crosses(old, old.wrapping_add(step), old.wrapping_add(at));
        prop_assert_eq!(crossed, at < step);
    }

    /// protocol §4.3: who arms sleeps exactly if the index has not passed.
    #[test]
    fn arming_looks_again(seen in start(), at in 0..10_000u32, step in 0..20_000u32) {
        let words = Slot::new(seen.wrapping_add(step), 0);
        let (index, event) = (words.word(0), words.word(4));
        let at = seen.wrapping_add(at);
        let sleep = wake::arm_at::<HostFence>(&event, at, seen, &index);
        prop_assert_eq!(event.load_relaxed(), at);
        prop_assert_eq!(sleep, step <= at.wrapping_sub(seen));
    }

    /// protocol §6.4: spans cover the bytes in order, and cross neither a page nor the end.
    #[test]
    fn spans_cover_the_bytes(at in start(), order in 0..5u8, part in 0..=1000u32) {
        let size = 4096u32 << order;
        let len = (u64::from(size) * u64::from(part) / 1000) as u32;
        let mut next = at;
        for span in Spans::new(at, len, size) {
            prop_assert_eq!(span.offset, next % size);
            prop_assert!(span.len > 0 && span.in_page() + span.len <= 4096);
            prop_assert_eq!(span.page() * 4096 + span.in_page(), span.offset);
            next = next.wrapping_add(span.len);
        }
        prop_assert_eq!(next, at.wrapping_add(len));
    }

    /// protocol §6.4: the two ends of a ring agree with a queue of bytes.
    #[test]
    fn a_ring_is_a_queue_of_bytes(
        first in start(),
        order in 0..3u8,
        ops in prop::collection::vec((any::<bool>(), 0..20_000u32), 1..100),
    ) {
        let size = 4096u32 << order;
        let mut producer = Producer::new(first, size);
        let mut consumer = Consumer::new(first);
        let mut memory = vec![0u8; size as usize];
        let mut model = VecDeque::new();
        let mut fresh = 0u8;
        for (produce, len) in ops {
            if produce {
                let free = producer.free(consumer.cons()).unwrap();
                prop_assert_eq!(free as usize, size as usize - model.len());
                let len = len.min(free);
                for span in producer.spans(len) {
                    for at in span.offset..span.offset + span.len {
                        fresh = fresh.wrapping_mul(31).wrapping_add(7);
                        memory[at as usize] = fresh;
                        model.push_back(fresh);
                    }
                }
                producer.advance(len);
            } else {
                let there = consumer.available(producer.prod(), size, None).unwrap();
                prop_assert_eq!(there as usize, model.len());
                let len = len.min(there);
                for span in consumer.spans(len, size) {
                    for at in span.offset..span.offset + span.len {
                        prop_assert_eq!(Some(memory[at as usize]), model.pop_front());
                    }
                }
                consumer.advance(len);
            }
        }
    }

    /// protocol §1.2: a producer believes exactly the indices that a correct reader can have.
    #[test]
    fn a_producer_believes_no_other_index(
        first in start(),
        produced in 0..=4096u32,
        consumed in 0..=4096u32,
        said in prop_oneof![any::<u32>(), 0..9000u32],
    ) {
        let consumed = consumed.min(produced);
        let mut producer = Producer::new(first, 4096);
        producer.advance(produced);
        producer.free(first.wrapping_add(consumed)).unwrap();
        let answer = producer.free(first.wrapping_add(said));
        if (consumed..=produced).contains(&said) {
            prop_assert_eq!(answer, Ok(4096 - (produced - said)));
        } else {
            prop_assert!(answer.is_err());
        }
    }

    /// protocol §1.2: a consumer believes exactly the indices that a correct sender can have.
    #[test]
    fn a_consumer_believes_no_other_index(
        first in start(),
        seen in 0..=4096u32,
        said in prop_oneof![any::<u32>(), 0..9000u32],
        limit in prop::option::of(prop_oneof![any::<u32>(), 0..9000u32]),
    ) {
        let mut consumer = Consumer::new(first);
        consumer.available(first.wrapping_add(seen), 4096, None).unwrap();
        let end = limit.map(|limit| first.wrapping_add(limit));
        let answer = consumer.available(first.wrapping_add(said), 4096, end);
        let possible = said >= seen && said <= i32::MAX as u32;
        match limit {
            None if possible && said <= 4096 => prop_assert_eq!(answer, Ok(said)),
            Some(limit) if possible && limit <= 4096 => {
                prop_assert_eq!(answer, Ok(said.min(limit)));
            }
            _ => prop_assert!(answer.is_err()),
        }
    }

    /// protocol §4: what a waiter arms for is what it needs, no more and no less.
    #[test]
    fn events_are_where_the_need_is_met(
        first in start(),
        produced in 0..=8192u32,
        want in 1..=8192u32,
    ) {
        let mut producer = Producer::new(first, 8192);
        producer.advance(produced);
        if 8192 - produced < want {
            let event = producer.space_event(want);
            prop_assert!(producer.clone().free(event).unwrap() == want - 1);
            prop_assert!(producer.free(event.wrapping_add(1)).unwrap() == want);
        }
        let event = Consumer::new(first).data_event(want);
        prop_assert_eq!(event.wrapping_add(1).wrapping_sub(first), want);
    }

    /// protocol §5: a queue keeps its order, is never fuller than it is long, and a notice is
    /// outstanding exactly until it is taken.
    #[test]
    fn queues_agree_with_a_model(
        first in start(),
        shift in 0..4u32,
        ops in prop::collection::vec(0..5u8, 1..200),
    ) {
        let entries = 1 << shift;
        let words = Slot::new(first, first);
        let (prod, prod_event) = (words.word(0), words.word(68));
        let cons = words.word(64);
        let mut producer = queue::Producer::starting_at(first, entries);
        let mut consumer = queue::Consumer::starting_at(first, entries);
        let mut memory = vec![0u32; entries as usize];
        let mut model = VecDeque::new();
        let (mut posted, mut at_post) = (queue::Posted::none(), None);
        let (mut pushed, mut taken, mut published) = (0u32, 0u32, 0u32);
        for op in ops {
            match op {
                0 | 1 => {
                    let room = producer.room(cons.load_acquire()).unwrap();
                    prop_assert_eq!(room, entries - (pushed - taken));
                    if room > 0 {
                        memory[producer.push() as usize] = pushed;
                        model.push_back(pushed);
                        pushed += 1;
                    }
                    if op == 1 && room > 0 {
                        posted = producer.posted();
                        at_post = Some(pushed - 1);
                    }
                }
                2 => {
                    producer.publish::<HostFence>(&prod, &prod_event);
                    published = pushed;
                }
                3 => {
                    let outstanding = producer.is_outstanding::<HostFence>(&posted, &cons);
                    let expected = at_post.is_some_and(|at| at >= taken);
                    match outstanding {
                        Ok(outstanding) => prop_assert_eq!(outstanding, expected),
                        Err(error) => {
                            prop_assert_eq!(error, QueueError::Full);
                            prop_assert!(!expected && pushed - taken == entries);
                        }
                    }
                }
                _ => match consumer.peek(&prod).unwrap() {
                    Some(at) => {
                        prop_assert_eq!(Some(memory[at as usize]), model.pop_front());
                        consumer.take::<HostFence>(&cons);
                        taken += 1;
                        prop_assert!(taken <= published);
                    }
                    None => prop_assert_eq!(taken, published),
                },
            }
        }
    }

    /// protocol §1.2: neither end of a queue believes an impossible index.
    #[test]
    fn queues_believe_no_other_index(
        first in start(),
        produced in 0..=8u32,
        said in prop_oneof![any::<u32>(), 0..20u32],
    ) {
        let words = Slot::new(first, first);
        let mut producer = queue::Producer::starting_at(first, 8);
        (0..produced).for_each(|_| { producer.push(); });
        producer.publish::<HostFence>(&words.word(0), &words.word(4));
        let cons = producer.room(first.wrapping_add(said));
        prop_assert_eq!(cons.is_ok(), said <= produced);
        let mut consumer = queue::Consumer::starting_at(first, 8);
        consumer.peek(&words.word(0)).unwrap();
        words.word(0).store_release(first.wrapping_add(said));
        prop_assert_eq!(consumer.peek(&words.word(0)).is_ok(), (produced..=8).contains(&said));
    }

    /// protocol §3.3: the arena never gives a page twice, nor one that is not mapped, and what it
    /// says that would help does help.
    #[test]
    fn the_arena_gives_each_page_once(
        limit in 1..6u32,
        ops in prop::collection::vec((any::<bool>(), 0..9u8, any::<prop::sample::Index>()), 1..120),
    ) {
        let mut arena = Arena::new(limit);
        let mut map = vec![0u64; limit as usize];
        let mut held: Vec<Extent> = Vec::new();
        for (allocate, order, which) in ops {
            if !allocate {
                if !held.is_empty() {
                    let extent = held.swap_remove(which.index(held.len()));
                    arena.free(&mut map, extent).unwrap();
                    prop_assert!(arena.free(&mut map, extent).is_err());
                }
                continue;
            }
            let answer = match arena.allocate(&mut map, order) {
                Err(ArenaError::NeedChunks(chunks)) => {
                    prop_assert!(chunks > arena.granted() && chunks <= limit);
                    arena.grow(chunks).unwrap();
                    prop_assert_eq!(
                        arena.allocate(&mut map, order),
                        Err(ArenaError::NotMapped)
                    );
                    arena.handle_mapped(chunks).unwrap();
                    let answer = arena.allocate(&mut map, order);
                    prop_assert!(answer.is_ok());
                    answer
                }
                answer => answer,
            };
            match answer {
                Ok(extent) => {
                    prop_assert!(extent.fits(arena.mapped() * 64));
                    prop_assert_eq!(extent.order(), order);
                    for other in &held {
                        let apart = extent.page() + extent.pages() <= other.page()
                            || other.page() + other.pages() <= extent.page();
                        prop_assert!(apart);
                    }
                    held.push(extent);
                }
                Err(error) => prop_assert_eq!(error, ArenaError::Exhausted),
            }
            prop_assert_eq!(arena.used(), held.iter().map(|e| e.pages()).sum::<u32>());
        }
    }

    /// protocol §1.2: only a number of chunks that exists and does not go back is believed.
    #[test]
    fn the_arena_believes_no_other_count(granted in 0..10u32, mapped in 0..10u32, said in 0..20u32) {
        let mut arena = Arena::new(10);
        arena.grow(granted).unwrap();
        let mapped = mapped.min(granted);
        arena.handle_mapped(mapped).unwrap();
        prop_assert_eq!(
            arena.handle_mapped(said).is_ok(),
            (mapped..=granted).contains(&said)
        );
    }
}

proptest! {
    #![proptest_config(cases(500))]

    /// protocol §3.3: the peer's chunks are mapped one by one, in order, up to the limit.
    #[test]
    fn the_peers_arena_is_mapped_in_order(
        limit in 0..20u32,
        counts in prop::collection::vec(prop_oneof![0..20u32, 1000..1100u32, any::<u32>()], 1..20),
    ) {
        let mut arena = PeerArena::new(limit);
        let (mut granted, mut mapped) = (0, 0);
        for count in counts {
            let next = arena.handle_granted(count);
            if count < granted || count > 1024 {
                prop_assert_eq!(next, Err(ArenaError::Granted));
                continue;
            }
            granted = count;
            if mapped < granted.min(limit) {
                prop_assert_eq!(next, Ok(Some(mapped)));
                mapped += 1;
                prop_assert_eq!(arena.did_map(), mapped);
            } else {
                prop_assert_eq!(next, Ok(None));
            }
            prop_assert_eq!(arena.pages(), mapped * 64);
        }
    }
}

/// A page of slots gives each of its sixteen once (protocol §3.4).
#[test]
fn slots_are_given_once() {
    let mut slots = SlotPage::new(7);
    let mut ids: Vec<_> = std::iter::from_fn(|| slots.take()).collect();
    assert_eq!(ids.len(), 16);
    ids.dedup();
    assert!(ids.len() == 16 && ids.iter().all(|id| id.page() == 7));
    assert!(!slots.put(SlotId(0)), "of another page");
    assert!(ids.iter().all(|&id| slots.put(id)) && slots.is_empty());
}

/// Mistakes of the caller are errors, and change nothing.
#[test]
fn the_arena_refuses_its_own_guest() {
    let (mut arena, mut map) = (Arena::new(5000), vec![0u64; 2]);
    assert_eq!(arena.limit(), 1024);
    arena.grow(3).unwrap();
    assert_eq!(arena.grow(2), Err(ArenaError::Caller));
    assert_eq!(arena.grow(1025), Err(ArenaError::Caller));
    assert_eq!(arena.allocate(&mut map, 11), Err(ArenaError::Caller));
    arena.handle_mapped(3).unwrap();
    // The bitmap is shorter than the arena: what is beyond it counts as in use.
    assert!(arena.allocate(&mut map, 6).is_ok());
    assert!(arena.allocate(&mut map, 6).is_ok());
    assert!(arena.allocate(&mut map, 6).is_err());
    let beyond = Extent::new(128, 6).unwrap();
    assert_eq!(arena.free(&mut map, beyond), Err(ArenaError::Caller));
}
