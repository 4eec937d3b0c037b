// SPDX-License-Identifier: GPL-2.0

//! What a lab boots: hypervisor, kernel and the two images, kept in the cache.

mod cache;
mod contents;
mod cpio;
mod kernel;
mod modules;
mod packages;
mod programs;

use std::{
    env,
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use cache::Key;

/// The files that a lab boots, in the cache: link or copy them, later makers may remove them.
pub(crate) struct Images {
    /// The hypervisor, for QEMU.
    pub(crate) xen: PathBuf,
    /// The kernel of Dom0.
    pub(crate) vmlinux: PathBuf,
    /// The kernel of the guests.
    pub(crate) guest_vmlinux: PathBuf,
    /// Dom0's image.
    pub(crate) dom0: PathBuf,
    /// The guests' image.
    pub(crate) guest: PathBuf,
    /// What goes behind the guests' image.
    pub(crate) layer: Option<PathBuf>,
    /// Release of Dom0's kernel.
    pub(crate) release: String,
}

/// Finds or makes the files. `debug_kernel` is the build directory of the guests' kernel, if it is not that of Dom0.
///
/// # Errors
///
/// The toolbox lacks something, packages cannot be had, or the disk is full.
pub(crate) fn prepare(
    agent: &Path,
    packages: &[String],
    debug_kernel: Option<&Path>,
    note: &mut dyn FnMut(&str),
) -> Result<Images> {
    let release = kernel::release()?;
    let hypervisor = kernel::hypervisor()?;
    let mut key = Key::default();
    // This program is the recipe, and the package state stands for the toolbox's files.
    key.add_file(&env::current_exe()?)?;
    key.add_file(agent)?;
    key.add_file(Path::new("/var/lib/dpkg/status"))?;
    key.add(release.as_bytes());
    if let Some(directory) = debug_kernel {
        key.add(directory.as_os_str().as_encoded_bytes());
    }
    let images = cache::entry("images", key, |directory| {
        note("making the images of Dom0 and the guests");
        let create =
            |name: &str| -> Result<_> { Ok(BufWriter::new(File::create(directory.join(name))?)) };
        contents::dom0(create("dom0.img")?, &release, agent)?;
        contents::guest(create("guest.img")?, &release, debug_kernel, agent)?;
        fs::write(directory.join("vmlinux"), kernel::vmlinux(&release)?)?;
        let packed = fs::read(&hypervisor).with_context(|| hypervisor.display().to_string())?;
        Ok(fs::write(directory.join("xen"), kernel::unpack(&packed)?)?)
    })?;
    let layer = match packages {
        [] => None,
        packages => Some(packages::layer(packages, note)?),
    };
    Ok(Images {
        xen: images.join("xen"),
        vmlinux: images.join("vmlinux"),
        guest_vmlinux: debug_kernel.unwrap_or(&images).join("vmlinux"),
        dom0: images.join("dom0.img"),
        guest: images.join("guest.img"),
        layer,
        release,
    })
}

/// Makes `target` the same file as `source`, or a copy of it.
///
/// # Errors
///
/// Those of the file system.
pub(crate) fn place(source: &Path, target: &Path) -> Result<()> {
    if fs::hard_link(source, target).is_err() {
        fs::copy(source, target).with_context(|| target.display().to_string())?;
    }
    Ok(())
}

/// Writes Dom0's initramfs of a lab: Dom0's image and, in it, the guests' kernel and image. Returns
/// the sizes of those two in bytes.
///
/// # Errors
///
/// Those of the file system.
pub(crate) fn initramfs(images: &Images, target: &Path) -> Result<[u64; 2]> {
    let mut out = File::create(target).with_context(|| target.display().to_string())?;
    io::copy(&mut File::open(&images.dom0)?, &mut out)?;
    let layers: Vec<&Path> = std::iter::once(&images.guest)
        .chain(&images.layer)
        .map(PathBuf::as_path)
        .collect();
    contents::guest_files(BufWriter::new(out), &images.guest_vmlinux, &layers)?;
    let sizes = layers.iter().map(|layer| Ok(fs::metadata(layer)?.len()));
    let image = sizes.sum::<Result<u64>>()?;
    Ok([fs::metadata(&images.guest_vmlinux)?.len(), image])
}
