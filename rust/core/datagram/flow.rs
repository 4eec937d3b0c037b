// SPDX-License-Identifier: GPL-2.0

//! The states of a flow at its sender (protocol §10.5).
//!
//! ```text
//! Network ──Ask──> Asking ──Admitted──> Entering ──Go──> Ring
//!    ^               │                     │              │
//!    ├───Refused─────┘                     └───Leave──┐   │ Leave
//!    │                                                v   v
//!    └───────────────────────Left────────────────── Leaving
//! ```

/// Where the datagrams of a flow go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Over the network.
    Network,
    /// Over the network; the reader was asked.
    Asking,
    /// They wait until those on the network have arrived.
    Entering,
    /// Through the ring.
    Ring,
    /// They wait until those in the ring have been delivered.
    Leaving,
}

/// What happens to a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// The reader is asked.
    Ask,
    /// The reader said ADMIT.
    Admitted,
    /// The reader said REFUSE.
    Refused,
    /// The reader said GO.
    Go,
    /// The reader said LEFT, or will not say it any more.
    Left,
    /// The sender wants to go back to the network.
    Leave,
}

impl State {
    /// All states.
    pub const ALL: [State; 5] = [
        State::Network,
        State::Asking,
        State::Entering,
        State::Ring,
        State::Leaving,
    ];

    /// The state after `event`; [`None`] if that has no meaning in this one, and nothing changes.
    ///
    /// That is no breach where the peer said it: both ends may change their minds at once.
    pub const fn next(self, event: Event) -> Option<State> {
        Some(match (self, event) {
            (State::Network, Event::Ask) => State::Asking,
            (State::Asking, Event::Admitted) => State::Entering,
            (State::Asking, Event::Refused | Event::Leave) => State::Network,
            (State::Entering, Event::Go) => State::Ring,
            (State::Entering | State::Ring, Event::Leave) => State::Leaving,
            (State::Leaving, Event::Left) => State::Network,
            _ => return None,
        })
    }

    /// Whether datagrams wait.
    pub const fn holds(self) -> bool {
        matches!(self, State::Entering | State::Leaving)
    }
}
