//! Which endpoints serve clients inside and outside the cluster, by hints, policies and conditions.

use kube_ipvs_proxy::cluster::{Endpoint, EndpointSlice, Kind, Node, Object};
use kube_ipvs_proxy::config::Policy;
use kube_ipvs_proxy::testing::objects::{self, applied, front, name, service};

use super::case::{Case, table};
use super::state::{endpoints, policy, programmed_by};

pub fn cases() -> Vec<Case> {
    let mut cases = table("TestCategorizeEndpoints", zone_hints(), check);
    cases.extend(table("TestCategorizeEndpoints", node_hints(), check));
    cases.extend(table("TestCategorizeEndpoints", policies(), check));
    cases.extend(table("TestCategorizeEndpoints", conditions(), check));
    cases
}

/// A Service with a node port, or without, on a node in a zone.
#[derive(Clone, Copy)]
struct Scenario {
    /// `internal` and `external` are the policies that are local; `closed` has no node port.
    service: &'static str,
    /// Name of this node, and its zone.
    place: (&'static str, Option<&'static str>),
    /// As in [`endpoints`], with hints such as `zones=a+b` and `nodes=n1` at the end.
    endpoints: &'static str,
    /// Last numbers of the endpoints that serve the cluster IP.
    cluster_ip: &'static str,
    /// The same of the node port; empty where there is none.
    node_port: &'static str,
}

const HERE: (&str, Option<&str>) = (objects::NODE, Some("a"));

fn scenario(
    service: &'static str,
    endpoints: &'static str,
    cluster_ip: &'static str,
    node_port: &'static str,
) -> Scenario {
    Scenario { service, place: HERE, endpoints, cluster_ip, node_port }
}

/// A Service that is for all, seen from some place.
fn seen_from(
    place: (&'static str, Option<&'static str>),
    endpoints: &'static str,
    chosen: &'static str,
) -> Scenario {
    Scenario { place, ..scenario("closed", endpoints, chosen, "") }
}

fn zone_hints() -> Vec<(&'static str, Scenario)> {
    const ZONES: &str = "10.1.2.3 zones=a, 10.1.2.4 zones=b, 10.1.2.5 zones=c, 10.1.2.6 zones=a";
    const LOCAL: &str =
        "10.1.2.3 local zones=a, 10.1.2.4 local zones=b, 10.1.2.5 zones=c, 10.1.2.6 zones=a";
    const ONE: &str = "10.1.2.3 zones=a";
    const NAMED: &str = objects::NODE;
    vec![
        ("hints", seen_from(HERE, ZONES, "3 6")),
        ("hints-external-local", scenario("external", LOCAL, "3 6", "3 4")),
        ("hints-internal-local", scenario("internal", LOCAL, "3 4", "3 6")),
        ("no-zone-label", seen_from((NAMED, None), ONE, "3")),
        ("empty-zone-label", seen_from((NAMED, Some("")), ONE, "3")),
        ("zone-without-endpoints", seen_from((NAMED, Some("b")), ONE, "3")),
        (
            "hinted-endpoint-not-ready",
            seen_from(
                HERE,
                "10.1.2.3 zones=a, 10.1.2.4 zones=b, 10.1.2.5 zones=c, 10.1.2.6 unready zones=a",
                "3",
            ),
        ),
        (
            "all-hinted-endpoints-not-ready",
            seen_from(
                HERE,
                "10.1.2.3 unready zones=a, 10.1.2.4 zones=b, 10.1.2.5 zones=c, \
                 10.1.2.6 unready zones=a",
                "4 5",
            ),
        ),
        (
            "one-endpoint-without-hint",
            seen_from(
                HERE,
                "10.1.2.3 zones=a, 10.1.2.4 zones=b, 10.1.2.5, 10.1.2.6 zones=a",
                "3 4 5 6",
            ),
        ),
        (
            "several-zones",
            seen_from(
                (NAMED, Some("c")),
                "10.1.2.3 zones=a+b+c, 10.1.2.4 zones=b+c, 10.1.2.5 zones=b+d, 10.1.2.6 zones=c",
                "3 4 6",
            ),
        ),
    ]
}

fn node_hints() -> Vec<(&'static str, Scenario)> {
    const NODES: &str = "10.1.2.3 zones=a nodes=node-1, 10.1.2.4 zones=b nodes=node-2, \
                         10.1.2.5 zones=c nodes=node-3, 10.1.2.6 zones=a nodes=node-4";
    const UNHINTED: &str = "10.1.2.3 zones=a nodes=node-1, 10.1.2.4, \
                            10.1.2.5 zones=c nodes=node-3, 10.1.2.6 zones=a nodes=node-4";
    vec![
        ("node-hints", seen_from(HERE, NODES, "3")),
        ("node-hints-one-without-hint", seen_from(HERE, UNHINTED, "3 4 5 6")),
        ("node-hints-of-other-nodes", seen_from(("node-0", Some("a")), NODES, "3 6")),
    ]
}

