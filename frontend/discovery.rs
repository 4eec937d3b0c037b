// SPDX-License-Identifier: GPL-2.0

//! Finding peers: one [`Discovery`] in the module, whose one work item announces this guest, looks
//! at what the backend says, and tells a [`Listener`] what is new.
//!
//! Watches and notifiers only ask for a run of the work item, and each run looks at everything. So
//! it does not matter which events are merged or come late.

use crate::{
    announce::{
        self,
        Announcer,
        Found, //
    },
    counters::Counters,
    peer::Peer,
    peers::{
        Peers,
        Table, //
    },
    roster::{
        News,
        Roster, //
    },
    survey::{
        Due,
        Said,
        Survey, //
    },
    timeline::{
        Step,
        Timeline, //
    },
};
use core::mem;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        Arc,
        Mutex, //
    },
};
use xenvmc_core::{
    announce::Offer,
    which::Which, //
};
use xenvmc_net::address::{
    Changed,
    Notifier, //
};
use xenvmc_xen::{
    domain,
    new_task,
    watch::{
        Handler,
        Watch, //
    },
    work::{
        Queue,
        Run,
        Task, //
    },
    DomId, //
};

/// How long after a failure, say of memory, the work item tries again.
const RETRY_MS: u32 = 1_000;

/// How long changes of addresses are collected; they come in bursts.
const ADDRESSES_MS: u32 = 20;

/// What is told about peers. All calls come from one work item, one after the other, in process
/// context; they may take a while, and must not wait for the work item.
pub(crate) trait Listener: Send + Sync + 'static {
    /// We are the domain `own`, with no peers: at the beginning, and when that may have changed.
    fn began(&self, own: DomId);

    /// There are about to be peers in [`Peers`].
    fn expect_peers(&self);

    /// `peer` is new, or its addresses changed. It is in [`Peers`] as it is now.
    ///
    /// # Errors
    ///
    /// It is to be told again, for want of memory.
    fn peer_changed(&self, peer: &Arc<Peer>) -> Result;

    /// `peer`, an instance of a guest, is gone, or nothing to us any more. It is not in [`Peers`].
    /// Its channel must be taken out of it, and its memory unmapped soon.
    fn peer_gone(&self, peer: &Arc<Peer>);

    /// `peer` made an offer, or an answer, that it had not made before. It is well formed; that is
    /// all that is known of it. [`Listener::peer_changed`] was called for `peer` before.
    fn offer(&self, peer: &Arc<Peer>, offer: &Offer);
}

/// Discovery, from its start to its drop, which takes back all that we said.
pub(crate) struct Discovery {
    notifier: Option<Pin<KBox<Notifier<Trigger>>>>,
    watches: Option<[Pin<KBox<Watch<Trigger>>>; 3]>,
    task: Arc<Task<Reconciler>>,
}

impl Discovery {
    /// Starts. Calls of `listener` may come before this returns. It is let go of in the drop.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `E2BIG` if the guest's quota of watches is used up.
    pub(crate) fn start(
        peers: Arc<Peers>,
        counters: Arc<Counters>,
        timeline: Arc<Timeline>,
        listener: Arc<dyn Listener>,
    ) -> Result<Self> {
        let reconciler = Reconciler::new(peers, counters, timeline, listener);
        let reconciler = Arc::pin_init(reconciler, GFP_KERNEL)?;
        let task = new_task!(Queue::HighPriority, reconciler, "xenvmc_reconciler")?;
        let trigger = |part| {
            let task = task.clone();
            Arc::new(Trigger { task, part }, GFP_KERNEL)
        };
        let (addresses, all) = (trigger(Part::Nothing)?, trigger(Part::All)?);
        let (peers, offers) = (trigger(Part::Peers)?, trigger(Part::Offers)?);
        // From here on dropping stops what was started.
        let mut this = Self {
            notifier: None,
            watches: None,
            task,
        };
        this.notifier = Some(Notifier::register(addresses)?);
        // Each calls once for itself.
        this.watches = Some([
            Watch::new(c"xenvmc/backend", all)?,
            Watch::new(c"xenvmc/peers", peers)?,
            Watch::new(c"xenvmc/offers", offers)?,
        ]);
        Ok(this)
    }

