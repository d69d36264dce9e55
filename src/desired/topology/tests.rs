//! The decision table of spec 13.6, as far as cluster IPs need it.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Place, usable};
use crate::cluster::endpoints::PortEndpoint;
use crate::cluster::{Endpoint, Hints, TrafficPolicy};

/// `name zone-hints node-hints state`: state is any of `L`ocal, `r`eady, `s`erving, `t`erminating.
fn endpoint(text: &str) -> Endpoint {
    let fields: Vec<&str> = text.split(' ').collect();
    let last: u8 = fields[0].parse().expect("a number");
    let address = IpAddr::from([10, 1, 2, last]);
    let hints = |field: &str| -> Box<[Arc<str>]> {
        field.split(',').filter(|hint| *hint != "-").map(Arc::from).collect()
    };
    let is = |letter| fields[3].contains(letter);
    Endpoint {
        address,
        ready: is('r'),
        serving: is('r') || is('s'),
        terminating: is('t'),
        node: Some(Arc::from(if is('L') { "node-1" } else { "elsewhere" })),
        hints: Some(Hints { zones: hints(fields[1]), nodes: hints(fields[2]) }.into()),
    }
}

fn check(name: &str, endpoints: &[&str], place: (&str, Option<&str>), expected: [&[u8]; 2]) {
    let owned: Vec<_> = endpoints.iter().map(|text| endpoint(text)).collect();
    let known: Vec<_> = owned.iter().map(|endpoint| PortEndpoint { port: 80, endpoint }).collect();
    let place = Place { node: place.0, zone: place.1 };
    for (policy, expected) in [TrafficPolicy::Cluster, TrafficPolicy::Local].iter().zip(expected) {
        let found: Vec<u8> = usable(&known, *policy, place)
            .iter()
            .map(|key| match key.address {
                IpAddr::V4(address) => address.octets()[3],
                IpAddr::V6(_) => 0,
            })
            .collect();
        assert_eq!(found, expected, "{name}, policy {policy:?}");
    }
}

#[test]
fn hints_conditions_and_locality_decide() {
    let a = ("node-1", Some("a"));
    let zones = ["3 a - r", "4 b - r", "5 c - r", "6 a - r"];
    check("zone hints", &zones, a, [&[3, 6], &[]]);
    check("no zone label", &zones, ("node-1", None), [&[3, 4, 5, 6], &[]]);
    check("empty zone label", &zones, ("node-1", Some("")), [&[3, 4, 5, 6], &[]]);
    check("no endpoint for our zone", &["3 a - r"], ("node-1", Some("b")), [&[3], &[]]);
    check(
        "unready ones are no choice",
        &["3 a - r", "4 b - r", "5 c - r", "6 a - -"],
        a,
        [&[3], &[]],
    );
    check(
        "unready ones do not count for hints",
        &["3 a - -", "4 b - r", "5 c - r", "6 a - -"],
        a,
        [&[4, 5], &[]],
    );
    check("one without hint", &["3 a - r", "4 b - r", "5 - - r"], a, [&[3, 4, 5], &[]]);
    check(
        "several zones in a hint",
        &["3 a,b,c - r", "4 b,c - r", "5 b,d - r", "6 c - r"],
        ("node-1", Some("c")),
        [&[3, 4, 6], &[]],
    );
    let nodes = ["3 a node-1 r", "4 b node-2 r", "5 c node-3 r", "6 a node-4 r"];
    check("node hints", &nodes, a, [&[3], &[]]);
    check("no node hint for us: zone", &nodes, ("node-0", Some("a")), [&[3, 6], &[]]);
    check(
        "one without any hint",
        &["3 a node-1 r", "4 - - r", "5 c node-3 r"],
        a,
        [&[3, 4, 5], &[]],
    );
    check(
        "hints never filter local",
        &["3 a - rL", "4 b - rL", "5 c - r", "6 a - r"],
        a,
        [&[3, 6], &[3, 4]],
    );
    check("none", &[], a, [&[], &[]]);
    check("none serves", &["3 - - -", "4 - - tL"], a, [&[], &[]]);
    check("only leaving ones", &["3 - - st", "4 - - stL"], a, [&[3, 4], &[4]]);
    check("ready wins over leaving", &["3 - - r", "4 - - stL"], a, [&[3], &[4]]);
    check("local ready wins over local leaving", &["3 - - rL", "4 - - stL"], a, [&[3], &[3]]);
}
