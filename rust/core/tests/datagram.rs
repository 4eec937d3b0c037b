// SPDX-License-Identifier: GPL-2.0

//! Datagrams in a ring (protocol §10): records, headers, messages and states.

mod common;

use common::{
    cases,
    tuple::tuple,
    HostFence,
    Slot, //
};
use proptest::prelude::*;
use xenvmc_core::{
    datagram::{
        flow::{
            Event,
            State, //
        },
        headers::{
            self,
            Headers,
            ETHERNET,
            LOOK, //
        },
        message::Message,
        record::{
            Fields,
            Record,
            HEAD,
            SEGMENTS_MAX, //
        },
        ring::{
            Reader,
            Sender, //
        },
        ORDER_MIN,
        PAYLOAD_MAX, //
    },
    error::DatagramError,
    extent::Spans,
    message::{
        Address,
        Tuple, //
    },
    wire::{
        slot,
        SlotId, //
    },
    Decline,
    Extent,
    Words, //
};

/// Fields that both families have.
fn fields() -> impl Strategy<Value = Fields> {
    (any::<u8>(), 1..=u8::MAX).prop_map(|(tos, ttl)| Fields {
        tos,
        ttl,
        ..Fields::default()
    })
}

fn record() -> impl Strategy<Value = Record> {
    let fields = (fields(), any::<(bool, bool, u16)>(), 0..1u32 << 20);
    (0..=PAYLOAD_MAX, any::<u32>(), 0..=200u32, fields).prop_map(
        |(len, flow, parts, (fields, (dont_fragment, no_checksum, id), label))| {
            let size = len.div_ceil(parts.clamp(1, SEGMENTS_MAX));
            let segment = if size < len && size > 0 { size } else { 0 };
            Record {
                len,
                flow,
                segment: segment as u16,
                fields: Fields {
                    dont_fragment,
                    no_checksum: no_checksum && segment == 0,
                    id,
                    label,
                    ..fields
                },
            }
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let extent = (ORDER_MIN..=10u8, 0..1000u32)
        .prop_map(|(order, at)| Extent::new(at << order, order).unwrap());
    let (slot, reason) = (any::<u32>(), prop::sample::select(Decline::ALL));
    (
        any::<(u32, u32, [u8; 16])>(),
        tuple(),
        slot,
        extent,
        reason,
        0..9,
    )
        .prop_map(|((id, flow, nonce), tuple, slot, extent, reason, kind)| {
            let slot = SlotId(slot);
            match kind {
                0 => Message::Ask {
                    id,
                    tuple,
                    slot,
                    extent,
                },
                1 => Message::Admit { id, flow, slot },
                2 => Message::Refuse { id, reason },
                3 => Message::Handover {
                    flow,
                    id,
                    sent: slot.0,
                },
                4 => Message::Go { id },
                5 => Message::Leave { flow, id },
                6 => Message::Left { id },
                7 => Message::Revoke { id },
                _ => Message::Echo {
                    address: tuple.src,
                    nonce,
                },
            }
        })
}

/// The checksum of `bytes` with their sum in it is 0.
fn is_sum_right(bytes: &[u8]) -> bool {
    let sum = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum::<u32>();
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

/// Both ends of one ring.
struct Pair {
    slots: [Slot; 2],
    memory: Vec<u8>,
    sender: Sender,
    reader: Reader,
    sent: Vec<(u32, u32)>,
    received: Vec<(u32, u32)>,
    notified: bool,
}

fn copy(spans: Spans, mut each: impl FnMut(usize, std::ops::Range<usize>)) {
    let mut done = 0;
    for span in spans {
        each(
            done,
            span.offset as usize..(span.offset + span.len) as usize,
        );
        done += span.len as usize;
    }
}

impl Pair {
    fn new() -> Self {
        let extent = Extent::new(0, ORDER_MIN).unwrap();
        Self {
            slots: [Slot::new(0, 0), Slot::new(0, 0)],
            memory: vec![0; extent.bytes() as usize],
            sender: Sender::new(extent),
            reader: Reader::new(extent),
            sent: Vec::new(),
            received: Vec::new(),
            notified: false,
        }
    }

    fn byte(number: u32, at: usize) -> u8 {
        common::byte((u64::from(number) << 20) | at as u64)
    }

    /// Sends datagram `number`; false = no room.
    fn send(&mut self, number: u32, len: u32) -> bool {
        let (own, peer) = (&self.slots[0], &self.slots[1]);
        if !self
            .sender
            .has_room(len, &peer.word(slot::RX_CONS))
            .unwrap()
        {
            return false;
        }
        let record = Record {
            len,
            flow: number,
            segment: 0,
            fields: Fields {
                ttl: 1,
                ..Fields::default()
            },
        };
        let head = self.sender.head().unwrap().offset as usize;
        self.memory[head..head + HEAD as usize].copy_from_slice(&record.emit());
        copy(self.sender.payload(len), |done, place| {
            for (index, byte) in self.memory[place].iter_mut().enumerate() {
                *byte = Self::byte(number, done + index);
            }
        });
        self.sender.push(len);
        let event = peer.word(slot::RX_DATA_EVENT);
        self.notified = self
            .sender
            .publish::<HostFence>(&own.word(slot::TX_PROD), &event);
        self.sent.push((number, len));
        true
    }

    /// Whether a sender that finds no room may sleep.
    fn waits_for_room(&mut self) -> bool {
        let event = self.slots[0].word(slot::TX_SPACE_EVENT);
        self.sender
            .arm::<HostFence>(PAYLOAD_MAX, &event, &self.slots[1].word(slot::RX_CONS))
    }

    /// Reads a datagram, if there is one.
    fn read(&mut self) -> bool {
        let available = self
            .reader
            .look(&self.slots[0].word(slot::TX_PROD))
            .unwrap();
        if available == 0 {
            return false;
        }
        let head = self.reader.head().unwrap().offset as usize;
        let head = self.memory[head..head + HEAD as usize].try_into().unwrap();
        let record = Record::parse(&head, available).unwrap();
        copy(self.reader.payload(0, record.len), |done, place| {
            for (index, byte) in self.memory[place].iter().enumerate() {
                assert_eq!(*byte, Self::byte(record.flow, done + index));
            }
        });
        self.reader.take(&record);
        let event = self.slots[0].word(slot::TX_SPACE_EVENT);
        self.reader
            .publish::<HostFence>(&self.slots[1].word(slot::RX_CONS), &event);
        self.received.push((record.flow, record.len));
        true
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn records_travel(record in record(), more in 0..9000u32) {
        let head = record.emit();
        prop_assert_eq!(Record::parse(&head, Record::space(record.len) + more), Ok(record));
    }

    /// §10.3: a record that does not fit into what is in the ring is a violation.
    #[test]
    fn records_are_whole(record in record(), missing in 1..=HEAD) {
        let space = Record::space(record.len);
        let result = Record::parse(&record.emit(), space - missing);
        prop_assert_eq!(result, Err(DatagramError::Length(record.len)));
    }

    /// §10.3: whatever a peer writes, what is believed can be built.
    #[test]
    fn any_head_is_checked(head in any::<[u8; 32]>(), available in any::<u32>(), tuple in tuple()) {
        if let Ok(record) = Record::parse(&head, available) {
            prop_assert!(Record::space(record.len) <= available);
            prop_assert!((1..=SEGMENTS_MAX).contains(&record.datagrams()));
            let headers = Headers::new([2; 6], [3; 6], &tuple, &record.fields, record.len);
            prop_assert!(headers.is_some());
            prop_assert_eq!(record.emit(), head);
        }
    }

    /// The headers that the receiver makes say what those of the sender said.
    #[test]
    fn headers_travel(tuple in tuple(), record in record()) {
        let is_v4 = matches!(tuple.src, Address::V4(_));
        let made = Headers::new([2; 6], [3; 6], &tuple, &record.fields, record.len).unwrap();
        let bytes = &made.bytes()[ETHERNET..];
        let parsed = headers::parse(bytes).unwrap();
        prop_assert_eq!(parsed.tuple, tuple);
        // A datagram without a checksum is, in IPv6, only for sockets that allow that.
        prop_assert_eq!(parsed.has_options, !is_v4 && record.fields.no_checksum);
        prop_assert_eq!(parsed.payload_at as usize, bytes.len());
        prop_assert_eq!(made.udp_at + 8, made.bytes().len());
        let (sent, got) = (record.fields, parsed.fields);
        prop_assert_eq!((sent.tos, sent.ttl), (got.tos, got.ttl));
        if is_v4 {
            prop_assert!(is_sum_right(&bytes[..20]));
            let total = u32::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            prop_assert_eq!(total, 28 + record.len);
            prop_assert_eq!(sent.dont_fragment, got.dont_fragment);
            prop_assert_eq!((sent.id, sent.no_checksum), (got.id, got.no_checksum));
        } else {
            prop_assert_eq!(sent.label, got.label);
        }
    }

    /// The UDP checksum, once the payload is added to it, is right.
    #[test]
    fn pseudo_header_sums_are_right(tuple in tuple(), fields in fields(), payload in prop::collection::vec(any::<u8>(), 0..40)) {
        let len = payload.len() as u32;
        let made = Headers::new([2; 6], [3; 6], &tuple, &fields, len).unwrap();
        let udp = &made.bytes()[made.udp_at..];
        let words = |bytes: &[u8]| -> u32 {
            bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
        };
        let (src, dst): (&[u8], &[u8]) = match (&tuple.src, &tuple.dst) {
            (Address::V4(src), Address::V4(dst)) => (src, dst),
            (Address::V6(src), Address::V6(dst)) => (src, dst),
            _ => unreachable!(),
        };
        // What is there already is the sum of the pseudo header; the device adds the rest.
        let fold = |mut sum: u32| { while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) } sum };
        let pseudo = fold(words(src) + words(dst) + 17 + 8 + len);
        prop_assert_eq!(u32::from(u16::from_be_bytes([udp[6], udp[7]])), pseudo);
        prop_assert_eq!(u32::from(u16::from_be_bytes([udp[4], udp[5]])), 8 + len);
    }

    #[test]
    fn any_packet_is_taken_apart(bytes in prop::collection::vec(any::<u8>(), 0..80), first in prop::sample::select(vec![0x45u8, 0x46, 0x4f, 0x44, 0x60]), udp in any::<bool>()) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() { *byte = first; }
        let at = if first >> 4 == 4 { 9 } else { 6 };
        if let (true, Some(byte)) = (udp, bytes.get_mut(at)) { *byte = 17; }
        if let Some(parsed) = headers::parse(&bytes) {
            prop_assert!(parsed.payload_at as usize <= bytes.len());
        }
    }

    /// §10.3: what comes out of the ring is what went in, in order, whatever the sizes; a full ring has room again when
    /// the reader says so, and whoever waits is told.
    #[test]
    fn datagrams_come_out_in_order(sizes in prop::collection::vec((0..=PAYLOAD_MAX, 0..6usize), 1..40)) {
        let mut pair = Pair::new();
        for (number, (len, reads)) in (0..).zip(sizes) {
            while !pair.send(number, len) {
                prop_assert!(pair.waits_for_room());
                prop_assert!(pair.read(), "full and empty");
            }
            for _ in 0..reads {
                pair.read();
            }
        }
        while pair.read() {}
        prop_assert_eq!(&pair.sent, &pair.received);
        prop_assert!(pair.sender.is_drained(&pair.slots[1].word(slot::RX_CONS)));
        prop_assert!(pair.reader.arm::<HostFence>(
            &pair.slots[1].word(slot::RX_DATA_EVENT),
            &pair.slots[0].word(slot::TX_PROD),
        ));
        prop_assert!(pair.send(99, 5) && pair.notified, "the sleeping reader is told");
    }

    /// §10.3: an index that cannot be is an error, never a look outside of the ring.
    #[test]
    fn readers_check_the_index(prod in any::<u32>()) {
        let extent = Extent::new(0, ORDER_MIN).unwrap();
        let (slots, mut reader) = (Slot::new(prod, 0), Reader::new(extent));
        match reader.look(&slots.word(slot::TX_PROD)) {
            Ok(available) => prop_assert!(available == prod && prod <= extent.bytes() && prod % HEAD == 0),
            Err(_) => prop_assert!(prod > extent.bytes() || prod % HEAD != 0),
        }
        let (slots, mut sender) = (Slot::new(0, prod), Sender::new(extent));
        let room = sender.has_room(0, &slots.word(slot::RX_CONS));
        prop_assert_eq!(room.is_ok(), prod == 0);
    }

    #[test]
    fn messages_travel(message in message()) {
        prop_assert_eq!(Message::parse(&message.emit()), Ok(message));
    }

    #[test]
    fn any_message_is_checked(bytes in any::<[u8; 64]>(), kind in 0..12u8) {
        let mut bytes = bytes;
        bytes[..4].copy_from_slice(&[2, kind, 0, 0]);
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert_eq!(message.emit(), bytes);
        }
    }
}

