// SPDX-License-Identifier: GPL-2.0

//! The toolbox's kernel and hypervisor, unpacked: what the host does once need not be emulated at
//! each boot.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

/// The release of the newest kernel in the toolbox.
///
/// # Errors
///
/// There is none.
pub(crate) fn release() -> Result<String> {
    let mut releases: Vec<String> = newest("/boot", "vmlinuz-", "")?
        .into_iter()
        .filter_map(|path| {
            Some(
                path.file_name()?
                    .to_str()?
                    .strip_prefix("vmlinuz-")?
                    .to_owned(),
            )
        })
        .collect();
    releases.pop().context("the toolbox has no kernel in /boot")
}

/// The path of the newest hypervisor in the toolbox.
///
/// # Errors
///
/// There is none.
pub(crate) fn hypervisor() -> Result<PathBuf> {
    newest("/boot", "xen-", ".gz")?
        .pop()
        .context("the toolbox has no hypervisor in /boot")
}

/// Files of a directory, by version, the newest last.
fn newest(directory: &str, prefix: &str, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if name.starts_with(prefix) && name.ends_with(suffix) {
            paths.push(path);
        }
    }
    paths.sort_by_key(|path| version(&path.to_string_lossy()));
    Ok(paths)
}

/// The numbers in a name, for comparing.
fn version(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// The ELF image inside a kernel's bzImage.
///
/// # Errors
///
/// The file is not a bzImage, or packed in a way that is not known.
pub(crate) fn vmlinux(release: &str) -> Result<Vec<u8>> {
    let path = Path::new("/boot").join(format!("vmlinuz-{release}"));
    let image = fs::read(&path).with_context(|| path.display().to_string())?;
    // Offsets of the x86 boot protocol's setup header.
    if image.get(0x202..0x206) != Some(b"HdrS") {
        bail!("{}: not a bzImage", path.display());
    }
    let word = |at: usize| -> Result<usize> {
        let bytes = image.get(at..at + 4).context("short kernel image")?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    let start = (usize::from(image[0x1f1]) + 1) * 512 + word(0x248)?;
    // The payload ends with its unpacked size, four bytes.
    let end = start + word(0x24c)?.checked_sub(4).context("empty payload")?;
    unpack(image.get(start..end).context("short kernel image")?)
}

/// Unpacks by the magic number.
///
/// # Errors
///
/// An unknown format, or damaged data.
pub(crate) fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let program = match packed.get(..4).unwrap_or_default() {
        [0x28, 0xb5, 0x2f, 0xfd] => "zstd",
        [0xfd, b'7', b'z', b'X'] => "xz",
        [0x1f, 0x8b, ..] => "gzip",
        [0x7f, b'E', b'L', b'F'] => return Ok(packed.to_vec()),
        other => bail!("packed in an unknown way: {other:02x?}"),
    };
    let mut child = Command::new(program)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(program)?;
    let mut input = child.stdin.take().context("stdin")?;
    let output = thread::scope(|scope| {
        scope.spawn(move || input.write_all(packed));
        child.wait_with_output()
    })?;
    if !output.status.success() {
        bail!("{program}: {}", output.status);
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("vmlinuz-7.10.1+deb13-amd64") > version("vmlinuz-7.2.12+deb13-amd64"));
    }
}
