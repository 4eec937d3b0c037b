// SPDX-License-Identifier: GPL-2.0

//! The addresses and ports that name one TCP connection.

use crate::socket::Socket;
use net_sys as bindings;

use xenvmc_core::message::{
    Address,
    Tuple, //
};

/// Where an IPv4 address lies in an IPv4-mapped IPv6 one (RFC 4291, section 2.5.5.2).
const MAPPED_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

fn from_v6(octets: [u8; 16]) -> Address {
    let (prefix, v4) = octets.split_at(MAPPED_PREFIX.len());
    match v4.try_into() {
        Ok(v4) if prefix == MAPPED_PREFIX => Address::V4(v4),
        _ => Address::V6(octets),
    }
}

impl Socket {
    /// Returns the connection's addresses and ports, this end's as the source, or [`None`] for a socket that is neither IPv4 nor IPv6.
    ///
    /// Any context. The answer is stable from the state ESTABLISHED on, until a disconnect.
    pub fn tuple(&self) -> Option<Tuple> {
        let sk = self.as_ptr();
        // SAFETY: `sk` is a live socket. The fields are plain integers that change only in `connect` and `disconnect`; a
        // torn value can only fail to match.
        let common = unsafe { &(*sk).__sk_common };
        // SAFETY: as above; each member of these unions is plain data.
        let (remote_v4, local_v4, remote_port, local_port) = unsafe {
            let addresses = common.__bindgen_anon_1.__bindgen_anon_1.as_ref();
            let ports = common.__bindgen_anon_3.__bindgen_anon_1.as_ref();
            (
                addresses.skc_daddr,
                addresses.skc_rcv_saddr,
                u16::from_be(ports.skc_dport),
                ports.skc_num,
            )
        };
        let (local, remote) = match u32::from(common.skc_family) {
            bindings::AF_INET => (
                Address::V4(local_v4.to_ne_bytes()),
                Address::V4(remote_v4.to_ne_bytes()),
            ),
            bindings::AF_INET6 => {
                // SAFETY: all views of an IPv6 address are 16 bytes of plain data.
                let (local, remote) = unsafe {
                    (
                        common.skc_v6_rcv_saddr.in6_u.u6_addr8,
                        common.skc_v6_daddr.in6_u.u6_addr8,
                    )
                };
                (from_v6(local), from_v6(remote))
            }
            _ => return None,
        };
        Some(Tuple {
            src: local,
            dst: remote,
            src_port: local_port,
            dst_port: remote_port,
        })
    }
}
