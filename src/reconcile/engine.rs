//! The engine: cluster updates in, syncs out, over any [`Kernel`].
//!
//! It owns the four values of the flow (store, desired, mirror, drains) and calls the pure stages
//! in order. Invariant: it reads no clock but the one it is handed and never blocks on anything but
//! the kernel, so a simulation can drive it through years and crashes.

mod addresses;
mod audit;
mod drains;
mod flows;
mod observe;
mod program;
mod reconfigure;
mod schedulers;
mod unread;
mod view;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::doubt::Doubt;
use super::pace::Pace;
use super::report::{OBSERVE, Report};
use crate::cluster::store::Store;
use crate::cluster::{EndpointSlice, Kind, Node, ObjectName, Reason, Update};
use crate::config::{Periods, Policy};
use crate::desired::service::{self, Facts};
use crate::desired::{Cause, Desired, Rejected, Touched, foundation};
use crate::kernel::Kernel;
use crate::model::ipvs::ServerKey;
use crate::model::observed::Host;
use crate::plan::audit::Audit;
use crate::plan::drain::{Deadline, Drains};
use crate::plan::drift::{Drift, Row, State};
use crate::plan::flows::Flows;
use crate::plan::mirror::Mirror;
use crate::plan::takeover::Strangers;
use crate::plan::unclaimed::Unclaimed;
use crate::plan::{Extent, slow};

/// Keeps one node's kernel in the state that the cluster asks for.
pub struct Engine {
    policy: Policy,
    store: Store,
    /// This node, if the cluster knows it.
    node: Option<Node>,
    /// What the store has that cannot be used.
    unusable: Vec<Rejected>,
    desired: Desired,
    mirror: Mirror,
    drains: Drains,
    flows: Flows,
    /// Whether this kernel cannot tell its flows; the next audit asks again.
    flows_are_unreadable: bool,
    host: Host,
    /// Whether the host's facts are to be read again.
    host_is_stale: bool,
    node_addresses: BTreeSet<IpAddr>,
    /// Schedulers that Services name and the kernel does not have; each audit asks for them.
    lacking: BTreeSet<Arc<str>>,
    dirty: Dirty,
    doubt: Doubt,
    /// The audit that is read beside the work, if one is.
    audit: Option<Audit>,
    /// Whether one has ended since the last sync.
    has_audited: bool,
    /// Virtual servers that it found otherwise than noted, until they have been read again.
    suspects: BTreeSet<ServerKey>,
    /// Rows that everything stands on and that it found so, until everything has been read again.
    shaken: Vec<(Row, State)>,
    /// Rows found otherwise than noted since the last sync.
    drift: Drift,
    /// Whether all that every Service relies on is in place, until something of it changes.
    founded: Option<bool>,
    /// Whether everything was gone through once.
    has_synced: bool,
    /// Virtual servers of others at fronts of Services that are not ours yet.
    strangers: Strangers,
    /// Virtual servers that were named as left to others from now on, and are on record as ours
    /// still.
    given_up: BTreeSet<ServerKey>,
    /// Whether the last whole plan left chains behind.
    has_leftover: bool,
    /// What stays while a part of the cluster has never been read.
    unclaimed: Option<Unclaimed>,
    /// What the next syncs change, a few rows each.
    slow: slow::Queue,
    /// What the last sync looked at, if it could not do all of it.
    unfinished: Option<Extent>,
    pace: Pace,
}

/// What has changed since the last sync.
#[derive(Debug, Default)]
struct Dirty {
    services: BTreeSet<ObjectName>,
    node: bool,
    service_cidrs: bool,
    /// What cannot be used of the objects.
    unusable: bool,
}

