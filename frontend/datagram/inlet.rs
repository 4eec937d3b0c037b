// SPDX-License-Identifier: GPL-2.0

//! The peer's ring of a channel: what we deliver. Under the lock of [`super::Lines`], whose holder has softirqs off: so one CPU
//! delivers at a time, in the order of the ring.

use crate::channel::Channel;
use crate::link::Link;
use kernel::prelude::*;
use kernel::sync::Arc;
use xenvmc_core::datagram::record::{
    Record,
    HEAD, //
};
use xenvmc_core::datagram::ring::Reader;
use xenvmc_core::extent::{
    Span,
    Spans, //
};
use xenvmc_core::shared::SharedStore;
use xenvmc_core::wire::slot;
use xenvmc_core::{
    Error as Violation,
    Extent,
    Words, //
};
use xenvmc_net::deliver::Batch;
use xenvmc_xen::word::VirtFence;

/// Records delivered in one go, before others get the processor.
const BUDGET: u32 = 64;

/// Bytes of payloads likewise: a part of what a socket takes that nobody reads, so that its reader gets the processor in time.
const BUDGET_BYTES: u32 = 96 << 10;

/// From how many datagrams delivered in one go on a flow is taken for a stream: the next ones are not asked for at once, since whoever reads
/// these takes a while.
pub(super) const STREAM: u32 = 8;

/// How often it is looked for a record that the sender says is there, and is not.
const LOOKS: u32 = 4;

/// Records after which the sender is told of the room.
const BATCH: u32 = 16;

/// The peer's ring.
pub(super) struct Inlet {
    link: Arc<Link>,
    extent: Extent,
    reader: Reader,
    /// A notice was asked for.
    is_armed: bool,
}

/// What [`Inlet::run`] has done.
#[derive(Clone, Copy)]
pub(super) struct Done {
    /// Records that were delivered.
    pub(super) records: u32,
    /// There are more.
    pub(super) has_more: bool,
    /// A notice was asked for.
    pub(super) is_armed: bool,
}

impl Done {
    /// Nothing, and nothing is to be done.
    pub(super) const NOTHING: Self = Self {
        records: 0,
        has_more: false,
        is_armed: true,
    };
}

/// What the caller of [`Inlet::run`] does when there is no more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Waits for a notice.
    Arm,
    /// Waits for a notice, unless it was a stream: whoever reads it looks again.
    ArmUnlessStream,
    /// Looks again.
    LookAgain,
}

impl Inlet {
    /// An empty ring in `extent` of the peer's arena, which is mapped.
    pub(super) fn new(link: Arc<Link>, extent: Extent) -> Self {
        Self {
            link,
            extent,
            reader: Reader::new(extent),
            is_armed: true,
        }
    }

    /// Where the ring is.
    pub(super) fn extent(&self) -> Extent {
        self.extent
    }

    /// Whether the sender says that there is something.
    pub(super) fn has_more(&self) -> bool {
        self.link
            .view()
            .is_some_and(|view| !self.reader.is_empty(&view.peer.word(slot::TX_PROD)))
    }

    /// Delivers what has come, as far as the budgets go. If there is no more, a notice will tell of the next one after [`Then::Arm`].
    ///
    /// # Errors
    ///
    /// If the peer has broken the protocol.
    pub(super) fn run(
        &mut self,
        channel: &Channel,
        then: Then,
    ) -> core::result::Result<Done, Violation> {
        let link = self.link.clone();
        let mut done = Done::NOTHING;
        let Some(view) = link.view() else {
            return Ok(done);
        };
        let prod = view.peer.word(slot::TX_PROD);
        let event = view.own.word(slot::RX_DATA_EVENT);
        if then == Then::LookAgain {
            self.disarm(&event);
        }
        let (mut bytes, mut looks) = (0, 0);
        let mut batch = Batch::new();
        loop {
            let available = self.reader.look(&prod)?;
            if available == 0 {
                if then == Then::LookAgain {
                    break;
                }
                if then == Then::ArmUnlessStream && done.records >= STREAM {
                    self.disarm(&event);
                    break;
                }
                self.is_armed = true;
                if self.reader.arm::<VirtFence>(&event, &prod) {
                    break;
                }
                looks += 1;
                if looks == LOOKS {
                    // The sender says that there is something, and there is not: it does not keep us here.
                    done.has_more = true;
                    break;
                }
                continue;
            }
            looks = 0;
            if done.records == BUDGET || bytes >= BUDGET_BYTES {
                done.has_more = true;
                break;
            }
            bytes += self.deliver_next(channel, available, &mut batch)?;
            done.records += 1;
            if done.records % BATCH == 0 {
                self.publish(&link, &mut batch);
            }
        }
        if done.records != 0 {
            self.publish(&link, &mut batch);
        }
        done.is_armed = self.is_armed;
        Ok(done)
    }

