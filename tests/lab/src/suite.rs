// SPDX-License-Identifier: GPL-2.0

//! Runs the tests one after the other in one lab of each guest type, and makes the lab anew when a
//! test has left it unusable.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use lab_driver::{GuestType, Lab, Machine, Options, Progress, interrupt};

use crate::{
    bench::{Bench, GUESTS, environment_number},
    cases::{self, Case, Wanted},
};

/// What is kept of a guest when a test has failed, besides the logs: reports of the module, and
/// where the threads of the test's processes are.
const STATE: &str = "cd /sys/kernel/debug/xenvmc && for file in *; do echo \"== $file\"; cat $file; done; \
     for task in $(pidof xenvmc-peer rmmod insmod); do for thread in /proc/$task/task/*; do \
     echo \"== $(cat $thread/comm) $thread\"; cat $thread/stack $thread/syscall; done; done; \
     echo '== sockets'; ss -tinmo; echo '== memory'; cat /proc/meminfo; true";

/// How often a test is run again when the emulator, and not what is tested, has failed.
const EMULATOR_TRIES: u32 = 3;

/// What the tests run in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// Guests of this type, with Debian's kernel.
    Plain(GuestType),
    /// PVH guests with Debian's kernel, and with the programs that some tests run.
    Packages,
    /// PVH guests with the kernel that checks itself.
    Debug,
    /// PVH guests on a host that another one can be connected to.
    Hosts,
    /// Many PVH guests.
    Many,
    /// PVH guests with two virtual CPUs each, for which there are three emulated ones besides Dom0's.
    TwoCpus,
}

impl Setting {
    /// What the names of the tests in it begin with.
    fn name(self) -> &'static str {
        match self {
            Self::Plain(kind) => kind.name(),
            Self::Packages => "packages",
            Self::Debug => "debug",
            Self::Hosts => "hosts",
            Self::Many => "many",
            Self::TwoCpus => "two-cpus",
        }
    }

    fn options(self) -> Options {
        let kind = match self {
            Self::Plain(kind) => kind,
            Self::Packages | Self::Debug | Self::Hosts | Self::Many | Self::TwoCpus => {
                GuestType::Pvh
            }
        };
        let packages: &[&str] = match self {
            Self::Packages => cases::PACKAGES,
            Self::Plain(_) | Self::Debug | Self::Hosts | Self::Many | Self::TwoCpus => &[],
        };
        let (vcpus, smp) = match self {
            Self::TwoCpus => (2, 4),
            Self::Plain(_) | Self::Packages | Self::Debug | Self::Hosts | Self::Many => {
                let usual = Options::default();
                (usual.vcpus, usual.smp)
            }
        };
        let guests = match self {
            Self::Many => cases::MANY,
            _ => Options::default().guests,
        };
        Options {
            kind,
            guests,
            debug_kernel: self == Self::Debug,
            open: self == Self::Hosts,
            no_modules: true,
            spare: true,
            vcpus,
            smp,
            packages: packages.iter().map(|name| (*name).to_owned()).collect(),
            ..Options::default()
        }
    }
}

/// The tests, and what has come of them so far.
pub(crate) struct Suite {
    programs: PathBuf,
    directory: PathBuf,
    words: Vec<String>,
    keep: bool,
    passed: usize,
    /// What was printed of each test that failed.
    failed: Vec<String>,
}

impl Suite {
    /// Tests whose names contain one of the words, or all if there are none. `programs` is where
    /// what runs in guests is; `directory` is for what failed tests leave.
    pub(crate) fn new(
        programs: PathBuf,
        directory: PathBuf,
        words: Vec<String>,
        keep: bool,
    ) -> Self {
        Self {
            programs,
            directory,
            words,
            keep,
            passed: 0,
            failed: Vec::new(),
        }
    }

    /// Runs the tests for one type of guests.
    pub(crate) fn run(&mut self, setting: Setting) -> Result<()> {
        let wanted: Vec<&Case> = cases::ALL
            .iter()
            .filter(|case| self.wants(case, setting))
            .collect();
        let repeats = environment_number("REPEAT")?.unwrap_or(1);
        let mut bench = None;
        for case in wanted {
            // One that fails is not repeated, so that what it leaves is kept.
            for _ in 0..repeats {
                if interrupt::pending() || !self.run_one(&mut bench, setting, case) {
                    break;
                }
            }
        }
        end(bench.filter(|_| !self.keep || interrupt::pending()));
        interrupt::check()
    }

