//! What this node should look like: rows, kept incrementally.
//!
//! [`service::rows`] is a pure function of one Service; [`Desired`] holds the sum over all
//! Services, settles who wins a front, and tells which rows a change touched.
//! Invariant: the sum does not depend on the order of changes.

mod conntrack;
pub mod foundation;
pub mod front;
pub mod idle;
pub mod iptables;
pub mod node_ports;
pub mod service;
pub mod topology;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use ipnet::IpNet;

use crate::cluster::{Kind, ObjectName};
use crate::model::ipset::{Entry, Member, SetId};
use crate::model::ipvs::{RealKey, ServerKey};
use crate::model::link::Binding;
use crate::model::net::{Family, PerFamily};
use crate::model::tables::Tables;
use front::{AddressKind, Away, Front, HealthCheck, Rank, ServiceRows};
use users::Users;

/// The rows that a change may have altered; planning looks at no others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// What all rows stand on.
    pub foundation: bool,
    /// Virtual servers, each with its real servers.
    pub servers: BTreeSet<ServerKey>,
    /// Entries of sets.
    pub entries: BTreeSet<Entry>,
    /// Addresses.
    pub addresses: BTreeSet<IpAddr>,
}

impl Touched {
    /// Adds what another change altered.
    pub fn extend(&mut self, other: Touched) {
        self.foundation |= other.foundation;
        self.servers.extend(other.servers);
        self.entries.extend(other.entries);
        self.addresses.extend(other.addresses);
    }
}

/// An object, a part of it, or one of its fronts, that is not programmed, or not as it says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejected {
    /// The kind of the object.
    pub kind: Kind,
    /// The object.
    pub object: ObjectName,
    /// Why.
    pub cause: Cause,
    /// Why, in words for its owner.
    pub reason: String,
}

/// Why something is not programmed, or not as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It cannot be used.
    Unusable,
    /// A default is in the place of a value that cannot be used.
    Defaulted,
    /// An older Service has the front.
    Contested,
    /// The address is left to others.
    Excluded,
    /// The kernel lacks its scheduler.
    Scheduler,
}

impl Cause {
    /// Whether it costs a value alone, in whose place a default is programmed.
    pub fn leaves_default(self) -> bool {
        match self {
            Cause::Defaulted | Cause::Scheduler => true,
            Cause::Unusable | Cause::Contested | Cause::Excluded => false,
        }
    }

    /// What is said of the object: `rejected`, or `defaulted`.
    pub fn word(self) -> &'static str {
        if self.leaves_default() { "defaulted" } else { "rejected" }
    }
}

/// The desired tables, and what is needed to keep them so incrementally.
#[derive(Debug, Default)]
pub struct Desired {
    tables: Tables,
    services: BTreeMap<ObjectName, ServiceRows>,
    /// Who wants a front, the winner first.
    claims: BTreeMap<ServerKey, Vec<Rank>>,
    /// Fronts that several Services claim.
    contested: BTreeSet<ServerKey>,
    entry_users: Users<Entry>,
    address_users: Users<IpAddr>,
    /// Shared with whoever answers them.
    health_checks: Arc<BTreeMap<ObjectName, HealthCheck>>,
    away: Away<usize>,
    /// What of single Services is not programmed, whoever else there is.
    rejected: BTreeMap<ObjectName, Vec<(Cause, String)>>,
    excluded: Vec<IpNet>,
    bindings: PerFamily<Binding>,
    removes_leftovers: bool,
}

impl Desired {
    /// Nothing is wanted so far, and addresses of these ranges are left to others.
    pub fn leaving_out(excluded: &[IpNet]) -> Self {
        Desired { excluded: excluded.to_vec(), ..Desired::default() }
    }

    /// From now on, addresses of these ranges are left to others.
    pub fn leave_out(&mut self, excluded: &[IpNet]) {
        self.excluded = excluded.to_vec();
    }

    /// From now on, what other modes of kube-proxy left behind is removed, or not.
    pub fn remove_leftovers(&mut self, is_asked_for: bool) {
        self.removes_leftovers = is_asked_for;
    }

    /// Whether what other modes of kube-proxy left behind is removed.
    pub fn removes_leftovers(&self) -> bool {
        self.removes_leftovers
    }

    /// Whether an address is left to others.
    pub fn excludes(&self, address: &IpAddr) -> bool {
        self.excluded.iter().any(|range| range.contains(address))
    }

    /// The tables as wanted.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Replaces the rows that depend on configuration and host alone.
    pub fn set_foundation(&mut self, foundation: Tables) -> Touched {
        let tables = &mut self.tables;
        let is_new = tables.settings != foundation.settings
            || tables.sets != foundation.sets
            || tables.rulesets != foundation.rulesets
            || tables.device != foundation.device;
        tables.settings = foundation.settings;
        tables.sets = foundation.sets;
        tables.rulesets = foundation.rulesets;
        tables.device = foundation.device;
        Touched { foundation: is_new, ..Touched::default() }
    }

