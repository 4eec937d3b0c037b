// SPDX-License-Identifier: GPL-2.0

//! What is written can be read again, and nothing else can.

mod common;

use common::cases;
use common::tuple::tuple;
use proptest::prelude::*;
use xenvmc_core::datagram::{
    headers::{
        self,
        UDP, //
    },
    marker::{
        self,
        Marker, //
    }, //
};
use xenvmc_core::{
    announce::{
        Address,
        Addresses,
        Announcement,
        Backend,
        Offer, //
    },
    error::{
        AnnounceError,
        WireError, //
    },
    message::{
        Message,
        Tuple, //
    },
    root::{
        Root,
        ROOT_SIZE, //
    },
    segment::{
        Kind,
        Record, //
    },
    wire::SlotId,
    Decline,
    Extent, //
};

fn message() -> impl Strategy<Value = Message> {
    let slot = any::<u32>().prop_map(SlotId);
    let reason = prop::sample::select(Decline::ALL);
    (any::<(u32, u32)>(), slot, tuple(), reason, 0..4).prop_map(
        |((id, isn), slot, tuple, reason, kind)| match kind {
            0 => Message::Open {
                id,
                tuple,
                isn,
                slot,
            },
            1 => Message::Accept { id, isn, slot },
            2 => Message::Refuse { id, reason },
            _ => Message::Release { id, slot },
        },
    )
}

fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(Address::V4),
        any::<[u8; 16]>().prop_map(Address::V6),
    ]
    .prop_filter("not claimable", Address::is_claimable)
}

proptest! {
    #![proptest_config(cases(1000))]

    /// protocol §7.1
    #[test]
    fn messages_come_back(message in message()) {
        prop_assert_eq!(Message::parse(&message.emit()), Ok(message));
    }

    /// protocol §7.1: a message has one form only.
    #[test]
    fn no_other_bytes_are_a_message(
        message in message(),
        at in 0..64usize,
        value in any::<u8>(),
    ) {
        let mut bytes = message.emit();
        bytes[at] = value;
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert_eq!(message.emit(), bytes);
        }
    }

    /// protocol §7.1
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in any::<[u8; 32]>(), head in 0..6u8) {
        let mut message = [0; 64];
        message[..32].copy_from_slice(&bytes);
        message[0] = 1;
        message[1] = head;
        if let Ok(parsed) = Message::parse(&message) {
            prop_assert_eq!(parsed.emit(), message);
        }
    }

    /// protocol §6.2: a record has one form only.
    #[test]
    fn records_have_one_form(
        words in prop_oneof![
            any::<[u32; 4]>(),
            (0..4u32, 0..12u32, any::<u32>(), any::<u32>(), 0..2048u32)
                .prop_map(|(kind, order, ring, seq, page)| [kind | (order << 8), ring, seq, page]),
        ],
    ) {
        if let Ok(record) = Record::from_words(words) {
            prop_assert_eq!(record.to_words(), words);
            if let Kind::Ring(extent) = record.kind {
                prop_assert!(extent.order() <= 10 && extent.page() % extent.pages() == 0);
            }
        }
    }

    /// protocol §3.1
    #[test]
    fn root_pages_come_back(
        instance in any::<u64>(),
        control in any::<[u32; 1]>(),
        notice in any::<[u32; 4]>(),
        at in 0..36usize,
        value in 1..=u8::MAX,
    ) {
        let root = Root { instance, control, notice };
        let mut bytes = root.emit();
        prop_assert_eq!(Root::parse(&bytes), Ok(root));
        bytes[at] ^= value;
        let other = Root::parse(&bytes);
        prop_assert_eq!(other.is_ok(), (16..24).contains(&at));
    }

    /// protocol §2.2
    #[test]
    fn announcements_come_back(
        version in any::<u32>(),
        features in any::<u64>(),
        instance in any::<u64>(),
        list in prop::collection::vec(address(), 0..=32),
    ) {
        let mut addresses = Addresses::new();
        for address in list {
            let _ = addresses.add(address);
        }
        let announcement = Announcement { version, features, instance, addresses };
        let text = announcement.to_string();
        // 32 addresses of IPv6 in full length are more than a value may have.
        match Announcement::parse(text.as_bytes()) {
            Ok(parsed) => prop_assert_eq!(parsed, announcement),
            Err(error) => {
                prop_assert_eq!(error, AnnounceError::Long);
                prop_assert!(text.len() > 1024);
            }
        }
    }

    /// protocol §2.4
    #[test]
    fn offers_come_back(
        to in any::<u64>(),
        instance in any::<u64>(),
        root in any::<u32>(),
        port in any::<Option<u32>>(),
    ) {
        let offer = Offer { to, instance, root, port };
        prop_assert_eq!(Offer::parse(offer.to_string().as_bytes()), Ok(offer));
    }

    /// protocol §2.1: whatever a guest writes is read or refused.
    #[test]
    fn any_value_is_parsed_or_refused(value in prop::collection::vec(any::<u8>(), 0..1200)) {
        let _ = Announcement::parse(&value);
        let _ = Offer::parse(&value);
        let _ = Backend::parse(&value);
    }

    /// protocol §2.1: the same with values that look right at first.
    #[test]
    fn any_words_are_parsed_or_refused(
        value in "(version|features|instance|addresses|for|root|port|x|)=?[0-9a-fx.:,]{0,17}( [a-z]{0,9}=[0-9a-f,.:]{0,17}){0,4} ?",
    ) {
        let _ = Announcement::parse(value.as_bytes());
        let _ = Offer::parse(value.as_bytes());
        let _ = Backend::parse(value.as_bytes());
    }
}

