//! Services as the API has them: which count, and what is read of them.

use kube_ipvs_proxy::cluster::store::{Store, Touched};
use kube_ipvs_proxy::cluster::{Kind, Object, ObjectName, Service, Update, objects};
use kube_ipvs_proxy::model::net::Family;
use kube_ipvs_proxy::testing::objects::name;
use serde_json::{Value, json};

use super::case::{Case, case, table};

pub fn cases() -> Vec<Case> {
    let mut cases = table("TestServiceToServiceMap", services(), check_service);
    cases.extend(table("TestShouldSkipService", ignored(), check_ignored));
    cases.extend(table("TestGetClusterIPByFamily", cluster_ips(), check_cluster_ips));
    cases.extend([
        case("TestMapIPsByIPFamily", addresses_of_both_families),
        case("TestMapCIDRsByIPFamily", ranges_of_both_families),
        case("TestFilterCIDRs/mixed", ranges_of_both_families),
        case("TestFilterCIDRs/empty", no_ranges),
        case("TestBuildServiceMapAddRemove", add_and_remove),
        case("TestBuildServiceMapServiceHeadless", headless),
        case("TestBuildServiceMapServiceTypeExternalName", external_name),
        case("TestBuildServiceMapServiceUpdate", update),
        case("tracker/TestServiceMapUpdateHeadless", headless),
        case("tracker/TestUpdateServiceTypeExternalName", external_name),
        case("tracker/TestBuildServiceMapAddRemove", add_and_remove),
        case("tracker/TestBuildServiceMapServiceUpdate", update),
        case("tracker/TestServiceCacheLeaks", nothing_leaks),
    ]);
    cases
}

/// The update that applies a Service given as the API has it.
pub fn applied(object: Value) -> Update {
    let read = objects::read(Kind::Service, &object.to_string()).unwrap();
    Update::Applied(Kind::Service, read.name, read.parsed)
}

/// What is read of a Service given by its spec and the addresses of its load balancer.
fn read(spec: Value, ingress: Value) -> Option<Service> {
    let object = json!({"metadata": {"namespace": "ns", "name": "svc"}, "spec": spec,
        "status": {"loadBalancer": {"ingress": ingress}}});
    match objects::read(Kind::Service, &object.to_string()).unwrap().parsed.object {
        Some(Object::Service(service)) => Some(service),
        _ => None,
    }
}

/// A Service in one line, with what it has of each kind of address.
fn in_words(service: &Service) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(
        Family::ALL
            .iter()
            .filter_map(|family| *service.cluster_ips.get(*family))
            .map(|address| address.to_string()),
    );
    words.extend(service.ports.iter().map(|port| match port.node_port {
        Some(node_port) => format!("{}:{}:{node_port}", port.port, port.protocol),
        None => format!("{}:{}", port.port, port.protocol),
    }));
    words.extend(service.external_ips.iter().map(|ip| format!("external {ip}")));
    words.extend(service.load_balancer_ips.iter().map(|ip| format!("balancer {ip}")));
    words.extend(service.source_ranges.iter().map(|range| format!("from {range}")));
    words.extend(service.health_check_port.map(|port| format!("health {port}")));
    words.join(", ")
}

