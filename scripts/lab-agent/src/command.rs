// SPDX-License-Identifier: GPL-2.0

//! Commands that the agent runs, each in a process group of its own.

use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lab_agent::wire::{self, ALIVE_PERIOD, CHUNK, Kind, Outcome};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, ioctl_fionread, read},
    process::{Pid, Signal, kill_process_group},
};

/// Time between the request to end and the end by force.
const TERMINATE_GRACE: Duration = Duration::from_secs(2);

/// Time in which the output pipes of a command that has ended may come to their ends. What it left
/// in the background may hold them open for as long as it likes; then only what is in them is taken.
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

fn lock(client: &Client) -> MutexGuard<'_, TcpStream> {
    client
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// An output pipe of a command. It is read with the client locked only, so that what was read is on
/// its way before anything else is.
#[derive(Clone)]
struct Outlet {
    pipe: Arc<OwnedFd>,
    kind: Kind,
}

impl Outlet {
    fn new(pipe: impl Into<OwnedFd>, kind: Kind) -> Self {
        let pipe = Arc::new(pipe.into());
        Self { pipe, kind }
    }

    /// Waits for output; returns whether the pipe is at its end, but for what is in it.
    fn wait(&self) -> rustix::io::Result<bool> {
        let mut pipes = [PollFd::new(&*self.pipe, PollFlags::IN)];
        poll(&mut pipes, None)?;
        Ok(pipes[0]
            .revents()
            .intersects(PollFlags::HUP | PollFlags::ERR))
    }

    /// Sends what is in the pipe now, whether somebody listens or not; returns whether there was any.
    fn send_rest(&self, client: &mut TcpStream) -> rustix::io::Result<bool> {
        let all = usize::try_from(ioctl_fionread(&*self.pipe)?).unwrap_or(usize::MAX);
        let mut left = all;
        let mut buffer = vec![0; CHUNK.min(left)];
        while left > 0 {
            let most = buffer.len().min(left);
            match read(&*self.pipe, &mut buffer[..most]) {
                Ok(0) => break,
                Ok(n) => {
                    let _ = wire::send(client, self.kind, &buffer[..n]);
                    left -= n;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all > 0)
    }
}

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
    let outlets: Vec<Outlet> = [
        child
            .stdout
            .take()
            .map(|pipe| Outlet::new(pipe, Kind::Output)),
        child
            .stderr
            .take()
            .map(|pipe| Outlet::new(pipe, Kind::ErrorOutput)),
    ]
    .into_iter()
    .flatten()
    .collect();
    for outlet in &outlets {
        forward(outlet.clone(), &client, &events);
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
        let mut client = lock(&client);
        for outlet in &outlets {
            // The threads that read may not have had the processor since the command wrote.
            outlet.send_rest(&mut client)?;
        }
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
                let _ = wire::send(&mut *lock(client), Kind::Alive, &[]);
            }
        }
    }
}

/// Sends what comes out of a pipe, and goes on reading when nobody listens any more, so that a
/// daemon which inherited the pipe does not die of writing to it.
fn forward(outlet: Outlet, client: &Client, events: &Sender<Event>) {
    let (client, events) = (Arc::clone(client), events.clone());
    thread::spawn(move || {
        loop {
            let is_over = match outlet.wait() {
                Ok(is_over) => is_over,
                Err(Errno::INTR) => continue,
                Err(_) => break,
            };
            match outlet.send_rest(&mut lock(&client)) {
                Ok(true) => {}
                Ok(false) if !is_over => {}
                _ => break,
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

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::net::UnixStream};

    use super::*;

    /// What a client gets: everything that was written to standard output, and how it ended.
    fn run_in_shell(line: &str) -> (Vec<u8>, Outcome) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let argv = ["/bin/sh", "-c", line].map(String::from);
        let agent = thread::spawn(move || run(&server, &argv, None, false));
        let mut output = Vec::new();
        let outcome = loop {
            let frame = wire::receive(&mut client).unwrap();
            match frame.kind {
                Kind::Output => output.extend(frame.data),
                Kind::Done => break serde_json::from_slice(&frame.data).unwrap(),
                kind => assert_eq!(kind, Kind::Alive),
            }
        };
        agent.join().unwrap().unwrap();
        (output, outcome)
    }

    #[test]
    fn all_output_comes() {
        let (output, outcome) = run_in_shell("head -c 1000000 /dev/zero; exit 3");
        assert_eq!((output.len(), outcome.status), (1_000_000, 3));
    }

    #[test]
    fn who_stays_in_the_background_is_not_waited_for() {
        let (output, outcome) = run_in_shell("echo $$; sleep 1000 & echo done");
        let output = String::from_utf8(output).unwrap();
        let (group, rest) = output.split_once('\n').unwrap();
        assert_eq!((rest, outcome.status), ("done\n", 0));
        let group = Pid::from_raw(group.parse().unwrap()).unwrap();
        kill_process_group(group, Signal::KILL).unwrap();
    }

    /// A thread that reads may not have the processor when the command ends.
    #[test]
    fn what_is_in_a_pipe_is_sent() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut receiver, _) = listener.accept().unwrap();
        let (pipe, mut writer) = UnixStream::pair().unwrap();
        writer.write_all(b"output").unwrap();
        let outlet = Outlet::new(pipe, Kind::Output);
        assert!(outlet.send_rest(&mut sender).unwrap());
        assert!(!outlet.send_rest(&mut sender).unwrap());
        assert_eq!(wire::receive(&mut receiver).unwrap().data, b"output");
    }
}
