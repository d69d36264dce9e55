//! The smallest ordered list of changes that brings the mirror to the desired tables.
//!
//! [`build`] decides, nothing here acts. Order is design: make before break, and at no moment may
//! an address answer without its masquerade and filter rules, or a port without its server.

pub mod audit;
pub mod drain;
pub mod drift;
mod entries;
pub mod flows;
pub mod guard;
mod halfway;
pub mod handover;
pub mod iptables;
pub mod mirror;
pub mod owned;
pub mod slow;
pub mod step;
pub mod takeover;
mod text;
pub mod unclaimed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use crate::desired::foundation::IPV6_FORWARDING;
use crate::desired::{Desired, Touched};
use crate::model::ipset::{Entry, SetId, SetKey, SetSpec};
use crate::model::iptables::{ChainKey, HANDOVER, Ruleset, TableName};
use crate::model::ipvs::{RealKey, RealServer, Server, ServerKey, VirtualServer};
use crate::model::link::Binding;
use crate::model::net::Family;
use crate::model::tables::Tables;
use drain::Drains;
use entries::{Entries, Moment};
use mirror::Mirror;
use slow::Slow;
use step::{Change, RulesChange, Step};

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// Every row on either side.
    All,
    /// The rows that a change may have altered.
    Touched(Touched),
}

impl Extent {
    /// Whether what all rows stand on is looked at.
    pub fn is_of_foundation(&self) -> bool {
        match self {
            Extent::All => true,
            Extent::Touched(touched) => touched.foundation,
        }
    }

    /// The rows.
    pub fn touched(&self, wanted: &Tables, seen: &Tables) -> Touched {
        match self {
            Extent::All => everything(wanted, seen),
            Extent::Touched(touched) => touched.clone(),
        }
    }
}

/// What a plan depends on.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// What is wanted.
    pub desired: &'a Desired,
    /// What is there.
    pub mirror: &'a Mirror,
    /// The drains under way.
    pub drains: &'a Drains,
    /// The slow changes that it makes; all others of their kinds wait.
    pub slow: &'a Slow,
    /// The moment.
    pub now: Instant,
}

/// The steps from the mirror to the desired tables; empty if there is nothing to do.
pub fn build(inputs: Inputs<'_>, extent: &Extent) -> Vec<Step> {
    let (wanted, mirror) = (inputs.desired.tables(), inputs.mirror);
    let touched = extent.touched(wanted, &mirror.tables);
    let inherited = match extent {
        Extent::All => owned::inherited(inputs.desired, mirror),
        Extent::Touched(_) => BTreeSet::new(),
    };
    let servers = Servers::new(inputs, &touched.servers, &inherited);
    let mut entries = Entries::new(wanted, mirror, &touched.entries);
    entries.hold(mirror, servers.rescheduled());
    let addresses = Addresses::new(inputs, &touched.addresses);

    let mut steps = Vec::new();
    let sets = sets(wanted, mirror, entries.missing(), touched.foundation);
    match touched.foundation {
        true => steps.extend(foundation(wanted, mirror, sets, &mut entries)),
        false => steps.push(sets),
    }
    steps.extend(rows(servers, &entries, addresses, &inherited));
    if touched.foundation {
        steps.extend(dismantling(inputs.desired, mirror));
    }
    steps.retain(|step| !step.is_empty());
    steps
}

/// All rows of both sides.
fn everything(wanted: &Tables, seen: &Tables) -> Touched {
    Touched {
        foundation: true,
        servers: wanted.servers.keys().chain(seen.servers.keys()).copied().collect(),
        entries: wanted.entries.iter().chain(seen.entries.iter()).collect(),
        addresses: wanted.addresses.keys().chain(seen.addresses.keys()).copied().collect(),
    }
}

/// Settings, sets, the device and the rules, before any row that relies on them.
fn foundation(wanted: &Tables, mirror: &Mirror, sets: Step, entries: &mut Entries) -> Vec<Step> {
    let seen = &mirror.tables;
    let is_in_force = |(family, rules): (&Family, &Ruleset)| mirror.holds(*family, rules);
    let admitted = match wanted.rulesets.iter().all(is_in_force) {
        true => Entries::default(),
        false => entries.take_answering(wanted, mirror),
    };
    let device = (wanted.device && !seen.device).then_some(Step::Device(true));
    // Order: servers that answer already (of an earlier run, or of kube-proxy) are admitted before
    // the filter that refuses what is not admitted comes into force.
    let [before_forwarding, forwarding] = settings(wanted, seen);
    let before_rules = [
        Step::Settings(before_forwarding),
        Step::Settings(forwarding),
        sets,
        admitted.at(Moment::Allow),
        admitted.at(Moment::Restrict),
        admitted.at(Moment::Prepare),
        admitted.at(Moment::Close),
        admitted.at(Moment::KeepSource),
        admitted.at(Moment::Open),
        admitted.at(Moment::Admit),
    ];
    let rules = wanted.rulesets.iter().filter(|(family, ruleset)| !mirror.holds(**family, ruleset));
    let rules = rules.map(|(family, ruleset)| {
        let handed_over = handover::ruleset(ruleset, seen, *family);
        let to = handed_over.as_ref().unwrap_or(ruleset);
        Step::Rules(rules_change(*family, &rules_of(seen, *family), to))
    });
    before_rules.into_iter().chain(rules).chain(device).collect()
}