/// A spec, the addresses of its load balancer, and the Service in words; empty if there is none.
type ReadService = (Value, Value, &'static str);

fn services() -> Vec<(&'static str, ReadService)> {
    let mut rows = plain_services();
    rows.extend(load_balancers());
    rows.extend(services_of_families());
    rows
}

fn plain_services() -> Vec<(&'static str, ReadService)> {
    let headless = |ports: Value| json!({"clusterIP": "None", "ports": ports});
    let udp = |port: u16| json!({"name": format!("p{port}"), "port": port, "protocol": "UDP"});
    let two_ports = json!([udp(1234), udp(1235)]);
    let node_ports = json!([{"name": "a", "port": 345, "nodePort": 4345, "protocol": "UDP"},
        {"name": "b", "port": 344, "nodePort": 4344}]);
    vec![
        ("nothing", (json!(null), json!(null), "")),
        ("headless", (headless(json!([udp(1234)])), json!([]), "")),
        ("headless-sctp", (headless(json!([{"port": 1235, "protocol": "SCTP"}])), json!([]), "")),
        ("headless-without-port", (headless(json!([])), json!([]), "")),
        (
            "cluster-ip",
            (
                json!({"type": "ClusterIP", "clusterIP": "172.16.55.4", "ports": two_ports}),
                json!([]),
                "172.16.55.4, 1234:udp, 1235:udp",
            ),
        ),
        (
            "node-port",
            (
                json!({"type": "NodePort", "clusterIP": "172.16.55.10", "ports": node_ports}),
                json!([]),
                "172.16.55.10, 345:udp:4345, 344:tcp:4344",
            ),
        ),
        (
            "external-name",
            (
                json!({"type": "ExternalName", "clusterIP": "172.16.55.4",
                    "externalName": "foo.example", "ports": two_ports}),
                json!([]),
                "",
            ),
        ),
    ]
}

fn load_balancers() -> Vec<(&'static str, ReadService)> {
    let balancer = || {
        json!({"type": "LoadBalancer", "clusterIP": "172.16.55.11", "loadBalancerIP": "5.6.7.8",
            "ports": [{"name": "p", "port": 8675, "nodePort": 8061, "protocol": "UDP"}]})
    };
    let mut local = balancer();
    local["externalTrafficPolicy"] = json!("Local");
    local["healthCheckNodePort"] = json!(345);
    let plain = "172.16.55.11, 8675:udp:8061, balancer 10.1.2.4";
    let ingress = |mode: Option<&str>| json!([{"ip": "10.1.2.4", "ipMode": mode}]);
    vec![
        ("load-balancer", (balancer(), ingress(None), plain)),
        ("load-balancer-vip", (balancer(), ingress(Some("VIP")), plain)),
        (
            "load-balancer-proxy",
            (balancer(), ingress(Some("Proxy")), "172.16.55.11, 8675:udp:8061"),
        ),
        (
            "load-balancer-local",
            (
                local,
                json!([{"ip": "10.1.2.3"}]),
                "172.16.55.11, 8675:udp:8061, balancer 10.1.2.3, health 345",
            ),
        ),
    ]
}

/// Addresses and ranges of the family of the cluster IP are the ones that count.
fn services_of_families() -> Vec<(&'static str, ReadService)> {
    let mixed = |cluster_ip: &str, ranges: &[&str]| {
        json!({"type": "LoadBalancer", "clusterIP": cluster_ip, "ports": [{"port": 80}],
            "externalIPs": ["8.8.8.8", "2001:4860:4860::8888"],
            "loadBalancerSourceRanges": ranges})
    };
    let ingress = || json!([{"ip": "1.2.3.4"}, {"ip": "2001:db8::4"}]);
    let all = "external 8.8.8.8, external 2001:4860:4860::8888, balancer 1.2.3.4, \
               balancer 2001:db8::4";
    let line = |head: &str, tail: &str| -> &'static str {
        format!("{head}, 80:tcp, {all}, {tail}").leak()
    };
    vec![
        (
            "ipv6-cluster-ip-in-ipv4",
            (
                json!({"clusterIP": "2001::1", "ports": [{"port": 80}]}),
                json!([]),
                "2001::1, 80:tcp",
            ),
        ),
        (
            "ipv4-cluster-ip-in-ipv6",
            (
                json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}),
                json!([]),
                "10.0.0.1, 80:tcp",
            ),
        ),
        (
            "ipv4-with-all-kinds",
            (mixed("10.0.0.1", &["0.0.0.0/1"]), ingress(), line("10.0.0.1", "from 0.0.0.0/1")),
        ),
        (
            "ipv6-with-all-kinds",
            (
                mixed("2001:db8::1", &["2001:db8::/32"]),
                ingress(),
                line("2001:db8::1", "from 2001:db8::/32"),
            ),
        ),
        (
            "mixed-lists",
            (
                mixed("10.0.0.1", &["10.2.0.0/16", "2001:db8::/32"]),
                ingress(),
                line("10.0.0.1", "from 10.2.0.0/16, from 2001:db8::/32"),
            ),
        ),
        (
            "range-with-a-blank",
            (mixed("10.0.0.1", &[" 10.1.2.0/28"]), ingress(), line("10.0.0.1", "from 10.1.2.0/28")),
        ),
    ]
}

fn check_service((spec, ingress, expected): ReadService) {
    let service = read(spec, ingress);
    assert_eq!(service.as_ref().map(in_words).unwrap_or_default(), expected);
    let Some(service) = service else { return };
    programs_only_families_with_a_cluster_ip(service);
}

