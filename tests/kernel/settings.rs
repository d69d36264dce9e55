//! Kernel settings: forwarding is turned on in both families, with care for the host.

use std::net::SocketAddr;

use kube_ipvs_proxy::model::sysctl::RUN_ESTIMATION;
use libtest_mimic::Trial;

use crate::cluster::{self, Manifests, Service};
use crate::whoami::Transport;
use crate::world::{Family, Place, World};
use crate::{client, lab, wait};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        settings_forward_without_losing_router_advertisements,
        settings_of_arp_are_strict_on_request,
        settings_of_connection_tracking_are_made_and_kept,
        settings_of_ipvs_timeouts_are_made_and_kept,
        settings_have_ipvs_count_on_request,
        settings_alone_are_made_on_request,
    ]
}

/// A host that forwards takes router advertisements only where `accept_ra` is 2.
fn settings_forward_without_losing_router_advertisements() {
    let world = World::new();
    let _deaf = world.pod("deaf", Place::Node, 3);
    let _heedful = world.pod("heedful", Place::Node, 4);
    let accept_ra = |interface: &str| format!("net/ipv6/conf/{interface}/accept_ra");
    for (interface, value) in [("eth0", "1"), ("pod3", "0"), ("pod4", "2")] {
        world.node.sysctl(&accept_ra(interface), value);
    }
    let forwarding = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
    let read = |path: &str| world.node.setting(path);
    assert_eq!(forwarding.map(read), ["0", "0"]);

    let manifests = Manifests::new();
    for start in ["first", "second"] {
        let daemon = cluster::start(&world, &manifests, &[]);
        assert_eq!(forwarding.map(read), ["1", "1"], "{start} start");
        let interfaces = ["eth0", "pod3", "pod4"].map(|interface| read(&accept_ra(interface)));
        assert_eq!(interfaces, ["2", "0", "2"], "{start} start");
        assert!(daemon.terminate().success());
    }
}

fn settings_of_arp_are_strict_on_request() {
    let world = World::new();
    let manifests = Manifests::new();
    let arp = ["net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/all/arp_announce"];
    let read = |path: &str| world.node.setting(path);
    for (flags, expected) in [(&[][..], ["0", "0"]), (&["--ipvs-strict-arp"], ["1", "2"])] {
        let daemon = cluster::start(&world, &manifests, flags);
        assert_eq!(arp.map(read), expected, "{flags:?}");
        assert!(daemon.terminate().success());
    }
}

/// A world is no first network namespace, so the size of the table is not its own to set.
fn settings_of_connection_tracking_are_made_and_kept() {
    let world = World::new();
    let manifests = Manifests::new();
    let path = |name: &str| format!("net/netfilter/nf_conntrack_{name}");
    let read = |name: &str| world.node.setting(&path(name));
    let max = read("max");
    world.node.sysctl(&path("tcp_timeout_established"), "432000");
    let flags = ["--conntrack-udp-timeout=77s", "--audit-period=1s"];
    let daemon = cluster::start(&world, &manifests, &flags);
    let names = ["tcp_timeout_established", "tcp_timeout_close_wait", "udp_timeout", "max"];
    assert_eq!(names.map(read), ["86400", "3600", "77", &max]);
    world.node.sysctl(&path("udp_timeout"), "5");
    wait::until("the setting is repaired", cluster::SOON, || read("udp_timeout") == "77");
    assert!(daemon.terminate().success());
}

/// Times of IPVS in seconds: TCP, TCP after a FIN, UDP.
fn timeouts(world: &World) -> String {
    let listed = world.node.output("ipvsadm", &["-L", "--timeout"]);
    listed.trim().trim_start_matches("Timeout (tcp tcpfin udp): ").to_string()
}

fn settings_of_ipvs_timeouts_are_made_and_kept() {
    let world = World::new();
    let manifests = Manifests::new();
    assert_eq!(timeouts(&world), "900 120 300");
    let flags = ["--ipvs-tcp-timeout=20m", "--ipvs-udp-timeout=77s", "--audit-period=1s"];
    let daemon = cluster::start(&world, &manifests, &flags);
    wait::until("times are set", cluster::SOON, || timeouts(&world) == "1200 120 77");
    world.node.output("ipvsadm", &["--set", "60", "61", "62"]);
    // What is 0 in the configuration is left as it is found.
    wait::until("times are repaired", cluster::SOON, || timeouts(&world) == "1200 61 77");
    assert!(daemon.terminate().success());
}

/// Connections to the Service so far, as `ipvsadm --stats` has them.
fn counted(world: &World, front: SocketAddr) -> u64 {
    let listed = world.node.output("ipvsadm", &["-Ln", "--stats", "--exact"]);
    let front = format!("TCP  {front} ");
    let server = listed.lines().find(|line| line.starts_with(&front));
    let server = server.unwrap_or_else(|| panic!("no {front}in {listed}"));
    server.split_whitespace().nth(2).expect("connections").parse().expect("a number")
}

/// Kernel: counts are gathered together with rates, and what was not gathered is not lost.
fn settings_have_ipvs_count_on_request() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let _server = pod.serve(Transport::Tcp, cluster::POD_PORT);
    let pods = [&pod];
    let service = Service::new("web", 128, &pods);
    let manifests = Manifests::new();
    manifests.put("web.yaml", &service.manifest());
    let front = service.front(Family::Ipv4);
    let requests: u64 = 5;
    for (flag, setting, count) in [("false", "0", 0), ("true", "1", 2 * requests)] {
        let flag = format!("--ipvs-estimation={flag}");
        let daemon = cluster::start(&world, &manifests, &[&flag]);
        assert_eq!(world.node.setting(RUN_ESTIMATION), setting, "{flag}");
        for _ in 0..requests {
            client::connect_tcp(&world.node, front).expect("an answer");
        }
        wait::until("IPVS counts", cluster::SOON, || counted(&world, front) == count);
        assert!(daemon.terminate().success());
    }
}

fn settings_alone_are_made_on_request() {
    let world = World::new();
    let program = lab::daemon_binary();
    let program = program.to_str().expect("a path of UTF-8");
    let flags = ["--init-only", "--hostname-override=node-1", "--ipvs-udp-timeout=77s"];
    let told = world.node.output(program, &flags);
    assert!(told.contains("  net.ipv4.vs.conntrack = 1, was 0\n"), "{told}");
    assert!(told.contains("  time-out of IPVS for udp, in seconds = 77, was 300\n"), "{told}");
    assert!(told.contains(", 0 failed\n"), "{told}");
    let again = world.node.output(program, &flags);
    assert_eq!(again, "0 added, 0 changed, 0 removed, 0 failed\n");
    assert_eq!(world.node.setting("net/ipv4/vs/conntrack"), "1");
    assert_eq!(world.node.setting("net/netfilter/nf_conntrack_tcp_timeout_established"), "86400");
    assert_eq!(timeouts(&world), "900 120 77");
    assert!(!world.node.output("ip", &["-oneline", "link"]).contains("kube-ipvs0"));
    assert!(!world.node.output("iptables-save", &[]).contains("KUBE-"));
}
