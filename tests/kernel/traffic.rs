//! Who answers whom through a cluster IP, and whom the pod sees.

use libtest_mimic::Trial;

use crate::client;
use crate::cluster::{self, Manifests, SOON, Service};
use crate::dump;
use crate::load::{self, Amount};
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        traffic_every_transport_family_and_client,
        traffic_is_spread_evenly,
        traffic_of_all_is_masqueraded_on_request,
    ]
}

/// Expected sources are those of spec 5.5: a pod is seen as itself, all others as the node.
fn traffic_every_transport_family_and_client() {
    let world = World::new();
    let server = world.pod("server", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let far_client = world.pod("far-client", Place::Outside, 9);
    let _servers = Transport::ALL.map(|transport| server.serve(transport, cluster::POD_PORT));
    let pods = [&server];
    let service = Service { transports: &Transport::ALL, ..Service::new("web", 128, &pods) };
    let manifests = Manifests::new();
    manifests.put("web.yaml", &service.manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);

    for family in Family::BOTH {
        let node = World::node_address(family);
        for transport in Transport::ALL {
            for (who, from, source) in [
                ("a pod of this node", &client.namespace, client.address(family)),
                ("the node itself", &world.node, node),
                ("the pod behind the Service", &server.namespace, node),
            ] {
                let answer = client::ask(from, transport, service.front(family));
                let answer = answer
                    .unwrap_or_else(|error| panic!("{who} {transport:?} {family:?}: {error}"));
                assert_eq!(answer.pod, "server", "{who} {transport:?} {family:?}");
                assert_eq!(answer.source(), source, "{who} {transport:?} {family:?}");
            }
        }
    }
    // From other nodes a service address is reached only where a route leads here.
    for family in Family::BOTH {
        let (address, node) = (service.front(family).ip(), World::node_address(family));
        world.outside.ip(&format!("route add {address} via {node}"));
        let answer = client::connect_tcp(&far_client.namespace, service.front(family)).unwrap();
        assert_eq!(
            answer.source(),
            far_client.address(family),
            "a pod of another node, {family:?}"
        );
        let answer = client::connect_tcp(&world.outside, service.front(family)).unwrap();
        assert_eq!(answer.source(), node, "a host outside, {family:?}");
    }
    assert_eq!(dump::servers(&world.node).lines().filter(|line| line.starts_with("-A")).count(), 6);
}

fn traffic_is_spread_evenly() {
    let world = World::new();
    let near = world.pod("near", Place::Node, 3);
    let far = world.pod("far", Place::Outside, 2);
    let client = world.pod("client", Place::Node, 9);
    let _servers = [&near, &far].map(|pod| pod.serve(Transport::Tcp, cluster::POD_PORT));
    let manifests = Manifests::new();
    let pods = [&near, &far];
    let service = Service::new("web", 128, &pods);
    manifests.put("web.yaml", &service.manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);
    for family in Family::BOTH {
        let front = service.front(family);
        let tally = load::run(&client.namespace, Transport::Tcp, front, Amount::requests(200));
        assert_eq!(tally.failures, Vec::<String>::new(), "{family:?}");
        assert!((0.48..=0.52).contains(&tally.share("near")), "{family:?} {tally:?}");
    }
}

fn traffic_of_all_is_masqueraded_on_request() {
    let world = World::new();
    let server = world.pod("server", Place::Outside, 2);
    let client = world.pod("client", Place::Node, 9);
    let _server = server.serve(Transport::Tcp, cluster::POD_PORT);
    let manifests = Manifests::new();
    let pods = [&server];
    let service = Service::new("web", 128, &pods);
    manifests.put("web.yaml", &service.manifest());
    let daemon = cluster::start(&world, &manifests, &[]);
    let source =
        || client::connect_tcp(&client.namespace, service.front(Family::Ipv4)).unwrap().source();
    assert_eq!(source(), client.address(Family::Ipv4));

    daemon.terminate();
    let _daemon = cluster::start(&world, &manifests, &["--masquerade-all"]);
    wait::until("masquerade of pods", SOON, || source() == World::node_address(Family::Ipv4));
}
