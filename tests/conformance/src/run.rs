// SPDX-License-Identifier: GPL-2.0

//! The client: runs the cases, and prints KTAP.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result};

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
    let mut rest = wanted.iter();
    let mut under_way = VecDeque::new();
    for (index, (case, left_is_active)) in wanted.iter().enumerate() {
        let next = rest
            .by_ref()
            .take(usize::from(options.jobs) - under_way.len());
        under_way.extend(next.map(|(case, left_is_active)| start(options, case, *left_is_active)));
        let end = if *left_is_active { "left" } else { "right" };
        let name = format!("{}/{end}_connects", case.name());
        let playing = under_way.pop_front().context("as many as were wanted")?;
        let entry = entry(playing.and_then(Playing::wait), *left_is_active);
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
