// SPDX-License-Identifier: GPL-2.0

//! The states of one accelerated connection at one of its ends (protocol §7.6).
//!
//! ```text
//!   Plain ──Ask──> Asking ──Accepted, Yielded──> Active ──Ended──> Ending ──Released──> Over
//!     │              │ │                           ^  │                                  ^
//!     │              │ └──Refused──────────────────┼──┼──────────────────────────────────┤
//!     │              └──Ended──> Withdrawn ──Refused──┼──────────────────────────────────┤
//!     │                            └──Accepted──> Ending                                 │
//!     └──Asked─────────────────────────────────────┘  └──Released──> Deserted ──Ended────┘
//! ```
//!
//! A slot and its extents are given back when, and only when, *Over* is reached.

/// The state of a connection at one end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// TCP alone; no slot.
    Plain,
    /// OPEN was sent, with a slot of ours; the answer is awaited.
    Asking,
    /// The socket went away before the answer came.
    Withdrawn,
    /// Both ends know both slots; segments may be started.
    Active,
    /// RELEASE was sent; we touch no slot any more, but the peer may.
    Ending,
    /// The peer's RELEASE came; our end has still to finish.
    Deserted,
    /// Both ends are finished, or there never were two.
    Over,
}

/// What happens to a connection at one end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// We send OPEN.
    Ask,
    /// The peer's OPEN was found right while we had not asked; we send ACCEPT.
    Asked,
    /// The peer's OPEN was found right while we had asked too, and the peer's has precedence (its
    /// domain number is the lower one); we send ACCEPT, and the REFUSE for ours will be ignored.
    Yielded,
    /// The peer's ACCEPT came.
    Accepted,
    /// The peer's REFUSE came.
    Refused,
    /// Our end is finished: everything was read, or nobody will read; the final record is published.
    Ended,
    /// The peer's RELEASE came.
    Released,
    /// The channel is over.
    ChannelOver,
}

/// What is to be done after a transition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Nothing.
    None,
    /// Send OPEN.
    SendOpen,
    /// Send ACCEPT.
    SendAccept,
    /// Send RELEASE. It is the last thing that happens to the slots at this end.
    SendRelease,
}

impl State {
    /// All states.
    pub const ALL: [State; 7] = [
        State::Plain,
        State::Asking,
        State::Withdrawn,
        State::Active,
        State::Ending,
        State::Deserted,
        State::Over,
    ];

    /// The state after `event`, and what to do; `None` if that makes no sense now.
    ///
    /// If the event came from the peer ([`Event::is_peers`]), `None` is a breach of the protocol.
    ///
    /// ```
    /// use xenvmc_core::connection::{Action, Event, State};
    ///
    /// assert_eq!(State::Plain.next(Event::Ask), Some((State::Asking, Action::SendOpen)));
    /// assert_eq!(State::Plain.next(Event::Released), None);
    /// ```
    pub const fn next(self, event: Event) -> Option<(State, Action)> {
        use Action as A;
        use Event as E;
        use State as S;
        Some(match (self, event) {
            (S::Plain, E::Ask) => (S::Asking, A::SendOpen),
            (S::Plain, E::Asked) => (S::Active, A::SendAccept),
            (S::Plain, E::Ended) => (S::Over, A::None),

            (S::Asking, E::Accepted) => (S::Active, A::None),
            (S::Asking, E::Yielded) => (S::Active, A::SendAccept),
            (S::Asking, E::Refused) => (S::Over, A::None),
            (S::Asking, E::Ended) => (S::Withdrawn, A::None),

            (S::Withdrawn, E::Accepted) => (S::Ending, A::SendRelease),
            (S::Withdrawn, E::Refused) => (S::Over, A::None),

            (S::Active, E::Ended) => (S::Ending, A::SendRelease),
            (S::Active, E::Released) => (S::Deserted, A::None),

            (S::Ending, E::Released) => (S::Over, A::None),
            (S::Deserted, E::Ended) => (S::Over, A::SendRelease),

            (_, E::ChannelOver) => (S::Over, A::None),

            _ => return None,
        })
    }

    /// Whether this end may touch its own slot and the peer's.
    pub const fn has_slots(self) -> bool {
        matches!(self, State::Active | State::Deserted)
    }
}

impl Event {
    /// All events.
    pub const ALL: [Event; 8] = [
        Event::Ask,
        Event::Asked,
        Event::Yielded,
        Event::Accepted,
        Event::Refused,
        Event::Ended,
        Event::Released,
        Event::ChannelOver,
    ];

    /// Whether a message of the peer is the cause.
    pub const fn is_peers(self) -> bool {
        matches!(
            self,
            Event::Asked | Event::Yielded | Event::Accepted | Event::Refused | Event::Released
        )
    }
}
