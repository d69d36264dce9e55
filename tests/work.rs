//! How much is done for what the cluster says, counted rather than timed.
//!
//! The cluster is that of the benches, 10,000 Services with ten endpoints each.

#[path = "../benches/node/cluster.rs"]
#[allow(dead_code, reason = "the bench of the node asks more of it")]
mod cluster;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kube_ipvs_proxy::cluster::store::Store;
use kube_ipvs_proxy::cluster::{EndpointSlice, Kind, ObjectName, Update};
use kube_ipvs_proxy::config::Periods;
use kube_ipvs_proxy::desired::Desired;
use kube_ipvs_proxy::desired::service::{self, Facts};
use kube_ipvs_proxy::kernel::{Error, Failure, Kernel};
use kube_ipvs_proxy::model::ipvs::{RealKey, RealServer, ServerKey};
use kube_ipvs_proxy::model::net::{PerFamily, Protocol};
use kube_ipvs_proxy::model::observed::{Host, Observed, Scope};
use kube_ipvs_proxy::model::tables::Tables;
use kube_ipvs_proxy::plan::step::{Change, Step};
use kube_ipvs_proxy::reconcile::engine::Engine;
use nix::time::{ClockId, clock_gettime};

use cluster::{Cluster, PORT, Pod};

const CLUSTER: Cluster = Cluster { services: 10_000, endpoints: 10 };

/// The Service that changes.
const CHANGED: usize = 7_919;

#[test]
fn one_endpoint_touches_one_service_and_is_one_row() {
    let mut node = Node::new();
    let mut pods = CLUSTER.pods(CHANGED);

    pods[3].is_ready = false;
    let lowered = Change::update(key(pods[3]), RealServer::weighing(1), RealServer::weighing(0));
    node.check(slice(&pods), &[Step::Reals(vec![lowered])]);

    pods[3].is_ready = true;
    let raised = Change::update(key(pods[3]), RealServer::weighing(0), RealServer::weighing(1));
    node.check(slice(&pods), &[Step::Reals(vec![raised])]);

    let elsewhere = CLUSTER.new_pod(1);
    pods.push(Pod::ready(elsewhere));
    let added = Change::add(key(pods[10]), RealServer::weighing(1));
    node.check(slice(&pods), &[Step::Reals(vec![added])]);
}

#[test]
fn a_change_touches_the_rows_of_its_service_alone() {
    let mut store = Store::new(&Kind::ALL);
    for update in CLUSTER.updates() {
        store.apply(update);
    }
    let mut desired = Desired::default();
    let names: Vec<ObjectName> = store.services().map(|(name, _)| name.clone()).collect();
    for name in &names {
        replace(&mut desired, &store, name);
    }
    let mut pods = CLUSTER.pods(CHANGED);
    pods[3].is_ready = false;

    let touched = store.apply(slice(&pods));
    assert_eq!(touched.services, BTreeSet::from([name()]));
    assert!(!touched.nodes && !touched.service_cidrs && touched.rejected.is_empty());
    let touched = replace(&mut desired, &store, &name());
    assert_eq!(touched.servers, BTreeSet::from([front()]));
    assert!(touched.entries.is_empty() && touched.addresses.is_empty(), "they are as they were");
}

