// SPDX-License-Identifier: GPL-2.0

//! What all cases of a run saw, as a file.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::control::Outcome;

/// A run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record {
    /// The name of the way.
    pub(crate) way: String,
    /// The cases by their names and the end that connects.
    pub(crate) cases: BTreeMap<String, Entry>,
}

/// A case.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The left end.
    pub(crate) left: Outcome,
    /// The right end.
    pub(crate) right: Outcome,
}

impl Record {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Writes a file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text).with_context(|| path.display().to_string())
    }
}

impl Entry {
    /// How what was seen here differs from what was expected: a line for each.
    pub(crate) fn differences(&self, expected: &Self) -> Vec<String> {
        let mut all = Vec::new();
        for (end, ours, theirs) in [
            ("left", &self.left.lines, &expected.left.lines),
            ("right", &self.right.lines, &expected.right.lines),
        ] {
            for at in 0..ours.len().max(theirs.len()) {
                let [got, expected] = [ours, theirs].map(|lines| lines.get(at));
                if got != expected {
                    let text =
                        |line: Option<&String>| line.map_or("nothing", String::as_str).to_owned();
                    all.push(format!(
                        "{end}, {}: \"{}\" instead of \"{}\"",
                        at + 1,
                        text(got),
                        text(expected)
                    ));
                }
            }
        }
        all
    }

    /// Why an end did not get to its end.
    pub(crate) fn failures(&self) -> Vec<String> {
        [("left", &self.left), ("right", &self.right)]
            .into_iter()
            .filter_map(|(end, outcome)| {
                let why = outcome.failure.as_ref()?;
                Some(format!("{end}: {}", why.replace('\n', ": ")))
            })
            .collect()
    }
}
