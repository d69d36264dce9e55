//! `render`: what would be programmed for a folder of manifests, as text.
//!
//! The engine runs once on paper: a kernel that takes everything. So what is shown is what the
//! daemon would do, by the same code. What is wrong with the folder is told beside it, all of it.

use std::time::{Duration, Instant};

use super::Exit;
use crate::cluster::Kind;
use crate::cluster::store::Store;
use crate::config::{Periods, RenderConfig};
use crate::kernel::{Error, Failure, Kernel};
use crate::model::observed::{Host, Observed, Scope};
use crate::plan::step::Step;
use crate::reconcile::engine::Engine;
use crate::render;
use crate::watch::manifests::{self, Content};

/// A period that no single sync sees the end of.
const NEVER: Duration = Duration::from_secs(3600);

/// Prints what would be programmed; failed if a file, an object, or a part of one, would not be.
pub(super) fn run(config: &RenderConfig) -> anyhow::Result<Exit> {
    let node_name = &config.policy.node_name;
    let content = manifests::read_once(&config.manifests, node_name)?;
    let Content { updates, faults, ignored, oddities, places } = content;
    let periods = Periods { sync: NEVER, min_sync: Duration::ZERO, audit: NEVER };
    let mut engine = Engine::new(config.policy.clone(), periods, Store::new(&Kind::ALL));
    let now = Instant::now();
    for update in updates {
        engine.note(update, now);
    }
    let host = host(config, &engine);
    let has_addresses = !host.addresses.is_empty();
    engine.sync(&mut Paper { host }, || now);
    super::show(&render::text(engine.state().0.tables()))?;
    for ignored in &ignored {
        super::complain(&format!("ignored: {ignored}\n"));
    }
    for odd in &oddities {
        super::complain(&format!("warning: {odd}\n"));
    }
    let rejected = engine.rejected();
    for rejected in &rejected {
        let files = places.get(&(rejected.kind, rejected.object.clone())).into_iter().flatten();
        let files: Vec<String> = files.map(|path| path.display().to_string()).collect();
        let (object, reason, files) = (&rejected.object, &rejected.reason, files.join(", "));
        super::complain(&format!("rejected: {files}: {object}: {reason}\n"));
    }
    warn_of_node_ports(&engine, has_addresses);
    for fault in &faults {
        super::complain(&format!("error: {fault}\n"));
    }
    let is_whole = rejected.is_empty() && faults.is_empty();
    Ok(if is_whole { Exit::Done } else { Exit::Failed })
}

/// Names the Services whose node ports are open nowhere, as no address of the node is known.
fn warn_of_node_ports(engine: &Engine, has_addresses: bool) {
    let (desired, _) = engine.state();
    for service in desired.users_of_host().filter(|_| !has_addresses) {
        super::complain(&format!(
            "warning: {service}: spec.ports: no node port is shown, as no address of the node is \
             known: name them with --node-addresses, or add the Node that --hostname-override \
             names\n"
        ));
    }
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
