// SPDX-License-Identifier: GPL-2.0

//! A process in a guest that makes socket calls for a test, and the sockets that it has.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use lab_driver::{Lab, Machine, Stream};

use crate::bench::patience;

/// Where the program is in the guests.
pub(crate) const PROGRAM: &str = "/bin/xenvmc-peer";

/// Time after which an order counts as hanging: the emulator is slow, so that this is long.
const TIMEOUT: Duration = Duration::from_secs(45);

/// The words of an answer.
pub(crate) struct Answer(BTreeMap<String, String>);

impl Answer {
    /// A word's value; empty if it is not there.
    pub(crate) fn word(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// A word's value as a number; 0 if it is not there.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.word(name).parse().unwrap_or(0)
    }

    /// The name of the error that a call ended with; empty if it did not.
    pub(crate) fn error(&self) -> &str {
        self.word("error")
    }

    /// Bytes that a transfer moved.
    pub(crate) fn bytes(&self) -> u64 {
        self.number("bytes")
    }

    /// Whether a receiver came to the end of the stream.
    pub(crate) fn is_at_end(&self) -> bool {
        self.number("end") == 1
    }

    /// Fails if a call ended with an error.
    pub(crate) fn clean(self) -> Result<Self> {
        ensure!(
            self.error().is_empty(),
            "{} after {} bytes",
            self.error(),
            self.bytes()
        );
        Ok(self)
    }

    /// Fails unless a transfer moved so many bytes, and without an error.
    pub(crate) fn exactly(self, bytes: u64) -> Result<Self> {
        let answer = self.clean()?;
        ensure!(
            answer.bytes() == bytes,
            "{} bytes instead of {bytes}",
            answer.bytes()
        );
        Ok(answer)
    }

    /// Fails unless a receiver got so many bytes and then the end of the stream.
    pub(crate) fn ended(self, bytes: u64) -> Result<Self> {
        let answer = self.exactly(bytes)?;
        ensure!(answer.is_at_end(), "no end of file after {bytes} bytes");
        Ok(answer)
    }

    /// Fails unless a transfer moved so many bytes and then ended with this error.
    pub(crate) fn failed(self, bytes: u64, error: &str) -> Result<Self> {
        let (got, said) = (self.bytes(), self.error());
        ensure!(
            got == bytes && said == error,
            "{got} bytes and {said:?} instead of {bytes} and {error}"
        );
        Ok(self)
    }
}

/// What the process said so far.
#[derive(Default)]
struct Inbox {
    answers: BTreeMap<u64, String>,
    half_line: Vec<u8>,
    /// Why there will be no more.
    end: Option<String>,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    news: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn handle_output(&self, data: &[u8]) {
        let mut inbox = self.lock();
        for byte in data {
            if *byte != b'\n' {
                inbox.half_line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut inbox.half_line)).into_owned();
            let (id, text) = line.split_once(' ').unwrap_or((&line, ""));
            if let Ok(id) = id.parse() {
                inbox.answers.insert(id, text.to_owned());
            }
        }
        self.news.notify_all();
    }
}

/// Orders on their way to the process.
struct Orders(Receiver<Vec<u8>>);

impl Read for Orders {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Orders are short, and there is no more of them when the sender is gone.
        let line = self.0.recv().unwrap_or_default();
        let count = line.len().min(buffer.len());
        buffer[..count].copy_from_slice(&line[..count]);
        Ok(count)
    }
}

/// The process. It ends when this is dropped.
pub(crate) struct Peer {
    machine: Machine,
    timeout: Duration,
    orders: Sender<Vec<u8>>,
    shared: Arc<Shared>,
    last: AtomicU64,
}

impl Peer {
    /// Starts the program in a guest; `wrapper` is what it is started with.
    pub(crate) fn start(lab: &Arc<Lab>, machine: Machine, wrapper: &[&str]) -> Result<Arc<Self>> {
        let line: Vec<String> = wrapper
            .iter()
            .chain(&[PROGRAM])
            .map(|word| (*word).to_owned())
            .collect();
        let (orders, incoming) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let timeout = patience(lab, TIMEOUT);
        let (lab, to) = (lab.clone(), shared.clone());
        thread::spawn(move || {
            let command = lab.command(machine, &line).input(Orders(incoming));
            let result = command.stream(&mut |sink, data| {
                match sink {
                    Stream::Output => to.handle_output(data),
                    Stream::ErrorOutput => eprint!("{machine}: {}", String::from_utf8_lossy(data)),
                }
                Ok(())
            });
            let end = match result {
                Ok((status, _)) => format!("its process ended with status {status}"),
                Err(error) => format!("{error:#}"),
            };
            to.lock().end = Some(end);
            to.news.notify_all();
        });
        let peer = Arc::new(Self {
            machine,
            timeout,
            orders,
            shared,
            last: AtomicU64::new(0),
        });
        peer.order("hello")?.wait()?;
        Ok(peer)
    }

