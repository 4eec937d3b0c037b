// SPDX-License-Identifier: GPL-2.0

//! A bounded table of flows, by addresses and ports.

use crate::filter;
use core::fmt;
use kernel::prelude::*;
use xenvmc_core::message::Tuple;

/// Time between two sweeps.
pub(super) const MS_PER_SWEEP: u32 = 250;

const SETS: usize = 128;
const WAYS: usize = 8;

/// What an entry of a [`Table`] has.
pub(super) trait HasTuple {
    /// What it is found by.
    fn tuple(&self) -> &Tuple;

    /// Whether it may be forgotten for another one, or when it was not used for long.
    fn may_go(&self) -> bool;
}

/// Entries by addresses and ports: sets of eight, so that nobody can make a search long.
pub(super) struct Table<T> {
    places: KVec<Place<T>>,
    /// Nobody else knows it, so that none can choose ports whose flows crowd each other out.
    seed: u64,
}

struct Place<T> {
    entry: Option<KBox<T>>,
    /// Other for each entry that was here.
    generation: u32,
    /// Sweeps since it was used last.
    age: u32,
    /// Sweeps since an entry was forgotten for another one here.
    replaced: u32,
}

impl<T: HasTuple> Table<T> {
    /// An empty table.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        let mut places = KVec::with_capacity(SETS * WAYS, GFP_KERNEL)?;
        for _ in 0..SETS * WAYS {
            let place = Place {
                entry: None,
                generation: 0,
                age: 0,
                replaced: u32::MAX,
            };
            places.push(place, GFP_KERNEL)?;
        }
        let seed = xenvmc_xen::random::u64();
        Ok(Self { places, seed })
    }

    /// The set of a tuple.
    fn set_of(&self, tuple: &Tuple) -> usize {
        let hash = filter::hash(filter::hash(self.seed, &tuple.src), &tuple.dst);
        let ports = [tuple.src_port.to_ne_bytes(), tuple.dst_port.to_ne_bytes()];
        let hash = filter::hash_bytes(hash, ports.as_flattened());
        ((hash >> 32) as usize ^ hash as usize) % SETS
    }

    /// The place of `tuple`, if there is an entry.
    fn index(&self, tuple: &Tuple) -> Option<usize> {
        let first = self.set_of(tuple) * WAYS;
        let set = self.places.get(first..first + WAYS)?;
        let is_it = |place: &Place<T>| {
            place
                .entry
                .as_ref()
                .is_some_and(|entry| entry.tuple() == tuple)
        };
        Some(first + set.iter().position(is_it)?)
    }

    /// Whether there is an entry of `tuple`.
    pub(super) fn contains(&self, tuple: &Tuple) -> bool {
        self.index(tuple).is_some()
    }

    fn number(&self, index: usize) -> u32 {
        let generation = self.places.get(index).map_or(0, |place| place.generation);
        generation.wrapping_mul((SETS * WAYS) as u32) | index as u32
    }

    /// The entry of `tuple`, which is used by that, and its number.
    pub(super) fn find(&mut self, tuple: &Tuple) -> Option<(u32, &mut T)> {
        let index = self.index(tuple)?;
        let number = self.number(index);
        let place = self.places.get_mut(index)?;
        place.age = 0;
        Some((number, place.entry.as_deref_mut()?))
    }

    /// The same; makes it if there is none and there is room, or an entry that may go. `new` is told whether there may have been one of
    /// `tuple` less than `sweeps` sweeps ago, which was forgotten for another one.
    pub(super) fn find_or_insert(
        &mut self,
        tuple: &Tuple,
        sweeps: u32,
        new: impl FnOnce(bool) -> T,
    ) -> Option<&mut T> {
        if self.index(tuple).is_none() {
            let first = self.set_of(tuple) * WAYS;
            let set = self.places.get_mut(first..first + WAYS)?;
            let may_have_been = set.iter().any(|place| place.replaced < sweeps);
            let place = set
                .iter_mut()
                .filter(|place| place.entry.as_ref().is_none_or(|entry| entry.may_go()))
                .max_by_key(|place| (place.entry.is_none(), place.age))?;
            let entry = KBox::new(new(may_have_been), GFP_ATOMIC).ok()?;
            if place.entry.replace(entry).is_some() {
                place.replaced = 0;
            }
            place.generation = place.generation.wrapping_add(1);
        }
        self.find(tuple).map(|(_, entry)| entry)
    }

    /// The entry of that number.
    pub(super) fn get(&mut self, number: u32) -> Option<&mut T> {
        let index = number as usize % (SETS * WAYS);
        if self.number(index) != number {
            return None;
        }
        self.places.get_mut(index)?.entry.as_deref_mut()
    }

    /// All entries.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let entry = place.entry.as_deref()?;
            Some((self.number(index), entry))
        })
    }

    /// All entries.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        let places = self.places.iter_mut().enumerate();
        places.filter_map(|(index, place)| Some((index, place.entry.as_deref_mut()?)))
    }

    /// All entries, and how many sweeps ago each was used last.
    pub(super) fn iter_aged_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        let places = self.places.iter_mut();
        places.filter_map(|place| Some((place.age, place.entry.as_deref_mut()?)))
    }

    /// Forgets entries that may go and were not used for `sweeps` sweeps; called at each of them.
    pub(super) fn sweep(&mut self, sweeps: u32) {
        for place in self.places.iter_mut() {
            place.age = place.age.saturating_add(1);
            place.replaced = place.replaced.saturating_add(1);
            if place.age > sweeps && place.entry.as_ref().is_some_and(|entry| entry.may_go()) {
                place.entry = None;
            }
        }
    }
}

/// Writes the line of a flow.
pub(super) fn describe(
    f: &mut fmt::Formatter<'_>,
    direction: &str,
    tuple: &Tuple,
    state: &str,
    network: u32,
) -> fmt::Result {
    let Tuple {
        src,
        dst,
        src_port,
        dst_port,
    } = tuple;
    writeln!(
        f,
        "direction={direction} source={src} source_port={src_port} destination={dst} destination_port={dst_port} state={state} network={network}"
    )
}
