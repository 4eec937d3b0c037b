// SPDX-License-Identifier: GPL-2.0

//! The states of one end of a channel (protocol §9).
//!
//! ```text
//!   Init ──Established──> Open ──Close, Peer*──> Closing ──Drained──> Drained ──PeerDrained──> Done
//!     │                                                                                               ^
//!     └──Close────────────────────────────────────────────────────────────────────────────────────────┤
//!   Init … Drained ──PeerLost, Timeout──> Lost ──Drained──────────────────────────────────────────────┤
//!   Init … Lost    ──Violation──> Broken ──Drained────────────────────────────────────────────────────┘
//! ```
//!
//! The first four are seen by the peer, in the state word of the root page. *Lost* keeps the mapped
//! memory until what is in it was delivered; *Broken* gives every byte in it up. In *Done* nothing
//! of the peer is mapped, and nothing of ours is granted for longer than the peer keeps it mapped.

use crate::error::ChannelError;

/// The state of one end of a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// The root page is prepared; the peer's is not mapped yet.
    Init,
    /// Connections can be accelerated.
    Open,
    /// This end starts no ring segment any more, and all its directions have their final record.
    Closing,
    /// This end took everything out of the peer's rings, and touches nothing but its state word.
    Drained,
    /// The peer is gone; its memory is still mapped and may hold bytes to deliver.
    Lost,
    /// The peer broke the protocol, and nothing that it wrote is used any more.
    Broken,
    /// It is over.
    Done,
}

/// What happens to one end of a channel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// The peer's root page is mapped, was found right, and its state is not yet CLOSING.
    Established,
    /// We want to close: unload, suspend, no connection left.
    Close,
    /// The peer's state is CLOSING or DRAINED.
    PeerClosing,
    /// All our directions have their final record or are given up, everything was taken out of the
    /// peer's rings, and the peer's state is at least CLOSING (or the peer is gone).
    Drained,
    /// The peer's state is DRAINED.
    PeerDrained,
    /// The peer did not answer in time.
    Timeout,
    /// The peer's domain is gone, or it has a new channel in mind.
    PeerLost,
    /// The peer wrote what no correct peer writes.
    Violation,
}

impl Event {
    /// All events.
    pub const ALL: [Event; 8] = [
        Event::Established,
        Event::Close,
        Event::PeerClosing,
        Event::Drained,
        Event::PeerDrained,
        Event::Timeout,
        Event::PeerLost,
        Event::Violation,
    ];
}

impl State {
    /// All states.
    pub const ALL: [State; 7] = [
        State::Init,
        State::Open,
        State::Closing,
        State::Drained,
        State::Lost,
        State::Broken,
        State::Done,
    ];

    /// The state after `event`; `None` if that makes no sense now, and nothing changes.
    ///
    /// ```
    /// use xenvmc_core::channel::{Event, State};
    ///
    /// assert_eq!(State::Open.next(Event::PeerClosing), Some(State::Closing));
    /// assert_eq!(State::Open.next(Event::Established), None);
    /// ```
    pub const fn next(self, event: Event) -> Option<State> {
        use Event as E;
        use State as S;
        Some(match (self, event) {
            (S::Init, E::Established) => S::Open,
            (S::Init, E::Close | E::PeerClosing | E::PeerDrained) => S::Done,
            (S::Init, E::Timeout | E::PeerLost) => S::Done,

            (S::Open, E::Close | E::PeerClosing | E::PeerDrained) => S::Closing,
            (S::Open, E::Timeout | E::PeerLost) => S::Lost,

            (S::Closing, E::Drained) => S::Drained,
            (S::Closing, E::Close | E::PeerClosing | E::PeerDrained) => S::Closing,
            (S::Closing, E::Timeout | E::PeerLost) => S::Lost,

            (S::Drained, E::PeerDrained) => S::Done,
            (S::Drained, E::Close | E::PeerClosing) => S::Drained,
            (S::Drained, E::Timeout | E::PeerLost) => S::Done,

            (S::Lost, E::Drained) => S::Done,
            (S::Lost, E::Close | E::PeerLost | E::Timeout) => S::Lost,

            (S::Init | S::Open | S::Closing | S::Drained | S::Lost, E::Violation) => S::Broken,
            (S::Broken, E::Drained) => S::Done,
            (S::Broken, E::Close | E::Timeout | E::PeerLost | E::Violation) => S::Broken,

            _ => return None,
        })
    }

    /// What the state word of the root page says in this state.
    ///
    /// A broken end says DRAINED, because it touches nothing any more: so a peer that is correct
    /// after all need not wait.
    pub const fn word(self) -> u32 {
        match self {
            State::Init => 0,
            State::Open => 1,
            State::Closing | State::Lost => 2,
            State::Drained | State::Broken | State::Done => 3,
        }
    }

    /// Whether a connection may be asked for, accepted, or begin a ring segment.
    pub const fn is_open(self) -> bool {
        matches!(self, State::Open)
    }

    /// Whether the peer's rings may be read.
    pub const fn is_readable(self) -> bool {
        matches!(self, State::Open | State::Closing | State::Lost)
    }
}

/// What the peer's state word said last.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PeerState(u32);

impl PeerState {
    /// Takes note of the peer's state word, and returns the event that it means, if it changed.
    ///
    /// ```
    /// use xenvmc_core::channel::{Event, PeerState};
    ///
    /// let mut peer = PeerState::default();
    /// assert_eq!(peer.handle_word(1), Ok(None));
    /// assert_eq!(peer.handle_word(2), Ok(Some(Event::PeerClosing)));
    /// assert!(peer.handle_word(1).is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// [`ChannelError`] if there is no such state, or it went back.
    pub fn handle_word(&mut self, word: u32) -> Result<Option<Event>, ChannelError> {
        if word > 3 {
            return Err(ChannelError::State(word));
        }
        if word < self.0 {
            return Err(ChannelError::Back);
        }
        let changed = word != self.0;
        self.0 = word;
        Ok(match word {
            2 if changed => Some(Event::PeerClosing),
            3 if changed => Some(Event::PeerDrained),
            _ => None,
        })
    }

    /// Whether the peer is in OPEN or beyond.
    pub const fn is_open(&self) -> bool {
        self.0 >= 1
    }

    /// Whether the peer is in CLOSING or beyond.
    pub const fn is_closing(&self) -> bool {
        self.0 >= 2
    }

    /// Whether the peer is in DRAINED.
    pub const fn is_drained(&self) -> bool {
        self.0 >= 3
    }
}