#[test]
fn fragments_are_no_datagrams() {
    let tuple = Tuple {
        src: Address::V4([10, 0, 0, 1]),
        dst: Address::V4([10, 0, 0, 2]),
        src_port: 1,
        dst_port: 2,
    };
    let fields = Fields {
        ttl: 64,
        ..Fields::default()
    };
    let made = Headers::new([0; 6], [0; 6], &tuple, &fields, 8).unwrap();
    let mut bytes = made.bytes()[ETHERNET..].to_vec();
    assert!(headers::parse(&bytes).is_some());
    bytes[6] = 0x20;
    assert_eq!(headers::parse(&bytes), None, "more fragments");
    bytes[6..8].copy_from_slice(&[0, 1]);
    assert_eq!(headers::parse(&bytes), None, "not the first one");
}

/// §10.5: datagrams with options are counted, though they cannot be in a ring.
#[test]
fn options_are_seen() {
    let fields = Fields {
        ttl: 64,
        ..Fields::default()
    };
    let of = |src, dst| Tuple {
        src,
        dst,
        src_port: 1,
        dst_port: 2,
    };
    // All 40 bytes that there can be.
    let tuple = of(Address::V4([10, 0, 0, 1]), Address::V4([10, 0, 0, 2]));
    let made = Headers::new([0; 6], [0; 6], &tuple, &fields, 8).unwrap();
    let mut bytes = made.bytes()[ETHERNET..].to_vec();
    bytes[0] = 0x4f;
    bytes.splice(20..20, [1; 40]);
    let parsed = headers::parse(&bytes[..LOOK.min(bytes.len())]).unwrap();
    assert_eq!((parsed.tuple, parsed.payload_at), (tuple, 68));
    assert!(parsed.has_options);

    let tuple = of(Address::V6([1; 16]), Address::V6([2; 16]));
    let made = Headers::new([0; 6], [0; 6], &tuple, &fields, 8).unwrap();
    let plain = made.bytes()[ETHERNET..].to_vec();
    let (hop_by_hop, destination, routing) = (0, 60, 43);
    let mut bytes = plain.clone();
    bytes[6] = hop_by_hop;
    let mut headers = vec![
        destination,
        0,
        1,
        4,
        0,
        0,
        0,
        0,
        routing,
        0,
        1,
        4,
        0,
        0,
        0,
        0,
        17,
        2,
    ];
    headers.resize(8 + 8 + 24, 0);
    bytes.splice(40..40, headers);
    let parsed = headers::parse(&bytes[..LOOK.min(bytes.len())]).unwrap();
    assert_eq!((parsed.tuple, parsed.payload_at), (tuple, 48 + 40));
    assert!(parsed.has_options);
    for end in 0..88 {
        assert_eq!(headers::parse(&bytes[..end]), None, "cut at {end}");
    }
    // A fragment, and what is no UDP.
    for next in [44, 6, 59] {
        let mut bytes = plain.clone();
        bytes[6] = next;
        assert_eq!(headers::parse(&bytes), None, "{next}");
    }
}

