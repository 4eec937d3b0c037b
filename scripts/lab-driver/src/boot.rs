// SPDX-License-Identifier: GPL-2.0

//! From nothing to a lab whose machines answer.

use std::{
    fs::{self, OpenOptions},
    io,
    path::Path,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lab_agent::wire::Request;

use crate::{
    checkout::Checkout,
    client, debug, guest, image, interrupt,
    lab::Lab,
    machine::Machine,
    options::Options,
    progress::Progress,
    qemu::{self, Memory},
    scan,
    state::{self, State},
    tool,
};

/// Least memory of a guest when nobody says otherwise, in MiB.
const GUEST_MEMORY: u64 = 512;

/// The same with the debug kernel, which keeps a byte for every eight and what it knows about each of its objects.
const DEBUG_GUEST_MEMORY: u64 = 768;

/// Dom0's memory without the guests' kernel and image, in MiB.
const DOM0_MEMORY: u64 = 520;

/// Time in which Dom0 must have come up.
const DOM0_TIMEOUT: Duration = Duration::from_secs(240);

/// Time in which a guest must have come up, after its creation.
const GUEST_TIMEOUT: Duration = Duration::from_secs(240);

/// The same with the debug kernel.
const DEBUG_GUEST_TIMEOUT: Duration = Duration::from_secs(900);

/// Time in which a guest must have been created.
const CREATE_TIMEOUT: Duration = Duration::from_secs(240);

/// Time for one attempt to reach an agent.
const PING_TIMEOUT: Duration = Duration::from_secs(8);

/// How often we look how far a machine is.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// How often we look whether a booting machine has died.
const CHECK_PERIOD: Duration = Duration::from_secs(3);

/// The last thing that Dom0's boot script says.
const BOOTED: &str = "lab: Dom0 is up";

/// Attempts to find a port that nobody else takes before the emulator does.
const PORT_ATTEMPTS: u32 = 5;

/// The module for Dom0.
const BACKEND: &str = "xenvmc_backend.ko";

/// The module for the guests.
const FRONTEND: &str = "xenvmc_frontend.ko";

/// Where the modules are in the machines.
const MODULES: &str = "/lib/xenvmc";

/// See [`Lab::up`].
pub(crate) fn up(name: &str, options: &Options, progress: &mut Progress) -> Result<Lab> {
    let mut options = options.clone();
    if options.join.is_some() {
        options.guests = 0;
    }
    let options = &options;
    let checkout = Checkout::find()?;
    let directory = checkout.lab(name)?;
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let _lock = state::lock(&directory)?;
    if State::load(&directory)?.is_some_and(|state| state.is_alive()) {
        bail!("lab {name} is up: \"scripts/lab down\" ends it");
    }
    let log = directory.join("up.log");
    progress.log_to(
        OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&log)?,
    );
    let result = make(name, &checkout, &directory, options, progress);
    if let Err(error) = &result {
        progress.record(&format!("failed: {error:#}"));
        if let Some(state) = State::load(&directory)? {
            state.kill()?;
            state::forget(&directory)?;
        }
        progress.say(&format!(
            "failed; logs: {}, {}",
            log.display(),
            directory.join("console.log").display()
        ));
    }
    result
}