    /// Gives an order and does not wait for the answer.
    pub(crate) fn order(self: &Arc<Self>, order: &str) -> Result<Pending> {
        let id = self.last.fetch_add(1, Relaxed) + 1;
        let line = format!("{id} {order}\n");
        let pending = Pending {
            peer: self.clone(),
            id,
            what: order.to_owned(),
        };
        self.orders
            .send(line.into_bytes())
            .ok()
            .context("the process is gone")?;
        Ok(pending)
    }

    /// Listens at an address.
    pub(crate) fn listen(self: &Arc<Self>, address: SocketAddr) -> Result<Socket> {
        self.listen_as(address, "")
    }

    /// The same by an order that has these words.
    pub(crate) fn listen_as(self: &Arc<Self>, address: SocketAddr, words: &str) -> Result<Socket> {
        self.order(&format!("listen address={address} {words}"))?
            .wait()
            .map(|answer| self.socket(&answer))
    }

    /// Connects to an address.
    pub(crate) fn connect(self: &Arc<Self>, address: SocketAddr) -> Result<Socket> {
        self.connect_as(address, "")
    }

    /// The same by an order that has these words.
    pub(crate) fn connect_as(self: &Arc<Self>, address: SocketAddr, words: &str) -> Result<Socket> {
        self.order(&format!("connect address={address} {words}"))?
            .wait()
            .map(|answer| self.socket(&answer))
    }

    /// Makes a UDP socket that is bound to `address`, and connected to `to`.
    pub(crate) fn udp(
        self: &Arc<Self>,
        address: SocketAddr,
        to: Option<SocketAddr>,
    ) -> Result<Socket> {
        self.datagrams("udp", address, to)
    }

    /// The same with UDP-Lite.
    pub(crate) fn udp_lite(
        self: &Arc<Self>,
        address: SocketAddr,
        to: Option<SocketAddr>,
    ) -> Result<Socket> {
        self.datagrams("udp-lite", address, to)
    }

    fn datagrams(
        self: &Arc<Self>,
        verb: &str,
        address: SocketAddr,
        to: Option<SocketAddr>,
    ) -> Result<Socket> {
        let to = to.map_or(String::new(), |to| format!(" to={to}"));
        self.order(&format!("{verb} address={address}{to}"))?
            .wait()
            .map(|answer| self.socket(&answer))
    }

    /// Gives an order for each socket from `first` to `last`, which this process made one after the other. They are carried out
    /// one after the other.
    pub(crate) fn each(
        self: &Arc<Self>,
        first: &Socket,
        last: &Socket,
        order: &str,
    ) -> Result<Answer> {
        let (first, last) = (first.handle, last.handle);
        let answer = self
            .order(&format!("each first={first} last={last} verb={order}"))?
            .wait()?;
        ensure!(
            answer.number("count") == last - first + 1,
            "{}: {order} for {} sockets from {first} to {last}",
            self.machine,
            answer.number("count")
        );
        Ok(answer)
    }

    /// Time after which an order counts as hanging.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    fn socket(self: &Arc<Self>, answer: &Answer) -> Socket {
        let handle = answer.number("socket");
        Socket {
            peer: self.clone(),
            handle,
            local: answer.number("local"),
        }
    }

    /// How many SIGUSR1 and SIGPIPE the process got; with `restart`, says whether they restart calls.
    pub(crate) fn signals(self: &Arc<Self>, restart: Option<bool>) -> Result<[u64; 2]> {
        let order = restart.map_or("signals".into(), |on| {
            format!("signals restart={}", u8::from(on))
        });
        let answer = self.order(&order)?.wait()?;
        Ok([answer.number("usr1"), answer.number("pipe")])
    }

    /// Ends the process by SIGKILL, whatever its threads do, and waits until it is gone.
    pub(crate) fn kill(self: &Arc<Self>) -> Result<()> {
        // There is no answer to this one.
        self.order("die")?;
        let deadline = Instant::now() + self.timeout;
        let mut inbox = self.shared.lock();
        while inbox.end.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(
                !left.is_zero(),
                "{}: a killed process does not end",
                self.machine
            );
            inbox = self
                .shared
                .news
                .wait_timeout(inbox, left)
                .unwrap_or_else(|e| e.into_inner())
                .0;
        }
        Ok(())
    }
}

/// An order that is being carried out.
pub(crate) struct Pending {
    peer: Arc<Peer>,
    id: u64,
    what: String,
}

