//! The own Node: what is done without it, and what follows when it changes.

use kube_ipvs_proxy::cluster::store::{Store, Touched};
use kube_ipvs_proxy::cluster::{Kind, Update, objects};
use kube_ipvs_proxy::config::{DetectLocal, NodePortAddresses, Policy};
use kube_ipvs_proxy::model::iptables::TableName::Nat;
use kube_ipvs_proxy::model::net::Family;
use kube_ipvs_proxy::testing::node::Node;
use kube_ipvs_proxy::testing::objects::{NODE, name, service};
use serde_json::{Value, json};

use super::case::{Case, case, table};
use super::state::{chain, policy, programmed_by, servers, synced};

pub fn cases() -> Vec<Case> {
    let mut cases = table("TestNewNodeManager", appearances(), check_appearance);
    cases.extend(table("TestNodeManagerOnNodeChange", changes(), check_change));
    cases.push(case("TestNodeManagerOnNodeDelete", deleted));
    cases.push(case("TestNodeManagerNode", newest));
    cases.extend(table("Test_detectNodeIPs", addresses(), check_addresses));
    cases.extend(table("TestNewNodeTopologyConfig", labels(), check_labels));
    cases
}

fn applied(object: &Value) -> Update {
    let read = objects::read(Kind::Node, &object.to_string()).unwrap();
    Update::Applied(Kind::Node, read.name, read.parsed)
}

/// The Node with addresses and pod ranges, separated by blanks.
fn node(addresses: &str, pod_cidrs: &str) -> Update {
    let addresses = addresses.split_whitespace();
    let addresses = addresses.map(|ip| json!({"type": "InternalIP", "address": ip}));
    applied(&json!({
        "metadata": {"name": NODE},
        "spec": {"podCIDRs": pod_cidrs.split_whitespace().collect::<Vec<_>>()},
        "status": {"addresses": addresses.collect::<Vec<_>>()},
    }))
}

const HOST: [&str; 6] =
    ["192.168.1.1", "192.168.1.2", "fd00:1234::1", "90.90.90.90", "2001:db8::2", "10.99.0.1"];

/// A node whose node ports are open on the addresses of the Node, and whose pods its ranges tell.
fn of_updates(updates: impl IntoIterator<Item = Update>) -> Node {
    let policy = Policy {
        detect_local: DetectLocal::NodeCidr,
        node_port_addresses: NodePortAddresses::Primary,
        ..policy()
    };
    let web = service("ns/svc", &["10.0.0.1", "fd00::1"], &["tcp 80:30080"]).applied();
    programmed_by(policy, &HOST, [web].into_iter().chain(updates))
}

/// Where the node port is open.
fn open(node: &Node) -> String {
    let lines = servers(node);
    let open = lines.iter().filter_map(|line| line.strip_prefix("tcp ")?.split_once(":30080"));
    open.map(|(address, _)| address).collect::<Vec<_>>().join(" ")
}

/// The source range that the rule about clients of cluster IPs leaves alone, if there is one.
fn pod_range(node: &Node) -> String {
    let rules = chain(node, Family::V4, Nat, "KUBE-SERVICES");
    let rule = rules.iter().find_map(|rule| rule.strip_prefix("! -s "));
    rule.and_then(|rule| rule.split(' ').next()).unwrap_or_default().to_string()
}

/// Nodes that appear one after the other, and what is known at the end.
type Appearance = (Vec<Update>, &'static str, &'static str);

fn appearances() -> Vec<(&'static str, Appearance)> {
    vec![
        ("no-node", (vec![], "", "")),
        ("no-node-pod-ranges-wanted", (vec![], "", "")),
        ("no-address", (vec![node("", "")], "", "")),
        ("address-appears", (vec![node("", ""), node("192.168.1.1", "")], "192.168.1.1", "")),
        ("no-pod-range", (vec![node("192.168.1.1", "")], "192.168.1.1", "")),
        (
            "both-appear",
            (
                vec![
                    node("", ""),
                    node("192.168.1.2", "10.0.1.0/24"),
                    node("192.168.1.1", "10.0.0.0/24"),
                ],
                "192.168.1.1",
                "10.0.0.0/24",
            ),
        ),
        ("pod-range-without-address", (vec![node("", "10.0.0.0/24")], "", "10.0.0.0/24")),
    ]
}

