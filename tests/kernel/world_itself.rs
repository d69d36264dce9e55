//! The world without the daemon: shows that the ground the other tests stand on is firm.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use libtest_mimic::Trial;

use crate::client::{self, Conversation};
use crate::daemon::Daemon;
use crate::dump;
use crate::load::{self, Amount, Load};
use crate::whoami::Transport;
use crate::world::{Family, Place, Pod, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        world_balances_over_two_pods,
        world_answers_over_every_transport,
        world_hairpin_needs_masquerade,
        world_refuses_and_vanishes,
        world_drained_pod_may_stop,
        world_runs_the_daemon_binary,
    ]
}

const PORT: u16 = 80;
const POD_PORT: u16 = 8080;

fn world_balances_over_two_pods() {
    let world = forwarding_world();
    let near = world.pod("near", Place::Node, 3);
    let far = world.pod("far", Place::Outside, 2);
    let client = world.pod("client", Place::Node, 9);
    let _servers = [&near, &far].map(|pod| pod.serve(Transport::Tcp, POD_PORT));
    for family in Family::BOTH {
        let front = balance(&world, Transport::Tcp, family, &[&near, &far]);
        let tally = load::run(&client.namespace, Transport::Tcp, front, Amount::requests(100));
        assert_eq!(tally.failures, Vec::<String>::new(), "{family:?}");
        assert_eq!((tally.answers["near"], tally.answers["far"]), (50, 50), "{family:?}");

        let answer = client::connect_tcp(&client.namespace, front).unwrap();
        assert_eq!(answer.source(), client.address(family), "a pod's address is kept");
    }
}

fn world_answers_over_every_transport() {
    let world = forwarding_world();
    let pod = world.pod("pod", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let _servers = Transport::ALL.map(|transport| pod.serve(transport, POD_PORT));
    for family in Family::BOTH {
        for transport in Transport::ALL {
            let front = balance(&world, transport, family, &[&pod]);
            let answer = client::ask(&client.namespace, transport, front);
            let answer = answer.unwrap_or_else(|error| panic!("{transport:?} {family:?}: {error}"));
            assert_eq!((answer.pod.as_str(), answer.source()), ("pod", client.address(family)));
        }
    }
    assert_eq!(dump::servers(&world.node).matches(":8080 ").count(), 6);
}

/// A pod that reaches itself sees its own address as the source, and answers itself directly.
fn world_hairpin_needs_masquerade() {
    let world = forwarding_world();
    let pod = world.pod("pod", Place::Node, 3);
    let _server = pod.serve(Transport::Tcp, POD_PORT);
    let front = balance(&world, Transport::Tcp, Family::Ipv4, &[&pod]);

    let error = client::connect_tcp(&pod.namespace, front).expect_err("no masquerade yet");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);

    world.node.sysctl("net/ipv4/vs/conntrack", "1");
    let address = pod.ipv4.to_string();
    let rule = ["-t", "nat", "-A", "POSTROUTING", "-s", &address, "-d", &address];
    world.node.output("iptables", &[&rule[..], &["-j", "MASQUERADE"]].concat());
    let answer = client::connect_tcp(&pod.namespace, front).unwrap();
    assert_eq!(answer.source(), World::node_address(Family::Ipv4));
}

fn world_refuses_and_vanishes() {
    let world = forwarding_world();
    let pod = world.pod("pod", Place::Outside, 2);
    let server = pod.serve(Transport::Tcp, POD_PORT);
    let address = SocketAddr::from((pod.ipv4, POD_PORT));
    let mut conversation = Conversation::open(&world.node, Transport::Tcp, address).unwrap();
    let answers = [conversation.ask().unwrap(), conversation.ask().unwrap()];
    assert_eq!(answers[0], answers[1], "one connection");
    assert_eq!(answers[0].source(), World::node_address(Family::Ipv4));

    server.stop();
    conversation.ask().expect_err("stopped");
    let refused = client::connect_tcp(&world.node, address).expect_err("stopped");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

    for nowhere in ["203.0.113.1:80", "[2001:db8:ffff::1]:80"] {
        let vanished = client::connect_tcp(&world.node, nowhere.parse().unwrap());
        assert_eq!(vanished.expect_err("nobody is there").kind(), io::ErrorKind::TimedOut);
    }
}

/// Shows that the load sees failures where there are some, and none where there must not be any.
fn world_drained_pod_may_stop() {
    let world = forwarding_world();
    let going = world.pod("going", Place::Node, 3);
    let staying = world.pod("staying", Place::Node, 4);
    let client = world.pod("client", Place::Node, 9);
    let going_server = going.serve(Transport::Tcp, POD_PORT);
    let staying_server = staying.serve(Transport::Tcp, POD_PORT);
    let front = balance(&world, Transport::Tcp, Family::Ipv4, &[&going, &staying]);
    let limit = Amount::at_most(Duration::from_secs(60));

    let load = Load::start(&client.namespace, Transport::Tcp, front, limit);
    load.wait_for_answers(20);
    let real_server = format!("{}:{POD_PORT}", going.ipv4);
    let drain = ["-e", "-t", &front.to_string(), "-r", &real_server, "-m", "-w", "0"];
    world.node.output("ipvsadm", &drain);
    load.wait_for_answers(20);
    going_server.stop();
    load.wait_for_answers(20);
    let tally = load.stop();
    assert_eq!(tally.failures, Vec::<String>::new());
    // Of 20 answers before the drain half are of either, and no others of the one that went.
    assert!(tally.answers["going"] >= 8, "{tally:?}");
    assert!(tally.share("staying") > 0.5, "{tally:?}");

    staying_server.stop();
    let tally = load::run(&client.namespace, Transport::Tcp, front, Amount::requests(8));
    assert_eq!((tally.total(), tally.failures.len()), (0, 8), "{tally:?}");
}

fn world_runs_the_daemon_binary() {
    let world = World::new();
    let mut daemon = Daemon::start(&world.node, &["--version"]);
    let status = daemon.wait_for_end(Duration::from_secs(10));
    assert!(status.success(), "{status}: {}", daemon.log());
}

/// A world whose node does by hand what the daemon would.
fn forwarding_world() -> World {
    let world = World::new();
    world.forward();
    world.node.ip("link add kube-ipvs0 type dummy");
    world
}

/// Makes a virtual server for the pods, by the ordinary tools.
fn balance(world: &World, transport: Transport, family: Family, pods: &[&Pod]) -> SocketAddr {
    let address: IpAddr = match family {
        Family::Ipv4 => [10, 254, 10, 128].into(),
        Family::Ipv6 => [0xfd00, 0x254, 0, 0, 0, 0, 0, 0x80].into(),
    };
    let front = SocketAddr::new(address, PORT);
    let option = match transport {
        Transport::Tcp => "-t",
        Transport::Udp => "-u",
        Transport::Sctp => "--sctp-service",
    };
    let mut lines = format!("-A {option} {front} -s rr\n");
    for pod in pods {
        let server = SocketAddr::new(pod.address(family), POD_PORT);
        lines += &format!("-a {option} {front} -r {server} -m\n");
    }
    world.node.output_of("ipvsadm", &["--restore"], &lines);
    world.node.ip(&format!("address replace {address} dev kube-ipvs0"));
    front
}
