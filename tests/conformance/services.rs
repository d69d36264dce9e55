//! Services as a whole: their virtual servers, their addresses, and what changes leave behind.

use kube_ipvs_proxy::cluster::Update;
use kube_ipvs_proxy::desired::front::Away;
use kube_ipvs_proxy::model::net::Family;
use kube_ipvs_proxy::testing::node::Node;
use kube_ipvs_proxy::testing::objects::{front, ip, service};
use serde_json::json;

use super::case::{Case, case, table};
use super::service_map::applied;
use super::state::{
    addresses, members, programmed, server_lines, servers, service_deleted, slice, slice_deleted,
    tell,
};

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("TestIPv4Proxier/services-of-two-families", || two_families(Family::V4)),
        case("TestIPv4Proxier/no-slices", || no_slices("10.20.30.41", "tcp 10.20.30.41:80 ->")),
        case("TestIPv6Proxier/services-of-two-families", || two_families(Family::V6)),
        case("TestIPv6Proxier/no-slices", || no_slices("2001::1", "tcp [2001::1]:80 ->")),
        case("TestExternalIPsNoEndpoint", external_ip_without_endpoints),
        case("TestExternalIPs", external_ips),
        case("TestOnlyLocalExternalIPs", only_local_external_ips),
        case("TestSessionAffinity", session_affinity),
        case("TestMultiPortServiceBindAddr", an_address_is_bound_while_a_port_needs_it),
        case("TestEndpointSliceE2E", slice_comes_and_goes),
    ];
    cases.extend(table("TestTestInternalTrafficPolicyE2E", policies(), check_policy));
    cases.extend(table("TestNoEndpointsMetric", unserved(), check_unserved));
    cases
}

fn two_families(family: Family) {
    let node = programmed(
        &[],
        [
            service("ns1/svc1", &["10.20.30.41"], &["p80 tcp 80"]).applied(),
            slice("ns1/svc1", "p80 tcp 80", "10.180.0.1"),
            service("ns2/svc2", &["1002:ab8::2:1"], &["p8080 tcp 8080"]).applied(),
            slice("ns2/svc2", "p8080 tcp 8080", "1009:ab8::5:6"),
        ],
    );
    let mut tables = node.kernel.tables.clone();
    tables.servers.retain(|key, _| key.family() == family);
    let expected = match family {
        Family::V4 => "tcp 10.20.30.41:80 -> 10.180.0.1:80",
        Family::V6 => "tcp [1002:ab8::2:1]:8080 -> [1009:ab8::5:6]:8080",
    };
    assert_eq!(server_lines(&tables), [expected]);
}

fn no_slices(cluster_ip: &str, expected: &str) {
    let web = service("ns1/svc1", &[cluster_ip], &["p80 tcp 80"]).applied();
    assert_eq!(servers(&programmed(&[], [web])), [expected]);
}

fn external_ip_without_endpoints() {
    let web = service("ns1/svc1", &["10.20.30.41"], &["p80 tcp 80"]);
    let node = programmed(&[], [web.external_ips(&["50.60.70.81"]).applied()]);
    assert_eq!(servers(&node), ["tcp 10.20.30.41:80 ->", "tcp 50.60.70.81:80 ->"]);
}

/// A Service with external IPs of both families, one of which takes no packets.
fn with_external_ips(kind: &str, policy: &str) -> Update {
    applied(json!({
        "metadata": {"namespace": "ns1", "name": "svc1"},
        "spec": {
            "type": kind,
            "clusterIP": "10.20.30.41",
            "externalIPs": ["50.60.70.81", "2012::51", "127.0.0.1"],
            "externalTrafficPolicy": policy,
            "ports": [{"name": "p80", "port": 80}],
        },
    }))
}

/// The slice serves the port by another protocol, which is not the Service's.
fn external_ips() {
    let slice = slice("ns1/svc1", "p80 udp 80", "10.180.0.1");
    let node = programmed(&[], [with_external_ips("ClusterIP", "Cluster"), slice]);
    assert_eq!(servers(&node), ["tcp 10.20.30.41:80 ->", "tcp 50.60.70.81:80 ->"]);
    let rejected = node.engine.rejected();
    assert_eq!(rejected[0].reason, "spec.externalIPs[2]: 127.0.0.1 is a loopback address");
}

fn only_local_external_ips() {
    let slice = slice("ns1/svc1", "p80 tcp 80", "10.180.0.1 local, 10.180.1.1");
    let expected = [
        "tcp 10.20.30.41:80 -> 10.180.0.1:80 10.180.1.1:80",
        "tcp 50.60.70.81:80 -> 10.180.0.1:80",
    ];
    let node = programmed(&[], [with_external_ips("NodePort", "Local"), slice]);
    assert_eq!(servers(&node), expected);
}

fn session_affinity() {
    let web = service("ns1/svc1", &["10.20.30.41"], &["p80 tcp 80:3001"]);
    let web = web.external_ips(&["50.60.70.81"]).affinity(10_800).applied();
    let node = programmed(&["100.101.102.103"], [web]);
    let servers = &node.kernel.tables.servers;
    for key in ["tcp 10.20.30.41:80", "tcp 50.60.70.81:80", "tcp 100.101.102.103:3001"] {
        assert_eq!(servers[&front(key)].config.persistence, Some(10_800), "{key}");
    }
    assert_eq!(servers.len(), 3);
}