    /// Takes back that a notice was asked for.
    fn disarm(&mut self, event: &impl SharedStore) {
        if self.is_armed {
            self.reader.disarm(event);
            self.is_armed = false;
        }
    }

    /// Delivers what is in `batch`, and tells the sender how far we are.
    fn publish(&mut self, link: &Link, batch: &mut Batch) {
        batch.deliver();
        let Some(view) = link.view() else { return };
        let (cons, event) = (
            view.own.word(slot::RX_CONS),
            view.peer.word(slot::TX_SPACE_EVENT),
        );
        if self.reader.publish::<VirtFence>(&cons, &event) {
            link.post();
        }
    }

    /// Puts the next record into `batch`, which delivers it; returns the bytes of its payload.
    fn deliver_next(
        &mut self,
        channel: &Channel,
        available: u32,
        batch: &mut Batch,
    ) -> core::result::Result<u32, Violation> {
        let mut head = [0; HEAD as usize];
        let at = self.reader.head();
        let read = at.map_or(Err(EINVAL), |at| self.read_span(channel, at, &mut head));
        // What was copied is what is checked and used: the peer may write another one meanwhile.
        let record = Record::parse(&head, if read.is_ok() { available } else { 0 })?;
        let frontend = channel.frontend();
        let counters = frontend.counters();
        let arrival = frontend
            .datagrams()
            .arrivals
            .lock()
            .admitted(channel, record.flow);
        match arrival {
            None => counters.udp_rx_stale.inc(),
            Some((tuple, origin)) => {
                let delivered = batch.push(&origin, &tuple, &record, |from, bytes| {
                    self.read_payload(
                        channel,
                        self.reader.payload(from, bytes.len() as u32),
                        bytes,
                    )
                });
                match delivered {
                    Ok(()) => {
                        let senders = &frontend.datagrams().senders;
                        senders.note(tuple.dst_port, channel.peer().domid());
                        counters.udp_rx_datagrams.add(record.datagrams().into());
                        counters.udp_rx_bytes.add(record.len.into());
                    }
                    Err(error) => {
                        counters.udp_rx_lost.inc();
                        if error == ENODEV {
                            // Over the network they may come by another device, and be seen.
                            let mut arrivals = frontend.datagrams().arrivals.lock();
                            arrivals.revoke(channel, record.flow);
                        }
                    }
                }
            }
        }
        self.reader.take(&record);
        Ok(record.len)
    }

    fn read_payload(&self, channel: &Channel, spans: Spans, bytes: &mut [u8]) -> Result {
        let mut rest = bytes;
        for span in spans {
            let (now, later) = rest.split_at_mut_checked(span.len as usize).ok_or(EINVAL)?;
            self.read_span(channel, span, now)?;
            rest = later;
        }
        Ok(())
    }

    fn read_span(&self, channel: &Channel, span: Span, bytes: &mut [u8]) -> Result {
        let theirs = channel.theirs().ok_or(EINVAL)?;
        let number = self.extent.page() + span.page();
        let (pages, page) = theirs.page(number).ok_or(EINVAL)?;
        pages.read(page, span.in_page() as usize, bytes)
    }
}
