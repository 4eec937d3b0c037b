// SPDX-License-Identifier: GPL-2.0

//! The two rings of a channel: ours, which the peer reads, and the peer's, which we read. One [`Lines`] per channel; the rings are
//! made by the first flow that wants one.

use super::answers::Answers;
use super::inlet::{
    Done,
    Inlet,
    Then, //
};
use super::looker::Looker;
use super::outlet::Outlet;
use super::readers::Readers;
use crate::channel::Channel;
use crate::link::Link;
use kernel::prelude::*;
use kernel::sync::atomic::{
    Acquire,
    Atomic,
    Full,
    Release, //
};
use kernel::sync::{
    new_mutex,
    Arc,
    Mutex, //
};
use xenvmc_core::datagram::ORDER_MIN;
use xenvmc_core::error::DatagramError;
use xenvmc_core::wire::{
    SlotId,
    SLOT_SIZE, //
};
use xenvmc_core::{
    Decline,
    Error as Violation,
    Extent, //
};
use xenvmc_net::lock::BhSpinLock;
use xenvmc_net::new_bh_spinlock;
use xenvmc_xen::thread::Thread;

/// The order of the largest ring: 1 MiB.
const ORDER_MAX: u8 = 8;

/// What both rings have.
struct Setup {
    /// Our slot.
    own: Option<SlotId>,
    /// Our ring.
    ring: Option<Extent>,
    /// Both slots, once the peer's is known.
    link: Option<Arc<Link>>,
    /// The channel is over.
    is_over: bool,
}

/// The rings.
#[pin_data]
pub(crate) struct Lines {
    #[pin]
    setup: Mutex<Setup>,
    #[pin]
    pub(super) outlet: BhSpinLock<Option<Outlet>>,
    #[pin]
    pub(super) inlet: BhSpinLock<Option<Inlet>>,
    /// Looks at the rings.
    #[pin]
    looker: BhSpinLock<Option<Thread<Looker>>>,
    /// Looks in the calls of who sends.
    pub(super) answers: Answers,
    /// Goes on in the calls of who reads.
    pub(super) readers: Readers,
    /// The number of our slot, once there is one.
    own_slot: Atomic<u32>,
    /// The bottom half has something to do here.
    is_noticed: Atomic<bool>,
    /// The clock makes the bottom half look, should the thread that looks not get to ask for a notice.
    is_watched: Atomic<bool>,
}

/// Time after which the bottom half looks at a stream that programs are busy reading.
const LATER_MS: u32 = 4;

/// No slot has this number: arenas are not so large.
const NO_SLOT: u32 = u32::MAX;

