// SPDX-License-Identifier: GPL-2.0

//! Files to and from the machine.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, bail};
use lab_agent::wire::{self, CHUNK, Kind, Outcome};

/// Makes the temporary names of this process differ.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Receives a file. It appears under its name only when it is complete.
///
/// # Errors
///
/// Those of the file system, and of a client that goes away.
pub(crate) fn push(client: &mut TcpStream, path: &Path, mode: u32) -> Result<()> {
    let directory = path.parent().context("a path to a file is needed")?;
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    // Relaxed: only uniqueness is asked for.
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let partial = directory.join(format!(".lab-{}-{serial}", std::process::id()));
    let written = receive(client, &partial, mode)
        .and_then(|()| fs::rename(&partial, path).with_context(|| path.display().to_string()));
    if let Err(error) = written {
        let _ = fs::remove_file(&partial);
        drain(client);
        return Err(error);
    }
    Ok(wire::send_json(client, Kind::Done, &Outcome::default())?)
}

fn receive(client: &mut TcpStream, partial: &Path, mode: u32) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode & 0o7777)
        .open(partial)
        .with_context(|| partial.display().to_string())?;
    loop {
        let frame = wire::receive(client)?;
        match frame.kind {
            Kind::Input => file.write_all(&frame.data).context("write")?,
            Kind::InputEnd => break,
            other => bail!("input was expected, not {other:?}"),
        }
    }
    Ok(file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?)
}

/// Takes the rest of the input, so that closing does not reset the connection under our answer.
fn drain(client: &mut TcpStream) {
    while let Ok(frame) = wire::receive(client) {
        if frame.kind == Kind::InputEnd {
            break;
        }
    }
}

/// Sends a file.
///
/// # Errors
///
/// Those of the file system, and of a client that goes away.
pub(crate) fn pull(client: &mut TcpStream, path: &Path) -> Result<()> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        bail!("{}: is a directory", path.display());
    }
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => wire::send(client, Kind::Output, &buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
    let outcome = Outcome {
        mode: metadata.mode() & 0o7777,
        ..Outcome::default()
    };
    Ok(wire::send_json(client, Kind::Done, &outcome)?)
}
