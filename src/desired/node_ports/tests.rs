//! The decision table of spec 13.12; loopback addresses never get here.

use super::*;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

fn cidrs(texts: &[&str]) -> NodePortAddresses {
    match texts.is_empty() {
        true => NodePortAddresses::All,
        false => NodePortAddresses::Cidrs(
            texts.iter().map(|text| text.parse().expect("a range")).collect(),
        ),
    }
}

/// Expected per family: whether all are taken, and what is found on the host.
type Expected<'a> = (bool, &'a [&'a str]);

fn check(choice: &NodePortAddresses, host: &[&str], node: &[&str], expected: [Expected<'_>; 2]) {
    let (of_host, node) = (ips(host).into_iter().collect(), ips(node));
    for (family, (all, found)) in Family::ALL.into_iter().zip(expected) {
        let what = format!("{family} of {host:?} by {choice:?}");
        assert_eq!(takes_all(choice, family), all, "{what}");
        let found: BTreeSet<IpAddr> = ips(found).into_iter().collect();
        assert_eq!(addresses(choice, family, &of_host, &node), found, "{what}");
    }
}

#[test]
fn ranges_choose_within_their_family() {
    const NOTHING: Expected<'_> = (false, &[]);
    const ALL_OF_NONE: Expected<'_> = (true, &[]);
    let two = ["10.20.30.51", "100.200.201.1"];
    for (ranges, host, v4, v6) in [
        (&["10.20.30.0/24"][..], &two[..], (false, &two[..1]), ALL_OF_NONE),
        (&["0.0.0.0/0"], &two, (true, &two), ALL_OF_NONE),
        (&["2001:db8::/64"], &["2001:db8::1"], ALL_OF_NONE, (false, &["2001:db8::1"])),
        (&["::/0"], &["2001:db8::1"], ALL_OF_NONE, (true, &["2001:db8::1"])),
        (&["127.0.0.1/32"], &two, NOTHING, ALL_OF_NONE),
        (&["10.20.30.0/24", "100.200.201.0/24"], &two, (false, &two), ALL_OF_NONE),
        // Nothing in range is not the same as no range.
        (&["10.20.30.0/24", "100.200.201.0/24"], &["192.168.1.2"], NOTHING, ALL_OF_NONE),
        (&[], &["192.168.1.2"], (true, &["192.168.1.2"]), ALL_OF_NONE),
        (&[], &["2001:db8::1"], ALL_OF_NONE, (true, &["2001:db8::1"])),
        (&["1.2.3.0/24", "0.0.0.0/0"], &["1.2.3.4"], (true, &["1.2.3.4"]), ALL_OF_NONE),
    ] {
        check(&cidrs(ranges), host, &[], [v4, v6]);
    }
}

#[test]
fn families_are_chosen_apart() {
    let both = ["1.2.3.4", "2001:db8::1", "2001:db8::2"];
    let choice = cidrs(&["0.0.0.0/0", "1.2.3.0/24", "2001:db8::1/128"]);
    check(&choice, &both, &[], [(true, &both[..1]), (false, &both[1..2])]);
    let choice = cidrs(&["::/0", "1.2.3.0/24", "2001:db8::1/128"]);
    check(&choice, &both, &[], [(false, &both[..1]), (true, &both[1..])]);
    let choice = cidrs(&["1.2.3.0/24"]);
    check(&choice, &both, &[], [(false, &both[..1]), (true, &both[1..])]);
}

#[test]
fn primary_is_the_first_address_of_the_node_that_the_host_has() {
    let host = ["10.0.0.7", "192.0.2.7", "fd00::7", "172.17.0.1"];
    let primary = &NodePortAddresses::Primary;
    let node = ["10.0.0.7", "fd00::7", "192.0.2.7"];
    check(primary, &host, &node, [(false, &["10.0.0.7"]), (false, &["fd00::7"])]);
    // Without a known address of a family there is none of it, rather than all.
    check(primary, &host, &node[..1], [(false, &["10.0.0.7"]), (false, &[])]);
    check(primary, &host, &[], [(false, &[]), (false, &[])]);
    check(primary, &["10.0.0.8"], &node, [(false, &[]), (false, &[])]);
}