/// protocol §2: one reason for each way to be wrong.
#[test]
fn malformed_values_are_named() {
    use AnnounceError as E;
    let instance = "instance=0123456789abcdef";
    for (value, error) in [
        ("", E::Syntax),
        ("version=1", E::Missing),
        ("version=1  instance=0", E::Syntax),
        (" version=1", E::Syntax),
        ("=1", E::Syntax),
        ("version=1\n", E::Syntax),
        ("version=01 instance=0123456789abcdef", E::Number),
        ("version=+1 instance=0123456789abcdef", E::Number),
        ("version= instance=0123456789abcdef", E::Number),
        ("version=4294967296 instance=0123456789abcdef", E::Number),
        ("version=1 instance=0123456789ABCDEF", E::Number),
        ("version=1 instance=123456789abcdef", E::Number),
        (
            "version=1 version=1 instance=0123456789abcdef",
            E::Duplicate,
        ),
    ] {
        assert_eq!(Backend::parse(value.as_bytes()), Err(error), "{value:?}");
    }
    for (list, error) in [
        ("10.0.0.1,", E::Address),
        ("10.0.0.256", E::Address),
        ("10.0.0.1,10.0.0.1", E::Address),
        ("127.0.0.1", E::Address),
        ("0.0.0.0", E::Address),
        ("224.0.0.1", E::Address),
        ("255.255.255.255", E::Address),
        ("::", E::Address),
        ("::1", E::Address),
        ("fe80::1", E::Address),
        ("ff02::1", E::Address),
        ("::ffff:10.0.0.1", E::Address),
        ("fd00::2,fd00:0::2", E::Address),
    ] {
        let value = format!("version=1 features=0x0 {instance} addresses={list}");
        assert_eq!(Announcement::parse(value.as_bytes()), Err(error), "{list}");
    }
    let many: Vec<_> = (1..=33).map(|n| format!("10.0.0.{n}")).collect();
    let value = format!(
        "version=1 features=0x0 {instance} addresses={}",
        many.join(",")
    );
    assert_eq!(Announcement::parse(value.as_bytes()), Err(E::TooMany));
    assert_eq!(Backend::parse(&[b'x'; 1025]), Err(E::Long));
}

