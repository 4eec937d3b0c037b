// SPDX-License-Identifier: GPL-2.0

//! Debian packages as a layer over the guests' image.

use std::{
    fs::{self, File},
    io::BufWriter,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    cache::{self, Key},
    cpio::Archive,
};
use crate::tool;

/// What a running machine does not read.
const LEFT_OUT: [&str; 6] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/bug",
];

/// The archive with these packages and all that they depend on; made when it is not in the cache.
///
/// No maintainer script runs: what a package would configure when it is installed, its user does.
///
/// # Errors
///
/// A package does not exist or cannot be fetched.
pub(super) fn layer(packages: &[String], note: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let mut packages = packages.to_vec();
    packages.sort();
    packages.dedup();
    if let Some(name) = packages.iter().find(|name| !is_package_name(name)) {
        bail!("{name:?} is not the name of a package");
    }
    let mut key = Key::default();
    key.add(include_bytes!("packages.rs"));
    key.add_file(Path::new("/var/lib/dpkg/status"))?;
    packages.iter().for_each(|name| key.add(name.as_bytes()));
    let entry = cache::entry("packages", key, |directory| {
        note(&format!(
            "fetching {} and all that is needed for it",
            packages.join(", ")
        ));
        let archives = directory.join("archives");
        fs::create_dir_all(archives.join("partial"))?;
        if download(&archives, &packages).is_err() {
            note("fetching the list of packages");
            tool::run(Command::new("apt-get").arg("update"))?;
            download(&archives, &packages)?;
        }
        let root = directory.join("root");
        fs::create_dir(&root)?;
        let debs = debs(&archives)?;
        note(&format!("unpacking {} packages", debs.len()));
        for deb in debs {
            tool::output(
                "dpkg-deb",
                &["-x".as_ref(), deb.as_os_str(), root.as_os_str()],
            )?;
        }
        let mut archive = Archive::new(BufWriter::new(File::create(directory.join("layer.cpio"))?));
        add_tree(&mut archive, &root, Path::new(""))?;
        archive.finish()?;
        fs::remove_dir_all(&archives)?;
        Ok(fs::remove_dir_all(&root)?)
    })?;
    Ok(entry.join("layer.cpio"))
}

fn is_package_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.:".contains(c))
}

fn download(archives: &Path, packages: &[String]) -> Result<()> {
    // With an empty status nothing counts as installed: the whole closure is fetched.
    let mut command = Command::new("apt-get");
    command
        .args(["-q", "-y", "--no-install-recommends", "--download-only"])
        .args([
            "-o",
            "Dir::State::status=/dev/null",
            "-o",
            "Debug::NoLocking=true",
        ])
        .args(["-o", "APT::Sandbox::User=root"])
        .arg("-o")
        .arg(format!("Dir::Cache::archives={}", archives.display()))
        .arg("install")
        .args(packages);
    tool::run(&mut command).map(drop)
}

fn debs(archives: &Path) -> Result<Vec<PathBuf>> {
    let mut debs = Vec::new();
    for entry in fs::read_dir(archives)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            debs.push(path);
        }
    }
    debs.sort();
    Ok(debs)
}

fn add_tree(archive: &mut Archive<impl std::io::Write>, root: &Path, below: &Path) -> Result<()> {
    let mut entries = fs::read_dir(root.join(below))?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = below.join(entry.file_name());
        if LEFT_OUT.iter().any(|left_out| path == Path::new(left_out)) {
            continue;
        }
        let metadata = entry.metadata()?;
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            archive.directory(&path, mode)?;
            add_tree(archive, root, &path)?;
        } else if metadata.is_symlink() {
            let target = fs::read_link(entry.path())?;
            archive.symlink(
                &path,
                target.to_str().context("a link's target is not text")?,
            )?;
        } else if metadata.is_file() {
            let data = fs::read(entry.path()).with_context(|| path.display().to_string())?;
            archive.file(&path, mode, &data)?;
        }
    }
    Ok(())
}
