//! Load balancers: their addresses, who may use them, and the ports that tell of local endpoints.

use kube_ipvs_proxy::cluster::Update;
use kube_ipvs_proxy::model::iptables::TableName::{Filter, Nat};
use kube_ipvs_proxy::testing::node::Node;
use kube_ipvs_proxy::testing::objects::{ServiceBuilder, name, service};
use serde_json::json;

use super::case::{Case, case, table};
use super::service_map::applied;
use super::state::{
    assert_in_order, members, programmed, rules, servers, service_deleted, slice, tell,
};

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("TestLoadBalancer", load_balancer),
        case("TestLoadBalancerSourceRanges", source_ranges),
        case("TestAcceptIPVSTraffic", accepted_traffic),
        case("TestOnlyLocalLoadBalancing", only_local),
        case("TestHealthCheckNodePort", health_check_ports),
        case("TestHealthCheckNodePortE2E", health_check_port_comes_changes_and_goes),
        case("Test_HealthCheckNodePortWhenTerminating", terminating_endpoints_do_not_count),
    ];
    let modes = [("proxy", (Some("Proxy"), 1)), ("vip", (Some("VIP"), 2)), ("unset", (None, 2))];
    cases.extend(table("TestLoadBalancerIngressRouteTypeProxy", modes, check_mode));
    cases
}

fn balancer() -> ServiceBuilder {
    service("ns1/svc1", &["10.20.30.41"], &["p80 tcp 80:3001"]).load_balancer_ips(&["1.2.3.4"])
}

/// The rules of the reference for a load balancer, where all its sets are filled.
const SERVICES: [&str; 6] = [
    "127.0.0.0/8 RETURN",
    "KUBE-LOAD-BALANCER KUBE-LOAD-BALANCER",
    "KUBE-CLUSTER-IP KUBE-MARK-MASQ",
    "KUBE-NODE-PORT",
    "KUBE-CLUSTER-IP ACCEPT",
    "KUBE-LOAD-BALANCER ACCEPT",
];

fn load_balancer() {
    let node = programmed(&[], [balancer().applied()]);
    assert_eq!(servers(&node), ["tcp 1.2.3.4:80 ->", "tcp 10.20.30.41:80 ->"]);
    assert_eq!(members(&node, "KUBE-LOAD-BALANCER"), "1.2.3.4,tcp:80");
    assert_in_order(&rules(&node, Nat, "KUBE-SERVICES"), &SERVICES);
    assert_in_order(&rules(&node, Nat, "KUBE-LOAD-BALANCER"), &["KUBE-MARK-MASQ"]);
}

fn source_ranges() {
    let guarded = balancer().source_ranges(&["10.0.0.0/8"]).applied();
    let node = programmed(&[], [guarded, slice("ns1/svc1", "p80 tcp 80", "10.180.0.1")]);
    let expected = ["tcp 1.2.3.4:80 -> 10.180.0.1:80", "tcp 10.20.30.41:80 -> 10.180.0.1:80"];
    assert_eq!(servers(&node), expected);
    for set in ["KUBE-LOAD-BALANCER", "KUBE-LOAD-BALANCER-FW"] {
        assert_eq!(members(&node, set), "1.2.3.4,tcp:80");
    }
    assert_eq!(members(&node, "KUBE-LOAD-BALANCER-SOURCE-CIDR"), "1.2.3.4,tcp:80,10.0.0.0/8");
    assert_eq!(members(&node, "KUBE-LOAD-BALANCER-SOURCE-IP"), "");
    assert_in_order(&rules(&node, Nat, "KUBE-SERVICES"), &SERVICES);
    let firewall = rules(&node, Filter, "KUBE-PROXY-FIREWALL");
    assert_eq!(firewall, ["KUBE-LOAD-BALANCER-FW KUBE-SOURCE-RANGES-FIREWALL"]);
    let ranges = rules(&node, Filter, "KUBE-SOURCE-RANGES-FIREWALL");
    assert_in_order(&ranges, &["KUBE-LOAD-BALANCER-SOURCE-CIDR RETURN", "DROP"]);
    assert_eq!(ranges.last().map(String::as_str), Some("DROP"));
}

