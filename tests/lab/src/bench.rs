// SPDX-License-Identifier: GPL-2.0

//! What a test works with: a lab, its modules, and what they report.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    env,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use lab_driver::{Lab, Machine, Options, Output, Progress};

use crate::{
    logs::Logs,
    pair::Pair,
    peer::{PROGRAM, Peer},
    travel,
};

/// The first guest, which connects.
pub(crate) const GUEST1: Machine = Machine::Guest(1);

/// The second guest, which accepts.
pub(crate) const GUEST2: Machine = Machine::Guest(2);

/// Both.
pub(crate) const GUESTS: [Machine; 2] = [GUEST1, GUEST2];

/// The other one of the two.
pub(crate) fn other(guest: Machine) -> Machine {
    if guest == GUEST1 { GUEST2 } else { GUEST1 }
}

/// Where the conformance suite is in the guests.
pub(crate) const CONFORMANCE: &str = "/bin/xenvmc-conformance";

/// Where the modules show what they do.
pub(crate) const REPORTS: &str = "/sys/kernel/debug/xenvmc";

/// Time in which what must come has come.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Time for small commands.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// How often we look.
const LOOK_PERIOD: Duration = Duration::from_millis(200);

/// Where kmemleak takes orders, and reports.
const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// Finds memory that nothing points to. What is younger than five seconds is not reported, nor what has changed since the scan
/// before.
const SCAN: &str = "sleep 5; for n in 1 2; do echo scan >/sys/kernel/debug/kmemleak || exit; done; \
     cat /sys/kernel/debug/kmemleak";

/// Time for that: each scan reads the whole memory.
const SCAN_TIMEOUT: Duration = Duration::from_secs(600);

/// Rounds of exchanges in which many connections must all have got to the ring.
const ROUNDS: usize = 20;

/// The first port that tests listen on.
const FIRST_PORT: u16 = 20000;

/// How many times as long as usual everything may take with the debug kernel.
const DEBUG_FACTOR: u32 = 4;

/// Time for what usually has so much, in this lab.
pub(crate) fn patience(lab: &Lab, usual: Duration) -> Duration {
    match lab.options().debug_kernel {
        true => usual * DEBUG_FACTOR,
        false => usual,
    }
}

/// How long what goes on for long does so, if nothing else is said.
const SOAK_MINUTES: u64 = 60;

/// The environment's SOAK_MINUTES.
pub(crate) fn soak_minutes() -> Result<u64> {
    Ok(environment_number("SOAK_MINUTES")?.unwrap_or(SOAK_MINUTES))
}

/// A number from the environment.
pub(crate) fn environment_number(name: &str) -> Result<Option<u64>> {
    match env::var(name) {
        Ok(text) if !text.is_empty() => {
            let number = text.parse();
            Ok(Some(number.with_context(|| format!("{name}={text}"))?))
        }
        _ => Ok(None),
    }
}

/// Puts the programs that run in the guests into one of them.
fn equip(lab: &Lab, programs: &Path, guest: Machine) -> Result<()> {
    lab.push(&programs.join("xenvmc-peer"), guest, PROGRAM)?;
    lab.push(&programs.join("xenvmc-conformance"), guest, CONFORMANCE)
}

/// A lab, for one test after the other.
pub(crate) struct Bench {
    lab: Arc<Lab>,
    /// Where the programs for the guests are.
    programs: PathBuf,
    /// What is not as usual, besides what is in `loaded`.
    dirty: Cell<bool>,
    /// The machines whose module is loaded, with its parameters.
    loaded: RefCell<BTreeMap<Machine, String>>,
    /// The lab is of no use any more.
    spent: Cell<bool>,
    /// Guests that are not there any more.
    destroyed: RefCell<Vec<Machine>>,
    next_port: Cell<u16>,
    peers: RefCell<BTreeMap<Machine, Arc<Peer>>>,
    logs: RefCell<Logs>,
}