fn make(
    name: &str,
    checkout: &Checkout,
    directory: &Path,
    options: &Options,
    progress: &mut Progress,
) -> Result<Lab> {
    progress.say("1/5 images");
    let debug_kernel = match options.debug_kernel {
        true => Some(debug::prepare(checkout)?),
        false => None,
    };
    let images = image::prepare(
        &checkout.agent(),
        &options.packages,
        debug_kernel.as_deref(),
        &mut |note| progress.say(note),
    )?;
    interrupt::check()?;
    state::forget(directory)?;
    let share = directory.join("share");
    match fs::remove_dir_all(&share) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir_all(share.join("console"))?,
    }
    image::place(&images.xen, &directory.join("xen"))?;
    image::place(&images.vmlinux, &directory.join("vmlinux"))?;
    let sizes = image::initramfs(&images, &directory.join("dom0.img"))?;
    let [kernel_size, image_size] = sizes.map(|size| size >> 20);
    let least = match options.debug_kernel {
        true => DEBUG_GUEST_MEMORY,
        false => GUEST_MEMORY,
    };
    // The image is there twice while it is unpacked, and at most nine tenths of the memory are files.
    let needed = 160 + image_size * 5 / 2;
    let guest = options.memory.unwrap_or(least.max(needed + 256));
    // What `spare` promises: files of Dom0, which are in its memory.
    let saved = match options.spare {
        true => u64::from(options.room()) * (guest + guest / 10),
        false => 0,
    };
    let memory = Memory {
        dom0: DOM0_MEMORY + (kernel_size + image_size) * 2 + saved,
        guest,
    };
    if memory.guest < needed {
        bail!("the guests need {needed} MiB of memory to unpack their image");
    }
    for number in 1..=options.guests {
        let text = guest::configuration(number, options, memory.guest);
        fs::write(share.join(format!("guest{number}.cfg")), text)?;
    }

    progress.say(&format!("2/5 Xen and Dom0 boot (Linux {})", images.release));
    let mut lab = start(name, directory, options, &memory, &images.release)?;
    wait_for_dom0(&lab, progress)?;
    for machine in lab.guests() {
        progress.say(&format!(
            "3/5 {machine} of {} is created ({}, {} MiB)",
            options.guests,
            options.kind.name(),
            memory.guest
        ));
        lab.command(
            Machine::Dom0,
            &["xl", "create", "-q", &format!("/lab/{machine}.cfg")],
        )
        .timeout(CREATE_TIMEOUT)
        .run()?
        .success()
        .with_context(|| format!("creation of {machine}"))?;
    }
    let timeout = match options.debug_kernel {
        true => DEBUG_GUEST_TIMEOUT,
        false => GUEST_TIMEOUT,
    };
    for machine in lab.guests() {
        progress.say(&format!("4/5 {machine} of {} boots", options.guests));
        let booted = format!("lab: {machine} is up");
        wait_for(&lab, machine, timeout, &mut |lab| {
            progress.still("booting");
            lab.console(machine).contains(&booted)
        })?;
    }
    modules(&lab, checkout, options, progress)?;
    lab.set_ready()?;
    progress.say("up");
    Ok(lab)
}

/// Starts the emulator and writes down that it runs.
fn start(
    name: &str,
    directory: &Path,
    options: &Options,
    memory: &Memory,
    release: &str,
) -> Result<Lab> {
    for _ in 0..PORT_ATTEMPTS {
        let port = qemu::free_port()?;
        let mut child = qemu::start(directory, options, memory, port)?;
        let pid = i32::try_from(child.id())?;
        let Some(started) = state::start_time(pid) else {
            failed_start(directory, &mut child)?;
            continue;
        };
        let state = State {
            pid,
            started,
            port,
            release: release.to_owned(),
            memory: memory.guest,
            ready: false,
            options: options.clone(),
        };
        if let Err(error) = state.save(directory) {
            let _ = child.kill();
            return Err(error);
        }
        // The port is taken, or not, before the emulated machine runs.
        thread::sleep(LOOK_PERIOD);
        if child.try_wait()?.is_some() {
            failed_start(directory, &mut child)?;
            continue;
        }
        return Ok(Lab::new(name, directory.to_owned(), state));
    }
    bail!("the emulator finds no free port");
}

/// Succeeds when the emulator's end was due to a port that somebody else took.
fn failed_start(directory: &Path, child: &mut Child) -> Result<()> {
    let status = child.wait()?;
    let said = fs::read_to_string(directory.join("qemu.log")).unwrap_or_default();
    if !said.contains("host forwarding rule") {
        bail!("the emulator ended at once, {status}: {}", said.trim_end());
    }
    Ok(())
}

