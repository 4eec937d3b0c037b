// SPDX-License-Identifier: GPL-2.0

//! Requests to the agents of a lab's machines.

use std::{
    error::Error,
    fmt,
    io::{self, Read},
    net::{Ipv4Addr, Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use lab_agent::wire::{self, CHUNK, Envelope, Kind, Outcome, Request};

use crate::{interrupt, lab::Lab, machine::Machine};

/// How often a waiting request looks whether it shall go on waiting.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

/// Silence of a machine after which we look whether it still lives, and again after each such time.
const DOUBT_AFTER: Duration = Duration::from_secs(5);

/// Silence of a machine that seems to live after which we say that it hangs.
const HUNG_AFTER: Duration = Duration::from_secs(60);

/// Time that an agent has, beyond the command's own, to tell that the command was killed.
const TIMEOUT_GRACE: Duration = Duration::from_secs(30);

/// Status of a command whose time was over, as timeout(1) has it.
const TIMED_OUT_STATUS: i32 = 124;

/// A machine that does not answer any more.
#[derive(Debug)]
pub struct Gone {
    /// Which one.
    pub machine: Machine,
    /// What is known about it, with the end of its console.
    pub why: String,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.machine, self.why)
    }
}

impl Error for Gone {}

/// Which of its two streams a command wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    ErrorOutput,
}

/// What a command left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; 128 + number of the signal that ended it; 124 when its time was over.
    pub status: i32,
    /// Whether it was killed because its time was over.
    pub timed_out: bool,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text, without white space at the end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Fails unless the command succeeded.
    ///
    /// # Errors
    ///
    /// The status is not 0; the error has what the command said.
    pub fn success(self) -> Result<Self> {
        if self.status != 0 {
            let said = [self.stderr.as_slice(), self.stdout.as_slice()].concat();
            let when = if self.timed_out {
                " (its time was over)"
            } else {
                ""
            };
            bail!(
                "status {}{when}: {}",
                self.status,
                String::from_utf8_lossy(&said).trim_end()
            );
        }
        Ok(self)
    }
}

/// A command for one of the machines.
pub struct Command<'a> {
    lab: &'a Lab,
    machine: Machine,
    argv: Vec<String>,
    timeout: Option<Duration>,
    input: Option<Box<dyn Read + Send>>,
}

impl<'a> Command<'a> {
    pub(crate) fn new(lab: &'a Lab, machine: Machine, argv: Vec<String>) -> Self {
        Self {
            lab,
            machine,
            argv,
            timeout: None,
            input: None,
        }
    }

    /// The command, and what it started, is killed after this time.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// What the command reads from standard input; `/dev/null` if this is not called.
    pub fn input(mut self, input: impl Read + Send + 'static) -> Self {
        self.input = Some(Box::new(input));
        self
    }

    /// Runs it and collects what it prints.
    ///
    /// # Errors
    ///
    /// It cannot be started, or the machine is [`Gone`]. A command that fails is no error.
    pub fn run(self) -> Result<Output> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let outcome = self.stream(&mut |stream, data| {
            match stream {
                Stream::Output => stdout.extend_from_slice(data),
                Stream::ErrorOutput => stderr.extend_from_slice(data),
            }
            Ok(())
        })?;
        let (status, timed_out) = outcome;
        Ok(Output {
            status,
            timed_out,
            stdout,
            stderr,
        })
    }

    /// Runs it and hands over what it prints as it comes; returns its status, and whether its time
    /// was over.
    ///
    /// # Errors
    ///
    /// As for [`Command::run`], and those of `sink`.
    pub fn stream(
        self,
        sink: &mut dyn FnMut(Stream, &[u8]) -> io::Result<()>,
    ) -> Result<(i32, bool)> {
        let request = Request::Exec {
            argv: self.argv,
            timeout_ms: self.timeout.map(|timeout| timeout.as_millis() as u64),
            stdin: self.input.is_some(),
        };
        let limit = self.timeout.map(|timeout| timeout + TIMEOUT_GRACE);
        let outcome = transact(self.lab, self.machine, request, self.input, limit, sink)?;
        let status = if outcome.timed_out {
            TIMED_OUT_STATUS
        } else {
            outcome.status
        };
        Ok((status, outcome.timed_out))
    }
}

