//! A plan is stopped after each of its steps, and clients of every kind connect to everything.
//!
//! Whoever is served before a change and after it is served at every stop, and seen as before it or
//! as after it; whoever is served neither before nor after it never is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use kube_ipvs_proxy::cluster::store::Store;
use kube_ipvs_proxy::cluster::{Endpoint, Kind, Object, Update};
use kube_ipvs_proxy::config::Periods;
use kube_ipvs_proxy::kernel::{Error, Failure, Kernel, LinuxKernel};
use kube_ipvs_proxy::model::observed::{Observed, Scope};
use kube_ipvs_proxy::plan::step::Step;
use kube_ipvs_proxy::reconcile::engine::Engine;
use kube_ipvs_proxy::testing::objects::{self, ServiceBuilder};
use libtest_mimic::Trial;

use crate::client;
use crate::cluster::{POD_PORT, service_address};
use crate::namespace::Namespace;
use crate::whoami::Transport;
use crate::world::{Family, Place, Pod, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![steps_of_a_change_leave_every_client_as_before_or_as_after]
}

/// Requests at a time; those that are dropped only wait.
const WORKERS: usize = 12;

/// What comes of requests: whom the pods see, or the first error.
type Outcome = Result<BTreeSet<IpAddr>, String>;

/// Requests of a client at a front: as many as it has endpoints, which take turns.
const REQUESTS: usize = 2;

/// A client at a front.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    client: &'static str,
    service: &'static str,
    to: SocketAddr,
}

type Outcomes = BTreeMap<Case, Outcome>;

/// The node's kernel; after each step everybody asks.
struct Stopping<'a> {
    kernel: LinuxKernel,
    network: &'a Network,
    /// Where it stopped, once it is to.
    stops: Option<Vec<(String, Outcomes)>>,
}

/// Those who ask.
struct Network {
    world: World,
    near: Pod,
    far: Pod,
    client: Pod,
}

/// A Service as it is before and after the change; nothing stands for its absence.
struct Scenario {
    name: &'static str,
    number: u8,
    before: Option<Shape>,
    after: Option<Shape>,
}

#[derive(Clone, Copy)]
struct Shape {
    is_local: bool,
    ranges: &'static [&'static str],
    endpoints: &'static [Place],
}

const OPEN: Shape =
    Shape { is_local: false, ranges: &[], endpoints: &[Place::Node, Place::Outside] };
const LOCAL: Shape = Shape { is_local: true, endpoints: &[Place::Node], ..OPEN };
const REMOTE: Shape = Shape { is_local: true, endpoints: &[Place::Outside], ..OPEN };
const GUARDED: Shape = Shape { ranges: &["192.0.2.2/32", "2001:db8::2/128"], ..OPEN };
/// The outside host is in these as well, and so is the node.
const WIDER: Shape = Shape { ranges: &["192.0.2.0/30", "2001:db8::/126"], ..OPEN };

const SCENARIOS: [Scenario; 10] = [
    Scenario { name: "to-local", number: 1, before: Some(OPEN), after: Some(LOCAL) },
    Scenario { name: "to-cluster", number: 2, before: Some(LOCAL), after: Some(OPEN) },
    Scenario { name: "comes-home", number: 3, before: Some(REMOTE), after: Some(LOCAL) },
    Scenario { name: "leaves-home", number: 4, before: Some(LOCAL), after: Some(REMOTE) },
    Scenario { name: "other-ranges", number: 5, before: Some(GUARDED), after: Some(WIDER) },
    Scenario { name: "no-ranges", number: 6, before: Some(GUARDED), after: Some(OPEN) },
    Scenario { name: "new-ranges", number: 7, before: Some(OPEN), after: Some(GUARDED) },
    Scenario { name: "goes", number: 8, before: Some(LOCAL), after: None },
    Scenario { name: "comes", number: 9, before: None, after: Some(LOCAL) },
    Scenario { name: "from-remote", number: 10, before: Some(REMOTE), after: Some(OPEN) },
];

fn steps_of_a_change_leave_every_client_as_before_or_as_after() {
    let network = Network::new();
    let _servers = [&network.near, &network.far].map(|pod| pod.serve(Transport::Tcp, POD_PORT));
    let (before, stops) = network.world.node.run(|| {
        let kernel = LinuxKernel::new().expect("a kernel with all that it takes");
        let mut kernel = Stopping { kernel, network: &network, stops: None };
        let periods = Periods {
            sync: Duration::from_secs(3600),
            min_sync: Duration::ZERO,
            audit: Duration::from_secs(3600),
        };
        let mut engine = Engine::new(objects::policy(), periods, Store::new(&Kind::ALL));
        let first = SCENARIOS.iter().flat_map(|s| network.updates(s, s.before));
        sync(&mut engine, &mut kernel, objects::listed(first));
        let before = network.ask_all();
        kernel.stops = Some(Vec::new());
        let second = SCENARIOS.iter().flat_map(|s| network.updates(s, s.after));
        sync(&mut engine, &mut kernel, second.collect());
        (before, kernel.stops.expect("stops"))
    });
    let (_, after) = stops.last().expect("steps").clone();
    assert_told_apart(&before, &after);
    assert!(stops.len() >= 12, "only {} steps", stops.len());
    let unfair: Vec<String> =
        stops.iter().flat_map(|(step, now)| unfair(step, &before, now, &after)).collect();
    assert!(unfair.is_empty(), "{}", unfair.join("\n"));
}