/// Changes of rows, those that add before those that take away.
fn rows(
    servers: Servers,
    entries: &Entries,
    addresses: Addresses,
    inherited: &BTreeSet<ServerKey>,
) -> impl IntoIterator<Item = Step> {
    let inherited: Vec<Entry> =
        inherited.iter().map(|key| Entry::of_front(SetId::Servers, key)).collect();
    [
        // Order: until then processes of the node connect from an address that it may not have.
        Step::Addresses(addresses.rerouted),
        // Order: all that is inherited is on record before anything else is, as the record of
        // one says that the rest is somebody else's.
        Step::Entries(inherited.iter().map(|entry| Change::add(*entry, ())).collect()),
        entries.at(Moment::Prove),
        // Order: no client misses an address that the host has besides; its node ports are open
        // only once it is no longer one of a Service.
        Step::Addresses(addresses.yielded),
        entries.at(Moment::Allow),
        entries.at(Moment::Restrict),
        entries.at(Moment::Prepare),
        entries.at(Moment::Hold),
        Step::Servers(servers.added),
        Step::Reals(servers.raised),
        // Order: a front is shut before its last real server goes, else its port would answer with
        // nothing behind it.
        entries.at(Moment::Close),
        Step::Reals(servers.lowered),
        entries.at(Moment::KeepSource),
        Step::Addresses(addresses.bound),
        entries.at(Moment::Open),
        entries.at(Moment::CloseGone),
        Step::Addresses(addresses.unbound),
        Step::Servers(servers.removed),
        entries.at(Moment::Admit),
        entries.at(Moment::Clear),
        entries.at(Moment::Unspare),
        entries.at(Moment::Disallow),
        entries.at(Moment::Disprove),
        Step::Entries(inherited.iter().map(|entry| Change::remove(*entry, ())).collect()),
        entries.at(Moment::Release),
    ]
}

/// Sets to make, and sets to make larger because the missing entries do not fit in (W-09).
///
/// Sets that are missing altogether are part of the foundation. None is ever made smaller.
fn sets<'a>(
    wanted: &Tables,
    mirror: &Mirror,
    missing: impl Iterator<Item = &'a Entry>,
    is_whole: bool,
) -> Step {
    let mut added = BTreeMap::<SetKey, usize>::new();
    for entry in missing {
        *added.entry(entry.key()).or_default() += 1;
    }
    if added.is_empty() && !is_whole {
        return Step::Sets(Vec::new());
    }
    let change = |key: &SetKey, spec: &SetSpec| {
        let from = mirror.tables.sets.get(key).copied();
        let there = from.filter(|there| there.kind == spec.kind);
        let room = there.unwrap_or(*spec).maxelem;
        let more = added.get(key).copied().unwrap_or_default();
        let needed = mirror.size(key) + more;
        let maxelem = room.map(|room| match more == 0 || needed <= room as usize {
            true => room,
            false => capacity(needed),
        });
        let to = Some(SetSpec { kind: spec.kind, maxelem });
        let is_due = there.is_some() || is_whole;
        (is_due && there != to).then_some(Change { key: *key, from, to })
    };
    Step::Sets(wanted.sets.iter().filter_map(|(key, spec)| change(key, spec)).collect())
}

/// The capacity of a set that is to hold so many entries: a power of two, so that sets grow rarely.
fn capacity(entries: usize) -> u32 {
    u32::try_from(entries.next_power_of_two()).unwrap_or(u32::MAX)
}

/// Settings to change: all others before the one that turns on IPv6 forwarding.
fn settings(wanted: &Tables, seen: &Tables) -> [Vec<Change<String, String>>; 2] {
    let differing =
        wanted.settings.iter().filter(|(path, value)| seen.settings.get(*path) != Some(value));
    let changes = differing.map(|(path, value)| Change {
        key: path.clone(),
        from: seen.settings.get(path).cloned(),
        to: Some(value.clone()),
    });
    // Order: interfaces are told to keep taking router advertisements before forwarding is on.
    let (forwarding, others) = changes.partition(|change| change.key == IPV6_FORWARDING);
    [others, forwarding]
}

