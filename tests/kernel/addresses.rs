//! All kinds of service addresses: who answers whom, and whom the pod sees.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use libtest_mimic::Trial;

use crate::client;
use crate::cluster::{self, Manifests, NODE, POD_PORT, SOON};
use crate::namespace::Namespace;
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, Pod, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        addresses_of_every_kind_with_cluster_policy,
        addresses_with_local_policy_and_a_local_endpoint,
        addresses_with_local_policy_and_none,
        addresses_with_source_ranges,
        addresses_of_the_node_are_followed,
    ]
}

const CLUSTER_IP: &str = "10.254.10.7";
const EXTERNAL_IP: &str = "198.51.100.7";
const LOAD_BALANCER_IP: &str = "203.0.113.7";
const NODE_PORT: u16 = 30080;

/// A Service with all kinds of addresses and one endpoint.
struct Everywhere<'a> {
    pod: &'a Pod,
    policy: &'static str,
    source_ranges: &'static str,
}

impl Everywhere<'_> {
    fn manifest(&self) -> String {
        let Self { pod, policy, source_ranges } = self;
        let node = if pod.ipv4.octets()[2] == 1 { NODE } else { "elsewhere" };
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: everywhere}}\nspec:\n  \
             type: LoadBalancer\n  clusterIP: {CLUSTER_IP}\n  externalIPs: [{EXTERNAL_IP}]\n  \
             externalTrafficPolicy: {policy}\n  healthCheckNodePort: 31000\n  \
             loadBalancerSourceRanges: [{source_ranges}]\n  \
             ports: [{{port: 80, nodePort: {NODE_PORT}}}]\n\
             status: {{loadBalancer: {{ingress: [{{ip: {LOAD_BALANCER_IP}}}]}}}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
             name: everywhere-1\n  labels: {{kubernetes.io/service-name: everywhere}}\n\
             addressType: IPv4\nports: [{{port: {POD_PORT}}}]\n\
             endpoints: [{{addresses: [{}], nodeName: {node}}}]\n",
            pod.ipv4
        )
    }
}