fn sync(engine: &mut Engine, kernel: &mut Stopping<'_>, updates: Vec<Update>) {
    let now = Instant::now();
    for update in updates {
        engine.note(update, now);
    }
    let report = engine.sync(kernel, Instant::now);
    assert!(report.is_complete(), "{report:?}");
}

/// Who is treated otherwise than before and after.
fn unfair(step: &str, before: &Outcomes, now: &Outcomes, after: &Outcomes) -> Vec<String> {
    let unfair = now.iter().filter(|(case, now)| {
        let sides = [&before[*case], &after[*case]];
        match now {
            Ok(sources) => {
                let known: Vec<&IpAddr> = sides.into_iter().flatten().flatten().collect();
                !sources.iter().all(|source| known.contains(&source))
            }
            Err(_) => sides.iter().all(|side| side.is_ok()),
        }
    });
    let tell = |(case, now): (&Case, &Outcome)| {
        let Case { client, service, to } = case;
        let (before, after) = (&before[case], &after[case]);
        format!(
            "{client} to {service} at {to}: {now:?}, before {before:?}, after {after:?}; stopped after\n{step}"
        )
    };
    unfair.map(tell).collect()
}

/// The outcomes on either side are those that the Services ask for; else the test shows nothing.
fn assert_told_apart(before: &Outcomes, after: &Outcomes) {
    let served = |outcomes: &Outcomes, client: &str, service: &str, kind: Kinds| {
        let of_case = |(case, _): &(&Case, &Outcome)| {
            case.client == client && case.service == service && kind.has(&case.to)
        };
        let outcomes: Vec<bool> =
            outcomes.iter().filter(of_case).map(|(_, outcome)| outcome.is_ok()).collect();
        assert!(!outcomes.is_empty(), "nobody asked");
        let is_served = outcomes.iter().all(|served| *served);
        assert!(is_served || outcomes.iter().all(|served| !served), "{client} to {service}");
        is_served
    };
    for (client, service, kind, expected) in [
        ("outside", "to-local", Kinds::NodePort, [true, true]),
        ("outside", "to-cluster", Kinds::NodePort, [true, true]),
        ("outside", "comes-home", Kinds::NodePort, [false, true]),
        ("outside", "leaves-home", Kinds::Balancer, [true, false]),
        ("outside", "from-remote", Kinds::Balancer, [false, true]),
        ("outside", "other-ranges", Kinds::Balancer, [true, true]),
        ("node", "other-ranges", Kinds::Balancer, [false, true]),
        ("pod", "other-ranges", Kinds::Balancer, [false, false]),
        ("pod", "no-ranges", Kinds::Balancer, [false, true]),
        ("pod", "new-ranges", Kinds::Balancer, [true, false]),
        ("outside", "new-ranges", Kinds::Balancer, [true, true]),
        ("outside", "goes", Kinds::Balancer, [true, false]),
        ("outside", "comes", Kinds::NodePort, [false, true]),
        ("node", "leaves-home", Kinds::Balancer, [true, true]),
        ("pod", "leaves-home", Kinds::NodePort, [true, true]),
    ] {
        let found = [before, after].map(|side| served(side, client, service, kind));
        assert_eq!(found, expected, "{client} to {service}, before and after");
    }
}

#[derive(Clone, Copy)]
enum Kinds {
    NodePort,
    Balancer,
}

impl Kinds {
    fn has(self, to: &SocketAddr) -> bool {
        match self {
            Self::NodePort => to.port() > 30_000,
            Self::Balancer => BALANCERS.iter().any(|net| to.ip().to_string().starts_with(net)),
        }
    }
}

/// How the addresses of load balancers, and external ones, begin.
const BALANCERS: [&str; 2] = ["203.0.113.", "2001:db8:113::"];
const EXTERNAL: [&str; 2] = ["198.51.100.", "2001:db8:51::"];

impl Network {
    fn new() -> Self {
        let world = World::new();
        for path in ["net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"] {
            world.node.sysctl(path, "0");
        }
        for net in ["203.0.113.0/24", "198.51.100.0/24"] {
            world.outside.ip(&format!("route add {net} via {}", World::node_address(Family::Ipv4)));
        }
        for net in ["2001:db8:113::/64", "2001:db8:51::/64"] {
            world.outside.ip(&format!("route add {net} via {}", World::node_address(Family::Ipv6)));
        }
        let near = world.pod("near", Place::Node, 3);
        let far = world.pod("far", Place::Outside, 2);
        let client = world.pod("client", Place::Node, 9);
        Self { world, near, far, client }
    }

