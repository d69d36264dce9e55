//! An audit under way: what parts of a reading say against the mirror.
//!
//! The reading is made beside the work. It is no snapshot, so it proves nothing about rows that
//! were written since it began, and of virtual servers it raises suspicion only: the bulk listing
//! may be torn, and one of them is read again quickly.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::drift::{self, Row, State};
use super::mirror::Mirror;
use super::owned;
use super::step::Step;
use crate::desired::Touched;
use crate::model::ipset::{Entry, Member, SetKey};
use crate::model::ipvs::ServerKey;
use crate::model::link::Binding;
use crate::model::observed::{Listed, Part};
use crate::model::tables::Tables;

/// An audit under way.
#[derive(Debug, Default)]
pub struct Audit {
    /// Rows written since it began.
    written: Touched,
    wrote_foundation: bool,
}

/// What a part says against the mirror.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What all rows stand on is not as it was left: everything is to be read again.
    pub foundation: Vec<(Row, State)>,
    /// Virtual servers to be read again.
    pub suspects: BTreeSet<ServerKey>,
    /// Rows that were otherwise than in the mirror, which has been corrected.
    pub corrected: Touched,
    /// Those that were corrected, one by one.
    pub drift: Vec<(Row, State)>,
}

impl Audit {
    /// A step is carried out meanwhile.
    pub fn wrote(&mut self, step: &Step) {
        self.wrote_foundation |= step.is_of_foundation();
        match step {
            Step::Entries(changes) => {
                self.written.entries.extend(changes.iter().map(|change| change.key));
            }
            Step::Servers(changes) => {
                self.written.servers.extend(changes.iter().map(|change| change.key));
            }
            Step::Reals(changes) => {
                self.written.servers.extend(changes.iter().map(|change| change.key.0));
            }
            Step::Addresses(changes) => {
                self.written.addresses.extend(changes.iter().map(|change| change.key));
            }
            Step::Settings(_)
            | Step::Sets(_)
            | Step::Device(_)
            | Step::Rules(_)
            | Step::Chains(_)
            // They are no rows: nothing is kept of them.
            | Step::Flows(_)
            | Step::Leftovers(_) => {}
        }
    }

    /// Compares a part with the mirror, and corrects the mirror where the part is proof enough.
    pub fn compare(&self, wanted: &Tables, mirror: &mut Mirror, part: &Part) -> Found {
        let seen = &mirror.tables;
        match part {
            Part::Foundation(_) if self.wrote_foundation => Found::default(),
            Part::Foundation(observed) => {
                mirror.settle_chains(&observed.tables.rulesets);
                let foundation = foundation(wanted, &mirror.tables, &observed.tables);
                Found { foundation, ..Found::default() }
            }
            Part::Entries(sets) => {
                let entries = sets.iter().flat_map(|(set, there)| self.entries(seen, *set, there));
                let entries = entries.collect();
                let drift = drift::of_entries(&seen.entries, &entries).collect();
                mirror.correct_entries(&entries);
                let corrected = Touched { entries, ..Touched::default() };
                Found { corrected, drift, ..Found::default() }
            }
            Part::Addresses(there) => {
                let addresses = self.addresses(seen, there);
                let is_recorded = |address| owned::address(seen, address);
                let drift = drift::of_addresses(&addresses, wanted, seen, there, is_recorded);
                let drift = drift.collect();
                mirror.correct_addresses(&addresses, there);
                let corrected = Touched { addresses, ..Touched::default() };
                Found { corrected, drift, ..Found::default() }
            }
            Part::Keys(keys) => Found { suspects: self.gone(seen, keys), ..Found::default() },
            Part::Servers(servers) => {
                Found { suspects: self.others(seen, servers), ..Found::default() }
            }
        }
    }

    /// Virtual servers that a list of all does not name.
    fn gone(&self, seen: &Tables, keys: &BTreeSet<ServerKey>) -> BTreeSet<ServerKey> {
        let differing = on_one_side(seen.servers.keys(), keys.iter()).into_iter();
        let gone = differing.filter(|key| !keys.contains(key));
        gone.filter(|key| self.is_untouched(key)).copied().collect()
    }

    /// Virtual servers that are listed otherwise than in the mirror.
    fn others(&self, seen: &Tables, servers: &[Listed]) -> BTreeSet<ServerKey> {
        let is_known = |listed: &Listed| {
            seen.servers.get(&listed.key).is_some_and(|known| listed.agrees_with(known))
        };
        let other = servers.iter().filter(|listed| !is_known(listed));
        other.map(|listed| listed.key).filter(|key| self.is_untouched(key)).collect()
    }

    fn is_untouched(&self, key: &ServerKey) -> bool {
        !self.written.servers.contains(key)
    }

    /// Entries of a set that are on one side only.
    fn entries(&self, seen: &Tables, set: SetKey, there: &BTreeSet<Member>) -> Vec<Entry> {
        let differing = on_one_side(seen.entries.of(set).iter(), there.iter()).into_iter();
        let differing = differing.map(|member| Entry { set: set.id, member: *member });
        differing.filter(|entry| !self.written.entries.contains(entry)).collect()
    }

    /// Addresses that are bound otherwise than in the mirror, or on one side only.
    fn addresses(&self, seen: &Tables, there: &BTreeMap<IpAddr, Binding>) -> BTreeSet<IpAddr> {
        let differing = on_one_side(seen.addresses.iter(), there.iter()).into_iter();
        let differing = differing.map(|(address, _)| address);
        differing.filter(|address| !self.written.addresses.contains(address)).copied().collect()
    }
}

/// What only one of two ascending sequences has.
///
/// Cost: both are gone through once. Looking each up in the other would hold the loop too long.
fn on_one_side<T: Ord>(left: impl Iterator<Item = T>, right: impl Iterator<Item = T>) -> Vec<T> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    let mut alone = Vec::new();
    loop {
        let side = match (left.peek(), right.peek()) {
            (None, None) => return alone,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => one.cmp(other),
        };
        match side {
            Ordering::Less => alone.extend(left.next()),
            Ordering::Greater => alone.extend(right.next()),
            Ordering::Equal => drop((left.next(), right.next())),
        }
    }
}

/// What all rows stand on and is otherwise than in the mirror.
pub fn foundation(wanted: &Tables, seen: &Tables, there: &Tables) -> Vec<(Row, State)> {
    // Only what is wanted counts: each interface that comes or goes has settings of its own.
    let settings = wanted.settings.keys().filter_map(|path| {
        let [left, there] = [seen, there].map(|tables| tables.settings.get(path));
        let words = |left: &String, there: &String| format!("{there}, not {left}");
        let state = State::of(left, there)?.told(left.zip(there), words);
        Some((Row::Setting(path.clone()), state))
    });
    let sets = drift::differing(&seen.sets, &there.sets);
    let rules = drift::of_rules(&seen.rulesets, &there.rulesets);
    let device = [seen, there].map(|tables| tables.device.then_some(()));
    let device = State::of(device[0], device[1]).map(|state| (Row::Device, state));
    settings
        .chain(sets.map(|(set, state)| (Row::Set(*set), state)))
        .chain(rules)
        .chain(device)
        .collect()
}

#[cfg(test)]
mod tests;
