//! The start of a sync: what is in doubt or due is read again.

use std::time::Instant;

use super::{Engine, OBSERVE, widened};
use crate::desired::Touched;
use crate::kernel::{Error, Kernel};
use crate::model::ipvs::ServerKey;
use crate::model::observed::{Host, Observed, Scope};
use crate::model::tables::Tables;
use crate::plan::mirror::Trust;
use crate::plan::{Extent, owned};
use crate::reconcile::report::{Failed, Report};

impl Engine {
    /// Reads what is in doubt or due; returns how far the plan has to look.
    ///
    /// `None` if what it would rely on is unknown. Only the first reading must be whole: if a
    /// later one fails, the plan goes on with what the mirror can be relied on for.
    pub(super) fn observe(
        &mut self,
        kernel: &mut impl Kernel,
        clock: &impl Fn() -> Instant,
        report: &mut Report,
    ) -> Option<Extent> {
        let now = clock();
        if self.whole_is_due(now) {
            match self.observe_all(kernel, clock) {
                Ok(()) => {
                    report.is_audit = true;
                    report.reading = Some(clock().saturating_duration_since(now));
                    return Some(Extent::All);
                }
                Err(error) => self.doubt.owe(Failed::new(OBSERVE, &error)),
            }
        }
        report.failed.extend(self.doubt.why().cloned());
        match self.pace.has_audited() {
            true => self.observe_due(kernel, now, report),
            false => None,
        }
    }

    fn whole_is_due(&self, now: Instant) -> bool {
        match self.doubt.why() {
            Some(_) => self.doubt.is_urgent() || self.pace.may_retry(now),
            None => self.pace.audit_is_due(now),
        }
    }

    /// Reads the whole kernel.
    fn observe_all(
        &mut self,
        kernel: &mut impl Kernel,
        clock: &impl Fn() -> Instant,
    ) -> Result<(), Error> {
        let observed = kernel.observe(&Scope::Everything)?;
        let now = clock();
        self.count_drift_of_all(&observed.tables);
        self.mirror.replace(observed.tables);
        self.founded = None;
        self.audit = None;
        self.suspects.clear();
        let known = self.mirror.tables.servers.keys().copied().collect();
        self.track(&known, now);
        self.drains.adopt(&self.mirror.tables, now);
        self.drains.look(&observed.connections, now);
        self.adopt_host(observed.host);
        self.host_is_stale = false;
        self.doubt.settle();
        self.pace.audited(now);
        Ok(())
    }

    /// Reads the host's facts, if they have changed.
    fn observe_host(&mut self, kernel: &mut impl Kernel, report: &mut Report) {
        if !self.host_is_stale {
            return;
        }
        match kernel.observe(&Scope::Host) {
            Ok(observed) => {
                self.adopt_host(observed.host);
                self.host_is_stale = false;
            }
            Err(error) => {
                let failed = Failed::new(OBSERVE, &error);
                report.failed.push(failed.clone());
                self.doubt.owe(failed);
            }
        }
    }

    /// Reads what is in doubt or due.
    fn observe_due(
        &mut self,
        kernel: &mut impl Kernel,
        now: Instant,
        report: &mut Report,
    ) -> Option<Extent> {
        self.observe_host(kernel, report);
        let mut servers = self.drains.due(now, self.pace.may_follow_at_once());
        servers.extend(&self.doubt.servers);
        if !servers.is_empty() {
            match kernel.observe(&Scope::Servers(servers.clone())) {
                Ok(observed) => {
                    self.drains.look(&observed.connections, now);
                    self.count_drift(&observed);
                    self.mirror.refresh(&servers, observed);
                    // What others raised meanwhile does not drain any more: it may have clients.
                    self.track(&servers, now);
                    self.doubt.servers.clear();
                }
                Err(error) => {
                    let failed = Failed::new(OBSERVE, &error);
                    report.failed.push(failed.clone());
                    self.doubt.owe(failed);
                }
            }
        }
        if !self.doubt.servers.is_empty() {
            return None;
        }
        let slow = self.slow.next(self.pace.may_retry(now));
        servers.extend(slow.servers);
        let due = Touched { servers, addresses: slow.addresses, ..Touched::default() };
        Some(widened(self.unfinished.take(), due))
    }

    /// Counts the suspects that are otherwise than noted indeed.
    fn count_drift(&mut self, observed: &Observed) {
        let (noted, there) = (&self.mirror.tables.servers, &observed.tables.servers);
        let suspects = std::mem::take(&mut self.suspects);
        let is_drift = |key: &&ServerKey| noted.get(key) != there.get(key) && self.minds(key);
        self.drift += suspects.iter().filter(is_drift).count();
    }

    /// Whether a virtual server is our business: wanted, or ours to take away.
    fn minds(&self, key: &ServerKey) -> bool {
        let is_wanted = self.desired.tables().servers.contains_key(key);
        is_wanted || owned::server(&self.desired, &self.mirror.tables, key)
    }

    /// Counts all rows that are otherwise than noted, if it is known what our own changes came to.
    fn count_drift_of_all(&mut self, there: &Tables) {
        if !self.pace.has_audited() || self.mirror.trust() < Trust::Everything {
            return;
        }
        // What is in doubt either was counted as suspect, or may be our own doing.
        let doubtful = &self.doubt.servers;
        let differing = self.mirror.differing(there);
        let is_drift = |key: &&ServerKey| !doubtful.contains(key) && self.minds(key);
        let servers = differing.servers.iter().filter(is_drift);
        self.drift += servers.count() + differing.entries.len() + differing.addresses.len();
    }

    /// Takes over facts about the host; true if they are new.
    pub(super) fn adopt_host(&mut self, host: Host) -> bool {
        let is_new = self.host != host;
        self.dirty.node |= is_new;
        if self.host.families != host.families {
            self.dirty.service_cidrs = true;
            self.dirty.services.extend(self.desired.services().cloned());
            // Rows that nobody wants any more are in the way of the sets that hold them.
            self.unfinished = Some(Extent::All);
        }
        // What the host has itself is not bound.
        let moved = self.host.addresses.symmetric_difference(&host.addresses);
        let users = moved.flat_map(|address| self.desired.users_of_address(*address));
        self.dirty.services.extend(users.cloned());
        self.mirror.host_addresses.clone_from(&host.addresses);
        self.host = host;
        is_new
    }
}
