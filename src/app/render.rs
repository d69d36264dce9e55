//! `render`: what would be programmed for a folder of manifests, as text.
//!
//! The engine runs once on paper: a kernel that takes everything. So what is shown is what the
//! daemon would do, by the same code. What is wrong with the folder is told beside it, all of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Exit;
use crate::cluster::store::Store;
use crate::cluster::{Kind, Object, ObjectName, Update};
use crate::config::{Periods, RenderConfig};
use crate::desired::Rejected;
use crate::kernel::{Error, Failure, Kernel};
use crate::model::observed::{Host, Observed, Scope};
use crate::plan::step::Step;
use crate::reconcile::engine::Engine;
use crate::render;
use crate::watch::manifests::{self, Content};

/// A period that no single sync sees the end of.
const NEVER: Duration = Duration::from_secs(3600);

/// Said of a Service of which node ports are not shown.
const NO_NODE_ADDRESS: &str = "spec.ports: no node port is shown, as no address of the node is \
    known: name them with --node-addresses, or add the Node that --hostname-override names";

/// Prints what would be programmed; failed if a file, an object, or a part of one, would
/// not be, or with a default.
pub(super) fn run(config: &RenderConfig) -> anyhow::Result<Exit> {
    let node_name = &config.policy.node_name;
    let content = manifests::read_once(&config.manifests, node_name)?;
    let Content { updates, faults, ignored, oddities, places } = content;
    let with_node_ports: BTreeSet<ObjectName> = updates.iter().filter_map(node_ports).collect();
    let (engine, has_addresses) = programmed(config, updates);
    super::show(&render::text(engine.state().0.tables()))?;
    for ignored in &ignored {
        super::complain(&format!("ignored: {ignored}\n"));
    }
    for odd in &oddities {
        super::complain(&format!("warning: {odd}\n"));
    }
    let rejected = engine.rejected();
    let place = |kind: Kind, object: &ObjectName| {
        let place = places.get(&(kind, object.clone()));
        place.map(|place| format!("{place}: ")).unwrap_or_default()
    };
    for Rejected { kind, object, cause, reason } in &rejected {
        let (word, place) = (cause.word(), place(*kind, object));
        super::complain(&format!("{word}: {place}{kind} {object}: {reason}\n"));
    }
    for service in with_node_ports.iter().filter(|_| !has_addresses) {
        let place = place(Kind::Service, service);
        super::complain(&format!("warning: {place}Service {service}: {NO_NODE_ADDRESS}\n"));
    }
    for fault in &faults {
        super::complain(&format!("error: {fault}\n"));
    }
    let is_whole = rejected.is_empty() && faults.is_empty();
    Ok(Exit::done_if(is_whole))
}

/// The engine after its sync on paper, and whether an address of the node is known.
fn programmed(config: &RenderConfig, updates: Vec<Update>) -> (Engine, bool) {
    let periods = Periods { sync: NEVER, min_sync: Duration::ZERO, audit: NEVER };
    let mut engine = Engine::new(config.policy.clone(), periods, Store::new(&Kind::ALL));
    let now = Instant::now();
    for update in updates {
        engine.note(update, now);
    }
    let host = host(config, &engine);
    let has_addresses = !host.addresses.is_empty();
    engine.sync(&mut Paper { host }, || now);
    (engine, has_addresses)
}

/// The Service that an update tells of, if it has node ports.
fn node_ports(update: &Update) -> Option<ObjectName> {
    let Update::Applied(_, name, parsed) = update else { return None };
    let Some(Object::Service(service)) = &parsed.object else { return None };
    service.ports.iter().any(|port| port.node_port.is_some()).then(|| name.clone())
}

/// The node as it is taken to be.
fn host(config: &RenderConfig, engine: &Engine) -> Host {
    let mut host = config.host.clone();
    if host.addresses.is_empty() {
        host.addresses.extend(engine.node().into_iter().flat_map(|node| &node.addresses));
    }
    host
}

/// A node with nothing on it, that takes every step.
struct Paper {
    host: Host,
}

impl Kernel for Paper {
    fn observe(&mut self, _: &Scope) -> Result<Observed, Error> {
        Ok(Observed { host: self.host.clone(), ..Observed::default() })
    }

    fn apply(&mut self, _: &Step) -> Vec<Failure> {
        Vec::new()
    }
}