/// Makes a request, with input if it takes any, and hands over the output as it comes.
///
/// # Errors
///
/// The machine is [`Gone`], the agent refuses, or `sink` fails.
pub(crate) fn transact(
    lab: &Lab,
    machine: Machine,
    request: Request,
    input: Option<Box<dyn Read + Send>>,
    limit: Option<Duration>,
    sink: &mut dyn FnMut(Stream, &[u8]) -> io::Result<()>,
) -> Result<Outcome> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, lab.port()))
        .map_err(|error| gone(lab, machine, error))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOOK_PERIOD))?;
    let relay = (machine != Machine::Dom0).then(|| machine.agent());
    wire::send_json(&mut &stream, Kind::Request, &Envelope { relay, request })
        .map_err(|error| gone(lab, machine, error))?;
    if let Some(input) = input {
        let to = stream.try_clone()?;
        thread::spawn(move || feed(input, to));
    }
    let now = Instant::now();
    let mut patient = Patient {
        stream: &stream,
        lab,
        machine,
        limit: limit.map(|limit| now + limit),
        heard: now,
        doubted: now,
    };
    let result = converse(&mut patient, sink);
    // Ends the thread that feeds, and takes back the command if it still runs.
    let _ = stream.shutdown(Shutdown::Both);
    result
}

fn converse(
    patient: &mut Patient<'_>,
    sink: &mut dyn FnMut(Stream, &[u8]) -> io::Result<()>,
) -> Result<Outcome> {
    let (lab, machine) = (patient.lab, patient.machine);
    loop {
        let frame = match wire::receive(patient) {
            Ok(frame) => frame,
            // What Patient found out is inside.
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<Verdict>()) => {
                let verdict = error.into_inner().context("verdict")?;
                return Err(verdict
                    .downcast::<Verdict>()
                    .map_or_else(|_| anyhow::anyhow!("verdict"), |v| v.0));
            }
            Err(error) => return Err(gone(lab, machine, error)),
        };
        match frame.kind {
            Kind::Output => sink(Stream::Output, &frame.data)?,
            Kind::ErrorOutput => sink(Stream::ErrorOutput, &frame.data)?,
            Kind::Alive => {}
            Kind::Done => return serde_json::from_slice(&frame.data).context("the agent's answer"),
            Kind::Failed => {
                if let Some(why) = lab.trouble(machine) {
                    return Err(Gone { machine, why }.into());
                }
                bail!("{machine}: {}", String::from_utf8_lossy(&frame.data));
            }
            other => bail!("{machine}: unexpected frame {other:?}"),
        }
    }
}

/// An error that says what is wrong with the machine, if anything is, or else just `error`.
fn gone(lab: &Lab, machine: Machine, error: io::Error) -> anyhow::Error {
    let why = lab
        .trouble(machine)
        .unwrap_or_else(|| format!("does not answer: {error}"));
    Gone { machine, why }.into()
}

fn feed(mut input: Box<dyn Read + Send>, to: TcpStream) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                if wire::send(&mut &to, Kind::Input, &buffer[..n]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A request without the end of its input is never carried out.
            Err(_) => {
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
    }
    let _ = wire::send(&mut &to, Kind::InputEnd, &[]);
}

/// Why a [`Patient`] gave up, on its way through `io::Error`.
#[derive(Debug)]
struct Verdict(anyhow::Error);

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Verdict {}

/// A stream that waits for a machine, but not for a dead one.
struct Patient<'a> {
    stream: &'a TcpStream,
    lab: &'a Lab,
    machine: Machine,
    limit: Option<Instant>,
    /// When the machine last sent something.
    heard: Instant,
    /// When we last looked whether it lives.
    doubted: Instant,
}

impl Patient<'_> {
    fn look(&mut self) -> Result<()> {
        interrupt::check()?;
        let now = Instant::now();
        let machine = self.machine;
        if self.lab.is_away(machine) {
            self.heard = now;
        }
        let silence = now.saturating_duration_since(self.heard);
        if silence >= DOUBT_AFTER && now.saturating_duration_since(self.doubted) >= DOUBT_AFTER {
            self.doubted = now;
            if let Some(why) = self.lab.trouble(machine) {
                return Err(Gone { machine, why }.into());
            }
        }
        if silence >= HUNG_AFTER || self.limit.is_some_and(|limit| now >= limit) {
            let end = self.lab.console_end(machine);
            let why = format!("hangs: nothing heard for {} s\n{end}", silence.as_secs());
            return Err(Gone { machine, why }.into());
        }
        Ok(())
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&mut &*self.stream).read(buffer) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) =>
                {
                    self.look()
                        .map_err(|error| io::Error::other(Verdict(error)))?;
                }
                Ok(n) => {
                    self.heard = Instant::now();
                    self.doubted = self.heard;
                    return Ok(n);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
