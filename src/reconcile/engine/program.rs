//! Programming: the rows of what is dirty are computed anew, planned, and carried out.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Engine;
use crate::cluster::ObjectName;
use crate::desired::service;
use crate::kernel::{Failure, Kernel};
use crate::model::ipvs::{RealKey, ServerKey};
use crate::plan::slow::Slow;
use crate::plan::step::Step;
use crate::plan::takeover::Strangers;
use crate::plan::unclaimed::Unclaimed;
use crate::plan::{self, Extent, Inputs, guard, handover, owned};
use crate::reconcile::log;
use crate::reconcile::report::{Failed, Report};

impl Engine {
    /// Recomputes the rows of what is dirty, plans, and carries the plan out.
    pub(super) fn change(
        &mut self,
        kernel: &mut impl Kernel,
        extent: Extent,
        now: Instant,
        report: &mut Report,
    ) {
        if !self.has_synced {
            self.strangers = Strangers::among(&self.mirror.tables);
            self.change_urgent(kernel, now, report);
        }
        let mut extent = self.change_once(kernel, extent, now, report);
        if !self.dirty.services.is_empty() {
            // A scheduler is missing: the same Services once more, with the default.
            if report.failed.is_empty() {
                // What waits does so for nothing else.
                report.postponed = 0;
            }
            extent = self.change_once(kernel, extent, now, report);
        }
        let (wanted, seen) = (self.desired.tables(), &self.mirror.tables);
        if !self.store.is_partial() {
            self.strangers.forget_unwanted(wanted);
        }
        report.takeover = self.strangers.taken_over(wanted, seen);
        self.has_synced = true;
        let left = Slow::of(&self.desired, &self.mirror, &extent);
        self.slow.note(&extent, left);
        if extent.is_of_foundation() {
            self.has_leftover = !report.leftover.is_empty();
        }
        self.unfinished = (!report.is_complete()).then_some(extent);
    }

    /// Recomputes, plans, and carries the plan out; returns how far it looked.
    fn change_once(
        &mut self,
        kernel: &mut impl Kernel,
        extent: Extent,
        now: Instant,
        report: &mut Report,
    ) -> Extent {
        let extent = self.recompute(extent);
        let extent = self.spare(extent);
        self.carry_out(kernel, &extent, now, report);
        extent
    }

    /// Plans, and carries the plan out.
    fn carry_out(
        &mut self,
        kernel: &mut impl Kernel,
        extent: &Extent,
        now: Instant,
        report: &mut Report,
    ) {
        let drained = self.servers_of(extent);
        self.name_given_up(&drained);
        report.is_partial = self.store.is_partial();
        let due = Slow::of(&self.desired, &self.mirror, extent);
        let slow = self.slow.take(&due, self.pace.may_retry(now));
        for step in plan::build(self.inputs(&slow, now), extent) {
            let step = match &self.unclaimed {
                Some(unclaimed) => unclaimed.spare(step, &self.mirror),
                None => step,
            };
            let Some(step) = self.without_early_end(step, report) else { continue };
            if let (Step::Rules(change), Some(unclaimed)) = (&step, &self.unclaimed) {
                let family = change.family;
                let admission = unclaimed.admission(family, &self.mirror);
                self.apply(kernel, admission, report);
                let is_admitted = |it: &Unclaimed| it.admission(family, &self.mirror).is_empty();
                if !self.unclaimed.as_ref().is_none_or(is_admitted) {
                    report.postponed += step.len();
                    continue;
                }
            }
            self.apply(kernel, step, report);
        }
        self.given_up = self.on_record_still(&self.given_up);
        self.mirror.share(self.desired.tables(), &drained);
        // A restart finds draining real servers in the kernel; a deadline that nobody has kept
        // starts now.
        self.track(&drained, now);
    }

    /// The step, without what would end a takeover too early.
    ///
    /// Not before all is known; but a row that fails for good must not keep all others with
    /// endpoints of long ago, so that what decides is whom clients would miss.
    fn without_early_end(&self, step: Step, report: &mut Report) -> Option<Step> {
        if !step.ends_takeover() || report.is_complete() && !report.is_partial {
            return Some(step);
        }
        // A part of the cluster that is unknown is no reason to try again soon.
        if report.is_partial {
            return None;
        }
        let planned = step.len();
        let step = handover::ending(step, self.desired.tables(), &self.mirror);
        report.postponed += planned - step.as_ref().map_or(0, Step::len);
        step
    }

    /// Names those of ours that are left to others from now on.
    ///
    /// Before any step, since the one that takes them off the record is the last to know them:
    /// whoever is killed behind it could not name them any more.
    fn name_given_up(&mut self, servers: &BTreeSet<ServerKey>) {
        let given_up = self.on_record_still(servers);
        log::given_up(given_up.difference(&self.given_up));
        self.given_up.extend(given_up);
    }

    /// Those that are on record as ours still, and left to others from now on.
    fn on_record_still(&self, servers: &BTreeSet<ServerKey>) -> BTreeSet<ServerKey> {
        let seen = &self.mirror.tables;
        let is_given_up = |key: &&ServerKey| owned::is_given_up(&self.desired, seen, key);
        servers.iter().filter(is_given_up).copied().collect()
    }

    /// The virtual servers that a plan looks at.
    fn servers_of(&self, extent: &Extent) -> BTreeSet<ServerKey> {
        let (wanted, seen) = (self.desired.tables(), &self.mirror.tables);
        match extent {
            Extent::All => wanted.servers.keys().chain(seen.servers.keys()).copied().collect(),
            Extent::Touched(touched) => touched.servers.clone(),
        }
    }

    /// Brings the drains of these servers in line with the mirror.
    pub(super) fn track(&mut self, servers: &BTreeSet<ServerKey>, now: Instant) {
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
        // What kube-proxy serves would be refused by rules that come before the rest is known to be
        // wanted.
        let is_refused = |key: &ServerKey| {
            let is_named = owned::is_of_kube_proxy(seen, key);
            !self.mirror.filters(key.family())
                && (is_named || seen.addresses.contains_key(&key.address))
        };
        let shuts_out = seen.servers.iter().any(|(key, it)| it.is_serving() && is_refused(key));
        if !is_cold || shuts_out {
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
        report.cut.extend(self.cut_by(&step, &failed));
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
        if failures.iter().any(|failure| failure.error.is_ambiguous()) {
            self.mirror.distrust(step);
        }
        // What is left over is tried again by the next audit.
        let is_leftover = matches!(step, Step::Chains(_) | Step::Leftovers(_));
        let failures = if is_leftover { &[] } else { failures };
        for failure in failures {
            let why = || Failed::new(step.kind(), &failure.error);
            self.doubt.servers.extend(step.server(failure.index));
            if failure.error.is_ambiguous() {
                self.doubt.suspect(why());
            } else if failure.error.is_gone() {
                self.doubt.owe(why());
            }
        }
    }
}
