//! Session affinity: a client stays with its pod, for as long as the pod is there.

use std::net::SocketAddr;

use libtest_mimic::Trial;

use crate::client::{self, Conversation};
use crate::cluster::{self, Manifests, POD_PORT, SOON, Service};
use crate::daemon::Daemon;
use crate::dump;
use crate::pod_server::PodServer;
use crate::wait;
use crate::whoami::Transport::{self, Tcp, Udp};
use crate::world::{Family, Place, Pod, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        affinity_keeps_each_client_with_its_pod,
        affinity_timeout_changes_in_place,
        affinity_ends_with_the_pod,
    ]
}

const TRANSPORTS: [Transport; 2] = [Tcp, Udp];
const HOURS: &str = "  sessionAffinity: ClientIP\n  \
                     sessionAffinityConfig: {clientIP: {timeoutSeconds: 10800}}\n";
const SECONDS: &str = "  sessionAffinity: ClientIP\n  \
                       sessionAffinityConfig: {clientIP: {timeoutSeconds: 2}}\n";

/// Two pods that serve, and two clients.
struct Stage {
    world: World,
    pods: [Pod; 2],
    clients: [Pod; 2],
    servers: [Vec<PodServer>; 2],
}

impl Stage {
    fn new() -> Self {
        let world = World::new();
        let pods = [3, 4].map(|number| world.pod(&format!("pod-{number}"), Place::Node, number));
        let clients = [8, 9].map(|number| world.pod("client", Place::Node, number));
        let serve = |pod: &Pod| TRANSPORTS.map(|transport| pod.serve(transport, POD_PORT)).into();
        let servers = pods.each_ref().map(serve);
        Self { world, pods, clients, servers }
    }

    /// The pod that answers a client's next question.
    fn ask(&self, client: usize, transport: Transport, front: SocketAddr) -> String {
        let answer = client::ask(&self.clients[client].namespace, transport, front);
        answer.unwrap_or_else(|error| panic!("{transport:?} {front}: {error}")).pod
    }

    fn start(&self, service: &Service<'_>) -> (Manifests, Daemon) {
        let manifests = Manifests::new();
        manifests.put("web.yaml", &service.manifest());
        let daemon = cluster::start(&self.world, &manifests, &[]);
        (manifests, daemon)
    }
}

fn service<'a>(pods: &'a [&'a Pod], spec: &'static str) -> Service<'a> {
    Service { transports: &TRANSPORTS, spec, ..Service::new("web", 128, pods) }
}

/// Every virtual server of the Service, with its name as `ipvsadm` has it.
fn fronts(service: &Service<'_>) -> Vec<(Transport, SocketAddr, String)> {
    let named = |(transport, option, family): (Transport, &str, Family)| {
        let front = service.front(family);
        (transport, front, format!("{option} {front}"))
    };
    let both = Family::BOTH.into_iter();
    both.flat_map(|family| [(Tcp, "-t", family), (Udp, "-u", family)]).map(named).collect()
}

/// The scheduler gives the second client the other pod: it is affinity that keeps the first.
fn affinity_keeps_each_client_with_its_pod() {
    let stage = Stage::new();
    let pods = stage.pods.each_ref();
    let service = service(&pods, HOURS);
    let _running = stage.start(&service);
    for (transport, front, _) in fronts(&service) {
        let [first, second] = [0, 1].map(|client| stage.ask(client, transport, front));
        assert_ne!(first, second, "{transport:?} {front}");
        for _ in 0..5 {
            assert_eq!(stage.ask(0, transport, front), first, "{transport:?} {front}");
            assert_eq!(stage.ask(1, transport, front), second, "{transport:?} {front}");
        }
    }
}

/// Kernel: a client that is known keeps the time that it was given; new ones get the new time.
fn affinity_timeout_changes_in_place() {
    let stage = Stage::new();
    let pods = stage.pods.each_ref();
    let service = service(&pods, HOURS);
    let (manifests, _daemon) = stage.start(&service);
    // Affinity outlives the flow; for UDP flows that is five minutes unless told otherwise.
    stage.world.node.output("ipvsadm", &["--set", "0", "0", "1"]);
    let old: Vec<String> = fronts(&service).iter().map(|(t, f, _)| stage.ask(0, *t, *f)).collect();
    let front = service.front(Family::Ipv4);
    let mut conversation = Conversation::open(&stage.clients[1].namespace, Tcp, front).unwrap();
    let talking_to = conversation.ask().unwrap().pod;

    manifests.put("web.yaml", &Service { spec: SECONDS, ..service.clone() }.manifest());
    let servers = || dump::servers(&stage.world.node);
    wait::until("the new timeout", SOON, || servers().matches(" -p 2\n").count() == 4);
    assert_eq!(conversation.ask().unwrap().pod, talking_to, "its connection lives");
    for ((transport, front, name), pod) in fronts(&service).iter().zip(&old) {
        assert_eq!(stage.ask(0, *transport, *front), *pod, "{name}: it keeps its pod");
        assert_eq!(dump::live_reals(&stage.world.node, name).len(), 2, "{name}");
    }
    for family in Family::BOTH {
        affinity_is_short(&stage, service.front(family), stage.clients[1].address(family));
    }
}

/// The second client stays with its pod for a while over UDP, and then gets the other one.
fn affinity_is_short(stage: &Stage, front: SocketAddr, client: std::net::IpAddr) {
    let pod = stage.ask(1, Udp, front);
    assert_eq!(stage.ask(1, Udp, front), pod, "{front}");
    let is_known = || {
        let entries = stage.world.node.output("ipvsadm", &["-Lnc"]);
        let client = client.to_string();
        entries.lines().any(|line| line.contains("UDP") && line.contains(&client))
    };
    assert!(is_known(), "{front}");
    wait::until("the end of its affinity", SOON, || !is_known());
    assert_ne!(stage.ask(1, Udp, front), pod, "{front}");
}

/// The next connection goes to a living pod at once: its first attempt has to succeed.
fn affinity_ends_with_the_pod() {
    let mut stage = Stage::new();
    let pods = stage.pods.each_ref();
    let service_of_both = service(&pods, HOURS);
    let (manifests, _daemon) = stage.start(&service_of_both);
    // So that each client has a pod, and every pod a client.
    for (transport, front, _) in fronts(&service_of_both) {
        let [first, second] = [0, 1].map(|client| stage.ask(client, transport, front));
        assert_ne!(first, second, "{transport:?} {front}");
    }
    let staying = [&stage.pods[1]];
    let service = service(&staying, HOURS);
    manifests.put("web.yaml", &service.manifest());
    for (_, _, name) in fronts(&service) {
        let live = || dump::live_reals(&stage.world.node, &name).len();
        wait::until("one real server", SOON, || live() == 1);
    }
    let fronts = fronts(&service);
    drop(std::mem::take(&mut stage.servers[0]));
    for (transport, front, _) in fronts {
        for client in [0, 1] {
            assert_eq!(stage.ask(client, transport, front), "pod-4", "{transport:?} {front}");
        }
    }
}
