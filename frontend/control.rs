// SPDX-License-Identifier: GPL-2.0

//! The upkeep of a channel: all that an event may ask for and that may sleep. One run at a time, in process context.

use crate::channel::Channel;
use crate::closing;
use crate::datagram;
use crate::establish;
use crate::handover;
use crate::handshake;
use crate::policy;
use crate::region::PeerRegion;
use crate::tending;
use crate::unread;
use kernel::prelude::*;
use kernel::sync::atomic::Full;
use kernel::sync::Arc;
use kernel::time::{
    Instant,
    Monotonic, //
};
use xenvmc_core::channel::{
    Event,
    PeerState,
    State, //
};
use xenvmc_core::datagram::message::Message as DatagramMessage;
use xenvmc_core::error::WireError;
use xenvmc_core::message::{
    Message,
    SERVICE_DATAGRAMS, //
};
use xenvmc_core::queue::Consumer;
use xenvmc_core::shared::{
    SharedLoad,
    SharedStore, //
};
use xenvmc_core::wire::root;
use xenvmc_core::Error as Violation;
use xenvmc_core::Words;
use xenvmc_xen::word::VirtFence;

/// Milliseconds after which something that could not be done for want of memory or room is tried again.
pub(crate) const RETRY_MS: u32 = 10;

/// Messages taken in one run.
const BATCH: u32 = 256;

/// What the upkeep knows.
pub(crate) struct Control {
    consumer: Consumer,
    /// The peer's state word.
    pub(crate) peer_state: PeerState,
    /// The state of our end.
    pub(crate) state: State,
    /// The state word tells the peer of `state`. Not so while CLOSING is not yet true for all connections.
    pub(crate) is_announced: bool,
    /// All our directions are on TCP for good. Those that a task holds may not be when CLOSING is announced.
    pub(crate) is_finished: bool,
    /// The channel was given to the undertaker.
    pub(crate) is_buried: bool,
    /// When some connections could not be asked for, and after how many milliseconds they are to be.
    asking: Option<(Instant<Monotonic>, u32)>,
    /// Since when we have been closing.
    pub(crate) since: Option<Instant<Monotonic>>,
}

impl Control {
    /// A channel that begins.
    pub(crate) fn new() -> Self {
        Self {
            consumer: Consumer::control(),
            peer_state: PeerState::default(),
            state: State::Init,
            is_announced: true,
            is_finished: false,
            is_buried: false,
            asking: None,
            since: None,
        }
    }

    /// Whether it is time to ask for those that could not be asked for.
    fn is_asking_due(&self) -> bool {
        self.asking
            .as_ref()
            .is_some_and(|(since, delay_ms)| since.elapsed().as_millis() >= i64::from(*delay_ms))
    }

    /// Moves the state machine, and tells the peer.
    pub(crate) fn advance(&mut self, channel: &Channel, event: Event) {
        let Some(state) = self.state.next(event) else {
            return;
        };
        if state == self.state {
            return;
        }
        pr_debug!(
            "domain {}: {:?} -> {state:?}\n",
            channel.peer().domid(),
            self.state
        );
        self.state = state;
        channel.set_state(state);
        self.is_announced = false;
        if state != State::Closing {
            self.announce(channel);
        }
    }

    /// Tells the peer of the state; everything that it promises is done.
    pub(crate) fn announce(&mut self, channel: &Channel) {
        // What the state promises /before/ the word. Partner: `watch_peer` at the other end.
        let word = channel.own().root().word(root::STATE);
        word.store_release(self.state.word());
        self.is_announced = true;
        channel.notify();
    }
}

/// Does what there is to do.
pub(crate) fn run(channel: &Arc<Channel>) {
    let mut control = channel.control.lock();
    establish::wait_for_answer(channel, &mut control);
    if channel.is_broken() {
        control.advance(channel, Event::Violation);
    }
    if let Err(violation) = watch_peer(channel, &mut control) {
        channel.violation(violation);
        control.advance(channel, Event::Violation);
    }
    let may_ask = control.state.is_open() && has_room_for_slots(channel);
    let is_new = may_ask && channel.take_returning();
    if is_new || (may_ask && control.is_asking_due()) {
        // Before we map anything, which takes time: the peer does its part meanwhile.
        let last = control.asking.filter(|_| !is_new);
        let last = last.map(|(_, delay_ms)| delay_ms);
        let next = policy::ask_again(channel, last);
        control.asking = next.map(|delay_ms| (Instant::now(), delay_ms));
    }
    if control.state.is_readable() {
        map_chunks(channel);
    }
    if control.state.is_open() {
        if let Err(violation) = take_messages(channel, &mut control) {
            channel.violation(violation);
            control.advance(channel, Event::Violation);
        }
    }
    if channel.take_tending() && !tending::tend_all(channel) {
        channel.retry_tending(RETRY_MS);
    }
    if control.state.is_readable() && channel.take_unarmed() && !rearm_all(channel) {
        channel.note_unarmed();
    }
    closing::run(channel, &mut control);
    // What is wanted first decides when the next run is, and this can wait longest.
    if let Some((_, delay_ms)) = control.asking.filter(|_| control.state.is_open()) {
        channel.kick_after(delay_ms);
    }
}

