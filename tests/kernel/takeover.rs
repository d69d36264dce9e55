//! Taking over from kube-proxy's ipvs mode: what it made goes on serving, and becomes ours.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use libtest_mimic::Trial;

use crate::cluster::{self, Manifests, SOON, Service, service_address};
use crate::daemon::Daemon;
use crate::dump;
use crate::load::{Amount, Load};
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, Pod, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        takeover_loses_no_request_and_claims_only_what_is_provable,
        takeover_loses_no_request_where_dns_is_new,
        takeover_loses_no_request_to_what_cannot_be_read,
        takeover_claims_servers_of_node_ports_nobody_has,
    ]
}

/// What kube-proxy 1.36 loads for IPv4 where all Services have cluster IPs only.
const RULES: &str = include_str!("kube_proxy/rules.txt");

/// What the same rules say for IPv6.
const RULES_IN_IPV6: [(&str, &str); 4] = [
    ("--match-set KUBE-", "--match-set KUBE-6-"),
    ("-s 127.0.0.0/8", "-s ::1/128"),
    ("-s 10.244.0.0/16", "-s fd00:244::/32"),
    ("icmp-port-unreachable", "icmp6-port-unreachable"),
];

/// Last groups of the addresses: of the Service that is there, of one that was deleted while no
/// proxy ran, and of somebody else's server.
const LIVE: u8 = 128;
const STALE: u8 = 77;
const FOREIGN: u8 = 99;

fn takeover_loses_no_request_and_claims_only_what_is_provable() {
    let world = World::new();
    let pods = two_pods(&world);
    let behind = pods.each_ref();
    let service = Service::new("web", LIVE, &behind);
    let manifests = Manifests::new();
    manifests.put("web.yaml", &service.manifest());
    let _daemon = take_over_under_load(&world, &service, &manifests);
    assert_taken_over(&world, &behind);
    assert_rules_are_those_of_a_fresh_node(&world, &manifests);
}

/// DNS comes before all others where nobody serves: here, others are served already.
fn takeover_loses_no_request_where_dns_is_new() {
    let world = World::new();
    let pods = two_pods(&world);
    let behind = pods.each_ref();
    let service = Service::new("web", LIVE, &behind);
    let manifests = Manifests::new();
    manifests.put("web.yaml", &service.manifest());
    let dns = service_address(Family::Ipv4, 53);
    let dns = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: coredns, namespace: kube-system}}, \
         spec: {{clusterIP: {dns}, ports: [{{port: 53, protocol: UDP}}]}}}}"
    );
    manifests.put("dns.yaml", &dns);
    drop(take_over_under_load(&world, &service, &manifests));
}

/// What kube-proxy served may be what the file asks for.
fn takeover_loses_no_request_to_what_cannot_be_read() {
    let world = World::new();
    let pods = two_pods(&world);
    let behind = pods.each_ref();
    let service = Service::new("web", LIVE, &behind);
    let manifests = Manifests::new();
    manifests.put("web.yaml", &format!("{}x: : ", service.manifest()));
    drop(take_over_under_load(&world, &service, &manifests));
}

fn two_pods(world: &World) -> [Pod; 2] {
    [3, 4].map(|number| world.pod(&format!("pod-{number}"), Place::Node, number))
}

/// Clients of what kube-proxy served see nothing of a start on these manifests.
fn take_over_under_load(world: &World, service: &Service<'_>, manifests: &Manifests) -> Daemon {
    let client = world.pod("client", Place::Node, 9);
    let behind = service.pods;
    let _servers: Vec<_> =
        behind.iter().map(|pod| pod.serve(Transport::Tcp, cluster::POD_PORT)).collect();
    make_as_kube_proxy(world, behind);
    let limit = Amount { clients: 2, ..Amount::at_most(Duration::from_secs(120)) };
    let loads = [
        (&client.namespace, Family::Ipv4),
        (&client.namespace, Family::Ipv6),
        (&world.node, Family::Ipv4),
        (&behind[0].namespace, Family::Ipv4),
    ]
    .map(|(from, family)| Load::start(from, Transport::Tcp, service.front(family), limit));
    loads.iter().for_each(|load| load.wait_for_answers(20));
    let daemon = cluster::start(world, manifests, &[]);
    loads.iter().for_each(|load| load.wait_for_answers(50));
    for load in loads {
        assert_eq!(load.stop().failures, Vec::<String>::new());
    }
    daemon
}

