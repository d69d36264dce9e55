//! Services of every kind, as the API server would send them.
//!
//! A Service has a shape per aspect, so that one aspect can change while all others stay.

use kube_ipvs_proxy::cluster::objects;
use kube_ipvs_proxy::cluster::{Kind, Parsed};
use kube_ipvs_proxy::testing::random::Random;
use serde_json::{Value, json};

use crate::cluster;

/// What can change by itself: the kind, addresses in the cluster, those outside it, ports, who may
/// use it, policies, the rest.
pub const ASPECTS: usize = 7;

/// What numbers make of each aspect.
pub type Shape = [u64; ASPECTS];

/// Services share few addresses and ports, so that they meet often.
const CLUSTER_IPS: [&str; 3] = ["10.96.0.1", "10.96.0.2", "10.96.0.3"];
const CLUSTER_IPS_V6: [&str; 2] = ["fd00:96::1", "fd00:96::2"];
/// The third is the host's own now and then.
const EXTERNAL_IPS: [&str; 4] = ["198.51.100.1", "198.51.100.2", "192.0.2.11", "2001:db8:100::1"];
const BALANCERS: [&str; 4] = ["203.0.113.1", "203.0.113.2", "198.51.100.1", "2001:db8:200::1"];
const PORTS: [(&str, &str, u16); 5] = [
    ("http", "TCP", 80),
    ("https", "TCP", 443),
    ("dns", "UDP", 53),
    ("dns-tcp", "TCP", 53),
    ("sig", "SCTP", 9999),
];
const RANGES: [&str; 6] =
    ["198.18.0.0/16", "198.18.0.0/24", "10.244.0.0/16", "192.0.2.0/24", "fd00:18::/32", "nobody"];

/// A shape of which all aspects are new.
pub fn shape(number: u64) -> Shape {
    let mut random = Random::new(number);
    std::array::from_fn(|_| random.number())
}

/// A Service.
pub fn service(number: usize, shape: &Shape) -> Parsed {
    let [kind, inside, outside, ports, ranges, policies, rest] = shape.map(Random::new);
    let kind = self::kind(kind);
    let mut spec = json!({
        "type": kind,
        "clusterIPs": cluster_ips(inside),
        "ports": self::ports(number, kind, ports),
    });
    let mut balancers = Value::Null;
    add(&mut spec, addresses_outside(kind, outside, &mut balancers));
    add(&mut spec, source_ranges(kind, ranges));
    add(&mut spec, self::policies(number, kind, policies));
    let object = json!({
        "metadata": metadata(number, &mut spec, rest),
        "spec": spec,
        "status": {"loadBalancer": {"ingress": balancers}},
    });
    let read = objects::read(Kind::Service, &object.to_string());
    read.expect("a Service with a name").parsed
}

fn kind(mut random: Random) -> &'static str {
    let kinds = ["ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer", "ExternalName"];
    random.pick(&kinds[..if random.clone().one_in(5) { 5 } else { 4 }]).copied().unwrap_or_default()
}

fn cluster_ips(mut random: Random) -> Vec<&'static str> {
    if random.one_in(12) {
        return vec!["None"];
    }
    let mut addresses = Vec::new();
    if !random.one_in(6) {
        addresses.extend(random.pick(&CLUSTER_IPS));
    }
    if random.one_in(2) {
        addresses.extend(random.pick(&CLUSTER_IPS_V6));
    }
    addresses
}

fn ports(number: usize, kind: &str, mut random: Random) -> Vec<Value> {
    let chosen: Vec<_> = PORTS.into_iter().filter(|_| random.one_in(2)).collect();
    let chosen = chosen.into_iter().enumerate();
    let ports = chosen.map(|(index, (name, protocol, port))| {
        // Now and then a Service asks for a node port of another.
        let owner = if random.one_in(8) { 0 } else { number };
        let has_node_port = kind != "ClusterIP" && !random.one_in(4);
        let node_port = has_node_port.then_some(30_000 + owner * 100 + index);
        json!({"name": name, "protocol": protocol, "port": port, "nodePort": node_port})
    });
    ports.collect()
}

fn addresses_outside(kind: &str, mut random: Random, balancers: &mut Value) -> Value {
    let external: Vec<_> = EXTERNAL_IPS.into_iter().filter(|_| random.one_in(4)).collect();
    let ingress = BALANCERS.into_iter().filter(|_| random.one_in(2));
    let ingress: Vec<_> = ingress.collect();
    let mode = || if random.one_in(8) { "Proxy" } else { "VIP" };
    if kind == "LoadBalancer" {
        let modes: Vec<_> = std::iter::repeat_with(mode).take(ingress.len()).collect();
        let pairs = ingress.iter().zip(modes);
        *balancers = pairs.map(|(ip, mode)| json!({"ip": ip, "ipMode": mode})).collect();
    }
    json!({"externalIPs": external})
}

fn source_ranges(kind: &str, mut random: Random) -> Value {
    if kind != "LoadBalancer" || random.one_in(3) {
        return json!({});
    }
    let ranges: Vec<_> = RANGES.into_iter().filter(|_| random.one_in(3)).collect();
    json!({"loadBalancerSourceRanges": ranges})
}

fn policies(number: usize, kind: &str, mut random: Random) -> Value {
    let mut policy = || if random.one_in(2) { "Local" } else { "Cluster" };
    let (internal, external) = (policy(), policy());
    let port = (kind == "LoadBalancer" && external == "Local").then_some(32_000 + number);
    json!({
        "internalTrafficPolicy": internal,
        "externalTrafficPolicy": external,
        "healthCheckNodePort": port,
    })
}

/// When it was made; besides, whether clients stick, whether another proxy serves it, and how they
/// are spread.
fn metadata(number: usize, spec: &mut Value, mut random: Random) -> Value {
    if random.one_in(3) {
        let timeout = 300 * (1 + random.below(2));
        let config = json!({"clientIP": {"timeoutSeconds": timeout}});
        add(spec, json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}));
    }
    let mut metadata = json!({"name": *cluster::service_name(number).name});
    if random.one_in(2) {
        let created = format!("2026-01-01T00:00:0{}Z", random.below(3));
        add(&mut metadata, json!({"creationTimestamp": created}));
    }
    if random.one_in(16) {
        let label = json!({"service.kubernetes.io/service-proxy-name": "another"});
        add(&mut metadata, json!({"labels": label}));
    }
    if random.one_in(4) {
        let annotation = json!({"ipvs.kube-ipvs-proxy.io/scheduler": "lc"});
        add(&mut metadata, json!({"annotations": annotation}));
    }
    metadata
}

fn add(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}
