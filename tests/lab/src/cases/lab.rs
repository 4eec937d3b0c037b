// SPDX-License-Identifier: GPL-2.0

//! The lab's own command line, `scripts/lab`, in the lab that the tests run in.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::bench::Bench;

/// Bytes of a file that goes to a guest and comes back.
const BYTES: u64 = 1 << 20;

/// Commands at once.
const AT_ONCE: u8 = 8;

/// Time in which the emulator of another lab has started.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How often we look.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// The program that scripts/lab runs, for a lab.
struct Program {
    path: PathBuf,
    lab: String,
}

impl Program {
    /// A call of it.
    fn with(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(["--name", &self.lab])
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// The same, to its end.
    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.with(arguments).output();
        output.with_context(|| self.path.display().to_string())
    }

    /// Runs a shell's command line in the first guest.
    fn shell(&self, line: &str) -> Result<Output> {
        self.run(&["exec", "guest1", "--", "sh", "-c", line])
    }
}

/// What a program has said of what went wrong.
fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Commands end with their own status, also several at once and those whose time is over; files come back as they went. Whoever
/// interrupts `up` finds nothing left.
pub(super) fn command_line(bench: &Bench) -> Result<()> {
    let program = Program {
        path: bench.programs().join("lab-driver"),
        lab: bench.lab().name().to_owned(),
    };
    let code = program.shell("exit 7")?.status.code();
    ensure!(code == Some(7), "exit 7 ended with {code:?}");
    files(&program, bench.lab().directory())?;
    at_once(&program)?;

    let line = ["exec", "--timeout", "1", "guest1", "--", "sleep", "60"];
    let late = program.run(&line)?;
    let said = complaint(&late);
    ensure!(
        late.status.code() == Some(124) && said.contains("the command's time was over"),
        "sleep ended with {:?}, and {said:?}",
        late.status.code()
    );
    let left = program.shell("pidof sleep")?;
    ensure!(left.status.code() == Some(1), "sleep sleeps on");

    interrupted(&Program {
        lab: format!("{}-other", program.lab),
        ..program
    })
}

/// A file to a guest and back.
fn files(program: &Program, directory: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    let random = fs::File::open("/dev/urandom")?;
    random.take(BYTES).read_to_end(&mut bytes)?;
    let [pushed, pulled] = ["pushed", "pulled"].map(|name| directory.join(name));
    fs::write(&pushed, &bytes)?;
    let there = "guest1:/tmp/file";
    for [verb, from, to] in [
        ["push", &pushed.display().to_string(), there],
        ["pull", there, &pulled.display().to_string()],
    ] {
        let output = program.run(&[verb, from, to])?;
        ensure!(output.status.success(), "{verb}: {}", complaint(&output));
    }
    ensure!(fs::read(&pulled)? == bytes, "the file has changed");
    program.shell("rm /tmp/file")?;
    [pushed, pulled]
        .iter()
        .try_for_each(|path| Ok(fs::remove_file(path)?))
}

/// Several commands at once; each has its own output and status.
fn at_once(program: &Program) -> Result<()> {
    let mut children = Vec::new();
    for number in 1..=AT_ONCE {
        let line = format!("sleep 1; echo {number}; exit {number}");
        let mut command = program.with(&["exec", "guest1", "--", "sh", "-c", &line]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        children.push((number, child.spawn()?));
    }
    for (number, child) in children {
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.code() == Some(number.into()) && said == format!("{number}\n"),
            "command {number} of {AT_ONCE}: {:?}, {said:?}, {}",
            output.status.code(),
            complaint(&output)
        );
    }
    Ok(())
}

/// Another lab, the making of which is interrupted as soon as its emulator runs.
fn interrupted(program: &Program) -> Result<()> {
    let mut up = program.with(&["up", "--guests", "1", "--no-modules"]);
    let up = up.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let start = Instant::now();
    while emulators(&program.lab)?.is_empty() && start.elapsed() < START_TIMEOUT {
        thread::sleep(LOOK_PERIOD);
    }
    let found = emulators(&program.lab)?;
    let signal = format!("kill -INT {}", up.id());
    let sent = Command::new("sh").args(["-c", &signal]).status()?;
    let output = up.wait_with_output()?;
    let (code, said) = (output.status.code(), complaint(&output));
    ensure!(sent.success() && !found.is_empty(), "no emulator: {said}");
    ensure!(
        code == Some(255) && said.contains("interrupted"),
        "an interrupted up ended with {code:?}: {said}"
    );
    let left = emulators(&program.lab)?;
    ensure!(left.is_empty(), "{left:?} are left");
    let status = program.run(&["exec", "dom0", "--", "true"])?;
    let said = complaint(&status);
    ensure!(said.contains("there is no lab"), "exec said {said:?}");
    Ok(())
}

/// The processes whose directory is that of a lab of this checkout, as its emulator's is.
fn emulators(lab: &str) -> Result<Vec<PathBuf>> {
    let directory = PathBuf::from("build/lab").join(lab);
    let directory = match directory.canonicalize() {
        Ok(directory) => directory,
        // There was no such lab yet.
        Err(_) => return Ok(Vec::new()),
    };
    let processes = fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_there = |process: &PathBuf| {
        fs::read_link(process.join("cwd")).is_ok_and(|place| place == directory)
    };
    Ok(processes.filter(is_there).collect())
}
