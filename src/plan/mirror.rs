//! The mirror: what the kernel was last seen or made to hold.

mod prints;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use self::prints::Prints;
use super::step::{Change, Step};
use super::{RealChange, ServerChange};
use crate::desired::Touched;
use crate::model::ipset::{Entry, SetId, SetKey};
use crate::model::iptables::{ChainKey, Ruleset, TableName};
use crate::model::ipvs::{Server, ServerKey};
use crate::model::link::Binding;
use crate::model::net::Family;
use crate::model::observed::Observed;
use crate::model::sysctl::is_tuning;
use crate::model::tables::Tables;

/// The mirror of the kernel. Virtual servers of others are in it; they are not touched.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    /// The rows.
    pub tables: Tables,
    /// Addresses on devices other than ours.
    pub host_addresses: BTreeSet<IpAddr>,
    /// Rulesets that were loaded, and how they are printed.
    prints: Prints,
    /// Chains of which nobody knows whether we have deleted them.
    fading: BTreeSet<ChainKey>,
    trust: Trust,
}

/// What the mirror can be relied on for, the least first.
///
/// A change of which nobody knows what became of it is noted as not made. Order: each level is
/// safe for what it allows, whatever became of the changes that lowered it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Virtual and real servers. An entry or address too many may go unseen, so nothing may be
    /// taken away that it relies on; real servers can be added, and drained next to others.
    Servers,
    /// All rows that depend on Services. What they stand on may be there unseen; whatever relies
    /// on it waits as if it were not.
    Rows,
    /// Everything.
    #[default]
    Everything,
}

impl Mirror {
    /// Rows that depend on Services and are otherwise in a reading of everything.
    pub fn differing(&self, there: &Tables) -> Touched {
        let here = &self.tables;
        let keys = here.servers.keys().chain(there.servers.keys());
        let addresses = here.addresses.keys().chain(there.addresses.keys());
        Touched {
            servers: keys
                .filter(|key| here.servers.get(key) != there.servers.get(key))
                .copied()
                .collect(),
            entries: here.entries.symmetric_difference(&there.entries).collect(),
            addresses: addresses
                .filter(|ip| here.addresses.get(ip) != there.addresses.get(ip))
                .copied()
                .collect(),
            ..Touched::default()
        }
    }

    /// Takes over a reading of everything.
    pub fn replace(&mut self, observed: Tables) {
        self.tables = observed;
        self.trust = Trust::Everything;
    }

    /// Whether rules are to be read back.
    pub fn awaits_print(&self) -> bool {
        self.prints.are_due()
    }

    /// Takes rules that were read back after a load for what was loaded, chain by chain; chains
    /// that were deleted since stay so.
    pub fn adopt_printed(&mut self, there: &BTreeMap<Family, Ruleset>) {
        self.prints.adopt(&mut self.tables.rulesets, there);
    }

    /// Rules that were loaded could not be read back.
    pub fn miss_print(&mut self) {
        self.prints.miss();
    }

    /// Takes over rules that could not be read back after their load: where they are printed
    /// otherwise than written, be it by others or not, they are loaded anew.
    pub fn settle_rules(&mut self, there: &BTreeMap<Family, Ruleset>) {
        for family in self.prints.take_unknown() {
            let ruleset = there.get(&family).cloned().unwrap_or_default();
            note_rules(&mut self.tables, family, ruleset);
        }
    }

    /// Whether we may have deleted a chain that is noted; one that has rules by now was made again.
    fn may_lack(&self, chain: &ChainKey) -> bool {
        let rules = rules_of(&self.tables.rulesets, chain);
        self.fading.contains(chain) && rules.is_some_and(Vec::is_empty)
    }

    /// The rules that are noted, without the chains that we may have deleted.
    pub fn sure_rulesets(&self) -> BTreeMap<Family, Ruleset> {
        let mut sure = self.tables.rulesets.clone();
        for chain in self.fading.iter().filter(|chain| self.may_lack(chain)) {
            if let Some(rules) = sure.get_mut(&chain.family) {
                rules.drop_chain(chain);
            }
        }
        sure
    }

    /// Takes chains that are gone for deleted by us, where that may be so.
    pub fn settle_chains(&mut self, there: &BTreeMap<Family, Ruleset>) {
        let is_gone = |chain: &&ChainKey| self.may_lack(chain) && rules_of(there, chain).is_none();
        let gone: Vec<ChainKey> = self.fading.iter().filter(is_gone).cloned().collect();
        gone.iter().for_each(|chain| note_chain(&mut self.tables, chain));
        self.fading.clear();
    }

