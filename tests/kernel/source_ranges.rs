//! `loadBalancerSourceRanges`: who may use the load balancer's address, and nothing else.

use libtest_mimic::Trial;

use Find::{Dropped, Node, Refused};

use crate::cluster::{self, AddressKind, Manifests, POD_PORT, SERVICE_RANGES, SOON, Service};
use crate::dump;
use crate::namespace::Namespace;
use crate::outcome::{self, Outcome, Probe};
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, Pod, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![source_ranges_guard_the_load_balancer_alone, source_ranges_change_in_place]
}

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// What a client finds.
#[derive(Clone, Copy)]
enum Find {
    /// An answer; the pod sees the node.
    Node,
    Refused,
    Dropped,
}

/// A Service's ranges, and what a pod, the node and the outside find at its load balancer.
///
/// A process of the node is told, as its packets never meet the rule that drops the others'.
#[rustfmt::skip]
const CASES: [(&str, [Find; 3]); 4] = [
    //                                              a pod    the node  outside
    (r#""192.0.2.2/32", "2001:db8::2/128""#,       [Dropped, Refused,  Node]),
    (r#""10.244.0.0/16", "fd00:244::/32""#,        [Node,    Refused,  Dropped]),
    (r#""192.0.2.1/32", "2001:db8::1/128""#,       [Dropped, Node,     Dropped]),
    (r#""192.0.2.0/24", "2001:db8::/64""#,         [Dropped, Node,     Node]),
];

struct Stage {
    world: World,
    pod: Pod,
    client: Pod,
}

impl Stage {
    fn new() -> Self {
        let world = World::new();
        world.refuse_without_limit();
        world.route_from_outside(&SERVICE_RANGES);
        let pod = world.pod("pod", Place::Node, 3);
        let client = world.pod("client", Place::Node, 9);
        Self { world, pod, client }
    }

    /// In the order of the columns.
    fn clients(&self) -> [(&'static str, &Namespace); 3] {
        [
            ("a pod", &self.client.namespace),
            ("the node", &self.world.node),
            ("outside", &self.world.outside),
        ]
    }

    /// The questions of all clients at one kind of address of a Service.
    fn probes(&self, service: &Service<'_>, kind: AddressKind, finds: [Find; 3]) -> Vec<Probe<'_>> {
        let mut probes = Vec::new();
        for ((who, from), find) in self.clients().into_iter().zip(finds) {
            for family in Family::BOTH {
                for transport in TRANSPORTS {
                    let to = service.front_of(kind, family);
                    let name = format!("{}: {who} to {kind:?} {transport:?}", service.name);
                    let expected = outcome_of(find, family);
                    probes.push(Probe { name, from, transport, to, expected });
                }
            }
        }
        probes
    }
}

fn outcome_of(find: Find, family: Family) -> Outcome {
    match find {
        Find::Node => Outcome::Answered { pod: "pod".into(), source: World::node_address(family) },
        Find::Refused => Outcome::Refused,
        Find::Dropped => Outcome::Silence,
    }
}

fn service<'a>(name: &'a str, number: u8, pods: &'a [&'a Pod], spec: &'a str) -> Service<'a> {
    let service = Service::new(name, number, pods);
    Service { transports: &TRANSPORTS, is_exposed: true, spec, ..service }
}

fn spec_of(ranges: &str) -> String {
    format!("  loadBalancerSourceRanges: [{ranges}]\n")
}

fn source_ranges_guard_the_load_balancer_alone() {
    let stage = Stage::new();
    let _servers = TRANSPORTS.map(|transport| stage.pod.serve(transport, POD_PORT));
    let pods = [&stage.pod];
    let specs = CASES.map(|(ranges, _)| spec_of(ranges));
    let manifests = Manifests::new();
    let mut probes = Vec::new();
    for (number, (spec, (ranges, finds))) in (10..).zip(specs.iter().zip(CASES)) {
        let name = format!("service-{number}");
        let service = service(&name, number, &pods, spec);
        manifests.put(&format!("{name}.yaml"), &service.manifest());
        let labelled = Service { name: ranges, ..service };
        probes.extend(stage.probes(&labelled, AddressKind::LoadBalancer, finds));
        for open in [AddressKind::NodePort, AddressKind::ExternalIp] {
            probes.extend(stage.probes(&labelled, open, [Node; 3]));
        }
    }
    let _daemon = cluster::start(&stage.world, &manifests, &[]);
    outcome::assert_all(probes);
}

fn source_ranges_change_in_place() {
    let stage = Stage::new();
    let _servers = TRANSPORTS.map(|transport| stage.pod.serve(transport, POD_PORT));
    let pods = [&stage.pod];
    let manifests = Manifests::new();
    let mut daemon = None;
    for (ranges, finds) in CASES {
        let spec = spec_of(ranges);
        let service = service("web", 10, &pods, &spec);
        manifests.put("web.yaml", &service.manifest());
        daemon.get_or_insert_with(|| cluster::start(&stage.world, &manifests, &[]));
        wait_for_ranges(&stage.world, ranges);
        outcome::assert_all(stage.probes(&service, AddressKind::LoadBalancer, finds));
    }
}

/// Returns once the kernel's sets hold these ranges and no others.
fn wait_for_ranges(world: &World, ranges: &str) {
    let ranges = ranges.split(", ").map(|range| range.trim_matches('"'));
    let mut wanted: Vec<&str> = ranges.map(as_listed).collect();
    wanted.sort_unstable();
    wait::until(&format!("{wanted:?} in the sets"), SOON, || {
        let sets = dump::sets(&world.node);
        // The IPv6 set's name ends a letter earlier.
        let entries = sets
            .lines()
            .filter(|line| line.starts_with("add ") && line.contains("-LOAD-BALANCER-SOURCE-CID"));
        let mut held: Vec<&str> = entries.filter_map(|line| line.rsplit(',').next()).collect();
        held.sort_unstable();
        held.dedup();
        held == wanted
    });
}

/// The kernel leaves out the length of a range of one address.
fn as_listed(range: &str) -> &str {
    range.strip_suffix(if range.contains(':') { "/128" } else { "/32" }).unwrap_or(range)
}
