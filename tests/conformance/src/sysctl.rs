// SPDX-License-Identifier: GPL-2.0

//! A setting of the network that a case changes for all sockets of its machine.

use std::{
    fs::{self, File},
    path::PathBuf,
};

use nix::fcntl::{Flock, FlockArg};

/// Has a value until it is dropped. Cases that set the same one wait for each other.
pub(crate) struct Sysctl {
    path: PathBuf,
    before: String,
    // Given back when the value is what it was.
    _lock: Flock<File>,
}

impl Sysctl {
    /// Sets one of IPv4.
    pub(crate) fn set(name: &str, value: &str) -> Self {
        let path = PathBuf::from(format!("/proc/sys/net/ipv4/{name}"));
        let file = File::create(format!("/tmp/conformance-{name}")).expect("a file");
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
        let lock = lock.expect("flock");
        let before = fs::read_to_string(&path).expect("a setting");
        fs::write(&path, value).expect("a setting that can be set");
        Self {
            path,
            before,
            _lock: lock,
        }
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, self.before.trim());
    }
}