    /// Nobody knows what became of a change of the step.
    pub fn distrust(&mut self, step: &Step) {
        match step {
            // What is read next may be these, and no print of those before.
            Step::Rules(change) => self.prints.forget(change.family),
            Step::Chains(changes) => {
                self.fading.extend(changes.iter().map(|change| change.key.clone()));
            }
            _ => {}
        }
        let trust = match step {
            Step::Settings(_) | Step::Sets(_) | Step::Device(_) | Step::Rules(_) => Trust::Rows,
            Step::Entries(_) | Step::Addresses(_) => Trust::Servers,
            // They are read again one by one.
            Step::Servers(_) | Step::Reals(_) => Trust::Everything,
            // Nothing relies on an empty chain or on what is left over; flows are not mirrored.
            Step::Chains(_) | Step::Flows(_) | Step::Leftovers(_) => Trust::Everything,
        };
        self.trust = self.trust.min(trust);
    }

    /// What it can be relied on for.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// Takes over a reading of some virtual servers.
    pub fn refresh(&mut self, keys: &BTreeSet<ServerKey>, observed: Observed) {
        for key in keys {
            self.tables.servers.remove(key);
        }
        self.tables.servers.extend(observed.tables.servers);
    }

    /// Keeps no copy of virtual servers that are as wanted.
    pub fn share(&mut self, wanted: &Tables, keys: &BTreeSet<ServerKey>) {
        for key in keys {
            if let (Some(wanted), Some(there)) =
                (wanted.servers.get(key), self.tables.servers.get_mut(key))
                && wanted == there
            {
                there.clone_from(wanted);
            }
        }
    }

    /// Takes over that these entries are there if they were not, and the other way round.
    pub fn correct_entries(&mut self, entries: &BTreeSet<Entry>) {
        for entry in entries {
            self.put(*entry, !self.tables.entries.contains(entry));
        }
    }

    /// Takes over how some addresses are bound.
    pub fn correct_addresses(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
        there: &BTreeMap<IpAddr, Binding>,
    ) {
        for address in addresses {
            match there.get(address) {
                Some(binding) => self.tables.addresses.insert(*address, *binding),
                None => self.tables.addresses.remove(address),
            };
        }
    }

    /// Number of entries that a set holds.
    pub fn size(&self, set: &SetKey) -> usize {
        self.tables.entries.of(*set).len()
    }

    /// Whether the rules of a family are as wanted; another mode of kube-proxy may still decide
    /// before them.
    pub fn holds(&self, family: Family, wanted: &Ruleset) -> bool {
        let Some(there) = self.tables.rulesets.get(&family) else { return false };
        let there = there.without_handover();
        there.has_effect_of(wanted) || self.prints.tell(family, wanted, &there)
    }

    /// Whether all that every Service relies on is in place: settings, sets, rules, the device.
    ///
    /// No Service relies on how long or how many connections are tracked, or on who answers ARP.
    pub fn is_founded(&self, wanted: &Tables) -> bool {
        Family::ALL.into_iter().all(|family| self.is_founded_in(family, wanted))
    }

    /// The same for Services of one family.
    pub fn is_founded_in(&self, family: Family, wanted: &Tables) -> bool {
        let seen = &self.tables;
        let mut settings = wanted.settings.iter().filter(|(path, _)| !is_tuning(path));
        let mut sets = wanted.sets.iter().filter(|(key, _)| key.family == family);
        let rules = wanted.rulesets.get(&family);
        settings.all(|(path, value)| seen.settings.get(path) == Some(value))
            && sets.all(|(key, spec)| seen.sets.get(key).is_some_and(|set| set.kind == spec.kind))
            && rules.is_none_or(|rules| self.holds(family, rules))
            && (seen.device || !wanted.device)
    }

    /// Notes that an entry is there, or not.
    fn put(&mut self, entry: Entry, is_there: bool) {
        match is_there {
            true => self.tables.entries.insert(entry),
            false => self.tables.entries.remove(&entry),
        };
    }

    /// Whether the filter that is there, be it damaged, refuses what the set of open fronts does
    /// not name.
    pub fn filters(&self, family: Family) -> bool {
        const CHAIN: &str = "KUBE-IPVS-FILTER";
        let names = |lines: Option<&Vec<String>>, word: &str| {
            lines.into_iter().flatten().any(|line| line.split(' ').any(|other| other == word))
        };
        let rules = self.tables.rulesets.get(&family).map(|rules| rules.table(TableName::Filter));
        rules.is_some_and(|rules| {
            let pass = SetKey { id: SetId::Pass, family };
            names(rules.jumps.get("INPUT"), CHAIN) && names(rules.chains.get(CHAIN), pass.name())
        })
    }

