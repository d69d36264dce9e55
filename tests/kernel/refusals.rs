//! What no Service serves is refused at once, by rule, never left to time out or to the host.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Instant;

use libtest_mimic::Trial;

use crate::client;
use crate::cluster::{self, Manifests, SOON, Service, service_address};
use crate::namespace::Namespace;
use crate::pod_server::PodServer;
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        refusals_of_what_is_not_served,
        refusals_after_deletion,
        refusals_without_endpoints,
    ]
}

fn refusals_of_what_is_not_served() {
    let world = quiet_world();
    let pod = world.pod("pod", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let manifests = Manifests::new();
    let pods = [&pod];
    manifests.put("web.yaml", &Service::new("web", 128, &pods).manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);
    // A process of the host on every address of the host, service addresses included.
    let _host = [Transport::Tcp, Transport::Udp]
        .map(|transport| PodServer::start(&world.node, "host", transport, 2222));

    for family in Family::BOTH {
        let unused_port = SocketAddr::new(service_address(family, 128), 2222);
        let unallocated = SocketAddr::new(service_address(family, 200), 80);
        for (who, from) in [("pod", &client.namespace), ("node", &world.node)] {
            for to in [unused_port, unallocated] {
                for transport in [Transport::Tcp, Transport::Udp] {
                    assert_refused(who, from, transport, to);
                }
            }
        }
    }
}

fn refusals_after_deletion() {
    let world = quiet_world();
    let pod = world.pod("pod", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let _server = pod.serve(Transport::Tcp, cluster::POD_PORT);
    let manifests = Manifests::new();
    let pods = [&pod];
    let service = Service::new("web", 128, &pods);
    manifests.put("web.yaml", &service.manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);
    for family in Family::BOTH {
        client::connect_tcp(&client.namespace, service.front(family)).unwrap();
    }
    manifests.remove("web.yaml");
    for family in Family::BOTH {
        for (who, from) in [("pod", &client.namespace), ("node", &world.node)] {
            wait::until("the Service's end", SOON, || {
                client::connect_tcp(from, service.front(family)).is_err()
            });
            assert_refused(who, from, Transport::Tcp, service.front(family));
        }
    }
}

fn refusals_without_endpoints() {
    let world = quiet_world();
    let pod = world.pod("pod", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let _server = pod.serve(Transport::Tcp, cluster::POD_PORT);
    let manifests = Manifests::new();
    let pods = [&pod];
    let served = Service::new("web", 128, &pods);
    let empty = Service { pods: &[], ..served.clone() };
    manifests.put("web.yaml", &empty.manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);
    for family in Family::BOTH {
        let front = served.front(family);
        for (who, from) in [("pod", &client.namespace), ("node", &world.node)] {
            assert_refused(who, from, Transport::Tcp, front);
        }
    }
    manifests.put("web.yaml", &served.manifest());
    for family in Family::BOTH {
        let front = served.front(family);
        wait::until("service", SOON, || client::connect_tcp(&client.namespace, front).is_ok());
    }
    manifests.put("web.yaml", &empty.manifest());
    for family in Family::BOTH {
        let front = served.front(family);
        wait::until("refusal", SOON, || client::connect_tcp(&client.namespace, front).is_err());
        for (who, from) in [("pod", &client.namespace), ("node", &world.node)] {
            assert_refused(who, from, Transport::Tcp, front);
        }
    }
}

/// A world whose kernels answer every refused packet; they would leave out most.
fn quiet_world() -> World {
    let world = World::new();
    for path in ["net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"] {
        world.node.sysctl(path, "0");
    }
    world
}

fn assert_refused(who: &str, from: &Namespace, transport: Transport, to: SocketAddr) {
    let start = Instant::now();
    let error = client::ask(from, transport, to).expect_err("nothing is served there");
    let took = start.elapsed();
    // A refusal in the sender's own output hook is a lack of permission to a UDP socket.
    let kinds = [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied];
    assert!(kinds.contains(&error.kind()), "{who} {transport:?} {to}: {error} after {took:?}");
}
