// SPDX-License-Identifier: GPL-2.0

//! The guests' debug kernel, made by the scripts of the checkout.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::checkout::Checkout;

/// The directory, below `build`, of the modules for it.
pub(crate) const MODULES: &str = "modules-debug";

/// Makes what is missing or old of the kernel and of the modules for it; returns the kernel's build directory.
///
/// # Errors
///
/// They cannot be built.
pub(crate) fn prepare(checkout: &Checkout) -> Result<PathBuf> {
    let output = run(Command::new(checkout.script("debug-kernel")).stdout(Stdio::piped()))?;
    let directory = Path::new(output.trim_end()).to_owned();
    run(Command::new(checkout.script("build-modules"))
        .arg(&directory)
        .args([MODULES, "modules"])
        .stdout(io::stderr()))?;
    Ok(directory)
}

/// Runs a script that says on standard error how far it is.
fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .and_then(|child| child.wait_with_output())
        .with_context(|| name.clone())?;
    ensure!(output.status.success(), "{name}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