fn policies() -> Vec<(&'static str, Scenario)> {
    const TWO: &str = "10.0.0.0, 10.0.0.1";
    const ONE_LOCAL: &str = "10.0.0.0 local, 10.0.0.1";
    const TWO_LOCAL: &str = "10.0.0.0 local, 10.0.0.1 local";
    vec![
        (
            "local-endpoints-of-another-zone",
            scenario(
                "external",
                "10.0.0.0 local zones=a, 10.0.0.1 local zones=b, 10.0.0.2 zones=a, \
                 10.0.0.3 zones=b",
                "0 2",
                "0 1",
            ),
        ),
        ("internal-local-no-endpoints", scenario("internal closed", "", "", "")),
        ("internal-local-elsewhere", scenario("internal closed", TWO, "", "")),
        ("internal-local-all-here", scenario("internal closed", TWO_LOCAL, "0 1", "")),
        ("internal-local-one-here", scenario("internal closed", ONE_LOCAL, "0", "")),
        ("internal-local-external-cluster", scenario("internal", ONE_LOCAL, "0", "0 1")),
        ("internal-cluster-external-local", scenario("external", ONE_LOCAL, "0 1", "0")),
        ("both-local", scenario("internal external", ONE_LOCAL, "0", "0")),
        ("both-local-elsewhere", scenario("internal external", TWO, "", "0 1")),
        (
            "both-local-elsewhere-terminating",
            scenario("internal external", "10.0.0.0 leaving, 10.0.0.1 leaving", "", "0 1"),
        ),
        ("external-local-nothing-external", scenario("external closed", TWO_LOCAL, "0 1", "")),
        ("internal-local-only", scenario("internal closed", TWO_LOCAL, "0 1", "")),
    ]
}

fn conditions() -> Vec<(&'static str, Scenario)> {
    vec![
        ("none-ready", seen_from(HERE, "10.0.0.0 unready, 10.0.0.1 unready", "")),
        ("one-ready", seen_from(HERE, "10.0.0.0 unready, 10.0.0.1", "1")),
        ("all-terminating", seen_from(HERE, "10.0.0.0 leaving, 10.0.0.1 leaving", "0 1")),
        (
            "local-terminating-remote-ready",
            scenario(
                "external",
                "10.0.0.0, 10.0.0.1 local dead, 10.0.0.2 local leaving, 10.0.0.3 leaving",
                "0",
                "2",
            ),
        ),
        ("no-endpoints", seen_from(HERE, "", "")),
        ("one-dead", seen_from(HERE, "10.0.0.0 unready", "")),
    ]
}

const CLUSTER_IP: &str = "tcp 172.30.0.1:80";
const NODE_PORT: &str = "tcp 192.0.2.1:8080";

fn check(scenario: Scenario) {
    let (node_name, zone) = scenario.place;
    let open = !scenario.service.contains("closed");
    let port = if open { "tcp 80:8080" } else { "tcp 80" };
    let mut web = service("ns/svc", &["172.30.0.1"], &[port]);
    if scenario.service.contains("internal") {
        web = web.local();
    }
    if scenario.service.contains("external") {
        web = web.external_local();
    }
    let here = Node { zone: zone.map(Into::into), ..Node::default() };
    let updates = [
        applied(Kind::Node, name(node_name), Object::Node(here)),
        web.applied(),
        applied(Kind::EndpointSlice, name("ns/slice"), Object::EndpointSlice(slice(scenario))),
    ];
    let policy = Policy { node_name: node_name.into(), ..policy() };
    let node = programmed_by(policy, &["192.0.2.1"], updates);
    let chosen = |key: &str| -> Option<String> {
        let reals = node.kernel.tables.servers.get(&front(key))?.reals.keys();
        let last = reals.map(|real| real.address.to_string().rsplit('.').next().map(String::from));
        Some(last.map(Option::unwrap).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(chosen(CLUSTER_IP).as_deref(), Some(scenario.cluster_ip));
    assert_eq!(chosen(NODE_PORT).as_deref(), open.then_some(scenario.node_port));
}

fn slice(scenario: Scenario) -> EndpointSlice {
    let all = scenario.endpoints.split(", ").filter(|text| !text.is_empty());
    let all: Vec<Endpoint> = all.map(|text| hinted(text, scenario.place.0)).collect();
    objects::slice("ns/svc", &["tcp 80"], &all)
}

/// An endpoint with its hints, on the node of the scenario if it is local.
fn hinted(text: &str, node: &str) -> Endpoint {
    let (hints, words): (Vec<&str>, Vec<&str>) = text.split(' ').partition(|w| w.contains('='));
    let mut found = endpoints(&words.join(" ")).remove(0);
    if words.contains(&"local") {
        found.node = Some(node.into());
    }
    for (kind, values) in hints.iter().filter_map(|hint| hint.split_once('=')) {
        let values = values.split('+').map(Into::into).collect();
        match kind {
            "zones" => found.hints.get_or_insert_default().zones = values,
            _ => found.hints.get_or_insert_default().nodes = values,
        }
    }
    found
}