/// Waits for Dom0's agent and says what Dom0's boot script says.
fn wait_for_dom0(lab: &Lab, progress: &mut Progress) -> Result<()> {
    let mut said = 0;
    wait_for(lab, Machine::Dom0, DOM0_TIMEOUT, &mut |lab| {
        let console = lab.console(Machine::Dom0);
        let lines: Vec<&str> = console
            .lines()
            .filter_map(|line| Some(line.split_once("lab: ")?.1))
            .collect();
        for line in lines.get(said..).unwrap_or_default() {
            progress.say(line.trim_end());
        }
        said = lines.len();
        progress.still("booting");
        console.contains(BOOTED)
    })
}

/// Waits for a machine's agent. It is not asked before `has_booted` says so: an attempt that comes
/// too early costs seconds.
fn wait_for(
    lab: &Lab,
    machine: Machine,
    timeout: Duration,
    has_booted: &mut dyn FnMut(&Lab) -> bool,
) -> Result<()> {
    let start = Instant::now();
    let mut checked = start;
    loop {
        interrupt::check()?;
        // While it boots, nobody answers; only what is wrong with the machine itself matters.
        let limit = Some(PING_TIMEOUT);
        let ping =
            || client::transact(lab, machine, Request::Ping, None, limit, &mut |_, _| Ok(()));
        if has_booted(lab) && ping().is_ok() {
            return Ok(());
        }
        if checked.elapsed() > CHECK_PERIOD {
            checked = Instant::now();
            if let Some(why) = lab.trouble(machine) {
                bail!("{machine} {why}");
            }
        }
        if start.elapsed() > timeout {
            bail!(
                "{machine} is not up after {} s\n{}",
                timeout.as_secs(),
                lab.console_end(machine)
            );
        }
        thread::sleep(LOOK_PERIOD);
    }
}

/// Puts the modules, if they have been built, into the machines, and loads them.
fn modules(
    lab: &Lab,
    checkout: &Checkout,
    options: &Options,
    progress: &mut Progress,
) -> Result<()> {
    let guests = match options.debug_kernel {
        true => debug::MODULES,
        false => "modules",
    };
    let built = [("modules", BACKEND), (guests, FRONTEND)]
        .map(|(output, name)| checkout.module(output, name));
    let [Some(backend), Some(frontend)] = &built else {
        progress.say("5/5 no modules: build/modules has none");
        return Ok(());
    };
    let load = !options.no_modules;
    progress.say(if load {
        "5/5 modules are loaded"
    } else {
        "5/5 modules are copied, not loaded"
    });
    // Their debugging information is most of their size, and nothing in the machines reads it.
    let mut slim = Vec::new();
    for (name, path) in [(BACKEND, backend), (FRONTEND, frontend)] {
        let target = lab.directory().join(name);
        let words = [
            "--strip-debug".as_ref(),
            "-o".as_ref(),
            target.as_os_str(),
            path.as_os_str(),
        ];
        tool::output("strip", &words)?;
        slim.push(target);
    }
    for machine in lab.machines() {
        let (name, path) = match machine {
            Machine::Dom0 => (BACKEND, &slim[0]),
            Machine::Guest(_) => (FRONTEND, &slim[1]),
        };
        lab.push(path, machine, &format!("{MODULES}/{name}"))?;
        if load {
            lab.exec(machine, &["insmod", &format!("{MODULES}/{name}")])
                .with_context(|| format!("insmod\n{}", lab.console_end(machine)))?;
        }
    }
    let problems = if load { lab.problems()? } else { Vec::new() };
    if !problems.is_empty() {
        let end = scan::tail(&problems.join("\n"), 20);
        progress.say(&format!("the logs report problems:\n{end}"));
    }
    Ok(())
}