#[test]
fn an_update_without_meaning_ends_at_the_first_comparison() {
    let mut node = Node::new();
    let pods = CLUSTER.pods(CHANGED);
    let service = cluster::service(CHANGED, 1, "");
    let slice = cluster::slice(CHANGED, &pods, 1, "");
    let heartbeat = |json: String| {
        json.replace(r#""lastHeartbeatTime":null"#, r#""lastHeartbeatTime":"2026-11-21T04:00:00Z""#)
    };
    for (kind, before, after) in [
        (Kind::Service, &service, cluster::service(CHANGED, 2, "")),
        (Kind::Service, &service, cluster::service(CHANGED, 1, "annotated")),
        (Kind::Service, &service, managed_otherwise(&service)),
        (Kind::EndpointSlice, &slice, cluster::slice(CHANGED, &pods, 2, "")),
        (Kind::EndpointSlice, &slice, cluster::slice(CHANGED, &pods, 1, "annotated")),
        (Kind::EndpointSlice, &slice, managed_otherwise(&slice)),
        (Kind::Node, &cluster::node(), heartbeat(cluster::node())),
        (Kind::ServiceCidr, &cluster::service_cidr(), cluster::service_cidr() + " "),
    ] {
        assert_ne!(before, &after, "the update is none");
        assert!(!node.tell(cluster::update(kind, &after)), "a sync is due for {after}");
    }
    let observations = node.kernel.observations;
    node.sync();
    assert_eq!(node.kernel.history, [], "nothing to do");
    assert_eq!(node.kernel.observations, observations, "nothing to look at");
}

/// No event may walk through what did not change, however cheap each step of the walk: it would
/// show in no count of rows or messages.
#[test]
fn the_time_of_a_change_does_not_grow_with_the_cluster() {
    let [few, many] = [100, 10_000].map(|services| {
        let mut node = Node::of(Cluster { services, endpoints: 10 });
        shortest_time_of_changes(&mut node)
    });
    assert!(many < 2 * few, "{few:?} among 100 Services, {many:?} among 10,000");
}

/// The loop follows no change while it tells what is programmed.
#[test]
fn the_time_of_an_answer_does_not_grow_with_the_cluster() {
    let nodes = [1_000, 10_000].map(|services| {
        let mut node = Node::of(Cluster { services, endpoints: 10 });
        node.drain_and_reject();
        node
    });
    // In turn, as the machine changes its pace: both are to see it fast.
    let rounds: Vec<[Vec<Duration>; 2]> =
        (0..20).map(|_| nodes.each_ref().map(times_of_parts)).collect();
    let [few, many] = [0, 1].map(|size: usize| {
        // The shortest time of each part, and of these the longest.
        let shortest = |part: usize| rounds.iter().map(|round| round[size][part]).min();
        (0..rounds[0][size].len()).filter_map(shortest).max().expect("parts")
    });
    assert!(many < 2 * few, "{few:?} among 1,000 Services, {many:?} among 10,000");
}

/// Processor time of each part of what is programmed, which together have all of it.
fn times_of_parts(node: &Node) -> Vec<Duration> {
    let (mut times, mut after, mut told) = (Vec::new(), None, [0, 0]);
    loop {
        let start = processor_time();
        let part = node.engine.view(after, node.now);
        times.push(processor_time() - start);
        told = [told[0] + part.fronts.len(), told[1] + part.drains.len()];
        after = part.rest;
        if after.is_none() {
            let drains = node.cluster.ordinary().len();
            assert_eq!(told, [node.cluster.servers(), drains], "all is told");
            return times;
        }
    }
}

#[test]
fn the_time_of_a_change_does_not_grow_with_what_cannot_be_read() {
    let [few, many] = [100, 10_000].map(|services| {
        let mut node = Node::of(Cluster { services, endpoints: 10 });
        node.restart_partly();
        shortest_time_of_changes(&mut node)
    });
    assert!(many < 2 * few, "{few:?} next to 100 Services, {many:?} next to 10,000");
}

/// The shortest of many is the one that nothing else on the machine disturbed.
fn shortest_time_of_changes(node: &mut Node) -> Duration {
    (0..100).map(|round| time_of_changes(node, round)).min().expect("rounds")
}

/// Processor time of some changes of one endpoint, the same one each time: what is looked up is in
/// the processor's caches, in a cluster of any size.
fn time_of_changes(node: &mut Node, round: usize) -> Duration {
    const FIRST: usize = 50;
    let mut pods = node.cluster.pods(FIRST);
    let start = processor_time();
    for number in 0..4 {
        pods[3].is_ready = number % 2 == 1;
        let slice = cluster::slice(FIRST, &pods, 2 + round as u64, "");
        assert!(node.tell(cluster::update(Kind::EndpointSlice, &slice)), "a sync is due");
        node.sync();
        assert_eq!(node.kernel.history.len(), 1);
    }
    processor_time() - start
}

/// What this thread has used.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock").into()
}

/// The same object, last written by another program at another time.
fn managed_otherwise(json: &str) -> String {
    let other = json.replace("\"manager\":\"", "\"manager\":\"another-");
    other.replace("\"time\":\"2026", "\"time\":\"2027")
}

fn slice(pods: &[Pod]) -> Update {
    cluster::update(Kind::EndpointSlice, &cluster::slice(CHANGED, pods, 2, ""))
}

fn name() -> ObjectName {
    let (namespace, name) = cluster::name(CHANGED);
    ObjectName::new(&namespace, &name)
}

fn front() -> ServerKey {
    let address = Cluster::address(CHANGED).into();
    ServerKey { address, port: PORT, protocol: Protocol::Tcp }
}

fn key(pod: Pod) -> (ServerKey, RealKey) {
    (front(), RealKey { address: pod.address(), port: cluster::POD_PORT })
}

