// SPDX-License-Identifier: GPL-2.0

//! Any addresses and ports, for property tests.

use proptest::prelude::*;
use xenvmc_core::message::{
    Address,
    Tuple, //
};

/// Any addresses and ports, of one family at both ends.
pub(crate) fn tuple() -> impl Strategy<Value = Tuple> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (Address::V4(a), Address::V4(b)));
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (Address::V6(a), Address::V6(b)));
    (prop_oneof![v4, v6], any::<(u16, u16)>()).prop_map(|((src, dst), ports)| Tuple {
        src,
        dst,
        src_port: ports.0,
        dst_port: ports.1,
    })
}