impl Lines {
    /// No rings.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            setup <- new_mutex!(
                Setup {
                    own: None,
                    ring: None,
                    link: None,
                    is_over: false,
                },
                "xenvmc_lines"
            ),
            outlet <- new_bh_spinlock!(None, "xenvmc_outlet"),
            inlet <- new_bh_spinlock!(None, "xenvmc_inlet"),
            looker <- new_bh_spinlock!(None, "xenvmc_looker"),
            answers: Answers::new(),
            readers: Readers::new(),
            own_slot: Atomic::new(NO_SLOT),
            is_noticed: Atomic::new(false),
            is_watched: Atomic::new(false),
        })
    }

    /// Our slot, which is made if there is none. Process context.
    fn own(&self, channel: &Channel, setup: &mut Setup) -> core::result::Result<SlotId, Decline> {
        if setup.is_over {
            return Err(Decline::ChannelClosed);
        }
        if let Some(own) = setup.own {
            return Ok(own);
        }
        let extent = channel.take_extent(0)?;
        let page = channel.own().page(extent.page()).ok_or(Decline::Other)?;
        page.write(0, &[0; SLOT_SIZE as usize])
            .map_err(|_| Decline::Other)?;
        let own = SlotId::new(extent.page(), 0).ok_or(Decline::Other)?;
        setup.own = Some(own);
        self.own_slot.store(own.0, Release);
        Ok(own)
    }

    /// Our slot and our ring, which are made if they are not there. Process context.
    ///
    /// # Errors
    ///
    /// [`Decline::NoChannel`] if the peer has to map pages first; why there is no room.
    pub(super) fn ring(
        &self,
        channel: &Channel,
    ) -> core::result::Result<(SlotId, Extent), Decline> {
        let mut setup = self.setup.lock();
        let own = self.own(channel, &mut setup)?;
        if let Some(ring) = setup.ring {
            return Ok((own, ring));
        }
        let largest = channel.frontend().settings().ring_order;
        let mut order = largest.clamp(ORDER_MIN, ORDER_MAX);
        let ring = loop {
            match channel.take_extent(order) {
                Ok(ring) => break ring,
                Err(Decline::ArenaExhausted) if order > ORDER_MIN => order -= 1,
                Err(reason) => return Err(reason),
            }
        };
        setup.ring = Some(ring);
        Ok((own, ring))
    }

    /// Takes note of the peer's slot.
    fn join(
        &self,
        channel: &Arc<Channel>,
        setup: &mut Setup,
        peer: SlotId,
    ) -> core::result::Result<Arc<Link>, Refusal> {
        let own = self.own(channel, setup)?;
        if let Some(link) = &setup.link {
            return match link.peer() == peer {
                true => Ok(link.clone()),
                false => Err(Refusal::Violation(DatagramError::Ring.into())),
            };
        }
        let link = Link::new(channel, own, peer).map_err(|error| match error == ENOMEM {
            true => Refusal::Decline(Decline::NoMemory),
            false => Refusal::Violation(DatagramError::Ring.into()),
        })?;
        let looker = Looker::new(channel).map_err(|_| Decline::NoMemory)?;
        *self.looker.lock() = Some(looker);
        setup.link = Some(link.clone());
        Ok(link)
    }

    /// The peer has admitted a flow to our ring, and reads with its slot `peer`. Process context.
    pub(super) fn open_outlet(
        &self,
        channel: &Arc<Channel>,
        peer: SlotId,
    ) -> core::result::Result<(), Refusal> {
        let mut setup = self.setup.lock();
        // Who was not asked with a ring cannot admit to one.
        let ring = setup.ring.ok_or(Violation::from(DatagramError::Flow))?;
        let link = self.join(channel, &mut setup, peer)?;
        let mut outlet = self.outlet.lock();
        if outlet.is_none() {
            *outlet = Some(Outlet::new(link, ring));
        }
        Ok(())
    }

    /// The peer wants to send through `ring`, with its slot `peer`. Returns our slot. Process context.
    pub(super) fn open_inlet(
        &self,
        channel: &Arc<Channel>,
        peer: SlotId,
        ring: Extent,
    ) -> core::result::Result<SlotId, Refusal> {
        let mut setup = self.setup.lock();
        let link = self.join(channel, &mut setup, peer)?;
        let own = link.own();
        let is_mapped = channel
            .theirs()
            .is_some_and(|theirs| ring.fits(theirs.pages()));
        if !is_mapped {
            return Err(Refusal::Violation(DatagramError::Ring.into()));
        }
        let mut inlet = self.inlet.lock();
        match &*inlet {
            Some(inlet) if inlet.extent() != ring => {
                return Err(Refusal::Violation(DatagramError::Ring.into()))
            }
            Some(_) => {}
            None => *inlet = Some(Inlet::new(link, ring)),
        }
        Ok(own)
    }

    /// Whether a notice about slot `own` is for us; then [`Self::run`] has something to do.
    pub(crate) fn take_notice(&self, own: SlotId) -> bool {
        let is_ours = own.0 != NO_SLOT && self.own_slot.load(Acquire) == own.0;
        if is_ours {
            self.is_noticed.store(true, Release);
        }
        is_ours
    }

    /// Does what a notice asked for: delivers what has come, sends what waited for room. In a softirq, or with softirqs on.
    pub(crate) fn run(&self, channel: &Channel) {
        let is_noticed = self.is_noticed.xchg(false, Full);
        let is_watched = self.is_watched.xchg(false, Full);
        if !(is_noticed || is_watched) || !channel.is_open() {
            return;
        }
        self.flush(channel);
        if !is_noticed && self.readers.go_on() && self.has_more() {
            // Programs read a stream, and look when they have read what there is: more would only fill their sockets' buffers.
            return self.watch(channel);
        }
        let then = match may_look(channel) && self.readers.are_reading() {
            true => Then::ArmUnlessStream,
            false => Then::Arm,
        };
        let done = self.deliver(channel, then);
        if done.has_more {
            // Programs have to read it, too: the thread goes on when they let it, and the clock sees to it that it goes on at all.
            self.look_later(channel);
        } else if !done.is_armed {
            return;
        }
        // Where one came, another one may; that time has passed alone says nothing.
        let is_live = is_noticed || done.records != 0;
        if done.has_more || (is_live && may_look(channel)) {
            self.wake_looker();
        }
    }

    /// Lets the thread look at the rings when the processor has nothing else to do. Any context but hard interrupts.
    pub(super) fn wake_looker(&self) {
        if let Some(looker) = &*self.looker.lock() {
            looker.wake();
        }
    }

    /// Looks at the rings, and does what there is to do. Softirqs on.
    pub(super) fn look(&self, channel: &Channel) -> Done {
        self.flush(channel);
        self.deliver(channel, Then::LookAgain)
    }

    /// Whether there is something to deliver. Any context but hard interrupts.
    pub(super) fn has_more(&self) -> bool {
        self.inlet.lock().as_ref().is_some_and(Inlet::has_more)
    }

    /// Nobody looks for now: a notice will tell, or, if there is so much that programs have to read first, the clock; then there is more.
    /// Softirqs on.
    pub(super) fn arm(&self, channel: &Channel) -> bool {
        let has_more = channel.is_open() && self.deliver(channel, Then::Arm).has_more;
        if has_more {
            self.look_later(channel);
        }
        has_more
    }

    /// The same for a program's task, which has better things to do than to deliver a stream: the thread does. Softirqs on.
    pub(super) fn go_on_without_us(&self, channel: &Channel) {
        if self.arm(channel) {
            self.wake_looker();
        }
    }

    /// Nobody looks for now, but the clock tells when to. Any context but hard interrupts.
    pub(super) fn look_later(&self, channel: &Channel) {
        self.is_noticed.store(true, Release);
        channel.take_notices_after(LATER_MS);
    }

    /// Lets the clock look, should nobody else get to ask for a notice. Any context but hard interrupts.
    fn watch(&self, channel: &Channel) {
        if !self.is_watched.xchg(true, Full) {
            channel.take_notices_after(LATER_MS);
        }
    }

    /// Sends what waited for room, as far as there is some.
    fn flush(&self, channel: &Channel) {
        let mut outlet = self.outlet.lock();
        let result = match &mut *outlet {
            Some(outlet) => outlet.flush(),
            None => Ok(()),
        };
        drop(outlet);
        if let Err(violation) = result {
            channel.violation(violation);
        }
    }

    /// Delivers some of what has come.
    fn deliver(&self, channel: &Channel, then: Then) -> Done {
        let mut inlet = self.inlet.lock();
        let result = match &mut *inlet {
            Some(inlet) => inlet.run(channel, then),
            None => Ok(Done::NOTHING),
        };
        // Under the lock, so that the task does not lose the processor in between, and whoever sees that nothing is left sees this.
        if matches!(
            result,
            Ok(Done {
                is_armed: false,
                ..
            })
        ) {
            // No notice is asked for now.
            self.watch(channel);
            if then == Then::ArmUnlessStream {
                self.readers.expect();
            }
        }
        drop(inlet);
        let done = result.unwrap_or_else(|violation| {
            channel.violation(violation);
            Done::NOTHING
        });
        if done.records != 0 {
            self.answers.came(channel);
        }
        done
    }

    /// Delivers all that has come by now. Process context.
    pub(crate) fn drain(&self, channel: &Channel) {
        // More than the ring can hold is not waited for.
        for _ in 0..DRAIN_RUNS {
            if !self.deliver(channel, Then::Arm).has_more {
                return;
            }
        }
    }

    /// Sends what waits for room, if there is some that nobody told of, and drops it if the reader has taken nothing for long; true = that is
    /// so. Softirqs on.
    pub(super) fn tend(&self, channel: &Channel) -> bool {
        if channel.is_open() {
            self.flush(channel);
        }
        let mut outlet = self.outlet.lock();
        match &mut *outlet {
            Some(outlet) => outlet.drop_if_stalled(),
            None => false,
        }
    }

    /// We produce no more, which the peer is about to be told. What waits goes back to its flows, when they leave.
    pub(crate) fn finish(&self) {
        if let Some(outlet) = &mut *self.outlet.lock() {
            outlet.finish();
        }
    }

    /// The channel is over.
    pub(super) fn end(&self, _channel: &Arc<Channel>) {
        let mut setup = self.setup.lock();
        setup.is_over = true;
        // It refers to the channel, and ends here.
        let looker = self.looker.lock().take();
        drop(looker);
        let outlet = self.outlet.lock().take();
        let inlet = self.inlet.lock().take();
        setup.link = None;
        drop(setup);
        drop((outlet, inlet));
    }
}

/// Runs of an inlet in which a full ring is delivered, whatever is in it.
const DRAIN_RUNS: u32 = 1024;

/// Whether looking at rings is worth the processor's time now.
pub(super) fn may_look(channel: &Channel) -> bool {
    let frontend = channel.frontend();
    frontend.settings().spin_us() != 0 && !frontend.is_overcommitted()
}

/// Why a ring is not used.
pub(super) enum Refusal {
    /// For a reason of ours.
    Decline(Decline),
    /// The peer broke the protocol.
    Violation(Violation),
}

impl From<Decline> for Refusal {
    fn from(reason: Decline) -> Self {
        Self::Decline(reason)
    }
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}
