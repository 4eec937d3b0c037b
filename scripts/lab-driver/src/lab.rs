// SPDX-License-Identifier: GPL-2.0

//! A lab that runs.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Cursor, Write},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use lab_agent::wire::Request;
use tempfile::NamedTempFile;

use crate::{
    boot,
    checkout::Checkout,
    client::{self, Command, Output},
    machine::Machine,
    options::Options,
    progress::Progress,
    state::{self, State},
    xen::{self, Domain},
};

/// Time for the small commands by which we look after a lab.
const CARE_TIMEOUT: Duration = Duration::from_secs(30);

/// A lab whose emulator was started, by this program or an earlier one.
pub struct Lab {
    name: String,
    directory: PathBuf,
    state: State,
    /// Machines that are not expected to answer now.
    away: Mutex<BTreeSet<Machine>>,
}

impl Lab {
    /// Makes a lab and boots it; returns when all its machines answer and, unless the options say
    /// otherwise, have loaded their modules. On failure nothing is left running.
    ///
    /// # Errors
    ///
    /// There is such a lab, it cannot be made, or a machine does not boot.
    pub fn up(name: &str, options: &Options, progress: &mut Progress) -> Result<Self> {
        boot::up(name, options, progress)
    }

    /// A lab that is up.
    ///
    /// # Errors
    ///
    /// There is no such lab.
    pub fn open(name: &str) -> Result<Self> {
        let directory = Checkout::find()?.lab(name)?;
        let state = State::load(&directory)?;
        match state {
            Some(state) if state.is_alive() => Ok(Self::new(name, directory, state)),
            Some(_) => bail!(
                "lab {name} has ended by itself: see {}",
                directory.join("console.log").display()
            ),
            None => bail!("there is no lab {name}: make it with \"scripts/lab up\""),
        }
    }

