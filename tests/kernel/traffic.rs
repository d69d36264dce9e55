//! How connections are spread, and whom the pod sees, where the truth table does not tell.

use libtest_mimic::Trial;

use crate::client;
use crate::cluster::{self, Manifests, SOON, Service};
use crate::load::{self, Amount};
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, World};

pub fn tests() -> Vec<Trial> {
    let mut trials = crate::trials![
        traffic_of_a_pod_elsewhere_keeps_its_source,
        traffic_is_spread_evenly,
        traffic_of_all_is_masqueraded_on_request,
    ];
    trials.extend(crate::trials_by_route![
        traffic_of_a_pod_elsewhere_keeps_its_source,
        traffic_is_spread_evenly,
        traffic_of_all_is_masqueraded_on_request,
    ]);
    trials
}

/// From other nodes a service address is reached only where a route leads here.
fn traffic_of_a_pod_elsewhere_keeps_its_source() {
    let world = World::new();
    world.route_from_outside(&cluster::SERVICE_RANGES);
    let server = world.pod("server", Place::Node, 3);
    let client = world.pod("client", Place::Outside, 9);
    let _server = server.serve(Transport::Tcp, cluster::POD_PORT);
    let pods = [&server];
    let service = Service::new("web", 128, &pods);
    let manifests = Manifests::new();
    manifests.put("web.yaml", &service.manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);
    for family in Family::BOTH {
        let answer = client::connect_tcp(&client.namespace, service.front(family)).unwrap();
        assert_eq!(answer.source(), client.address(family), "{family:?}");
    }
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
