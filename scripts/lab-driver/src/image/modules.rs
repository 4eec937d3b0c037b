// SPDX-License-Identifier: GPL-2.0

//! The toolbox kernel's modules, unpacked, with those that they need.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::Write,
    path::Path,
};

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use crate::tool;

/// Puts modules and their dependencies into an archive, with a `modules.dep` for modprobe, and a `modules.alias` with the names by
/// which the kernel asks for them (`tcp-ulp-tls`).
///
/// # Errors
///
/// The kernel has no such module, or it cannot be read.
pub(crate) fn add<W: Write>(archive: &mut Archive<W>, release: &str, names: &[&str]) -> Result<()> {
    let base = Path::new("/usr/lib/modules").join(release);
    let index = Index::parse(&fs::read_to_string(base.join("modules.dep"))?);
    let mut dependencies = String::new();
    let mut added = HashSet::new();
    for path in index.closure(names)? {
        let file = base.join(&path);
        let plain = path.trim_end_matches(".xz");
        let data = if plain == path {
            fs::read(&file)?
        } else {
            tool::output("xz", &["-dc".as_ref(), file.as_os_str()])?
        };
        archive.file(base.join(plain), 0o644, &data)?;
        let needs = index.needs[&path]
            .iter()
            .map(|need| need.trim_end_matches(".xz"));
        added.insert(name(plain));
        dependencies += &format!("{plain}: {}\n", needs.collect::<Vec<_>>().join(" "));
    }
    archive.file(base.join("modules.dep"), 0o644, dependencies.as_bytes())?;
    let aliases = fs::read_to_string(base.join("modules.alias"))?;
    let aliases: String = aliases
        .lines()
        .filter(|line| {
            line.split(' ')
                .nth(2)
                .is_some_and(|name| added.contains(name))
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    archive.file(base.join("modules.alias"), 0o644, aliases.as_bytes())?;
    Ok(())
}

/// Puts in what lets modprobe see that the kernel of a build directory has its modules built in.
///
/// # Errors
///
/// It was not built.
pub(crate) fn add_built_in<W: Write>(archive: &mut Archive<W>, directory: &Path) -> Result<()> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let release = read("include/config/kernel.release")?;
    let base = Path::new("/usr/lib/modules").join(release.trim_end());
    archive.file(
        base.join("modules.builtin"),
        0o644,
        read("modules.builtin")?.as_bytes(),
    )?;
    archive.file(base.join("modules.dep"), 0o644, b"")?;
    Ok(())
}

/// What `modules.dep` says.
struct Index {
    /// Path of a module to the paths of all modules that it needs.
    needs: BTreeMap<String, Vec<String>>,
    /// Name of a module, with underscores, to its path.
    paths: BTreeMap<String, String>,
}

impl Index {
    fn parse(text: &str) -> Self {
        let mut index = Self {
            needs: BTreeMap::new(),
            paths: BTreeMap::new(),
        };
        for line in text.lines() {
            let Some((path, needs)) = line.split_once(':') else {
                continue;
            };
            let needs = needs.split_whitespace().map(String::from).collect();
            index.paths.insert(name(path), path.to_owned());
            index.needs.insert(path.to_owned(), needs);
        }
        index
    }

    fn closure(&self, names: &[&str]) -> Result<Vec<String>> {
        let mut paths = Vec::new();
        for wanted in names {
            let Some(path) = self.paths.get(&wanted.replace('-', "_")) else {
                bail!("the kernel has no module {wanted}");
            };
            paths.push(path.clone());
            paths.extend(self.needs.get(path).context("modules.dep")?.iter().cloned());
        }
        paths.sort();
        paths.dedup();
        Ok(paths)
    }
}

fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closure_has_what_is_needed_once() {
        let index = Index::parse("k/a-b.ko.xz: k/c.ko.xz\nk/c.ko.xz:\nk/d.ko.xz: k/c.ko.xz\n");
        let paths = index.closure(&["a-b", "d"]).unwrap();
        assert_eq!(paths, ["k/a-b.ko.xz", "k/c.ko.xz", "k/d.ko.xz"]);
        assert!(index.closure(&["nothing"]).is_err());
    }
}
