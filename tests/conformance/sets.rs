//! Entries of sets: what is added and removed, how they are written, and what never becomes one.

use kube_ipvs_proxy::cluster::{Kind, Update, objects};
use kube_ipvs_proxy::model::ipset::{Member, SetType};
use kube_ipvs_proxy::model::net::{Family, Protocol};
use kube_ipvs_proxy::render;
use kube_ipvs_proxy::testing::fake_kernel::FakeKernel;
use kube_ipvs_proxy::testing::node::Node;
use kube_ipvs_proxy::testing::objects::{NODE, ip, service};
use serde_json::{Value, json};

use super::case::{Case, case, table};
use super::state::{members, policy, programmed, slice, synced};

pub fn cases() -> Vec<Case> {
    let mut cases = table("TestSyncIPSetEntries", changes(), check_change);
    cases.extend(table("ipset/entry-text", texts(), check_text));
    cases.extend(table("ipset/set-type", types(), check_type));
    cases.push(case("ipset/defaults", options_of_sets));
    cases.extend(table("ipset/entry-validation", entries(), check_entry));
    cases.extend(table("TestIpIsValidForSet", endpoints(), check_endpoints));
    cases
}

/// A set, its entries, and those wanted; separated by blanks.
type Change = (&'static str, &'static str, &'static str);

fn changes() -> Vec<(&'static str, Change)> {
    const PORTS: &str = "KUBE-NODE-PORT-TCP";
    const FRONTS: &str = "KUBE-CLUSTER-IP";
    const FRONTS_6: &str = "KUBE-6-CLUSTER-IP";
    const HAIRPIN: &str = "KUBE-LOOP-BACK";
    const RANGES: &str = "KUBE-LOAD-BALANCER-SOURCE-CIDR";
    const RANGES_6: &str = "KUBE-6-LOAD-BALANCER-SOURCE-CID";
    vec![
        ("add-one", (FRONTS, "", "172.16.4.5,tcp:80")),
        ("ipv6-same", (FRONTS_6, "fd00::1,tcp:80", "fd00::1,tcp:80")),
        ("protocol-changes", (FRONTS, "172.16.4.5,udp:53", "172.16.4.5,tcp:80")),
        ("same", (FRONTS, "172.16.4.5,tcp:80", "172.16.4.5,tcp:80")),
        ("ipv6-replaced", (FRONTS_6, "fd00::1,tcp:80", "fd00::2,tcp:90")),
        (
            "add-two-with-second-address",
            (HAIRPIN, "", "172.16.1.2,udp:53,172.16.1.2 172.16.1.3,tcp:8081,172.16.1.3"),
        ),
        (
            "add-two-with-ranges",
            (RANGES, "", "172.17.9.9,tcp:8081,10.2.0.0/16 172.17.9.10,tcp:8082,10.3.0.0/16"),
        ),
        ("ipv6-range-same", (RANGES_6, "fd00::9,tcp:80,fd01::/64", "fd00::9,tcp:80,fd01::/64")),
        ("remove-last-range", (RANGES, "172.17.9.9,tcp:8081,10.2.0.0/16", "")),
        ("remove-last-port", (PORTS, "30080", "")),
        ("replace-ports", (PORTS, "30080", "31080 31090")),
        ("shrink-ports", (PORTS, "30080 30090 31081 31082", "31080")),
        ("add-sctp", (FRONTS, "", "172.16.4.5,sctp:9000")),
        ("ipv6-sctp-same", (FRONTS_6, "fd00::1,sctp:9000", "fd00::1,sctp:9000")),
    ]
}

/// The set begins as an earlier run left it.
fn check_change((set, present, wanted): Change) {
    let before = programmed(&["192.0.2.1"], updates(set, present));
    assert_eq!(members(&before, set), present);
    let mut kernel = FakeKernel::default();
    kernel.host.addresses = [ip("192.0.2.1")].into();
    kernel.tables.sets = before.kernel.tables.sets.clone();
    kernel.tables.entries = before.kernel.tables.entries.clone();
    kernel.tables.entries.retain(|entry| entry.key().name() == set);
    let after = synced(Node::with(policy(), kernel, updates(set, wanted)));
    assert_eq!(members(&after, set), wanted);
}

/// Services that need these entries of the set.
fn updates(set: &str, entries: &str) -> Vec<Update> {
    let entries = entries.split(' ').filter(|entry| !entry.is_empty());
    (1..).zip(entries).flat_map(|(number, entry)| needing(set, entry, number)).collect()
}

fn needing(set: &str, entry: &str, number: u8) -> Vec<Update> {
    let named = format!("ns/svc-{number}");
    let parts: Vec<&str> = entry.split(',').collect();
    let port = |text: &str| text.replace(':', " ");
    let own = match entry.contains("::") {
        true => format!("fd0f::{number}"),
        false => format!("10.9.0.{number}"),
    };
    match parts[..] {
        [node_port] => vec![service(&named, &[&own], &[&format!("tcp 80:{node_port}")]).applied()],
        [address, front] => vec![service(&named, &[address], &[&port(front)]).applied()],
        [balancer, front, range] if set.contains("SOURCE") => {
            let web = service(&named, &[&own], &[&port(front)]);
            vec![web.load_balancer_ips(&[balancer]).source_ranges(&[range]).applied()]
        }
        [address, real, _] => {
            let protocol = port(real).split(' ').next().unwrap().to_string();
            let web = service(&named, &[&own], &[&format!("{protocol} 80")]);
            vec![web.applied(), slice(&named, &port(real), &format!("{address} local"))]
        }
        _ => panic!("not an entry: {entry}"),
    }
}

fn texts() -> Vec<(&'static str, (Member, &'static str))> {
    let address = |last: u8| ip(&format!("192.168.1.{last}"));
    let range = "10.20.30.0/24".parse().unwrap();
    vec![
        ("udp", (Member::IpPort(address(1), Protocol::Udp, 53), "192.168.1.1,udp:53")),
        ("tcp", (Member::IpPort(address(2), Protocol::Tcp, 80), "192.168.1.2,tcp:80")),
        (
            "second-address",
            (
                Member::IpPortIp(address(3), Protocol::Udp, 53, ip("10.20.30.1")),
                "192.168.1.3,udp:53,10.20.30.1",
            ),
        ),
        (
            "range",
            (
                Member::IpPortNet(address(5), Protocol::Udp, 53, range),
                "192.168.1.5,udp:53,10.20.30.0/24",
            ),
        ),
        ("port", (Member::Port(Family::V4, 80), "80")),
        ("sctp", (Member::IpPort(address(2), Protocol::Sctp, 80), "192.168.1.2,sctp:80")),
    ]
}

