// SPDX-License-Identifier: GPL-2.0

//! A bounded queue that never moves what it holds, in small pieces of memory: those can be had in any context.

use kernel::prelude::*;

/// Places in one piece.
const SEGMENT: usize = 32;

/// First in, first out.
pub(super) struct Queue<T> {
    /// Each has [`SEGMENT`] places, or none as long as it was not needed.
    segments: KVec<KVec<Option<T>>>,
    first: usize,
    len: usize,
    limit: usize,
}

impl<T> Queue<T> {
    /// An empty queue for at most `limit` things.
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            segments: KVec::new(),
            first: 0,
            len: 0,
            limit,
        }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn places(&self) -> usize {
        self.limit.next_multiple_of(SEGMENT).max(SEGMENT)
    }

    /// Segment and place in it of the thing number `index`.
    fn at(&self, index: usize) -> (usize, usize) {
        let at = (self.first + index) % self.places();
        (at / SEGMENT, at % SEGMENT)
    }

    fn get(&self, index: usize) -> Option<&T> {
        let (segment, place) = self.at(index);
        self.segments.get(segment)?.get(place)?.as_ref()
    }

    fn place(&mut self, index: usize) -> Option<&mut Option<T>> {
        let (segment, place) = self.at(index);
        self.segments.get_mut(segment)?.get_mut(place)
    }

    /// Takes `item` in; gives it back if the queue is full, or there is no memory. Any context.
    pub(super) fn push(&mut self, item: T) -> core::result::Result<(), T> {
        if self.len >= self.limit || self.make_place(self.len).is_err() {
            return Err(item);
        }
        match self.place(self.len) {
            Some(place) => {
                *place = Some(item);
                self.len += 1;
                Ok(())
            }
            None => Err(item),
        }
    }

    /// Sees to it that there is a place for the thing number `index`.
    fn make_place(&mut self, index: usize) -> Result {
        if self.segments.is_empty() {
            let count = self.places() / SEGMENT;
            let mut segments = KVec::with_capacity(count, GFP_ATOMIC)?;
            for _ in 0..count {
                segments.push(KVec::new(), GFP_ATOMIC)?;
            }
            self.segments = segments;
        }
        let (segment, _) = self.at(index);
        let segment = self.segments.get_mut(segment).ok_or(EINVAL)?;
        if segment.is_empty() {
            let mut places = KVec::with_capacity(SEGMENT, GFP_ATOMIC)?;
            for _ in 0..SEGMENT {
                places.push(None, GFP_ATOMIC)?;
            }
            *segment = places;
        }
        Ok(())
    }

    /// The first one.
    pub(super) fn first(&self) -> Option<&T> {
        self.get(0)
    }

    /// All, from the first one on.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.len).filter_map(|index| self.get(index))
    }

    /// Takes the first one out.
    pub(super) fn pop(&mut self) -> Option<T> {
        let item = self.place(0)?.take()?;
        self.len -= 1;
        self.first = match self.len {
            0 => 0,
            _ => (self.first + 1) % self.places(),
        };
        Some(item)
    }

    /// Takes those out for which `is_it` says so, and gives them to `take`; order is kept among them, and among the others.
    pub(super) fn take_if(&mut self, is_it: impl Fn(&T) -> bool, mut take: impl FnMut(T)) {
        let mut kept = 0;
        for index in 0..self.len {
            let Some(item) = self.place(index).and_then(Option::take) else {
                continue;
            };
            if is_it(&item) {
                take(item);
            } else if let Some(place) = self.place(kept) {
                *place = Some(item);
                kept += 1;
            }
        }
        self.len = kept;
    }
}
