// SPDX-License-Identifier: GPL-2.0

//! Ctrl-C and its like: once caught, everything in this crate that waits ends with an error.

use std::{
    io,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Result, bail};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

static PENDING: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(false)));

/// Catches SIGINT, SIGTERM and SIGHUP from now on.
///
/// # Errors
///
/// Those of `sigaction(2)`.
pub fn catch() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, Arc::clone(&PENDING))?;
    }
    Ok(())
}

/// Whether a signal came since [`catch`].
pub fn pending() -> bool {
    // Relaxed: nothing else is handed over with the flag.
    PENDING.load(Ordering::Relaxed)
}

/// Fails when a signal came.
///
/// # Errors
///
/// A signal came.
pub fn check() -> Result<()> {
    if pending() {
        bail!("interrupted");
    }
    Ok(())
}
