// SPDX-License-Identifier: GPL-2.0

//! What is in Dom0's image and in the guests'.

use std::{fs, io::Write, path::Path};

use anyhow::{Context, Result};

use super::{cpio::Archive, modules, programs};

/// Modules of Dom0 beside those that they need.
const DOM0_MODULES: [&str; 18] = [
    "xenfs",
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "xen-netback",
    "bridge",
    "e1000",
    "virtio_net",
    "9pnet_virtio",
    "9p",
    "tcp_diag",
    "inet_diag",
    "nf_conntrack_bridge",
    "nft_ct",
    "nft_meta_bridge",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
];

/// Programs of Dom0 beside busybox and the agent. The library is one that threads load at exit.
const DOM0_PROGRAMS: [&str; 28] = [
    "dash",
    "xl",
    "xenstored",
    "xenconsoled",
    "xenconsole",
    "xen-init-dom0",
    "libxl-save-helper",
    "convert-legacy-stream",
    "lsevtchn",
    "xentop",
    "xenpm",
    "xenstore-ls",
    "xenstore-read",
    "xenstore-write",
    "xenstore-rm",
    "xenstore-chmod",
    "xenstore-control",
    "xenstore-exists",
    "xenstore-list",
    "xenstore-watch",
    "ip",
    "ss",
    "bridge",
    "tc",
    "nft",
    "netperf",
    "socat",
    "libgcc_s.so.1",
];

/// Modules of a guest.
const GUEST_MODULES: [&str; 19] = [
    "xen-netfront",
    "xenfs",
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "tcp_diag",
    "udp_diag",
    "unix_diag",
    "af_packet_diag",
    "sch_netem",
    "tls",
    "kcm",
    "dummy",
    "veth",
    "vrf",
    "nft_ct",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
];

/// Programs of a guest.
const GUEST_PROGRAMS: [&str; 15] = [
    "dash",
    "ip",
    "ss",
    "tc",
    "nft",
    "netperf",
    "netserver",
    "xenstore-ls",
    "xenstore-read",
    "xenstore-write",
    "xenstore-rm",
    "xenstore-exists",
    "xenstore-list",
    "xenstore-watch",
    "libgcc_s.so.1",
];

/// Writes Dom0's image.
///
/// # Errors
///
/// The toolbox lacks something, or `out` fails.
pub(super) fn dom0(out: impl Write, release: &str, agent: &Path) -> Result<()> {
    let mut archive = Archive::new(out);
    base(&mut archive, agent, include_bytes!("files/dom0-boot"))?;
    archive.file(
        "/etc/xen/scripts/vif-lab",
        0o755,
        include_bytes!("files/vif-lab"),
    )?;
    archive.file("/etc/xen/xl.conf", 0o644, b"autoballoon=\"off\"\n")?;
    for directory in [
        "/boot",
        "/lab",
        "/var/lib/xen",
        "/var/lib/xenstored",
        "/var/log/xen",
    ] {
        archive.directory(directory, 0o755)?;
    }
    programs::add(&mut archive, &DOM0_PROGRAMS)?;
    modules::add(&mut archive, release, &DOM0_MODULES)?;
    archive.finish()?;
    Ok(())
}

/// Writes the guests' image, packages apart, for the toolbox' kernel or for that of another build directory, which has
/// everything built in.
///
/// # Errors
///
/// As for [`dom0`].
pub(super) fn guest(
    out: impl Write,
    release: &str,
    debug_kernel: Option<&Path>,
    agent: &Path,
) -> Result<()> {
    let mut archive = Archive::new(out);
    base(&mut archive, agent, include_bytes!("files/guest-boot"))?;
    programs::add(&mut archive, &GUEST_PROGRAMS)?;
    match debug_kernel {
        None => modules::add(&mut archive, release, &GUEST_MODULES)?,
        Some(directory) => modules::add_built_in(&mut archive, directory)?,
    }
    archive.finish()?;
    Ok(())
}

/// Writes what goes behind Dom0's image: the guests' kernel and image, so that Dom0 has them in
/// memory.
///
/// # Errors
///
/// Those of the file system.
pub(super) fn guest_files(out: impl Write, vmlinux: &Path, guest: &[&Path]) -> Result<()> {
    let mut archive = Archive::new(out);
    archive.file("/boot/vmlinux", 0o644, &fs::read(vmlinux)?)?;
    let layers = guest.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
    archive.file("/boot/guest.img", 0o644, &layers.concat())?;
    archive.finish()?;
    Ok(())
}

fn base<W: Write>(archive: &mut Archive<W>, agent: &Path, boot: &[u8]) -> Result<()> {
    archive.merged_usr()?;
    for directory in [
        "/proc",
        "/sys",
        "/dev",
        "/tmp",
        "/run",
        "/root",
        "/mnt",
        "/var/log",
        "/lib/xenvmc",
    ] {
        archive.directory(directory, 0o755)?;
    }
    archive.device("/dev/console", 5, 1)?;
    archive.symlink("/var/run", "/run")?;
    let busybox = ["/usr/bin/busybox", "/bin/busybox"]
        .iter()
        .find_map(|path| fs::read(path).ok())
        .context("the toolbox lacks busybox")?;
    archive.file("/bin/busybox", 0o755, &busybox)?;
    // Busybox' own shell would run its own commands even where there are real ones.
    archive.symlink("/bin/sh", "dash")?;
    archive.symlink("/init", "bin/init")?;
    archive.symlink("/bin/init", "busybox")?;
    let agent = fs::read(agent).with_context(|| agent.display().to_string())?;
    archive.file("/usr/sbin/lab-agent", 0o755, &agent)?;
    archive.file("/etc/boot", 0o755, boot)?;
    archive.file("/etc/inittab", 0o644, include_bytes!("files/inittab"))?;
    archive.file("/etc/hosts", 0o644, include_bytes!("files/hosts"))?;
    archive.file(
        "/etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    archive.file("/etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    archive.file(
        "/etc/nsswitch.conf",
        0o644,
        b"passwd: files\ngroup: files\nhosts: files\n",
    )?;
    for name in ["protocols", "services"] {
        if let Ok(data) = fs::read(Path::new("/etc").join(name)) {
            archive.file(Path::new("/etc").join(name), 0o644, &data)?;
        }
    }
    Ok(())
}
