//! The endpoints of Services before and after changes of their slices.

use std::collections::{BTreeMap, BTreeSet};

use kube_ipvs_proxy::cluster::endpoints::merged;
use kube_ipvs_proxy::cluster::store::{Store, Touched};
use kube_ipvs_proxy::cluster::{Kind, Object, ObjectName, Update};
use kube_ipvs_proxy::model::net::Family;
use kube_ipvs_proxy::testing::objects::{self, NODE, name};

use super::case::{Case, case, table};
use super::state;

pub fn cases() -> Vec<Case> {
    let mut cases = table("Test_updateEndpointsMap", changes(), check);
    cases.push(case("tracker/TestUpdateEndpointsMap/all-of-Test_updateEndpointsMap", || {
        changes().into_iter().for_each(|(_, change)| check(change));
    }));
    cases.extend(table("tracker/TestUpdateEndpointsMap", tracked_changes(), check));
    cases.extend(table("TestGetLocalEndpointIPs", local_endpoints(), check_local));
    cases
}

/// Slices before and after a change, and what follows.
///
/// A slice is written `SERVICE SLICE PORT[,PORT] ENDPOINT[,ENDPOINT]`, a port `NAME:NUMBER`, and an
/// endpoint as in [`state::endpoints`] with `+` for the blank.
struct Change {
    before: &'static [&'static str],
    after: &'static [&'static str],
    /// Endpoints per port afterwards; those of this node are marked.
    listed: &'static [&'static str],
    /// Whether flows to former endpoints may be left.
    is_stale: bool,
    /// How many ready endpoints run here, by Service.
    local: &'static str,
}

fn changes() -> Vec<(&'static str, Change)> {
    let mut rows = unchanged();
    rows.extend(added_and_removed());
    rows.extend(changed_ports());
    rows.push(("complex", complex()));
    rows
}

fn same(
    slices: &'static [&'static str],
    listed: &'static [&'static str],
    local: &'static str,
) -> Change {
    Change { before: slices, after: slices, listed, is_stale: false, local }
}

fn unchanged() -> Vec<(&'static str, Change)> {
    const NAMED: &[&str] = &["ns1/ep1 s1 p11:11 1.1.1.1+local"];
    const TWO: &[&str] = &["ns1/ep1 s1 p11:11 1.1.1.1", "ns1/ep1 s2 p12:12 1.1.1.2"];
    const SEVERAL: &[&str] =
        &["ns1/ep1 s1 p11:11,p12:12 1.1.1.1+local", "ns1/ep1 s2 p13:13 1.1.1.3"];
    const MANY: &[&str] = &[
        "ns1/ep1 s1 p11:11,p12:12 1.1.1.1,1.1.1.2+local",
        "ns1/ep1 s2 p13:13,p14:14 1.1.1.3,1.1.1.4+local",
        "ns2/ep2 s1 p21:21,p22:22 2.2.2.1,2.2.2.2+local",
    ];
    const MANY_LISTED: &[&str] = &[
        "ns1/ep1 p11: 1.1.1.1:11 1.1.1.2:11@",
        "ns1/ep1 p12: 1.1.1.1:12 1.1.1.2:12@",
        "ns1/ep1 p13: 1.1.1.3:13 1.1.1.4:13@",
        "ns1/ep1 p14: 1.1.1.3:14 1.1.1.4:14@",
        "ns2/ep2 p21: 2.2.2.1:21 2.2.2.2:21@",
        "ns2/ep2 p22: 2.2.2.1:22 2.2.2.2:22@",
    ];
    vec![
        ("nothing", same(&[], &[], "")),
        ("same-named-port", same(NAMED, &["ns1/ep1 p11: 1.1.1.1:11@"], "ns1/ep1:1")),
        ("same-two-slices", same(TWO, &["ns1/ep1 p11: 1.1.1.1:11", "ns1/ep1 p12: 1.1.1.2:12"], "")),
        (
            "same-two-slices-several-ports",
            same(
                SEVERAL,
                &[
                    "ns1/ep1 p11: 1.1.1.1:11@",
                    "ns1/ep1 p12: 1.1.1.1:12@",
                    "ns1/ep1 p13: 1.1.1.3:13",
                ],
                "ns1/ep1:1",
            ),
        ),
        ("same-many", same(MANY, MANY_LISTED, "ns1/ep1:2 ns2/ep2:1")),
    ]
}

/// A change that may leave flows to former endpoints.
fn stale(
    before: &'static [&'static str],
    after: &'static [&'static str],
    listed: &'static [&'static str],
    local: &'static str,
) -> Change {
    Change { before, after, listed, is_stale: true, local }
}

const ONE: &[&str] = &["ns1/ep1 s1 p11:11 1.1.1.1"];
const ONE_LOCAL: &[&str] = &["ns1/ep1 s1 p11:11 1.1.1.1+local"];
const ONE_LISTED: &[&str] = &["ns1/ep1 p11: 1.1.1.1:11"];

