//! Micro-benchmarks of the pure core: what one change costs in clusters of several sizes.
//!
//! The cost may grow with the depth of a map, never with the number of Services.

#[path = "node/cluster.rs"]
#[allow(dead_code, reason = "the bench of the node asks more of it")]
mod cluster;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use divan::{Bencher, black_box};
use kube_ipvs_proxy::cluster::store::Store;
use kube_ipvs_proxy::cluster::{EndpointSlice, Kind, ObjectName, Update, objects};
use kube_ipvs_proxy::config::Policy;
use kube_ipvs_proxy::desired::Desired;
use kube_ipvs_proxy::desired::front::ServiceRows;
use kube_ipvs_proxy::desired::service::{self, Facts};
use kube_ipvs_proxy::model::net::PerFamily;
use kube_ipvs_proxy::plan::drain::Drains;
use kube_ipvs_proxy::plan::mirror::Mirror;
use kube_ipvs_proxy::plan::slow::Slow;
use kube_ipvs_proxy::plan::{self, Extent, Inputs};

use cluster::Cluster;

/// Services, with ten endpoints each.
const SIZES: [usize; 3] = [100, 1_000, 10_000];

/// The Service that changes.
const CHANGED: usize = 77;

fn main() {
    divan::main();
}

/// The text of a slice to a typed value.
#[divan::bench(args = SIZES)]
fn parse_a_slice(bencher: Bencher<'_, '_>, services: usize) {
    let json = change(Cluster { services, endpoints: 10 }, 0);
    bencher.bench(|| objects::read(Kind::EndpointSlice, black_box(&json)));
}

/// A typed value into the store.
#[divan::bench(args = SIZES)]
fn store_a_change(bencher: Bencher<'_, '_>, services: usize) {
    let mut world = World::new(services);
    let updates = world.changes();
    let mut turn = 0;
    bencher.bench_local(|| {
        turn += 1;
        world.store.apply(updates[turn % 2].clone())
    });
}

/// A Service with its slices to rows.
#[divan::bench(args = SIZES)]
fn rows_of_a_service(bencher: Bencher<'_, '_>, services: usize) {
    let world = World::new(services);
    bencher.bench_local(|| world.rows());
}

/// Rows into the sum of all rows.
#[divan::bench(args = SIZES)]
fn replace_rows(bencher: Bencher<'_, '_>, services: usize) {
    let mut world = World::new(services);
    let rows = world.changes().map(|update| world.after(update));
    let mut turn = 0;
    bencher.bench_local(|| {
        turn += 1;
        world.desired.replace(&world.name, rows[turn % 2].clone())
    });
}

/// Touched rows to steps.
#[divan::bench(args = SIZES)]
fn plan_a_change(bencher: Bencher<'_, '_>, services: usize) {
    let mut world = World::new(services);
    let [_, changed] = world.changes();
    let rows = world.after(changed);
    let extent = Extent::Touched(world.desired.replace(&world.name, rows));
    let (drains, now) = (Drains::default(), Instant::now());
    bencher.bench_local(|| plan::build(world.inputs(&drains, now), &extent));
}

/// From an update to the mirror, all stages together.
#[divan::bench(args = SIZES)]
fn one_change_through_all(bencher: Bencher<'_, '_>, services: usize) {
    let mut world = World::new(services);
    let updates = world.changes();
    let mut drains = Drains::default();
    let mut now = Instant::now();
    let mut turn = 0;
    bencher.bench_local(|| {
        turn += 1;
        now += Duration::from_millis(1);
        let rows = world.after(updates[turn % 2].clone());
        let touched = world.desired.replace(&world.name, rows);
        let servers = touched.servers.clone();
        drains.track((&world.desired, &world.mirror.tables), &servers, |_, _| false, now);
        let steps = plan::build(world.inputs(&drains, now), &Extent::Touched(touched));
        assert_eq!(steps.len(), 1, "{steps:?}");
        for step in &steps {
            world.mirror.note(step, &BTreeSet::new());
        }
    });
}

/// A slice as JSON; every other turn its first endpoint is not ready.
fn change(cluster: Cluster, turn: usize) -> String {
    let mut pods = cluster.pods(CHANGED);
    pods[0].is_ready = turn.is_multiple_of(2);
    cluster::slice(CHANGED, &pods, 1, "")
}

/// A cluster that is in the kernel.
struct World {
    cluster: Cluster,
    policy: Policy,
    store: Store,
    desired: Desired,
    mirror: Mirror,
    /// The Service that changes.
    name: ObjectName,
}

/// None of the changes is a slow one.
static NOTHING: Slow = Slow { addresses: BTreeSet::new(), servers: BTreeSet::new() };

impl World {
    fn inputs<'a>(&'a self, drains: &'a Drains, now: Instant) -> Inputs<'a> {
        Inputs { desired: &self.desired, mirror: &self.mirror, drains, slow: &NOTHING, now }
    }

    fn new(services: usize) -> Self {
        let cluster = Cluster { services, endpoints: 10 };
        let (namespace, name) = cluster::name(CHANGED);
        let mut world = World {
            cluster,
            policy: cluster::policy(),
            store: Store::new(&Kind::ALL),
            desired: Desired::default(),
            mirror: Mirror::default(),
            name: ObjectName::new(&namespace, &name),
        };
        for update in cluster.updates() {
            world.store.apply(update);
        }
        let names: Vec<ObjectName> = world.store.services().map(|(name, _)| name.clone()).collect();
        for name in names {
            let rows = world.rows_of(&name);
            world.desired.replace(&name, rows);
        }
        world.mirror.replace(world.desired.tables().clone());
        world
    }

    /// Two versions of the slice that changes.
    fn changes(&self) -> [Update; 2] {
        [0, 1].map(|turn| cluster::update(Kind::EndpointSlice, &change(self.cluster, turn)))
    }

    /// The rows of the Service that changes, after an update.
    fn after(&mut self, update: Update) -> Option<ServiceRows> {
        self.store.apply(update);
        self.rows()
    }

    fn rows(&self) -> Option<ServiceRows> {
        self.rows_of(&self.name)
    }

    fn rows_of(&self, name: &ObjectName) -> Option<ServiceRows> {
        let (nothing, all_there) = (BTreeSet::new(), BTreeSet::new());
        let facts = Facts {
            policy: &self.policy,
            zone: None,
            families: PerFamily { v4: true, v6: false },
            host_addresses: &nothing,
            node_addresses: &nothing,
            lacking: &all_there,
        };
        let slices: Vec<&EndpointSlice> = self.store.endpoints_of(name).collect();
        self.store.service(name).map(|of| service::rows(name, of, &slices, facts))
    }
}
