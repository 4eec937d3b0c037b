// SPDX-License-Identifier: GPL-2.0

//! The marker: a packet that goes over the network behind the last datagram of a flow, and with its addresses and ports, so that it takes the
//! same way, and has not overtaken any of them when it comes (protocol §10.5). The marker protocol of IEEE 802.1AX does the same where a
//! conversation moves to another link.
//!
//! Its checksum is wrong, so that a receiver without us drops it, and no program sees it.

use crate::message::Address;

/// Bytes of a marker's payload.
pub const SIZE: usize = 16;

const MAGIC: [u8; 8] = *b"XenVMC\x00\x02";

const UDP: usize = super::headers::UDP;

/// What is wrong with the checksum.
const WRONG: u16 = 0x5aa5;

/// What a marker says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Marker {
    /// The sender's number of its request.
    pub id: u32,
    /// The reader's number of the flow.
    pub flow: u32,
}

impl Marker {
    /// The payload.
    ///
    /// ```
    /// use xenvmc_core::datagram::marker::Marker;
    ///
    /// let marker = Marker { id: 7, flow: 5 };
    /// assert_eq!(Marker::parse(&marker.emit()), Some(marker));
    /// assert_eq!(Marker::parse(&[0; 16]), None);
    /// ```
    pub fn emit(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let (id, flow) = (self.id.to_le_bytes(), self.flow.to_le_bytes());
        let parts = MAGIC.iter().chain(&id).chain(&flow);
        for (to, from) in bytes.iter_mut().zip(parts) {
            *to = *from;
        }
        bytes
    }

    /// What a payload says, if it is a marker's.
    pub fn parse(bytes: &[u8; SIZE]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (id, flow) = rest.split_first_chunk::<4>()?;
        (*magic == MAGIC).then_some(Self {
            id: u32::from_le_bytes(*id),
            flow: u32::from_le_bytes(*flow.first_chunk()?),
        })
    }
}

/// Makes the headers of a UDP packet right for another payload, but for its checksum, which is made wrong. `packet` is all of it, from the IP
/// header on, and `payload_at` where the payload begins ([`super::headers::parse`]). [`None`], with nothing that could be sent, if it is no such
/// packet.
pub fn seal(packet: &mut [u8], payload_at: usize) -> Option<()> {
    let udp_at = payload_at.checked_sub(UDP)?;
    let len = u16::try_from(packet.len()).ok()?;
    let udp_len = u16::try_from(packet.len().checked_sub(udp_at)?).ok()?;
    let (src, dst) = match packet.first()? >> 4 {
        4 => {
            set(packet, 2, len)?;
            set(packet, 10, 0)?;
            // An IPv4 header is all that is before.
            let sum = fold(sum(packet.get(..udp_at)?));
            set(packet, 10, !sum)?;
            let at = |at| Some(Address::V4(*packet.get(at..)?.first_chunk()?));
            (at(12)?, at(16)?)
        }
        6 => {
            set(packet, 4, len.checked_sub(40)?)?;
            let at = |at| Some(Address::V6(*packet.get(at..)?.first_chunk()?));
            (at(8)?, at(24)?)
        }
        _ => return None,
    };
    set(packet, udp_at.checked_add(4)?, udp_len)?;
    set(packet, udp_at.checked_add(6)?, 0)?;
    let right = checksum(src, dst, udp_len, packet.get(udp_at..)?);
    // 0 stands for none.
    let wrong = match right ^ WRONG {
        0 => !WRONG,
        wrong => wrong,
    };
    set(packet, udp_at.checked_add(6)?, wrong)
}

/// Writes a number in network order.
fn set(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut::<2>()? = value.to_be_bytes();
    Some(())
}

/// The checksum of a UDP packet whose own is 0 (RFC 768, RFC 8200 §8.1).
fn checksum(src: Address, dst: Address, udp_len: u16, udp: &[u8]) -> u16 {
    let addresses = match (&src, &dst) {
        (Address::V4(src), Address::V4(dst)) => sum(src).wrapping_add(sum(dst)),
        (Address::V6(src), Address::V6(dst)) => sum(src).wrapping_add(sum(dst)),
        _ => 0,
    };
    let others = u64::from(udp_len).wrapping_add(17);
    !fold(addresses.wrapping_add(others).wrapping_add(sum(udp)))
}

/// The sum of 16-bit words in network order (RFC 1071); a last odd byte is the first one of its word.
fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| match *pair {
        [high, low] => u64::from(u16::from_be_bytes([high, low])),
        [high] => u64::from(high) << 8,
        _ => 0,
    };
    bytes.chunks(2).map(word).fold(0, u64::wrapping_add)
}

/// The same as one word.
fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
    }
    sum as u16
}
