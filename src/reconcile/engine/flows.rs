//! The end of a sync: stale UDP flows are removed from connection tracking.
//!
//! Invariant: it is read at most once per family, and only if a UDP row has changed; what could not
//! be done stays owed.

use std::time::Instant;

use super::Engine;
use crate::kernel::{Error, Kernel};
use crate::model::net::Family;
use crate::model::observed::Scope;
use crate::plan::flows;
use crate::reconcile::report::{Failed, FlowCleaning, Report};

/// What failed when the flows could not be read.
const FLOWS: &str = "flows";

impl Engine {
    /// Removes the flows that are stale by now.
    pub(super) fn clean_flows(
        &mut self,
        kernel: &mut impl Kernel,
        clock: &impl Fn() -> Instant,
        report: &mut Report,
    ) {
        if self.flows_are_unreadable && !report.is_audit {
            return;
        }
        self.flows_are_unreadable = false;
        for family in Family::ALL {
            let started = clock();
            let removed = self.clean_flows_of(family, kernel, report);
            let cleaning = |removed| FlowCleaning { removed, took: clock() - started };
            *report.flows.get_mut(family) = removed.map(cleaning);
        }
    }

    /// The number of flows removed, if they had to be looked at and could be.
    fn clean_flows_of(
        &mut self,
        family: Family,
        kernel: &mut impl Kernel,
        report: &mut Report,
    ) -> Option<usize> {
        let seen = &self.mirror.tables;
        let fronts = self.flows.due(&self.desired, family, seen);
        if fronts.is_empty() {
            self.flows.settle(family, &self.doubt.servers);
            return None;
        }
        let observed = match kernel.observe(&Scope::Flows(fronts.clone())) {
            Ok(observed) => observed,
            Err(error) => {
                self.note_unread_flows(family, &error, report);
                return None;
            }
        };
        let step = flows::removal(&observed.flows, &fronts, seen);
        let failures = if step.is_empty() { Vec::new() } else { kernel.apply(&step) };
        if failures.is_empty() {
            // Nobody knows yet which real servers a server in doubt has: it is looked at again.
            self.flows.settle(family, &self.doubt.servers);
        }
        if !step.is_empty() {
            report.note(&step, &failures, |_| false);
        }
        Some(step.len() - failures.len())
    }

    /// A kernel that cannot tell its flows fails no sync: all else is as wanted, and stale flows
    /// end by themselves once their clients are silent.
    fn note_unread_flows(&mut self, family: Family, error: &Error, report: &mut Report) {
        let failed = Failed::new(FLOWS, error);
        match error {
            Error::Missing { .. } => {
                self.flows_are_unreadable = true;
                self.flows.owe_all(family);
                report.leftover.push(failed);
            }
            _ => report.failed.push(failed),
        }
    }
}