    /// Replaces how the addresses of each family are bound.
    pub fn set_bindings(&mut self, bindings: PerFamily<Binding>) -> Touched {
        let mut touched = Touched::default();
        if std::mem::replace(&mut self.bindings, bindings) == bindings {
            return touched;
        }
        for (address, binding) in &mut self.tables.addresses {
            let wanted = *bindings.get(Family::of(*address));
            if std::mem::replace(binding, wanted) != wanted {
                touched.addresses.insert(*address);
            }
        }
        touched
    }

    /// Replaces the ranges that service addresses come from.
    pub fn set_service_cidrs(&mut self, cidrs: &[IpNet]) -> Touched {
        let entry =
            |net: &IpNet| Entry { set: SetId::ServiceCidr, member: Member::Net(net.trunc()) };
        let wanted: BTreeSet<Entry> = cidrs.iter().map(entry).collect();
        let known: BTreeSet<Entry> = self.tables.entries.of_both(SetId::ServiceCidr).collect();
        for entry in &known {
            self.tables.entries.remove(entry);
        }
        self.tables.entries.extend(wanted.iter().copied());
        let entries = wanted.symmetric_difference(&known).copied().collect();
        Touched { entries, ..Touched::default() }
    }

    /// Replaces what one Service asks for; `None` asks for nothing.
    pub fn replace(&mut self, name: &ObjectName, rows: Option<ServiceRows>) -> Touched {
        let mut touched = Touched::default();
        if self.services.get(name) == rows.as_ref() {
            return touched;
        }
        self.set_health_check(name, rows.as_ref().and_then(|rows| rows.health));
        self.set_rejected(name, rows.as_ref().map_or(&[], |rows| &rows.rejected));
        let away = |rows: Option<&ServiceRows>| rows.map(|rows| rows.away).unwrap_or_default();
        self.away.exchange(away(self.services.get(name)), away(rows.as_ref()));
        let both = [self.services.get(name), rows.as_ref()].into_iter().flatten();
        let fronts: BTreeSet<ServerKey> =
            both.flat_map(|rows| rows.fronts.keys()).copied().collect();
        let before: Vec<Option<Front>> =
            fronts.iter().map(|front| self.winner(front).cloned()).collect();
        self.unclaim(name);
        if let Some(rows) = rows {
            self.claim(name, rows);
        }
        for (front, before) in fronts.iter().zip(before) {
            self.exchange(front, before.as_ref(), &mut touched);
        }
        touched
    }