impl Pending {
    /// Waits for the answer.
    pub(crate) fn wait(self) -> Result<Answer> {
        let (machine, what) = (self.peer.machine, &self.what);
        let deadline = Instant::now() + self.peer.timeout;
        let shared = &self.peer.shared;
        let mut inbox = shared.lock();
        loop {
            if let Some(text) = inbox.answers.remove(&self.id) {
                if let Some(why) = text.strip_prefix("failed=") {
                    bail!("{machine}: {what}: {why}");
                }
                let pairs = text
                    .split_whitespace()
                    .filter_map(|word| word.split_once('='));
                return Ok(Answer(
                    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
                ));
            }
            if let Some(end) = &inbox.end {
                bail!("{machine}: {what}: {end}");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(
                !left.is_zero(),
                "{machine}: {what}: hangs, no end after {} s",
                self.peer.timeout.as_secs()
            );
            inbox = shared
                .news
                .wait_timeout(inbox, left)
                .unwrap_or_else(|e| e.into_inner())
                .0;
        }
    }

    /// Whether there is no answer yet.
    pub(crate) fn is_running(&self) -> bool {
        !self.peer.shared.lock().answers.contains_key(&self.id)
    }

    /// Waits until the call sleeps; fails if it ends instead.
    pub(crate) fn wait_asleep(&self) -> Result<()> {
        ensure!(
            self.sleeps()?,
            "{}: {} did not sleep",
            self.peer.machine,
            self.what
        );
        Ok(())
    }

    /// Waits until the call sleeps or the order is carried out; returns whether it sleeps.
    pub(crate) fn sleeps(&self) -> Result<bool> {
        let answer = self
            .peer
            .order(&format!("asleep order={}", self.id))?
            .wait()?;
        Ok(answer.number("over") == 0)
    }

    /// Sends SIGUSR1 to the thread that makes the call.
    pub(crate) fn interrupt(&self) -> Result<()> {
        self.peer
            .order(&format!("interrupt order={}", self.id))?
            .wait()?
            .clean()
            .map(drop)
    }
}

/// A socket of a [`Peer`].
pub(crate) struct Socket {
    peer: Arc<Peer>,
    handle: u64,
    local: u64,
}

impl Socket {
    /// The process that has it.
    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Its own port.
    pub(crate) fn port(&self) -> u64 {
        self.local
    }

    /// Gives an order for it and does not wait for the answer.
    pub(crate) fn start(&self, order: &str) -> Result<Pending> {
        let (verb, words) = order.split_once(' ').unwrap_or((order, ""));
        self.peer
            .order(&format!("{verb} socket={} {words}", self.handle))
    }

    /// Gives an order for it and waits for the answer.
    pub(crate) fn call(&self, order: &str) -> Result<Answer> {
        self.start(order)?.wait()
    }

    /// Accepts a connection.
    pub(crate) fn accept(&self) -> Result<Self> {
        self.call("accept").map(|answer| self.peer.socket(&answer))
    }

    /// Says which bytes travel.
    pub(crate) fn set_seeds(&self, tx: u64, rx: u64) -> Result<()> {
        self.call(&format!("seed tx={tx} rx={rx}")).map(drop)
    }

    /// Sets an option.
    pub(crate) fn set(&self, name: &str, value: i32) -> Result<()> {
        self.call(&format!("set name={name} value={value}"))?
            .clean()
            .map(drop)
    }

    /// Sends so many bytes of the stream.
    pub(crate) fn send(&self, bytes: u64) -> Result<()> {
        self.call(&format!("send bytes={bytes}"))?
            .exactly(bytes)
            .map(drop)
    }

    /// Sends what can be sent without waiting, at most `limit` bytes; returns how many.
    pub(crate) fn fill(&self, limit: u64) -> Result<u64> {
        let answer = self.call(&format!("send bytes={limit} mode=never max=8192"))?;
        ensure!(
            ["", "EAGAIN"].contains(&answer.error()),
            "{}",
            answer.error()
        );
        Ok(answer.bytes())
    }

    /// Receives and checks so many bytes of the stream.
    pub(crate) fn receive(&self, bytes: u64) -> Result<()> {
        self.call(&format!("recv bytes={bytes}"))?
            .exactly(bytes)
            .map(drop)
    }

    /// Receives and checks what comes until the end of the stream, or an error.
    pub(crate) fn receive_all(&self) -> Result<Answer> {
        self.call("recv")
    }

    /// shutdown(2): `read`, `write` or `both`.
    pub(crate) fn shutdown(&self, how: &str) -> Result<()> {
        self.call(&format!("shutdown how={how}"))?.clean().map(drop)
    }

    /// Sends a byte of urgent data.
    pub(crate) fn send_urgent(&self) -> Result<()> {
        self.call("urgent")?.clean().map(drop)
    }

    /// close(2).
    pub(crate) fn close(&self) -> Result<()> {
        self.call("close")?.clean().map(drop)
    }

    /// What the module of its guest says about the connection.
    pub(crate) fn state(&self) -> Result<Answer> {
        self.call("state")
    }
}
