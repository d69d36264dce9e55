//! Service addresses bound by routes: what they look like, and the way there and back.

use std::net::SocketAddr;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::client::{self, Conversation};
use crate::cluster::{self, Manifests, NODE, POD_PORT, SOON, Service};
use crate::dump;
use crate::load::{Amount, Load};
use crate::namespace::Namespace;
use crate::pod_server::PodServer;
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, Pod, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        binding_is_changed_under_load,
        binding_by_route_is_not_listed_and_cleaned_up,
        binding_by_route_follows_the_address_of_the_node,
        binding_by_route_leaves_routes_of_others,
        binding_by_route_gives_processes_the_address_of_the_node,
    ]
}

const BY_ADDRESS: &str = "--vip-binding=address";
const BY_ROUTE: &str = "--vip-binding=route";

const LONG: Amount = Amount { clients: 1, ..Amount::at_most(Duration::from_secs(120)) };

/// A Service with an endpoint on the node and one elsewhere, and who asks for it.
struct Stage {
    world: World,
    pods: [Pod; 2],
    client: Pod,
    manifests: Manifests,
    _servers: [PodServer; 2],
}

impl Stage {
    fn new() -> Self {
        let world = World::new();
        let pods = [world.pod("near", Place::Node, 3), world.pod("far", Place::Outside, 2)];
        let client = world.pod("client", Place::Node, 9);
        let servers = pods.each_ref().map(|pod| pod.serve(Transport::Tcp, POD_PORT));
        let stage = Self { world, pods, client, manifests: Manifests::new(), _servers: servers };
        stage.manifests.put("web.yaml", &stage.service_manifest());
        stage
    }

    fn service_manifest(&self) -> String {
        let [near, far] = &self.pods;
        Service::new("web", 128, &[near, far]).manifest()
    }

    fn front(&self, family: Family) -> SocketAddr {
        Service::new("web", 128, &[]).front(family)
    }

    /// Whoever asks, in a pod and on the node, with what it asks, in both families.
    fn askers(&self) -> Vec<(&Namespace, SocketAddr)> {
        let from = [&self.client.namespace, &self.world.node];
        let of_family = |family| from.map(|from| (from, self.front(family)));
        Family::BOTH.into_iter().flat_map(of_family).collect()
    }

    fn routes(&self) -> Vec<String> {
        dump::routes(&self.world.node)
    }

    fn is_on_device(&self) -> bool {
        let node = &self.world.node;
        node.output("ip", &["address", "show", "dev", "kube-ipvs0"]).contains("inet")
    }
}

/// Connections go on, and none fails to begin, through restarts with the other flag.
fn binding_is_changed_under_load() {
    let stage = Stage::new();
    let mut daemon = cluster::start(&stage.world, &stage.manifests, &[BY_ADDRESS]);
    let askers = stage.askers();
    let load =
        |(from, front): &(&Namespace, SocketAddr)| Load::start(from, Transport::Tcp, *front, LONG);
    let loads: Vec<Load> = askers.iter().map(load).collect();
    let mut conversations = Vec::new();
    for way in [BY_ROUTE, BY_ADDRESS, BY_ROUTE] {
        let open = |(from, front): &(&Namespace, SocketAddr)| {
            Conversation::open(from, Transport::Tcp, *front).unwrap()
        };
        conversations.extend(askers.iter().map(open));
        assert!(daemon.terminate().success());
        daemon = cluster::start(&stage.world, &stage.manifests, &[way]);
        let is_by_route = way == BY_ROUTE;
        assert_eq!(stage.is_on_device(), !is_by_route, "{way}");
        assert_eq!(stage.routes().len(), if is_by_route { 2 } else { 0 }, "{way}");
        loads.iter().for_each(|load| load.wait_for_answers(20));
        for conversation in &mut conversations {
            conversation.ask().unwrap_or_else(|error| panic!("{way}: {error}"));
        }
    }
    for load in loads {
        assert_eq!(load.stop().failures, Vec::<String>::new());
    }
}

fn binding_by_route_is_not_listed_and_cleaned_up() {
    let stage = Stage::new();
    let daemon = cluster::start(&stage.world, &stage.manifests, &[BY_ROUTE]);
    assert!(!stage.is_on_device());
    let [v4, v6] = Family::BOTH.map(|family| stage.front(family).ip());
    let [node_v4, node_v6] = Family::BOTH.map(World::node_address);
    let expected = [
        format!("local {v4} dev lo scope host src {node_v4} metric 73"),
        format!("local {v6} dev lo src {node_v6} metric 73 pref medium"),
    ];
    assert_eq!(stage.routes(), expected);
    stage.manifests.remove("web.yaml");
    wait::until("the routes' end", SOON, || stage.routes().is_empty());
    stage.manifests.put("web.yaml", &stage.service_manifest());
    wait::until("the routes", SOON, || stage.routes() == expected);
    assert!(daemon.terminate().success());
    assert_eq!(stage.routes(), expected);
    cluster::clean_up(&stage.world);
    assert_eq!(stage.routes(), Vec::<String>::new());
}

