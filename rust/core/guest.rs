// SPDX-License-Identifier: GPL-2.0

//! The states of this guest around a suspend, as far as acceleration is concerned (Documentation/lifecycle).
//!
//! ```text
//!   Running ──Freeze──> Closing ──Closed──> Suspended ──Resume──> Running
//!                          └──────TimeUp──────────────────────────> Running
//! ```

/// The state of the guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Peers are looked for, and channels made.
    Running,
    /// The guest is to be suspended: no channel begins, and those that are there end.
    Closing,
    /// Nothing depends on the domain any more.
    Suspended,
}

/// What happens to the guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// Linux is about to suspend the guest.
    Freeze,
    /// All channels are gone, and nobody makes any.
    Closed,
    /// One of them is still there when the time is over: the guest refuses to be suspended.
    TimeUp,
    /// The guest goes on: in another domain or the same, or because it was not suspended after all.
    Resume,
}

impl Event {
    /// All events.
    pub const ALL: [Event; 4] = [Event::Freeze, Event::Closed, Event::TimeUp, Event::Resume];
}

impl State {
    /// All states.
    pub const ALL: [State; 3] = [State::Running, State::Closing, State::Suspended];

    /// The state after `event`; `None` if that makes no sense now, and nothing is to be done.
    ///
    /// ```
    /// use xenvmc_core::guest::{Event, State};
    ///
    /// assert_eq!(State::Running.next(Event::Freeze), Some(State::Closing));
    /// assert_eq!(State::Running.next(Event::Resume), None);
    /// ```
    pub const fn next(self, event: Event) -> Option<State> {
        use Event as E;
        use State as S;
        Some(match (self, event) {
            (S::Running, E::Freeze) => S::Closing,
            (S::Closing, E::Closed) => S::Suspended,
            (S::Closing, E::TimeUp) => S::Running,
            (S::Suspended, E::Resume) => S::Running,
            _ => return None,
        })
    }
}