/// What is left of the foundation when it is no longer wanted, in reverse; before it, what served
/// clients until every front that is to serve did.
fn dismantling(desired: &Desired, mirror: &Mirror) -> Vec<Step> {
    let (wanted, seen) = (desired.tables(), &mirror.tables);
    let handed_over = handed_over(wanted, mirror);
    let unwanted = seen.rulesets.iter().filter(|(family, _)| !wanted.rulesets.contains_key(family));
    let nothing = Default::default();
    let rules = unwanted
        .filter(|(_, ruleset)| !ruleset.has_effect_of(&nothing))
        .map(|(family, ruleset)| Step::Rules(rules_change(*family, ruleset, &nothing)));
    // An address of somebody else on the device keeps the device.
    let mut on_device = seen.addresses.iter().filter(|(_, binding)| binding.address);
    let is_empty = on_device.all(|(address, _)| owned::address(seen, *address));
    let device = (seen.device && !wanted.device && is_empty).then_some(Step::Device(false));
    let sets = seen.sets.iter().filter(|(key, _)| !wanted.sets.contains_key(key));
    let sets = Step::Sets(sets.map(|(key, spec)| Change::remove(*key, *spec)).collect());
    let leftovers = seen.leftovers.iter().filter(|_| desired.removes_leftovers());
    let leftovers = Step::Leftovers(leftovers.map(|key| Change::remove(*key, ())).collect());
    let chains = obsolete_chains(wanted, seen, handed_over.keys());
    let ended = handed_over.iter().map(|(family, there)| {
        let change = rules_change(*family, there, &wanted.rulesets[family]);
        Step::Rules(RulesChange { ends_handover: true, ..change })
    });
    // Order: chains of other modes lead to chains of ours, and rules of ours to theirs.
    ended.chain(rules).chain([leftovers, chains]).chain(device).chain([sets]).collect()
}

/// Rules by which another mode of kube-proxy still decides when the plan has come so far.
fn handed_over(wanted: &Tables, mirror: &Mirror) -> BTreeMap<Family, Ruleset> {
    let seen = &mirror.tables;
    let of_family = |(family, ruleset): (&Family, &Ruleset)| {
        let there = rules_of(seen, *family);
        let rules = match mirror.holds(*family, ruleset) {
            true => Some(there).filter(Ruleset::is_handed_over),
            false => handover::ruleset(ruleset, seen, *family)
                .map(|handed_over| iptables::result(&there, &handed_over)),
        };
        rules.map(|rules| (*family, rules))
    };
    wanted.rulesets.iter().filter_map(of_family).collect()
}

fn rules_of(tables: &Tables, family: Family) -> Ruleset {
    tables.rulesets.get(&family).cloned().unwrap_or_default()
}

fn rules_change(family: Family, there: &Ruleset, wanted: &Ruleset) -> RulesChange {
    let payload = iptables::payload(there, wanted);
    let to = iptables::result(there, wanted);
    RulesChange { family, payload, to, ends_handover: false }
}

/// Chains that are not wanted; they are empty by the time they are deleted.
fn obsolete_chains<'a>(
    wanted: &Tables,
    seen: &Tables,
    handed_over: impl Iterator<Item = &'a Family>,
) -> Step {
    let is_wanted = |chain: &ChainKey| {
        let rules = wanted.rulesets.get(&chain.family).map(|ruleset| ruleset.table(chain.table));
        rules.is_some_and(|rules| rules.chains.contains_key(&chain.name))
    };
    let there = seen.rulesets.iter().flat_map(|(family, ruleset)| ruleset.chains(*family));
    let handover = |family| ChainKey { family, table: TableName::Nat, name: HANDOVER.to_string() };
    let chains: BTreeSet<ChainKey> =
        there.chain(handed_over.map(|family| handover(*family))).collect();
    let obsolete = chains.into_iter().filter(|chain| !is_wanted(chain));
    Step::Chains(obsolete.map(|chain| Change::remove(chain, ())).collect())
}

type AddressChange = Change<IpAddr, Binding>;

/// Changes of how addresses are bound, split by what must come before what.
#[derive(Default)]
struct Addresses {
    /// Routes that get another source, and nothing else.
    rerouted: Vec<AddressChange>,
    /// Ways to add; one that is to be bound otherwise is bound both ways in between.
    bound: Vec<AddressChange>,
    /// Addresses that the host has besides, to give up.
    yielded: Vec<AddressChange>,
    /// Ways of ours to take away.
    unbound: Vec<AddressChange>,
}