    /// What the API server says of a Service.
    fn updates(&self, scenario: &Scenario, shape: Option<Shape>) -> Vec<Update> {
        let name = format!("default/{}", scenario.name);
        let Some(shape) = shape else {
            return vec![Update::Deleted(Kind::Service, objects::name(&name))];
        };
        let slices = Family::BOTH.map(|family| {
            let endpoints: Vec<Endpoint> =
                shape.endpoints.iter().map(|place| self.endpoint(*place, family)).collect();
            let slice = objects::slice(&name, &[&format!("tcp {POD_PORT}")], &endpoints);
            let slice_name = objects::name(&format!("{name}-{family:?}"));
            objects::applied(Kind::EndpointSlice, slice_name, Object::EndpointSlice(slice))
        });
        let service = service(&name, scenario.number, shape).applied();
        [service].into_iter().chain(slices).collect()
    }

    fn endpoint(&self, place: Place, family: Family) -> Endpoint {
        match place {
            Place::Node => {
                objects::on_node(objects::endpoint(&self.near.address(family).to_string()))
            }
            Place::Outside | Place::SecondNode => {
                objects::endpoint(&self.far.address(family).to_string())
            }
        }
    }

    fn client(&self, name: &str) -> &Namespace {
        match name {
            "pod" => &self.client.namespace,
            "node" => &self.world.node,
            _ => &self.world.outside,
        }
    }

    /// Everybody asks everywhere.
    fn ask_all(&self) -> Outcomes {
        let queue = Mutex::new(cases());
        let outcomes = Mutex::new(Outcomes::new());
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    loop {
                        let Some(case) = queue.lock().expect("no panic").pop_front() else { break };
                        let outcome = self.ask(&case);
                        outcomes.lock().expect("no panic").insert(case, outcome);
                    }
                });
            }
        });
        outcomes.into_inner().expect("no panic")
    }

    fn ask(&self, case: &Case) -> Outcome {
        let ask = |_| client::connect_tcp(self.client(case.client), case.to);
        let answers = (0..REQUESTS).map(ask);
        let sources = answers.map(|answer| answer.map(|answer| answer.source()));
        sources.collect::<io::Result<_>>().map_err(|error| error.kind().to_string())
    }
}

/// Every kind of client and address for each Service, though not every pair of them.
fn cases() -> VecDeque<Case> {
    let mut cases = VecDeque::new();
    for Scenario { name: service, number, .. } in &SCENARIOS {
        let outer = |family, nets: [&str; 2]| {
            let [v4, v6] = nets.map(|net| objects::ip(&format!("{net}{number}")));
            SocketAddr::new(if matches!(family, Family::Ipv4) { v4 } else { v6 }, 80)
        };
        let [v4, v6] = Family::BOTH;
        let node = SocketAddr::new(World::node_address(v4), node_port(*number));
        let inner = SocketAddr::new(service_address(v4, *number), 80);
        for (client, to) in [
            ("pod", outer(v4, BALANCERS)),
            ("node", outer(v4, BALANCERS)),
            ("outside", outer(v4, BALANCERS)),
            ("outside", outer(v6, BALANCERS)),
            ("outside", outer(v4, EXTERNAL)),
            ("pod", node),
            ("outside", node),
            ("node", inner),
        ] {
            cases.push_back(Case { client, service, to });
        }
    }
    cases
}

fn node_port(number: u8) -> u16 {
    30_080 + u16::from(number)
}

fn service(name: &str, number: u8, shape: Shape) -> ServiceBuilder {
    let cluster_ips = Family::BOTH.map(|family| service_address(family, number).to_string());
    let outer = |nets: [&str; 2]| nets.map(|net| format!("{net}{number}"));
    let (balancers, external) = (outer(BALANCERS), outer(EXTERNAL));
    let port = format!("tcp 80:{}", node_port(number));
    let service = objects::service(name, &[&cluster_ips[0], &cluster_ips[1]], &[&port])
        .external_ips(&[&external[0], &external[1]])
        .load_balancer_ips(&[&balancers[0], &balancers[1]])
        .source_ranges(shape.ranges);
    if shape.is_local { service.external_local() } else { service }
}

impl Kernel for Stopping<'_> {
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error> {
        self.kernel.observe(scope)
    }

    fn apply(&mut self, step: &Step) -> Vec<Failure> {
        let failures = self.kernel.apply(step);
        assert!(failures.is_empty(), "{step}: {failures:?}");
        if let Some(stops) = &mut self.stops {
            stops.push((step.to_string(), self.network.ask_all()));
        }
        failures
    }
}
