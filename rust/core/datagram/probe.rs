// SPDX-License-Identifier: GPL-2.0

//! The probe: a UDP packet with a random number that goes over the network to an address that a
//! peer claims (protocol §10.2). Who can say the number on the channel has received the packet.

/// The port that probes go to: that of the discard protocol, where nobody answers.
pub const PORT: u16 = 9;

/// Bytes of a probe's payload.
pub const SIZE: usize = 40;

/// A number that nobody can guess.
pub type Nonce = [u8; 16];

const MAGIC: [u8; 8] = *b"XenVMC\x00\x01";

/// What a probe says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Probe {
    /// The domain that asks, to which the answer goes: on the channel, so that a false one is of no use.
    pub asker: u16,
    /// The random number of the asker's backend, since domains of two hosts have the same numbers: who has another
    /// backend is not asked.
    pub backend: u64,
    /// The number.
    pub nonce: Nonce,
}

impl Probe {
    /// The payload.
    ///
    /// ```
    /// use xenvmc_core::datagram::probe::Probe;
    ///
    /// let probe = Probe { asker: 7, backend: 5, nonce: [3; 16] };
    /// assert_eq!(Probe::parse(&probe.emit()), Some(probe));
    /// assert_eq!(Probe::parse(&[0; 40]), None);
    /// ```
    pub fn emit(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let [a0, a1] = self.asker.to_le_bytes();
        let asker = [a0, a1, 0, 0, 0, 0, 0, 0];
        let backend = self.backend.to_le_bytes();
        let parts = MAGIC
            .iter()
            .chain(&asker)
            .chain(&backend)
            .chain(&self.nonce);
        for (to, from) in bytes.iter_mut().zip(parts) {
            *to = *from;
        }
        bytes
    }

    /// What a payload says, if it is a probe's.
    pub fn parse(bytes: &[u8; SIZE]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (asker, rest) = rest.split_first_chunk::<8>()?;
        let (backend, nonce) = rest.split_first_chunk::<8>()?;
        let [a0, a1, reserved @ ..] = *asker;
        if *magic != MAGIC || reserved != [0; 6] {
            return None;
        }
        Some(Self {
            asker: u16::from_le_bytes([a0, a1]),
            backend: u64::from_le_bytes(*backend),
            nonce: *nonce.first_chunk()?,
        })
    }
}
