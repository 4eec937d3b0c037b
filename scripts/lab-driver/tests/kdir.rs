// SPDX-License-Identifier: GPL-2.0

//! What scripts/check-kdir and scripts/prepare-kdir say of build directories of kernels, and systems, that lack something.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// The compiler that the kernels were built with.
const RUSTC: &str = "rustc 1.85.0 (4d91de4e4 2025-02-17)";

/// What the scripts themselves need of a system.
const SYSTEM: [&str; 6] = ["cat", "cut", "dirname", "grep", "readlink", "sed"];

/// What a build needs besides the compiler.
const TOOLS: [&str; 4] = ["bindgen", "make", "gcc", "ld"];

/// A build directory, and a system with a few programs.
struct Fake {
    directory: TempDir,
}

impl Fake {
    /// Those of a kernel with this configuration, with all programs, and without metadata.
    fn new(config: &str) -> Self {
        let fake = Self {
            directory: TempDir::new().unwrap(),
        };
        fs::create_dir_all(fake.path("kdir/include/config")).unwrap();
        fs::create_dir_all(fake.path("kdir/rust")).unwrap();
        fs::create_dir(fake.path("bin")).unwrap();
        fs::write(fake.path("kdir/include/config/auto.conf"), config).unwrap();
        for name in SYSTEM {
            let places = ["/bin", "/usr/bin"].map(|place| Path::new(place).join(name));
            let place = places.iter().find(|place| place.exists()).unwrap();
            symlink(place, fake.path("bin").join(name)).unwrap();
        }
        for name in TOOLS {
            fake.install(name, "exit 1");
        }
        fake.install("rustc", &format!("echo '{RUSTC}'"));
        fake
    }

    /// Those of a kernel with Rust.
    fn with_rust(more: &str) -> Self {
        Self::new(&format!(
            "CONFIG_RUST=y\nCONFIG_RUSTC_VERSION_TEXT=\"{RUSTC}\"\n{more}"
        ))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A program that does this.
    fn install(&self, name: &str, line: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// The status of a script, and what it says.
    fn run(&self, script: &str) -> (i32, String) {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let output = Command::new(scripts.join(script))
            .arg(self.path("kdir"))
            .env_clear()
            .env("PATH", self.path("bin"))
            .output()
            .unwrap();
        assert!(output.stdout.is_empty());
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    /// Fails unless check-kdir refuses with these words.
    fn refuses(&self, words: &[&str]) {
        self.refuses_in("check-kdir", words);
    }

    /// The same of a script.
    fn refuses_in(&self, script: &str, words: &[&str]) {
        let (status, said) = self.run(script);
        assert_eq!(status, 1, "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in {said:?}");
        }
    }
}

#[test]
fn no_directory() {
    let fake = Fake::with_rust("");
    fs::remove_dir_all(fake.path("kdir")).unwrap();
    fake.refuses(&["There is no directory", "linux-headers-"]);
}

#[test]
fn not_configured() {
    let fake = Fake::with_rust("");
    fake.remove("kdir/include/config/auto.conf");
    fake.refuses(&["is not the build directory of a configured kernel"]);
}

#[test]
fn no_rust() {
    let fake = Fake::new("CONFIG_64BIT=y\n");
    fake.refuses(&["was built without CONFIG_RUST", "trixie-backports"]);
}

#[test]
fn no_compiler() {
    let fake = Fake::with_rust("");
    fake.remove("bin/rustc");
    fake.refuses(&[RUSTC, "no rustc is installed", "apt-get install rustc"]);
}

#[test]
fn another_compiler() {
    let fake = Fake::with_rust("");
    let other = "rustc 1.90.0 (1159e78c4 2025-09-14)";
    fake.install("rustc", &format!("echo '{other}'"));
    let kernel = format!("kernel: {RUSTC}");
    let found = format!("found:  {other}");
    fake.refuses(&["another Rust compiler", &kernel, &found, "RUSTC="]);
}

#[test]
fn no_tool() {
    for name in TOOLS {
        let fake = Fake::with_rust("");
        fake.remove(&format!("bin/{name}"));
        fake.refuses(&[&format!("{name} is not installed")]);
    }
    let fake = Fake::with_rust("CONFIG_CC_IS_CLANG=y\n");
    fake.refuses(&["clang is not installed"]);
}

/// Which prepare-kdir mends, so that it is the caller who says something.
#[test]
fn no_metadata() {
    let fake = Fake::with_rust("");
    assert_eq!(fake.run("check-kdir"), (3, String::new()));
    for name in ["libkernel.rmeta", "libcore.rmeta"] {
        fs::write(fake.path("kdir/rust").join(name), "").unwrap();
    }
    assert_eq!(fake.run("check-kdir"), (0, String::new()));
}

/// All at once.
#[test]
fn nothing_to_prepare_with() {
    let fake = Fake::with_rust("CONFIG_DEBUG_INFO_BTF=y\nCONFIG_MODULE_SIG_FORMAT=y\n");
    fs::write(
        fake.path("kdir/include/config/kernel.release"),
        "7.2.12-test",
    )
    .unwrap();
    let packages =
        "apt-get install bc bison flex dwarves libelf-dev libssl-dev xz-utils rust-src\n";
    fake.refuses_in("prepare-kdir", &[packages, "SOURCE="]);
}
