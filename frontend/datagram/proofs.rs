// SPDX-License-Identifier: GPL-2.0

//! Which addresses peers have shown to be theirs (protocol §10.2).

use crate::peer::Peer;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::{
    Instant,
    Monotonic, //
};
use xenvmc_core::datagram::probe::Nonce;
use xenvmc_core::message::Address;

/// How long a proof holds. It is renewed when half of that is over, while somebody asks for it.
const PROOF_MS: i64 = 60_000;

/// How long an answer is waited for; after each probe without one the next is sent twice as late.
const ANSWER_MS: i64 = 1_000;

/// How often that time doubles.
const DOUBLINGS: u32 = 5;

/// Addresses that are known of at most.
const PROOFS_MAX: usize = 256;

/// One address of one peer.
struct Proof {
    /// Whose it is: the instance of the domain that Dom0 tells us of, whatever that announces. Another one has to show it again.
    peer: Arc<Peer>,
    address: Address,
    nonce: Nonce,
    asked: Option<Instant<Monotonic>>,
    /// Probes since the last answer.
    unanswered: u32,
    proven: Option<Instant<Monotonic>>,
    is_wanted: bool,
}

/// All proofs.
pub(super) struct Proofs(KVec<Proof>);

impl Proof {
    fn is_of(&self, peer: &Arc<Peer>, address: Address) -> bool {
        Arc::ptr_eq(&self.peer, peer) && self.address == address
    }
}

fn is_younger(at: Option<Instant<Monotonic>>, ms: i64) -> bool {
    at.is_some_and(|at| at.elapsed().as_millis() < ms)
}

impl Proofs {
    /// None.
    pub(super) const fn new() -> Self {
        Self(KVec::new())
    }

    /// Whether `peer` has shown that `address` is its own. If not, or if that gets old, it will be asked for: the caller kicks the
    /// keeper. Softirq or process context.
    pub(super) fn is_proven(&mut self, peer: &Arc<Peer>, address: Address) -> bool {
        let is_it = |proof: &Proof| proof.is_of(peer, address);
        let index = match self.0.iter().position(is_it) {
            Some(index) => index,
            None => {
                self.0.retain(|proof| {
                    !proof.peer.is_gone() && is_younger(proof.proven.or(proof.asked), PROOF_MS)
                });
                let new = Proof {
                    peer: peer.clone(),
                    address,
                    nonce: [0; 16],
                    asked: None,
                    unanswered: 0,
                    proven: None,
                    is_wanted: true,
                };
                if self.0.len() >= PROOFS_MAX || self.0.push(new, GFP_ATOMIC).is_err() {
                    return false;
                }
                self.0.len() - 1
            }
        };
        self.0.get_mut(index).is_some_and(|proof| {
            proof.is_wanted |= !is_younger(proof.proven, PROOF_MS / 2);
            is_younger(proof.proven, PROOF_MS)
        })
    }

    /// A probe that is to be sent: where to, and with what number.
    pub(super) fn poll_probe(&mut self) -> Option<(Address, Nonce)> {
        let proof = self.0.iter_mut().find(|proof| {
            let doublings = proof.unanswered.saturating_sub(1).min(DOUBLINGS);
            proof.is_wanted && !is_younger(proof.asked, ANSWER_MS << doublings)
        })?;
        let halves = [xenvmc_xen::random::u64(), xenvmc_xen::random::u64()];
        let nonce = u128::from(halves[0]) << 64 | u128::from(halves[1]);
        let nonce = nonce.to_le_bytes();
        (proof.nonce, proof.asked) = (nonce, Some(Instant::now()));
        proof.unanswered = proof.unanswered.saturating_add(1);
        // Only who goes on to want it gets another one.
        proof.is_wanted = false;
        Some((proof.address, nonce))
    }

    /// `peer` says that a probe with `nonce` has reached it at `address`; false = none like that was sent there for it.
    pub(super) fn handle_echo(&mut self, peer: &Arc<Peer>, address: Address, nonce: Nonce) -> bool {
        let found = self.0.iter_mut().find(|proof| {
            proof.is_of(peer, address) && proof.nonce == nonce && is_younger(proof.asked, ANSWER_MS)
        });
        let Some(proof) = found else {
            return false;
        };
        // Once: from now on it is no secret.
        proof.asked = None;
        (proof.proven, proof.unanswered) = (Some(Instant::now()), 0);
        proof.is_wanted = false;
        true
    }
}
