// SPDX-License-Identifier: GPL-2.0

//! Archives in the kernel's initramfs format ("newc").
//!
//! Several archives one after the other are one initramfs; of a path that occurs twice, the later
//! file wins.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

const DIRECTORY: u32 = 0o040000;
const REGULAR: u32 = 0o100000;
const SYMLINK: u32 = 0o120000;
const CHARACTER: u32 = 0o020000;

/// The directories that are symbolic links into `usr` on the systems whose files we take.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// An archive on its way to `out`. Everything belongs to root.
pub(crate) struct Archive<W> {
    out: W,
    inode: u32,
    written: u64,
    directories: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            inode: 0,
            written: 0,
            directories: BTreeSet::new(),
        }
    }

    /// Makes a directory and those above it.
    pub(crate) fn directory(&mut self, path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
        let path = place(path.as_ref());
        self.parents(&path)?;
        if self.directories.insert(path.clone()) {
            self.entry(&path, DIRECTORY | mode, (0, 0), &[])?;
        }
        Ok(())
    }

    pub(crate) fn file(
        &mut self,
        path: impl AsRef<Path>,
        mode: u32,
        data: &[u8],
    ) -> io::Result<()> {
        let path = place(path.as_ref());
        self.parents(&path)?;
        self.entry(&path, REGULAR | mode, (0, 0), data)
    }

    pub(crate) fn symlink(&mut self, path: impl AsRef<Path>, target: &str) -> io::Result<()> {
        let path = place(path.as_ref());
        self.parents(&path)?;
        self.entry(&path, SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    pub(crate) fn device(
        &mut self,
        path: impl AsRef<Path>,
        major: u32,
        minor: u32,
    ) -> io::Result<()> {
        let path = place(path.as_ref());
        self.parents(&path)?;
        self.entry(&path, CHARACTER | 0o600, (major, minor), &[])
    }

    /// Makes the links of a merged `/usr`, as every archive's paths expect them.
    pub(crate) fn merged_usr(&mut self) -> io::Result<()> {
        for name in MERGED {
            self.directory(format!("usr/{name}"), 0o755)?;
            self.entry(
                Path::new(name),
                SYMLINK | 0o777,
                (0, 0),
                format!("usr/{name}").as_bytes(),
            )?;
        }
        Ok(())
    }

    /// Ends the archive, padded so that another may follow, and gives back what it was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry(Path::new("TRAILER!!!"), 0, (0, 0), &[])?;
        self.pad(512)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parents(&mut self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if parent != Path::new("") => self.directory(parent, 0o755),
            _ => Ok(()),
        }
    }

    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        let name = path.as_os_str().as_encoded_bytes();
        let size = u32::try_from(data.len())
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, path.display().to_string()))?;
        self.inode += 1;
        let links = if mode & DIRECTORY != 0 && mode & REGULAR == 0 {
            2
        } else {
            1
        };
        let fields = [
            self.inode,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0,
        ];
        let mut head = String::from("070701");
        for field in fields {
            head += &format!("{field:08X}");
        }
        self.write(head.as_bytes())?;
        self.write(name)?;
        self.write(&[0])?;
        self.pad(4)?;
        self.write(data)?;
        self.pad(4)
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.written += data.len() as u64;
        self.out.write_all(data)
    }

    fn pad(&mut self, to: u64) -> io::Result<()> {
        let missing = self.written.next_multiple_of(to) - self.written;
        self.write(&[0; 512][..missing as usize])
    }
}

/// Where a path goes in a merged `/usr`, without the leading slash.
fn place(path: &Path) -> PathBuf {
    let mut parts = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .peekable();
    let merged = parts
        .peek()
        .is_some_and(|first| MERGED.iter().any(|name| first.as_os_str() == *name));
    let rest = parts.collect::<PathBuf>();
    if merged {
        Path::new("usr").join(rest)
    } else {
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_merged() {
        assert_eq!(place(Path::new("/lib/x/y")), Path::new("usr/lib/x/y"));
        assert_eq!(place(Path::new("./sbin/init")), Path::new("usr/sbin/init"));
        assert_eq!(place(Path::new("/etc/lib")), Path::new("etc/lib"));
    }

    #[test]
    fn archive_is_aligned_and_ends() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b", 0o644, b"12345").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        assert!(bytes.starts_with(b"070701"));
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
