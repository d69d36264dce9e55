//! Codec tests of the folder: both directions on bytes of real kernels, and no panic on any bytes.

use std::io::{self, Read};
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::kernel::netlink::captures::capture;
use crate::kernel::netlink::{Error, Message, generic};

const CAPTURES: &str = include_str!("testdata/captures.hex");

/// As Linux 6.1 prints it; 10,800 seconds are 1,080,000 jiffies there.
const LISTING: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  [fd00:0010:0096:0000:0000:0000:0000:0001]:01BB rr persistent 1080000 80000000
  -> [fd00:0010:0244:0000:0000:0000:0000:0002]:1F90      Masq    1      0          0         \n\
FWM  00000007 rr \n\
  -> 0AF40109:1F90      Masq    9      0          0         \n\
TCP  0A600001:01BB rr  persistent 1080000 FFFFFFFF
  -> 0AF40103:1F90      Route   0      2          17        \n\
  -> 0AF40102:1F90      Masq    1      0          0         \n\
UDP  0A60000A:0035 rr  \n";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn key(protocol: u16, address: &str, port: u16) -> ServiceKey {
    ServiceKey { protocol, address: ip(address), port }
}

fn sticky() -> Service {
    let key = key(6, "10.96.0.1", 443);
    Service { key, scheduler: "rr".to_owned(), flags: FLAG_PERSISTENT, timeout: 10_800 }
}

fn hashing() -> Service {
    let key = key(17, "fd00:10:96::a", 53);
    Service { key, scheduler: "mh".to_owned(), flags: 0x10, timeout: 0 }
}

fn destination(address: &str, weight: u32) -> Destination {
    let key = DestinationKey { address: ip(address), port: 8080 };
    Destination { key, forwarding: 0, weight, active: 0, inactive: 0 }
}

fn commands() -> Commands {
    Commands::of_family(0x1c)
}

fn assert_is_captured(message: &Message, name: &str) {
    assert_eq!(message.body(), capture(CAPTURES, name), "{name}");
}

#[test]
fn builds_what_the_kernel_accepted() {
    let commands = commands();
    assert_is_captured(&commands.new_service(&sticky()), "new service of IPv4");
    assert_is_captured(&commands.new_service(&hashing()), "new service of IPv6");
    let message = commands.new_destination(&sticky().key, &destination("10.244.1.2", 1));
    assert_is_captured(&message, "new destination of IPv4");
    let of = key(6, "fd00:10:96::1", 443);
    let message = commands.new_destination(&of, &destination("fd00:10:244::2", 1));
    assert_is_captured(&message, "new destination of IPv6");
}

#[test]
fn builds_the_same_for_all_commands_but_their_number() {
    let commands = commands();
    let (service, destination) = (sticky(), destination("10.244.1.2", 1));
    let new = commands.new_service(&service);
    let set = commands.set_service(&service);
    assert_eq!((new.body()[0], set.body()[0]), (1, 2));
    assert_eq!(new.body()[1..], set.body()[1..]);
    let new = commands.new_destination(&service.key, &destination);
    let set = commands.set_destination(&service.key, &destination);
    assert_eq!((new.body()[0], set.body()[0]), (5, 6));
    assert_eq!(new.body()[1..], set.body()[1..]);
    // A key alone is what the kernel was asked for one service with.
    let delete = commands.delete_service(&service.key);
    assert_eq!(delete.body()[0], 3);
    assert_eq!(delete.body()[1..], capture(CAPTURES, "get service")[1..]);
    let delete = commands.delete_destination(&service.key, &destination.key);
    let mut expected = commands.delete_service(&service.key).body().to_vec();
    expected[0] = 7;
    expected.extend([20, 0, 2, 0x80, 8, 0, 1, 0, 10, 244, 1, 2, 6, 0, 2, 0, 0x1f, 0x90, 0, 0]);
    assert_eq!(delete.body(), expected);
}

#[test]
fn reads_services_as_the_kernel_tells_them() {
    // An IPv4 address comes in the first of 16 bytes, and flag 0x2 is the kernel's own.
    let body = capture(CAPTURES, "service of IPv4");
    assert_eq!(message::service(&body), Ok(Some(sticky())));
    let body = capture(CAPTURES, "service of IPv6");
    assert_eq!(message::service(&body), Ok(Some(hashing())));
    let body = capture(CAPTURES, "service by firewall mark");
    assert_eq!(message::service(&body), Ok(None));
}

#[test]
fn reads_destinations_as_the_kernel_tells_them() {
    let body = capture(CAPTURES, "destination of IPv4");
    let of = sticky().key.address;
    assert_eq!(message::destination(&body, of), Ok(destination("10.244.1.2", 1)));
    let body = capture(CAPTURES, "destination of IPv6");
    let of = hashing().key.address;
    assert_eq!(message::destination(&body, of), Ok(destination("fd00:10:244::2", 1)));
}

