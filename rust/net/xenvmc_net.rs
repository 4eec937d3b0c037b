// SPDX-License-Identifier: GPL-2.0

//! Taking over TCP sockets, and seeing UDP packets: the only owner of `struct sock` and `struct sk_buff` in this project.
//!
//! The crate knows nothing of Xen, rings or peers. It offers
//!
//! * [`Socket`] and [`Locked`]: a socket, and a socket whose lock is held;
//! * [`Adopted`]: a socket whose `sk_prot` is a copy of its own with some methods replaced by those of a [`Connection`];
//! * [`StateProbe`]: a call for each TCP state change in this kernel;
//! * [`ReadProbe`]: a call when a program has read all that a UDP socket had;
//! * [`inject`]: giving bytes back to TCP;
//! * [`address`]: the addresses of the netfront devices, and changes of them;
//! * [`netfilter`], [`packet`] and [`deliver`]: UDP packets that leave, that have come, and that come another way.
//!
//! Reference: `Documentation/locking.md` of this project; `net/ipv4/tcp.c`, `net/tls/tls_main.c`
//! and `net/ipv4/tcp_bpf.c` of the kernel for how others do the same.

#![deny(missing_docs)]

pub mod address;
mod adopted;
pub mod deliver;
mod descriptor;
mod eligible;
mod error;
mod grace;
pub mod inject;
pub mod lock;
mod lookup;
mod message;
mod methods;
pub mod netfilter;
mod options;
pub mod packet;
mod reads;
mod registry;
mod send;
mod socket;
mod state;
mod tracepoint;
mod tuple;
mod wait;
mod walk;

pub use adopted::{
    Adopted,
    Connection,
    Guard, //
};
pub use eligible::{
    has_foreign_callbacks,
    has_peek_offset,
    is_co_resident_route,
    learn_callbacks,
    needs_tcp,
    needs_tcp_to_receive,
    why_not_adopt,
    why_not_switch, //
};
pub use grace::{
    after,
    barrier,
    synchronize,
    synchronize_packets,
    AfterGrace, //
};
pub use lookup::find_established;
pub use message::{
    Flags,
    Message, //
};
pub use methods::stray_calls;
pub use reads::{
    ReadHandler,
    ReadProbe, //
};
pub use registry::Registry;
pub use send::send_datagram;
pub use socket::{
    Locked,
    Shutdown,
    Socket, //
};
pub use state::{
    StateHandler,
    StateProbe,
    TcpState, //
};
pub use wait::{
    interrupted,
    is_interrupted,
    is_wanted_elsewhere,
    relax,
    restart,
    Woken, //
};
pub use walk::for_each_established;

const __LOG_PREFIX: &[u8] = b"xenvmc\0";
