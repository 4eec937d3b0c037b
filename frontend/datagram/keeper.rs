// SPDX-License-Identifier: GPL-2.0

//! What takes time: requests, probes and their answers, handovers, and whatever is due. One [`Keeper`] in the module, a work item.

use super::arrivals::Sign;
use super::flows::Wanted;
use super::table::MS_PER_SWEEP;
use super::{
    handshake,
    Datagrams, //
};
use crate::channel::Channel;
use crate::frontend::Frontend;
use kernel::prelude::*;
use kernel::sync::{
    new_mutex,
    Arc,
    Mutex, //
};
use kernel::time::{
    Instant,
    Monotonic, //
};
use xenvmc_core::datagram::message::Message;
use xenvmc_core::datagram::probe::{
    self,
    Probe, //
};
use xenvmc_core::message::{
    Address,
    Tuple, //
};
use xenvmc_core::Decline;
use xenvmc_net as net;
use xenvmc_net::netfilter::is_netfront;
use xenvmc_xen::work::{
    Run,
    Task, //
};

/// Things of each kind that are done in one run, before others are looked at.
const BUDGET: u32 = 32;

/// Time until it looks again while something is under way.
const BUSY_MS: u32 = 5;

/// The work item.
#[pin_data]
pub(crate) struct Keeper {
    frontend: Arc<Frontend>,
    /// When flows were reviewed last. Only the work item uses it.
    #[pin]
    swept: Mutex<Option<Instant<Monotonic>>>,
    /// Flows that enter now. Likewise.
    #[pin]
    due: Mutex<KVec<(u32, Sign)>>,
}