impl Addresses {
    fn new(inputs: Inputs<'_>, touched: &BTreeSet<IpAddr>) -> Self {
        let Inputs { desired, mirror, slow, .. } = inputs;
        let (wanted, seen) = (desired.tables(), &mirror.tables);
        let mut changes = Addresses::default();
        for address in touched {
            let [there, to] = [seen, wanted].map(|tables| tables.addresses.get(address).copied());
            let is_rebound = there.zip(to).is_some_and(|(there, to)| !there.has_ways_of(to));
            if is_rebound && !slow.addresses.contains(address) {
                continue;
            }
            let made = to.map_or(there, |to| Some(there.unwrap_or(Binding::NOTHING).with(to)));
            let has_route = there.is_some_and(|there| there.route.is_some());
            if made != there {
                let change = Change { key: *address, from: there, to: made };
                let is_rerouted = has_route && to.is_some_and(|to| to.route.is_some());
                if is_rerouted { &mut changes.rerouted } else { &mut changes.bound }.push(change);
            }
            if made != to && owned::address(seen, *address) {
                let is_yielded = to.is_none() && mirror.host_addresses.contains(address);
                let change = Change { key: *address, from: made, to };
                if is_yielded { &mut changes.yielded } else { &mut changes.unbound }.push(change);
            }
        }
        changes
    }
}

type ServerChange = Change<ServerKey, VirtualServer>;
type RealChange = Change<(ServerKey, RealKey), RealServer>;

/// Changes of virtual and real servers, split by what must come before what.
#[derive(Default)]
struct Servers {
    /// Virtual servers that are new or set anew.
    added: Vec<ServerChange>,
    /// Virtual servers to remove, with all they have.
    removed: Vec<ServerChange>,
    /// Real servers that are new, or take connections again.
    raised: Vec<RealChange>,
    /// Real servers that take no more connections, or go.
    lowered: Vec<RealChange>,
}

impl Servers {
    fn new(
        inputs: Inputs<'_>,
        touched: &BTreeSet<ServerKey>,
        inherited: &BTreeSet<ServerKey>,
    ) -> Self {
        let Inputs { desired, mirror, drains, slow, now } = inputs;
        let seen = &mirror.tables;
        let is_ours =
            |key: &ServerKey| owned::server(desired, seen, key) || inherited.contains(key);
        let mut changes = Servers::default();
        for key in touched {
            let there = seen.servers.get(key).map(|server| &**server);
            match (desired.tables().servers.get(key), there) {
                (Some(wanted), there) => {
                    changes.configure(key, wanted, there, slow);
                    changes.bring(key, wanted, there);
                    changes.lower(key, wanted, there, |real, weight| {
                        drains.may_go(desired, (key, real), weight, now)
                    });
                }
                (None, Some(there)) if is_ours(key) => {
                    changes.removed.push(Change::remove(*key, there.config.clone()));
                }
                (None, _) => {}
            }
        }
        changes
    }

    /// Addresses of servers that get another scheduler.
    fn rescheduled(&self) -> impl Iterator<Item = IpAddr> {
        let changes = self.added.iter().filter(|change| change.is_of_scheduler());
        changes.map(|change| change.key.address)
    }

    /// The virtual server itself, if it is not there or otherwise.
    fn configure(&mut self, key: &ServerKey, wanted: &Server, there: Option<&Server>, slow: &Slow) {
        let from = there.map(|server| &server.config);
        if from == Some(&wanted.config) {
            return;
        }
        let change = Change { key: *key, from: from.cloned(), to: Some(wanted.config.clone()) };
        if !change.is_of_scheduler() || slow.servers.contains(key) {
            self.added.push(change);
        }
    }

    /// Real servers that must be there and are not, or are otherwise.
    fn bring(&mut self, key: &ServerKey, wanted: &Server, there: Option<&Server>) {
        for (real, value) in &wanted.reals {
            let from = there.and_then(|server| server.reals.get(real)).copied();
            if from != Some(*value) {
                self.raised.push(Change { key: (*key, *real), from, to: Some(*value) });
            }
        }
    }

    /// What is there and must not be: drained as long as it may not go, else removed.
    fn lower(
        &mut self,
        key: &ServerKey,
        wanted: &Server,
        there: Option<&Server>,
        may_go: impl Fn(&RealKey, u32) -> bool,
    ) {
        let surplus = there.into_iter().flat_map(|server| &server.reals);
        for (real, value) in surplus.filter(|(real, _)| !wanted.reals.contains_key(real)) {
            let drained = RealServer { weight: 0, ..*value };
            let change = if may_go(real, value.weight) {
                Change::remove((*key, *real), *value)
            } else if value.weight > 0 {
                Change::update((*key, *real), *value, drained)
            } else {
                continue;
            };
            self.lowered.push(change);
        }
    }
}

#[cfg(test)]
mod tests;
