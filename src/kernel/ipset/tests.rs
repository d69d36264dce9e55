//! Codec tests of the folder: both directions on bytes of real kernels, and no panic on any bytes.

use proptest::prelude::*;

use super::request::{failed_entry, take_listing};
use super::*;
use crate::kernel::netlink::captures::capture;
use crate::kernel::netlink::{self, Attributes, Message, Refusal};
use crate::model::net::Protocol;

const CAPTURES: &str = include_str!("testdata/captures.hex");

fn member(text: &str) -> Member {
    let front = |address: &str, protocol, port, other: &str| {
        let other = other.parse().expect("an address");
        Member::IpPortIp(address.parse().expect("an address"), protocol, port, other)
    };
    match text {
        "10.244.1.2,tcp:8080,10.244.1.2" => front("10.244.1.2", Protocol::Tcp, 8080, "10.244.1.2"),
        "10.244.1.3,sctp:53,10.244.1.4" => front("10.244.1.3", Protocol::Sctp, 53, "10.244.1.4"),
        network => Member::Net(network.parse().expect("a network")),
    }
}

const MEMBERS: [&str; 3] =
    ["10.244.1.2,tcp:8080,10.244.1.2", "10.244.1.3,sctp:53,10.244.1.4", "fd00:10:96::/112"];

fn listing(name: &str) -> Listing {
    let mut listing = Listing::default();
    take_listing(&mut listing, &capture(CAPTURES, name)).expect("a listing");
    listing
}

#[test]
fn builds_entries_as_the_ipset_program_does() {
    for text in MEMBERS {
        let mut message = Message::new(0, 0);
        member::put(&mut message, &member(text));
        assert_eq!(message.body(), capture(CAPTURES, &format!("entry {text}")), "{text}");
        assert_eq!(member(text).to_string(), text);
    }
}

#[test]
fn reads_listings_as_the_kernel_tells_them() {
    let expected = Listing {
        type_name: "hash:ip,port,ip".to_owned(),
        kind: Some(SetType::HashIpPortIp),
        family: Some(Family::V4),
        maxelem: Some(65_536),
        members: vec![member(MEMBERS[0]), member(MEMBERS[1])],
    };
    assert_eq!(listing("listing of A"), expected);
    let expected = Listing {
        type_name: "hash:net".to_owned(),
        kind: Some(SetType::HashNet),
        family: Some(Family::V6),
        maxelem: Some(65_536),
        members: vec![member(MEMBERS[2])],
    };
    assert_eq!(listing("listing of B"), expected);
}

#[test]
fn a_later_message_of_a_listing_adds_its_entries() {
    let mut listing = listing("listing of A");
    let body = capture(CAPTURES, "listing of A");
    // Only the first message has type, family and options; the last 92 bytes are the entries.
    let mut later = body[..20].to_vec();
    later.extend(&body[body.len() - 92..]);
    take_listing(&mut listing, &later).expect("more of the listing");
    assert_eq!(listing.members.len(), 4);
    assert_eq!(listing.maxelem, Some(65_536));
}

#[test]
fn every_kind_reads_back_what_it_builds() {
    let (v4, v6) = ("10.96.0.1", "fd00::1");
    for address in [v4, v6].map(|text| text.parse().expect("an address")) {
        for (kind, member) in [
            (SetType::HashIp, Member::Ip(address)),
            (SetType::HashIpPort, Member::IpPort(address, Protocol::Udp, 53)),
            (SetType::HashIpPortIp, Member::IpPortIp(address, Protocol::Tcp, 80, address)),
            (SetType::HashNet, Member::Net(address.into())),
        ] {
            let mut message = Message::new(0, 0);
            member::put(&mut message, &member);
            assert_eq!(member::parse(kind, Attributes::of(message.body())), Ok(member));
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
        let _ = take_listing(&mut Listing::default(), &body);
        let refusal = Refusal { request: body, ..Refusal::of(4103) };
        let _ = failed_entry(&refusal, 10);
    }

    #[test]
    fn no_damaged_listing_makes_a_reader_panic(at in 0usize..216, byte: u8, length in 0usize..=216) {
        for name in ["listing of A", "listing of B"] {
            let mut body = capture(CAPTURES, name);
            let last = body.len() - 1;
            body[at.min(last)] = byte;
            body.truncate(length);
            let _ = take_listing(&mut Listing::default(), &body);
        }
    }
}