fn check_text((member, expected): (Member, &str)) {
    assert_eq!(member.to_string(), expected);
}

fn types() -> Vec<(&'static str, (&'static str, bool))> {
    vec![
        ("ip-port-net", ("hash:ip,port,net", true)),
        ("ip-port", ("hash:ip,port", true)),
        ("ip-port-ip", ("hash:ip,port,ip", true)),
        ("port", ("bitmap:port", true)),
        ("ip", ("hash:ip", true)),
        ("unknown", ("foo", false)),
        ("empty", ("", false)),
    ]
}

fn check_type((name, is_known): (&str, bool)) {
    assert_eq!(SetType::from_name(name).is_some(), is_known);
}

fn options_of_sets() {
    let text = render::text(&programmed(&[], []).kernel.tables);
    for expected in [
        "create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 4096 maxelem 65536\n",
        "create KUBE-6-LOOP-BACK hash:ip,port,ip family inet6 hashsize 4096 maxelem 65536\n",
        "create KUBE-NODE-PORT-TCP bitmap:port range 0-65535\n",
    ] {
        assert!(text.contains(expected), "{expected}{text}");
    }
}

/// A Service as the API has it, or what of a slice, and the entries that follow in a set.
struct Entry {
    kind: Kind,
    object: Value,
    set: &'static str,
    expected: &'static str,
}

fn entries() -> Vec<(&'static str, Entry)> {
    let mut rows = fronts();
    rows.extend(hairpins());
    rows.extend(ranges());
    rows
}

/// A Service with one port, which may have any of these fields otherwise.
fn web(spec: Value) -> Value {
    let mut all = json!({"type": "LoadBalancer", "clusterIP": "10.9.0.1",
        "ports": [{"port": 80}]});
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    json!({"metadata": {"namespace": "ns", "name": "svc"}, "spec": all,
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}})
}

fn fronts() -> Vec<(&'static str, Entry)> {
    let set = "KUBE-CLUSTER-IP";
    let row = |spec, expected| Entry { kind: Kind::Service, object: web(spec), set, expected };
    let port = |port: Value| json!({"ports": [port]});
    vec![
        ("front", row(json!({}), "10.9.0.1,tcp:80")),
        ("no-protocol-is-tcp", row(port(json!({"port": 8080})), "10.9.0.1,tcp:8080")),
        ("port-0", row(port(json!({"port": 0})), "")),
        ("port-minus-1", row(port(json!({"port": -1})), "")),
        ("protocol-icmp", row(port(json!({"port": 80, "protocol": "ICMP"})), "")),
        ("protocol-foo", row(port(json!({"port": 80, "protocol": "FOO"})), "")),
        ("address-empty", row(json!({"clusterIP": ""}), "")),
        ("address-not-one", row(json!({"clusterIP": "1-2-3-4"}), "")),
        (
            "front-ipv6",
            Entry {
                kind: Kind::Service,
                object: web(json!({"clusterIP": "fd00::1"})),
                set: "KUBE-6-CLUSTER-IP",
                expected: "fd00::1,tcp:80",
            },
        ),
    ]
}

