// SPDX-License-Identifier: GPL-2.0

//! Guests that are saved, restored, copied and migrated, with whatever runs in them.

use std::{
    fmt,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use lab_driver::{Lab, Machine};

use crate::bench::patience;

/// Time for one of Xen's tools to save, restore or migrate a guest: it moves all of its memory.
const TIMEOUT: Duration = Duration::from_secs(180);

/// Time in which a guest that is back must answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// Time in which one that boots must answer: the same as when the lab was made.
const BOOT_TIMEOUT: Duration = Duration::from_secs(240);

/// Time that one attempt to reach it may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(8);

/// Waits until a counter of the guest's module is larger than before, and then until its network device is connected, so many of its
/// connections send and receive through the ring, and so many have received something that way; writes down when all of that was. Runs
/// in the guest, on its own: nobody listens to it while the guest is away. One that a failed test has left is ended first.
const STOPWATCH: &str = "kill $(cat /tmp/stopwatch.pid) 2>/dev/null
rm -f /tmp/stopwatch
cd /sys/kernel/debug/xenvmc
(
count() { sed -n 's/^COUNTER //p' counters; }
while [ $(count) -le BEFORE ]; do usleep 20000; done
read start rest </proc/uptime
cat connections >/tmp/connections
network= ring= flow=
flows() {
	awk 'NR == FNR { before[$2 $4] = $NF; next } $NF != before[$2 $4] { n++ } END { print n + 0 }' /tmp/connections connections
}
until [ \"$network\" ] && [ \"$ring\" ] && [ \"$flow\" ]; do
	read now rest </proc/uptime
	read carrier </sys/class/net/eth0/carrier
	[ \"$network\" ] || [ \"$carrier\" != 1 ] || network=$now
	[ \"$ring\" ] || [ $(grep -c ' sends_to=ring receives_ready=1 ' connections) -lt CONNECTIONS ] || ring=$now
	[ \"$flow\" ] || [ ! \"$ring\" ] || [ $(flows) -lt CONNECTIONS ] || flow=$now
	usleep 5000
done
echo $start $network $ring $flow >/tmp/stopwatch.new
mv /tmp/stopwatch.new /tmp/stopwatch
) </dev/null >/dev/null 2>&1 &
echo $! >/tmp/stopwatch.pid";

/// Measures how long it takes a guest to be on the ring again after something that one of the two has gone through.
pub(crate) struct Stopwatch {
    lab: Arc<Lab>,
    guest: Machine,
}

/// What a [`Stopwatch`] found, in seconds.
pub(crate) struct Times {
    /// Until the network device was connected.
    network: f64,
    /// Until all connections sent and received through the ring.
    ring: f64,
    /// Until all of them had received something that way, which TCP's own bytes come before.
    flow: f64,
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            network,
            ring,
            flow,
        } = self;
        write!(
            f,
            "on the network after {network:.2} s, on the ring after {ring:.2} s, bytes through it after {flow:.2} s"
        )
    }
}

impl Stopwatch {
    /// Starts to measure, from when a counter of the guest's module is larger than `before`, until so many of its connections are on
    /// the ring.
    pub(crate) fn start(
        lab: &Arc<Lab>,
        guest: Machine,
        counter: &str,
        before: u64,
        connections: usize,
    ) -> Result<Self> {
        let line = STOPWATCH
            .replace("COUNTER", counter)
            .replace("BEFORE", &before.to_string())
            .replace("CONNECTIONS", &connections.to_string());
        lab.shell(guest, &line)?;
        let lab = lab.clone();
        Ok(Self { lab, guest })
    }

    /// What it found, when it has found everything.
    pub(crate) fn stop(self) -> Result<Times> {
        let start = Instant::now();
        let said = loop {
            let said = self
                .lab
                .shell(self.guest, "cat /tmp/stopwatch 2>/dev/null || :")?
                .text();
            if !said.is_empty() {
                break said;
            }
            ensure!(
                start.elapsed() < patience(&self.lab, ANSWER_TIMEOUT),
                "{}: the stopwatch does not stop",
                self.guest
            );
        };
        let times: Vec<f64> = said
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [start, network, ring, flow] = times[..] else {
            bail!("the stopwatch says {said:?}");
        };
        Ok(Times {
            network: network - start,
            ring: ring - start,
            flow: flow - start,
        })
    }
}

/// Suspends a guest, saves it in a file, and restores it from there: a new domain goes on where the old one was.
pub(crate) fn save_and_restore(lab: &Lab, guest: Machine) -> Result<()> {
    save_and_restore_all(lab, &[guest])
}

/// The same with several: all are saved before the first one is restored.
pub(crate) fn save_and_restore_all(lab: &Lab, guests: &[Machine]) -> Result<()> {
    let Some((guest, others)) = guests.split_first() else {
        return Ok(());
    };
    lab.while_away(*guest, || {
        let file = file(*guest);
        tool(
            lab,
            &format!("xl save {guest} {file} || {{ status=$?; rm -f {file}; exit $status; }}"),
        )?;
        save_and_restore_all(lab, others)?;
        with_file(lab, *guest, "xl restore")?;
        wait_answer(lab, *guest)
    })
}

/// Saves a guest in a file and lets it go on.
pub(crate) fn checkpoint(lab: &Lab, guest: Machine) -> Result<()> {
    lab.while_away(guest, || {
        with_file(lab, guest, &format!("xl save -c {guest}"))?;
        wait_answer(lab, guest)
    })
}

/// Does something while a guest stands still.
pub(crate) fn while_paused<R>(
    lab: &Lab,
    guest: Machine,
    what: impl FnOnce() -> Result<R>,
) -> Result<R> {
    lab.while_away(guest, || {
        tool(lab, &format!("xl pause {guest}"))?;
        let result = what();
        tool(lab, &format!("xl unpause {guest}"))?;
        result
    })
}

/// Migrates a guest, while it runs, to a new domain on the same host.
pub(crate) fn migrate(lab: &Lab, guest: Machine) -> Result<()> {
    lab.while_away(guest, || {
        tool(
            lab,
            &format!("xl migrate -s '' {guest} 'xl migrate-receive'"),
        )?;
        wait_answer(lab, guest)
    })
}

/// What receives a guest that migrates, and fails.
#[derive(Clone, Copy)]
pub(crate) enum Receiver {
    /// Ends when the guest, which still runs, has begun to come.
    Early,
    /// Ends when it has got all of the guest, before it says so. It leaves a domain.
    Late,
    /// Says that it has got all of the guest, and then that the new domain cannot be started.
    Refusing,
}

impl Receiver {
    /// The shell's command line. The sender reads what `xl migrate-receive` says step by step, so that all of it can be said at once.
    fn line(self) -> String {
        let ready = "printf 'xl migration receiver ready, send binary domain data.\\n'";
        match self {
            Self::Early => format!("{ready}; head -c 1000000 >/dev/null"),
            Self::Late => "xl migrate-receive | head -n 1".to_owned(),
            Self::Refusing => format!(
                "{ready}; printf 'domain received, ready to unpause\\0'; \
                 printf 'my copy unpause results are as follows\\0\\1'; \
                 printf 'domain is yours, you are cleared to unpause\\0'; cat >/dev/null"
            ),
        }
    }
}

/// Migrates a guest to the same host, where that fails: it goes on where it was.
pub(crate) fn fail_to_migrate(lab: &Lab, guest: Machine, receiver: Receiver) -> Result<()> {
    let receive = "/tmp/receive";
    let script = receiver.line().into_bytes();
    lab.push_bytes(script, 0o644, Machine::Dom0, receive)?;
    let domid = format!("xl domid {guest}");
    let before = lab.shell(Machine::Dom0, &domid)?.text();
    lab.while_away(guest, || {
        let line = format!("xl migrate -s '' {guest} 'sh {receive}'");
        let command = lab.command(Machine::Dom0, &["/bin/sh", "-c", &line]);
        let output = command.timeout(patience(lab, TIMEOUT)).run()?;
        ensure!(!output.timed_out, "{line} hangs");
        ensure!(output.success().is_err(), "{guest} has migrated");
        if matches!(receiver, Receiver::Late) {
            tool(lab, &format!("xl destroy {guest}--incoming"))?;
        }
        wait_answer(lab, guest)
    })?;
    ensure!(
        lab.shell(Machine::Dom0, &domid)?.text() == before,
        "{guest} is another domain"
    );
    Ok(())
}

/// Keeps a copy of a guest, which goes on. One that is made of it has the same number.
pub(crate) fn keep_copy(lab: &Lab, guest: Machine) -> Result<()> {
    lab.while_away(guest, || {
        tool(lab, &format!("xl save -c -D {guest} {}", file(guest)))?;
        wait_answer(lab, guest)
    })
}

/// Makes a guest of that copy, whose domain is gone.
pub(crate) fn restore_copy(lab: &Lab, guest: Machine) -> Result<()> {
    with_file(lab, guest, &format!("{REUSE} xl restore"))
}

/// The tools would not give a number again that was used a minute ago.
const REUSE: &str = "LIBXL_DOMID_REUSE_TIMEOUT=0";

/// Where a host waits for a guest.
const PORT: u16 = 7000;

/// Bytes of a guest that are sent at once.
const PIECE: usize = 1 << 18;

/// Migrates a guest from one host to another, where it has the same number; its agent is reached through the first host of its networks, `home`.
pub(crate) fn migrate_to(home: &Lab, guest: Machine, from: &Lab, to: &Lab) -> Result<()> {
    let line =
        format!("{REUSE} socat TCP-LISTEN:{PORT},reuseaddr EXEC:'xl migrate-receive',nofork");
    home.while_away(guest, || {
        thread::scope(|scope| {
            let receiver = scope.spawn(|| tool(to, &line));
            let address = to.host_address();
            // The receiver may be a moment later than we are. Xen's tools write large pieces.
            let connect =
                format!("socat -b {PIECE} STDIO TCP:{address}:{PORT},retry=50,interval=0.1");
            let sent = tool(
                from,
                &format!("xl migrate -D -s \"\" {guest} \"{connect}\""),
            );
            let received = receiver.join().expect("the receiver panicked");
            sent.and(received)
        })?;
        wait_answer(home, guest)
    })
}

/// The file: in Dom0's memory, for which the lab's option `spare` leaves room. /tmp has another, lower limit.
fn file(guest: Machine) -> String {
    format!("/var/{guest}.save")
}

/// Runs a command line that ends with the file, which is removed afterwards.
fn with_file(lab: &Lab, guest: Machine, line: &str) -> Result<()> {
    let file = file(guest);
    tool(
        lab,
        &format!("{line} {file}; status=$?; rm -f {file}; exit $status"),
    )
}

fn tool(lab: &Lab, line: &str) -> Result<()> {
    let command = lab.command(Machine::Dom0, &["/bin/sh", "-c", line]);
    let output = command.timeout(patience(lab, TIMEOUT)).run()?;
    output.success().with_context(|| line.to_owned()).map(drop)
}

/// Makes a guest of the lab, which is not there, anew. For [`crate::bench::Bench::anew`], which waits for it.
pub(crate) fn create(lab: &Lab, guest: Machine) -> Result<()> {
    tool(lab, &format!("xl create -q /lab/{guest}.cfg"))
}

/// Waits until a guest answers that boots.
pub(crate) fn wait_boot(lab: &Lab, guest: Machine) -> Result<()> {
    wait_answer_for(lab, guest, BOOT_TIMEOUT)
}

/// Waits until a guest answers that was away.
pub(crate) fn wait_answer(lab: &Lab, guest: Machine) -> Result<()> {
    wait_answer_for(lab, guest, ANSWER_TIMEOUT)
}

fn wait_answer_for(lab: &Lab, guest: Machine, timeout: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        let command = lab.command(guest, &["true"]);
        match command.timeout(ATTEMPT_TIMEOUT).run() {
            Ok(_) => return Ok(()),
            Err(error) if start.elapsed() > patience(lab, timeout) => {
                return Err(error.context("the guest is back, and does not answer"));
            }
            Err(_) => {}
        }
    }
}