fn accepted_traffic() {
    let external = service("ns1/svc1", &["1.2.3.1"], &["p80 tcp 80"]);
    let updates = [
        external.external_ips(&["5.6.7.8"]).applied(),
        service("ns1/svc2", &["1.2.3.2"], &["p80 tcp 80"])
            .load_balancer_ips(&["1.2.3.4"])
            .applied(),
        service("ns1/svc3", &["1.2.3.3"], &["p80 tcp 80:3001"]).applied(),
    ];
    let node = programmed(&[], updates);
    let expected = [
        "127.0.0.0/8 RETURN",
        "KUBE-LOAD-BALANCER KUBE-LOAD-BALANCER",
        "KUBE-CLUSTER-IP KUBE-MARK-MASQ",
        "KUBE-EXTERNAL-IP KUBE-MARK-MASQ",
        "KUBE-EXTERNAL-IP ACCEPT",
        "KUBE-NODE-PORT",
        "KUBE-CLUSTER-IP ACCEPT",
        "KUBE-LOAD-BALANCER ACCEPT",
    ];
    assert_in_order(&rules(&node, Nat, "KUBE-SERVICES"), &expected);
}

fn only_local() {
    let slice = slice("ns1/svc1", "p80 tcp 80", "10.180.0.1 local, 10.180.1.1");
    let node = programmed(&[], [balancer().external_local().applied(), slice]);
    let expected =
        ["tcp 1.2.3.4:80 -> 10.180.0.1:80", "tcp 10.20.30.41:80 -> 10.180.0.1:80 10.180.1.1:80"];
    assert_eq!(servers(&node), expected);
    for set in ["KUBE-LOAD-BALANCER", "KUBE-LOAD-BALANCER-LOCAL"] {
        assert_eq!(members(&node, set), "1.2.3.4,tcp:80");
    }
    let chain = rules(&node, Nat, "KUBE-LOAD-BALANCER");
    assert_in_order(&chain, &["KUBE-LOAD-BALANCER-LOCAL RETURN", "KUBE-MARK-MASQ"]);
}

/// A balancer of this policy, as the API has it.
fn checked(named: &str, cluster_ip: &str, policy: &str, port: u16) -> Update {
    applied(json!({
        "metadata": {"namespace": "ns1", "name": named},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": cluster_ip,
            "externalTrafficPolicy": policy,
            "healthCheckNodePort": port,
            "ports": [{"name": "p80", "port": 80, "nodePort": 3000}],
        },
    }))
}

const PORTS: &str = "KUBE-HEALTH-CHECK-NODE-PORT";

/// On one cluster IP the older Service has the front, so each has its own here.
fn health_check_ports() {
    let updates = [
        checked("a", "10.20.30.41", "Local", 30_000),
        checked("b", "10.20.30.42", "Local", 30_001),
        checked("c", "10.20.30.43", "Cluster", 30_002),
    ];
    let node = programmed(&["100.101.102.103"], updates);
    assert_eq!(members(&node, PORTS), "30000 30001");
    assert_eq!(rules(&node, Filter, "KUBE-NODE-PORT"), [format!("{PORTS} ACCEPT")]);
}

fn health_check_port_comes_changes_and_goes() {
    let mut node = programmed(&[], [checked("svc1", "10.20.30.41", "Local", 30_000)]);
    assert_eq!(members(&node, PORTS), "30000");
    tell(&mut node, [checked("svc1", "10.20.30.41", "Local", 30_001)]);
    assert_eq!(members(&node, PORTS), "30001");
    tell(&mut node, [service_deleted("ns1/svc1")]);
    assert_eq!(members(&node, PORTS), "");
}

fn terminating_endpoints_do_not_count() {
    let ready = "10.0.1.1 local, 10.0.1.2 local, 10.0.1.3, 10.0.1.4";
    let leaving = "10.0.1.1 local leaving, 10.0.1.2 local dead, 10.0.1.3 leaving, 10.0.1.4 unready";
    let check = |endpoints| slice("ns1/svc1", "p80 tcp 80", endpoints);
    let mut node = programmed(&[], [balancer().health_check_port(30_000).applied(), check(ready)]);
    assert_eq!(local_endpoints(&node), 2);
    tell(&mut node, [check(leaving)]);
    assert_eq!(local_endpoints(&node), 0);
}

fn local_endpoints(node: &Node) -> usize {
    let (desired, _) = node.engine.state();
    desired.health_checks()[&name("ns1/svc1")].local_endpoints
}

fn check_mode((mode, expected): (Option<&'static str>, usize)) {
    let web = applied(json!({
        "metadata": {"namespace": "ns1", "name": "svc1"},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.20.30.41",
            "ports": [{"name": "p80", "port": 80, "nodePort": 3001}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4", "ipMode": mode}]}},
    }));
    assert_eq!(servers(&programmed(&[], [web])).len(), expected);
}