fn check_appearance((nodes, addresses, pod_cidr): Appearance) {
    let mut known = of_updates([]);
    for update in nodes {
        known.tell([update]);
        known = synced(known);
    }
    assert_eq!((open(&known).as_str(), pod_range(&known).as_str()), (addresses, pod_cidr));
}

/// Addresses and pod ranges before and after.
type Change = [(&'static str, &'static str); 2];

fn changes() -> Vec<(&'static str, Change)> {
    const BEFORE: (&str, &str) = ("192.168.1.1", "10.0.0.0/24");
    vec![
        ("same-address", [BEFORE, BEFORE]),
        ("other-address", [BEFORE, ("192.168.1.2", "10.0.0.0/24")]),
        ("same-pod-range", [BEFORE, BEFORE]),
        ("other-pod-range", [BEFORE, ("192.168.1.1", "10.0.1.0/24")]),
    ]
}

fn check_change([before, after]: Change) {
    let mut known = of_updates([node(before.0, before.1)]);
    known.tell([node(after.0, after.1)]);
    let is_same = before == after;
    assert_eq!(known.changes().is_empty(), is_same);
    assert_eq!((open(&known).as_str(), pod_range(&known).as_str()), after);
}

fn deleted() {
    let mut known = of_updates([node("192.168.1.1", "10.0.0.0/24")]);
    known.tell([Update::Deleted(Kind::Node, name(NODE))]);
    known = synced(known);
    assert!(servers(&known).contains(&"tcp 10.0.0.1:80 ->".to_string()));
}

fn newest() {
    let mut store = Store::new(&[]);
    for pod_cidr in ["10.0.0.0/24", "10.0.1.0/24"] {
        store.apply(node("192.168.1.1", pod_cidr));
        assert_eq!(store.node(NODE).unwrap().pod_cidrs, [pod_cidr.parse().unwrap()]);
    }
}

/// Addresses of the Node, and where node ports are open that are for its primary ones.
fn addresses() -> Vec<(&'static str, (&'static str, &'static str))> {
    vec![
        ("none", ("", "")),
        ("single-stack-ipv4", ("192.168.1.1", "192.168.1.1")),
        ("single-stack-ipv6", ("fd00:1234::1", "[fd00:1234::1]")),
        ("dual-stack-ipv4-first", ("90.90.90.90 2001:db8::2", "90.90.90.90 [2001:db8::2]")),
        ("dual-stack-ipv6-first", ("2001:db8::2 90.90.90.90", "90.90.90.90 [2001:db8::2]")),
    ]
}

fn check_addresses((known, expected): (&str, &str)) {
    assert_eq!(open(&of_updates([node(known, "")])), expected);
}

/// Labels of the Node before and after, and whether that is news.
fn labels() -> Vec<(&'static str, ([Value; 2], bool))> {
    let zone = |zone: &str| json!({"topology.kubernetes.io/zone": zone});
    vec![
        ("other-label", ([json!({}), json!({"color": "blue"})], false)),
        ("region", ([json!({}), json!({"topology.kubernetes.io/region": "r"})], false)),
        ("zone-appears", ([json!({}), zone("a")], true)),
        ("zone-changes", ([zone("a"), zone("b")], true)),
        ("unrelated-update", ([zone("a"), zone("a")], false)),
    ]
}

fn check_labels(([before, after], is_news): ([Value; 2], bool)) {
    let node = |labels: Value, version: &str| {
        let metadata = json!({"name": NODE, "labels": labels, "resourceVersion": version});
        applied(&json!({"metadata": metadata}))
    };
    let mut store = Store::new(&[]);
    store.apply(node(before, "1"));
    let touched = store.apply(node(after, "2"));
    assert_eq!(touched, Touched { nodes: is_news, ..Touched::default() });
}
