//! UDP clients that keep sending from one port while endpoints and fronts come and go.
//!
//! Nothing but silence ends a UDP flow, and these clients are never silent.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use libtest_mimic::Trial;

use crate::client::{self, Conversation};
use crate::cluster::{self, Manifests, POD_PORT, SOON, Service};
use crate::daemon::Daemon;
use crate::namespace::Namespace;
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Place, Pod, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        datagrams_follow_the_endpoints,
        datagrams_are_answered_once_there_is_an_endpoint,
        datagrams_to_a_front_that_appears_are_served,
        flows_that_went_stale_before_the_start_are_removed,
    ]
}

const NODE_PORT: u16 = 30053;
const EXTERNAL_IPS: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];

/// How soon a client that keeps sending must be where a new one is; a flow lives for 30 seconds
/// after its last packet.
///
/// Room for one answer that never comes: the refusal of a question that is on its way while the
/// flow is removed can no longer be brought to the one who asked.
const AT_ONCE: Duration = client::ANSWER_TIMEOUT.saturating_mul(2);

/// Lost datagrams while one endpoint takes the place of another.
const MOST_LOST: usize = 1;

fn dns<'a>(pods: &'a [&'a Pod]) -> Service<'a> {
    Service { port: 53, transports: &[Transport::Udp], ..Service::new("dns", 53, pods) }
}

fn start(world: &World, services: &[Service<'_>]) -> (Manifests, Daemon) {
    let manifests = Manifests::new();
    put(&manifests, services);
    let daemon = cluster::start(world, &manifests, &[]);
    (manifests, daemon)
}

fn put(manifests: &Manifests, services: &[Service<'_>]) {
    for service in services {
        manifests.put(&format!("{}.yaml", service.name), &service.manifest());
    }
}

/// A client that asks and asks from one port.
struct Talker {
    who: String,
    conversation: Conversation,
}

impl Talker {
    fn new(who: &str, from: &Namespace, to: SocketAddr) -> Self {
        let conversation = Conversation::open(from, Transport::Udp, to);
        let who = format!("{who} to {to}");
        Talker { conversation: conversation.unwrap_or_else(|error| panic!("{who}: {error}")), who }
    }

    /// Who answers, if anybody does.
    fn ask(&mut self) -> Option<String> {
        self.conversation.ask().ok().map(|answer| answer.pod)
    }

    /// Asks until the pod answers; the number of questions that nobody answered.
    fn ask_until(&mut self, pod: &str, limit: Duration) -> usize {
        let mut lost = 0;
        let is_reached = wait::holds_within(limit, || {
            let answer = self.ask();
            lost += usize::from(answer.is_none());
            answer.as_deref() == Some(pod)
        });
        assert!(is_reached, "{} never got to {pod}, {lost} lost", self.who);
        lost
    }
}

fn datagrams_follow_the_endpoints() {
    let world = World::new();
    let [old, new] = [("old", 3), ("new", 4)].map(|(name, n)| world.pod(name, Place::Node, n));
    let client = world.pod("client", Place::Node, 9);
    let _servers = [&old, &new].map(|pod| pod.serve(Transport::Udp, POD_PORT));
    let (before, after) = ([&old], [&new]);
    let (manifests, _daemon) = start(&world, &[dns(&before)]);
    for family in Family::BOTH {
        put(&manifests, &[dns(&before)]);
        let front = dns(&before).front(family);
        let mut talkers =
            [Talker::new("pod", &client.namespace, front), Talker::new("node", &world.node, front)];
        for talker in &mut talkers {
            talker.ask_until("old", SOON);
        }
        put(&manifests, &[dns(&after)]);
        for talker in &mut talkers {
            let lost = talker.ask_until("new", SOON);
            assert!(lost <= MOST_LOST, "{}: {lost} lost", talker.who);
        }
        let flows = flows(&world);
        assert!(!flows.contains(&old.address(family).to_string()), "{flows}");
    }
}

/// Each question is refused until there is an endpoint, and the refusal must not stick.
fn datagrams_are_answered_once_there_is_an_endpoint() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let client = world.pod("client", Place::Node, 9);
    let _server = pod.serve(Transport::Udp, POD_PORT);
    let (nobody, somebody) = ([], [&pod]);
    let (manifests, _daemon) = start(&world, &[dns(&nobody)]);
    for family in Family::BOTH {
        put(&manifests, &[dns(&nobody)]);
        let front = dns(&nobody).front(family);
        for (who, from) in [("pod", &client.namespace), ("node", &world.node)] {
            wait::until("a refusal", SOON, || client::ask(from, Transport::Udp, front).is_err());
            let mut talker = Talker::new(who, from, front);
            assert_eq!(talker.ask(), None, "{}", talker.who);
            put(&manifests, &[dns(&somebody)]);
            // Whoever comes new is served; so must be who was there before.
            wait::until("an endpoint", SOON, || {
                talker.ask();
                client::ask(from, Transport::Udp, front).is_ok()
            });
            talker.ask_until("pod", AT_ONCE);
            put(&manifests, &[dns(&nobody)]);
        }
    }
}

/// The Service with a node port and external IPs besides.
fn with_more_fronts(service: &Service<'_>) -> String {
    let [v4, v6] = EXTERNAL_IPS;
    let externals = format!("spec:\n  type: NodePort\n  externalIPs: [\"{v4}\", \"{v6}\"]\n");
    let text = service.manifest().replacen("spec:\n", &externals, 1);
    text.replacen("port: 53}", &format!("port: 53, nodePort: {NODE_PORT}}}"), 1)
}

/// The pod is on another node, so that its answers come back only if the flow is masqueraded,
/// which only a new flow is.
fn datagrams_to_a_front_that_appears_are_served() {
    let world = World::new();
    let pod = world.pod("pod", Place::Outside, 3);
    let other = world.pod("other", Place::Node, 4);
    let client = world.pod("client", Place::Node, 9);
    let _servers = [
        pod.serve(Transport::Udp, POD_PORT),
        other.serve(Transport::Udp, POD_PORT),
        // The node port's number, and not the node.
        other.serve(Transport::Udp, NODE_PORT),
    ];
    let (pods, others) = ([&pod], [&other]);
    let another = Service { name: "another", number: 54, ..dns(&others) };
    let (manifests, _daemon) = start(&world, &[dns(&pods), another.clone()]);
    let mut bystanders: Vec<Talker> = Vec::new();
    for family in Family::BOTH {
        let same_port = SocketAddr::new(other.address(family), NODE_PORT);
        for to in [same_port, another.front(family)] {
            bystanders.push(Talker::new("bystander", &client.namespace, to));
        }
    }
    for bystander in &mut bystanders {
        bystander.ask_until("other", SOON);
    }
    let untouched = flows_with(&world, &[&other.ipv4.to_string(), &other.ipv6.to_string()]);
    assert_eq!(untouched.len(), bystanders.len(), "{untouched:?}");

    let mut early = early_talkers(&world, &client);
    early.iter_mut().for_each(|talker| assert_eq!(talker.ask(), None, "{}", talker.who));
    manifests.put("dns.yaml", &with_more_fronts(&dns(&pods)));
    for talker in &mut early {
        talker.ask_until("pod", SOON);
    }
    for address in [pod.ipv4.to_string(), pod.ipv6.to_string()] {
        let balanced = flows_with(&world, &[&address]);
        assert!(balanced.len() >= 2, "{balanced:?} of\n{}", flows(&world));
    }
    // They were silent meanwhile: a flow that was removed would be missing.
    let now = flows_with(&world, &[&other.ipv4.to_string(), &other.ipv6.to_string()]);
    assert_eq!(now, untouched);
}

/// Clients of what is no front yet: of the node port from outside, of the external IPs from a pod.
fn early_talkers(world: &World, client: &Pod) -> Vec<Talker> {
    let of_family = |family| {
        let node = SocketAddr::new(World::node_address(family), NODE_PORT);
        Talker::new("outside", &world.outside, node)
    };
    let of_address = |address: &str| {
        let address: IpAddr = address.parse().expect("an address");
        Talker::new("pod", &client.namespace, SocketAddr::new(address, 53))
    };
    Family::BOTH.map(of_family).into_iter().chain(EXTERNAL_IPS.map(of_address)).collect()
}

fn flows_that_went_stale_before_the_start_are_removed() {
    let world = World::new();
    let pod = world.pod("pod", Place::Node, 3);
    let _server = pod.serve(Transport::Udp, POD_PORT);
    let pods = [&pod];
    let (manifests, daemon) = start(&world, &[dns(&pods)]);
    daemon.terminate();
    let front = dns(&pods).front(Family::Ipv4).ip();
    let elsewhere = IpAddr::from([10, 254, 99, 99]);
    for (destination, client_port) in [(front, 40_000), (elsewhere, 40_001)] {
        let stale = format!(
            "-I -p udp -s 10.244.1.9 -d {destination} --sport {client_port} --dport 53 -t 600 \
             --reply-src 10.244.1.77 --reply-dst 10.244.1.9 \
             --reply-port-src {POD_PORT} --reply-port-dst {client_port}"
        );
        world.node.output("conntrack", &stale.split_whitespace().collect::<Vec<_>>());
    }
    let of = |address: IpAddr| flows_with(&world, &[&format!("dst={address} ")]).len();
    assert_eq!(of(front), 1, "{}", flows(&world));
    let _daemon = cluster::start(&world, &manifests, &[]);
    wait::until("the stale flow to go", SOON, || of(front) == 0);
    assert_eq!(of(elsewhere), 1, "{}", flows(&world));
    let name = "kubeproxy_conntrack_reconciler_deleted_entries_total";
    assert_eq!(cluster::metric(&world, name), 1.0);
}

/// UDP flows that the node tracks, with their numbers; not how old they are.
fn flows(world: &World) -> String {
    let mut text = String::new();
    for family in ["ipv4", "ipv6"] {
        let arguments = ["-L", "-f", family, "-p", "udp", "-o", "id"];
        let listing = world.node.output("conntrack", &arguments);
        for line in listing.lines() {
            let from = line.find("src=").unwrap_or_default();
            let _ = writeln!(text, "{}", &line[from..]);
        }
    }
    text
}

/// Those that name one of the texts.
fn flows_with(world: &World, texts: &[&str]) -> Vec<String> {
    let flows = flows(world);
    let named = flows.lines().filter(|line| texts.iter().any(|text| line.contains(text)));
    let mut named: Vec<String> = named.map(str::to_owned).collect();
    named.sort();
    named
}
