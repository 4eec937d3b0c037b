// SPDX-License-Identifier: GPL-2.0

//! Where things are in the source tree.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The source tree that this program belongs to.
pub(crate) struct Checkout(PathBuf);

impl Checkout {
    /// Looks for it above the program, then above the current directory.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn find() -> Result<Self> {
        let starts = [env::current_exe()?, env::current_dir()?];
        starts
            .iter()
            .flat_map(|start| start.ancestors())
            .find(|path| path.join("scripts/lab-driver/Cargo.toml").is_file())
            .map(|path| Self(path.to_owned()))
            .context("no source tree above the program or the current directory")
    }

    /// The directory of a lab.
    ///
    /// # Errors
    ///
    /// The name is not made of letters, digits, `-` and `_`.
    pub(crate) fn lab(&self, name: &str) -> Result<PathBuf> {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 32 || !name.chars().all(good) {
            bail!("{name:?}: a lab's name has 1 to 32 letters, digits, - and _");
        }
        Ok(self.labs().join(name))
    }

    /// The directory of all labs.
    pub(crate) fn labs(&self) -> PathBuf {
        self.0.join("build/lab")
    }

    /// The agent's program.
    pub(crate) fn agent(&self) -> PathBuf {
        self.0
            .join("build/cargo/x86_64-unknown-linux-gnu/release/lab-agent")
    }

    /// A module, when it has been built; `output` is the directory of the modules for one kernel.
    pub(crate) fn module(&self, output: &str, name: &str) -> Option<PathBuf> {
        Some(self.0.join("build").join(output).join(name)).filter(|path| Path::is_file(path))
    }

    /// One of the scripts.
    pub(crate) fn script(&self, name: &str) -> PathBuf {
        self.0.join("scripts").join(name)
    }
}