/// Whether the peer has mapped any of our arena.
fn has_room_for_slots(channel: &Channel) -> bool {
    channel.slots().lock().arena().mapped() > 0
}

/// Asks to hear of the next byte of all connections whose readers have left without; false = no memory.
fn rearm_all(channel: &Channel) -> bool {
    let Ok(streams) = channel.streams() else {
        return false;
    };
    for (_, stream) in streams {
        // The reader of such a one may be locked until the peer's upkeep has done something.
        if !handover::is_noted(&stream) && stream.is_unarmed.xchg(false, Full) {
            unread::rearm(&stream);
        }
    }
    true
}

/// Looks at the peer's state, and at what it has mapped.
fn watch_peer(channel: &Channel, control: &mut Control) -> core::result::Result<(), Violation> {
    let Some(theirs) = channel.theirs() else {
        return Ok(());
    };
    if !control.state.is_readable() && control.state != State::Drained {
        return Ok(());
    }
    let word = theirs.root().word(root::STATE).load_acquire();
    if let Some(event) = control.peer_state.handle_word(word)? {
        control.advance(channel, event);
    }
    if !control.state.is_readable() {
        return Ok(());
    }
    let mapped = theirs.root().word(root::CHUNKS_MAPPED).load_acquire();
    channel.slots().lock().arena().handle_mapped(mapped)?;
    Ok(())
}

/// Maps what the peer has granted meanwhile, and tells it.
pub(crate) fn map_chunks(channel: &Channel) {
    let Some(theirs) = channel.theirs() else {
        return;
    };
    let limit = channel.frontend().settings().peer_arena_chunks();
    let before = theirs.pages();
    let result = theirs.map_chunks(limit);
    if theirs.pages() != before {
        let mapped = theirs.pages() / xenvmc_core::wire::CHUNK_PAGES;
        channel
            .own()
            .root()
            .word(root::CHUNKS_MAPPED)
            .store_release(mapped);
        channel.notify();
    }
    match result {
        Ok(_) => {}
        Err(error) if error == ENOMEM => channel.kick_after(RETRY_MS),
        // It has let go of everything, and takes back what we have not mapped: its module was removed while it was about to open, say.
        Err(_) if has_let_go(theirs) => channel.kick_after(RETRY_MS),
        Err(_) => channel.violation(xenvmc_core::error::ArenaError::Mapped.into()),
    }
}

/// Whether the peer says that it touches nothing any more.
fn has_let_go(theirs: &PeerRegion) -> bool {
    theirs.root().word(root::STATE).load_acquire() == State::Done.word()
}

/// Takes the control messages that have come.
fn take_messages(
    channel: &Arc<Channel>,
    control: &mut Control,
) -> core::result::Result<(), Violation> {
    let Some(theirs) = channel.theirs() else {
        return Ok(());
    };
    let own = channel.own().root();
    for _ in 0..BATCH {
        if !channel.has_room_for_answer() {
            // Each message causes one answer at most. The peer has to read what is there first.
            channel.kick_after(RETRY_MS);
            return Ok(());
        }
        let prod = theirs.root().word(root::CONTROL_PROD);
        let Some(at) = control.consumer.peek(&prod)? else {
            let event = own.word(root::CONTROL_EVENT);
            if control.consumer.arm::<VirtFence>(&event, &prod) {
                return Ok(());
            }
            continue;
        };
        let Ok(bytes) = theirs.read_control(at) else {
            return Ok(());
        };
        control
            .consumer
            .take::<VirtFence>(&own.word(root::CONTROL_CONS));
        match Message::parse(&bytes) {
            Ok(message) => handshake::handle(channel, message)?,
            // With UDP left alone this is a service that we do not know.
            Err(WireError::Service(SERVICE_DATAGRAMS))
                if channel.frontend().settings().udp_ms() != 0 =>
            {
                datagram::handle(channel, DatagramMessage::parse(&bytes)?)?;
            }
            Err(error) if error.is_fatal() => return Err(error.into()),
            Err(error) => pr_debug!("domain {}: {error:?}\n", channel.peer().domid()),
        }
    }
    // Others want the lock, too.
    channel.kick();
    Ok(())
}
