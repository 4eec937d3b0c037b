// SPDX-License-Identifier: GPL-2.0

//! Shared memory of the host, and a pair of endpoints that talk through it.

#![allow(dead_code)]

pub(crate) mod pair;
pub(crate) mod tuple;

use std::{
    rc::Rc,
    sync::atomic::{
        fence,
        AtomicU32,
        Ordering, //
    },
};

use proptest::prelude::ProptestConfig;
use xenvmc_core::{
    wire,
    Fence,
    SharedLoad,
    SharedStore,
    Words, //
};

/// One word of the host's memory.
pub(crate) struct Word {
    words: Rc<[AtomicU32]>,
    at: usize,
}

impl SharedLoad for Word {
    fn load_relaxed(&self) -> u32 {
        self.words[self.at].load(Ordering::Relaxed)
    }

    fn load_acquire(&self) -> u32 {
        self.words[self.at].load(Ordering::Acquire)
    }
}

impl SharedStore for Word {
    fn store_relaxed(&self, value: u32) {
        self.words[self.at].store(value, Ordering::Relaxed);
    }

    fn store_release(&self, value: u32) {
        self.words[self.at].store(value, Ordering::Release);
    }
}

/// The barrier of the host.
pub(crate) struct HostFence;

impl Fence for HostFence {
    fn full() {
        fence(Ordering::SeqCst);
    }
}

/// A connection slot, or any other piece of memory made of words.
#[derive(Clone)]
pub(crate) struct Slot(pub(crate) Rc<[AtomicU32]>);

impl Slot {
    /// A slot as the owner makes it, with the two free running indices at a value of choice.
    pub(crate) fn new(tx: u32, rx: u32) -> Self {
        let slot = Self(
            (0..wire::SLOT_SIZE / 4)
                .map(|_| AtomicU32::new(0))
                .collect(),
        );
        slot.word(wire::slot::TX_PROD).store_relaxed(tx);
        slot.word(wire::slot::RX_CONS).store_relaxed(rx);
        slot
    }
}

impl Words for Slot {
    type Word = Word;

    fn word(&self, offset: u32) -> Word {
        assert_eq!(offset % 4, 0);
        Word {
            words: self.0.clone(),
            at: (offset / 4) as usize,
        }
    }
}

/// Byte number `at` of every stream in these tests; neighbours and multiples of pages differ.
pub(crate) fn byte(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// So many cases of a property; a failing one is printed, and no file is written.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