/// protocol §2.2: a guest may have no address, and a later version other words.
#[test]
fn announcements_are_open_to_additions() {
    let value = b"colour=red version=2 features=0x1f instance=0000000000000001 addresses=";
    let announcement = Announcement::parse(value).unwrap();
    assert!(announcement.addresses.is_empty());
    assert_eq!((announcement.version, announcement.features), (2, 31));
}

/// protocol §3.1: one reason for each way to be wrong.
#[test]
fn malformed_roots_are_named() {
    let good = Root {
        instance: 1,
        control: [2],
        notice: [3, 4, 5, 6],
    };
    assert_eq!(Root::parse(&[0; ROOT_SIZE]), Err(WireError::Magic(0)));
    for (at, error) in [
        (4, WireError::Version(0)),
        (6, WireError::Reserved),
        (8, WireError::Reserved),
        (24, WireError::Geometry),
        (28, WireError::Geometry),
        (32, WireError::Geometry),
    ] {
        let mut bytes = good.emit();
        bytes[at] ^= 1;
        assert_eq!(Root::parse(&bytes), Err(error), "byte {at}");
    }
}

/// protocol §7.1, §7.2: one reason for each way to be wrong; another service is not fatal.
#[test]
fn malformed_messages_are_named() {
    let open = Message::Open {
        id: 1,
        tuple: Tuple {
            src: Address::V4([10, 0, 0, 1]),
            dst: Address::V4([10, 0, 0, 2]),
            src_port: 0x1234,
            dst_port: 80,
        },
        isn: 0xdead_beef,
        slot: SlotId(16),
    };
    let bytes = open.emit();
    assert_eq!(
        bytes[..16],
        [1, 1, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 0x34, 0x12, 80, 0]
    );
    assert_eq!(bytes[48..56], [0xef, 0xbe, 0xad, 0xde, 16, 0, 0, 0]);
    for (at, value, error) in [
        (0, 2, WireError::Service(2)),
        (1, 9, WireError::Kind(9)),
        (2, 1, WireError::Reserved),
        (8, 5, WireError::Family(5)),
        (9, 1, WireError::Reserved),
        (20, 1, WireError::Reserved),
        (56, 1, WireError::Reserved),
    ] {
        let mut bytes = open.emit();
        bytes[at] = value;
        assert_eq!(Message::parse(&bytes), Err(error), "byte {at}");
        assert_eq!(error.is_fatal(), !matches!(error, WireError::Service(_)));
    }
    let mut refuse = Message::Refuse {
        id: 1,
        reason: Decline::Other,
    }
    .emit();
    refuse[8] = 31;
    assert_eq!(Message::parse(&refuse), Err(WireError::Reason(31)));
}

/// protocol §7.2: the two ends see one connection from two sides.
#[test]
fn tuples_are_reversed() {
    let tuple = Tuple {
        src: Address::V4([1, 2, 3, 4]),
        dst: Address::V4([5, 6, 7, 8]),
        src_port: 1,
        dst_port: 2,
    };
    assert_eq!(tuple.reversed().src, tuple.dst);
    assert_eq!(tuple.reversed().reversed(), tuple);
}

/// protocol §8: numbers and names are unique, and what is told is one of them.
#[test]
fn reasons_are_numbered() {
    let mut names = std::collections::HashSet::new();
    let mut last = None;
    for (at, &reason) in Decline::ALL.iter().enumerate() {
        assert!(names.insert(reason.name()));
        assert!(last < Some(reason.code()), "in the order of their numbers");
        last = Some(reason.code());
        assert_eq!(reason.index(), at);
        assert_eq!(Decline::try_from(reason.code()), Ok(reason));
        assert!(reason.told() == reason || reason.told() == Decline::Other);
    }
    assert_eq!(names.len(), Decline::COUNT);
    assert_eq!(Decline::WrongProof.told(), Decline::Other);
}

