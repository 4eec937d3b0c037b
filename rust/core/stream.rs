// SPDX-License-Identifier: GPL-2.0

//! One direction of a connection: its segments and its ring, over the words of the two slots.
//!
//! [`Outbound`] is the sender's end, [`Inbound`] the reader's. They do every load and store of
//! slot words, in the order that protocol §6 asks for; the caller copies the bytes, and passes what
//! TCP says. `own` is always the caller's slot (which it writes), `peer` the mapped one.
//!
//! The sender, under the socket lock:
//!
//! ```text
//!   room ── n > 0 ──> spans, copy, commit ──> notice if true
//!    │
//!    └─ 0 ──> arm ── true ──> sleep; a notice wakes
//! ```
//!
//! The reader, under its own lock, after it took `rcv_nxt`:
//!
//! ```text
//!   look ─┬─ Ring, n > 0 ──> spans, copy, consume ─┐
//!         ├─ Tcp, n > 0 ──> recvmsg of TCP ────────┴─> look again …, at last publish ──> notice
//!         └─ nothing ──> publish, arm ── true ──> sleep; a notice or TCP wakes
//! ```

mod inbound;
mod outbound;

pub use inbound::{
    Followed,
    Inbound,
    Source, //
};
pub use outbound::Outbound;