#[test]
fn takes_the_family_of_the_service_where_old_kernels_do_not_tell() {
    // What we send has the same layout as what kernels before 3.18 answer.
    let body = capture(CAPTURES, "new destination of IPv4");
    assert_eq!(message::destination(&body, ip("10.96.0.1")), Ok(destination("10.244.1.2", 1)));
    let body = capture(CAPTURES, "new destination of IPv6");
    let expected = Ok(destination("fd00:10:244::2", 1));
    assert_eq!(message::destination(&body, ip("fd00::1")), expected);
}

#[test]
fn reads_back_what_it_builds() {
    for service in [sticky(), hashing()] {
        let built = commands().new_service(&service);
        assert_eq!(message::service(built.body()), Ok(Some(service)));
    }
    for forwarding in 0..=4 {
        let value = Destination { forwarding, ..destination("10.244.1.2", 65_535) };
        let built = commands().new_destination(&sticky().key, &value);
        assert_eq!(message::destination(built.body(), ip("10.96.0.1")), Ok(value));
    }
}

#[test]
fn reads_version_and_table_size() {
    let expected = Info { version: (1, 2, 1), connection_buckets: 4_096 };
    assert_eq!(Info::parse(&capture(CAPTURES, "info")), Ok(expected));
}

#[test]
fn what_lacks_its_address_is_an_error() {
    let mut message = Message::new(0x1c, 0).with(&generic::header(1, 1));
    message.nested(1, |service| service.attribute(1, &2u16.to_ne_bytes()));
    let missing = Error::Malformed("IPVS service without family, protocol, address or port");
    assert_eq!(message::service(message.body()), Err(missing));
    assert!(message::service(&[]).is_err());
    assert!(message::destination(&[5, 1, 0, 0], ip("10.96.0.1")).is_err());
}

#[test]
fn reads_the_bulk_listing() {
    let listing = proc::parse(LISTING.as_bytes()).expect("a listing");
    let draining =
        Destination { forwarding: 3, active: 2, inactive: 17, ..destination("10.244.1.3", 0) };
    let expected = vec![
        (key(6, "fd00:10:96::1", 443), vec![destination("fd00:10:244::2", 1)]),
        (key(6, "10.96.0.1", 443), vec![draining, destination("10.244.1.2", 1)]),
        (key(17, "10.96.0.10", 53), vec![]),
    ];
    assert_eq!(listing, expected);
}

/// A text that comes a few bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let few = self.1.min(into.len());
        self.0.read(&mut into[..few])
    }
}

#[test]
fn where_the_bulk_listing_is_cut_into_pieces_does_not_matter() {
    let whole = proc::parse(LISTING.as_bytes()).expect("a listing");
    for bytes in 1..200 {
        let slow = Slow(LISTING.as_bytes(), bytes);
        assert_eq!(proc::parse(slow).expect("a listing"), whole, "{bytes} at a time");
    }
    let long = LISTING.trim_end().replace("  -> ", &format!("  ->{}", " ".repeat(100_000)));
    assert_eq!(proc::parse(long.as_bytes()).expect("a listing"), whole);
}

#[test]
fn a_line_that_is_not_understood_is_shown() {
    for line in [
        "TCP  10.96.0.1:443 rr",
        "TCP",
        "TCP 0A600001:01BB rr\n  -> 0AF40102:1F90 Masq one",
        "TCP 0A600001:01BB rr\n  -> 0AF40102:1F90 Masq 1 0 0x",
        "TCP 0A600001:01BB rr\n  -> 0AF40102:1F90 Masq 1 0 00000000001",
        "TCP 0A600001:01BB rr\n  -> 0AF40102:1F90 Masq 1 0 4294967296",
        "TCP 0A600001:1F901 rr",
        "TCP 0A600001 :1F90 rr",
    ] {
        let error = proc::parse(line.as_bytes()).expect_err("not as the kernel prints it");
        let last = line.lines().last().expect("a line");
        assert_eq!(error.to_string(), format!("line not understood: {last:?}"));
    }
}

proptest! {
    #[test]
    fn no_damaged_answer_makes_a_reader_panic(at in 0usize..344, byte: u8, length in 0usize..=344) {
        for name in ["service of IPv4", "service of IPv6", "destination of IPv6", "info"] {
            let mut body = capture(CAPTURES, name);
            let last = body.len() - 1;
            body[at.min(last)] = byte;
            body.truncate(length);
            let _ = message::service(&body);
            let _ = message::destination(&body, ip("10.96.0.1"));
            let _ = Info::parse(&body);
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = message::service(&body);
        let _ = message::destination(&body, ip("fd00::1"));
        let _ = proc::parse(body.as_slice());
    }

    #[test]
    fn no_damaged_listing_makes_the_reader_panic(
        at in 0..LISTING.len(), text in "[->A-F0-9:\\[\\] \n]{0,3}",
    ) {
        let mut listing = LISTING.to_owned();
        listing.replace_range(at..at, &text);
        let _ = proc::parse(listing.as_bytes());
    }
}
