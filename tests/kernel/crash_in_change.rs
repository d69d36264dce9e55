//! A daemon that is killed while Services change fails no request of fronts that stay, and the next
//! one finishes its work.

use std::fs;
use std::time::Duration;

use kube_ipvs_proxy::testing::random::Random;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::{self, AddressKind, Manifests, POD_PORT, PORT, SERVICE_RANGES, SOON, Service};
use crate::crash;
use crate::daemon::Daemon;
use crate::dump;
use crate::load::{Amount, Load, Tally};
use crate::namespace::Namespace;
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, Pod, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![crash_during_a_change_fails_no_request_and_is_made_good]
}

/// Each has every kind of address in both families; all change at once.
const SERVICES: u8 = 4;

/// Times that it is killed, spread over the changes.
const KILLS: usize = 4;

/// Few and with pauses, as they slow down the rest.
const CLIENTS: Amount = Amount {
    clients: 1,
    patience: Duration::from_secs(3),
    pause: Duration::from_millis(50),
    ..Amount::at_most(Duration::from_secs(120))
};

/// Services as they are before the change or after it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Open,
    /// Endpoints of this node only, not for everybody, and at other external addresses and ports.
    Guarded,
}

fn crash_during_a_change_fails_no_request_and_is_made_good() {
    let world = World::new();
    world.route_from_outside(&SERVICE_RANGES);
    let pods = [world.pod("near", Place::Node, 3), world.pod("far", Place::Outside, 2)];
    let client = world.pod("client", Place::Node, 9);
    let _servers = pods.each_ref().map(|pod| pod.serve(Transport::Tcp, POD_PORT));
    let manifests = Manifests::new();
    // Each start makes a change without being disturbed.
    let [_, (guarded, changes), (open, _)] =
        [Shape::Open, Shape::Guarded, Shape::Open].map(|shape| {
            put(&manifests, &pods, shape);
            let daemon = cluster::start(&world, &manifests, &[]);
            (settled(&world), written(&daemon))
        });
    let mut daemon = cluster::start(&world, &manifests, &[]);
    let clients = [&world.outside, &world.node, &client.namespace];
    let loads = loads(clients);
    let before = clients.map(retries);
    let mut random = Random::new(u64::from(std::process::id()));
    let mut halfway = 0;
    for kill in 0..KILLS {
        let (shape, expected) = match kill % 2 {
            0 => (Shape::Guarded, &guarded),
            _ => (Shape::Open, &open),
        };
        let rows = (kill * changes + random.below(changes)) / KILLS;
        let when = format!("killed after {rows} of {changes} changes on the way to {shape:?}");
        kill_after(rows, daemon, || put(&manifests, &pods, shape));
        crash::assert_safe(&world, &when);
        halfway += usize::from(settled(&world) != *expected);
        daemon = cluster::launch(&world, &manifests, &[]);
        // Asking whether it is ready would be counted: where nobody listens yet, the kernel
        // sometimes asks twice.
        daemon.wait_for_log("synced sync=1", SOON);
        dump::assert_same(&settled(&world), expected, &when);
    }
    for (name, load) in loads {
        load.wait_for_answers(1);
        let Tally { failures, .. } = load.stop();
        assert!(failures.is_empty(), "{name}: {failures:?}");
    }
    assert_eq!(clients.map(retries), before, "requests had to be sent again");
    assert!(halfway > KILLS / 2, "only {halfway} kills came before the change was made");
}

fn put(manifests: &Manifests, pods: &[Pod; 2], shape: Shape) {
    let objects = (1..=SERVICES).flat_map(|number| objects(number, pods, shape));
    let objects: Vec<String> = objects.map(|object| object.to_string()).collect();
    // JSON is read much faster than YAML, which counts in an emulated machine.
    manifests.put("services.json", &objects.join("\n"));
}

