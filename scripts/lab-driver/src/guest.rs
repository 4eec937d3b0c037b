// SPDX-License-Identifier: GPL-2.0

//! A guest's configuration.

use crate::{
    machine::Machine,
    options::{GuestType, Options},
};

/// A guest's kernel command line, without its number. The console gets warnings only until the
/// guest's boot script turns it up, as emulated consoles are slow.
const KERNEL_ARGUMENTS: &str = "console=hvc0 loglevel=5 mitigations=off oops=panic panic=-1 \
     initramfs_options=size=90%";

/// More for the debug kernel: each bad access is reported, not only the first one.
const DEBUG_ARGUMENTS: &str = "kasan_multi_shot";

/// What `xl create` reads. The first interface is on the network under test, the second one on
/// that of the agents.
pub(crate) fn configuration(number: u8, options: &Options, memory: u64) -> String {
    let name = Machine::Guest(number);
    let kind = options.kind.name();
    let (vcpus, last) = (options.vcpus, options.smp - 1);
    let more = if options.debug_kernel {
        DEBUG_ARGUMENTS
    } else {
        ""
    };
    // Without it each rdtscp traps, which ends in Xen's decoder under emulation.
    let time = match options.kind {
        GuestType::Pvh => "tsc_mode = \"native\"\n",
        GuestType::Pv => "",
    };
    format!(
        "name = \"{name}\"\n\
         type = \"{kind}\"\n\
         kernel = \"/boot/vmlinux\"\n\
         ramdisk = \"/boot/guest.img\"\n\
         cmdline = \"{KERNEL_ARGUMENTS} {more} lab_guest={number}\"\n\
         memory = {memory}\n\
         vcpus = {vcpus}\n\
         cpus = \"1-{last}\"\n\
         {time}\
         vif = [ \"mac=00:16:3e:77:00:{number:02x},bridge=xenbr0,script=vif-lab\", \
         \"mac=00:16:3e:78:00:{number:02x},bridge=xenbr1,script=vif-lab\" ]\n\
         on_crash = \"preserve\"\n"
    )
}
