// SPDX-License-Identifier: GPL-2.0

//! The headers of a UDP packet: taken apart at the sender, made anew at the receiver, whose own
//! knowledge of the flow has the addresses and ports.

use super::record::Fields;
use crate::message::{
    Address,
    Tuple, //
};

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;

/// Bytes of a UDP header.
pub const UDP: usize = 8;

/// Bytes from the IP header on that [`parse`] wants to see, if the packet has so many: any IPv4 header, and that of IPv6 with 56 bytes
/// of extension headers.
pub const LOOK: usize = IPV6 + 56 + UDP;

/// Bytes of all three headers at most.
pub const HEADERS_MAX: usize = ETHERNET + IPV6 + UDP;

const IPV4: usize = 20;
const IPV6: usize = 40;
const PROTOCOL_UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;
const DONT_FRAGMENT: u16 = 0x4000;

/// What the headers of a packet say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Parsed {
    /// Addresses and ports.
    pub tuple: Tuple,
    /// The rest.
    pub fields: Fields,
    /// Bytes before the payload.
    pub payload_at: u32,
    /// Whether a receiver could not be told all that the headers say: there are options.
    pub has_options: bool,
}

/// Takes the headers of a UDP packet apart; `bytes` begin with the IP header. [`None`] for anything
/// else, fragments included.
pub fn parse(bytes: &[u8]) -> Option<Parsed> {
    match bytes.first()? >> 4 {
        4 => parse_v4(bytes),
        6 => parse_v6(bytes),
        _ => None,
    }
}

fn parse_v4(bytes: &[u8]) -> Option<Parsed> {
    let (head, _) = bytes.split_first_chunk::<IPV4>()?;
    let [first, tos, _, _, i0, i1, o0, o1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
        *head;
    let words = usize::from(first & 15);
    let offset = u16::from_be_bytes([o0, o1]);
    if protocol != PROTOCOL_UDP || words < 5 || offset & !DONT_FRAGMENT != 0 {
        return None;
    }
    let udp_at = words.wrapping_mul(4);
    let (src_port, dst_port, sum) = parse_udp(bytes, udp_at)?;
    Some(Parsed {
        tuple: Tuple {
            src: Address::V4([s0, s1, s2, s3]),
            dst: Address::V4([d0, d1, d2, d3]),
            src_port,
            dst_port,
        },
        fields: Fields {
            tos,
            ttl,
            dont_fragment: offset & DONT_FRAGMENT != 0,
            no_checksum: sum == 0,
            id: u16::from_be_bytes([i0, i1]),
            label: 0,
        },
        payload_at: udp_at.wrapping_add(UDP) as u32,
        has_options: words > 5,
    })
}

fn parse_v6(bytes: &[u8]) -> Option<Parsed> {
    let (head, _) = bytes.split_first_chunk::<8>()?;
    let [b0, b1, b2, b3, _, _, next, ttl] = *head;
    let udp_at = behind_extensions(bytes, next)?;
    let address = |at: usize| Some(Address::V6(*bytes.get(at..)?.first_chunk::<16>()?));
    let (src_port, dst_port, sum) = parse_udp(bytes, udp_at)?;
    let word = u32::from_be_bytes([b0, b1, b2, b3]);
    Some(Parsed {
        tuple: Tuple {
            src: address(8)?,
            dst: address(24)?,
            src_port,
            dst_port,
        },
        fields: Fields {
            tos: (word >> 20) as u8,
            ttl,
            label: word & 0xf_ffff,
            ..Fields::default()
        },
        payload_at: udp_at.wrapping_add(UDP) as u32,
        // Without a checksum it is only for sockets that allow that.
        has_options: udp_at != IPV6 || sum == 0,
    })
}

/// Where the UDP header is, if the first header behind that of IPv6 is of the kind `next`.
fn behind_extensions(bytes: &[u8], mut next: u8) -> Option<usize> {
    let mut at = IPV6;
    while next != PROTOCOL_UDP {
        if !matches!(next, HOP_BY_HOP | ROUTING | DESTINATION) {
            return None;
        }
        let [following, eights] = *bytes.get(at..)?.first_chunk::<2>()?;
        at = at.wrapping_add(usize::from(eights).wrapping_add(1).wrapping_mul(8));
        next = following;
    }
    Some(at)
}

/// Source port, destination port, checksum.
fn parse_udp(bytes: &[u8], at: usize) -> Option<(u16, u16, u16)> {
    let [s0, s1, d0, d1, _, _, c0, c1] = *bytes.get(at..)?.first_chunk::<UDP>()?;
    Some((
        u16::from_be_bytes([s0, s1]),
        u16::from_be_bytes([d0, d1]),
        u16::from_be_bytes([c0, c1]),
    ))
}

/// The headers of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Headers {
    bytes: [u8; HEADERS_MAX],
    len: usize,
    /// Where the UDP header begins.
    pub udp_at: usize,
}

