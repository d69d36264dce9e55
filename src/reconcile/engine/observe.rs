//! The start of a sync: what is in doubt or due is read again.

use std::collections::BTreeSet;
use std::time::Instant;

use super::{Engine, OBSERVE, widened};
use crate::desired::Touched;
use crate::kernel::{Error, Kernel};
use crate::model::ipvs::ServerKey;
use crate::model::observed::{Host, Observed, Scope};
use crate::model::tables::Tables;
use crate::plan::drift::{self, Row, State};
use crate::plan::mirror::Trust;
use crate::plan::{Extent, audit, owned};
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
        // Order: another way to print what was loaded is no drift, nor what we deleted ourselves.
        self.mirror.settle_rules(&observed.tables.rulesets);
        self.mirror.settle_chains(&observed.tables.rulesets);
        self.note_drift_of_all(&observed.tables);
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

    /// Reads rules back that were loaded, to know them by how they are printed.
    ///
    /// Order: in the sync that loads them, so that what others make of them within that sync,
    /// seconds at most, is all that may be taken for ours; at its end, so that no row of it and no
    /// stale flow waits. Cost: a program for each family, and only after a load.
    pub(super) fn read_back(&mut self, kernel: &mut impl Kernel, report: &mut Report) {
        if !self.mirror.awaits_print() {
            return;
        }
        match kernel.observe(&Scope::Rules) {
            Ok(observed) => self.mirror.adopt_printed(&observed.tables.rulesets),
            Err(error) => {
                let failed = Failed::new(OBSERVE, &error);
                report.failed.push(failed.clone());
                self.mirror.miss_print();
                self.doubt.suspect(failed);
            }
        }
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
        let mut servers = self.drains_due(now);
        servers.extend(&self.doubt.servers);
        self.observe_servers(kernel, &servers, now, report);
        if !self.doubt.servers.is_empty() {
            return None;
        }
        let slow = self.slow.next(self.pace.may_retry(now));
        servers.extend(slow.servers);
        let due = Touched { servers, addresses: slow.addresses, ..Touched::default() };
        Some(widened(self.unfinished.take(), due))
    }

    /// Reads some virtual servers.
    fn observe_servers(
        &mut self,
        kernel: &mut impl Kernel,
        servers: &BTreeSet<ServerKey>,
        now: Instant,
        report: &mut Report,
    ) {
        if servers.is_empty() {
            return;
        }
        match kernel.observe(&Scope::Servers(servers.clone())) {
            Ok(observed) => {
                self.drains.look(&observed.connections, now);
                self.note_drift(&observed);
                self.mirror.refresh(servers, observed);
                // What others raised meanwhile does not drain any more: it may have clients.
                self.track(servers, now);
                self.doubt.servers.clear();
            }
            Err(error) => {
                let failed = Failed::new(OBSERVE, &error);
                report.failed.push(failed.clone());
                self.doubt.owe(failed);
            }
        }
    }

    /// Notes the suspects that are otherwise than noted indeed.
    fn note_drift(&mut self, observed: &Observed) {
        let suspects = std::mem::take(&mut self.suspects);
        let mut drift = std::mem::take(&mut self.drift);
        let rows = self.drift_of_servers(&suspects, &observed.tables);
        drift.extend(rows, &self.desired, &self.mirror.host_addresses);
        self.drift = drift;
    }

    /// What is otherwise than noted of virtual servers that are our business.
    fn drift_of_servers<'a>(
        &'a self,
        keys: &'a BTreeSet<ServerKey>,
        there: &'a Tables,
    ) -> impl Iterator<Item = (Row, State)> {
        let noted = &self.mirror.tables.servers;
        let of = move |key: &ServerKey| {
            let [noted, there] = [noted, &there.servers].map(|servers| servers.get(key));
            drift::of_server(*key, noted.map(|server| &**server), there.map(|server| &**server))
        };
        keys.iter().filter(|key| self.minds(key)).flat_map(of)
    }

    /// Whether a virtual server is our business: wanted, or ours to take away.
    fn minds(&self, key: &ServerKey) -> bool {
        let is_wanted = self.desired.tables().servers.contains_key(key);
        is_wanted || owned::server(&self.desired, &self.mirror.tables, key)
    }

    /// Notes all rows that are otherwise than noted, if it is known what our own changes came to;
    /// those that an audit found before are, whatever became of them or of our changes since.
    ///
    /// Cost: what an audit found is all of the foundation, and compared with that alone: of other
    /// rows there may be hundreds of thousands.
    fn note_drift_of_all(&mut self, there: &Tables) {
        let is_known = self.pace.has_audited() && self.mirror.trust() == Trust::Everything;
        let foundation = match is_known {
            true => audit::foundation(self.desired.tables(), &self.mirror.tables, there),
            false => Vec::new(),
        };
        let mut shaken = std::mem::take(&mut self.shaken);
        shaken.retain(|(row, _)| !foundation.iter().any(|(told, _)| told.is(row)));
        let rows = foundation.into_iter().chain(shaken);
        self.drift.extend(rows, &self.desired, &self.mirror.host_addresses);
        if is_known {
            self.note_drift_of_rows(there);
        }
    }

    /// Notes the rows that depend on Services and are otherwise than noted.
    fn note_drift_of_rows(&mut self, there: &Tables) {
        let mut drift = std::mem::take(&mut self.drift);
        let (noted, mut differing) = (&self.mirror.tables, self.mirror.differing(there));
        // What is in doubt otherwise than as suspect may be our own doing.
        let is_ours =
            |key: &ServerKey| self.doubt.servers.contains(key) && !self.suspects.contains(key);
        differing.servers.retain(|key| !is_ours(key));
        let entries = drift::of_entries(&noted.entries, &differing.entries);
        // The record itself may be what has come or gone.
        let is_recorded = |ip| owned::address(noted, ip) || owned::address(there, ip);
        let (addresses, wanted) = (&differing.addresses, self.desired.tables());
        let addresses =
            drift::of_addresses(addresses, wanted, noted, &there.addresses, is_recorded);
        let servers = self.drift_of_servers(&differing.servers, there);
        let rows = servers.chain(entries).chain(addresses);
        drift.extend(rows, &self.desired, &self.mirror.host_addresses);
        self.drift = drift;
    }

    /// Takes over facts about the host.
    fn adopt_host(&mut self, host: Host) {
        self.dirty.node |= self.host != host;
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
    }
}