fn an_address_is_bound_while_a_port_needs_it() {
    let web = |ports: &[&str]| service("ns1/svc1", &["172.16.55.4"], ports).applied();
    let mut node = programmed(&[], [web(&["p tcp 1234", "q tcp 1235"])]);
    assert_eq!(addresses(&node), "172.16.55.4");
    for ports in [&["p tcp 1234"][..], &["p tcp 1234", "q tcp 1235", "r udp 1236"]] {
        tell(&mut node, [web(ports)]);
        assert_eq!((addresses(&node), servers(&node).len()), ("172.16.55.4".into(), ports.len()));
    }
    tell(&mut node, [service_deleted("ns1/svc1")]);
    assert_eq!((addresses(&node), servers(&node).len()), (String::new(), 0));
}

const LOCAL_AND_OTHERS: &str = "10.0.1.1 local, 10.0.1.2, 10.0.1.3";

fn slice_comes_and_goes() {
    let web = service("ns1/svc1", &["172.20.1.1"], &["tcp 80"]).applied();
    let endpoints = format!("{LOCAL_AND_OTHERS}, 10.0.1.4 unready");
    let mut node = programmed(&[], [web, slice("ns1/svc1", "tcp 80", &endpoints)]);
    assert_eq!(members(&node, "KUBE-LOOP-BACK"), "10.0.1.1,tcp:80,10.0.1.1");
    let expected = ["tcp 172.20.1.1:80 -> 10.0.1.1:80 10.0.1.2:80 10.0.1.3:80"];
    assert_eq!(servers(&node), expected);
    is_left_without_endpoints(&mut node);
}

/// After its slice is deleted a Service keeps its virtual server.
fn is_left_without_endpoints(node: &mut Node) {
    tell(node, [slice_deleted("ns1/svc1")]);
    assert_eq!(servers(node), ["tcp 172.20.1.1:80 ->"]);
    assert_eq!(members(node, "KUBE-LOOP-BACK"), "");
}

/// Whether the internal policy is local, the endpoints, the real servers, and the hairpin entries.
type InternalPolicy = (bool, &'static str, &'static str, &'static str);

fn policies() -> [(&'static str, InternalPolicy); 4] {
    const NOBODY_HERE: &str = "10.0.1.1, 10.0.1.2, 10.0.1.3";
    const HERE: &str = "10.0.1.1,tcp:80,10.0.1.1";
    const ALL: &str = " 10.0.1.1:80 10.0.1.2:80 10.0.1.3:80";
    [
        ("cluster-with-a-local-endpoint", (false, LOCAL_AND_OTHERS, ALL, HERE)),
        ("cluster-without-local-endpoint", (false, NOBODY_HERE, ALL, "")),
        ("local-with-a-local-endpoint", (true, LOCAL_AND_OTHERS, " 10.0.1.1:80", HERE)),
        ("local-without-local-endpoint", (true, NOBODY_HERE, "", "")),
    ]
}

fn check_policy((is_local, endpoints, reals, hairpin): InternalPolicy) {
    let web = service("ns1/svc1", &["172.20.1.1"], &["tcp 80"]);
    let web = if is_local { web.local() } else { web };
    let mut node = programmed(&[], [web.applied(), slice("ns1/svc1", "tcp 80", endpoints)]);
    assert_eq!(servers(&node), [format!("tcp 172.20.1.1:80 ->{reals}")]);
    assert_eq!(members(&node, "KUBE-LOOP-BACK"), hairpin);
    is_left_without_endpoints(&mut node);
}

/// Policies that are local, the endpoints, and whether clients of the cluster IP and of the node
/// port are turned away although there are endpoints.
type Unserved = (&'static str, &'static str, [bool; 2]);

fn unserved() -> [(&'static str, Unserved); 7] {
    const ELSEWHERE: &str = "10.0.1.1, 10.0.1.2, 10.0.1.3";
    [
        ("internal-local", ("internal", LOCAL_AND_OTHERS, [false, false])),
        ("external-local", ("external", LOCAL_AND_OTHERS, [false, false])),
        ("both-local", ("internal external", LOCAL_AND_OTHERS, [false, false])),
        ("internal-local-elsewhere", ("internal", ELSEWHERE, [true, false])),
        ("external-local-elsewhere", ("external", ELSEWHERE, [false, true])),
        ("both-local-elsewhere", ("internal external", ELSEWHERE, [true, true])),
        ("both-local-no-endpoints", ("internal external", "", [false, false])),
    ]
}

/// Inside the cluster the local policy leaves a front without real servers, outside it drops.
fn check_unserved((policies, endpoints, expected): Unserved) {
    let mut web = service("ns1/svc1", &["172.20.1.1"], &["tcp 80:30000"]);
    if policies.contains("internal") {
        web = web.local();
    }
    if policies.contains("external") {
        web = web.external_local();
    }
    let slice = (!endpoints.is_empty()).then(|| slice("ns1/svc1", "tcp 80", endpoints));
    let node = programmed(&["10.0.0.1"], [web.applied()].into_iter().chain(slice));
    let tables = &node.kernel.tables;
    let is_empty = tables.servers[&front("tcp 172.20.1.1:80")].reals.is_empty();
    let inside = is_empty && !endpoints.is_empty();
    let outside = !members(&node, "KUBE-NO-LOCAL-ENDPOINTS").is_empty();
    assert_eq!([inside, outside], expected);
    let Away { internal, external } = node.engine.state().0.away();
    assert_eq!([internal.v4, external.v4], expected.map(usize::from));
    assert!(tables.addresses.contains_key(&ip("172.20.1.1")));
}