impl Headers {
    /// The headers of a packet from `tuple.src` to `tuple.dst` with `len` bytes of payload, at most
    /// [`super::PAYLOAD_MAX`].
    ///
    /// The UDP checksum is that of the pseudo header only, as a device leaves it that is to complete
    /// it, or 0 if there is to be none. [`None`] if the addresses are of two families.
    pub fn new(
        from: [u8; 6],
        to: [u8; 6],
        tuple: &Tuple,
        fields: &Fields,
        len: u32,
    ) -> Option<Self> {
        let mut headers = Self {
            bytes: [0; HEADERS_MAX],
            len: 0,
            udp_at: 0,
        };
        let datagram = u16::try_from(len).ok()?.checked_add(UDP as u16)?;
        headers.put(&to);
        headers.put(&from);
        let addresses = match (tuple.src, tuple.dst) {
            (Address::V4(src), Address::V4(dst)) => {
                headers.put(&[8, 0]);
                headers.put(&ipv4(src, dst, fields, datagram)?);
                sum(&src).wrapping_add(sum(&dst))
            }
            (Address::V6(src), Address::V6(dst)) => {
                headers.put(&[0x86, 0xdd]);
                let word = (6 << 28) | (u32::from(fields.tos) << 20) | fields.label;
                headers.put(&word.to_be_bytes());
                headers.put(&datagram.to_be_bytes());
                headers.put(&[PROTOCOL_UDP, fields.ttl]);
                headers.put(&src);
                headers.put(&dst);
                sum(&src).wrapping_add(sum(&dst))
            }
            _ => return None,
        };
        headers.udp_at = headers.len;
        headers.put(&tuple.src_port.to_be_bytes());
        headers.put(&tuple.dst_port.to_be_bytes());
        headers.put(&datagram.to_be_bytes());
        let check = match fields.no_checksum {
            true => 0,
            false => fold(
                addresses
                    .wrapping_add(PROTOCOL_UDP.into())
                    .wrapping_add(datagram.into()),
            ),
        };
        headers.put(&check.to_be_bytes());
        Some(headers)
    }

    /// The bytes, from the Ethernet header on.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    fn put(&mut self, part: &[u8]) {
        let end = self.len.wrapping_add(part.len());
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(part);
            self.len = end;
        }
    }
}

fn ipv4(src: [u8; 4], dst: [u8; 4], fields: &Fields, datagram: u16) -> Option<[u8; IPV4]> {
    let [t0, t1] = datagram.checked_add(IPV4 as u16)?.to_be_bytes();
    let [i0, i1] = fields.id.to_be_bytes();
    let offset = if fields.dont_fragment {
        DONT_FRAGMENT
    } else {
        0
    };
    let [o0, o1] = offset.to_be_bytes();
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (src, dst);
    let head = |c0, c1| {
        [
            0x45,
            fields.tos,
            t0,
            t1,
            i0,
            i1,
            o0,
            o1,
            fields.ttl,
            PROTOCOL_UDP,
            c0,
            c1,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ]
    };
    let [c0, c1] = (!fold(sum(&head(0, 0)))).to_be_bytes();
    Some(head(c0, c1))
}

/// The sum of the 16-bit words of at most 40 bytes.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).fold(0, |sum: u32, pair| match *pair {
        [high, low] => sum.wrapping_add(u16::from_be_bytes([high, low]).into()),
        _ => sum,
    })
}

/// The sum in one's complement of what [`sum`] summed up.
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff).wrapping_add(sum >> 16);
    (once & 0xffff).wrapping_add(once >> 16) as u16
}
