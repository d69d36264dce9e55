//! Rows of one Service, and the sum over Services that meet.

use super::service::Facts;
use super::*;
use crate::cluster::{Endpoint, EndpointSlice};
use crate::config::Policy;
use crate::model::net::PerFamily;
use crate::testing::objects::{self, *};

fn rows_on(policy: &Policy, builder: ServiceBuilder, slices: &[EndpointSlice]) -> ServiceRows {
    let families = PerFamily { v4: true, v6: true };
    let facts = Facts { policy, zone: Some("a"), families };
    let slices: Vec<&EndpointSlice> = slices.iter().collect();
    service::rows(&name("default/web"), &builder.build(), &slices, facts)
}

fn rows(builder: ServiceBuilder, slices: &[EndpointSlice]) -> ServiceRows {
    rows_on(&objects::policy(), builder, slices)
}

fn web() -> ServiceBuilder {
    objects::service("default/web", &["10.96.0.1"], &["tcp 80"])
}

fn slice_of(endpoints: &[Endpoint]) -> EndpointSlice {
    objects::slice("default/web", &["tcp 8080"], endpoints)
}

fn reals(rows: &ServiceRows, key: &str) -> Vec<String> {
    rows.fronts[&front(key)].server.reals.keys().map(ToString::to_string).collect()
}

fn entries(rows: &ServiceRows, key: &str) -> Vec<String> {
    let mut texts: Vec<_> =
        rows.fronts[&front(key)].entries.iter().map(ToString::to_string).collect();
    texts.sort();
    texts
}

#[test]
fn a_front_has_its_server_entries_and_address() {
    let rows = rows(web().affinity(600), &[slice_of(&[on_node(endpoint("10.244.0.1"))])]);
    assert_eq!(
        entries(&rows, "tcp 10.96.0.1:80"),
        [
            "KUBE-CLUSTER-IP 10.96.0.1,tcp:80",
            "KUBE-IPVS-IPS 10.96.0.1",
            "KUBE-IPVS-PASS 10.96.0.1,tcp:80",
            "KUBE-IPVS-SERVERS 10.96.0.1,tcp:80",
            "KUBE-LOOP-BACK 10.244.0.1,tcp:8080,10.244.0.1",
        ]
    );
    let front = &rows.fronts[&front("tcp 10.96.0.1:80")];
    assert_eq!(front.address, Some(ip("10.96.0.1")));
    assert_eq!(front.server.config.persistence, Some(600));
    assert_eq!(front.server.config.scheduler_flags, 0);
}

#[test]
fn a_front_without_usable_endpoints_is_there_but_nothing_passes() {
    let local = on_node(unready(endpoint("10.244.0.1")));
    let rows = rows(web(), &[slice_of(&[local])]);
    let entries = entries(&rows, "tcp 10.96.0.1:80");
    assert!(!entries.iter().any(|entry| entry.contains("PASS")), "{entries:?}");
    // Parity: whatever its state, a local endpoint may reach itself.
    assert!(entries.iter().any(|entry| entry.contains("LOOP-BACK")), "{entries:?}");
    assert_eq!(*rows.fronts[&front("tcp 10.96.0.1:80")].leaving, [real("10.244.0.1:8080")]);
}

#[test]
fn ports_find_endpoints_by_name_and_protocol_in_every_slice() {
    let service =
        objects::service("default/web", &["10.96.0.1"], &["dns udp 53", "dns-tcp tcp 53"]);
    let pod = |address| [endpoint(address)];
    let slices = [
        objects::slice("default/web", &["dns udp 5353", "dns-tcp tcp 5354"], &pod("10.244.0.1")),
        objects::slice("default/web", &["dns udp 5355"], &pod("10.244.0.2")),
        objects::slice("default/web", &["dns tcp 1"], &pod("10.244.0.3")),
        objects::slice("default/web", &["dns udp 5353"], &pod("fd00::1")),
    ];
    let rows = rows(service, &slices);
    assert_eq!(reals(&rows, "udp 10.96.0.1:53"), ["10.244.0.1:5353", "10.244.0.2:5355"]);
    assert_eq!(reals(&rows, "tcp 10.96.0.1:53"), ["10.244.0.1:5354"]);
}

#[test]
fn families_do_not_mix_and_a_missing_one_asks_for_nothing() {
    let dual = || objects::service("default/web", &["10.96.0.1", "fd00:96::1"], &["tcp 80"]);
    let slices = [slice_of(&[endpoint("10.244.0.1")]), slice_of(&[endpoint("fd00:244::1")])];
    let both = rows(dual(), &slices);
    assert_eq!(reals(&both, "tcp 10.96.0.1:80"), ["10.244.0.1:8080"]);
    assert_eq!(reals(&both, "tcp [fd00:96::1]:80"), ["[fd00:244::1]:8080"]);

    let policy = objects::policy();
    let families = PerFamily { v4: true, v6: false };
    let facts = Facts { policy: &policy, zone: None, families };
    let slices: Vec<_> = slices.iter().collect();
    let v4_only = service::rows(&name("default/web"), &dual().build(), &slices, facts);
    assert_eq!(v4_only.fronts.keys().collect::<Vec<_>>(), [&front("tcp 10.96.0.1:80")]);
}