/// §10.3: what no correct sender writes.
#[test]
fn impossible_records_are_errors() {
    let fields = Fields {
        ttl: 64,
        ..Fields::default()
    };
    let good = Record {
        len: 1000,
        flow: 3,
        segment: 0,
        fields,
    };
    let check = |record: Record| Record::parse(&record.emit(), u32::MAX);
    assert_eq!(check(good), Ok(good));
    let long = PAYLOAD_MAX + 1;
    let cases = [
        (Record { len: long, ..good }, DatagramError::Length(long)),
        (
            Record { segment: 7, ..good },
            DatagramError::Segment(7), // 143 parts
        ),
        (
            Record {
                segment: 1000,
                ..good
            },
            DatagramError::Segment(1000),
        ),
        (
            Record {
                fields: Fields { ttl: 0, ..fields },
                ..good
            },
            DatagramError::TimeToLive,
        ),
        (
            Record {
                fields: Fields {
                    label: 1 << 20,
                    ..fields
                },
                ..good
            },
            DatagramError::Reserved,
        ),
    ];
    for (record, error) in cases {
        assert_eq!(check(record), Err(error));
    }
    let mut head = good.emit();
    head[31] = 1;
    assert_eq!(Record::parse(&head, 2000), Err(DatagramError::Reserved));
}

/// §10.5: all pairs of a state and an event.
#[test]
fn flows_change_as_the_table_says() {
    use {
        Event::*,
        State::*, //
    };
    let table = [
        (Network, Ask, Asking),
        (Asking, Admitted, Entering),
        (Asking, Refused, Network),
        (Asking, Leave, Network),
        (Entering, Go, Ring),
        (Entering, Leave, Leaving),
        (Ring, Leave, Leaving),
        (Leaving, Left, Network),
    ];
    let events = [Ask, Admitted, Refused, Go, Left, Leave];
    for state in State::ALL {
        for event in events {
            let expected = table
                .iter()
                .find(|(from, by, _)| (*from, *by) == (state, event))
                .map(|(_, _, to)| *to);
            assert_eq!(state.next(event), expected, "{state:?} {event:?}");
        }
        assert_eq!(state.holds(), matches!(state, Entering | Leaving));
    }
}
