// SPDX-License-Identifier: GPL-2.0

//! What is known of a running lab, in `state.json` of its directory.

use std::{
    fs::{self, File},
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};
use serde::{Deserialize, Serialize};

use crate::options::Options;

/// Time that a killed emulator has to go.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// The name of the file.
const FILE: &str = "state.json";

/// A lab whose emulator was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// The emulator's process.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since the host's boot: its number may be used again.
    pub(crate) started: u64,
    /// The port of this host behind which Dom0's agent is.
    pub(crate) port: u16,
    /// Release of the kernel.
    pub(crate) release: String,
    /// Memory of each guest in MiB.
    pub(crate) memory: u64,
    /// Whether everything was up once.
    pub(crate) ready: bool,
    /// What was asked for.
    pub(crate) options: Options,
}

impl State {
    /// Reads it; none when there is no lab.
    ///
    /// # Errors
    ///
    /// The file cannot be read or understood.
    pub(crate) fn load(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        match fs::read(&path) {
            Ok(text) => Ok(Some(
                serde_json::from_slice(&text).with_context(|| path.display().to_string())?,
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub(crate) fn save(&self, directory: &Path) -> Result<()> {
        let partial = directory.join("state.partial");
        fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
        Ok(fs::rename(partial, directory.join(FILE))?)
    }

    /// Whether the emulator runs.
    pub(crate) fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Processor time that the emulator has used, in clock ticks (1/100 s); none when it is gone.
    pub(crate) fn cpu_ticks(&self) -> Option<u64> {
        Some(stat(self.pid, 14)? + stat(self.pid, 15)?)
    }

    /// Ends the emulator and waits until it is gone.
    ///
    /// # Errors
    ///
    /// It cannot be killed.
    pub(crate) fn kill(&self) -> Result<()> {
        let pid = Pid::from_raw(self.pid).context("no process")?;
        let start = Instant::now();
        while self.is_alive() {
            let _ = kill_process(pid, Signal::KILL);
            if start.elapsed() > KILL_TIMEOUT {
                bail!("process {} does not go", self.pid);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Forgets the lab of a directory, and what only a running one needs.
///
/// # Errors
///
/// Those of the file system.
pub(crate) fn forget(directory: &Path) -> Result<()> {
    for name in [FILE, "xen", "vmlinux", "dom0.img"] {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context(name);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Keeps others from making the lab of this directory as long as the file lives.
///
/// # Errors
///
/// Somebody is making it.
pub(crate) fn lock(directory: &Path) -> Result<File> {
    let file = File::create(directory.join("lock"))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .ok()
        .context("somebody else is just making this lab")?;
    Ok(file)
}

/// When a process started, in clock ticks since boot; none when there is no such process.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    stat(pid, 22)
}

/// The number in a field of `/proc/PID/stat` (proc_pid_stat(5)) behind the third; none when there is no such process.
fn stat(pid: i32, field: usize) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything; field 3, the state, follows it.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(field - 3)?.parse().ok()
}