    /// Services that are known here, programmed or not.
    pub fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.keys()
    }

    /// Every front after one of them, or all, in order; the Service that has it, and what kind of
    /// address it is.
    pub fn owners(
        &self,
        after: Option<ServerKey>,
    ) -> impl Iterator<Item = (&ServerKey, &ObjectName, AddressKind)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.claims.range((start, Bound::Unbounded)).filter_map(|(key, ranks)| {
            let name = &ranks.first()?.name;
            Some((key, name, self.services.get(name)?.fronts.get(key)?.kind))
        })
    }

    /// The Service that has a front.
    pub fn owner(&self, front: &ServerKey) -> Option<&ObjectName> {
        self.claims.get(front)?.first().map(|rank| &rank.name)
    }

    /// Services whose rows depend on the zone of this node.
    pub fn users_of_zone(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.iter().filter(|(_, rows)| rows.uses_zone).map(|(name, _)| name)
    }

    /// Services whose rows depend on the addresses of this host, whichever they are.
    pub fn users_of_host(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.iter().filter(|(_, rows)| rows.uses_host).map(|(name, _)| name)
    }

    /// Services that claim a front at an address.
    pub fn users_of_address(&self, address: IpAddr) -> impl Iterator<Item = &ObjectName> {
        let claims = self.claims.range(ServerKey::all_on(address));
        claims.flat_map(|(_, ranks)| ranks).map(|rank| &rank.name)
    }

    /// The health checks of all Services that have one.
    pub fn health_checks(&self) -> &Arc<BTreeMap<ObjectName, HealthCheck>> {
        &self.health_checks
    }

    /// How many Services have their endpoints elsewhere, where a policy wants them here.
    pub fn away(&self) -> Away<usize> {
        self.away
    }

    /// Services that name a scheduler themselves, one of these.
    pub fn users_of_schedulers<'a>(
        &'a self,
        names: &'a BTreeSet<Arc<str>>,
    ) -> impl Iterator<Item = &'a ObjectName> {
        let uses = |rows: &ServiceRows| rows.scheduler.as_ref().is_some_and(|s| names.contains(s));
        // Cost: every step asks, and hardly ever about any scheduler.
        let asked = (!names.is_empty()).then_some(&self.services);
        asked.into_iter().flatten().filter(move |(_, rows)| uses(rows)).map(|(name, _)| name)
    }

    /// What is not programmed: what single Services cannot have, and fronts that several claim,
    /// where all but the winner are rejected.
    pub fn rejected(&self) -> Vec<Rejected> {
        let alone = self.rejected.iter().flat_map(|(object, reasons)| {
            reasons.iter().map(|(cause, reason)| rejected(object, *cause, reason.clone()))
        });
        let contested = self.contested.iter().filter_map(|front| self.claims.get_key_value(front));
        let losers = contested.flat_map(|(front, ranks)| {
            ranks.iter().skip(1).zip(std::iter::repeat(&ranks[0])).map(move |(rank, winner)| {
                let reason = match rank.created == winner.created {
                    true => format!(
                        "{front} belongs to {}, which is as old, and comes first by name",
                        winner.name
                    ),
                    false => format!("{front} belongs to the older Service {}", winner.name),
                };
                rejected(&rank.name, Cause::Contested, reason)
            })
        });
        alone.chain(losers).collect()
    }

    /// Real servers that are not wanted, but are known endpoints still.
    pub fn leaving(&self, server: &ServerKey) -> &[RealKey] {
        self.winner(server).map_or(&[], |front| &front.leaving)
    }

    /// The entries that a front contributes.
    pub fn entries_of(&self, front: &ServerKey) -> &[Entry] {
        self.winner(front).map_or(&[], |front| &front.entries)
    }

    fn set_rejected(&mut self, name: &ObjectName, reasons: &[(Cause, String)]) {
        match reasons {
            [] => self.rejected.remove(name),
            _ => self.rejected.insert(name.clone(), reasons.to_vec()),
        };
    }

    fn set_health_check(&mut self, name: &ObjectName, check: Option<HealthCheck>) {
        if self.health_checks.get(name) == check.as_ref() {
            return;
        }
        let checks = Arc::make_mut(&mut self.health_checks);
        match check {
            Some(check) => checks.insert(name.clone(), check),
            None => checks.remove(name),
        };
    }

    fn winner(&self, key: &ServerKey) -> Option<&Front> {
        winner(&self.claims, &self.services, key)
    }

    fn claim(&mut self, name: &ObjectName, rows: ServiceRows) {
        for front in rows.fronts.keys() {
            // Cost: hardly any front has a second claim, and room for four is what others take.
            let ranks = self.claims.entry(*front).or_insert_with(|| Vec::with_capacity(1));
            let place = ranks.partition_point(|rank| *rank < rows.rank);
            ranks.insert(place, rows.rank.clone());
            if ranks.len() > 1 {
                self.contested.insert(*front);
            }
        }
        self.services.insert(name.clone(), rows);
    }

    fn unclaim(&mut self, name: &ObjectName) {
        let Some(rows) = self.services.remove(name) else { return };
        for front in rows.fronts.keys() {
            let ranks = self.claims.entry(*front).or_default();
            ranks.retain(|rank| *rank != rows.rank);
            if ranks.len() < 2 {
                self.contested.remove(front);
            }
            if ranks.is_empty() {
                self.claims.remove(front);
            }
        }
    }

    /// Puts the rows of a front's winner in the place of those of the one before.
    fn exchange(&mut self, key: &ServerKey, before: Option<&Front>, touched: &mut Touched) {
        let after = winner(&self.claims, &self.services, key);
        // Who drains, and for how long, may have changed where no row has.
        touched.servers.insert(*key);
        match after {
            Some(front) => self.tables.servers.insert(*key, front.server.clone()),
            None => self.tables.servers.remove(key),
        };
        let [old, new] = [before, after].map(|front| front.map_or(&[][..], |f| &f.entries));
        let (rows, users) = (&mut self.tables.entries, &mut self.entry_users);
        for entry in new.iter().filter(|entry| !old.contains(entry)) {
            if users.join(entry, rows.contains(entry)) {
                rows.insert(*entry);
                touched.entries.insert(*entry);
            }
        }
        for entry in old.iter().filter(|entry| !new.contains(entry)) {
            if users.leave(entry) {
                rows.remove(entry);
                touched.entries.insert(*entry);
            }
        }
        let [old, new] = [before, after].map(|front| front.and_then(|front| front.address));
        let (rows, users) = (&mut self.tables.addresses, &mut self.address_users);
        if old == new {
            return;
        }
        if let Some(address) = new
            && users.join(&address, rows.contains_key(&address))
        {
            rows.insert(address, *self.bindings.get(Family::of(address)));
            touched.addresses.insert(address);
        }
        if let Some(address) = old
            && users.leave(&address)
        {
            rows.remove(&address);
            touched.addresses.insert(address);
        }
    }
}

fn rejected(service: &ObjectName, cause: Cause, reason: String) -> Rejected {
    Rejected { kind: Kind::Service, object: service.clone(), cause, reason }
}

/// The front of the Service that has the first claim on it.
fn winner<'a>(
    claims: &BTreeMap<ServerKey, Vec<Rank>>,
    services: &'a BTreeMap<ObjectName, ServiceRows>,
    key: &ServerKey,
) -> Option<&'a Front> {
    let rank = claims.get(key)?.first()?;
    services.get(&rank.name)?.fronts.get(key)
}

#[cfg(test)]
mod tests;