    /// Stops looking, for ever. When this returns no call of the listener is under way or will
    /// come. What we said stays, until the drop. Process context, not from the listener.
    pub(crate) fn stop(&mut self) {
        self.notifier = None;
        self.watches = None;
        self.task.stop();
    }

    /// Returns what stops it for a while.
    pub(crate) fn pacer(&self) -> Pacer {
        Pacer(self.task.clone())
    }
}

/// Stops discovery for the time of a suspend.
pub(crate) struct Pacer(Arc<Task<Reconciler>>);

impl Pacer {
    /// Stops looking until [`Self::go_on`], when the run that may be going on has ended.
    pub(crate) fn pause(&self) {
        self.0.pause();
    }

    /// Whether that run is going on, and calls the listener.
    pub(crate) fn is_running(&self) -> bool {
        self.0.is_running()
    }

    /// Forgets the backend and all peers, and takes back all that we said. Only while it is paused and does not run.
    ///
    /// # Errors
    ///
    /// What we said could not be taken back.
    pub(crate) fn forget(&self) -> Result {
        let reconciler = self.0.handler();
        let mut state = reconciler.state.lock();
        reconciler.forget(&mut state);
        state.announcer.withdraw()
    }

    /// Looks again, as another instance, in whatever domain we are now.
    pub(crate) fn go_on(&self) {
        self.0.handler().is_new.store(true, Release);
        self.0.go_on();
        self.0.kick();
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.stop();
        if let Err(e) = announce::withdraw_all() {
            pr_warn!("the announcement could not be withdrawn: {e:?}\n");
        }
    }
}

/// What asks for runs.
struct Trigger {
    task: Arc<Task<Reconciler>>,
    /// Of what is to be read then.
    part: Part,
}

/// A part of what the backend says.
#[derive(Clone, Copy)]
enum Part {
    Nothing,
    Peers,
    Offers,
    All,
}

impl Part {
    /// What is due in it when what has this name has changed, or anything.
    fn due(self, name: Option<&[u8]>) -> Due {
        let domid = name.and_then(DomId::parse);
        let which = domid.map_or(Which::All, |domid| Which::One(domid.get()));
        match self {
            Part::Nothing => Due::NOTHING,
            Part::Peers => Due {
                peers: which,
                ..Due::NOTHING
            },
            Part::Offers => Due {
                offers: which,
                ..Due::NOTHING
            },
            Part::All => Due::ALL,
        }
    }
}

impl Handler for Trigger {
    fn changed(&self, name: Option<&[u8]>) {
        self.task.handler().set_due(self.part.due(name));
        self.task.kick();
    }
}

impl Changed for Trigger {
    fn addresses_changed(&self) {
        self.task.kick_after(ADDRESSES_MS);
    }
}

/// The work item.
#[pin_data]
struct Reconciler {
    peers: Arc<Peers>,
    counters: Arc<Counters>,
    timeline: Arc<Timeline>,
    listener: Arc<dyn Listener>,
    /// What of that which the backend says may have changed ([`Due`] as a word); nothing if only our addresses have. Set
    /// /before/ a run is asked for, so that the run sees it.
    due: Atomic<u32>,
    /// Whether nothing that was said before holds any more. Set /before/ a run is asked for.
    is_new: Atomic<bool>,
    /// Nobody but a run takes it, and there is one at a time; while there are none, [`Pacer`].
    #[pin]
    state: Mutex<State>,
}

struct State {
    own: Option<DomId>,
    announcer: Announcer,
    backend: Option<u64>,
    said: Said,
    roster: Roster,
    is_failing: bool,
}

