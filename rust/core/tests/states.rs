// SPDX-License-Identifier: GPL-2.0

//! Every state with every event: what the tables say is written down here once more.

use std::fmt::Debug;
use xenvmc_core::{
    channel,
    connection::{
        self,
        Action, //
    },
    guest,
    policy::{
        Patience,
        Spin,
        Threshold, //
    },
};

/// protocol §9.1. A column per event, `.` = makes no sense.
#[test]
fn channel_table() {
    use channel::State::{
        Broken,
        Closing,
        Done,
        Drained,
        Init,
        Lost,
        Open, //
    };
    // Established Close PeerClosing Drained PeerDrained Timeout PeerLost Violation
    let table = [
        (Init, "O X X . X X X B"),
        (Open, ". C C . C L L B"),
        (Closing, ". C C D C L L B"),
        (Drained, ". D D . X X X B"),
        (Lost, ". L . X . L L B"),
        (Broken, ". B . X . B B B"),
        (Done, ". . . . . . . ."),
    ];
    assert_eq!(table.map(|(state, _)| state), channel::State::ALL);
    for (state, row) in table {
        let cells: Vec<_> = row.split(' ').collect();
        assert_eq!(cells.len(), channel::Event::ALL.len());
        for (event, cell) in channel::Event::ALL.into_iter().zip(cells) {
            let expected = match cell {
                "." => None,
                "O" => Some(Open),
                "C" => Some(Closing),
                "D" => Some(Drained),
                "L" => Some(Lost),
                "B" => Some(Broken),
                "X" => Some(Done),
                other => panic!("{other}"),
            };
            assert_eq!(state.next(event), expected, "{state:?}, {event:?}");
        }
    }
}

/// protocol §9.1: what a peer sees never goes back.
#[test]
fn the_state_word_does_not_go_back() {
    for state in channel::State::ALL {
        for event in channel::Event::ALL {
            if let Some(next) = state.next(event) {
                assert!(next.word() >= state.word(), "{state:?}, {event:?}");
            }
        }
    }
}

/// protocol §9.1: from every state there is a way to the end.
#[test]
fn every_channel_ends() {
    for mut state in channel::State::ALL {
        for _ in 0..4 {
            use channel::Event::{
                Drained,
                PeerLost, //
            };
            state = state
                .next(PeerLost)
                .and_then(|s| s.next(Drained).or(Some(s)))
                .unwrap_or(state);
        }
        assert_eq!(state, channel::State::Done);
    }
}

/// protocol §9.1, §1.2: the peer's word moves forward, among four values.
#[test]
fn the_peers_word_is_checked() {
    for from in 0..4u32 {
        for to in 0..6u32 {
            let mut peer = channel::PeerState::default();
            peer.handle_word(from).unwrap();
            let event = peer.handle_word(to);
            let expected = match to {
                _ if to > 3 => Err(xenvmc_core::error::ChannelError::State(to)),
                _ if to < from => Err(xenvmc_core::error::ChannelError::Back),
                2 if from != 2 => Ok(Some(channel::Event::PeerClosing)),
                3 if from != 3 => Ok(Some(channel::Event::PeerDrained)),
                _ => Ok(None),
            };
            assert_eq!(event, expected, "{from} to {to}");
            let now = if expected.is_ok() { to } else { from };
            assert_eq!(peer.is_open(), now >= 1);
            assert_eq!(peer.is_closing(), now >= 2);
            assert_eq!(peer.is_drained(), now >= 3);
        }
    }
}

/// protocol §9.1: what may be done in which state.
#[test]
fn channel_rights() {
    use channel::State as S;
    for state in S::ALL {
        assert_eq!(state.is_open(), state == S::Open);
        let readable = matches!(state, S::Open | S::Closing | S::Lost);
        assert_eq!(state.is_readable(), readable);
    }
}

/// protocol §7.6. A column per event, `.` = makes no sense.
#[test]
fn connection_table() {
    use connection::State::{
        Active,
        Asking,
        Deserted,
        Ending,
        Over,
        Plain,
        Withdrawn, //
    };
    // Ask Asked Yielded Accepted Refused Ended Released ChannelOver
    let table = [
        (Plain, "Q A . . . X . X"),
        (Asking, ". . A A X W . X"),
        (Withdrawn, ". . . E X . . X"),
        (Active, ". . . . . E D X"),
        (Ending, ". . . . . . X X"),
        (Deserted, ". . . . . X . X"),
        (Over, ". . . . . . . X"),
    ];
    assert_eq!(table.map(|(state, _)| state), connection::State::ALL);
    for (state, row) in table {
        let cells: Vec<_> = row.split(' ').collect();
        assert_eq!(cells.len(), connection::Event::ALL.len());
        for (event, cell) in connection::Event::ALL.into_iter().zip(cells) {
            let expected = match cell {
                "." => None,
                "Q" => Some(Asking),
                "W" => Some(Withdrawn),
                "A" => Some(Active),
                "E" => Some(Ending),
                "D" => Some(Deserted),
                "X" => Some(Over),
                other => panic!("{other}"),
            };
            let next = state.next(event);
            assert_eq!(next.map(|(s, _)| s), expected, "{state:?}, {event:?}");
        }
    }
}

