// SPDX-License-Identifier: GPL-2.0

//! Orders from the test, and answers to it: a line each, `<id> <verb> <name>=<value> …` and
//! `<id> <name>=<value> …`.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

/// One order.
pub(crate) struct Order {
    /// The test's number for it, given back in the answer.
    pub(crate) id: u64,
    /// What to do.
    pub(crate) verb: String,
    words: BTreeMap<String, String>,
}

impl Order {
    /// Understands a line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (id, verb) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        let pair = |word: &str| {
            word.split_once('=')
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
        };
        Some(Self {
            id,
            verb,
            words: words.filter_map(pair).collect(),
        })
    }

    /// The same order with another verb and one more word.
    pub(crate) fn with(&self, verb: &str, name: &str, value: impl Display) -> Self {
        let mut words = self.words.clone();
        words.insert(name.to_owned(), value.to_string());
        Self {
            id: self.id,
            verb: verb.to_owned(),
            words,
        }
    }

    /// A word's value, if it is there.
    pub(crate) fn find<T: FromStr>(&self, name: &str) -> Option<T> {
        self.words.get(name)?.parse().ok()
    }

    /// A word's value, that must be there.
    pub(crate) fn get<T: FromStr>(&self, name: &str) -> Result<T, String> {
        self.find(name)
            .ok_or_else(|| format!("{} needs {name}", self.verb))
    }
}

/// The words of an answer.
#[derive(Default)]
pub(crate) struct Answer(String);

impl Answer {
    /// Adds a word.
    pub(crate) fn with(mut self, name: &str, value: impl Display) -> Self {
        self.0.push_str(&format!(" {name}={value}"));
        self
    }

    /// A word's value, if it is there.
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        let mut pairs = self
            .0
            .split_whitespace()
            .filter_map(|word| word.split_once('='));
        pairs
            .find(|(other, _)| *other == name)
            .map(|(_, value)| value)
    }

    /// What follows the order's number.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}