/// The addresses of the Service but for the cluster IP.
fn outer_fronts() -> [(&'static str, SocketAddr); 3] {
    let node = World::node_address(Family::Ipv4);
    [
        ("external IP", SocketAddr::new(EXTERNAL_IP.parse().unwrap(), 80)),
        ("load balancer", SocketAddr::new(LOAD_BALANCER_IP.parse().unwrap(), 80)),
        ("node port", SocketAddr::new(node, NODE_PORT)),
    ]
}

/// Clients on three sides, with routes for the outside one.
fn world_with_client() -> (World, Pod) {
    let world = World::new();
    let client = world.pod("client", Place::Node, 9);
    let node = World::node_address(Family::Ipv4);
    for address in [EXTERNAL_IP, LOAD_BALANCER_IP] {
        world.outside.ip(&format!("route add {address} via {node}"));
    }
    (world, client)
}

fn start(world: &World, service: &Everywhere<'_>) -> (Manifests, crate::daemon::Daemon) {
    let manifests = Manifests::new();
    manifests.put("service.yaml", &service.manifest());
    let daemon = cluster::start(world, &manifests, &[]);
    (manifests, daemon)
}

fn source(from: &Namespace, who: &str, kind: &str, to: SocketAddr) -> IpAddr {
    let answer = client::connect_tcp(from, to);
    answer.unwrap_or_else(|error| panic!("{who} to {kind} {to}: {error}")).source()
}

fn addresses_of_every_kind_with_cluster_policy() {
    let (world, client) = world_with_client();
    let pod = world.pod("pod", Place::Node, 3);
    let _server = pod.serve(Transport::Tcp, POD_PORT);
    let service = Everywhere { pod: &pod, policy: "Cluster", source_ranges: "" };
    let _running = start(&world, &service);
    let node = World::node_address(Family::Ipv4);
    for (kind, to) in outer_fronts() {
        for (who, from) in
            [("pod", &client.namespace), ("node", &world.node), ("outside", &world.outside)]
        {
            assert_eq!(source(from, who, kind, to), node, "{who} to {kind}");
        }
        assert_eq!(source(&pod.namespace, "the endpoint", kind, to), node, "{kind}");
    }
}

/// Clients from outside keep their address.
fn addresses_with_local_policy_and_a_local_endpoint() {
    let (world, client) = world_with_client();
    let pod = world.pod("pod", Place::Node, 3);
    let _server = pod.serve(Transport::Tcp, POD_PORT);
    let service = Everywhere { pod: &pod, policy: "Local", source_ranges: "" };
    let _running = start(&world, &service);
    let outside = IpAddr::from([192, 0, 2, 2]);
    for (kind, to) in outer_fronts() {
        assert_eq!(source(&world.outside, "outside", kind, to), outside, "{kind}");
        assert_eq!(source(&client.namespace, "pod", kind, to), client.address(Family::Ipv4));
        source(&world.node, "node", kind, to);
    }
    assert_eq!(health_check(&world, LOAD_BALANCER_IP), Some((200, "1".into())));
}

/// Status and weight that a load balancer outside is told.
fn health_check(world: &World, address: &str) -> Option<(u16, String)> {
    let url = format!("http://{address}:31000/");
    let format = "%{http_code} %header{x-load-balancing-endpoint-weight}";
    let arguments = ["--silent", "--max-time", "2", "--output", "/dev/null", "--write-out", format];
    let answer = world.outside.run(|| {
        std::process::Command::new("curl").args(arguments).arg(&url).output().expect("curl")
    });
    let text = String::from_utf8(answer.stdout).expect("text");
    let (code, weight) = text.split_once(' ')?;
    Some((code.parse().ok()?, weight.to_string()))
}

/// Clients in the cluster, the node's processes among them, go to the endpoints of other nodes;
/// clients from outside are dropped.
fn addresses_with_local_policy_and_none() {
    let (world, client) = world_with_client();
    let pod = world.pod("pod", Place::Outside, 3);
    let _server = pod.serve(Transport::Tcp, POD_PORT);
    let service = Everywhere { pod: &pod, policy: "Local", source_ranges: "" };
    let _running = start(&world, &service);
    for (kind, to) in outer_fronts() {
        source(&client.namespace, "pod", kind, to);
        source(&world.node, "node", kind, to);
        let error = client::connect_tcp(&world.outside, to).expect_err(kind);
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{kind}: {error}");
    }
    let node = World::node_address(Family::Ipv4).to_string();
    assert_eq!(health_check(&world, &node), Some((503, "0".into())));
}

fn addresses_with_source_ranges() {
    let (world, _client) = world_with_client();
    let pod = world.pod("pod", Place::Node, 3);
    let _server = pod.serve(Transport::Tcp, POD_PORT);
    let [_, (kind, to), _] = outer_fronts();
    let service = |source_ranges| Everywhere { pod: &pod, policy: "Cluster", source_ranges };
    let (manifests, _daemon) = start(&world, &service("192.0.2.0/24"));
    source(&world.outside, "outside", kind, to);
    source(&world.node, "node", kind, to);

    manifests.put("service.yaml", &service("198.18.0.0/15").manifest());
    wait::until("the range to keep others out", SOON, || {
        client::connect_tcp(&world.outside, to).is_err()
    });
    let error = client::connect_tcp(&world.outside, to).expect_err("out of range");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "dropped");
    client::connect_tcp(&world.node, to).expect_err("the node is out of range, too");
    let cluster_ip = SocketAddr::new(CLUSTER_IP.parse().unwrap(), 80);
    source(&world.node, "node", "cluster IP", cluster_ip);
}

/// A floating address serves node ports as long as the node has it.
fn addresses_of_the_node_are_followed() {
    let (world, _client) = world_with_client();
    let pod = world.pod("pod", Place::Node, 3);
    let _server = pod.serve(Transport::Tcp, POD_PORT);
    let service = Everywhere { pod: &pod, policy: "Cluster", source_ranges: "" };
    let _running = start(&world, &service);
    let floating: SocketAddr = format!("192.0.2.77:{NODE_PORT}").parse().unwrap();
    let answers = || client::connect_tcp(&world.outside, floating).is_ok();
    assert!(!answers());
    world.node.ip("address add 192.0.2.77/24 dev eth0");
    wait::until("the node port on the new address", SOON, answers);
    world.node.ip("address del 192.0.2.77/24 dev eth0");
    wait::until("its end", SOON, || !crate::dump::servers(&world.node).contains("192.0.2.77"));
}