    /// Runs one test, and says what came of it; returns whether it has passed.
    fn run_one(&mut self, bench: &mut Option<Bench>, setting: Setting, case: &Case) -> bool {
        let name = format!("{}::{}", setting.name(), case.name);
        let start = Instant::now();
        let result = self.try_often(bench, setting, case, &name);
        if interrupt::pending() {
            return false;
        }
        let seconds = start.elapsed().as_secs();
        let Err(error) = result else {
            self.passed += 1;
            println!("test {name} ... ok ({seconds} s)");
            end(bench.take_if(|bench| bench.is_spent()));
            return true;
        };
        println!("test {name} ... FAILED ({seconds} s)");
        let why = format!("{error:#}").replace('\n', "\n    ");
        println!("    {why}");
        self.failed.push(format!("{name}\n    {why}"));
        // Some failures leave a lab that can still be used, which saves a boot.
        end(bench.take_if(|bench| !is_usable(bench)));
        false
    }

    /// Prints once more what failed, which may be hours ago, and the sum; returns whether all is well.
    pub(crate) fn sum_up(&self) -> bool {
        if !self.failed.is_empty() {
            println!("failures:\n\n{}\n", self.failed.join("\n"));
        }
        println!("{} passed, {} failed", self.passed, self.failed.len());
        self.failed.is_empty()
    }

    fn wants(&self, case: &Case, setting: Setting) -> bool {
        let name = format!("{}::{}", setting.name(), case.name);
        let is_chosen = (self.words.is_empty() && !case.is_long())
            || case.wanted == Wanted::Debug
            || self.words.iter().any(|word| name.contains(word.as_str()));
        is_chosen && case.runs_in(setting)
    }