    /// The names of all labs of this checkout that are up.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn all() -> Result<Vec<String>> {
        let Ok(entries) = fs::read_dir(Checkout::find()?.labs()) else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if State::load(&entry.path())?.is_some_and(|state| state.is_alive()) {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    pub(crate) fn new(name: &str, directory: PathBuf, state: State) -> Self {
        Self {
            name: name.to_owned(),
            directory,
            state,
            away: Mutex::default(),
        }
    }

    fn away(&self) -> MutexGuard<'_, BTreeSet<Machine>> {
        self.away
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether a machine is away; see [`Lab::while_away`].
    pub(crate) fn is_away(&self, machine: Machine) -> bool {
        self.away().contains(&machine)
    }

    /// Does what takes a machine out of the lab and brings it back: saves and restores it, say. Commands that it runs go on
    /// afterwards; meanwhile nobody misses it.
    pub fn while_away<R>(&self, machine: Machine, what: impl FnOnce() -> R) -> R {
        self.away().insert(machine);
        let result = what();
        self.away().remove(&machine);
        result
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory of its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The address of its Dom0 on the network under test, which is another one if it has joined another lab.
    pub fn host_address(&self) -> Ipv4Addr {
        let [a, b, c, _] = Machine::Dom0.address().octets();
        Ipv4Addr::new(a, b, c, self.options().host())
    }

    /// What was asked for when it was made.
    pub fn options(&self) -> &Options {
        &self.state.options
    }

    /// Release of the kernel that its machines run.
    pub fn kernel_release(&self) -> &str {
        &self.state.release
    }

    /// Memory of each guest in MiB.
    pub fn guest_memory(&self) -> u64 {
        self.state.memory
    }

    /// Whether it got as far as being up.
    pub fn is_ready(&self) -> bool {
        self.state.ready
    }

    /// Its guests.
    pub fn guests(&self) -> impl Iterator<Item = Machine> + use<> {
        (1..=self.state.options.guests).map(Machine::Guest)
    }

    /// Dom0 and its guests.
    pub fn machines(&self) -> impl Iterator<Item = Machine> + use<> {
        std::iter::once(Machine::Dom0).chain(self.guests())
    }

    /// A command for one of the machines, for [`Command::run`].
    pub fn command<S: AsRef<str>>(&self, machine: Machine, argv: &[S]) -> Command<'_> {
        Command::new(
            self,
            machine,
            argv.iter().map(|word| word.as_ref().to_owned()).collect(),
        )
    }

    /// Runs a command that shall succeed.
    ///
    /// # Errors
    ///
    /// It cannot be started, it fails, or the machine is [`Gone`](crate::Gone).
    pub fn exec<S: AsRef<str>>(&self, machine: Machine, argv: &[S]) -> Result<Output> {
        let what = || {
            format!(
                "{machine}: {}",
                argv.first().map(AsRef::as_ref).unwrap_or_default()
            )
        };
        self.command(machine, argv)
            .run()?
            .success()
            .with_context(what)
    }

    /// Runs a shell's command line that shall succeed.
    ///
    /// # Errors
    ///
    /// As for [`Lab::exec`].
    pub fn shell(&self, machine: Machine, line: &str) -> Result<Output> {
        let output = self.command(machine, &["/bin/sh", "-c", line]).run()?;
        output
            .success()
            .with_context(|| format!("{machine}: {line}"))
    }

    /// Copies a file to a machine, with its permission bits.
    ///
    /// # Errors
    ///
    /// It cannot be read here or written there, or the machine is [`Gone`](crate::Gone).
    pub fn push(&self, local: &Path, machine: Machine, path: &str) -> Result<()> {
        let file = File::open(local).with_context(|| local.display().to_string())?;
        let mode = file.metadata()?.permissions().mode() & 0o7777;
        let request = Request::Push {
            path: path.to_owned(),
            mode,
        };
        client::transact(
            self,
            machine,
            request,
            Some(Box::new(file)),
            None,
            &mut |_, _| Ok(()),
        )?;
        Ok(())
    }

    /// Makes a file of these bytes on a machine.
    ///
    /// # Errors
    ///
    /// As for [`Lab::push`].
    pub fn push_bytes(
        &self,
        bytes: Vec<u8>,
        mode: u32,
        machine: Machine,
        path: &str,
    ) -> Result<()> {
        let request = Request::Push {
            path: path.to_owned(),
            mode,
        };
        let input = Box::new(Cursor::new(bytes));
        client::transact(
            self,
            machine,
            request,
            Some(input),
            None,
            &mut |_, _| Ok(()),
        )?;
        Ok(())
    }

    /// Copies a file from a machine, with its permission bits. Takes its name here when it is complete.
    ///
    /// # Errors
    ///
    /// It cannot be read there or written here, or the machine is [`Gone`](crate::Gone).
    pub fn pull(&self, machine: Machine, path: &str, local: &Path) -> Result<()> {
        let directory = match local.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut file =
            NamedTempFile::new_in(directory).with_context(|| local.display().to_string())?;
        let request = Request::Pull {
            path: path.to_owned(),
        };
        let outcome = client::transact(self, machine, request, None, None, &mut |_, data| {
            file.write_all(data)
        })?;
        let mode = fs::Permissions::from_mode(outcome.mode);
        file.as_file().set_permissions(mode)?;
        file.persist(local)
            .with_context(|| local.display().to_string())?;
        Ok(())
    }

    /// The contents of a machine's file.
    ///
    /// # Errors
    ///
    /// As for [`Lab::pull`].
    pub fn pull_bytes(&self, machine: Machine, path: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let request = Request::Pull {
            path: path.to_owned(),
        };
        client::transact(self, machine, request, None, None, &mut |_, data| {
            bytes.extend_from_slice(data);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// A machine's kernel log.
    ///
    /// # Errors
    ///
    /// The machine is [`Gone`](crate::Gone).
    pub fn kernel_log(&self, machine: Machine) -> Result<String> {
        let output = self
            .command(machine, &["/bin/busybox", "dmesg"])
            .timeout(CARE_TIMEOUT)
            .run()?;
        Ok(output.success()?.text())
    }

    /// Xen's log.
    ///
    /// # Errors
    ///
    /// Dom0 is [`Gone`](crate::Gone).
    pub fn xen_log(&self) -> Result<String> {
        Ok(self
            .command(Machine::Dom0, &["xl", "dmesg"])
            .timeout(CARE_TIMEOUT)
            .run()?
            .success()?
            .text())
    }

    /// What a machine's console has shown so far; Dom0's is also Xen's. It is there even when the
    /// machine is not.
    pub fn console(&self, machine: Machine) -> String {
        let mut bytes = fs::read(self.console_path(machine)).unwrap_or_default();
        if let Machine::Guest(_) = machine {
            // One that migrates to this host has that name until it has come.
            let incoming = format!("share/console/guest-{machine}--incoming.log");
            bytes.extend(fs::read(self.directory.join(incoming)).unwrap_or_default());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The file to which a machine's console is written.
    pub fn console_path(&self, machine: Machine) -> PathBuf {
        match machine {
            Machine::Dom0 => self.directory.join("console.log"),
            guest => self
                .directory
                .join(format!("share/console/guest-{guest}.log")),
        }
    }

    /// What Xen says about Dom0 and every guest, among it the CPU seconds that each has used.
    ///
    /// # Errors
    ///
    /// Dom0 is [`Gone`](crate::Gone).
    pub fn domains(&self) -> Result<Vec<Domain>> {
        let output = self
            .command(Machine::Dom0, &["xl", "list"])
            .timeout(CARE_TIMEOUT)
            .run()?;
        xen::parse_list(&output.success()?.text())
    }

    /// Ends the lab. Its consoles remain in its directory until the next lab of this name.
    ///
    /// # Errors
    ///
    /// The emulator does not end.
    pub fn down(self) -> Result<()> {
        self.state.kill()?;
        state::forget(&self.directory)
    }

    /// Ends the lab of this name if there is one, in whatever state it is; returns whether there
    /// was one.
    ///
    /// # Errors
    ///
    /// The emulator does not end.
    pub fn down_by_name(name: &str) -> Result<bool> {
        let directory = Checkout::find()?.lab(name)?;
        let Some(state) = State::load(&directory)? else {
            return Ok(false);
        };
        Self::new(name, directory, state).down()?;
        Ok(true)
    }

    /// Notes that it is up.
    pub(crate) fn set_ready(&mut self) -> Result<()> {
        self.state.ready = true;
        self.state.save(&self.directory)
    }

    /// Whether the emulator runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.state.is_alive()
    }

    pub(crate) fn cpu_ticks(&self) -> Option<u64> {
        self.state.cpu_ticks()
    }

    pub(crate) fn port(&self) -> u16 {
        self.state.port
    }
}
