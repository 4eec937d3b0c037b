// SPDX-License-Identifier: GPL-2.0

//! The client: runs the cases, and prints KTAP.

use std::{collections::BTreeMap, iter::Enumerate, slice::Iter};

use anyhow::Result;

use crate::{
    case::Case,
    cases,
    control::{Control, Message, Outcome},
    end::End,
    options::RunOptions,
    process::{self, Playing},
    record::{Entry, Record},
};

/// Runs what is asked for; returns whether all is well.
pub(crate) fn run(options: &RunOptions) -> Result<bool> {
    let expected = options.expect.as_deref().map(Record::read).transpose()?;
    let wanted: Vec<_> = cases::all()
        .filter(|case| {
            options.names.is_empty()
                || options
                    .names
                    .iter()
                    .any(|name| case.name().starts_with(name.as_str()))
        })
        .flat_map(|case| [(case, true), (case, false)])
        .collect();
    println!("KTAP version 1\n1..{}", wanted.len());
    let mut seen = BTreeMap::new();
    let mut all_well = true;
    let mut ended = Ended::of(options, &wanted);
    for (index, (case, left_is_active)) in wanted.iter().enumerate() {
        let end = if *left_is_active { "left" } else { "right" };
        let name = format!("{}/{end}_connects", case.name());
        let entry = entry(ended.take(index), *left_is_active);
        let mut problems = entry.failures();
        if let Some(expected) = &expected {
            match expected.cases.get(&name) {
                Some(expected) => problems.extend(entry.differences(expected)),
                None => problems.push("nothing was recorded of it".into()),
            }
        }
        let verdict = if problems.is_empty() { "ok" } else { "not ok" };
        println!("{verdict} {} {name}", index + 1);
        problems.iter().for_each(|problem| println!("# {problem}"));
        all_well &= problems.is_empty();
        seen.insert(name, entry);
    }
    if let Some(path) = &options.record {
        let way = options.way.name().to_owned();
        Record { way, cases: seen }.write(path)?;
    }
    Ok(all_well)
}

/// What cases have come to, which play as many at once as is asked for: one that takes long holds up none behind it.
struct Ended<'a> {
    options: &'a RunOptions,
    /// Those that have not begun, in order, and whether the left end connects.
    rest: Enumerate<Iter<'a, (&'static Case, bool)>>,
    under_way: Vec<(usize, Playing)>,
    ended: BTreeMap<usize, Result<[Outcome; 2]>>,
}

impl<'a> Ended<'a> {
    /// Those of all `wanted` cases.
    fn of(options: &'a RunOptions, wanted: &'a [(&'static Case, bool)]) -> Self {
        Self {
            options,
            rest: wanted.iter().enumerate(),
            under_way: Vec::new(),
            ended: BTreeMap::new(),
        }
    }

    /// What the case at `index` has come to: waits for its end.
    fn take(&mut self, index: usize) -> Result<[Outcome; 2]> {
        loop {
            self.fill();
            if let Some(outcomes) = self.ended.remove(&index) {
                return outcomes;
            }
            let playing: Vec<_> = self.under_way.iter().map(|(_, playing)| playing).collect();
            let at = Playing::first_to_end(&playing)?;
            let (index, playing) = self.under_way.swap_remove(at);
            self.ended.insert(index, playing.wait());
        }
    }

    /// Begins as many as may play at once.
    fn fill(&mut self) {
        while self.under_way.len() < usize::from(self.options.jobs) {
            let Some((index, (case, left_is_active))) = self.rest.next() else {
                return;
            };
            match start(self.options, case, *left_is_active) {
                Ok(playing) => self.under_way.push((index, playing)),
                Err(error) => drop(self.ended.insert(index, Err(error))),
            }
        }
    }
}

/// Begins a case.
fn start(options: &RunOptions, case: &'static Case, left_is_active: bool) -> Result<Playing> {
    let begin = || -> Result<Control> {
        let mut control = Control::connect(options.server, options.port)?;
        control.say(&Message::Begin {
            case: case.name().to_owned(),
            way: options.way.name().to_owned(),
            rounds: options.rounds,
            left_is_active,
        })?;
        Ok(control)
    };
    Playing::start(|| match begin() {
        Ok(control) => {
            let end = End::new(control, options.way, options.rounds, true);
            process::play(case, end, left_is_active)
        }
        Err(error) => [failed(format!("{error:#}")), Outcome::default()],
    })
}

fn entry(outcomes: Result<[Outcome; 2]>, left_is_active: bool) -> Entry {
    let [ours, theirs] =
        outcomes.unwrap_or_else(|error| [failed(format!("{error:#}")), Outcome::default()]);
    let (left, right) = if left_is_active {
        (ours, theirs)
    } else {
        (theirs, ours)
    };
    Entry { left, right }
}

fn failed(why: String) -> Outcome {
    Outcome {
        failure: Some(why),
        ..Outcome::default()
    }
}