fn added_and_removed() -> Vec<(&'static str, Change)> {
    const GROWN: &[&str] = &["ns1/ep1 s1 p11:11,p12:12 1.1.1.1,1.1.1.2+local"];
    const GROWN_LISTED: &[&str] =
        &["ns1/ep1 p11: 1.1.1.1:11 1.1.1.2:11@", "ns1/ep1 p12: 1.1.1.1:12 1.1.1.2:12@"];
    const SECOND: &[&str] = &["ns1/ep1 s1 p11:11 1.1.1.1", "ns1/ep1 s2 p12:12 1.1.1.2+local"];
    vec![
        ("add-slice", stale(&[], ONE_LOCAL, &["ns1/ep1 p11: 1.1.1.1:11@"], "ns1/ep1:1")),
        ("remove-slice", stale(ONE_LOCAL, &[], &[], "")),
        ("add-address-and-port", stale(ONE, GROWN, GROWN_LISTED, "ns1/ep1:1")),
        ("remove-address-and-port", stale(GROWN, ONE, ONE_LISTED, "")),
        (
            "add-second-slice",
            stale(
                ONE,
                SECOND,
                &["ns1/ep1 p11: 1.1.1.1:11", "ns1/ep1 p12: 1.1.1.2:12@"],
                "ns1/ep1:1",
            ),
        ),
        ("remove-second-slice", stale(SECOND, ONE, ONE_LISTED, "")),
    ]
}

fn changed_ports() -> Vec<(&'static str, Change)> {
    const RENAMED: &[&str] = &["ns1/ep1 s1 p11-2:11 1.1.1.1"];
    const RENUMBERED: &[&str] = &["ns1/ep1 s1 p11:22 1.1.1.1"];
    const EMPTY: &[&str] = &["ns1/ep1 s1 - -"];
    vec![
        ("rename-port", stale(ONE, RENAMED, &["ns1/ep1 p11-2: 1.1.1.1:11"], "")),
        ("renumber-port", stale(ONE, RENUMBERED, &["ns1/ep1 p11: 1.1.1.1:22"], "")),
        ("empty-slice-to-one-port", stale(EMPTY, ONE, ONE_LISTED, "")),
    ]
}

fn complex() -> Change {
    const BEFORE: &[&str] = &[
        "ns1/ep1 s1 p11:11 1.1.1.1",
        "ns2/ep2 s1 p22:22 2.2.2.2+local,2.2.2.22+local",
        "ns2/ep2 s2 p23:23 2.2.2.3+local",
        "ns4/ep4 s1 p44:44 4.4.4.4+local,4.4.4.5+local",
        "ns4/ep4 s2 p45:45 4.4.4.6+local",
    ];
    const AFTER: &[&str] = &[
        "ns1/ep1 s1 p11:11 1.1.1.11,1.1.1.1",
        "ns1/ep1 s2 p12:12,p122:122 1.1.1.2",
        "ns3/ep3 s1 p33:33 3.3.3.3",
        "ns4/ep4 s1 p44:44 4.4.4.4+local",
    ];
    const LISTED: &[&str] = &[
        "ns1/ep1 p11: 1.1.1.1:11 1.1.1.11:11",
        "ns1/ep1 p12: 1.1.1.2:12",
        "ns1/ep1 p122: 1.1.1.2:122",
        "ns3/ep3 p33: 3.3.3.3:33",
        "ns4/ep4 p44: 4.4.4.4:44@",
    ];
    stale(BEFORE, AFTER, LISTED, "ns4/ep4:1")
}

fn tracked_changes() -> Vec<(&'static str, Change)> {
    const UNNAMED: &[&str] = &["ns1/ep1 s1 :11 1.1.1.1+local"];
    const LEAVING: &[&str] = &["ns1/ep1 s1 p11:11 1.1.1.1+local+leaving"];
    vec![
        ("unnamed-port", same(UNNAMED, &["ns1/ep1 : 1.1.1.1:11@"], "ns1/ep1:1")),
        ("ready-to-terminating", stale(ONE_LOCAL, LEAVING, &["ns1/ep1 p11: 1.1.1.1:11@"], "")),
        ("terminating-to-gone", stale(LEAVING, &["ns1/ep1 s1 p11:11 -"], &[], "")),
    ]
}

fn check(change: Change) {
    let mut store = Store::new(&[]);
    let before: Vec<Slice> = change.before.iter().map(|text| Slice::parse(text)).collect();
    before.iter().for_each(|slice| drop(store.apply(slice.applied())));
    let after: Vec<Slice> = change.after.iter().map(|text| Slice::parse(text)).collect();
    let kept: BTreeSet<&ObjectName> = after.iter().map(|slice| &slice.name).collect();
    let gone = before.iter().filter(|slice| !kept.contains(&slice.name));
    let gone = gone.map(|slice| Update::Deleted(Kind::EndpointSlice, slice.name.clone()));
    let mut touched = Touched::default();
    for update in after.iter().map(Slice::applied).chain(gone) {
        touched.merge(store.apply(update));
    }
    assert_eq!(!touched.services.is_empty(), change.is_stale, "{touched:?}");
    let services: BTreeSet<ObjectName> =
        before.iter().chain(&after).map(|slice| slice.service.clone()).collect();
    let listed: Vec<String> = services.iter().flat_map(|name| listing(&store, name)).collect();
    assert_eq!(listed, change.listed);
    assert_eq!(local_counts(&store, &services), change.local);
}

