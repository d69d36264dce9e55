//! The entries of all sets, those of each set by themselves.
//!
//! Cost: most of what is asked about a front concerns sets that have no entries, or few.

use std::collections::BTreeSet;

use super::{Entry, Member, SetId, SetKey};
use crate::model::net::Family;

/// Entries by their sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    /// For each set of each family, in the order of keys.
    members: [BTreeSet<Member>; SetKey::COUNT],
}

impl Default for Entries {
    fn default() -> Self {
        Entries { members: [const { BTreeSet::new() }; SetKey::COUNT] }
    }
}

impl Entries {
    /// The members of a set.
    pub fn of(&self, set: SetKey) -> &BTreeSet<Member> {
        &self.members[set.place()]
    }

    /// The entries of a set, of both families.
    pub fn of_both(&self, set: SetId) -> impl Iterator<Item = Entry> {
        let members = Family::ALL.map(|family| self.of(SetKey { id: set, family }));
        members.into_iter().flatten().map(move |member| Entry { set, member: *member })
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = Entry> {
        SetId::all().flat_map(|set| self.of_both(set))
    }

    /// Whether the entry is in its set.
    pub fn contains(&self, entry: &Entry) -> bool {
        self.of(entry.key()).contains(&entry.member)
    }

    /// Puts an entry into its set; false if it is there already.
    pub fn insert(&mut self, entry: Entry) -> bool {
        self.members[entry.key().place()].insert(entry.member)
    }

    /// Takes an entry out of its set; false if it is not there.
    pub fn remove(&mut self, entry: &Entry) -> bool {
        self.members[entry.key().place()].remove(&entry.member)
    }

    /// Takes all entries out of a set.
    pub fn clear(&mut self, set: SetKey) {
        self.members[set.place()].clear();
    }

    /// Keeps the entries that pass.
    pub fn retain(&mut self, mut pass: impl FnMut(&Entry) -> bool) {
        for set in SetId::all() {
            for family in Family::ALL {
                let members = &mut self.members[SetKey { id: set, family }.place()];
                members.retain(|member| pass(&Entry { set, member: *member }));
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.iter().all(BTreeSet::is_empty)
    }

    /// Entries that the others are without.
    pub fn difference(&self, others: &Self) -> impl Iterator<Item = Entry> {
        self.iter().filter(|entry| !others.contains(entry))
    }

    /// Entries that are on one side only.
    pub fn symmetric_difference(&self, others: &Self) -> impl Iterator<Item = Entry> {
        self.difference(others).chain(others.difference(self))
    }
}

impl Extend<Entry> for Entries {
    fn extend<I: IntoIterator<Item = Entry>>(&mut self, entries: I) {
        for entry in entries {
            self.insert(entry);
        }
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut collected = Entries::default();
        collected.extend(entries);
        collected
    }
}

impl<const N: usize> From<[Entry; N]> for Entries {
    fn from(entries: [Entry; N]) -> Self {
        entries.into_iter().collect()
    }
}
