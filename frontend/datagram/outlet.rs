// SPDX-License-Identifier: GPL-2.0

//! Our ring of a channel: what the peer reads, and what waits for room in it. Under the lock of [`super::Lines`].

use super::queue::Queue;
use crate::channel::Channel;
use crate::link::{
    Link,
    View, //
};
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::{
    Instant,
    Monotonic, //
};
use xenvmc_core::datagram::record::Record;
use xenvmc_core::datagram::ring::Sender;
use xenvmc_core::extent::{
    Span,
    Spans, //
};
use xenvmc_core::wire::slot;
use xenvmc_core::{
    Error as Violation,
    Extent,
    Words, //
};
use xenvmc_net::packet::Packet;
use xenvmc_xen::word::VirtFence;

/// Packets that wait for room at most, as in the queue of a network device.
pub(super) const BACKLOG_MAX: usize = 1000;

/// How long a reader may take nothing while packets wait for room: their sockets may have others to send to.
const STALL_MS: i64 = 500;

/// How often it is looked whether there is room again, while the reader says so and is wrong.
const LOOKS: u32 = 4;

/// A packet with what its record says.
pub(super) struct Outgoing {
    packet: Packet,
    /// Our number of its flow.
    id: u32,
    record: Record,
    payload_at: u32,
}

impl Outgoing {
    /// Puts it together.
    pub(super) fn new(packet: Packet, id: u32, record: Record, payload_at: u32) -> Self {
        Self {
            packet,
            id,
            record,
            payload_at,
        }
    }
}

/// Our ring.
pub(super) struct Outlet {
    link: Arc<Link>,
    extent: Extent,
    sender: Sender,
    backlog: Queue<Outgoing>,
    /// Since when the reader has taken nothing though packets wait, and how far it was then.
    stands: Option<(u32, Instant<Monotonic>)>,
    /// Nothing is produced any more.
    is_finished: bool,
}

impl Outlet {
    /// An empty ring in `extent`.
    pub(super) fn new(link: Arc<Link>, extent: Extent) -> Self {
        Self {
            link,
            extent,
            sender: Sender::new(extent),
            backlog: Queue::new(BACKLOG_MAX),
            stands: None,
            is_finished: false,
        }
    }

    /// Sends a packet, or lets it wait for room: what it is charged for then keeps its socket from sending more, as a full
    /// network device does. Gives it back if too many wait.
    ///
    /// # Errors
    ///
    /// If the peer has broken the protocol.
    pub(super) fn send(
        &mut self,
        packet: Outgoing,
    ) -> core::result::Result<core::result::Result<(), Packet>, Violation> {
        let link = self.link.clone();
        let Some(view) = link.view() else {
            return Ok(Err(packet.packet));
        };
        if self.backlog.is_empty() && !self.is_finished {
            if self.put(&view, link.channel(), &packet)? {
                packet.packet.consume();
                self.publish(&view);
                return Ok(Ok(()));
            }
        }
        link.channel().frontend().counters().udp_tx_waited.inc();
        if let Err(packet) = self.backlog.push(packet) {
            return Ok(Err(packet.packet));
        }
        self.flush()?;
        Ok(Ok(()))
    }