impl Reconciler {
    fn new(
        peers: Arc<Peers>,
        counters: Arc<Counters>,
        timeline: Arc<Timeline>,
        listener: Arc<dyn Listener>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            peers,
            counters,
            timeline,
            listener,
            due: Atomic::new(0),
            is_new: Atomic::new(false),
            state <- new_mutex!(
                State {
                    own: None,
                    announcer: Announcer::new(),
                    backend: None,
                    said: Said::default(),
                    roster: Roster::default(),
                    is_failing: false,
                },
                "xenvmc_discovery"
            ),
        })
    }

    /// Adds to what is to be read.
    fn set_due(&self, due: Due) {
        let mut before = self.due.load(Relaxed);
        loop {
            let after = Due::from_word(before).and(due).to_word();
            match self.due.cmpxchg(before, after, Full) {
                Ok(_) => return,
                Err(now) => before = now,
            }
        }
    }

    /// Takes what is to be read.
    fn take_due(&self) -> Due {
        Due::from_word(self.due.xchg(0, Full))
    }

    /// Whether there is something to be read.
    fn is_due(&self) -> bool {
        Due::from_word(self.due.load(Relaxed)) != Due::NOTHING
    }

    /// Does all that there is to do; true = to be done again from the beginning.
    fn reconcile(&self, state: &mut State, due: Due) -> Result<bool> {
        if due == Due::NOTHING && state.own.is_some() {
            state.announcer.update(&self.counters)?;
            return Ok(false);
        }
        let own = match state.own {
            Some(own) => own,
            None => self.begin(state)?,
        };
        state.announcer.update(&self.counters)?;
        self.timeline.note(Step::Announced);
        self.look(state, own, due)?;
        if self.is_due() {
            // The next run does the rest.
            return Ok(false);
        }
        // Last, as it seldom finds anything, and others wait for what comes before: xenstore is slow.
        let is_lost =
            domain::own()? != own || state.announcer.check(&self.counters)? == Found::Nothing;
        if is_lost {
            state.own = None;
        }
        Ok(is_lost)
    }

    /// Begins as a guest that has just come. The first time it removes what was left by nobody knows whom.
    fn begin(&self, state: &mut State) -> Result<DomId> {
        let own = domain::own()?;
        self.forget(state);
        state.announcer.restart()?;
        self.listener.began(own);
        state.own = Some(own);
        Ok(own)
    }

    /// Looks at what the backend says.
    fn look(&self, state: &mut State, own: DomId, due: Due) -> Result {
        match Survey::take(own, state.backend, due, &mut state.said)? {
            // Its change will ask for another run.
            Survey::Changing => Ok(()),
            Survey::NoBackend => {
                if state.backend.take().is_some() {
                    pr_info!("the backend is gone; peers and channels stay as they are\n");
                }
                Ok(())
            }
            Survey::Said(backend) => {
                self.timeline.note(Step::Backend);
                if state.backend.replace(backend) != Some(backend) {
                    pr_info!("the backend is there\n");
                }
                self.peers.set_backend(backend);
                let news = state.roster.update(state.said.by_peer()?, &self.counters)?;
                self.tell(&state.roster, news)
            }
        }
    }

    /// Tells the listener what is new, and what it could not take before.
    fn tell(&self, roster: &Roster, news: News) -> Result {
        if !news.changed.is_empty() {
            self.listener.expect_peers();
        }
        if !news.is_empty() {
            self.peers.replace(news.table);
        }
        for peer in &news.gone {
            self.listener.peer_gone(peer);
        }
        for peer in &news.changed {
            peer.set_told(false);
        }
        let mut result = Ok(());
        for peer in roster.peers().filter(|peer| !peer.is_told()) {
            match self.listener.peer_changed(peer) {
                Ok(()) => peer.set_told(true),
                Err(error) => result = Err(error),
            }
        }
        for (peer, offer) in &news.offers {
            self.listener.offer(peer, offer);
        }
        result
    }

    /// Forgets the backend and all peers.
    fn forget(&self, state: &mut State) {
        state.backend = None;
        state.said = Said::default();
        let roster = mem::take(&mut state.roster);
        self.peers.replace(Table::default());
        self.peers.set_backend(0);
        for peer in roster.peers() {
            self.listener.peer_gone(peer);
        }
    }
}

impl Run for Reconciler {
    fn run(&self, task: &Task<Self>) {
        let mut state = self.state.lock();
        let due = self.take_due();
        if self.is_new.xchg(false, Full) {
            state.own = None;
        }
        match self.reconcile(&mut state, due) {
            Ok(is_lost) => {
                state.is_failing = false;
                if is_lost {
                    self.set_due(Due::ALL);
                    task.kick();
                }
            }
            Err(e) => {
                if !state.is_failing {
                    pr_warn!("discovery failed, and will be tried again: {e:?}\n");
                }
                state.is_failing = true;
                self.set_due(Due::ALL);
                task.kick_after(RETRY_MS);
            }
        }
    }
}
