//! Node ports: where they are open, for whom, and what rules go by.

use kube_ipvs_proxy::cluster::Update;
use kube_ipvs_proxy::config::{NodePortAddresses, Policy};
use kube_ipvs_proxy::model::iptables::TableName::{Filter, Nat};
use kube_ipvs_proxy::testing::objects::{ServiceBuilder, service};

use super::case::{Case, case};
use super::state::{
    assert_in_order, members, policy, programmed, programmed_by, rules, servers, slice, slice_named,
};

pub fn cases() -> Vec<Case> {
    vec![
        case("TestNodePortIPv4/endpoints-of-two-families", endpoints_of_two_families),
        case("TestNodePortIPv4/udp", udp),
        case("TestNodePortIPv4/no-endpoints", no_endpoints),
        case("TestNodePortIPv4/sctp-on-several-addresses", sctp_on_several_addresses),
        case("TestNodePortIPv4/sctp-of-the-local-policy", sctp_of_the_local_policy),
        case("TestNodePortIPv6/endpoints-of-two-families", endpoints_of_two_families_ipv6),
        case("TestNodePortIPv6/ipv4-service-alone", ipv4_service_has_nothing_in_ipv6),
        case("TestNodePortIPv6/no-endpoints", no_endpoints_ipv6),
        case("TestNodePortIPv6/sctp-on-several-addresses", sctp_on_several_addresses_ipv6),
        case("TestOnlyLocalNodePorts", only_local),
    ]
}

const NODE_V4: &str = "100.101.102.103";
const NODE_V6: &str = "2001:db8::1:1";

fn ipv4_service(port: &str) -> ServiceBuilder {
    service("ns1/svc1", &["10.20.30.41"], &[port])
}

fn ipv6_service(port: &str) -> ServiceBuilder {
    service("ns1/svc1", &["2020::1"], &[port])
}

/// An endpoint of each family, in a slice of its own.
fn slices_of_both_families() -> [Update; 2] {
    [
        slice_named("ns1/svc1-4", "ns1/svc1", "p80 tcp 80", "10.180.0.1"),
        slice_named("ns1/svc1-6", "ns1/svc1", "p80 tcp 80", "1002:ab8::2:10"),
    ]
}

/// Node ports in these ranges of node addresses only.
fn within(range: &str) -> Policy {
    let ranges = vec![range.parse().unwrap()];
    Policy { node_port_addresses: NodePortAddresses::Cidrs(ranges), ..policy() }
}

fn endpoints_of_two_families() {
    let updates = [ipv4_service("p80 tcp 80:3001").applied()];
    let node =
        programmed(&[NODE_V4, NODE_V6], updates.into_iter().chain(slices_of_both_families()));
    let expected =
        ["tcp 10.20.30.41:80 -> 10.180.0.1:80", "tcp 100.101.102.103:3001 -> 10.180.0.1:80"];
    assert_eq!(servers(&node), expected);
}

fn udp() {
    let updates =
        [ipv4_service("p80 udp 80:3001").applied(), slice("ns1/svc1", "p80 udp 80", "10.180.0.1")];
    let node = programmed_by(within("0.0.0.0/0"), &[NODE_V4], updates);
    let expected =
        ["udp 10.20.30.41:80 -> 10.180.0.1:80", "udp 100.101.102.103:3001 -> 10.180.0.1:80"];
    assert_eq!(servers(&node), expected);
    assert_eq!(members(&node, "KUBE-NODE-PORT-UDP"), "3001");
    let port_rules = rules(&node, Nat, "KUBE-NODE-PORT");
    assert_in_order(&port_rules, &["KUBE-NODE-PORT-UDP KUBE-MARK-MASQ"]);
    let filter_rules = rules(&node, Filter, "KUBE-NODE-PORT");
    assert_eq!(filter_rules, ["KUBE-HEALTH-CHECK-NODE-PORT ACCEPT"]);
    let expected = [
        "127.0.0.0/8 RETURN",
        "KUBE-CLUSTER-IP KUBE-MARK-MASQ",
        "KUBE-NODE-PORT",
        "KUBE-CLUSTER-IP ACCEPT",
    ];
    assert_in_order(&rules(&node, Nat, "KUBE-SERVICES"), &expected);
}

fn no_endpoints() {
    let node = programmed(&[NODE_V4], [ipv4_service("p80 tcp 80:3001").applied()]);
    assert_eq!(servers(&node), ["tcp 10.20.30.41:80 ->", "tcp 100.101.102.103:3001 ->"]);
}

