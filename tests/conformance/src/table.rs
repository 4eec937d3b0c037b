// SPDX-License-Identifier: GPL-2.0

//! The table of all cases, for Documentation/semantics.md.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    cases,
    options::Way,
    record::{Entry, Record},
};

/// Prints the table of what was recorded in a directory, in files whose names end with the way's.
pub(crate) fn print(directory: &Path) -> Result<()> {
    let absent = read(directory, Way::Absent)?;
    let others = [read(directory, Way::Alone)?, read(directory, Way::Ring)?];
    println!("| case | what Linux does | module at one end | on the ring |\n|---|---|---|---|");
    for case in cases::all() {
        let entries = |seen: &BTreeMap<String, Entry>| {
            ["left", "right"].map(|end| {
                seen.get(&format!("{}/{end}_connects", case.name()))
                    .cloned()
            })
        };
        let expected = entries(&absent);
        let [alone, ring] = others
            .each_ref()
            .map(|seen| verdict(&expected, &entries(seen)));
        let (name, about) = (case.name(), case.about.trim());
        println!("| `{name}` | {about} | {alone} | {ring} |");
    }
    Ok(())
}

/// The cases of all files of a way.
fn read(directory: &Path, way: Way) -> Result<BTreeMap<String, Entry>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(&format!("-{}.json", way.name())) {
            all.extend(Record::read(&path)?.cases);
        }
    }
    Ok(all)
}

fn verdict(expected: &[Option<Entry>; 2], seen: &[Option<Entry>; 2]) -> &'static str {
    let mut verdict = "same";
    for pair in expected.iter().zip(seen) {
        let (Some(expected), Some(seen)) = pair else {
            return "not run";
        };
        if !seen.failures().is_empty() || !seen.differences(expected).is_empty() {
            verdict = "**differs**";
        }
    }
    verdict
}
