// SPDX-License-Identifier: GPL-2.0

//! How a channel comes to be (protocol §2.4): the guest with the lower number offers, the other answers, Dom0 carries both.

use crate::adoption;
use crate::announce;
use crate::channel::Channel;
use crate::control::Control;
use crate::discovery::Listener;
use crate::frontend::Frontend;
use crate::notices;
use crate::peer::Peer;
use crate::region::PeerRegion;
use crate::timeline::Step;
use crate::wires::Wires;
use kernel::prelude::*;
use kernel::sync::Arc;
use xenvmc_core::announce::Offer;
use xenvmc_core::channel::{
    Event,
    State, //
};
use xenvmc_xen::work::{
    Run,
    Task, //
};
use xenvmc_xen::DomId;

/// How long an offer stands without an answer.
const ANSWER_MS: i64 = 30_000;

/// How long it takes until one is tried again that could not be made.
const OFFER_RETRY_MS: u32 = 1_000;

/// Makes the offers that connections have asked for.
pub(crate) struct Connector {
    frontend: Arc<Frontend>,
}

impl Connector {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(frontend: &Arc<Frontend>) -> Result<Arc<Self>> {
        let frontend = frontend.clone();
        Ok(Arc::new(Self { frontend }, GFP_KERNEL)?)
    }
}

impl Run for Connector {
    fn run(&self, task: &Task<Self>) {
        self.frontend.peers().for_each(|peer| {
            if !peer.take_wanted() || peer.channel().is_some() {
                return;
            }
            if self.frontend.own_domid().get() >= peer.domid().get() {
                return;
            }
            // What is lacking now will be lacking at the next call of a busy connection, too.
            if !peer.may_be_offered() {
                peer.want_channel();
                task.kick_after(OFFER_RETRY_MS);
                return;
            }
            if let Err(error) = make_offer(&self.frontend, peer) {
                peer.put_offers_off(i64::from(OFFER_RETRY_MS));
                peer.warn(format_args!("no offer could be made: {error:?}"));
            }
        });
    }
}

/// Offers a channel.
fn make_offer(frontend: &Arc<Frontend>, peer: &Arc<Peer>) -> Result {
    let channel = Channel::new(frontend, peer)?;
    let wires = Wires::new(&channel, None)?;
    let offer = Offer {
        to: peer.instance(),
        instance: channel.own().instance(),
        root: channel.own().root_gref(),
        port: Some(wires.port()),
    };
    channel.set_wires(Some(wires));
    *peer.channel.lock() = Some(channel.clone());
    let written = announce::write_offer(peer.domid(), &offer);
    frontend.timeline().note(Step::Offer);
    // It looks at the clock from here on.
    channel.kick();
    if written.is_err() || peer.is_gone() {
        // Nobody will answer, and nobody else will end it.
        end(&channel);
    }
    written
}

/// Ends a channel that nobody else will end.
fn end(channel: &Arc<Channel>) {
    let mut control = channel.control.lock();
    control.advance(channel, Event::PeerLost);
    drop(control);
    channel.kick();
}

/// Takes what the other guest wrote: an answer to our offer, or an offer.
fn take_offer(frontend: &Arc<Frontend>, peer: &Arc<Peer>, offer: &Offer) -> Result {
    if frontend.own_domid().get() < peer.domid().get() {
        take_answer(peer, offer)
    } else {
        answer(frontend, peer, offer)
    }
}

/// The other guest has answered our offer.
fn take_answer(peer: &Arc<Peer>, answer: &Offer) -> Result {
    let Some(channel) = peer.channel() else {
        return Ok(());
    };
    if answer.to != channel.own().instance() || channel.theirs().is_some() {
        // To an offer of long ago, or told twice.
        return Ok(());
    }
    // Where it fails, the next offer is another chance.
    map(&channel, answer).inspect_err(|_| end(&channel))?;
    open(&channel);
    Ok(())
}