impl Engine {
    /// An engine that knows nothing yet: the first sync reads the whole kernel and adopts it.
    pub fn new(policy: Policy, periods: Periods, store: Store) -> Self {
        let mut desired = Desired::leaving_out(&policy.excluded);
        desired.remove_leftovers(policy.removes_leftovers);
        Engine {
            node: store.node(&policy.node_name).cloned(),
            unusable: Vec::new(),
            desired,
            drains: Drains::new(policy.drain_timeouts),
            policy,
            store,
            mirror: Mirror::default(),
            flows: Flows::default(),
            flows_are_unreadable: false,
            host: Host::default(),
            host_is_stale: false,
            node_addresses: BTreeSet::new(),
            lacking: BTreeSet::new(),
            dirty: Dirty { node: true, service_cidrs: true, unusable: true, ..Dirty::default() },
            doubt: Doubt::default(),
            audit: None,
            has_audited: false,
            suspects: BTreeSet::new(),
            shaken: Vec::new(),
            drift: Drift::default(),
            founded: None,
            has_synced: false,
            strangers: Strangers::default(),
            given_up: BTreeSet::new(),
            has_leftover: false,
            unclaimed: None,
            slow: slow::Queue::default(),
            unfinished: None,
            pace: Pace::new(periods),
        }
    }

    /// Takes over the deadlines that drains had in the run before.
    pub fn remember(&mut self, deadlines: Vec<Deadline>) {
        self.drains.remember(deadlines);
    }

    /// The drains under way.
    pub fn drains(&self) -> &Drains {
        &self.drains
    }

    /// Folds one word from the cluster in; true if a sync is due for it.
    pub fn note(&mut self, update: Update, now: Instant) -> bool {
        let was_partial = self.store.is_partial();
        let change = self.store.apply(update);
        self.dirty.services.extend(change.services);
        self.dirty.node |= change.nodes;
        self.dirty.service_cidrs |= change.service_cidrs;
        self.dirty.unusable |= !change.rejected.is_empty();
        if change.nodes {
            self.node = self.store.node(&self.policy.node_name).cloned();
        }
        // What was spared because it could not be read may go now.
        let is_whole_again = was_partial && !self.store.is_partial();
        if is_whole_again {
            self.unfinished = Some(Extent::All);
        }
        // What cannot be used changes no row; whoever asks is to be told all the same.
        let is_due = self.has_changes() || is_whole_again || self.dirty.unusable;
        if is_due {
            self.pace.request(now);
        }
        is_due
    }

    /// The host is no longer as it was: the next sync, which is due, reads its facts again.
    pub fn note_host_changed(&mut self, now: Instant) {
        self.host_is_stale = true;
        self.pace.request(now);
    }

    /// Whether a first consistent list of every kind is in; until then nothing is touched.
    pub fn is_ready(&self) -> bool {
        self.store.is_complete()
    }

    /// The kinds whose first list is not in.
    pub fn awaited(&self) -> impl Iterator<Item = Kind> {
        self.store.awaited()
    }

    /// When to sync next, if nothing else happens.
    ///
    /// `None` before the first sync: it is due as soon as the engine is ready.
    pub fn next_sync(&self) -> Option<Instant> {
        self.pace.next(self.next_look())
    }

    /// Objects, or parts of them, that are not programmed, as of the last sync.
    pub fn rejected(&self) -> Vec<Rejected> {
        self.unusable.iter().cloned().chain(self.desired.rejected()).collect()
    }

    /// Looks through all objects for what cannot be used, if that has changed.
    fn update_unusable(&mut self) {
        if !std::mem::take(&mut self.dirty.unusable) {
            return;
        }
        let unusable = self.store.unusable().flat_map(|(kind, object, reasons)| {
            reasons.iter().map(move |reason| Rejected {
                kind,
                object: object.clone(),
                cause: match reason {
                    Reason::Rejected(_) => Cause::Unusable,
                    Reason::Defaulted(_) => Cause::Defaulted,
                },
                reason: reason.text().to_owned(),
            })
        });
        self.unusable = unusable.collect();
    }

    /// The desired tables and the mirror, for inspection.
    pub fn state(&self) -> (&Desired, &Mirror) {
        (&self.desired, &self.mirror)
    }

