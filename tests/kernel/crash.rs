//! A daemon that is killed in the middle of its first sync leaves nothing unsafe behind, and the
//! next one finishes its work.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use kube_ipvs_proxy::kernel::ipvs::Client;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::{self, Manifests, NODE, POD_PORT, PORT, SOON, service_address};
use crate::dump;
use crate::namespace::Namespace;
use crate::wait;
use crate::world::{Family, Place, Pod, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![crash_at_any_moment_is_safe_and_made_good]
}

/// Each has a virtual server.
const SERVICES: u8 = 200;

/// When to kill: as soon as the kernel has this, or so many of these.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Settings,
    Device,
    Servers(usize),
    RealServers,
    Ipv6Addresses(usize),
}

/// In the order in which a first sync comes to them.
const MOMENTS: [Moment; 6] = [
    Moment::Settings,
    Moment::Device,
    Moment::Servers(1),
    Moment::Servers(150),
    Moment::RealServers,
    Moment::Ipv6Addresses(1),
];

fn crash_at_any_moment_is_safe_and_made_good() {
    let manifests = Manifests::new();
    let (world, _pods) = world_of_many_services(&manifests);
    let _daemon = cluster::start(&world, &manifests, &[]);
    let undisturbed = dump::everything(&world.node);
    assert_safe(&world, "undisturbed");
    assert_eq!(servers(&world.node).len(), usize::from(SERVICES));
    for moment in MOMENTS {
        let (world, _pods) = world_of_many_services(&manifests);
        let daemon = cluster::launch(&world, &manifests, &[]);
        world.node.run(|| {
            let mut ipvs = Client::open().expect("IPVS");
            wait::until(&format!("{moment:?}"), SOON, || moment.has_come(&mut ipvs));
        });
        daemon.kill();
        assert_safe(&world, &format!("killed at {moment:?}"));
        let _daemon = cluster::start(&world, &manifests, &[]);
        let found = dump::everything(&world.node);
        dump::assert_same(&found, &undisturbed, &format!("restarted after {moment:?}"));
    }
}

/// A world with the pods that the Services have; always the same, so that two can be compared.
fn world_of_many_services(manifests: &Manifests) -> (World, [Pod; 2]) {
    let world = World::new();
    let pods = [world.pod("near", Place::Node, 3), world.pod("far", Place::Outside, 2)];
    let objects = (1..=SERVICES).flat_map(|number| objects(number, &pods));
    // JSON is read much faster than YAML, which counts in an emulated machine.
    let objects: Vec<String> = objects.map(|object| object.to_string()).collect();
    manifests.put("services.json", &objects.join("\n"));
    (world, pods)
}

/// A Service, every second one in IPv6, and its slice.
fn objects(number: u8, pods: &[Pod; 2]) -> [Value; 2] {
    let name = format!("web-{number}");
    let (family, kind) = match number % 2 {
        0 => (Family::Ipv6, "IPv6"),
        _ => (Family::Ipv4, "IPv4"),
    };
    let address = service_address(family, number);
    let endpoint = |pod: &Pod| json!({"addresses": [pod.address(family)], "nodeName": NODE});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": PORT}]},
    });
    let labels = json!({"kubernetes.io/service-name": name});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": kind,
        "metadata": {"name": name, "labels": labels},
        "ports": [{"name": "", "port": POD_PORT}], "endpoints": pods.each_ref().map(endpoint),
    });
    [service, slice]
}

impl Moment {
    /// Looks at the namespace that the thread is in, by the cheapest way there is.
    fn has_come(self, ipvs: &mut Client) -> bool {
        let file = |path: &str| fs::read_to_string(format!("/proc/{path}")).unwrap_or_default();
        match self {
            Self::Settings => file("sys/net/ipv4/vs/conntrack").trim() == "1",
            Self::Device => file("thread-self/net/dev").contains("kube-ipvs0:"),
            Self::Servers(number) => ipvs.services().is_ok_and(|found| found.len() >= number),
            Self::RealServers => file("thread-self/net/ip_vs").lines().any(is_real_server),
            Self::Ipv6Addresses(number) => {
                // With an address comes a route.
                let text = file("thread-self/net/ipv6_route");
                let bound = text.lines().filter(|line| line.starts_with("fd000254"));
                bound.filter(|line| line.contains(" 80 ")).count() >= number
            }
        }
    }
}

fn is_real_server(line: &str) -> bool {
    line.starts_with("  -> ") && line.contains(" Masq ")
}

/// Asserts what must hold at any moment.
pub fn assert_safe(world: &World, when: &str) {
    let sets = Sets(dump::sets(&world.node));
    let servers = servers(&world.node);
    for server in &servers {
        assert!(sets.have_server(server), "{when}: no proof that {server} is ours");
    }
    let answering: BTreeSet<IpAddr> = servers.iter().map(SocketAddr::ip).collect();
    let bound = bound_addresses(&world.node);
    for address in &bound {
        assert!(sets.have_address(address), "{when}: no proof that {address} is ours");
        assert!(answering.contains(address), "{when}: {address} is bound without a server");
    }
    for family in Family::BOTH {
        let is_bound =
            bound.iter().any(|address| address.is_ipv4() == matches!(family, Family::Ipv4));
        if is_bound {
            assert_rules_are_in_force(&dump::rules(&world.node, family), when);
        }
    }
}

fn assert_rules_are_in_force(rules: &str, when: &str) {
    for (hook, target) in [
        ("INPUT", "KUBE-IPVS-FILTER"),
        ("PREROUTING", "KUBE-SERVICES"),
        ("OUTPUT", "KUBE-SERVICES"),
        ("POSTROUTING", "KUBE-POSTROUTING"),
    ] {
        let leads = |line: &str| {
            line.starts_with(&format!("-A {hook} ")) && line.ends_with(&format!("-j {target}"))
        };
        assert!(rules.lines().any(leads), "{when}: no way from {hook} to {target} in\n{rules}");
    }
}

/// The virtual servers of the Services.
fn servers(namespace: &Namespace) -> Vec<SocketAddr> {
    let text = dump::servers(namespace);
    let names = text.lines().filter_map(|line| line.strip_prefix("-A -t ")?.split(' ').next());
    names.map(|name| name.parse().expect("an address and a port")).collect()
}

/// The service addresses on the device.
fn bound_addresses(namespace: &Namespace) -> Vec<IpAddr> {
    let text = dump::addresses(namespace);
    let lines = text.lines().filter(|line| line.contains(": kube-ipvs0 "));
    let addresses = lines.filter_map(|line| line.split_whitespace().nth(3)?.split('/').next());
    let addresses = addresses.map(|address| address.parse().expect("an address"));
    addresses.filter(|address: &IpAddr| !address.to_string().starts_with("fe80:")).collect()
}

/// The sets as `ipset save` prints them.
struct Sets(String);

impl Sets {
    fn have_server(&self, server: &SocketAddr) -> bool {
        let (address, port) = (server.ip(), server.port());
        self.have("IPVS-SERVERS", &address, &format!("{address},tcp:{port}"))
    }

    fn have_address(&self, address: &IpAddr) -> bool {
        self.have("IPVS-IPS", address, &address.to_string())
    }

    fn have(&self, set: &str, address: &IpAddr, entry: &str) -> bool {
        let prefix = if address.is_ipv4() { "KUBE" } else { "KUBE-6" };
        let line = format!("add {prefix}-{set} {entry}");
        self.0.lines().any(|there| there == line)
    }
}
