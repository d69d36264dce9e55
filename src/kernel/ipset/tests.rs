//! Codec tests of the folder: both directions on bytes of real kernels, and no panic on any bytes.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::request::{failed_entry, put_options, take_listing};
use super::*;
use crate::kernel::netlink::captures::capture;
use crate::kernel::netlink::{self, Attributes, Message, Refusal};
use crate::model::net::Protocol;

const CAPTURES: &str = include_str!("testdata/captures.hex");

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

/// Entries that were captured.
fn members() -> [Member; 7] {
    let (other, host) = (ip("10.244.1.4"), net("198.51.100.7/32"));
    [
        Member::IpPortIp(ip("10.244.1.2"), Protocol::Tcp, 8080, ip("10.244.1.2")),
        Member::IpPortIp(ip("10.244.1.3"), Protocol::Sctp, 53, other),
        Member::Net(net("fd00:10:96::/112")),
        Member::IpPortNet(ip("10.0.0.1"), Protocol::Tcp, 80, net("192.0.2.0/24")),
        Member::IpPortNet(ip("10.0.0.1"), Protocol::Udp, 53, host),
        Member::IpPortNet(ip("fd00::1"), Protocol::Tcp, 80, net("2001:db8::/32")),
        Member::Port(Family::V6, 30_080),
    ]
}

fn listing_of(body: &[u8]) -> Listing {
    let mut listing = Listing::default();
    take_listing(&mut listing, Family::V6, body).expect("a listing");
    listing
}

fn listing(name: &str) -> Listing {
    listing_of(&capture(CAPTURES, name))
}

/// A listing of a hash set.
fn hash(kind: SetType, family: Family, members: &[Member]) -> Listing {
    Listing {
        type_name: kind.name().to_owned(),
        kind: Some(kind),
        family: Some(family),
        maxelem: Some(65_536),
        elements: u32::try_from(members.len()).ok(),
        ports: None,
        members: members.to_vec(),
    }
}

#[test]
fn builds_entries_as_the_ipset_program_does() {
    for member in members() {
        let mut message = Message::new(0, 0);
        member::put(&mut message, &member);
        // The captures are named as the program writes entries.
        assert_eq!(message.body(), capture(CAPTURES, &format!("entry {member}")), "{member}");
    }
}

#[test]
fn builds_a_bitmap_of_all_ports_as_the_ipset_program_does() {
    let mut message = Message::new(0, 0);
    let kind = SetType::BitmapPort;
    put_options(&mut message, &NewSet { name: "P", kind, family: Family::V4, room: None });
    assert_eq!(message.body(), capture(CAPTURES, "options of P"));
}

#[test]
fn reads_listings_as_the_kernel_tells_them() {
    let members = members();
    for (name, expected) in [
        ("A", hash(SetType::HashIpPortIp, Family::V4, &members[0..2])),
        ("B", hash(SetType::HashNet, Family::V6, &members[2..3])),
        ("N", hash(SetType::HashIpPortNet, Family::V4, &members[3..5])),
        ("M", hash(SetType::HashIpPortNet, Family::V6, &members[5..6])),
    ] {
        assert_eq!(listing(&format!("listing of {name}")), expected);
    }
}

#[test]
fn ports_of_a_bitmap_are_of_the_family_that_was_asked_for() {
    let expected = Listing {
        type_name: "bitmap:port".to_owned(),
        kind: Some(SetType::BitmapPort),
        elements: Some(3),
        ports: Some((0, 65_535)),
        members: [1, 30_080, 65_535].map(|port| Member::Port(Family::V6, port)).to_vec(),
        ..Listing::default()
    };
    assert_eq!(listing("listing of P"), expected);
    assert!(expected.is_of(SetType::BitmapPort, Family::V4));
}

#[test]
fn a_bitmap_of_some_ports_is_none_of_ours() {
    let mut body = capture(CAPTURES, "listing of P");
    let all = [6, 0, 5, 0x40, 0xff, 0xff];
    let at = body.windows(all.len()).position(|bytes| bytes == all).expect("the last port");
    body[at + 4] = 0x03;
    let listing = listing_of(&body);
    assert_eq!((listing.kind, listing.ports), (None, Some((0, 0x03ff))));
    assert_eq!(listing.members, []);
}

#[test]
fn a_later_message_of_a_listing_adds_its_entries() {
    let mut listing = listing("listing of A");
    let body = capture(CAPTURES, "listing of A");
    // Only the first message has type, family and options; the last 92 bytes are the entries.
    let mut later = body[..20].to_vec();
    later.extend(&body[body.len() - 92..]);
    take_listing(&mut listing, Family::V4, &later).expect("more of the listing");
    assert_eq!(listing.members.len(), 4);
    assert_eq!(listing.maxelem, Some(65_536));
}

#[test]
fn every_kind_reads_back_what_it_builds() {
    for address in ["10.96.0.1", "fd00::1"].map(ip) {
        for (kind, member) in [
            (SetType::HashIp, Member::Ip(address)),
            (SetType::HashIpPort, Member::IpPort(address, Protocol::Udp, 53)),
            (SetType::HashIpPortIp, Member::IpPortIp(address, Protocol::Tcp, 80, address)),
            (SetType::HashIpPortNet, Member::IpPortNet(address, Protocol::Tcp, 80, address.into())),
            (SetType::HashNet, Member::Net(address.into())),
            (SetType::BitmapPort, Member::Port(Family::of(address), 80)),
        ] {
            let mut message = Message::new(0, 0);
            member::put(&mut message, &member);
            assert_eq!(
                member::parse(kind, member.family(), Attributes::of(message.body())),
                Ok(member)
            );
        }
    }
}

#[test]
fn the_kernel_names_the_failing_line() {
    let refusal = |line: u32| {
        let mut request = Message::new(0, 0).with(&[0, 0, 0, 0]);
        request.attribute(1, &[7]);
        request.attribute(9, &line.to_ne_bytes());
        Refusal { request: request.body().to_vec(), ..Refusal::of(4103) }
    };
    assert_eq!(failed_entry(&refusal(1), 2), Some(0));
    assert_eq!(failed_entry(&refusal(2), 2), Some(1));
    assert_eq!(failed_entry(&refusal(3), 2), None);
    assert_eq!(failed_entry(&refusal(0), 2), None);
    assert_eq!(failed_entry(&Refusal::of(2), 2), None);
}

#[test]
fn the_subsystems_own_numbers_have_words() {
    let error = |number| Error::from(netlink::Error::Refused(Refusal::of(number)));
    assert!(error(4103).is_already_there());
    assert!(error(4100).is_in_use() && error(4108).is_in_use());
    assert!(error(2).is_gone() && error(17).is_already_there());
    let text = error(4104).to_string();
    assert_eq!(text, "prefix length is not one that the set takes (ipset error 4104)");
    let text = error(5000).to_string();
    assert_eq!(text, "the set subsystem refused (ipset error 5000)");
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = take_listing(&mut Listing::default(), Family::V4, &body);
        let refusal = Refusal { request: body, ..Refusal::of(4103) };
        let _ = failed_entry(&refusal, 10);
        let _ = super::request::holder("A", &refusal.request);
    }

    #[test]
    fn no_damaged_listing_makes_a_reader_panic(at in 0usize..240, byte: u8, length in 0usize..=240) {
        for name in ["A", "B", "N", "M", "P"].map(|name| format!("listing of {name}")) {
            let mut body = capture(CAPTURES, &name);
            let last = body.len() - 1;
            body[at.min(last)] = byte;
            body.truncate(length);
            let _ = take_listing(&mut Listing::default(), Family::V4, &body);
        }
    }
}