    /// Brings the node one step closer to what the cluster asks for.
    pub fn sync(&mut self, kernel: &mut impl Kernel, clock: impl Fn() -> Instant) -> Report {
        let is_audit = std::mem::take(&mut self.has_audited);
        let mut report = Report { is_audit, ..Report::default() };
        let now = clock();
        let had_changes = self.has_changes();
        self.pace.started(now);
        self.doubt.started();
        self.update_unusable();
        let extent = match self.is_ready() {
            true => self.observe(kernel, &clock, &mut report),
            false => None,
        };
        if report.is_audit {
            self.ask_for_schedulers(kernel);
        }
        let is_seen = extent.is_some();
        if let Some(extent) = extent {
            self.change(kernel, extent, now, &mut report);
            self.clean_flows(kernel, &clock, &mut report);
            self.read_back(kernel, &mut report);
            if report.is_complete() {
                report.triggers = self.store.take_triggers();
            }
        }
        self.sum_up(&mut report, now);
        self.pace.ended(clock(), report.is_complete());
        if had_changes {
            self.pace.changed(clock());
        }
        if is_seen && report.deferred > 0 {
            self.pace.request(clock());
        }
        report
    }

    /// Tells what a sync has come to.
    fn sum_up(&mut self, report: &mut Report, now: Instant) {
        report.away = self.desired.away();
        report.drains = self.drains.len();
        match report.is_complete() {
            true if self.pace.may_retry(now) => self.slow.forgive(),
            true => report.postponed = self.slow.failed(),
            false => {}
        }
        report.deferred = self.slow.len();
        report.drift = std::mem::take(&mut self.drift);
        report.is_founded = self.is_founded();
    }

    fn is_founded(&mut self) -> bool {
        let (wanted, mirror) = (self.desired.tables(), &self.mirror);
        *self.founded.get_or_insert_with(|| mirror.is_founded(wanted))
    }

    /// Brings `desired` up to date with the store; returns the extent widened by what it touched.
    fn recompute(&mut self, extent: Extent) -> Extent {
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut touched = Touched::default();
        if dirty.node {
            self.node_addresses = self.node_addresses();
            touched.extend(self.desired.set_bindings(self.bindings()));
            dirty.services.extend(self.desired.users_of_host().cloned());
            let pod_cidrs = self.node.as_ref().map_or(&[][..], |node| &node.pod_cidrs);
            let foundation = foundation::tables(&self.policy, &self.host, pod_cidrs);
            touched.extend(self.desired.set_foundation(foundation));
            self.founded = None;
            dirty.services.extend(self.desired.users_of_zone().cloned());
        }
        if dirty.service_cidrs {
            touched.extend(self.desired.set_service_cidrs(&self.service_cidrs()));
        }
        for name in &dirty.services {
            let rows = self.recompute_service(name);
            // Cost: who looks at all rows needs no list of them.
            if extent != Extent::All {
                touched.extend(rows);
            }
        }
        widened(Some(extent), touched)
    }

    fn recompute_service(&mut self, name: &ObjectName) -> Touched {
        let zone = self.node.as_ref().and_then(|node| node.zone.as_deref());
        let families = self.host.families;
        let facts = Facts {
            policy: &self.policy,
            zone,
            families,
            host_addresses: &self.host.addresses,
            node_addresses: &self.node_addresses,
            lacking: &self.lacking,
        };
        let slices: Vec<&EndpointSlice> = self.store.endpoints_of(name).collect();
        let rows = self.store.service(name).map(|s| service::rows(name, s, &slices, facts));
        let rows = rows.map(|rows| self.with_unread_endpoints(rows));
        self.desired.replace(name, rows)
    }

    /// This node, if the cluster knows it.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Whether the next sync carries out changes of the cluster.
    pub fn has_changes(&self) -> bool {
        !self.dirty.services.is_empty() || self.dirty.node || self.dirty.service_cidrs
    }
}

/// The extent widened by what else was touched.
fn widened(extent: Option<Extent>, mut touched: Touched) -> Extent {
    match extent {
        Some(Extent::All) => Extent::All,
        Some(Extent::Touched(before)) => {
            touched.extend(before);
            Extent::Touched(touched)
        }
        None => Extent::Touched(touched),
    }
}

#[cfg(test)]
mod tests;
