//! The store: everything the sources have said about the cluster, folded from their updates.
//!
//! Filled by the reconcile thread from the channel that `watch` fills; read by `desired`.
//! Invariant: an object goes only when it is deleted or when a list to its end does not name it;
//! an update that equals what is known touches nothing.

mod triggers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use ipnet::IpNet;

pub use self::triggers::Trigger;
use self::triggers::Triggers;
use super::names::Names;
use super::{EndpointSlice, Kind, Node, Object, ObjectName, Parsed, Reason, Service, Update};

/// What updates changed, so that only that is computed again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Services that changed or whose endpoints did.
    pub services: BTreeSet<ObjectName>,
    /// Whether a Node changed.
    pub nodes: bool,
    /// Whether the ranges of service addresses changed.
    pub service_cidrs: bool,
    /// Objects whose reasons not to be programmed as they say changed, or went.
    pub rejected: BTreeSet<(Kind, ObjectName)>,
}

impl Touched {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Touched::default()
    }

    /// Adds what another update touched.
    pub fn merge(&mut self, other: Touched) {
        self.services.extend(other.services);
        self.nodes |= other.nodes;
        self.service_cidrs |= other.service_cidrs;
        self.rejected.extend(other.rejected);
    }

    fn add(&mut self, name: &ObjectName, object: &Object) {
        match object {
            Object::Service(_) => {
                self.services.insert(name.clone());
            }
            Object::EndpointSlice(slice) => {
                self.services.insert(slice.service.clone());
            }
            Object::Endpoints(slices) => {
                self.services.extend(slices.first().map(|slice| slice.service.clone()));
            }
            Object::Node(_) => self.nodes = true,
            Object::ServiceCidr(_) => self.service_cidrs = true,
        }
    }
}

/// The cluster as known so far.
#[derive(Debug)]
pub struct Store {
    tables: BTreeMap<Kind, Table>,
    /// Which objects hold the endpoints of a Service, in a fixed order; hardly ever more than two.
    holders: BTreeMap<ObjectName, Vec<(Kind, ObjectName)>>,
    /// Required kinds whose first list is not done.
    awaited: BTreeSet<Kind>,
    /// Kinds whose last list could not be read whole.
    incomplete: BTreeSet<Kind>,
    names: Names,
    triggers: Triggers,
}

/// The objects of one kind.
#[derive(Debug, Default)]
struct Table {
    objects: BTreeMap<ObjectName, Parsed>,
    /// While a list runs: known objects that it has not named yet.
    unseen: Option<BTreeSet<ObjectName>>,
}

impl Store {
    /// An empty store that is complete once each of these kinds has been listed.
    pub fn new(required: &[Kind]) -> Self {
        Store {
            tables: BTreeMap::new(),
            holders: BTreeMap::new(),
            awaited: required.iter().copied().collect(),
            incomplete: BTreeSet::new(),
            names: Names::default(),
            triggers: Triggers::default(),
        }
    }

    /// Folds one update in and tells what it touched.
    pub fn apply(&mut self, update: Update) -> Touched {
        match update {
            Update::ListStarted(kind) => {
                let table = self.tables.entry(kind).or_default();
                table.unseen = Some(table.objects.keys().cloned().collect());
                Touched::default()
            }
            Update::Applied(kind, name, parsed) => self.replace(kind, name, parsed),
            Update::Deleted(kind, name) => self.replace(kind, name, Parsed::default()),
            Update::ListDone(kind) => {
                self.incomplete.remove(&kind);
                self.finish_list(kind)
            }
            Update::ListIncomplete(kind) => {
                self.incomplete.insert(kind);
                self.finish_list(kind)
            }
        }
    }

    /// Whether a part of the cluster has never been read: what is not known may exist all the same,
    /// so nothing may be removed but what was known once.
    pub fn is_partial(&self) -> bool {
        !self.incomplete.is_empty()
    }

    /// What caused the changes of endpoints since this was asked last, and since the first lists:
    /// what was there before us was not for us to program in time.
    pub fn take_triggers(&mut self) -> Vec<Trigger> {
        self.triggers.take()
    }

    /// Whether every required kind has been listed once; before that nothing may be programmed.
    pub fn is_complete(&self) -> bool {
        self.awaited.is_empty()
    }

    /// The required kinds whose first list is not done.
    pub fn awaited(&self) -> impl Iterator<Item = Kind> {
        self.awaited.iter().copied()
    }

