//! What no Service serves is refused at once, by rule, never left to time out or to the host.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Instant;

use libtest_mimic::Trial;

use crate::client;
use crate::cluster::{
    self, AddressKind, Manifests, SERVICE_RANGES, SOON, Service, service_address,
};
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
        refusals_by_source_range_whatever_address_the_node_uses,
        refusals_of_pings,
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
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 2222));
    let _host = [Transport::Tcp, Transport::Udp]
        .map(|transport| PodServer::start(&world.node, "host", transport, &[everywhere]));

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

/// A service address answers to its ports alone; the node's own addresses answer as ever.
fn refusals_of_pings() {
    let world = quiet_world();
    world.route_from_outside(&SERVICE_RANGES);
    let pod = world.pod("pod", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let manifests = Manifests::new();
    let pods = [&pod];
    let service = Service { is_exposed: true, ..Service::new("web", 128, &pods) };
    manifests.put("web.yaml", &service.manifest());
    let _daemon = cluster::start(&world, &manifests, &[]);
    let clients = [("pod", &client.namespace), ("node", &world.node), ("outside", &world.outside)];
    for family in Family::BOTH {
        let of_kind = |kind| service.front_of(kind, family).ip();
        let unallocated = service_address(family, 200);
        for (who, from) in clients {
            let bound =
                [AddressKind::ClusterIp, AddressKind::ExternalIp, AddressKind::LoadBalancer];
            for address in bound.map(of_kind).into_iter().chain([unallocated]) {
                let answer = ping(from, address);
                // Refused in the sender's own output hook, it cannot even send.
                let is_refused = ["nreachable", "not permitted"].iter().any(|w| answer.contains(w));
                assert!(is_refused, "{who} to {address}: {answer}");
            }
            let answer = ping(from, of_kind(AddressKind::NodePort));
            assert!(answer.contains(" 1 received"), "{who} to the node: {answer}");
        }
    }
}

/// What `ping` says of one echo request.
fn ping(from: &Namespace, to: IpAddr) -> String {
    let to = to.to_string();
    let output = from.run(|| Command::new("ping").args(["-n", "-c", "1", "-W", "2", &to]).output());
    let output = output.expect("ping");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// A world whose kernels answer every refused packet; they would leave out most.
fn quiet_world() -> World {
    let world = World::new();
    world.refuse_without_limit();
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

/// W-29: a process of the node may connect from any of its addresses.
fn refusals_by_source_range_whatever_address_the_node_uses() {
    let world = quiet_world();
    world.node.ip("address add 198.18.0.1/32 dev eth0");
    let pod = world.pod("pod", Place::Node, 3);
    let _server = pod.serve(Transport::Tcp, cluster::POD_PORT);
    let pods = [&pod];
    let manifests = Manifests::new();
    let service = Service::new("web", 128, &pods).manifest();
    let status = "status: {loadBalancer: {ingress: [{ip: 203.0.113.7}]}}\n---\napiVersion: disc";
    let service = service.replacen("---\napiVersion: disc", status, 1);
    let ranged = "spec:\n  loadBalancerSourceRanges: [\"198.18.0.0/15\"]\n";
    manifests.put("web.yaml", &service.replacen("spec:\n", ranged, 1));
    let _daemon = cluster::start(&world, &manifests, &[]);
    let connect = |source: &str, to: &str| {
        let url = format!("http://{to}/");
        let arguments = ["--silent", "--max-time", "5", "--output", "/dev/null", "--interface"];
        let curl =
            || std::process::Command::new("curl").args(arguments).args([source, &url]).status();
        world.node.run(curl).expect("curl").code()
    };
    const ANSWERED: Option<i32> = Some(0);
    const REFUSED: Option<i32> = Some(7);
    assert_eq!(connect("198.18.0.1", "203.0.113.7"), ANSWERED, "in the range");
    assert_eq!(connect("192.0.2.1", "203.0.113.7"), REFUSED, "out of it");
    assert_eq!(connect("192.0.2.1", "10.254.10.128"), ANSWERED, "ranges are for load balancers");
}
