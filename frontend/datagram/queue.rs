// SPDX-License-Identifier: GPL-2.0

//! A bounded queue that never moves what it holds.

use kernel::prelude::*;

/// First in, first out.
pub(super) struct Queue<T> {
    places: KVec<Option<T>>,
    first: usize,
    len: usize,
    limit: usize,
}

impl<T> Queue<T> {
    /// An empty queue for at most `limit` things.
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            places: KVec::new(),
            first: 0,
            len: 0,
            limit,
        }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes `item` in; gives it back if the queue is full, or there is no memory. Any context.
    pub(super) fn push(&mut self, item: T) -> core::result::Result<(), T> {
        if self.len == self.places.len() && !self.grow() {
            return Err(item);
        }
        let at = (self.first + self.len) % self.places.len().max(1);
        match self.places.get_mut(at) {
            Some(place) => {
                *place = Some(item);
                self.len += 1;
                Ok(())
            }
            None => Err(item),
        }
    }

    /// The first one.
    pub(super) fn first(&self) -> Option<&T> {
        self.places.get(self.first)?.as_ref()
    }

    /// Takes the first one out.
    pub(super) fn pop(&mut self) -> Option<T> {
        let item = self.places.get_mut(self.first)?.take()?;
        self.len -= 1;
        self.first = (self.first + 1) % self.places.len();
        Some(item)
    }

    /// Makes room for twice as many, as far as the limit goes.
    fn grow(&mut self) -> bool {
        let wanted = (self.places.len() * 2).max(16).min(self.limit);
        if wanted <= self.places.len() {
            return false;
        }
        let Ok(mut places) = KVec::with_capacity(wanted, GFP_ATOMIC) else {
            return false;
        };
        while let Some(item) = self.pop() {
            if places.push_within_capacity(Some(item)).is_err() {
                return false;
            }
        }
        self.len = places.len();
        while places.push_within_capacity(None).is_ok() {}
        self.places = places;
        self.first = 0;
        true
    }
}