fn sctp_on_several_addresses() {
    let updates = [
        ipv4_service("p80 sctp 80:3001").applied(),
        slice("ns1/svc1", "p80 sctp 80", "10.180.0.1"),
    ];
    let host = [NODE_V4, "100.101.102.104", "100.101.102.105", NODE_V6, "2001:db8::1:2", "::2"];
    let node = programmed(&host, updates);
    let expected = [
        "sctp 10.20.30.41:80 -> 10.180.0.1:80",
        "sctp 100.101.102.103:3001 -> 10.180.0.1:80",
        "sctp 100.101.102.104:3001 -> 10.180.0.1:80",
        "sctp 100.101.102.105:3001 -> 10.180.0.1:80",
    ];
    assert_eq!(servers(&node), expected);
    let expected = "100.101.102.103,sctp:3001 100.101.102.104,sctp:3001 100.101.102.105,sctp:3001";
    assert_eq!(members(&node, "KUBE-NODE-PORT-SCTP-HASH"), expected);
}

fn sctp_of_the_local_policy() {
    let updates = [
        ipv4_service("p80 sctp 80:3001").external_local().applied(),
        slice("ns1/svc1", "p80 sctp 80", "10.180.0.1 local, 10.180.1.1"),
    ];
    let node = programmed(&[NODE_V4], updates);
    let expected = [
        "sctp 10.20.30.41:80 -> 10.180.0.1:80 10.180.1.1:80",
        "sctp 100.101.102.103:3001 -> 10.180.0.1:80",
    ];
    assert_eq!(servers(&node), expected);
    for set in ["KUBE-NODE-PORT-SCTP-HASH", "KUBE-NODE-PORT-LOCAL-SCTP-HASH"] {
        assert_eq!(members(&node, set), "100.101.102.103,sctp:3001");
    }
    let expected =
        ["KUBE-NODE-PORT-LOCAL-SCTP-HASH RETURN", "KUBE-NODE-PORT-SCTP-HASH KUBE-MARK-MASQ"];
    assert_in_order(&rules(&node, Nat, "KUBE-NODE-PORT"), &expected);
}

fn endpoints_of_two_families_ipv6() {
    let updates = [ipv6_service("p80 tcp 80:3001").applied()];
    let node =
        programmed(&[NODE_V4, NODE_V6], updates.into_iter().chain(slices_of_both_families()));
    let expected = [
        "tcp [2001:db8::1:1]:3001 -> [1002:ab8::2:10]:80",
        "tcp [2020::1]:80 -> [1002:ab8::2:10]:80",
    ];
    assert_eq!(servers(&node), expected);
}

fn ipv4_service_has_nothing_in_ipv6() {
    let updates =
        [ipv4_service("p80 udp 80:3001").applied(), slice("ns1/svc1", "p80 udp 80", "10.180.0.1")];
    let node = programmed_by(within("0.0.0.0/0"), &[NODE_V4], updates);
    assert!(servers(&node).iter().all(|line| !line.contains('[')), "{:?}", servers(&node));
    assert_eq!(members(&node, "KUBE-6-NODE-PORT-UDP"), "");
}

fn no_endpoints_ipv6() {
    let node = programmed(&[NODE_V6], [ipv6_service("p80 tcp 80:3001").applied()]);
    assert_eq!(servers(&node), ["tcp [2001:db8::1:1]:3001 ->", "tcp [2020::1]:80 ->"]);
}

fn sctp_on_several_addresses_ipv6() {
    let updates =
        [ipv6_service("p80 sctp 80:3001").applied(), slice("ns1/svc1", "p80 sctp 80", "2001::1")];
    let node = programmed(&[NODE_V6, "2001:db8::1:2"], updates);
    let expected = [
        "sctp [2001:db8::1:1]:3001 -> [2001::1]:80",
        "sctp [2001:db8::1:2]:3001 -> [2001::1]:80",
        "sctp [2020::1]:80 -> [2001::1]:80",
    ];
    assert_eq!(servers(&node), expected);
    let expected = "2001:db8::1:1,sctp:3001 2001:db8::1:2,sctp:3001";
    assert_eq!(members(&node, "KUBE-6-NODE-PORT-SCTP-HASH"), expected);
}

fn only_local() {
    let updates = [
        ipv4_service("p80 tcp 80:3001").external_local().applied(),
        slice("ns1/svc1", "p80 tcp 80", "10.180.0.1 local, 10.180.1.1"),
    ];
    let node = programmed_by(within("100.101.102.0/24"), &[NODE_V4, "10.9.9.9", NODE_V6], updates);
    let expected = [
        "tcp 10.20.30.41:80 -> 10.180.0.1:80 10.180.1.1:80",
        "tcp 100.101.102.103:3001 -> 10.180.0.1:80",
    ];
    assert_eq!(servers(&node), expected);
    assert_eq!(members(&node, "KUBE-NODE-PORT-TCP"), "3001");
    assert_eq!(members(&node, "KUBE-NODE-PORT-LOCAL-TCP"), "3001");
    let expected = ["KUBE-NODE-PORT-LOCAL-TCP RETURN", "KUBE-NODE-PORT-TCP KUBE-MARK-MASQ"];
    assert_in_order(&rules(&node, Nat, "KUBE-NODE-PORT"), &expected);
}