/// protocol §3.4: slots lie where their numbers say.
#[test]
fn slots_are_numbered() {
    assert_eq!(SlotId(33).page(), 2);
    assert_eq!(SlotId(33).offset(), 256);
    assert!(SlotId(33).fits(3) && !SlotId(33).fits(2));
    assert!(!SlotId(u32::MAX).fits(65536));
    assert!(SlotId::new(65536, 0).is_none());
    assert!(Extent::new(0, 11).is_none());
}

/// The sum of RFC 1071 over headers and payload, done otherwise than in the code: 0xffff if a checksum in it is right.
fn ones(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for (i, byte) in parts.concat().iter().enumerate() {
        sum += u32::from(*byte) << if i % 2 == 0 { 8 } else { 0 };
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A packet with that header of IP and a marker.
fn marked(ip: &[u8]) -> Vec<u8> {
    let udp = [0x30, 0x39, 0x10, 0xe1, 0, 0, 0, 0];
    [ip, &udp, &Marker { id: 1, flow: 2 }.emit()].concat()
}

#[test]
fn a_sealed_marker_is_right_but_for_its_checksum() {
    let v4 = [
        0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, 17, 0, 0, 10, 77, 0, 11, 10, 77, 0, 12,
    ];
    let v6 = |next: u8| {
        [
            &[0x60, 0, 0, 0, 0, 0, next, 64][..],
            &[0xfd; 16],
            &[0xfe; 16],
        ]
        .concat()
    };
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    for (ip, addresses) in [
        (v4.to_vec(), 12..20),
        (v6(17), 8..40),
        ([&v6(60)[..], &options].concat(), 8..40),
    ] {
        let (mut packet, payload_at) = (marked(&ip), ip.len() + UDP);
        marker::seal(&mut packet, payload_at).unwrap();
        let parsed = headers::parse(&packet).unwrap();
        assert_eq!(parsed.payload_at as usize, payload_at);
        let udp = &packet[ip.len()..];
        assert_eq!(udp[4..6], ((UDP + marker::SIZE) as u16).to_be_bytes());
        let pseudo = [0, 17, 0, udp.len() as u8];
        let addresses = &packet[addresses];
        assert_ne!(
            ones(&[addresses, &pseudo, udp]),
            0xffff,
            "a program would see it"
        );
        assert_ne!(udp[6..8], [0, 0], "no checksum is a right one");
        match ip[0] >> 4 {
            4 => {
                assert_eq!(packet[2..4], (packet.len() as u16).to_be_bytes());
                assert_eq!(ones(&[&packet[..20]]), 0xffff);
            }
            _ => assert_eq!(packet[4..6], (packet.len() as u16 - 40).to_be_bytes()),
        }
    }
}

#[test]
fn what_is_no_packet_is_not_sealed() {
    for (bytes, payload_at) in [
        (vec![], 28),
        (vec![0x45; 20], 28),
        (vec![0x55; 40], 28),
        (vec![0x60; 50], 7),
        (vec![0x60; 30], 20),
    ] {
        assert_eq!(marker::seal(&mut bytes.clone(), payload_at), None);
    }
}

proptest! {
    #![proptest_config(cases(256))]

    /// Whatever the bytes are, the checksum is wrong, and not 0.
    #[test]
    fn no_program_sees_a_marker(bytes in prop::collection::vec(any::<u8>(), 44..=44)) {
        let mut packet = bytes;
        packet[0] = 0x45;
        prop_assert_eq!(marker::seal(&mut packet, 28), Some(()));
        let pseudo = [0, 17, 0, 24];
        prop_assert_ne!(ones(&[&packet[12..20], &pseudo, &packet[20..]]), 0xffff);
        prop_assert_ne!(&packet[26..28], &[0, 0][..]);
    }
}