impl Bench {
    /// Prepares a lab that is up; `programs` is where those for the guests are.
    pub(crate) fn new(lab: Lab, programs: &Path) -> Result<Self> {
        for guest in GUESTS {
            equip(&lab, programs, guest)?;
        }
        Ok(Self {
            lab: Arc::new(lab),
            programs: programs.to_owned(),
            dirty: Cell::new(true),
            loaded: RefCell::default(),
            spent: Cell::new(false),
            destroyed: RefCell::default(),
            next_port: Cell::new(FIRST_PORT),
            peers: RefCell::default(),
            logs: RefCell::default(),
        })
    }

    /// Puts the programs into a guest that the usual tests do not use.
    pub(crate) fn equip(&self, guest: Machine) -> Result<()> {
        equip(&self.lab, &self.programs, guest)
    }

    /// Where the programs for the guests are, and those of the lab.
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }

    /// The lab.
    pub(crate) fn lab(&self) -> &Arc<Lab> {
        &self.lab
    }

    /// Whether the guests' kernel checks itself.
    pub(crate) fn has_debug_kernel(&self) -> bool {
        self.lab.options().debug_kernel
    }

    /// Makes sure that the debug kernel's checks are on; what they have found until now is not the tests' business.
    pub(crate) fn begin_checks(&self) -> Result<()> {
        if !self.has_debug_kernel() {
            return Ok(());
        }
        for guest in GUESTS {
            let line = "grep -q 'debug_locks: *1' /proc/lockdep_stats";
            self.shell(guest, line).context("lockdep is off")?;
        }
        self.unreferenced()?;
        for guest in GUESTS {
            self.shell(guest, &format!("echo clear >{KMEMLEAK}"))?;
        }
        Ok(())
    }

    /// What the guests' kernels have allocated since the checks began and lost.
    pub(crate) fn unreferenced(&self) -> Result<[String; 2]> {
        let lab = &self.lab;
        let scan = move |guest| {
            let scan = lab.command(guest, &["/bin/sh", "-c", SCAN]);
            Ok::<_, anyhow::Error>(scan.timeout(SCAN_TIMEOUT).run()?.success()?.text())
        };
        thread::scope(|scope| {
            let scans = GUESTS.map(|guest| scope.spawn(move || scan(guest)));
            let [first, second] = scans.map(|scan| scan.join().expect("a scan panicked"));
            Ok([first?, second?])
        })
    }

    /// Ends the lab.
    pub(crate) fn down(self) -> Result<()> {
        self.peers.borrow_mut().clear();
        Lab::down_by_name(self.lab.name()).map(drop)
    }

    /// Loads the modules as usual, unless that is how they are.
    pub(crate) fn reset(&self) -> Result<()> {
        self.peers.borrow_mut().clear();
        if self.dirty.replace(false) || !self.is_loaded_as_usual() {
            self.unload_all()?;
            return self.load_all();
        }
        self.wait_peers()
    }

    fn is_loaded_as_usual(&self) -> bool {
        let loaded = self.loaded.borrow();
        loaded.len() == 3 && loaded.values().all(String::is_empty)
    }

    /// What is so after each test: all connections are over.
    pub(crate) fn after(&self) -> Result<()> {
        self.peers.borrow_mut().clear();
        if self.is_spent() {
            Ok(())
        } else {
            self.wait_no_connections()
        }
    }

    /// Takes a guest's life; the next test needs another lab.
    pub(crate) fn destroy(&self, guest: Machine) -> Result<()> {
        self.collect_logs();
        self.spent.set(true);
        self.destroyed.borrow_mut().push(guest);
        self.shell(Machine::Dom0, &format!("xl destroy {guest}"))
            .map(drop)
    }

    /// Another host on the networks of this lab, without guests and with no module loaded.
    pub(crate) fn another_host(&self) -> Result<Lab> {
        let name = format!("{}-2", self.lab.name());
        Lab::down_by_name(&name)?;
        let options = Options {
            join: Some(self.lab.name().to_owned()),
            no_modules: true,
            ..Options::default()
        };
        Lab::up(&name, &options, &mut Progress::to_stderr())
    }

    /// Does what makes a guest boot anew, and waits until it is there again, with all that tests need.
    pub(crate) fn anew(&self, guest: Machine, what: impl FnOnce() -> Result<()>) -> Result<()> {
        self.collect_logs();
        self.loaded.borrow_mut().remove(&guest);
        self.dirty.set(true);
        self.lab.while_away(guest, || {
            what()?;
            self.peers.borrow_mut().remove(&guest);
            travel::wait_boot(&self.lab, guest)
        })?;
        equip(&self.lab, &self.programs, guest)?;
        // As the lab did at first.
        let module = self.lab.directory().join("xenvmc_frontend.ko");
        self.lab
            .push(&module, guest, "/lib/xenvmc/xenvmc_frontend.ko")
    }

    /// The machines that are there.
    fn machines(&self) -> impl Iterator<Item = Machine> {
        let destroyed = self.destroyed.borrow().clone();
        let all = self.lab.machines();
        all.filter(move |machine| !destroyed.contains(machine))
    }

    /// The next test needs another lab.
    pub(crate) fn set_spent(&self) {
        self.spent.set(true);
    }

    /// Whether the next test needs another lab.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent.get()
    }

    /// The next test finds the modules loaded anew, whatever they are like now.
    pub(crate) fn set_dirty(&self) {
        self.dirty.set(true);
    }

    /// Runs a shell's command line that shall succeed; returns what it prints.
    pub(crate) fn shell(&self, machine: Machine, line: &str) -> Result<String> {
        let output = self.try_shell(machine, line)?.success();
        Ok(output.with_context(|| format!("{machine}: {line}"))?.text())
    }

    /// Runs a shell's command line.
    pub(crate) fn try_shell(&self, machine: Machine, line: &str) -> Result<Output> {
        self.lab
            .command(machine, &["/bin/sh", "-c", line])
            .timeout(patience(&self.lab, COMMAND_TIMEOUT))
            .run()
    }

    /// The process that makes a guest's socket calls; it ends with the test.
    pub(crate) fn peer(&self, guest: Machine) -> Result<Arc<Peer>> {
        if let Some(peer) = self.peers.borrow().get(&guest) {
            return Ok(peer.clone());
        }
        let peer = self.another_peer(guest)?;
        self.peers.borrow_mut().insert(guest, peer.clone());
        Ok(peer)
    }

    /// One more such process.
    pub(crate) fn another_peer(&self, guest: Machine) -> Result<Arc<Peer>> {
        Peer::start(&self.lab, guest, &[])
    }

    /// One in a network namespace of a guest.
    pub(crate) fn peer_in_namespace(&self, guest: Machine, name: &str) -> Result<Arc<Peer>> {
        Peer::start(&self.lab, guest, &["ip", "netns", "exec", name])
    }

    /// A port that no test had before.
    pub(crate) fn port(&self) -> u16 {
        let port = self.next_port.get();
        self.next_port.set(port + 1);
        port
    }

    /// A new connection, accelerated.
    pub(crate) fn pair(&self) -> Result<Pair> {
        let pair = self.plain_pair()?;
        pair.accelerate()?;
        Ok(pair)
    }

    /// A new connection through which nothing has gone.
    pub(crate) fn plain_pair(&self) -> Result<Pair> {
        Ok(self.plain_pairs(1)?.remove(0))
    }

    /// New connections through which nothing has gone.
    pub(crate) fn plain_pairs(&self, count: usize) -> Result<Vec<Pair>> {
        self.pairs_between(
            &self.peer(GUEST1)?,
            &self.peer(GUEST2)?,
            GUEST2.address().into(),
            count,
        )
    }

    /// New connections between two processes, to an address of the second one's guest.
    pub(crate) fn pairs_between(
        &self,
        from: &Arc<Peer>,
        to: &Arc<Peer>,
        address: IpAddr,
        count: usize,
    ) -> Result<Vec<Pair>> {
        let address = SocketAddr::new(address, self.port());
        let listener = to.listen(address)?;
        let pair = |index| {
            let (a, b) = (from.connect(address)?, listener.accept()?);
            Pair::new(a, b, (u64::from(address.port()) << 32) | index as u64)
        };
        let pairs = (0..count).map(pair).collect();
        listener.close()?;
        pairs
    }

    /// Loads the backend.
    pub(crate) fn load_backend(&self) -> Result<()> {
        self.shell(Machine::Dom0, "insmod /lib/xenvmc/xenvmc_backend.ko")?;
        self.loaded
            .borrow_mut()
            .insert(Machine::Dom0, String::new());
        Ok(())
    }

    /// Removes the backend, if it is there.
    pub(crate) fn unload_backend(&self) -> Result<()> {
        self.unload_module(Machine::Dom0, "xenvmc_backend")
    }

    /// Loads the backend and both frontends, and waits until the guests see each other.
    pub(crate) fn load_all(&self) -> Result<()> {
        self.load_backend()?;
        for guest in GUESTS {
            self.load(guest, "")?;
        }
        self.wait_peers()
    }

    /// Loads a guest's frontend, with these parameters.
    pub(crate) fn load(&self, guest: Machine, parameters: &str) -> Result<()> {
        let line = format!("insmod /lib/xenvmc/xenvmc_frontend.ko {parameters}");
        self.shell(guest, &line)?;
        self.loaded
            .borrow_mut()
            .insert(guest, parameters.to_owned());
        Ok(())
    }

    /// Removes a guest's frontend, if it is there.
    pub(crate) fn unload(&self, guest: Machine) -> Result<()> {
        self.unload_module(guest, "xenvmc_frontend")
    }

    /// Loads both frontends anew, with these parameters.
    pub(crate) fn reload(&self, parameters: &str) -> Result<()> {
        for guest in GUESTS {
            self.unload(guest)?;
        }
        for guest in GUESTS {
            self.load(guest, parameters)?;
        }
        self.wait_peers()
    }

    /// Removes all modules.
    pub(crate) fn unload_all(&self) -> Result<()> {
        for guest in GUESTS {
            self.unload(guest)?;
        }
        self.unload_backend()
    }

    /// Removes a module from a machine, if it is there.
    pub(crate) fn unload_module(&self, machine: Machine, module: &str) -> Result<()> {
        self.loaded.borrow_mut().remove(&machine);
        let line = format!("[ ! -e /sys/module/{module} ] || rmmod {module}");
        let output = self.try_shell(machine, &line)?;
        ensure!(!output.timed_out, "{machine}: rmmod {module} hangs");
        output
            .success()
            .with_context(|| format!("{machine}: rmmod {module}"))
            .map(drop)
    }

    /// Waits until both guests see each other.
    pub(crate) fn wait_peers(&self) -> Result<()> {
        for (guest, other) in [(GUEST1, GUEST2), (GUEST2, GUEST1)] {
            self.wait_peer(guest, &other.address().to_string())?;
        }
        Ok(())
    }

    /// Waits until a guest sees a peer with this address.
    pub(crate) fn wait_peer(&self, guest: Machine, address: &str) -> Result<()> {
        self.wait(&format!("{guest} sees {address}"), || {
            self.sees(guest, address)
        })
    }

    /// Whether a guest sees a peer with this address.
    pub(crate) fn sees(&self, guest: Machine, address: &str) -> Result<bool> {
        let report = self.report(guest, "peers")?;
        let addresses = report
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("addresses="));
        Ok(addresses
            .flat_map(|list| list.split(','))
            .any(|other| other == address))
    }

    /// Waits until something is so.
    pub(crate) fn wait(&self, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let (start, timeout) = (Instant::now(), patience(&self.lab, TIMEOUT));
        while !is_so()? {
            if start.elapsed() > timeout {
                bail!("this has not come true in {} s: {what}", timeout.as_secs());
            }
            thread::sleep(LOOK_PERIOD);
        }
        Ok(())
    }

    /// One of the files in which the modules report; empty if it is not there.
    pub(crate) fn report(&self, machine: Machine, file: &str) -> Result<String> {
        self.shell(machine, &format!("cat {REPORTS}/{file} 2>/dev/null || :"))
    }

    /// Writes to one of them.
    pub(crate) fn set(&self, machine: Machine, file: &str, value: &str) -> Result<()> {
        self.dirty.set(true);
        self.shell(machine, &format!("echo {value} >{REPORTS}/{file}"))
            .map(drop)
    }

    /// A counter.
    pub(crate) fn counter(&self, machine: Machine, name: &str) -> Result<u64> {
        let report = self.report(machine, "counters")?;
        let found = report
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        found.with_context(|| format!("{machine} has no counter {name}"))
    }

    /// How often the guests' modules, as they are loaded now, have reset a connection.
    pub(crate) fn resets(&self) -> Result<u64> {
        let counts = GUESTS.map(|guest| self.counter(guest, "connections_reset"));
        counts.into_iter().sum()
    }

    /// Waits until all these connections are on the ring both ways.
    pub(crate) fn wait_on_ring(&self, pairs: &[Pair]) -> Result<()> {
        pairs
            .iter()
            .try_for_each(|pair| self.wait("it is on the ring", || pair.is_accelerated()))
    }

    /// How often a connection of a guest was declined for a reason, by the guest or by its peer.
    pub(crate) fn declines(&self, guest: Machine, reason: &str) -> Result<[u64; 2]> {
        let report = self.report(guest, "declines")?;
        let line = report
            .lines()
            .find(|line| line.split_whitespace().nth(1) == Some(reason));
        let line = line.with_context(|| format!("{guest} has no reason {reason}"))?;
        let numbers: Vec<u64> = line
            .split_whitespace()
            .skip(2)
            .filter_map(|word| word.parse().ok())
            .collect();
        Ok([numbers[0], numbers[1]])
    }

    /// How many directions of connections are on the ring.
    pub(crate) fn count_on_ring(&self) -> Result<usize> {
        let mut count = 0;
        for guest in GUESTS {
            count += self
                .report(guest, "connections")?
                .matches(" sends_to=ring ")
                .count();
        }
        Ok(count)
    }

    /// Calls `exchange`, as often as may be needed, until both directions of so many connections are on the ring.
    pub(crate) fn exchange_until_on_ring(
        &self,
        connections: usize,
        exchange: impl Fn() -> Result<()>,
    ) -> Result<()> {
        for _ in 0..=ROUNDS {
            if self.count_on_ring()? >= 2 * connections {
                return Ok(());
            }
            exchange()?;
        }
        bail!(
            "{} directions of {connections} connections are on the ring",
            self.count_on_ring()?
        )
    }

    /// Waits until neither guest has a connection any more.
    pub(crate) fn wait_no_connections(&self) -> Result<()> {
        self.wait_no_connections_of(&GUESTS)
    }

    /// Waits until none of these guests has one.
    pub(crate) fn wait_no_connections_of(&self, guests: &[Machine]) -> Result<()> {
        self.wait("no connection is left", || {
            for &guest in guests {
                if !self.report(guest, "connections")?.is_empty() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Memory in KiB that a machine can give to programs.
    pub(crate) fn available_memory(&self, machine: Machine) -> Result<u64> {
        let line = "sync; echo 3 >/proc/sys/vm/drop_caches; awk '/^MemAvailable/ { print $2 }' /proc/meminfo";
        Ok(self.shell(machine, line)?.parse()?)
    }

    /// Xen's number of a guest.
    pub(crate) fn domid(&self, guest: Machine) -> Result<u32> {
        Ok(self
            .shell(Machine::Dom0, &format!("xl domid {guest}"))?
            .parse()?)
    }

    /// Lets Xen write something to its log, and returns that.
    pub(crate) fn debug_key(&self, key: char) -> Result<String> {
        self.logs.borrow_mut().collect_xen(&self.lab)?;
        self.shell(Machine::Dom0, &format!("xl debug-keys {key}"))?;
        self.logs.borrow_mut().collect_xen(&self.lab)
    }

    /// Takes what the logs have got, before a buffer wraps or a guest goes with its own.
    pub(crate) fn collect_logs(&self) {
        self.logs.borrow_mut().collect(&self.lab, self.machines());
    }

    /// What all logs have got since the last time.
    pub(crate) fn take_logs(&self) -> Logs {
        self.collect_logs();
        self.logs.take()
    }

    /// What a machine's kernel has said since the test began.
    pub(crate) fn kernel_log(&self, machine: Machine) -> String {
        self.collect_logs();
        self.logs.borrow().of(&machine.to_string()).to_owned()
    }
}