fn replace(
    desired: &mut Desired,
    store: &Store,
    name: &ObjectName,
) -> kube_ipvs_proxy::desired::Touched {
    let nothing = BTreeSet::new();
    let facts = Facts {
        policy: &cluster::policy(),
        zone: None,
        families: PerFamily { v4: true, v6: false },
        host_addresses: &nothing,
        node_addresses: &nothing,
        lacking: &BTreeSet::new(),
    };
    let slices: Vec<&EndpointSlice> = store.endpoints_of(name).collect();
    let rows = store.service(name).map(|of| service::rows(name, of, &slices, facts));
    desired.replace(name, rows)
}

/// A host that does as it is told, and takes note.
#[derive(Default)]
struct Obedient {
    /// What it had when it was read first.
    tables: Tables,
    history: Vec<Step>,
    observations: usize,
}

impl Kernel for Obedient {
    fn observe(&mut self, _: &Scope) -> Result<Observed, Error> {
        self.observations += 1;
        let families = PerFamily { v4: true, v6: false };
        let (host, tables) = (Host { families, ..Host::default() }, self.tables.clone());
        Ok(Observed { host, tables, ..Observed::default() })
    }

    fn apply(&mut self, step: &Step) -> Vec<Failure> {
        self.history.push(step.clone());
        Vec::new()
    }
}

fn engine() -> Engine {
    let hour = Duration::from_secs(3600);
    let periods = Periods { sync: hour, min_sync: Duration::ZERO, audit: hour };
    Engine::new(cluster::policy(), periods, Store::new(&Kind::ALL))
}

/// A node on which the whole cluster is in place.
struct Node {
    cluster: Cluster,
    engine: Engine,
    kernel: Obedient,
    now: Instant,
}

impl Node {
    fn new() -> Self {
        Node::of(CLUSTER)
    }

    fn of(cluster: Cluster) -> Self {
        let kernel = Obedient::default();
        let mut node = Node { cluster, engine: engine(), kernel, now: Instant::now() };
        for update in cluster.updates() {
            node.tell(update);
        }
        node.sync();
        let (desired, mirror) = node.engine.state();
        assert_eq!(mirror.tables.servers.len(), cluster.servers());
        assert_eq!(mirror.tables.servers, desired.tables().servers);
        node
    }

    /// The program starts anew, and of each kind the first objects can be read.
    fn restart_partly(&mut self) {
        const READ: usize = 60;
        self.kernel.tables = self.engine.state().1.tables.clone();
        self.engine = engine();
        let (cluster, mut read) = (self.cluster, 0);
        for update in cluster.updates() {
            let update = match update {
                Update::ListDone(kind) => Update::ListIncomplete(kind),
                update => update,
            };
            read = if matches!(update, Update::Applied(..)) { read + 1 } else { 0 };
            if read <= READ {
                self.tell(update);
            }
        }
        self.sync();
        assert!(self.kernel.history.is_empty(), "all of it stays");
    }

    /// Of each ordinary Service an endpoint drains, and an annotation cannot be used.
    fn drain_and_reject(&mut self) {
        const UNUSABLE: &str = r#"","ipvs.kube-ipvs-proxy.io/scheduler":"none"#;
        for number in self.cluster.ordinary() {
            let mut pods = self.cluster.pods(number);
            pods[3].is_ready = false;
            let slice = cluster::slice(number, &pods, 2, "");
            self.tell(cluster::update(Kind::EndpointSlice, &slice));
            let service = cluster::service(number, 2, UNUSABLE);
            self.tell(cluster::update(Kind::Service, &service));
        }
        self.sync();
        let services = self.cluster.ordinary().len();
        assert_eq!(
            (self.engine.drains().len(), self.engine.rejected().len()),
            (services, services)
        );
    }

    /// Whether a sync is due for the update.
    fn tell(&mut self, update: Update) -> bool {
        self.engine.note(update, self.now)
    }

    fn sync(&mut self) {
        self.now += Duration::from_millis(10);
        self.kernel.history.clear();
        let now = self.now;
        let report = self.engine.sync(&mut self.kernel, || now);
        assert!(report.is_complete(), "{report}");
    }

    /// An update makes exactly these steps, and nothing is read for it.
    fn check(&mut self, update: Update, steps: &[Step]) {
        let observations = self.kernel.observations;
        assert!(self.tell(update), "a sync is due");
        self.sync();
        assert_eq!(self.kernel.history, steps);
        assert_eq!(self.kernel.observations, observations, "nothing is read");
    }
}