fn assert_taken_over(world: &World, behind: &[&Pod]) {
    for family in Family::BOTH {
        let name = |number| format!("-t {}", front(family, number));
        let stale = service_address(family, STALE);
        wait::until("the stale server's end", SOON, || {
            !dump::has_server(&world.node, &name(STALE))
        });
        let mut expected: Vec<String> =
            behind.iter().map(|pod| real(pod, family).to_string()).collect();
        expected.sort();
        assert_eq!(dump::live_reals(&world.node, &name(LIVE)), expected);
        assert!(dump::has_server(&world.node, &name(FOREIGN)), "{family:?}");

        let addresses = dump::addresses(&world.node);
        let is_bound = |address: IpAddr| addresses.contains(&format!(" {address}/"));
        assert!(!is_bound(stale), "{addresses}");
        assert!(is_bound(service_address(family, LIVE)), "{addresses}");
        assert!(is_bound(service_address(family, FOREIGN)), "{addresses}");
        let sets = dump::sets(&world.node);
        assert!(!sets.contains(&format!(" {stale}")), "{sets}");
    }
}

fn assert_rules_are_those_of_a_fresh_node(world: &World, manifests: &Manifests) {
    let fresh = World::new();
    let _daemon = cluster::start(&fresh, manifests, &[]);
    for family in Family::BOTH {
        let rules = |world: &World| dump::comparable_rules(&world.node, family);
        dump::assert_same(&rules(world), &rules(&fresh), "rules");
    }
}

/// Makes what kube-proxy has made when it ends: for the live Service and for one since deleted.
/// Besides, somebody else has a server and an address of their own on its device.
fn make_as_kube_proxy(world: &World, behind: &[&Pod]) {
    world.forward();
    world.node.sysctl("net/ipv4/vs/conntrack", "1");
    world.node.ip("link add kube-ipvs0 type dummy");
    let (mut sets, mut servers, mut addresses) = (String::new(), String::new(), String::new());
    for family in Family::BOTH {
        sets += &sets_of_kube_proxy(family, behind);
        for number in [LIVE, STALE, FOREIGN] {
            let front = front(family, number);
            let _ = writeln!(servers, "-A -t {front} -s rr");
            for pod in behind {
                let _ = writeln!(servers, "-a -t {front} -r {} -m -w 1", real(pod, family));
            }
            let _ = writeln!(addresses, "address add {} dev kube-ipvs0", front.ip());
        }
    }
    world.node.output_of("ipset", &["restore"], &sets);
    world.node.output_of("iptables-restore", &["--noflush"], RULES);
    let in_ipv6 = |rules: String, (v4, v6): &(&str, &str)| rules.replace(v4, v6);
    let rules = RULES_IN_IPV6.iter().fold(RULES.to_string(), in_ipv6);
    world.node.output_of("ip6tables-restore", &["--noflush"], &rules);
    world.node.output_of("ipvsadm", &["--restore"], &servers);
    world.node.ip(&addresses);
}

