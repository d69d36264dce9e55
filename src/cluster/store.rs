//! The store: everything known about the cluster, folded from updates.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{EndpointSlice, Kind, Node, Object, ObjectName, Service, Update};

/// What an update altered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Services whose own fields or endpoints changed.
    pub services: BTreeSet<ObjectName>,
    /// Whether the own Node changed.
    pub node: bool,
    /// Whether the service ranges changed.
    pub service_cidrs: bool,
}

/// Everything known about the cluster.
#[derive(Debug, Default)]
pub struct Store {
    services: BTreeMap<ObjectName, Service>,
    slices: BTreeMap<ObjectName, EndpointSlice>,
    by_service: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    required: BTreeSet<Kind>,
}

impl Store {
    /// An empty store that is complete when each of these kinds was listed.
    pub fn new(required: impl IntoIterator<Item = Kind>) -> Self {
        Store { required: required.into_iter().collect(), ..Store::default() }
    }

    /// Folds one update in.
    pub fn apply(&mut self, update: Update) -> Change {
        let mut change = Change::default();
        match update {
            Update::ListStarted(_) => {}
            Update::ListDone(kind) => {
                self.required.remove(&kind);
            }
            Update::Applied(_, name, parsed) => match parsed.object {
                Some(Object::Service(service)) => {
                    change.services.insert(name.clone());
                    self.services.insert(name, service);
                }
                Some(Object::EndpointSlice(slice)) => {
                    change.services.insert(slice.service.clone());
                    self.by_service.entry(slice.service.clone()).or_default().insert(name.clone());
                    self.slices.insert(name, slice);
                }
                _ => {}
            },
            Update::Deleted(Kind::Service, name) => {
                self.services.remove(&name);
                change.services.insert(name);
            }
            Update::Deleted(_, name) => {
                if let Some(slice) = self.slices.remove(&name) {
                    change.services.insert(slice.service.clone());
                    self.by_service.entry(slice.service).or_default().remove(&name);
                }
            }
        }
        change
    }

    /// Whether each required kind was listed.
    pub fn is_complete(&self) -> bool {
        self.required.is_empty()
    }

    /// A Service.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    /// The slices of a Service.
    pub fn endpoints_of(&self, name: &ObjectName) -> impl Iterator<Item = &EndpointSlice> {
        self.by_service.get(name).into_iter().flatten().filter_map(|slice| self.slices.get(slice))
    }

    /// The own Node.
    pub fn node(&self) -> Option<&Node> {
        None
    }

    /// Ranges of service addresses.
    pub fn service_cidrs(&self) -> impl Iterator<Item = IpNet> {
        std::iter::empty()
    }

    /// What could not be used, and why.
    pub fn rejected(&self) -> impl Iterator<Item = (&ObjectName, &[String])> {
        std::iter::empty()
    }
}