fn binding_by_route_follows_the_address_of_the_node() {
    let stage = Stage::new();
    let node = &stage.world.node;
    let _daemon = cluster::start(&stage.world, &stage.manifests, &[BY_ROUTE]);
    let load = Load::start(node, Transport::Tcp, stage.front(Family::Ipv4), LONG);
    load.wait_for_answers(10);
    let sources = || {
        let source = |route: &String| {
            route.split_once(" src ").and_then(|(_, rest)| rest.split(' ').next()).map(String::from)
        };
        stage.routes().iter().map(source).collect::<Vec<_>>()
    };
    let [old, new] = [
        Family::BOTH.map(|family| World::node_address(family).to_string()),
        ["192.0.2.77".to_owned(), "2001:db8::77".to_owned()],
    ];
    let [gain, lose] = ["add", "del"].map(|what| {
        let [v4, v6] = &new;
        format!("address {what} {v4}/24 dev eth0\naddress {what} {v6}/64 dev eth0")
    });
    assert_eq!(sources(), old.clone().map(Some));
    node.ip(&gain);
    stage.manifests.put("nodes.yaml", &cluster::node_manifest(NODE, &new));
    wait::until("the new source", SOON, || sources() == new.clone().map(Some));
    load.wait_for_answers(10);
    stage.manifests.put("nodes.yaml", &cluster::node_manifest(NODE, &old));
    wait::until("the old source", SOON, || sources() == old.clone().map(Some));
    load.wait_for_answers(10);
    node.ip(&lose);
    load.wait_for_answers(10);
    assert_eq!(load.stop().failures, Vec::<String>::new());

    // The cluster still knows the node by addresses that the host loses now.
    node.ip(&gain);
    stage.manifests.put("nodes.yaml", &cluster::node_manifest(NODE, &new));
    wait::until("the new source again", SOON, || sources() == new.clone().map(Some));
    node.ip(&lose);
    wait::until("no source", SOON, || sources() == [None, None]);
    for family in Family::BOTH {
        client::connect_tcp(node, stage.front(family)).unwrap();
    }
}

/// Neither those of other protocols, nor those to addresses that are not on record.
fn binding_by_route_leaves_routes_of_others() {
    let stage = Stage::new();
    let node = &stage.world.node;
    let front = stage.front(Family::Ipv4).ip();
    node.ip(&format!(
        "link set lo up\n\
         route add local {front}/32 dev lo table local proto 98 metric 99\n\
         route add local 198.18.7.7/32 dev lo table local proto 73 metric 73\n\
         route add local 198.18.7.8/32 dev lo table local proto 98 metric 73"
    ));
    let foreign = || {
        let table = node.output("ip", &["-4", "route", "show", "table", "local"]);
        let is_foreign = |line: &&str| line.contains(" 198.18.7.") || line.contains("proto 98");
        table.lines().filter(is_foreign).map(String::from).collect::<Vec<_>>()
    };
    let before = foreign();
    assert_eq!(before.len(), 3);
    let daemon = cluster::start(&stage.world, &stage.manifests, &[BY_ROUTE]);
    assert_eq!(foreign(), before);
    assert!(daemon.terminate().success());
    cluster::clean_up(&stage.world);
    assert_eq!(foreign(), before);
}

/// Without masquerade, so that an endpoint on the same node sees it, too.
fn binding_by_route_gives_processes_the_address_of_the_node() {
    let stage = Stage::new();
    let near = &stage.pods[0];
    stage.manifests.put("web.yaml", &Service::new("web", 128, &[near]).manifest());
    let _daemon = cluster::start(&stage.world, &stage.manifests, &[BY_ROUTE]);
    let node = &stage.world.node;
    for family in Family::BOTH {
        let front = stage.front(family);
        let local = node.run(|| std::net::TcpStream::connect(front).unwrap().local_addr().unwrap());
        assert_eq!(local.ip(), World::node_address(family), "{family:?}");
        let answer = client::connect_tcp(node, front).unwrap();
        assert_eq!(answer.source(), World::node_address(family), "{family:?}");
    }
}