fn sets_of_kube_proxy(family: Family, pods: &[&Pod]) -> String {
    let (prefix, inet) = match family {
        Family::Ipv4 => ("KUBE-", "inet"),
        Family::Ipv6 => ("KUBE-6-", "inet6"),
    };
    let mut text = format!("create {prefix}HEALTH-CHECK-NODE-PORT bitmap:port range 0-65535\n");
    for (name, kind) in [
        ("CLUSTER-IP", "hash:ip,port"),
        ("LOAD-BALANCER", "hash:ip,port"),
        ("EXTERNAL-IP", "hash:ip,port"),
        ("EXTERNAL-IP-LOCAL", "hash:ip,port"),
        ("LOOP-BACK", "hash:ip,port,ip"),
        ("IPVS-IPS", "hash:ip"),
    ] {
        let options = format!("family {inet} hashsize 1024 maxelem 65536");
        let _ = writeln!(text, "create {prefix}{name} {kind} {options}");
    }
    for number in [LIVE, STALE] {
        let address = service_address(family, number);
        let _ = writeln!(text, "add {prefix}CLUSTER-IP {address},tcp:{}", cluster::PORT);
        let _ = writeln!(text, "add {prefix}IPVS-IPS {address}");
    }
    for pod in pods {
        let (address, port) = (pod.address(family), cluster::POD_PORT);
        let _ = writeln!(text, "add {prefix}LOOP-BACK {address},tcp:{port},{address}");
    }
    text
}

fn front(family: Family, number: u8) -> SocketAddr {
    SocketAddr::new(service_address(family, number), cluster::PORT)
}

fn real(pod: &Pod, family: Family) -> SocketAddr {
    SocketAddr::new(pod.address(family), cluster::POD_PORT)
}

/// Of node ports kube-proxy's sets tell the port alone.
fn takeover_claims_servers_of_node_ports_nobody_has() {
    let world = World::new();
    for (family, prefix) in Family::BOTH.into_iter().zip(["KUBE-", "KUBE-6-"]) {
        let node = World::node_address(family);
        let foreign = service_address(family, FOREIGN);
        let mut sets = String::new();
        for (protocol, port) in [("TCP", 30_001), ("UDP", 30_002)] {
            let name = format!("{prefix}NODE-PORT-{protocol}");
            let _ = writeln!(sets, "create {name} bitmap:port range 0-65535\nadd {name} {port}");
        }
        world.node.output_of("ipset", &["restore"], &sets);
        let at = |address, port| SocketAddr::new(address, port);
        let servers = [
            // Stale: one of each protocol.
            format!("-A -t {} -s rr", at(node, 30_001)),
            format!("-A -u {} -s rr", at(node, 30_002)),
            // Somebody else's: another protocol, another port, an address that is not the node's.
            format!("-A -u {} -s rr", at(node, 30_001)),
            format!("-A -t {} -s rr", at(node, 30_003)),
            format!("-A -t {} -s rr", at(foreign, 30_001)),
        ];
        world.node.output_of("ipvsadm", &["--restore"], &(servers.join("\n") + "\n"));
    }
    let before = dump::servers(&world.node);
    let stale = |line: &&str| {
        line.contains(":30001 ") && line.contains("-t [2001:db8::1]")
            || line.contains("-t 192.0.2.1:30001 ")
            || line.contains(":30002 ")
    };
    let expected: Vec<&str> = before.lines().filter(|line| !stale(line)).collect();
    assert_eq!((before.lines().count(), expected.len()), (10, 6), "{before}");

    let manifests = Manifests::new();
    let daemon = cluster::start(&world, &manifests, &["--audit-period=300ms"]);
    let found = dump::servers(&world.node);
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    let sets = dump::sets(&world.node);
    let is_left = |line: &str| line.starts_with("add ") && !line.contains("SERVICE-CIDR");
    assert!(!sets.lines().any(is_left), "{sets}");

    // Once we are in charge, what is not in the journal is not ours, whatever its port.
    manifests.put(
        "web.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  type: NodePort\n  \
         clusterIP: 10.254.10.7\n  ports: [{port: 80, nodePort: 30004}]\n",
    );
    assert!(daemon.terminate().success());
    let _daemon = cluster::start(
        &world,
        &manifests,
        &["--audit-period=300ms", "--nodeport-addresses=198.18.0.0/15"],
    );
    world.node.output("ipvsadm", &["-A", "-t", "192.0.2.1:30004", "-s", "rr"]);
    cluster::wait_for_syncs(&world, 3);
    assert!(dump::has_server(&world.node, "-t 192.0.2.1:30004"));
}