/// Gives our offer up when the other guest has not answered it for long: it may have had no memory for that. The next connection that
/// wants a channel makes another. The upkeep.
pub(crate) fn wait_for_answer(channel: &Channel, control: &mut Control) {
    if control.state != State::Init || channel.theirs().is_some() {
        return;
    }
    match u32::try_from(ANSWER_MS - channel.age_ms()) {
        Ok(left @ 1..) => channel.kick_after(left),
        _ => {
            let peer = channel.peer();
            peer.inform(format_args!("no answer to our offer"));
            // There is nothing behind it from here on, should the other guest find it after all.
            let _ = announce::withdraw_offer(peer.domid());
            control.advance(channel, Event::PeerLost);
        }
    }
}

/// The other guest has made an offer; answers it.
fn answer(frontend: &Arc<Frontend>, peer: &Arc<Peer>, offer: &Offer) -> Result {
    let port = offer.port.ok_or(EINVAL)?;
    frontend.timeline().note(Step::Offer);
    if let Some(old) = peer.channel() {
        let same = old
            .theirs()
            .is_some_and(|theirs| theirs.instance() == offer.instance);
        if same {
            return Ok(());
        }
        // It has given the old one up.
        let mut control = old.control.lock();
        control.advance(&old, Event::PeerLost);
        drop(control);
        old.kick();
        crate::closing::wait(&old);
    }
    let channel = Channel::new(frontend, peer)?;
    map(&channel, offer)?;
    let wires = Wires::new(&channel, Some(port))?;
    channel.set_wires(Some(wires));
    *peer.channel.lock() = Some(channel.clone());
    let answer = Offer {
        to: offer.instance,
        instance: channel.own().instance(),
        root: channel.own().root_gref(),
        port: None,
    };
    announce::write_offer(peer.domid(), &answer).inspect_err(|_| end(&channel))?;
    open(&channel);
    Ok(())
}

/// Maps what the other guest has granted.
fn map(channel: &Channel, offer: &Offer) -> Result {
    let theirs = PeerRegion::map(channel.peer(), offer.root)?;
    if theirs.instance() != offer.instance {
        return Err(EINVAL);
    }
    if channel.set_theirs(theirs) {
        Ok(())
    } else {
        Err(EBUSY)
    }
}

/// Both sides are mapped: connections may ask.
fn open(channel: &Arc<Channel>) {
    notices::arm(channel);
    let mut control = channel.control.lock();
    control.advance(channel, Event::Established);
    drop(control);
    channel.note_returning();
    channel.notify();
    channel.frontend().timeline().note(Step::Channel);
    channel.peer().inform(format_args!("channel open"));
}

/// Follows what discovery finds.
pub(crate) struct Follower {
    frontend: Arc<Frontend>,
}

impl Follower {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(frontend: &Arc<Frontend>) -> Result<Arc<Self>> {
        let frontend = frontend.clone();
        Ok(Arc::new(Self { frontend }, GFP_KERNEL)?)
    }
}

impl Listener for Follower {
    fn began(&self, own: DomId) {
        self.frontend.set_own_domid(own);
    }

    fn expect_peers(&self) {
        let frontend = &self.frontend;
        frontend.datagrams().look_at_packets(frontend);
    }

    fn peer_changed(&self, peer: &Arc<Peer>) -> Result {
        self.frontend.timeline().note(Step::Peer);
        pr_debug!("domain {}: announced\n", peer.domid());
        let walked = adoption::adopt_existing(&self.frontend, peer);
        if let Some(channel) = peer.channel() {
            // Connections to addresses that are gone go back to TCP.
            channel.note_tending();
        }
        self.frontend.datagrams().kick();
        walked
    }

    fn peer_gone(&self, peer: &Arc<Peer>) {
        peer.set_gone();
        self.frontend.datagrams().kick();
        if let Some(channel) = peer.channel() {
            end(&channel);
        }
        if self.frontend.own_domid().get() != peer.domid().get() {
            // What we had offered is for nobody any more.
            let _ = announce::withdraw_offer(peer.domid());
        }
    }

    fn offer(&self, peer: &Arc<Peer>, offer: &Offer) {
        if let Err(error) = take_offer(&self.frontend, peer, offer) {
            self.frontend.counters().offers_bad.inc();
            peer.warn(format_args!("no channel: {error:?}"));
        }
    }
}
