// SPDX-License-Identifier: GPL-2.0
//! stub
#![allow(missing_docs)]
pub mod announce {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Address { V4([u8; 4]), V6([u8; 16]) }
}
pub mod decline {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum Decline { ForeignProtocol, KernelSocket, Mptcp, Ulp, Sockmap, Repair, Signed, Ipsec, CgroupBpf, Callbacks, Pacing, Filter, Timestamps }
}