    /// The lab, made if there is none.
    fn bench<'a>(&self, bench: &'a mut Option<Bench>, setting: Setting) -> Result<&'a Bench> {
        if bench.is_none() {
            let name = format!("tests-{}", setting.name());
            Lab::down_by_name(&name)?;
            let lab = Lab::up(&name, &setting.options(), &mut Progress::to_stderr())?;
            let prepare = || {
                let made = Bench::new(lab, &self.programs)?;
                // What the machines said while they booted is not the tests' business.
                drop(made.take_logs());
                made.begin_checks()?;
                Ok::<_, anyhow::Error>(made)
            };
            match prepare() {
                Ok(made) => *bench = Some(made),
                Err(error) => {
                    Lab::down_by_name(&name)?;
                    return Err(error);
                }
            }
        }
        bench.as_ref().context("no lab")
    }

    /// Runs one test, and again when it was the emulator that failed.
    fn try_often(
        &self,
        bench: &mut Option<Bench>,
        setting: Setting,
        case: &Case,
        name: &str,
    ) -> Result<()> {
        let mut result = self.try_once(bench, setting, case, name);
        for _ in 0..EMULATOR_TRIES {
            let Err(error) = &result else { break };
            let Some(what) = self.emulator_failure(bench, name) else {
                break;
            };
            if interrupt::pending() {
                break;
            }
            println!("    {name}: {what}; once more in a new lab");
            end(bench.take());
            let kept = self.kept_in(&format!("{name}.emulator"));
            let _ = fs::remove_dir_all(&kept);
            // A lab that did not come up has left nothing of the test's.
            if fs::rename(self.kept_in(name), kept).is_err() {
                println!("    {}", format!("{error:#}").replace('\n', "\n    "));
            }
            result = self.try_once(bench, setting, case, name);
        }
        result
    }

    /// Runs one test, in the lab that there is or a new one.
    fn try_once(
        &self,
        bench: &mut Option<Bench>,
        setting: Setting,
        case: &Case,
        name: &str,
    ) -> Result<()> {
        // What an earlier run has left would be taken for this one's.
        let _ = fs::remove_dir_all(self.kept_in(name));
        let bench = self
            .bench(bench, setting)
            .context("the lab does not come up")?;
        self.attempt(bench, case, name)
    }

    /// Where what a failed test leaves is kept.
    fn kept_in(&self, name: &str) -> PathBuf {
        self.directory.join(name.replace("::", "-"))
    }

    /// What the emulator has done wrong while a test failed, if that was it.
    ///
    /// QEMU without hardware help mixes up whether its first CPU runs a guest with nested paging, which
    /// is why no guest runs there (`lab_driver`'s `qemu.rs`). Should it happen all the same, Xen reports
    /// a triple fault of a guest at an address of Xen's own, or with the APIC's end-of-interrupt register
    /// (MSR 0x80b) in rcx, or with the address of the guest's own entry for double faults, which its
    /// kernel never unmaps. No guest can cause any of them. It can also lose an interrupt; then the whole
    /// machine stands still. Or it delivers one twice that Xen has injected, the second time right behind the entry of the handler,
    /// where interrupts are off; if a program of the guest was interrupted, the kernel does not yet have its own GS base
    /// there, and faults until the stack for entries is full.
    fn emulator_failure(&self, bench: &Option<Bench>, name: &str) -> Option<&'static str> {
        let log = fs::read_to_string(self.kept_in(name).join("xen.log")).unwrap_or_default();
        let mixed_up = log.split("Triple fault").skip(1).any(|dump| {
            let dump: String = dump.lines().take(14).collect();
            let signs = [
                "e008:[<ffff82d",
                "rcx: 000000000000080b",
                "cr2: fffffe0000000080",
            ];
            signs.iter().any(|sign| dump.contains(sign))
        });
        if mixed_up {
            return Some("the emulator mixed up a guest with Xen");
        }
        let delivered_twice = (1..=cases::MANY).map(Machine::Guest).any(|guest| {
            let path = self.kept_in(name).join(format!("{guest}.console"));
            let console = fs::read_to_string(path).unwrap_or_default();
            console.contains("BUG: ENTRY_TRAMPOLINE stack guard page was hit")
                && console.contains("RIP: 0010:asm_sysvec_xen_hvm_callback+")
        });
        if delivered_twice {
            return Some("the emulator delivered an interrupt twice");
        }
        let Some(bench) = bench else {
            return Some("no lab came up");
        };
        let still = bench.lab().stands_still();
        still.then_some("the emulator lost an interrupt, and stands still")
    }

    /// Runs one test; keeps what there is to know when it fails.
    fn attempt(&self, bench: &Bench, case: &Case, name: &str) -> Result<()> {
        let run = || {
            bench.reset().context("before the test")?;
            (case.run)(bench)?;
            bench.after()
        };
        let result =
            panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(anyhow!("panicked")));
        // The state is that in which the test failed: before anything is cleaned up.
        let states: Vec<_> = match &result {
            Ok(()) => Vec::new(),
            Err(_) => bench
                .lab()
                .machines()
                .map(|machine| (machine, state(bench, machine)))
                .collect(),
        };
        let logs = bench.take_logs();
        let Err(error) = logs.check(result) else {
            return Ok(());
        };
        let directory = self.kept_in(name);
        keep(bench, &directory, &states).and_then(|()| logs.keep(&directory))?;
        fs::write(directory.join("error"), format!("{error:?}\n"))?;
        Err(error.context(format!("see {}", directory.display())))
    }
}

/// Ends a lab. One that cannot be ended is reported, and no reason to leave out tests; the next one says so again if it is in
/// its way.
fn end(bench: Option<Bench>) {
    if let Some(Err(error)) = bench.map(Bench::down) {
        println!("    the lab does not end: {error:#}");
    }
}

/// Whether a lab in which a test has failed is as good as a new one. One with the debug kernel never is: lockdep's first
/// report is its last one.
fn is_usable(bench: &Bench) -> bool {
    bench.set_dirty();
    let usable = !bench.has_debug_kernel()
        && !bench.is_spent()
        && bench.reset().is_ok()
        && bench.after().is_ok();
    usable && bench.take_logs().problems().is_empty()
}

fn state(bench: &Bench, machine: Machine) -> String {
    if !GUESTS.contains(&machine) {
        return bench
            .report(machine, "*")
            .unwrap_or_else(|error| format!("{error:#}"));
    }
    match bench.try_shell(machine, STATE) {
        Ok(output) => output.text(),
        Err(error) => format!("{error:#}"),
    }
}

fn keep(bench: &Bench, directory: &Path, states: &[(Machine, String)]) -> Result<()> {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    for (machine, text) in states {
        fs::write(directory.join(format!("{machine}.state")), text)?;
    }
    for machine in bench.lab().machines() {
        fs::write(
            directory.join(format!("{machine}.console")),
            bench.lab().console(machine),
        )?;
    }
    Ok(())
}
