// SPDX-License-Identifier: GPL-2.0

//! Options that are being set and that want the socket as TCP made it: nobody takes it over until TCP has looked at the option.
//!
//! kTLS makes the kernel's tables for all its sockets from the table that the socket has then. Were that ours, all of them would
//! have our methods (`tls_build_proto` in `net/tls/tls_main.c`).

use kernel::sync::atomic::{
    Acquire,
    Atomic,
    Full,
    Release, //
};
use net_sys as bindings;

/// Sockets that can be held at once and be told apart.
const PLACES: usize = 64;

/// The addresses of sockets that are held; 0 = none.
static HELD: [Atomic<usize>; PLACES] = [const { Atomic::new(0) }; PLACES];

/// Calls that found no place: while there is one, every socket counts as held.
static CROWD: Atomic<usize> = Atomic::new(0);

/// A call that sets such an option: its socket is held until this is dropped.
pub(crate) struct Hold {
    /// Where its address is; [`None`] = in the crowd.
    place: Option<&'static Atomic<usize>>,
}

impl Hold {
    /// Holds a socket. Whoever locks it later, to take it over, sees that; who had it locked has taken it over when he lets go of it.
    pub(crate) fn new(sk: *mut bindings::sock) -> Self {
        let is_ours = |place: &&Atomic<usize>| place.cmpxchg(0, sk.addr(), Full).is_ok();
        let place = HELD.iter().find(is_ours);
        if place.is_none() {
            CROWD.fetch_add(1, Full);
        }
        Self { place }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        match self.place {
            // TCP's look at the option /before/ the socket may be taken over again.
            Some(place) => place.store(0, Release),
            None => drop(CROWD.fetch_sub(1, Full)),
        }
    }
}

/// Whether a locked socket is held.
pub(crate) fn is_held(sk: *mut bindings::sock) -> bool {
    CROWD.load(Acquire) != 0 || HELD.iter().any(|place| place.load(Acquire) == sk.addr())
}
