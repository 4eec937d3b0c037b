// SPDX-License-Identifier: GPL-2.0

//! Commands that the agent runs, each in a process group of its own.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lab_agent::wire::{self, ALIVE_PERIOD, CHUNK, Kind, Outcome};
use rustix::process::{Pid, Signal, kill_process_group};

/// Time between the request to end and the end by force.
const TERMINATE_GRACE: Duration = Duration::from_secs(2);

/// Time in which the output of a command that has ended is still taken. What it left in the
/// background may hold the pipes open for as long as it likes.
const OUTPUT_GRACE: Duration = Duration::from_millis(100);

/// What the threads around a command report.
enum Event {
    /// One of the two output pipes is at its end.
    OutputEnd,
    /// The command has ended.
    Exit(ExitStatus),
    /// The client went away.
    Gone,
}

/// The client, written to by several threads.
type Client = Arc<Mutex<TcpStream>>;

/// Runs a command to its end and reports it.
///
/// # Errors
///
/// The command cannot be started.
pub(crate) fn run(
    stream: &TcpStream,
    argv: &[String],
    timeout: Option<Duration>,
    stdin: bool,
) -> Result<()> {
    let (program, arguments) = argv.split_first().context("no command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| program.clone())?;
    let group = Pid::from_child(&child);
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "0");

    let client = Arc::new(Mutex::new(stream.try_clone()?));
    let (events, inbox) = mpsc::channel();
    if let Some(pipe) = child.stdout.take() {
        forward(pipe, Kind::Output, &client, &events);
    }
    if let Some(pipe) = child.stderr.take() {
        forward(pipe, Kind::ErrorOutput, &client, &events);
    }
    let (input, from, gone) = (child.stdin.take(), stream.try_clone()?, events.clone());
    thread::spawn(move || {
        feed(from, input);
        let _ = gone.send(Event::Gone);
    });
    thread::spawn(move || {
        if let Ok(status) = child.wait() {
            let _ = events.send(Event::Exit(status));
        }
    });

    let outcome = supervise(&client, &inbox, group, timeout);
    if let Some(outcome) = outcome {
        let mut client = client
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        wire::send_json(&mut *client, Kind::Done, &outcome)?;
    }
    // Ends the thread that waits for input.
    let _ = stream.shutdown(Shutdown::Both);
    Ok(())
}

/// Waits for the command's end and for its output; none when the client went away.
fn supervise(
    client: &Client,
    inbox: &mpsc::Receiver<Event>,
    group: Pid,
    timeout: Option<Duration>,
) -> Option<Outcome> {
    let start = Instant::now();
    let mut outcome = Outcome::default();
    let mut exited = None;
    let mut open_pipes = 2;
    let mut forceful = false;
    loop {
        let mut wait = ALIVE_PERIOD;
        if let Some(at) = exited {
            let since = Instant::now().saturating_duration_since(at);
            if open_pipes == 0 || since >= OUTPUT_GRACE {
                return Some(outcome);
            }
            wait = OUTPUT_GRACE - since;
        } else if let Some(limit) = timeout {
            let limit = if outcome.timed_out {
                limit + TERMINATE_GRACE
            } else {
                limit
            };
            match limit.checked_sub(start.elapsed()) {
                Some(left) if !left.is_zero() => wait = wait.min(left),
                _ if !outcome.timed_out => {
                    outcome.timed_out = true;
                    let _ = kill_process_group(group, Signal::TERM);
                    continue;
                }
                _ if !forceful => {
                    forceful = true;
                    let _ = kill_process_group(group, Signal::KILL);
                }
                // Not even SIGKILL ends it: it is stuck in the kernel. The client shall know.
                _ if start.elapsed() > limit + TERMINATE_GRACE => return Some(outcome),
                _ => {}
            }
        }
        match inbox.recv_timeout(wait) {
            Ok(Event::OutputEnd) => open_pipes -= 1,
            Ok(Event::Exit(status)) => {
                outcome.status = status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
                exited = Some(Instant::now());
            }
            Ok(Event::Gone) | Err(RecvTimeoutError::Disconnected) => {
                let _ = kill_process_group(group, Signal::KILL);
                return None;
            }
            Err(RecvTimeoutError::Timeout) => {
                let mut client = client
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                let _ = wire::send(&mut *client, Kind::Alive, &[]);
            }
        }
    }
}

/// Sends what comes out of a pipe, and goes on reading when nobody listens any more, so that a
/// daemon which inherited the pipe does not die of writing to it.
fn forward(
    mut pipe: impl Read + Send + 'static,
    kind: Kind,
    client: &Client,
    events: &Sender<Event>,
) {
    let (client, events) = (Arc::clone(client), events.clone());
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    let mut client = client
                        .lock()
                        .unwrap_or_else(|poisoned| poisoned.into_inner());
                    let _ = wire::send(&mut *client, kind, &buffer[..n]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let _ = events.send(Event::OutputEnd);
    });
}

/// Gives the client's input to the command; returns when the client is gone.
fn feed(mut from: TcpStream, mut input: Option<ChildStdin>) {
    while let Ok(frame) = wire::receive(&mut from) {
        match frame.kind {
            Kind::Input => {
                // A command that does not read its input to the end is in its right.
                if let Some(Err(_)) = input.as_mut().map(|pipe| pipe.write_all(&frame.data)) {
                    input = None;
                }
            }
            Kind::InputEnd => input = None,
            _ => break,
        }
    }
}