/// What is read of the other family is not programmed.
fn programs_only_families_with_a_cluster_ip(service: Service) {
    let families: Vec<Family> = Family::ALL
        .into_iter()
        .filter(|family| service.cluster_ips.get(*family).is_some())
        .collect();
    let update = kube_ipvs_proxy::testing::objects::applied(
        Kind::Service,
        name("ns/svc"),
        Object::Service(service),
    );
    let node = super::state::programmed(&["192.0.2.1", "2001:db8:f::1"], [update]);
    let tables = &node.kernel.tables;
    assert!(!tables.servers.is_empty());
    assert!(tables.servers.keys().all(|key| families.contains(&key.family())));
    assert!(tables.entries.iter().all(|entry| families.contains(&entry.member.family())));
}

fn ignored() -> Vec<(&'static str, (Value, bool))> {
    let of_type =
        |kind: &str| json!({"type": kind, "clusterIP": "1.2.3.4", "ports": [{"port": 1}]});
    vec![
        ("none", (json!({"clusterIP": "None", "ports": [{"port": 1}]}), true)),
        ("empty", (json!({"clusterIP": "", "ports": [{"port": 1}]}), true)),
        ("external-name", (of_type("ExternalName"), true)),
        ("cluster-ip", (of_type("ClusterIP"), false)),
        ("node-port", (of_type("NodePort"), false)),
        ("load-balancer", (of_type("LoadBalancer"), false)),
    ]
}

fn check_ignored((spec, expected): (Value, bool)) {
    assert_eq!(read(spec, json!([])).is_none(), expected);
}

/// The only cluster IP, all of them, the families, and the addresses per family.
type ClusterIps =
    (&'static str, &'static [&'static str], &'static [&'static str], [&'static str; 2]);

fn cluster_ips() -> Vec<(&'static str, ClusterIps)> {
    const V4: &str = "10.0.0.10";
    const V6: &str = "2000::1";
    vec![
        ("only-ipv4", (V4, &[], &[], [V4, ""])),
        ("only-ipv6", (V6, &[], &[], ["", V6])),
        ("single-stack-ipv4", (V4, &[V4], &["IPv4"], [V4, ""])),
        ("single-stack-ipv6", (V6, &[V6], &["IPv6"], ["", V6])),
        ("dual-stack-ipv4-first", (V4, &[V4, V6], &["IPv4", "IPv6"], [V4, V6])),
        ("dual-stack-ipv6-first", (V6, &[V6, V4], &["IPv6", "IPv4"], [V4, V6])),
    ]
}

fn check_cluster_ips((only, all, families, expected): ClusterIps) {
    let spec = json!({"clusterIP": only, "clusterIPs": all, "ipFamilies": families,
        "ports": [{"port": 80}]});
    let found = read(spec, json!([])).unwrap().cluster_ips;
    let text = |family: Family| found.get(family).map(|ip| ip.to_string()).unwrap_or_default();
    assert_eq!(Family::ALL.map(text), expected);
}

fn dual_stack(field: &str, values: Value) -> Service {
    let mut spec = json!({"type": "LoadBalancer", "clusterIPs": ["10.0.0.10", "2000::1"],
        "ipFamilies": ["IPv4", "IPv6"], "ports": [{"port": 80}]});
    spec[field] = values;
    read(spec, json!([])).unwrap()
}

fn addresses_of_both_families() {
    let mixed = json!(["1.2.3.4", "2001:db8::1", "5.6.7.8", "2001:db8::2"]);
    let service = dual_stack("externalIPs", mixed);
    let of = |family| -> Vec<String> {
        let own = service.external_ips.iter().filter(|ip| Family::of(**ip) == family);
        own.map(ToString::to_string).collect()
    };
    assert_eq!(of(Family::V4), ["1.2.3.4", "5.6.7.8"]);
    assert_eq!(of(Family::V6), ["2001:db8::1", "2001:db8::2"]);
}

fn ranges_of_both_families() {
    let mixed = json!(["1000::/64", "10.0.0.0/16", "11.0.0.0/16", "2000::/64"]);
    let service = dual_stack("loadBalancerSourceRanges", mixed);
    let of = |family| -> Vec<String> {
        let ranges = service.source_ranges.iter();
        let own = ranges.filter(|range| Family::of(range.addr()) == family);
        own.map(ToString::to_string).collect()
    };
    assert_eq!(of(Family::V4), ["10.0.0.0/16", "11.0.0.0/16"]);
    assert_eq!(of(Family::V6), ["1000::/64", "2000::/64"]);
}

fn no_ranges() {
    assert_eq!(dual_stack("loadBalancerSourceRanges", json!([])).source_ranges, []);
}

/// A Service of three ports, one per protocol; `more` adds to its spec.
fn three_ports(named: &str, cluster_ip: &str, more: Value) -> Update {
    let mut spec = json!({"clusterIP": cluster_ip, "ports": [
        {"name": "a", "port": 1234, "protocol": "UDP"},
        {"name": "b", "port": 1235},
        {"name": "c", "port": 1236, "protocol": "SCTP"},
    ]});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    applied(json!({"metadata": {"namespace": "somewhere", "name": named}, "spec": spec}))
}

fn local_balancer(named: &str, cluster_ip: &str) -> Update {
    let more = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 345});
    three_ports(named, cluster_ip, more)
}

