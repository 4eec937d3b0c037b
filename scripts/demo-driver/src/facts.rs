// SPDX-License-Identifier: GPL-2.0

//! Versions of everything that takes part, and what the lab and its host are like.

use std::{env, fs, process::Command, thread, time::SystemTime};

use anyhow::{Context, Result};
use lab_driver::{Lab, Machine};

use crate::{
    netperf,
    results::{LabFacts, Versions},
    snapshot::CLIENT,
};

/// The variable in which `scripts/demo` says what the commit is.
const COMMIT: &str = "XENVMC_COMMIT";

/// The variable in which it says when it began, in seconds since 1970.
const BEGIN: &str = "XENVMC_BEGIN";

/// Asks everybody for their version.
///
/// # Errors
///
/// Somebody does not say.
pub fn versions(lab: &Lab) -> Result<Versions> {
    let info = lab.exec(Machine::Dom0, &["xl", "info"])?.text();
    let qemu = Command::new("qemu-system-x86_64")
        .arg("--version")
        .output()
        .context("qemu-system-x86_64")?;
    Ok(Versions {
        commit: env::var(COMMIT).unwrap_or_else(|_| "unknown".to_owned()),
        kernel: lab.kernel_release().to_owned(),
        xen: field(&info, "xen_version").context("xl info names no xen_version")?,
        qemu: qemu_version(&String::from_utf8_lossy(&qemu.stdout)),
        netperf: netperf::version(lab, CLIENT)?,
    })
}

/// How long ago `scripts/demo` began, if it did.
pub fn seconds_since_begin() -> Option<u64> {
    let begin = env::var(BEGIN).ok()?.parse().ok()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.ok()?.as_secs().checked_sub(begin)
}

/// What the lab and its host are like.
pub fn lab(lab: &Lab) -> LabFacts {
    let options = lab.options();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    LabFacts {
        guest_type: options.kind.name().to_owned(),
        vcpus: options.vcpus,
        memory_mib: lab.guest_memory(),
        emulated_cpus: options.smp,
        host_cpus: thread::available_parallelism().map_or(0, usize::from),
        host_cpu: field(&cpus, "model name").unwrap_or_else(|| "unknown".to_owned()),
    }
}

/// The value in the first line `NAME : VALUE`.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    })
}

/// The word after "version".
fn qemu_version(text: &str) -> String {
    let mut words = text.split_whitespace();
    words.find(|word| *word == "version");
    words.next().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found() {
        assert_eq!(
            field("a : 1\nxen_version            : 4.20.0\n", "xen_version").unwrap(),
            "4.20.0"
        );
        assert_eq!(
            qemu_version("QEMU emulator version 10.0.3 (Debian 1)\nCopyright"),
            "10.0.3"
        );
    }
}