#[test]
fn the_maglev_scheduler_hashes_ports_too() {
    let policy = Policy { scheduler: "mh".into(), ..objects::policy() };
    let rows = rows_on(&policy, web(), &[]);
    let config = &rows.fronts[&front("tcp 10.96.0.1:80")].server.config;
    assert_eq!((&*config.scheduler, config.scheduler_flags), ("mh", 0x10));
}

#[test]
fn only_hints_make_a_service_depend_on_the_zone() {
    assert!(!rows(web(), &[slice_of(&[endpoint("10.244.0.1")])]).uses_zone);
    assert!(rows(web(), &[slice_of(&[hinted(endpoint("10.244.0.1"), "a")])]).uses_zone);
}

/// A Service of a name and age on a front, with one pod of its own.
fn claim(text: &str, created: Option<i64>, pod: &str) -> (ObjectName, Option<ServiceRows>) {
    let mut rows = rows(web(), &[slice_of(&[on_node(endpoint(pod))])]);
    rows.rank = Rank { created, name: name(text) };
    (name(text), Some(rows))
}

#[test]
fn the_older_claim_wins_whatever_the_order_of_events() {
    let claims = [
        claim("b/old", Some(1), "10.244.0.1"),
        claim("a/young", Some(2), "10.244.0.2"),
        claim("a/first-by-name", Some(2), "10.244.0.3"),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut desired = Desired::default();
        for index in order {
            let (name, rows) = &claims[index];
            desired.replace(name, rows.clone());
        }
        let mut winners = Vec::new();
        for leaving in ["b/old", "a/first-by-name", "a/young"] {
            let server = &desired.tables().servers[&front("tcp 10.96.0.1:80")];
            winners.extend(server.reals.keys().map(ToString::to_string));
            desired.replace(&name(leaving), None);
        }
        assert_eq!(winners, ["10.244.0.1:8080", "10.244.0.3:8080", "10.244.0.2:8080"]);
        assert_eq!(*desired.tables(), Tables::default(), "nothing is left of anyone");
    }
}

#[test]
fn the_losers_are_rejected_with_the_name_of_the_winner() {
    let mut desired = Desired::default();
    for (name, rows) in [claim("b/old", Some(1), "10.244.0.1"), claim("a/young", Some(2), "::1")] {
        desired.replace(&name, rows);
    }
    let rejected = desired.rejected();
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].object, name("a/young"));
    assert_eq!(rejected[0].reason, "tcp 10.96.0.1:80 belongs to the older Service b/old");
}

#[test]
fn rows_that_services_share_stay_until_the_last_user_goes() {
    let service = |text: &str, port: &str| {
        let builder = objects::service(text, &["10.96.0.1"], &[port]);
        let pods = [on_node(endpoint("10.244.0.1"))];
        let mut rows = rows(builder, &[objects::slice(text, &["tcp 8080"], &pods)]);
        rows.rank.name = name(text);
        rows
    };
    let mut desired = Desired::default();
    desired.replace(&name("default/a"), Some(service("default/a", "tcp 80")));
    desired.replace(&name("default/b"), Some(service("default/b", "tcp 81")));
    let shared = |desired: &Desired| {
        let tables = desired.tables();
        let hairpins = tables.entries.iter().filter(|entry| entry.set == SetId::LoopBack).count();
        (tables.addresses.len(), hairpins)
    };
    assert_eq!(shared(&desired), (1, 1));
    let touched = desired.replace(&name("default/a"), None);
    assert_eq!(shared(&desired), (1, 1));
    assert!(touched.addresses.contains(&ip("10.96.0.1")));
    desired.replace(&name("default/b"), None);
    assert_eq!(shared(&desired), (0, 0));
}

#[test]
fn a_change_touches_what_it_alters_and_an_equal_value_nothing() {
    let mut desired = Desired::default();
    let rows = |pod| rows(web(), &[slice_of(&[endpoint(pod)])]);
    desired.replace(&name("default/web"), Some(rows("10.244.0.1")));
    assert!(desired.replace(&name("default/web"), Some(rows("10.244.0.1"))) == Touched::default());
    let touched = desired.replace(&name("default/web"), Some(rows("10.244.0.2")));
    assert_eq!(touched.servers.into_iter().collect::<Vec<_>>(), [front("tcp 10.96.0.1:80")]);
    assert!(desired.replace(&name("default/none"), None) == Touched::default());
}

#[test]
fn service_ranges_are_entries_of_their_own() {
    let mut desired = Desired::default();
    let nets = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpNet>>();
    let touched = desired.set_service_cidrs(&nets(&["10.96.0.7/12", "fd00::/112"]));
    assert_eq!(touched.entries.len(), 2);
    let touched = desired.set_service_cidrs(&nets(&["10.96.0.0/12"]));
    let texts: Vec<_> = touched.entries.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["KUBE-6-SERVICE-CIDR fd00::/112"]);
}
