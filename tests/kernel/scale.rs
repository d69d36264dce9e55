//! Endpoints come and go, down to none and back, and move between slices: no request fails as
//! long as there is an endpoint, and load balancers are told how many there are.

use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::client::Conversation;
use crate::cluster::{self, AddressKind, Manifests, POD_PORT, SERVICE_RANGES, SOON, Service};
use crate::dump;
use crate::load::{Amount, Load};
use crate::outcome::Outcome;
use crate::wait;
use crate::whoami::Transport::{self, Tcp, Udp};
use crate::world::{Family, Place, Pod, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![scale_to_zero_and_back, scale_endpoint_moves_between_slices]
}

const LOCAL: &str = "  externalTrafficPolicy: Local\n";
const TRANSPORTS: [Transport; 2] = [Tcp, Udp];
const LONG: Amount = Amount { clients: 1, ..Amount::at_most(Duration::from_secs(240)) };

/// A refusal that comes later than this is one of a client that has asked again.
const PROMPT: Duration = Duration::from_millis(800);

/// A Service with all its clients.
struct Stage {
    world: World,
    client: Pod,
    manifests: Manifests,
}

fn service<'a>(pods: &'a [&'a Pod]) -> Service<'a> {
    let service = Service::new("web", 10, pods);
    Service { transports: &TRANSPORTS, is_exposed: true, spec: LOCAL, ..service }
}

impl Stage {
    fn new() -> Self {
        let world = World::new();
        world.refuse_without_limit();
        world.route_from_outside(&SERVICE_RANGES);
        let client = world.pod("client", Place::Node, 9);
        Self { world, client, manifests: Manifests::new() }
    }

    /// A client in the cluster and one outside, over both protocols, one in each family.
    fn loads(&self) -> Vec<(Transport, Load)> {
        let cluster_ip = service(&[]).front(Family::Ipv4);
        let load_balancer = service(&[]).front_of(AddressKind::LoadBalancer, Family::Ipv6);
        let sides = [(&self.client.namespace, cluster_ip), (&self.world.outside, load_balancer)];
        let load = |(from, to)| {
            TRANSPORTS.map(|transport| (transport, Load::start(from, transport, to, LONG)))
        };
        sides.into_iter().flat_map(load).collect()
    }

    /// Gives the Service these endpoints and waits until load balancers are told so.
    fn scale_to(&self, pods: &[&Pod]) {
        self.manifests.put("web.yaml", &service(pods).manifest());
        let expected = (if pods.is_empty() { 503 } else { 200 }, pods.len());
        wait::until(&format!("a health check of {expected:?}"), SOON, || {
            health_check(&self.world) == Some(expected)
        });
    }

    /// Asserts that every client is refused at once, over both protocols and in both families.
    fn assert_refused(&self) {
        for kind in AddressKind::ALL {
            for family in Family::BOTH {
                let to = service(&[]).front_of(kind, family);
                for transport in TRANSPORTS {
                    for (who, from) in [
                        ("pod", &self.client.namespace),
                        ("node", &self.world.node),
                        ("outside", &self.world.outside),
                    ] {
                        let start = Instant::now();
                        let outcome = Outcome::of(from, transport, to);
                        let took = start.elapsed();
                        let found = (outcome, took < PROMPT);
                        let what = format!("{who} to {kind:?} {transport:?} {to}: {took:?}");
                        assert_eq!(found, (Outcome::Refused, true), "{what}");
                    }
                }
            }
        }
    }
}

fn scale_to_zero_and_back() {
    let stage = Stage::new();
    let pods =
        [2, 3, 4].map(|number| stage.world.pod(&format!("pod-{number}"), Place::Node, number));
    let _servers = pods.each_ref().map(|pod| TRANSPORTS.map(|t| pod.serve(t, POD_PORT)));
    let all = pods.each_ref();
    stage.manifests.put("web.yaml", &service(&all).manifest());
    let _daemon = cluster::start(&stage.world, &stage.manifests, &[]);

    for sizes in [[3, 2, 1], [1, 2, 3]] {
        stage.scale_to(&all[..sizes[0]]);
        let loads = stage.loads();
        for size in sizes {
            stage.scale_to(&all[..size]);
            wait_for_answers(&loads);
        }
        let removals = sizes.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert_no_failures(loads, removals);
        // From three as from one.
        stage.scale_to(&[]);
        stage.assert_refused();
    }
}

/// In one slice, in two, in the other, and for an instant in none: events of a slice that a
/// controller rebalances, in the order in which a watcher may see them.
fn scale_endpoint_moves_between_slices() {
    let stage = Stage::new();
    let [moving, staying] = [("moving", 3), ("staying", 4)]
        .map(|(name, number)| stage.world.pod(name, Place::Node, number));
    let _servers = [&moving, &staying].map(|pod| TRANSPORTS.map(|t| pod.serve(t, POD_PORT)));
    let put = |slice: &str, pods: &[&Pod]| {
        stage.manifests.put(&format!("{slice}.yaml"), &service(pods).slices(slice));
    };
    stage.manifests.put("web.yaml", &service(&[]).without_slices());
    put("one", &[&moving, &staying]);
    put("two", &[]);
    let _daemon = cluster::start(&stage.world, &stage.manifests, &[]);

    let vanish_and_return = || {
        put("two", &[]);
        wait_for_endpoints(&stage.world, 1);
        put("one", &[&staying, &moving]);
        wait_for_endpoints(&stage.world, 2);
    };

    let loads = stage.loads();
    for (slice, pods) in [("two", &[&moving][..]), ("one", &[&staying])] {
        put(slice, pods);
        wait_for_answers(&loads);
    }
    vanish_and_return();
    wait_for_answers(&loads);
    // Both events at once, in the order that leaves it nowhere.
    for (slice, pods) in [("one", &[&staying][..]), ("two", &[&moving])] {
        put(slice, pods);
    }
    wait_for_answers(&loads);
    wait_for_endpoints(&stage.world, 2);
    assert_no_failures(loads, 2);

    // Nor does its connection end, as it is back long before it would have to.
    put("one", &[&staying]);
    let mut conversation = conversation_with(&stage, "moving");
    vanish_and_return();
    assert_eq!(conversation.ask().unwrap().pod, "moving");
}

/// Waits until so many endpoints take new connections by the cluster IP.
fn wait_for_endpoints(world: &World, number: usize) {
    let name = format!("-t {}", service(&[]).front(Family::Ipv4));
    let live = || dump::live_reals(&world.node, &name).len();
    wait::until(&format!("{number} behind {name}"), SOON, || live() == number);
}

/// An open connection to this pod; the scheduler gives each in turn.
fn conversation_with(stage: &Stage, pod: &str) -> Conversation {
    let front = service(&[]).front(Family::Ipv4);
    let open = || Conversation::open(&stage.client.namespace, Tcp, front).expect("a connection");
    let mut conversations = std::iter::repeat_with(open).take(50);
    let found = conversations.find_map(|mut conversation| {
        (conversation.ask().expect("an answer").pod == pod).then_some(conversation)
    });
    found.expect("every pod gets its share")
}

fn wait_for_answers(loads: &[(Transport, Load)]) {
    loads.iter().for_each(|(_, load)| load.wait_for_answers(5));
}

/// Stops the loads and asserts that no request failed.
///
/// Kernel: a UDP real server that is removed takes its flows along (`expire_nodest_conn`), and UDP
/// does not drain; the question that is under way in that instant has no answer. Each load has one
/// client, so that is one for each removal at most.
fn assert_no_failures(loads: Vec<(Transport, Load)>, removals: usize) {
    for (transport, load) in loads {
        let tally = load.stop();
        let bound = if transport == Udp { removals } else { 0 };
        assert!(tally.failures.len() <= bound, "{transport:?}: {tally:?}");
        assert!(tally.total() > 0, "{transport:?}");
    }
}

/// Status and number of endpoints that the node tells load balancers.
fn health_check(world: &World) -> Option<(u16, usize)> {
    let url =
        format!("http://{}:{}/", World::node_address(Family::Ipv4), service(&[]).health_port());
    let format = "%{http_code} %header{x-load-balancing-endpoint-weight}";
    let arguments = ["--silent", "--max-time", "2", "--output", "/dev/null", "--write-out", format];
    let answer = world.outside.run(|| Command::new("curl").args(arguments).arg(&url).output());
    let text = String::from_utf8(answer.expect("curl").stdout).expect("text");
    let (code, weight) = text.split_once(' ')?;
    Some((code.parse().ok()?, weight.parse().ok()?))
}
