//! Rows that a part of the cluster which cannot be read may ask for.
//!
//! They are what the kernel had at the start and nothing that was read asked for: until all is
//! read, they stay. What is of objects that were read comes and goes as ever.
//! Invariant: a row that an unread part may rely on, shared ones too, is never taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::entries::front_of;
use super::step::{Change, Step};
use crate::model::ipset::{Entry, Member, SetId};
use crate::model::ipvs::{RealKey, ServerKey};
use crate::model::tables::Tables;

/// Sets whose entries say that a front, an address or an endpoint is there, not how it is treated.
const OF_ANY_FRONT: [SetId; 4] = [SetId::Servers, SetId::IpvsIps, SetId::Pass, SetId::LoopBack];

/// Rows of the kernel that nobody known asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unclaimed {
    servers: BTreeSet<ServerKey>,
    reals: BTreeMap<ServerKey, BTreeSet<RealKey>>,
    entries: BTreeSet<Entry>,
    addresses: BTreeSet<IpAddr>,
}

impl Unclaimed {
    /// What is there and not wanted, with what that relies on.
    pub fn of(seen: &Tables, wanted: &Tables) -> Self {
        let mut unclaimed = Unclaimed {
            entries: seen.entries.difference(&wanted.entries).collect(),
            addresses: missing(seen.addresses.keys(), |at| wanted.addresses.contains_key(at)),
            ..Unclaimed::default()
        };
        for (key, server) in &seen.servers {
            let reals = wanted.servers.get(key).map(|server| &server.reals);
            let is_wanted = |real: &RealKey| reals.is_some_and(|reals| reals.contains_key(real));
            let unwanted = missing(server.reals.keys(), is_wanted);
            if reals.is_none() {
                unclaimed.servers.insert(*key);
                unclaimed.addresses.insert(key.address);
            }
            if !unwanted.is_empty() {
                unclaimed.entries.insert(Entry::of_front(SetId::Pass, key));
                unclaimed.reals.insert(*key, unwanted);
            }
        }
        unclaimed
    }

    /// Leaves out what is asked for by now: whoever has claimed a row may take it away again.
    ///
    /// An address stays for as long as a virtual server at it is nobody's.
    pub fn give_up(&mut self, wanted: &Tables) {
        self.entries.retain(|entry| {
            // How a front that is asked for treats its clients is known.
            let is_known = !OF_ANY_FRONT.contains(&entry.set)
                && front_of(entry).is_some_and(|front| wanted.servers.contains_key(&front));
            !is_known && !wanted.entries.contains(entry)
        });
        self.servers.retain(|server| !wanted.servers.contains_key(server));
        self.reals.retain(|server, reals| {
            let claimed = wanted.servers.get(server).map(|server| &server.reals);
            reals.retain(|real| claimed.is_none_or(|claimed| !claimed.contains_key(real)));
            !reals.is_empty()
        });
        for server in self.reals.keys() {
            self.entries.insert(Entry::of_front(SetId::Pass, server));
        }
        let shared: BTreeSet<IpAddr> = self.servers.iter().map(|server| server.address).collect();
        self.addresses.retain(|at| shared.contains(at) || !wanted.addresses.contains_key(at));
    }

    /// Whether a virtual server, or a real server of it, is one of these rows.
    pub fn concerns(&self, server: &ServerKey) -> bool {
        self.servers.contains(server) || self.reals.contains_key(server)
    }

    /// The step without what takes any of them away.
    pub fn spare(&self, step: Step) -> Step {
        match step {
            Step::Sets(changes) => Step::Sets(without(changes, |_| true)),
            Step::Entries(mut changes) => {
                changes.retain(|change| change.to.is_none() || !self.contradicts(&change.key));
                Step::Entries(without(changes, |entry| self.holds(entry)))
            }
            Step::Servers(changes) => {
                Step::Servers(without(changes, |key| self.servers.contains(key)))
            }
            Step::Addresses(changes) => {
                Step::Addresses(without(changes, |address| self.addresses.contains(address)))
            }
            Step::Reals(mut changes) => {
                changes.retain(|Change { key: (server, real), to, .. }| {
                    let serves = to.is_some_and(|real| real.weight > 0);
                    let spared = self.reals.get(server);
                    serves || !spared.is_some_and(|reals| reals.contains(real))
                });
                Step::Reals(changes)
            }
            other => other,
        }
    }

    /// Whether an entry says that no endpoint is here where one may be that nobody knows.
    fn contradicts(&self, entry: &Entry) -> bool {
        entry.set == SetId::NoLocalEndpoints
            && front_of(entry).is_some_and(|front| self.reals.contains_key(&front))
    }

    /// Whether an entry is one of these, or one that they may share with others.
    fn holds(&self, entry: &Entry) -> bool {
        let is_shared = match (entry.set, entry.member) {
            // Of an endpoint, whichever Services it is of.
            (SetId::LoopBack, _) => true,
            // Held back for a moment by ourselves.
            (SetId::Hold, _) => return false,
            (_, Member::Ip(address)) => self.addresses.contains(&address),
            _ => false,
        };
        is_shared || self.entries.contains(entry)
    }
}

fn missing<'a, K: Copy + Ord + 'a>(
    there: impl Iterator<Item = &'a K>,
    is_wanted: impl Fn(&K) -> bool,
) -> BTreeSet<K> {
    there.filter(|key| !is_wanted(key)).copied().collect()
}

fn without<K, V>(
    mut changes: Vec<Change<K, V>>,
    is_spared: impl Fn(&K) -> bool,
) -> Vec<Change<K, V>> {
    changes.retain(|change| change.to.is_some() || !is_spared(&change.key));
    changes
}
