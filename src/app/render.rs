//! `render`: what would be programmed for a folder of manifests, as text.
//!
//! The engine runs once on paper: a kernel that takes everything. So what is shown is what the
//! daemon would do, by the same code. What is wrong with the folder is told beside it, all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::num::NonZero;
use std::time::{Duration, Instant};

use super::Exit;
use crate::cluster::store::Store;
use crate::cluster::{Kind, Object, ObjectName, Update};
use crate::config::{Periods, RenderConfig};
use crate::desired::{Cause, Rejected};
use crate::kernel::{self, Failure, Kernel};
use crate::model::observed::{Host, Observed, Scope};
use crate::plan::step::Step;
use crate::reconcile::engine::Engine;
use crate::render;
use crate::watch::Error;
use crate::watch::manifests::{self, Content, Place};

/// A period that no single sync sees the end of.
const NEVER: Duration = Duration::from_secs(3600);

/// Said of a Service of which node ports are not shown.
const NO_NODE_ADDRESS: &str = "spec.ports: no node port is shown, as no address of the node is \
    known: name them with --node-addresses, or add the Node that --hostname-override names";

/// Something to tell of the folder; in the order of files and lines, what weighs most first.
struct Complaint {
    place: Place,
    weight: Weight,
    text: String,
}

/// What becomes of what a complaint is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Error,
    Rejected,
    Defaulted,
    Warning,
    Ignored,
}

impl Weight {
    fn word(self) -> &'static str {
        match self {
            Weight::Error => "error",
            Weight::Rejected => Cause::Unusable.word(),
            Weight::Defaulted => Cause::Defaulted.word(),
            Weight::Warning => "warning",
            Weight::Ignored => "ignored",
        }
    }
}

/// Prints what would be programmed; failed if a file, an object, or a part of one, would
/// not be, or with a default.
pub(super) fn run(config: &RenderConfig) -> anyhow::Result<Exit> {
    let node_name = &config.policy.node_name;
    let mut content = manifests::read_once(&config.manifests, node_name)?;
    let updates = mem::take(&mut content.updates);
    let with_node_ports: BTreeSet<ObjectName> = updates.iter().filter_map(node_ports).collect();
    let (engine, has_addresses) = programmed(config, updates);
    super::show(&render::text(engine.state().0.tables()))?;
    let without_address = if has_addresses { BTreeSet::new() } else { with_node_ports };
    let mut complaints = of_folder(&content);
    complaints.extend(of_objects(&engine.rejected(), &without_address, &content.places));
    complaints.sort_by(|a, b| (&a.place, a.weight).cmp(&(&b.place, b.weight)));
    for Complaint { weight, text, .. } in &complaints {
        super::complain(&format!("{}: {text}\n", weight.word()));
    }
    let is_whole = complaints.iter().all(|complaint| complaint.weight >= Weight::Warning);
    Ok(Exit::done_if(is_whole))
}

/// What there is to tell of the files themselves.
fn of_folder(content: &Content) -> Vec<Complaint> {
    let Content { faults, ignored, oddities, .. } = content;
    let faults = faults.iter().map(|fault| Complaint {
        place: place_of(fault),
        weight: Weight::Error,
        text: fault.to_string(),
    });
    let ignored = ignored.iter().map(|note| (Weight::Ignored, note));
    let notes = oddities.iter().map(|note| (Weight::Warning, note)).chain(ignored);
    let notes = notes.map(|(weight, note)| Complaint {
        place: note.place.clone(),
        weight,
        text: note.to_string(),
    });
    faults.chain(notes).collect()
}

/// Where something is wrong with a file.
fn place_of(fault: &Error) -> Place {
    let Error::Manifest { path, fault } = fault else { return Place::default() };
    let line = fault.line.and_then(|line| NonZero::new(u32::try_from(line).ok()?));
    Place { path: path.clone(), line }
}

/// What there is to tell of what became of objects.
fn of_objects(
    rejected: &[Rejected],
    without_address: &BTreeSet<ObjectName>,
    places: &BTreeMap<(Kind, ObjectName), Place>,
) -> Vec<Complaint> {
    let complaint = |weight, kind: Kind, object: &ObjectName, reason: &str| {
        let told = format!("{kind} {object}: {reason}");
        match places.get(&(kind, object.clone())) {
            Some(place) => {
                Complaint { place: place.clone(), weight, text: format!("{place}: {told}") }
            }
            None => Complaint { place: Place::default(), weight, text: told },
        }
    };
    let rejected = rejected.iter().map(|Rejected { kind, object, cause, reason }| {
        let weight = if cause.leaves_default() { Weight::Defaulted } else { Weight::Rejected };
        complaint(weight, *kind, object, reason)
    });
    let without_address = without_address
        .iter()
        .map(|service| complaint(Weight::Warning, Kind::Service, service, NO_NODE_ADDRESS));
    rejected.chain(without_address).collect()
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
    fn observe(&mut self, _: &Scope) -> Result<Observed, kernel::Error> {
        Ok(Observed { host: self.host.clone(), ..Observed::default() })
    }

    fn apply(&mut self, _: &Step) -> Vec<Failure> {
        Vec::new()
    }
}