    /// Sends what waits, as far as there is room, and asks to be told when there is more.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    pub(super) fn flush(&mut self) -> core::result::Result<(), Violation> {
        if self.backlog.is_empty() || self.is_finished {
            return Ok(());
        }
        let link = self.link.clone();
        let Some(view) = link.view() else {
            return Ok(());
        };
        let cons = view.peer.word(slot::RX_CONS);
        let mut looks = 0;
        while let Some(first) = self.backlog.first() {
            let len = first.record.len;
            if !self.sender.has_room(len, &cons)? {
                self.publish(&view);
                let event = view.own.word(slot::TX_SPACE_EVENT);
                looks += 1;
                if self.sender.arm::<VirtFence>(len, &event, &cons) || looks == LOOKS {
                    // The keeper looks again, too.
                    return Ok(());
                }
            } else if let Some(first) = self.backlog.pop() {
                self.put(&view, link.channel(), &first)?;
                first.packet.consume();
            }
        }
        self.publish(&view);
        Ok(())
    }

    /// Writes a record; false = there is no room.
    fn put(
        &mut self,
        view: &View<'_>,
        channel: &Channel,
        outgoing: &Outgoing,
    ) -> core::result::Result<bool, Violation> {
        let len = outgoing.record.len;
        if !self.sender.has_room(len, &view.peer.word(slot::RX_CONS))? {
            return Ok(false);
        }
        let written = self.write(channel, outgoing);
        if written.is_err() {
            // It cannot be read, or has become shorter: what is not published is written over by the next one.
            channel.frontend().counters().udp_tx_lost.inc();
            return Ok(true);
        }
        self.sender.push(len);
        let counters = channel.frontend().counters();
        counters
            .udp_tx_datagrams
            .add(outgoing.record.datagrams().into());
        counters.udp_tx_bytes.add(len.into());
        Ok(true)
    }

    fn write(&self, channel: &Channel, outgoing: &Outgoing) -> Result {
        let head = self.sender.head().ok_or(EINVAL)?;
        self.write_span(channel, head, &outgoing.record.emit())?;
        let len = outgoing.record.len;
        let mut place = Place::new(self.sender.payload(len));
        outgoing.packet.read(outgoing.payload_at, len, |mut bytes| {
            while !bytes.is_empty() {
                let span = place.next(bytes.len()).ok_or(EINVAL)?;
                let (now, rest) = bytes.split_at_checked(span.len as usize).ok_or(EINVAL)?;
                self.write_span(channel, span, now)?;
                bytes = rest;
            }
            Ok(())
        })
    }

    fn write_span(&self, channel: &Channel, span: Span, bytes: &[u8]) -> Result {
        let page = channel.own().page(self.extent.page() + span.page());
        page.ok_or(EINVAL)?.write(span.in_page() as usize, bytes)
    }

    /// Tells the reader what was written.
    fn publish(&mut self, view: &View<'_>) {
        let (prod, event) = (
            view.own.word(slot::TX_PROD),
            view.peer.word(slot::RX_DATA_EVENT),
        );
        if self.sender.publish::<VirtFence>(&prod, &event) {
            self.link.post();
        }
    }

    /// Whether the peer has delivered all that was written.
    pub(super) fn is_drained(&self) -> bool {
        self.link
            .view()
            .is_none_or(|view| self.sender.is_drained(&view.peer.word(slot::RX_CONS)))
    }

    /// Gives those packets of flow `id` back that wait for room, in order.
    pub(super) fn take_back(&mut self, id: u32, returned: &mut Queue<Packet>) {
        let counters = self.link.channel().frontend().counters();
        self.backlog.take_if(
            |waiting| waiting.id == id,
            |waiting| {
                if returned.push(waiting.packet).is_err() {
                    // No memory.
                    counters.udp_tx_full.inc();
                }
            },
        );
    }

    /// Drops what waits for room if the reader has taken nothing for long; true = that is so. After a [`Self::flush`], every now and then.
    pub(super) fn drop_if_stalled(&mut self) -> bool {
        if self.backlog.is_empty() || self.is_finished {
            self.stands = None;
            return false;
        }
        let seen = self.sender.seen();
        let since = match self.stands {
            Some((at, since)) if at == seen => since,
            _ => Instant::now(),
        };
        self.stands = Some((seen, since));
        if since.elapsed().as_millis() < STALL_MS {
            return false;
        }
        let counters = self.link.channel().frontend().counters();
        while let Some(waiting) = self.backlog.pop() {
            drop(waiting);
            counters.udp_tx_stalled.inc();
        }
        true
    }

    /// Produces nothing any more.
    pub(super) fn finish(&mut self) {
        self.is_finished = true;
    }
}

/// Where a payload goes, as far as it is not written.
struct Place {
    spans: Spans,
    now: Option<Span>,
}

impl Place {
    fn new(mut spans: Spans) -> Self {
        let now = spans.next();
        Self { spans, now }
    }

    /// The next piece, of at most `len` bytes.
    fn next(&mut self, len: usize) -> Option<Span> {
        let now = self.now?;
        let len = now.len.min(u32::try_from(len).unwrap_or(u32::MAX));
        let rest = now.len - len;
        self.now = match rest {
            0 => self.spans.next(),
            _ => Some(Span {
                offset: now.offset + len,
                len: rest,
            }),
        };
        Some(Span {
            offset: now.offset,
            len,
        })
    }
}
