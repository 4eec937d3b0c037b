// SPDX-License-Identifier: GPL-2.0

//! Things made once and kept in the user's cache directory, by what they were made from.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

/// Entries of one kind that are kept, the most recently used ones.
const KEPT: usize = 4;

/// The digest of everything that something is made from.
#[derive(Default)]
pub(crate) struct Key(Sha256);

impl Key {
    /// Adds one input.
    pub(crate) fn add(&mut self, input: &[u8]) {
        // The length goes first, so that two inputs are not one of the same bytes.
        self.0.update((input.len() as u64).to_le_bytes());
        self.0.update(input);
    }

    /// Adds the contents of a file.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(crate) fn add_file(&mut self, path: &Path) -> Result<()> {
        self.add(&fs::read(path).with_context(|| path.display().to_string())?);
        Ok(())
    }

    fn text(self) -> String {
        let digest = self.0.finalize();
        digest
            .iter()
            .take(10)
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }
}

/// The directory of the entry `kind` with this key, made with `make` if it does not exist.
///
/// # Errors
///
/// Those of `make`, and of the file system.
pub(crate) fn entry(
    kind: &str,
    key: Key,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let base = directory()?;
    fs::create_dir_all(&base).with_context(|| base.display().to_string())?;
    let path = base.join(format!("{kind}-{}", key.text()));
    let lock = File::create(base.join(format!("{kind}.lock")))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    if !path.is_dir() {
        let partial = base.join(format!("{kind}.partial"));
        remove(&partial)?;
        fs::create_dir(&partial)?;
        make(&partial)?;
        fs::rename(&partial, &path)?;
    }
    // The time of the last use, for `prune`.
    fs::write(path.join(".used"), b"")?;
    prune(&base, kind)?;
    Ok(path)
}

fn directory() -> Result<PathBuf> {
    let cache = match env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => Path::new(&env::var_os("HOME").context("neither HOME nor XDG_CACHE_HOME is set")?)
            .join(".cache"),
    };
    Ok(cache.join("xenvmc").join("lab"))
}

fn prune(base: &Path, kind: &str) -> Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(base)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if path.is_dir()
            && name
                .rsplit_once('-')
                .is_some_and(|(before, _)| before == kind)
        {
            let used = fs::metadata(path.join(".used")).and_then(|metadata| metadata.modified());
            entries.push((used.unwrap_or(SystemTime::UNIX_EPOCH), path));
        }
    }
    entries.sort();
    for (_, path) in entries.iter().rev().skip(KEPT) {
        remove(path)?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}