    /// A Service.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        match self.object(Kind::Service, name)? {
            Object::Service(service) => Some(service),
            _ => None,
        }
    }

    /// All Services, by name.
    pub fn services(&self) -> impl Iterator<Item = (&ObjectName, &Service)> {
        self.parsed(Kind::Service).filter_map(|(name, parsed)| match &parsed.object {
            Some(Object::Service(service)) => Some((name, service)),
            _ => None,
        })
    }

    /// The slices of a Service, in a fixed order.
    ///
    /// Endpoints count only where it has none: a folder may hold both accounts of one cluster, and
    /// slices say more (hints, leaving endpoints).
    pub fn endpoints_of<'a>(
        &'a self,
        service: &ObjectName,
    ) -> impl Iterator<Item = &'a EndpointSlice> + use<'a> {
        let holders = self.holders.get(service).into_iter().flatten();
        // Order: slices are sorted before Endpoints.
        let counted = holders.clone().next().map(|(kind, _)| *kind);
        holders
            .filter(move |(kind, _)| Some(*kind) == counted)
            .filter_map(|(kind, name)| self.object(*kind, name))
            .flat_map(|object| slices(object).iter())
    }

    /// A Node by its name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        match self.object(Kind::Node, &ObjectName::new("", name))? {
            Object::Node(node) => Some(node),
            _ => None,
        }
    }

    /// The ranges that service addresses are allocated from.
    pub fn service_cidrs(&self) -> impl Iterator<Item = &IpNet> {
        let objects =
            self.parsed(Kind::ServiceCidr).filter_map(|(_, parsed)| parsed.object.as_ref());
        objects.flat_map(|object| match object {
            Object::ServiceCidr(ranges) => ranges.as_slice(),
            _ => &[],
        })
    }

    /// Objects that are not programmed as they say, with the reasons.
    pub fn unusable(&self) -> impl Iterator<Item = (Kind, &ObjectName, &[Reason])> {
        self.tables.iter().flat_map(|(kind, table)| {
            let rejected = table.objects.iter().filter(|(_, parsed)| !parsed.reasons.is_empty());
            rejected.map(|(name, parsed)| (*kind, name, parsed.reasons.as_slice()))
        })
    }

    fn parsed(&self, kind: Kind) -> impl Iterator<Item = (&ObjectName, &Parsed)> {
        self.tables.get(&kind).into_iter().flat_map(|table| &table.objects)
    }

    fn object(&self, kind: Kind, name: &ObjectName) -> Option<&Object> {
        self.tables.get(&kind)?.objects.get(name)?.object.as_ref()
    }

    /// Puts an object in the place of what was known by its name; one that is nothing goes.
    fn replace(&mut self, kind: Kind, mut name: ObjectName, mut parsed: Parsed) -> Touched {
        self.names.share_in_name(&mut name);
        if let Some(object) = &mut parsed.object {
            self.names.share_in(object);
        }
        let table = self.tables.entry(kind).or_default();
        if let Some(unseen) = &mut table.unseen {
            unseen.remove(&name);
        }
        let old = table.objects.remove(&name).unwrap_or_default();
        let triggered = parsed.triggered.take().map(|time| *time);
        let touched = difference(kind, &name, &old, &parsed);
        if !touched.services.is_empty() {
            self.note_trigger(triggered, old.object.as_ref(), parsed.object.as_ref());
        }
        self.reindex(kind, &name, old.object.as_ref(), parsed.object.as_ref());
        if parsed != Parsed::default()
            && let Some(table) = self.tables.get_mut(&kind)
        {
            table.objects.insert(name, parsed);
        }
        touched
    }

    fn note_trigger(
        &mut self,
        triggered: Option<SystemTime>,
        old: Option<&Object>,
        new: Option<&Object>,
    ) {
        let (before, after) = (old.map_or(&[][..], slices), new.map_or(&[][..], slices));
        match (triggered, after) {
            (_, []) => before.iter().for_each(|slice| self.triggers.forget(&slice.service)),
            (Some(at), _) if self.is_complete() => {
                for EndpointSlice { service, family, .. } in after {
                    self.triggers.add(service, Trigger { family: *family, at });
                }
            }
            _ => {}
        }
    }

    fn reindex(
        &mut self,
        kind: Kind,
        name: &ObjectName,
        old: Option<&Object>,
        new: Option<&Object>,
    ) {
        let service = |object| slices(object).first().map(|slice| slice.service.clone());
        let (before, after) = (old.and_then(service), new.and_then(service));
        if before == after {
            return;
        }
        let holder = (kind, name.clone());
        if let Some(service) = before
            && let Some(holders) = self.holders.get_mut(&service)
        {
            holders.retain(|other| *other != holder);
            if holders.is_empty() {
                self.holders.remove(&service);
            }
        }
        if let Some(service) = after {
            // Cost: hardly any Service has a second one, and room for four is what others take.
            let holders = self.holders.entry(service).or_insert_with(|| Vec::with_capacity(1));
            let place = holders.partition_point(|other| *other < holder);
            holders.insert(place, holder);
        }
    }

    /// Removes what the list did not name.
    fn finish_list(&mut self, kind: Kind) -> Touched {
        self.awaited.remove(&kind);
        let unseen = self.tables.get_mut(&kind).and_then(|table| table.unseen.take());
        let mut touched = Touched::default();
        for name in unseen.into_iter().flatten() {
            touched.merge(self.replace(kind, name, Parsed::default()));
        }
        if let Some(table) = self.tables.get_mut(&kind) {
            table.pack();
        }
        touched
    }
}

impl Table {
    /// Builds the map anew: insertion in order, as lists are, leaves a third of it unused.
    fn pack(&mut self) {
        self.objects = std::mem::take(&mut self.objects).into_iter().collect();
    }
}

/// The slices that an object holds.
fn slices(object: &Object) -> &[EndpointSlice] {
    match object {
        Object::EndpointSlice(slice) => std::slice::from_ref(slice),
        Object::Endpoints(slices) => slices,
        Object::Service(_) | Object::Node(_) | Object::ServiceCidr(_) => &[],
    }
}

fn difference(kind: Kind, name: &ObjectName, old: &Parsed, new: &Parsed) -> Touched {
    let mut touched = Touched::default();
    if old.object != new.object {
        for object in [&old.object, &new.object].into_iter().flatten() {
            touched.add(name, object);
        }
    }
    if old.reasons != new.reasons {
        touched.rejected.insert((kind, name.clone()));
    }
    touched
}

#[cfg(test)]
mod tests;