/// protocol §7.5: each end sends RELEASE once, and only if it knows the peer's slot.
#[test]
fn release_is_sent_once() {
    fn walk(state: connection::State, released: bool, depth: u32) {
        if depth == 0 {
            return;
        }
        for event in connection::Event::ALL {
            let Some((next, action)) = state.next(event) else {
                continue;
            };
            let sends = action == Action::SendRelease;
            assert!(!(sends && released));
            if sends {
                assert!(!next.has_slots());
            }
            if state.has_slots() && !next.has_slots() && event != connection::Event::ChannelOver {
                assert!(sends, "{state:?}, {event:?}");
            }
            walk(next, released || sends, depth - 1);
        }
    }
    walk(connection::State::Plain, false, 7);
}

/// protocol §7.6: which events a peer can cause.
#[test]
fn events_of_the_peer() {
    use connection::Event as E;
    for event in E::ALL {
        let ours = matches!(event, E::Ask | E::Ended | E::ChannelOver);
        assert_eq!(event.is_peers(), !ours);
    }
}

/// Documentation/lifecycle §6.1.
#[test]
fn guest_table() {
    use guest::State::{
        Closing,
        Running,
        Suspended, //
    };
    // Freeze Closed TimeUp Resume
    let table = [
        (Running, "C . . ."),
        (Closing, ". S R ."),
        (Suspended, ". . . R"),
    ];
    assert_eq!(table.map(|(state, _)| state), guest::State::ALL);
    for (state, row) in table {
        let cells: Vec<_> = row.split(' ').collect();
        assert_eq!(cells.len(), guest::Event::ALL.len());
        for (event, cell) in guest::Event::ALL.into_iter().zip(cells) {
            let expected = match cell {
                "." => None,
                "R" => Some(Running),
                "C" => Some(Closing),
                "S" => Some(Suspended),
                other => panic!("{other}"),
            };
            assert_eq!(state.next(event), expected, "{state:?}, {event:?}");
        }
    }
}

/// What Documentation/lifecycle shows of a machine: a row for each state, a column for each event.
fn markdown<S: Copy + Debug, E: Copy + Debug>(
    states: &[S],
    events: &[E],
    cell: impl Fn(S, E) -> Option<String>,
) -> String {
    let mut table = String::from("| |");
    for event in events {
        table += &format!(" {event:?} |");
    }
    table += &format!("\n|---|{}\n", "---|".repeat(events.len()));
    for &state in states {
        table += &format!("| *{state:?}* |");
        for &event in events {
            let cell = cell(state, event).unwrap_or_default();
            table += &format!(" {cell} |").replace("  |", " |");
        }
        table.push('\n');
    }
    table
}

/// Documentation/lifecycle §6: the tables there are those of the code.
#[test]
fn the_documented_tables() {
    let documented = include_str!("../../../Documentation/lifecycle.md");
    let guest = markdown(&guest::State::ALL, &guest::Event::ALL, |state, event| {
        Some(format!("{:?}", state.next(event)?))
    });
    let channel = markdown(
        &channel::State::ALL,
        &channel::Event::ALL,
        |state, event| Some(format!("{:?}", state.next(event)?)),
    );
    let connection = markdown(
        &connection::State::ALL,
        &connection::Event::ALL,
        |state, event| {
            let (next, action) = state.next(event)?;
            let message = match action {
                Action::None => "",
                Action::SendOpen => ", OPEN",
                Action::SendAccept => ", ACCEPT",
                Action::SendRelease => ", RELEASE",
            };
            Some(format!("{next:?}{message}"))
        },
    );
    for table in [guest, channel, connection] {
        assert!(documented.contains(&table), "not there:\n{table}");
    }
}

/// Whichever comes first.
#[test]
fn worth_asking_by_calls_or_bytes() {
    let threshold = Threshold {
        calls: 10,
        bytes: 1 << 20,
    };
    assert!(!threshold.is_reached(9, (1 << 20) - 1));
    assert!(threshold.is_reached(10, 10));
    assert!(threshold.is_reached(1, 1 << 20));
    assert!(threshold.is_reached(u32::MAX, u64::MAX));
    let at_once = Threshold { calls: 0, bytes: 0 };
    assert!(at_once.is_reached(0, 0));
}

/// What comes soon, or soon after a short sleep, is waited for with the whole cap.
#[test]
fn spinning_goes_on_while_waits_are_short() {
    let mut spin = Spin::new();
    for _ in 0..100 {
        assert_eq!(spin.budget(1000, false), 1000);
        spin.handle_hit(1000);
        spin.handle_sleep(10_000, 1000);
    }
}