fn hairpins() -> Vec<(&'static str, Entry)> {
    let row = |address: &str, expected| Entry {
        kind: Kind::EndpointSlice,
        object: json!({
            "metadata": {"namespace": "ns", "name": "svc-1",
                "labels": {"kubernetes.io/service-name": "svc"}},
            "addressType": "IPv4",
            "ports": [{"port": 8080}],
            "endpoints": [{"addresses": [address], "nodeName": "node-1"}],
        }),
        set: "KUBE-LOOP-BACK",
        expected,
    };
    vec![
        ("second-address", row("10.1.0.1", "10.1.0.1,tcp:8080,10.1.0.1")),
        ("second-address-empty", row("", "")),
        ("second-address-not-one", row("foo", "")),
    ]
}

fn ranges() -> Vec<(&'static str, Entry)> {
    let row = |range: &str, expected| Entry {
        kind: Kind::Service,
        object: web(json!({"loadBalancerSourceRanges": [range]})),
        set: "KUBE-LOAD-BALANCER-SOURCE-CIDR",
        expected,
    };
    vec![
        ("range-32", row("10.20.30.1/32", "192.0.2.9,tcp:80,10.20.30.1")),
        ("range-0", row("0.0.0.0/0", "")),
        ("range-empty", row("", "")),
        ("range-not-one", row("x-y-z-w", "")),
        ("range-33", row("10.20.30.0/33", "")),
        ("range-minus-1", row("10.20.30.0/-1", "")),
    ]
}

/// What cannot be used is told; what is left out on purpose is not.
fn check_entry(entry: Entry) {
    let read = objects::read(entry.kind, &entry.object.to_string()).unwrap();
    let update = Update::Applied(entry.kind, read.name, read.parsed);
    let base = objects::read(Kind::Service, &web(json!({})).to_string()).unwrap();
    let base = Update::Applied(Kind::Service, base.name, base.parsed);
    let node = programmed(&[], [base, update]);
    assert_eq!(members(&node, entry.set), entry.expected);
    let is_usable = !entry.expected.is_empty();
    if is_usable {
        assert_eq!(node.engine.rejected(), []);
    }
}

/// Addresses of endpoints on this node, and those that have a hairpin entry.
type Endpoints = (&'static str, &'static [&'static str], &'static [&'static str]);

fn endpoints() -> Vec<(&'static str, Endpoints)> {
    const V4: &[&str] = &[
        "127.0.0.1",
        "127.0.0.0",
        "127.6.7.8",
        "8.8.8.8",
        "192.168.0.1",
        "169.254.0.0",
        "::ffff:169.254.0.1",
        "1000::",
    ];
    const V4_USED: &[&str] = &["8.8.8.8", "169.254.0.0", "169.254.0.1", "192.168.0.1"];
    const V6: &[&str] = &["::1", "1000::", "fe80::200:ff:fe01:1", "8.8.8.8", "::ffff:8.8.8.8"];
    vec![("IPv4", ("IPv4", V4, V4_USED)), ("IPv6", ("IPv6", V6, &["1000::"]))]
}

fn check_endpoints((family, given, expected): Endpoints) {
    let all = given.iter().map(|ip| json!({"addresses": [ip], "nodeName": NODE}));
    let object = json!({
        "metadata": {"namespace": "ns", "name": "svc-1",
            "labels": {"kubernetes.io/service-name": "svc"}},
        "addressType": family,
        "ports": [{"port": 8080}],
        "endpoints": all.collect::<Vec<_>>(),
    });
    let read = objects::read(Kind::EndpointSlice, &object.to_string()).unwrap();
    let slice = Update::Applied(Kind::EndpointSlice, read.name, read.parsed);
    let web = service("ns/svc", &["10.9.0.1", "fd00::1"], &["tcp 80"]).applied();
    let node = programmed(&[], [web, slice]);
    let entries = expected.iter().map(|ip| format!("{ip},tcp:8080,{ip}"));
    let set = if family == "IPv4" { "KUBE-LOOP-BACK" } else { "KUBE-6-LOOP-BACK" };
    assert_eq!(members(&node, set), entries.collect::<Vec<_>>().join(" "));
}
