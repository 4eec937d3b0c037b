// SPDX-License-Identifier: GPL-2.0

//! The work of the backend: one [`Registry`] with all guests, and one pass over it at a time.
//!
//! Locks: `inner` is the only one. It is held during a whole pass, accesses to xenstore included;
//! what the watches do takes none.

use crate::{
    census::{
        self,
        Census,
        Watches, //
    },
    counters::{
        Counter,
        Counters, //
    },
    domain::Domain,
    notice::Due,
    publish::Content,
    view, //
};
use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex, //
    },
};
use xenvmc_core::{
    announce::{
        self,
        Backend, //
    },
    which::Which, //
};
use xenvmc_xen::{
    random,
    work::{
        Run,
        Task, //
    },
    DomId, //
};

/// Guests that the backend keeps, at most.
const DOMAINS_MAX: usize = 256;

/// Milliseconds until a guest that asks for too much is looked at again.
const POSTPONE_MS: u32 = 100;

/// Milliseconds until what failed is tried again.
const RETRY_MS: u32 = 1000;

/// Times that taking back what was published is tried when the backend goes: there is no later pass.
const ATTEMPTS: u32 = 5;

/// All guests.
#[pin_data]
pub(crate) struct Registry {
    default_all: bool,
    /// What happened how often.
    pub(crate) counters: Counters,
    #[pin]
    inner: Mutex<RegistryInner>,
}

/// The fields of [`Registry`] protected by its lock.
pub(crate) struct RegistryInner {
    /// Holds a reference to the task, which holds one to the registry; [`Registry::close`] ends it.
    census: Option<Arc<Census>>,
    watches: Option<Watches>,
    /// The guests, in the order in which they were found.
    pub(crate) domains: KVec<Domain>,
    /// Announcements so far; the next one is newer than all of them.
    announcements: u64,
    /// What guests find as `backend`.
    pub(crate) identity: Backend,
}

impl Registry {
    pub(crate) fn new(default_all: bool) -> impl PinInit<Self> {
        pin_init!(Self {
            default_all,
            counters: Counters::new(),
            inner <- new_mutex!(RegistryInner {
                census: None,
                watches: None,
                domains: KVec::new(),
                announcements: 0,
                identity: Backend {
                    version: announce::VERSION,
                    instance: random::u64(),
                },
            }),
        })
    }

    /// Tells the registry what says when to look for guests.
    pub(crate) fn attach(&self, census: Arc<Census>) {
        self.inner.lock().census = Some(census);
    }

    /// Ends all watches and takes back what was published. The task is stopped already.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        for domain in &mut inner.domains {
            let id = domain.id;
            for attempt in 1..=ATTEMPTS {
                let nothing = Content::default();
                match domain.published.update(id, nothing, &self.counters) {
                    Err(e) if e == ENOENT => break,
                    Err(e) if attempt == ATTEMPTS => {
                        pr_warn!("guest {id}: keys not taken back: {e:?}\n");
                    }
                    Err(_) => {}
                    Ok(_) => break,
                }
            }
        }
        inner.domains.clear();
        inner.watches = None;
        inner.census = None;
    }

    /// Calls `f` with the guests, which do not change meanwhile.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&RegistryInner) -> R) -> R {
        f(&self.inner.lock())
    }

    /// Notes the outcome of a step and returns whether it is to be tried again.
    fn failed(&self, result: Result) -> bool {
        if result.is_err() {
            self.counters.add(Counter::StoreErrors);
        }
        result.is_err()
    }
}

impl Run for Registry {
    fn run(&self, task: &Task<Self>) {
        let mut inner = self.inner.lock();
        let Some(census) = inner.census.clone() else {
            return;
        };
        if !census.is_ready() {
            return;
        }
        self.counters.add(Counter::Passes);

        let mut again = false;
        if census.take() {
            let result = inner.count(&census, self);
            if self.failed(result) {
                census.set();
                again = true;
            }
        }
        let mut postponed = false;
        again |= inner.scan(self, &mut postponed);
        let result = view::settle_addresses(&mut inner.domains, &self.counters);
        again |= self.failed(result);
        again |= inner.publish(self);
        drop(inner);

        if postponed {
            task.kick_after(POSTPONE_MS);
        } else if again {
            task.kick_after(RETRY_MS);
        }
    }
}

impl RegistryInner {
    /// Finds out which guests there are.
    fn count(&mut self, census: &Arc<Census>, registry: &Registry) -> Result {
        if self.watches.is_none() {
            self.watches = Some(Census::watch(census)?);
        }
        let ids = census::list()?;
        self.domains.retain(|domain| ids.contains(&domain.id));
        for domain in &mut self.domains {
            domain.forget_offers_unless(|peer| ids.contains(&peer));
            domain.published.verify(domain.id)?;
        }
        for id in &ids {
            if self.domains.iter().any(|domain| domain.id == *id) {
                continue;
            }
            if self.domains.len() == DOMAINS_MAX {
                registry.counters.add(Counter::DomainsIgnored);
                continue;
            }
            let domain = Domain::new(*id, registry.default_all, census.task())?;
            self.domains.push(domain, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Looks at the guests whose mark is set, and returns whether to try again.
    ///
    /// All announcements are read before the first offer, and all guests are known before that.
    fn scan(&mut self, registry: &Registry, postponed: &mut bool) -> bool {
        let counters = &registry.counters;
        let mut again = false;
        let mut marked = KVec::new();
        for (index, domain) in self.domains.iter_mut().enumerate() {
            let due = domain.notice.take();
            if due == Due::NOTHING {
                continue;
            }
            if !domain.looks.take() || marked.push((index, due), GFP_KERNEL).is_err() {
                counters.add(Counter::Postponed);
                domain.notice.add(due);
                *postponed = true;
                continue;
            }
            let mut result = Ok(());
            if due.group {
                result = domain.read_group(registry.default_all, counters);
            }
            if due.announcement {
                self.announcements += 1;
                let order = self.announcements;
                result = result.and_then(|()| domain.read_announcement(order, counters));
            }
            if registry.failed(result) {
                domain.notice.add(due);
                again = true;
            }
        }
        for (index, due) in marked {
            if due.offers == Which::Nobody {
                continue;
            }
            let ids: KVec<DomId> = match self.ids() {
                Ok(ids) => ids,
                Err(_) => {
                    self.domains[index].notice.add(due);
                    again = true;
                    continue;
                }
            };
            let domain = &mut self.domains[index];
            let result = domain.read_offers(due.offers, |id| ids.contains(&id), counters);
            if registry.failed(result) {
                domain.notice.add(due);
                again = true;
            }
        }
        again
    }

    fn ids(&self) -> Result<KVec<DomId>> {
        let mut ids = KVec::new();
        for domain in &self.domains {
            ids.push(domain.id, GFP_KERNEL)?;
        }
        Ok(ids)
    }

    /// Writes to each guest what it should see now, and returns whether to try again.
    fn publish(&mut self, registry: &Registry) -> bool {
        let mut again = false;
        for index in 0..self.domains.len() {
            let result = self.publish_to(index, &registry.counters);
            // A guest that is gone will be found missing by the next census.
            let gone = matches!(result, Err(e) if e == ENOENT);
            again |= !gone && registry.failed(result);
        }
        again
    }

    fn publish_to(&mut self, index: usize, counters: &Counters) -> Result {
        let identity = CString::try_from_fmt(format_args!("{}", self.identity))?;
        let content = view::content_for(&self.domains[index], &self.domains, &identity)?;
        let domain = &mut self.domains[index];
        domain.published.update(domain.id, content, counters)?;
        Ok(())
    }
}