/// How many ports there are, and which Services have health checks.
fn counts(store: &Store) -> (usize, Vec<(String, u16)>) {
    let ports = store.services().map(|(_, service)| service.ports.len()).sum();
    let checked = store
        .services()
        .filter_map(|(name, service)| Some((name.to_string(), service.health_check_port?)));
    (ports, checked.collect())
}

fn tell(store: &mut Store, updates: impl IntoIterator<Item = Update>) -> usize {
    let mut touched = Touched::default();
    for update in updates {
        touched.merge(store.apply(update));
    }
    touched.services.len()
}

fn deleted(named: &str) -> Update {
    Update::Deleted(Kind::Service, ObjectName::new("somewhere", named))
}

fn add_and_remove() {
    let mut store = Store::new(&[]);
    let added = [
        three_ports("cluster-ip", "172.16.55.4", json!({})),
        three_ports("node-port", "172.16.55.10", json!({"type": "NodePort"})),
        three_ports("load-balancer", "172.16.55.11", json!({"type": "LoadBalancer"})),
        local_balancer("only-local-load-balancer", "172.16.55.12"),
    ];
    assert_eq!(tell(&mut store, added), 4);
    let checked = vec![("somewhere/only-local-load-balancer".to_string(), 345)];
    assert_eq!(counts(&store), (12, checked));
    let one_port = json!({"ports": [{"name": "a", "port": 1234, "protocol": "UDP"}]});
    let removed = [
        three_ports("cluster-ip", "172.16.55.4", one_port),
        deleted("node-port"),
        deleted("load-balancer"),
        deleted("only-local-load-balancer"),
    ];
    assert_eq!(tell(&mut store, removed), 4);
    assert_eq!(counts(&store), (1, vec![]));
}

fn headless() {
    let mut store = Store::new(&[]);
    let updates = [
        three_ports("udp", "None", json!({"ports": [{"port": 1234, "protocol": "UDP"}]})),
        three_ports("no-port", "None", json!({"ports": []})),
        three_ports("sctp", "None", json!({"ports": [{"port": 1235, "protocol": "SCTP"}]})),
    ];
    assert_eq!(tell(&mut store, updates), 0);
    assert_eq!(counts(&store), (0, vec![]));
}

fn external_name() {
    let mut store = Store::new(&[]);
    let named = three_ports("elsewhere", "172.16.55.4", json!({"type": "ExternalName"}));
    assert_eq!(tell(&mut store, [named]), 0);
    assert_eq!(counts(&store), (0, vec![]));
}

fn update() {
    let mut store = Store::new(&[]);
    let plain = || three_ports("svc", "172.16.55.4", json!({}));
    let balancer = || local_balancer("svc", "172.16.55.4");
    let checked = vec![("somewhere/svc".to_string(), 345)];
    let steps = [(plain(), 1, vec![]), (balancer(), 1, checked.clone()), (balancer(), 0, checked)];
    for (update, touched, checks) in steps.into_iter().chain([(plain(), 1, vec![])]) {
        assert_eq!(tell(&mut store, [update]), touched);
        assert_eq!(counts(&store), (3, checks));
    }
}

/// A Service that is gone before a sync leaves nothing behind.
fn nothing_leaks() {
    let added = three_ports("svc", "172.16.55.4", json!({}));
    let mut node = super::state::programmed(&[], []);
    node.tell([added, deleted("svc")]);
    assert_eq!(node.changes(), "");
    assert_eq!(node.engine.state().0.services().count(), 0);
}