/// One slice of the notation above.
struct Slice {
    name: ObjectName,
    service: ObjectName,
    object: Object,
}

impl Slice {
    fn parse(text: &str) -> Slice {
        let [service, slice, ports, endpoints] = text.split(' ').collect::<Vec<_>>()[..] else {
            panic!("not a slice: {text}");
        };
        let ports = ports.split(',').filter(|port| *port != "-");
        let ports: Vec<String> = ports
            .map(|port| {
                let (name, number) = port.split_once(':').unwrap();
                format!("{name} udp {number}").trim_start().to_string()
            })
            .collect();
        let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
        let endpoints = match endpoints {
            "-" => Vec::new(),
            some => state::endpoints(&some.replace('+', " ").replace(',', ", ")),
        };
        Slice {
            name: name(&format!("{service}-{slice}")),
            service: name(service),
            object: Object::EndpointSlice(objects::slice(service, &ports, &endpoints)),
        }
    }

    fn applied(&self) -> Update {
        objects::applied(Kind::EndpointSlice, self.name.clone(), self.object.clone())
    }
}

/// The endpoints of a Service per port, in the order of the port numbers.
fn listing(store: &Store, service: &ObjectName) -> Vec<String> {
    let by_port = merged(store.endpoints_of(service), Family::V4);
    let mut lines = BTreeMap::new();
    for ((port, _), endpoints) in by_port {
        let shown = endpoints.iter().map(|found| {
            let mark = if found.endpoint.node.as_deref() == Some(NODE) { "@" } else { "" };
            format!(" {}:{}{mark}", found.endpoint.address, found.port)
        });
        let line = format!("{service} {port}:{}", shown.collect::<String>());
        lines.insert(endpoints[0].port, line);
    }
    lines.into_values().collect()
}

/// The ready endpoints of this node by Service, as a health check would tell them.
fn local_counts(store: &Store, services: &BTreeSet<ObjectName>) -> String {
    let counted = services.iter().filter_map(|service| {
        let updates = store.endpoints_of(service).cloned().map(Object::EndpointSlice);
        match local_endpoints_of(service, updates) {
            0 => None,
            count => Some(format!("{service}:{count}")),
        }
    });
    counted.collect::<Vec<_>>().join(" ")
}

fn local_endpoints_of(service: &ObjectName, slices: impl Iterator<Item = Object>) -> usize {
    let web = objects::service(&service.to_string(), &["10.0.0.1"], &["udp 80"]);
    let slices = (0..).zip(slices).map(|(index, object)| {
        objects::applied(Kind::EndpointSlice, name(&format!("ns/slice-{index}")), object)
    });
    let updates = [web.health_check_port(30_000).applied()].into_iter().chain(slices);
    let node = state::programmed(&[], updates);
    node.engine.state().0.health_checks()[service].local_endpoints
}

/// Slices, and how many addresses of ready endpoints run here, by Service.
type Local = (&'static [&'static str], &'static str);

fn local_endpoints() -> Vec<(&'static str, Local)> {
    const SEVERAL: &[&str] = &[
        "ns1/ep1 s1 p11:11 1.1.1.1",
        "ns2/ep2 s1 p22:22 2.2.2.2+local,2.2.2.22+local",
        "ns2/ep2 s2 p23:23 2.2.2.3+local",
        "ns4/ep4 s1 p44:44 4.4.4.4+local,4.4.4.5",
        "ns4/ep4 s2 p45:45 4.4.4.6+local",
    ];
    vec![
        ("nothing", (&[], "")),
        ("elsewhere", (&["ns1/ep1 s1 p11:11 1.1.1.1"], "")),
        ("unnamed-port", (&["ns1/ep1 s1 :11 1.1.1.1+local"], "ns1/ep1:1")),
        ("two-ports-of-one-address", (&["ns1/ep1 s1 p11:11,p12:12 1.1.1.1+local"], "ns1/ep1:1")),
        ("several-services", (SEVERAL, "ns2/ep2:3 ns4/ep4:2")),
        (
            "one-terminates",
            (&["ns1/ep1 s1 p11:11 1.1.1.1+local,1.1.1.2+local+leaving"], "ns1/ep1:1"),
        ),
        ("all-terminate", (&["ns1/ep1 s1 p11:11 1.1.1.1+local+leaving,1.1.1.2+local+dead"], "")),
    ]
}

fn check_local((slices, expected): Local) {
    let mut store = Store::new(&[]);
    let slices: Vec<Slice> = slices.iter().map(|text| Slice::parse(text)).collect();
    slices.iter().for_each(|slice| drop(store.apply(slice.applied())));
    let services = slices.iter().map(|slice| slice.service.clone()).collect();
    assert_eq!(local_counts(&store, &services), expected);
}