/// Long sleeps stop it; one short sleep brings half of it back, one hit all.
#[test]
fn spinning_stops_when_it_does_not_help() {
    let mut spin = Spin::default();
    let mut looks = Vec::new();
    for _ in 0..16 {
        looks.push(spin.budget(1000, false));
        spin.handle_sleep(10_001, 1000);
    }
    assert_eq!(looks[..5], [1000, 500, 250, 125, 0]);
    assert_eq!(spin.budget(1000, false), 0);
    spin.handle_sleep(10_000, 1000);
    assert_eq!(spin.budget(1000, false), 500);
    spin.handle_hit(1000);
    assert_eq!(spin.budget(1000, false), 1000);
}

/// Off is off, and no cap is too small or too large.
#[test]
fn spinning_can_be_turned_off() {
    for cap in [0, 1, 2, 7, u32::MAX] {
        let mut spin = Spin::new();
        for waited in [0, 1, cap, u32::MAX] {
            assert!(spin.budget(cap, false) <= cap);
            assert_eq!(spin.budget(cap, true), 0);
            spin.handle_hit(cap);
            spin.handle_sleep(waited, cap);
        }
    }
    assert_eq!(Spin::new().budget(0, false), 0);
}

/// Two threads that wait for each other's sleeps to end stop that, and those whose peers are slow look long now and then only.
#[test]
fn patience_ends_mutual_sleeps() {
    const CAP: u32 = 400;
    let mut patience = Patience::new();
    patience.handle_sleep(2_000, CAP);
    assert_eq!(patience.budget(CAP), 20 * CAP);
    // Better than a sleep: the next look may be as long.
    patience.handle_hit(1_000, CAP);
    assert_eq!(patience.budget(CAP), 20 * CAP);
    patience.handle_hit(100, CAP);
    assert_eq!(patience.budget(CAP), CAP);

    let mut long = 0;
    for _ in 0..1_000 {
        patience.handle_sleep(3_000, CAP);
        long += u32::from(patience.budget(CAP) > CAP);
    }
    assert!((8..32).contains(&long), "{long} long looks in vain");
    let long = (0..1_000).filter(|_| {
        patience.handle_hit(3_000, CAP);
        patience.budget(CAP) > CAP
    });
    assert!(long.count() < 32);
    patience.handle_hit(1, CAP);
    patience.handle_sleep(u32::MAX, CAP);
    assert!(patience.budget(CAP) <= CAP);
    assert_eq!(patience.budget(0), 0);
}

/// Who has something better to do stops looking for what comes later than that, but for a long look now and then.
#[test]
fn patience_with_what_comes_late() {
    const CAP: u32 = 400;
    let mut patience = Patience::new();
    patience.handle_late(300, CAP);
    assert_eq!(patience.budget(CAP), 20 * CAP);
    patience.handle_hit(100, CAP);
    assert_eq!(patience.budget(CAP), CAP);
    let mut looks = 0;
    for _ in 0..1_000 {
        patience.handle_late(2_000, CAP);
        looks += u32::from(patience.budget(CAP) > 0);
    }
    assert!((8..32).contains(&looks), "{looks} looks in vain");
    let mut patience = Patience::default();
    for _ in 0..8 {
        patience.handle_late(u32::MAX, CAP);
    }
    assert_eq!(patience.budget(CAP), 0);
}

/// No look is longer than a short sleep, and what is kept in a word is all there is.
#[test]
fn patience_is_bounded_and_kept() {
    for cap in [0, 1, 7, 400, u32::MAX] {
        let mut patience = Patience::new();
        for round in 0..300u32 {
            let time = round.wrapping_mul(0x9e37_79b9) >> (round % 32);
            match round % 3 {
                0 => patience.handle_hit(time, cap),
                1 => patience.handle_late(time, cap),
                _ => patience.handle_sleep(time, cap),
            }
            assert!(patience.budget(cap) <= cap.saturating_mul(20));
            let kept = Patience::from_bits(patience.to_bits());
            assert_eq!(kept.budget(cap), patience.budget(cap));
            assert_eq!(kept.to_bits(), patience.to_bits());
        }
    }
}

/// What is due adds up, and nothing gets lost in the word.
#[test]
fn which() {
    use xenvmc_core::which::Which::{
        self,
        All,
        Nobody,
        One, //
    };
    for word in 0..=u16::MAX {
        assert_eq!(Which::from_word(word).to_word(), word);
    }
    for which in [Nobody, One(0), One(1), One(0x7fef), All] {
        assert_eq!(Which::from_word(which.to_word()), which);
        assert_eq!(which.and(Nobody), which);
        assert_eq!(Nobody.and(which), which);
        assert_eq!(which.and(which), which);
        assert_eq!(which.and(All), All);
        assert_eq!(All.and(which), All);
    }
    assert_eq!(One(0).and(One(1)), All);
    assert_eq!(Which::from_word(One(u16::MAX).to_word()), All);
}
