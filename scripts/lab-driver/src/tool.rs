// SPDX-License-Identifier: GPL-2.0

//! Programs of the toolbox, run to their end.

use std::{
    ffi::OsStr,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Runs a program and returns what it printed.
///
/// # Errors
///
/// It cannot be started or fails; the error has the end of what it said.
pub(crate) fn output(program: &str, arguments: &[&OsStr]) -> Result<Vec<u8>> {
    run(Command::new(program).args(arguments))
}

/// As [`output`], for a command with more to it.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| name.clone())?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.lines().collect();
        bail!(
            "{name}: {}\n{}",
            output.status,
            lines[lines.len().saturating_sub(20)..].join("\n")
        );
    }
    Ok(output.stdout)
}
