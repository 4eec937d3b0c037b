// SPDX-License-Identifier: GPL-2.0

//! Programs of the toolbox for an image, with the libraries that they load.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::cpio::Archive;
use crate::tool;

/// Where files that are named without a directory are looked up, after Xen's own directory: the
/// programs of the same names elsewhere are scripts that look for it.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/usr/bin", "/usr/lib/x86_64-linux-gnu"];

/// Puts files and the libraries that they are linked with into an archive. A file named without a
/// directory goes to `/usr/sbin` when it comes from Xen's own directory.
///
/// # Errors
///
/// The toolbox lacks a file.
pub(crate) fn add<W: Write>(archive: &mut Archive<W>, names: &[&str]) -> Result<()> {
    let xen = xen_directory()?;
    let mut files = BTreeMap::new();
    for name in names {
        let source = find(name, &xen)?;
        for library in libraries(&source)? {
            files.insert(library.clone(), library);
        }
        files.insert(target(&source, &xen), source);
    }
    for (target, source) in files {
        let mode = fs::metadata(&source)?.permissions().mode() & 0o7777;
        let data = fs::read(&source).with_context(|| source.display().to_string())?;
        archive.file(target, mode, &data)?;
    }
    Ok(())
}

fn find(name: &str, xen: &Path) -> Result<PathBuf> {
    let directories = [xen].into_iter().chain(DIRECTORIES.iter().map(Path::new));
    directories
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("the toolbox lacks {name}"))
}

fn target(source: &Path, xen: &Path) -> PathBuf {
    match source.file_name() {
        // The library looks for its helper at the full path.
        Some(name) if source.starts_with(xen) && name != "libxl-save-helper" => {
            Path::new("/usr/sbin").join(name)
        }
        _ => source.to_owned(),
    }
}

/// The directory of the programs that belong to one version of Xen.
fn xen_directory() -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/usr/lib")? {
        let path = entry?.path().join("bin");
        if path.join("xl").is_file() {
            found.push(path);
        }
    }
    found.sort();
    found.pop().context("the toolbox lacks Xen's programs")
}

/// What the dynamic linker would load. Nothing for what is not dynamic.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    if !fs::read(program)?.starts_with(b"\x7fELF") {
        return Ok(Vec::new());
    }
    let Ok(text) = tool::output("ldd", &[program.as_os_str()]) else {
        return Ok(Vec::new());
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let word = if words.get(1) == Some(&"=>") {
                words.get(2)
            } else {
                words.first()
            };
            word.filter(|word| word.starts_with('/')).map(PathBuf::from)
        })
        .collect())
}
