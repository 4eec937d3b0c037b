// SPDX-License-Identifier: GPL-2.0

//! What is done with each UDP packet that leaves, and that has come over the network. In hooks of netfilter: no sleeping.

use super::flows::Afterwards;
use super::Echo;
use crate::frontend::Frontend;
use kernel::prelude::*;
use kernel::sync::Arc;
use xenvmc_core::datagram::marker::{
    self,
    Marker, //
};
use xenvmc_core::datagram::probe::{
    self,
    Probe, //
};
use xenvmc_core::message::Tuple;
use xenvmc_net::deliver::Origin;
use xenvmc_net::netfilter::{
    Arrived,
    Fate,
    PacketHandler, //
};
use xenvmc_net::packet::Packet;

/// Sees packets. One in the module.
pub(crate) struct Watcher(Arc<Frontend>);

impl Watcher {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(frontend: &Arc<Frontend>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(frontend.clone()), GFP_KERNEL)?)
    }
}

impl PacketHandler for Watcher {
    fn leaving(&self, packet: Packet, device: i32) -> Fate {
        let Some(parsed) = packet.parse() else {
            return Fate::Network(packet);
        };
        let Tuple { dst, dst_port, .. } = parsed.tuple;
        if dst_port == probe::PORT || !self.0.peers().may_have(dst) {
            return Fate::Network(packet);
        }
        let datagrams = self.0.datagrams();
        let asker = packet.asker();
        let (fate, then) =
            datagrams
                .flows
                .lock()
                .leaving(&self.0, packet, &parsed, device, asker.is_some());
        match then {
            Afterwards::Nothing => {}
            Afterwards::Kick => datagrams.kick(),
            Afterwards::Look(channel) => {
                if let Some(asker) = asker {
                    channel.lines().answers.look(&channel, &asker);
                }
            }
        }
        fate
    }

    fn arriving(&self, packet: &Arrived<'_>) -> bool {
        let tuple = &packet.parsed().tuple;
        let marker = packet.payload::<{ marker::SIZE }>();
        if let Some(marker) = marker.and_then(|payload| Marker::parse(&payload)) {
            let datagrams = self.0.datagrams();
            let is_ours = datagrams.arrivals.lock().handle_marker(tuple, &marker);
            if is_ours {
                datagrams.kick();
            }
            // One that comes too late is for nobody else.
            return is_ours || self.0.peers().may_have(tuple.src);
        }
        if tuple.dst_port != probe::PORT {
            return false;
        }
        let payload = packet.payload::<{ probe::SIZE }>();
        let Some(probe) = payload.and_then(|payload| Probe::parse(&payload)) else {
            return false;
        };
        self.0.counters().udp_probes_received.inc();
        if self.0.peers().backend() != Some(probe.backend) {
            // Somebody of another host, whose peer with our number is not ours.
            return true;
        }
        let datagrams = self.0.datagrams();
        let echo = Echo {
            asker: probe.asker,
            address: packet.parsed().tuple.dst,
            nonce: probe.nonce,
        };
        let is_taken = datagrams.echoes.lock().push(echo);
        if is_taken {
            datagrams.kick();
        }
        true
    }

    fn arrived(&self, packet: &Arrived<'_>) {
        let tuple = &packet.parsed().tuple;
        let peers = self.0.peers();
        if !peers.may_have(tuple.src) {
            return;
        }
        let Some(peer) = peers.find(tuple.src) else {
            return;
        };
        let Some(ethernet) = packet.ethernet_source() else {
            return;
        };
        let origin = Origin {
            device: packet.device(),
            ethernet,
        };
        let datagrams = self.0.datagrams();
        let noted = datagrams
            .arrivals
            .lock()
            .note(tuple, origin, packet.datagrams());
        if noted.is_awaited {
            datagrams.kick();
        }
        if noted.is_twice_as_many && !peer.has_channel() {
            // Its sender wants one soon, and it may be we who offer (protocol §2.4).
            self.0.want_channel(&peer);
        }
    }
}
