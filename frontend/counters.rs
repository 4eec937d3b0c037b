// SPDX-License-Identifier: GPL-2.0

//! What happened how often: one [`Counters`] in the module.

use core::fmt;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};
use xenvmc_core::Decline;

/// A number that only grows. Any context.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Counts one.
    pub(crate) fn inc(&self) {
        self.add(1);
    }

    /// Counts `n`.
    pub(crate) fn add(&self, n: u64) {
        self.0.add(n, Relaxed);
    }

    /// Returns the number.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Makes [`Counters`] with the fields, whose names are also those that the user sees.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters. Each alone is exact; together they are no snapshot.
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: Counter,)*
            declines: [Counter; Decline::COUNT],
            refusals: [Counter; Decline::COUNT],
        }

        impl Counters {
            /// All zero.
            pub(crate) const fn new() -> Self {
                Self {
                    $($name: Counter::new(),)*
                    declines: [const { Counter::new() }; Decline::COUNT],
                    refusals: [const { Counter::new() }; Decline::COUNT],
                }
            }

            /// Returns names and numbers, in the order of the fields.
            pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.get()),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Sockets whose methods were replaced.
    sockets_adopted,
    /// Sockets that were given back to TCP for good.
    sockets_restored,
    /// Requests to peers to accelerate a connection.
    requests_sent,
    /// Such requests of peers.
    requests_received,
    /// Connections of which both ends agreed to use rings.
    upgrades,
    /// Bytes sent through rings.
    tx_bytes,
    /// Bytes received through rings.
    rx_bytes,
    /// Calls that sent bytes through a ring.
    tx_calls,
    /// Calls that received bytes through a ring.
    rx_calls,
    /// Notices posted to peers.
    notices_sent,
    /// Notices of peers that were for a connection.
    notices_received,
    /// Notices of peers for a connection that is over.
    notices_stale,
    /// Events sent to peers.
    events_sent,
    /// Interrupts of event channels.
    events_received,
    /// Interrupts of event channels that brought nothing.
    events_spurious,
    /// Times that a sender slept for room in a ring.
    tx_sleeps,
    /// Times that a receiver slept for bytes in a ring.
    rx_sleeps,
    /// Busy-waits of senders that ended with room.
    tx_spin_hits,
    /// Busy-waits of senders that ended with nothing.
    tx_spin_misses,
    /// Busy-waits of receivers that ended with bytes.
    rx_spin_hits,
    /// Busy-waits of receivers that ended with nothing.
    rx_spin_misses,
    /// Times that the sending direction of a connection went from TCP to its ring.
    ring_entered,
    /// Times that it went back to TCP.
    ring_left,
    /// Times that a ring was replaced by a larger one.
    ring_grown,
    /// Times that a ring was replaced by a smaller one: of an idle connection, or to give way to others.
    ring_shrunk,
    /// Calls to TCP's own sendmsg that were under way during a switch, and were fenced off.
    rogue_writes,
    /// Unread bytes of rings that were given to TCP.
    bytes_given_back,
    /// Connections that were reset because bytes were lost with a peer.
    connections_reset,
    /// Connections whose TCP_USER_TIMEOUT ended while they were on the ring.
    user_timeouts,
    /// Channels to peers that were opened.
    channels_opened,
    /// Channels that were closed in agreement.
    channels_closed,
    /// Channels that were given up.
    channels_broken,
    /// Times that the announcement was written.
    announcements_written,
    /// Instances of peers that were seen.
    peers_seen,
    /// Times that the guest was suspended.
    suspends,
    /// Times that it went on, or was not suspended after all.
    resumes,
    /// Values in xenstore that could not be understood.
    offers_bad,
    /// Requests to peers to take a flow of datagrams into a ring.
    udp_requests_sent,
    /// Flows of ours that entered a ring.
    udp_flows_entered,
    /// Flows of ours that left a ring.
    udp_flows_left,
    /// Flows of peers that entered a ring when all had come that had gone over the network, as their counts say.
    udp_handovers_exact,
    /// Flows of peers that entered a ring when a marker had come.
    udp_handovers_marked,
    /// Flows of peers that entered a ring when neither had come for long enough.
    udp_handovers_late,
    /// Datagrams sent through rings.
    udp_tx_datagrams,
    /// Bytes of their payloads.
    udp_tx_bytes,
    /// Packets that waited for room in a ring.
    udp_tx_waited,
    /// Packets that were dropped since too many waited.
    udp_tx_full,
    /// Packets that were dropped since the reader took nothing for long.
    udp_tx_stalled,
    /// Packets that could not be copied.
    udp_tx_lost,
    /// Datagrams that came through rings and were delivered.
    udp_rx_datagrams,
    /// Bytes of their payloads.
    udp_rx_bytes,
    /// Records of flows that may not come through a ring.
    udp_rx_stale,
    /// Records that could not be delivered: there was no memory, or no device.
    udp_rx_lost,
    /// Probes sent to addresses that peers announce.
    udp_probes_sent,
    /// Probes of peers that have come.
    udp_probes_received,
    /// Addresses that peers have shown to be theirs, renewals included.
    udp_addresses_proven,
    /// Answers to probes that were wrong, or late.
    udp_echoes_wrong,
}

impl Counters {
    /// Counts a connection that stays on or returns to TCP, for a reason of this side.
    pub(crate) fn decline(&self, reason: Decline) {
        if let Some(counter) = self.declines.get(reason.index()) {
            counter.inc();
        }
    }

    /// Counts what a peer gave as its reason.
    pub(crate) fn refused(&self, reason: Decline) {
        if let Some(counter) = self.refusals.get(reason.index()) {
            counter.inc();
        }
    }

    /// Writes a line for each reason: number, name, times of this side, times of peers.
    pub(crate) fn write_declines(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for reason in Decline::ALL {
            let (code, name, index) = (reason.code(), reason.name(), reason.index());
            let count = |counters: &[Counter]| counters.get(index).map_or(0, Counter::get);
            let (local, peer) = (count(&self.declines), count(&self.refusals));
            writeln!(f, "{code} {name} {local} {peer}")?;
        }
        Ok(())
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

/// A line for each counter: name and number.
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.iter() {
            writeln!(f, "{name} {value}")?;
        }
        Ok(())
    }
}
