// SPDX-License-Identifier: GPL-2.0

//! The emulator: a machine that can run Xen without the host's help.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use lab_agent::wire::PORT;

use crate::options::{GuestType, Options};

/// Memory of the hypervisor itself, in MiB.
const XEN_MEMORY: u64 = 160;

/// Memory of each guest beside its own: page tables, shadow pool, grant tables; in MiB.
const GUEST_OVERHEAD: u64 = 24;

/// Processor for PV guests. Without ERMS and FSRM, as their `rep movsb` is slow when emulated.
const PV_CPU: &str = "Westmere,+fsgsbase";

/// Processor for PVH guests: SVM with nested paging, and without what TCG only half has.
const PVH_CPU: &str = "EPYC-Rome,+svm,+npt,+fsgsbase,-erms,-fsrm,-pcid,-monitor,-nrip-save";

/// Xen's command line, without what depends on the lab. Without `noreboot`: when Xen or Dom0
/// panics, the emulator ends.
///
/// Dom0 alone has the first CPU. Whenever any CPU restores its FPU registers the emulator (10.0 to 11.1) clears a flag in that
/// one's `hflags2`, without a lock (`cpu_clear_ignne`), and undoes what the first CPU itself changes there at that moment:
/// whether it runs a guest with nested paging, and takes interrupts. Paravirtual guests, and so Dom0, need neither.
const XEN_ARGUMENTS: &str = "dom0_max_vcpus=1 dom0_vcpus_pin console=com1 com1=115200,8n1 spec-ctrl=no,eager-fpu xpti=no \
     loglvl=info guest_loglvl=info conring_size=1M";

/// Dom0's kernel command line. Its files are the guests' image, above all.
const DOM0_ARGUMENTS: &str =
    "console=hvc0 loglevel=5 mitigations=off panic=-1 initramfs_options=size=90%";

/// Memory sizes of a lab, in MiB.
pub(crate) struct Memory {
    /// Dom0's.
    pub(crate) dom0: u64,
    /// Each guest's.
    pub(crate) guest: u64,
}

/// Starts the emulator in the lab's directory, in a session of its own, so that no signal for us
/// reaches it.
///
/// # Errors
///
/// It cannot be started.
pub(crate) fn start(
    directory: &Path,
    options: &Options,
    memory: &Memory,
    port: u16,
) -> Result<Child> {
    let total =
        XEN_MEMORY + memory.dom0 + u64::from(options.room()) * (memory.guest + GUEST_OVERHEAD);
    let cpu = match options.kind {
        GuestType::Pvh => PVH_CPU,
        GuestType::Pv => PV_CPU,
    };
    let output = File::create(directory.join("qemu.log"))?;
    // The console of an earlier lab must not be taken for this one's.
    fs::write(directory.join("console.log"), b"")?;
    Command::new("setsid")
        .arg("qemu-system-x86_64")
        .args([
            "-name",
            "xenvmc-lab",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args(["-accel", "tcg,thread=multi", "-cpu", cpu])
        .args(["-smp", &options.smp.to_string(), "-m", &format!("{total}M")])
        // Relative names: the emulator takes a comma or a space for the end of a name.
        .args([
            "-kernel",
            "xen",
            "-initrd",
            &format!(
                "vmlinux {DOM0_ARGUMENTS} lab_host={},dom0.img",
                options.host()
            ),
        ])
        .args([
            "-append",
            &format!("dom0_mem={0}M,max:{0}M {XEN_ARGUMENTS}", memory.dom0),
        ])
        .args(["-serial", "file:console.log"])
        .arg("-netdev")
        .arg(format!(
            "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{PORT}"
        ))
        .args(["-device", "e1000,netdev=net0,romfile="])
        .args(links(options))
        .args(["-fsdev", "local,id=share,path=share,security_model=none"])
        .args([
            "-device",
            "virtio-9p-pci,fsdev=share,mount_tag=lab,iommu_platform=on,disable-legacy=on",
        ])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("qemu-system-x86_64")
}

/// What joins the networks of two labs: a network card of Dom0 for each, and a socket in the directory of the one that is open.
fn links(options: &Options) -> Vec<String> {
    let (role, place) = match &options.join {
        Some(lab) => ("off", format!("../{lab}/")),
        None if options.open => ("on", String::new()),
        None => return Vec::new(),
    };
    let host = options.host();
    let link = |number: u8| {
        [
            "-netdev".to_owned(),
            format!(
                "stream,id=link{number},server={role},addr.type=unix,addr.path={place}link{number}"
            ),
            "-device".to_owned(),
            format!(
                "virtio-net-pci,netdev=link{number},iommu_platform=on,disable-legacy=on,romfile=,mac=52:54:00:77:{host:02x}:{number:02x}"
            ),
        ]
    };
    (0..2).flat_map(link).collect()
}

/// A port of this host that is free now.
///
/// # Errors
///
/// There is none.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
