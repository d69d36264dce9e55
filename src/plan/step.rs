//! Steps: the only language that the kernel edge obeys.
//!
//! A step is one homogeneous batch; the order of steps is the order of execution.

use std::net::IpAddr;

use crate::model::conntrack::Flow;
use crate::model::ipset::{Entry, SetId, SetKey, SetSpec};
use crate::model::iptables::{ChainKey, Ruleset};
use crate::model::ipvs::{RealKey, RealServer, ServerKey, VirtualServer};
use crate::model::leftover::Leftover;
use crate::model::link::Binding;
use crate::model::net::Family;

/// One row brought from what is there to what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<K, V> {
    /// Which row.
    pub key: K,
    /// What the mirror holds.
    pub from: Option<V>,
    /// What is wanted.
    pub to: Option<V>,
}

impl<K, V> Change<K, V> {
    /// A row that is not there yet.
    pub fn add(key: K, value: V) -> Self {
        Change { key, from: None, to: Some(value) }
    }

    /// A row that is there with another value.
    pub fn update(key: K, from: V, to: V) -> Self {
        Change { key, from: Some(from), to: Some(to) }
    }

    /// A row that is no longer wanted.
    pub fn remove(key: K, value: V) -> Self {
        Change { key, from: Some(value), to: None }
    }
}

impl Change<IpAddr, Binding> {
    /// Whether it takes a way away in which the address is local; else it adds one.
    pub fn takes_away(&self) -> bool {
        let from = self.from.unwrap_or(Binding::NOTHING);
        self.to.is_none_or(|to| from.covers(to))
    }
}

impl Change<ServerKey, VirtualServer> {
    /// Whether a virtual server that is there gets another scheduler.
    ///
    /// Kernel: it has none for an RCU grace period, and refuses connections that begin then.
    pub fn is_of_scheduler(&self) -> bool {
        let schedulers = self.from.as_ref().zip(self.to.as_ref());
        schedulers.is_some_and(|(from, to)| from.scheduler != to.scheduler)
    }
}

/// A batch of changes of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Kernel settings; never removed.
    Settings(Vec<Change<String, String>>),
    /// Sets created or destroyed.
    Sets(Vec<Change<SetKey, SetSpec>>),
    /// The dummy device, made (`true`) or removed.
    Device(bool),
    /// Rules of one family, as one transaction per table.
    Rules(RulesChange),
    /// Chains deleted that are empty already; each alone, for others may still lead to one.
    Chains(Vec<Change<ChainKey, ()>>),
    /// Entries added or removed.
    Entries(Vec<Change<Entry, ()>>),
    /// Virtual servers added, changed or removed (with their real servers).
    Servers(Vec<Change<ServerKey, VirtualServer>>),
    /// Real servers added, changed or removed.
    Reals(Vec<Change<(ServerKey, RealKey), RealServer>>),
    /// Addresses bound, bound otherwise, or unbound.
    Addresses(Vec<Change<IpAddr, Binding>>),
    /// UDP flows removed from connection tracking; the client's next packet makes a new one.
    Flows(Vec<Change<Flow, ()>>),
    /// What other modes of kube-proxy left behind, removed; each is found anew by then.
    Leftovers(Vec<Change<Leftover, ()>>),
}

/// A new ruleset of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesChange {
    /// Which family.
    pub family: Family,
    /// Input of `iptables-restore --noflush`.
    pub payload: String,
    /// What the payload leads to.
    pub to: Ruleset,
    /// Whether another mode of kube-proxy decides about clients before it, and no more after it.
    pub ends_handover: bool,
}

impl Step {
    /// Number of rows that it changes.
    pub fn len(&self) -> usize {
        match self {
            Step::Settings(changes) => changes.len(),
            Step::Sets(changes) => changes.len(),
            Step::Device(_) | Step::Rules(_) => 1,
            Step::Chains(changes) => changes.len(),
            Step::Entries(changes) => changes.len(),
            Step::Servers(changes) => changes.len(),
            Step::Reals(changes) => changes.len(),
            Step::Addresses(changes) => changes.len(),
            Step::Flows(changes) => changes.len(),
            Step::Leftovers(changes) => changes.len(),
        }
    }

    /// The step without what takes anything away from a client.
    pub fn without_removals(self) -> Step {
        match self {
            Step::Sets(changes) => Step::Sets(kept(changes)),
            Step::Entries(mut changes) => {
                // What holds refusals back must not outlive the plan.
                changes.retain(|change| change.to.is_some() || change.key.set == SetId::Hold);
                Step::Entries(changes)
            }
            Step::Servers(changes) => Step::Servers(kept(changes)),
            Step::Addresses(changes) => Step::Addresses(kept(changes)),
            Step::Reals(mut changes) => {
                changes.retain(|change| change.to.is_some_and(|real| real.weight > 0));
                Step::Reals(changes)
            }
            Step::Settings(_)
            | Step::Device(_)
            | Step::Rules(_)
            | Step::Chains(_)
            | Step::Flows(_)
            | Step::Leftovers(_) => self,
        }
    }

    /// Whether it changes what every Service relies on.
    pub fn is_of_foundation(&self) -> bool {
        match self {
            Step::Settings(_)
            | Step::Sets(_)
            | Step::Device(_)
            | Step::Rules(_)
            | Step::Chains(_) => true,
            Step::Entries(_)
            | Step::Servers(_)
            | Step::Reals(_)
            | Step::Addresses(_)
            | Step::Flows(_)
            | Step::Leftovers(_) => false,
        }
    }

    /// Whether it takes away what served clients before us: until then every front that is to serve
    /// has to.
    pub fn ends_takeover(&self) -> bool {
        match self {
            Step::Rules(change) => change.ends_handover,
            Step::Leftovers(_) => true,
            _ => false,
        }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The virtual server that a change of it is about, if it is about one.
    pub fn server(&self, index: usize) -> Option<ServerKey> {
        match self {
            Step::Servers(changes) => changes.get(index).map(|change| change.key),
            Step::Reals(changes) => changes.get(index).map(|change| change.key.0),
            _ => None,
        }
    }

    /// The word for its rows in plans, logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Step::Settings(_) => "settings",
            Step::Sets(_) => "sets",
            Step::Device(_) => "device",
            Step::Rules(_) => "rules",
            Step::Chains(_) => "chains",
            Step::Entries(_) => "entries",
            Step::Servers(_) => "servers",
            Step::Reals(_) => "reals",
            Step::Addresses(_) => "addresses",
            Step::Flows(_) => "flows",
            Step::Leftovers(_) => "leftovers",
        }
    }
}

/// The changes that want something to be there.
fn kept<K, V>(mut changes: Vec<Change<K, V>>) -> Vec<Change<K, V>> {
    changes.retain(|change| change.to.is_some());
    changes
}
