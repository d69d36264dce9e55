//! The engine: cluster updates in, syncs out, over any [`Kernel`].
//!
//! It owns the four values of the flow (store, desired, mirror, drains) and calls the pure stages
//! in order. Invariant: it reads no clock but the one it is handed and never blocks on anything but
//! the kernel, so a simulation can drive it through years and crashes.

mod addresses;
mod audit;
mod flows;
mod observe;
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
use super::report::{Failed, Report};
use crate::cluster::store::Store;
use crate::cluster::{EndpointSlice, Kind, Node, ObjectName, Update};
use crate::config::{Periods, Policy};
use crate::desired::service::{self, Facts};
use crate::desired::{Cause, Desired, Rejected, Touched, foundation};
use crate::kernel::{Failure, Kernel};
use crate::model::ipvs::{RealKey, ServerKey};
use crate::model::observed::Host;
use crate::plan::audit::Audit;
use crate::plan::drain::{Deadline, Drains};
use crate::plan::flows::Flows;
use crate::plan::mirror::Mirror;
use crate::plan::slow::{self, Slow};
use crate::plan::step::Step;
use crate::plan::unclaimed::Unclaimed;
use crate::plan::{self, Extent, Inputs, guard};

/// What failed when a reading did.
const OBSERVE: &str = "observe";

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
    /// Rows found otherwise than noted since the last sync.
    drift: usize,
    /// Whether all that every Service relies on is in place, until something of it changes.
    founded: Option<bool>,
    /// Whether everything was gone through once.
    has_synced: bool,
    /// Whether the last whole plan left chains behind.
    has_leftover: bool,
    /// What stays while a part of the cluster has never been read.
    unclaimed: Option<Unclaimed>,
    /// What the next syncs change, a few rows each.
    slow: slow::Queue,
    /// When the drains are to be looked at.
    wake: Option<Instant>,
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
    /// What cannot be used of the objects; nothing to sync for.
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
            drift: 0,
            founded: None,
            has_synced: false,
            has_leftover: false,
            unclaimed: None,
            slow: slow::Queue::default(),
            wake: None,
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
        let is_dirty = self.is_dirty() || is_whole_again;
        if is_dirty {
            self.pace.request(now);
        }
        is_dirty
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
        self.pace.next(self.wake)
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
        let unusable = self.store.rejected().flat_map(|(kind, object, reasons)| {
            reasons.iter().map(move |reason| Rejected {
                kind,
                object: object.clone(),
                cause: Cause::Unusable,
                reason: reason.clone(),
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
            if report.is_complete() {
                report.triggers = self.store.take_triggers();
            }
        }
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
        self.wake = self.drains.next_look();
        self.pace.ended(clock(), report.is_complete());
        if is_seen && report.deferred > 0 {
            self.pace.request(clock());
        }
        report
    }

    fn is_founded(&mut self) -> bool {
        let (wanted, mirror) = (self.desired.tables(), &self.mirror);
        *self.founded.get_or_insert_with(|| mirror.is_founded(wanted))
    }

    /// Recomputes the rows of what is dirty, plans, and carries the plan out.
    fn change(
        &mut self,
        kernel: &mut impl Kernel,
        extent: Extent,
        now: Instant,
        report: &mut Report,
    ) {
        if !self.has_synced {
            self.change_urgent(kernel, now, report);
        }
        let extent = self.recompute(extent);
        let mut extent = self.spare(extent);
        self.carry_out(kernel, &extent, now, report);
        if !self.dirty.services.is_empty() {
            // A scheduler is missing: the same Services once more, with the default.
            if report.failed.is_empty() {
                // What waits does so for nothing else.
                report.postponed = 0;
            }
            extent = self.recompute(extent);
            extent = self.spare(extent);
            self.carry_out(kernel, &extent, now, report);
        }
        self.has_synced = true;
        let left = Slow::of(&self.desired, &self.mirror, &extent);
        self.slow.note(&extent, left);
        if extent.is_of_foundation() {
            self.has_leftover = !report.leftover.is_empty();
        }
        self.unfinished = (!report.is_complete()).then_some(extent);
    }

    /// Plans, and carries the plan out.
    fn carry_out(
        &mut self,
        kernel: &mut impl Kernel,
        extent: &Extent,
        now: Instant,
        report: &mut Report,
    ) {
        let drained = match extent {
            Extent::All => {
                let (wanted, seen) = (self.desired.tables(), &self.mirror.tables);
                wanted.servers.keys().chain(seen.servers.keys()).copied().collect()
            }
            Extent::Touched(touched) => touched.servers.clone(),
        };
        report.is_partial = self.store.is_partial();
        let due = Slow::of(&self.desired, &self.mirror, extent);
        let slow = self.slow.take(&due, self.pace.may_retry(now));
        for step in plan::build(self.inputs(&slow, now), extent) {
            let step = match &self.unclaimed {
                Some(unclaimed) => unclaimed.spare(step, &self.mirror),
                None => step,
            };
            if step.ends_takeover() && (report.is_partial || !report.is_complete()) {
                // A part of the cluster that is unknown is no reason to try again soon.
                report.postponed += if report.is_partial { 0 } else { step.len() };
                continue;
            }
            self.apply(kernel, step, report);
        }
        self.mirror.share(self.desired.tables(), &drained);
        // A restart finds draining real servers in the kernel; a deadline that nobody has kept
        // starts now.
        self.track(&drained, now);
    }

    /// Brings the drains of these servers in line with the mirror.
    fn track(&mut self, servers: &BTreeSet<ServerKey>, now: Instant) {
        // Until all is read, nobody knows whether what drains unclaimed is gone or leaves.
        let (unclaimed, is_partial) = (self.unclaimed.as_ref(), self.store.is_partial());
        let is_unread = |server: &ServerKey, real: &RealKey| match unclaimed {
            Some(unclaimed) => unclaimed.has_real(server, real),
            None => is_partial,
        };
        let tables = (&self.desired, &self.mirror.tables);
        self.drains.track(tables, servers, is_unread, now);
    }

    fn inputs<'a>(&'a self, slow: &'a Slow, now: Instant) -> Inputs<'a> {
        Inputs { desired: &self.desired, mirror: &self.mirror, drains: &self.drains, slow, now }
    }

    /// On a cold start, serves first what all other clients on the node wait for.
    ///
    /// Nothing is taken away yet: only these Services are known to be wanted.
    fn change_urgent(&mut self, kernel: &mut impl Kernel, now: Instant, report: &mut Report) {
        let is_urgent = |name: &ObjectName| {
            self.store.service(name).is_some_and(|service| service::is_urgent(name, service))
        };
        let (urgent, rest) = self.dirty.services.iter().cloned().partition(is_urgent);
        self.dirty.services = urgent;
        let extent = self.recompute(Extent::All);
        self.dirty.services = rest;
        let (wanted, seen) = (self.desired.tables(), &self.mirror.tables);
        let is_cold = wanted.servers.keys().any(|key| !seen.servers.contains_key(key));
        if !is_cold {
            return;
        }
        let mut urgent = Report::default();
        let steps = plan::build(self.inputs(&Slow::default(), now), &extent);
        for step in steps.into_iter().filter(|step| !step.ends_takeover()) {
            self.apply(kernel, step.without_removals(), &mut urgent);
        }
        // What failed is tried again right away, with all the rest.
        *report = std::mem::take(report).after(urgent);
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
            touched.extend(self.recompute_service(name));
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

    /// Carries out one step and notes what it achieved.
    fn apply(&mut self, kernel: &mut impl Kernel, step: Step, report: &mut Report) {
        let planned = step.len();
        if planned == 0 {
            return;
        }
        let unclaimed = self.unclaimed.as_ref();
        let Some(step) = guard::admit(step, &self.desired, &self.mirror, unclaimed) else {
            report.postponed += planned;
            return;
        };
        report.postponed += planned - step.len();
        let failures = kernel.apply(&step);
        let failed: BTreeSet<usize> = failures.iter().map(|failure| failure.index).collect();
        self.mirror.note(&step, &failed);
        if step.is_of_foundation() {
            self.founded = None;
        }
        if let Some(audit) = &mut self.audit {
            audit.wrote(&step);
        }
        self.flows.note(&step, &self.mirror.tables);
        self.doubt(&step, &failures);
        report.note(&step, &failures, |error| self.is_replaceable(error));
        self.do_without(&failures);
    }

    /// What to read again after failures.
    ///
    /// A clear refusal leaves the mirror right, so the change is merely tried again; unless it
    /// says that something is not there which the mirror has.
    fn doubt(&mut self, step: &Step, failures: &[Failure]) {
        // What is left over is tried again by the next audit.
        let is_leftover = matches!(step, Step::Chains(_) | Step::Leftovers(_));
        let failures = if is_leftover { &[] } else { failures };
        for failure in failures {
            let why = || Failed::new(step.kind(), &failure.error);
            self.doubt.servers.extend(step.server(failure.index));
            if failure.error.is_ambiguous() {
                self.mirror.distrust(step);
                self.doubt.suspect(why());
            } else if failure.error.is_gone() {
                self.doubt.owe(why());
            }
        }
    }

    /// This node, if the cluster knows it.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    fn is_dirty(&self) -> bool {
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