impl Keeper {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(frontend: &Arc<Frontend>) -> Result<Arc<Self>> {
        let due = KVec::with_capacity(BUDGET as usize, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                frontend: frontend.clone(),
                swept <- new_mutex!(None, "xenvmc_keeper_swept"),
                due <- new_mutex!(due, "xenvmc_keeper_due"),
            }),
            GFP_KERNEL,
        )
    }

    fn datagrams(&self) -> &Datagrams {
        self.frontend.datagrams()
    }

    /// Begins and ends looking at calls; true = to be done again.
    fn update_watch(&self) -> bool {
        let datagrams = self.datagrams();
        let is_receiving = datagrams.arrivals.lock().has_admitted();
        let mut watch = datagrams.watch.lock();
        watch.update(&self.frontend, is_receiving)
    }

    /// Answers probes that have come.
    fn answer_probes(&self) {
        for _ in 0..BUDGET {
            let echo = self.datagrams().echoes.lock().waiting.pop();
            let Some(echo) = echo else { return };
            let message = Message::Echo {
                address: echo.address,
                nonce: echo.nonce,
            };
            self.frontend.peers().for_each_channel(|peer, channel| {
                if peer.domid().get() == echo.asker && channel.is_open() {
                    // A probe that is not answered is sent again.
                    let _ = channel.send_datagram(&message);
                }
            });
        }
    }

    /// Sends probes that are due.
    fn send_probes(&self) {
        let Some(backend) = self.frontend.peers().backend() else {
            return;
        };
        for _ in 0..BUDGET {
            let due = self.datagrams().proofs.lock().poll_probe();
            let Some((address, nonce)) = due else { return };
            let asker = self.frontend.own_domid().get();
            let probe = Probe {
                asker,
                backend,
                nonce,
            };
            let mut payload = probe.emit();
            self.frontend.counters().udp_probes_sent.inc();
            if let Err(error) = net::send_datagram(address, probe::PORT, &mut payload) {
                pr_debug!("a probe could not be sent: {error:?}\n");
            }
        }
    }

    /// Sends markers behind what went over the network of flows that enter the ring.
    fn send_markers(&self) {
        if self.datagrams().flows.lock().allow_markers() {
            net::synchronize_packets();
        }
        for _ in 0..BUDGET {
            let marker = self.datagrams().flows.lock().poll_marker();
            let Some(marker) = marker else { return };
            marker.release();
        }
    }

    /// Makes requests for flows that are worth it.
    fn ask_for_flows(&self) {
        for _ in 0..BUDGET {
            let wanted = self.datagrams().flows.lock().poll_wanted();
            let Some(wanted) = wanted else { return };
            if let Err(reason) = self.ask(&wanted) {
                let mut flows = self.datagrams().flows.lock();
                flows.could_not_ask(&self.frontend, &wanted.tuple, reason);
            }
        }
    }

    fn ask(&self, wanted: &Wanted) -> core::result::Result<(), Decline> {
        let (frontend, tuple) = (&self.frontend, &wanted.tuple);
        if !self.datagrams().may_begin(frontend.settings()) {
            return Err(Decline::Disabled);
        }
        if !is_on_netfront(wanted.device) {
            return Err(Decline::Route);
        }
        let channel = self.channel_to(tuple.dst)?;
        if channel.peer().has_stalled() {
            return Err(Decline::Stalled);
        }
        handshake::is_theirs(&channel, tuple.dst)?;
        let (slot, extent) = channel.lines().ring(&channel)?;
        let id = frontend.next_request();
        let message = Message::Ask {
            id,
            tuple: *tuple,
            slot,
            extent,
        };
        let mut flows = self.datagrams().flows.lock();
        flows.ask(&channel, tuple, id, &message)?;
        frontend.counters().udp_requests_sent.inc();
        Ok(())
    }

    /// The channel to whom announces `address`; asks for it if there is none.
    fn channel_to(&self, address: Address) -> core::result::Result<Arc<Channel>, Decline> {
        let peer = self.frontend.peers().find(address);
        let peer = peer.ok_or(Decline::NotCoResident)?;
        if !peer.is_compatible() {
            return Err(Decline::Version);
        }
        match peer.channel() {
            Some(channel) if channel.is_open() => Ok(channel),
            Some(_) => Err(Decline::NoChannel),
            None => {
                self.frontend.want_channel(&peer);
                Err(Decline::NoChannel)
            }
        }
    }

    /// Lets flows into rings of which everything has come.
    fn hand_over(&self) {
        let mut due = self.due.lock();
        {
            let mut arrivals = self.datagrams().arrivals.lock();
            arrivals.say_go();
            arrivals.poll_handovers(&mut due);
        }
        if due.is_empty() {
            return;
        }
        // What was seen in the hook may not be in its socket's queue yet: whoever is delivering it has softirqs off.
        net::synchronize_packets();
        let counters = self.frontend.counters();
        for (number, sign) in due.iter() {
            if self.datagrams().arrivals.lock().enter(*number) {
                match sign {
                    Sign::Count => counters.udp_handovers_exact.inc(),
                    Sign::Marker => counters.udp_handovers_marked.inc(),
                    Sign::Silence => counters.udp_handovers_late.inc(),
                }
            }
        }
        due.clear();
    }

    /// Ends what was waited for long enough.
    fn tend(&self) {
        self.frontend.peers().for_each_channel(|peer, channel| {
            if channel.lines().tend(channel) {
                peer.note_stall();
                self.datagrams().flows.lock().leave_channel(channel);
            }
        });
        let mut dropped = KVec::new();
        let mut flows = self.datagrams().flows.lock();
        flows.tend(&self.frontend, &mut dropped);
        drop(flows);
        self.datagrams().release();
        let flows = self.datagrams().flows.lock();
        // Under the lock, so that no flow begins to change its way meanwhile.
        self.frontend.peers().narrow(flows.destinations());
    }

    /// Looks whether flows may stay in the rings, and forgets those that are no more.
    fn review(&self) {
        let mut swept = self.swept.lock();
        let due = swept.is_none_or(|at| at.elapsed().as_millis() >= i64::from(MS_PER_SWEEP));
        if !due {
            return;
        }
        *swept = Some(Instant::now());
        drop(swept);
        let mut dropped = KVec::new();
        let source_may = |channel: &Channel, tuple: &Tuple| {
            channel.is_open() && handshake::is_theirs(channel, tuple.src).is_ok()
        };
        let mut arrivals = self.datagrams().arrivals.lock();
        arrivals.review(self.frontend.settings().udp_ms(), source_may, &mut dropped);
        drop(arrivals);
        let mut flows = self.datagrams().flows.lock();
        flows.review(&self.frontend, |channel, tuple| {
            channel.is_open() && handshake::is_theirs(channel, tuple.dst).is_ok()
        });
    }
}

/// Whether a packet that leaves through the device of that number leaves by netfront.
fn is_on_netfront(device: i32) -> bool {
    let _rcu = kernel::sync::rcu::read_lock();
    is_netfront(device)
}

impl Run for Keeper {
    fn run(&self, task: &Task<Self>) {
        // What others wait for comes first.
        self.tend();
        self.send_markers();
        self.hand_over();
        self.answer_probes();
        self.review();
        self.ask_for_flows();
        self.send_probes();
        let is_watching = self.update_watch();
        let datagrams = self.datagrams();
        let (is_busy, is_empty) = {
            let flows = datagrams.flows.lock();
            (flows.is_busy(), flows.is_empty())
        };
        let (is_waiting, nothing) = {
            let arrivals = datagrams.arrivals.lock();
            (arrivals.is_waiting(), is_empty && arrivals.is_empty())
        };
        if is_busy || is_waiting {
            task.kick_after(BUSY_MS);
        } else if !nothing || is_watching {
            task.kick_after(MS_PER_SWEEP);
        }
    }
}