/// A Service and its slices. Node ports of every second one stay, so that clients can use them.
fn objects(number: u8, pods: &[Pod; 2], shape: Shape) -> Vec<Value> {
    let name = format!("web-{number}");
    let is_open = shape == Shape::Open;
    let service = Service::new(&name, number, &[]);
    let addresses = |service: &Service<'_>, kind| {
        Family::BOTH.map(|family| service.front_of(kind, family).ip())
    };
    let other = Service { number: number + if is_open { 0 } else { 100 }, ..service.clone() };
    let node_port =
        30_000 + u16::from(if number.is_multiple_of(2) { other.number } else { number });
    let ranges = Family::BOTH.map(World::outside_address);
    let ranges = match shape {
        Shape::Open => vec![],
        Shape::Guarded => {
            ranges.map(|ip| format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })).to_vec()
        }
    };
    let balancers = addresses(&service, AddressKind::LoadBalancer);
    let inner = addresses(&service, AddressKind::ClusterIp);
    let spec = json!({
        "type": "LoadBalancer", "clusterIP": inner[0], "clusterIPs": inner,
        "externalIPs": addresses(&other, AddressKind::ExternalIp),
        "externalTrafficPolicy": if is_open { "Cluster" } else { "Local" },
        "healthCheckNodePort": (!is_open).then(|| service.health_port()),
        "loadBalancerSourceRanges": ranges,
        "ports": [{"port": PORT, "nodePort": node_port}],
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec,
        "status": {"loadBalancer": {"ingress": balancers.map(|ip| json!({"ip": ip}))}},
    });
    let slices = Family::BOTH.map(|family| slice(&name, pods, family));
    [service].into_iter().chain(slices).collect()
}

fn slice(service: &str, pods: &[Pod; 2], family: Family) -> Value {
    let endpoint = |pod: &Pod| json!({"addresses": [pod.address(family)], "nodeName": pod.node});
    let kind = if matches!(family, Family::Ipv4) { "IPv4" } else { "IPv6" };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": kind,
        "metadata": {
            "name": format!("{service}-{kind}").to_lowercase(),
            "labels": {"kubernetes.io/service-name": service},
        },
        "ports": [{"name": "", "port": POD_PORT}],
        "endpoints": pods.each_ref().map(endpoint),
    })
}

/// Clients from everywhere, at fronts that they may use before the change and after it.
fn loads([outside, node, pod]: [&Namespace; 3]) -> Vec<(String, Load)> {
    let clients = [
        ("outside", outside, 1, AddressKind::NodePort, Family::Ipv4),
        ("outside", outside, 2, AddressKind::LoadBalancer, Family::Ipv6),
        ("outside", outside, SERVICES, AddressKind::LoadBalancer, Family::Ipv4),
        ("node", node, 3, AddressKind::ClusterIp, Family::Ipv6),
        ("pod", pod, SERVICES, AddressKind::ClusterIp, Family::Ipv4),
    ];
    let start = |(name, from, number, kind, family)| {
        let front = Service::new("", number, &[]).front_of(kind, family);
        let load = Load::start(from, Transport::Tcp, front, CLIENTS);
        load.wait_for_answers(1);
        (format!("{name} to {front}"), load)
    };
    clients.map(start).into()
}

/// Kills the daemon as soon as it has written so many rows of the change.
fn kill_after(rows: usize, daemon: Daemon, change: impl FnOnce()) {
    let wanted = written(&daemon) + rows.max(1);
    change();
    wait::until(&format!("{rows} changes"), SOON, || written(&daemon) >= wanted);
    daemon.kill();
}

/// Rows that the daemon has changed, by its log.
fn written(daemon: &Daemon) -> usize {
    daemon.log().matches(": changed kind=").count()
}

/// Everything but real servers that are draining: how long that takes depends on the clients.
fn settled(world: &World) -> String {
    let everything = dump::everything(&world.node);
    let lines = everything.lines().filter(|line| !line.ends_with(" -w 0"));
    lines.collect::<Vec<_>>().join("\n")
}

/// How often connecting took more than one attempt, since nothing came back.
fn retries(namespace: &Namespace) -> u64 {
    let path = "/proc/thread-self/net/netstat";
    let text = namespace.run(|| fs::read_to_string(path)).expect("counters");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut counters = names.split_whitespace().zip(values.split_whitespace());
    let counter = counters.find(|(name, _)| *name == "TCPSynRetrans").expect("the counter");
    counter.1.parse().expect("a number")
}
