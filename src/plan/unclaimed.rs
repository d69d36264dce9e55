//! Rows that a part of the cluster which cannot be read may ask for.
//!
//! They are what the kernel had at the start and nothing that was read asked for: until all is
//! read, they stay. What is of objects that were read comes and goes as ever.
//! Invariant: a row that an unread part may rely on, shared ones too, is never taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::entries::{Effect, front_of};
use super::halfway::{allowances, fronts_of, spared_by, treatments};
use super::mirror::Mirror;
use super::step::{Change, Step};
use crate::desired::Touched;
use crate::model::ipset::{Entries, Entry, Member, SetId};
use crate::model::ipvs::{RealKey, Server, ServerKey};
use crate::model::net::Family;
use crate::model::tables::Tables;

/// Rows of the kernel that nobody known asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unclaimed {
    servers: BTreeSet<ServerKey>,
    reals: BTreeMap<ServerKey, BTreeSet<RealKey>>,
    /// Virtual servers that had no endpoint on this node.
    elsewhere: BTreeSet<ServerKey>,
    entries: Entries,
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
                unclaimed.reals.insert(*key, unwanted);
                if seen.lists(SetId::NoLocalEndpoints, key) {
                    unclaimed.elsewhere.insert(*key);
                }
            }
        }
        let servers = wanted.servers.keys().copied().collect();
        let entries = wanted.entries.iter().collect();
        unclaimed.give_up(wanted, &Touched { servers, entries, ..Touched::default() });
        unclaimed
    }

    /// Leaves out what is asked for by now, of what was touched: whoever has claimed a row may
    /// take it away again. Returns the entries that are to be looked at again for it.
    ///
    /// An address stays for as long as a virtual server at it is nobody's.
    pub fn give_up(&mut self, wanted: &Tables, touched: &Touched) -> BTreeSet<Entry> {
        let mut freed = BTreeSet::new();
        for entry in touched.entries.iter().filter(|entry| wanted.entries.contains(entry)) {
            self.entries.remove(entry);
            // How its clients are treated is known by now.
            let spared = spared_by(entry.set).map(|set| entry.in_set(set));
            freed.extend(spared.filter(|spared| self.entries.remove(spared)));
        }
        for key in &touched.servers {
            match wanted.servers.get(key) {
                Some(server) => freed.extend(self.claim(key, server)),
                None if self.servers.contains(key) => {}
                // Whoever takes a virtual server away does so with all that it has.
                None if self.reals.remove(key).is_some() => freed.extend(treatments(key)),
                None => {}
            }
        }
        let of_servers = touched.servers.iter().map(|server| server.address);
        for address in touched.addresses.iter().copied().chain(of_servers) {
            let is_nobodys = self.servers.range(ServerKey::all_on(address)).next().is_some();
            if wanted.addresses.contains_key(&address) && !is_nobodys {
                self.addresses.remove(&address);
            }
        }
        freed
    }

    /// Takes in that a virtual server is asked for, with these real servers; returns the entries
    /// about its clients that are not held any more.
    fn claim(&mut self, key: &ServerKey, server: &Server) -> BTreeSet<Entry> {
        self.servers.remove(key);
        let had_reals = self.reals.contains_key(key);
        if let Some(reals) = self.reals.get_mut(key) {
            reals.retain(|real| !server.reals.contains_key(real));
            if reals.is_empty() {
                self.reals.remove(key);
            }
        }
        let is_known = had_reals && !self.reals.contains_key(key);
        let mut about: BTreeSet<Entry> =
            treatments(key).chain(allowances(&self.entries, key)).collect();
        // A node port may be that of another address, of which nothing was read.
        let mut is_given_up =
            |entry: &Entry| front_of(entry) == Some(*key) && self.entries.remove(entry);
        about.retain(|entry| is_given_up(entry) || is_known);
        about
    }

    /// Whether a virtual server, or a real server of it, is one of these rows.
    pub fn concerns(&self, server: &ServerKey) -> bool {
        self.servers.contains(server) || self.reals.contains_key(server)
    }

    /// Whether a real server is one of these rows.
    pub fn has_real(&self, server: &ServerKey, real: &RealKey) -> bool {
        self.reals.get(server).is_some_and(|reals| reals.contains(real))
    }

    /// Real servers among these rows that may be on this node.
    pub fn local_reals(&self, server: &ServerKey) -> impl Iterator<Item = &RealKey> {
        let is_elsewhere = self.elsewhere.contains(server);
        self.reals.get(server).filter(|_| !is_elsewhere).into_iter().flatten()
    }

    /// What lets clients go on to virtual servers among these rows when the rules of a family come
    /// into force: kube-proxy, whose rules refuse nobody, has no entries for it.
    pub fn admission(&self, family: Family, mirror: &Mirror) -> Step {
        let seen = &mirror.tables;
        let is_local = |address: &IpAddr| {
            seen.addresses.contains_key(address) || mirror.host_addresses.contains(address)
        };
        let is_reached = |front: &&ServerKey| {
            front.family() == family
                && is_local(&front.address)
                && seen.serves(front)
                && !seen.lists(SetId::Pass, front)
        };
        let reached = self.servers.iter().filter(|_| !mirror.filters(family)).filter(is_reached);
        let pass = |front| Change::add(Entry::of_front(SetId::Pass, front), ());
        Step::Entries(reached.map(pass).collect())
    }

    /// The step without what takes any of them away, or keeps answers of them from clients.
    pub fn spare(&self, step: Step, mirror: &Mirror) -> Step {
        match step {
            Step::Sets(changes) => Step::Sets(without(changes, |_| true)),
            Step::Entries(mut changes) => {
                changes.retain(|Change { key: entry, to, .. }| match to {
                    Some(()) => !self.contradicts(entry, &mirror.tables, &mirror.host_addresses),
                    None => !self.holds(entry, &mirror.host_addresses),
                });
                Step::Entries(changes)
            }
            Step::Servers(changes) => {
                Step::Servers(without(changes, |key| self.servers.contains(key)))
            }
            Step::Addresses(changes) => {
                let host_addresses = &mirror.host_addresses;
                Step::Addresses(without(changes, |it| self.holds_address(it, host_addresses)))
            }
            Step::Reals(mut changes) => {
                changes.retain(|Change { key: (server, real), to, .. }| {
                    let serves = to.is_some_and(|real| real.weight > 0);
                    serves || !self.has_real(server, real)
                });
                Step::Reals(changes)
            }
            other => other,
        }
    }

    /// Whether an entry says that no endpoint is here, or that all are, where one may be otherwise
    /// that nobody knows.
    pub fn contradicts(
        &self,
        entry: &Entry,
        seen: &Tables,
        host_addresses: &BTreeSet<IpAddr>,
    ) -> bool {
        let mut fronts = fronts_of(entry, host_addresses);
        match Effect::of(entry.set) {
            Effect::KeepsSource(from) => {
                let is_masqueraded = seen.entries.contains(&entry.in_set(from));
                is_masqueraded && fronts.any(|front| self.reals.contains_key(&front))
            }
            Effect::Restricts if entry.set == SetId::NoLocalEndpoints => {
                fronts.any(|front| self.local_reals(&front).next().is_some())
            }
            _ => false,
        }
    }

    /// Whether an address is one of these; what the host has itself stays local without us.
    fn holds_address(&self, address: &IpAddr, host_addresses: &BTreeSet<IpAddr>) -> bool {
        self.addresses.contains(address) && !host_addresses.contains(address)
    }

    /// Whether an entry is one of these, or one that they may share with others.
    pub fn holds(&self, entry: &Entry, host_addresses: &BTreeSet<IpAddr>) -> bool {
        let has_reals = || front_of(entry).is_some_and(|front| self.reals.contains_key(&front));
        let is_shared = match (entry.set, entry.member) {
            // Of an endpoint, whichever Services it is of.
            (SetId::LoopBack, _) => true,
            // On record by ourselves, as it was taken over.
            (SetId::Servers, _) => front_of(entry).is_some_and(|it| self.servers.contains(&it)),
            // Held back for a moment by ourselves.
            (SetId::Hold, _) => return false,
            // They take connections, and may be on other nodes.
            (SetId::Pass | SetId::ExternalIp, _) => has_reals(),
            (_, Member::Ip(address)) if host_addresses.contains(&address) => return false,
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