    /// Notes that a step took effect, except for the changes whose indexes are given.
    pub fn note(&mut self, step: &Step, failed: &BTreeSet<usize>) {
        let tables = &mut self.tables;
        match step {
            Step::Settings(changes) => note_map(&mut tables.settings, changes, failed),
            Step::Sets(changes) => {
                note_map(&mut tables.sets, changes, failed);
                let gone = changes.iter().map(|change| change.key);
                let gone = gone.filter(|set| !tables.sets.contains_key(set));
                gone.for_each(|set| tables.entries.clear(set));
            }
            Step::Device(present) if failed.is_empty() => note_device(tables, *present),
            Step::Rules(change) if failed.is_empty() => {
                self.prints.load(change.family, change.to.clone());
                note_rules(tables, change.family, change.to.clone());
            }
            Step::Device(_) | Step::Rules(_) | Step::Flows(_) => {}
            Step::Chains(changes) => {
                effective(changes, failed).for_each(|gone| note_chain(tables, &gone.key));
            }
            Step::Entries(changes) => {
                effective(changes, failed)
                    .for_each(|change| self.put(change.key, change.to.is_some()));
            }
            Step::Addresses(changes) => note_map(&mut tables.addresses, changes, failed),
            Step::Leftovers(changes) => {
                for change in effective(changes, failed) {
                    tables.leftovers.remove(&change.key);
                }
            }
            Step::Servers(changes) => {
                effective(changes, failed).for_each(|change| note_server(tables, change));
            }
            Step::Reals(changes) => {
                effective(changes, failed).for_each(|change| note_real(tables, change));
            }
        }
    }
}

/// Routes are not by the device, so they stay without it.
fn note_device(tables: &mut Tables, present: bool) {
    tables.device = present;
    tables.addresses.retain(|_, binding| {
        binding.address &= present;
        *binding != Binding::NOTHING
    });
}

/// A family without anything of ours is not read as one with an empty ruleset.
fn note_rules(tables: &mut Tables, family: Family, ruleset: Ruleset) {
    match ruleset.is_empty() {
        true => tables.rulesets.remove(&family),
        false => tables.rulesets.insert(family, ruleset),
    };
}

fn rules_of<'a>(
    rulesets: &'a BTreeMap<Family, Ruleset>,
    chain: &ChainKey,
) -> Option<&'a Vec<String>> {
    rulesets.get(&chain.family)?.table(chain.table).chains.get(&chain.name)
}

/// A chain is gone.
fn note_chain(tables: &mut Tables, chain: &ChainKey) {
    let Some(mut ruleset) = tables.rulesets.remove(&chain.family) else { return };
    ruleset.drop_chain(chain);
    note_rules(tables, chain.family, ruleset);
}

/// A virtual server that is changed keeps its real servers.
fn note_server(tables: &mut Tables, change: &ServerChange) {
    match (&change.to, tables.servers.get_mut(&change.key)) {
        (Some(config), Some(server)) => Arc::make_mut(server).config = config.clone(),
        (Some(config), None) => {
            let server = Server { config: config.clone(), reals: BTreeMap::new() };
            tables.servers.insert(change.key, server.into());
        }
        (None, _) => {
            tables.servers.remove(&change.key);
        }
    }
}

fn note_real(tables: &mut Tables, change: &RealChange) {
    let (server, real) = change.key;
    let Some(server) = tables.servers.get_mut(&server) else { return };
    let reals = &mut Arc::make_mut(server).reals;
    match change.to {
        Some(value) => reals.insert(real, value),
        None => reals.remove(&real),
    };
}

fn effective<'a, K, V>(
    changes: &'a [Change<K, V>],
    failed: &'a BTreeSet<usize>,
) -> impl Iterator<Item = &'a Change<K, V>> {
    changes.iter().enumerate().filter(|(index, _)| !failed.contains(index)).map(|(_, c)| c)
}

fn note_map<K: Ord + Clone, V: Clone>(
    map: &mut BTreeMap<K, V>,
    changes: &[Change<K, V>],
    failed: &BTreeSet<usize>,
) {
    for change in effective(changes, failed) {
        match &change.to {
            Some(value) => map.insert(change.key.clone(), value.clone()),
            None => map.remove(&change.key),
        };
    }
}
