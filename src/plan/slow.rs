//! Slow changes: the kernel takes milliseconds for each, in which nothing else is changed.
//!
//! An address that is bound in another way answers all the same, and so does a virtual server with
//! another scheduler. A plan therefore makes but a few, and the next one the next few.
//! Invariant: they take turns, and those that fail wait for the retry, so that they keep no others
//! from being made.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Bound::{Excluded, Unbounded};

use super::Extent;
use super::mirror::Mirror;
use crate::desired::Desired;
use crate::model::ipvs::ServerKey;

/// Most addresses that one plan binds in another way.
///
/// Kernel: to remove one of 10,000 IPv6 addresses of a device takes milliseconds.
pub const MOST_ADDRESSES: usize = 64;

/// Most virtual servers that get another scheduler in one plan.
///
/// Kernel: each takes an RCU grace period, tens of milliseconds on a busy node.
pub const MOST_SERVERS: usize = 8;

/// Rows that are to be changed slowly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slow {
    /// Addresses that are bound in another way than they are to be.
    pub addresses: BTreeSet<IpAddr>,
    /// Virtual servers that have another scheduler than they are to have.
    pub servers: BTreeSet<ServerKey>,
}

impl Slow {
    /// All such rows of an extent.
    pub fn of(desired: &Desired, mirror: &Mirror, extent: &Extent) -> Self {
        let (wanted, seen) = (desired.tables(), &mirror.tables);
        let is_otherwise = |address: &&IpAddr| {
            let there = seen.addresses.get(*address).zip(wanted.addresses.get(*address));
            there.is_some_and(|(there, to)| !there.has_ways_of(*to))
        };
        let has_other = |key: &&ServerKey| {
            let there = seen.servers.get(*key).zip(wanted.servers.get(*key));
            there.is_some_and(|(there, to)| there.config.scheduler != to.config.scheduler)
        };
        match extent {
            Extent::All => Slow {
                addresses: seen.addresses.keys().filter(is_otherwise).copied().collect(),
                servers: seen.servers.keys().filter(has_other).copied().collect(),
            },
            Extent::Touched(touched) => Slow {
                addresses: touched.addresses.iter().filter(is_otherwise).copied().collect(),
                servers: touched.servers.iter().filter(has_other).copied().collect(),
            },
        }
    }
}

/// Slow changes that are still to be made, and whose turn it is.
#[derive(Debug, Default)]
pub struct Queue {
    addresses: Turns<IpAddr>,
    servers: Turns<ServerKey>,
}

impl Queue {
    /// The next few; at a retry, of those that failed.
    pub fn next(&self, is_retry: bool) -> Slow {
        Slow {
            addresses: self.addresses.next(MOST_ADDRESSES, is_retry),
            servers: self.servers.next(MOST_SERVERS, is_retry),
        }
    }

    /// The few of these whose turn it is; then it is that of others.
    pub fn take(&mut self, due: &Slow, is_retry: bool) -> Slow {
        Slow {
            addresses: self.addresses.take(&due.addresses, MOST_ADDRESSES, is_retry),
            servers: self.servers.take(&due.servers, MOST_SERVERS, is_retry),
        }
    }

    /// Notes which rows of the extent are still to be changed; those that had their turn failed.
    pub fn note(&mut self, extent: &Extent, left: Slow) {
        match extent {
            Extent::All => {
                self.addresses.replace(left.addresses);
                self.servers.replace(left.servers);
            }
            Extent::Touched(touched) => {
                self.addresses.note(&touched.addresses, left.addresses);
                self.servers.note(&touched.servers, left.servers);
            }
        }
        self.addresses.put_off();
        self.servers.put_off();
    }

    /// Number of those that failed.
    pub fn failed(&self) -> usize {
        self.addresses.failed.len() + self.servers.failed.len()
    }

    /// Those that failed wait for no retry any more.
    pub fn forgive(&mut self) {
        self.addresses.ready.append(&mut self.addresses.failed);
        self.servers.ready.append(&mut self.servers.failed);
    }

    /// How many may be made at once; those that failed wait for the retry.
    pub fn len(&self) -> usize {
        self.addresses.ready.len() + self.servers.ready.len()
    }

    /// Whether none may.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Rows of one kind.
///
/// Cost: those that failed are many where a whole way of binding fails; they are not gone through
/// for a change of others.
#[derive(Debug)]
struct Turns<K> {
    /// Those that may be made at once.
    ready: BTreeSet<K>,
    /// Those that are still to be made although they had a turn.
    failed: BTreeSet<K>,
    /// Who had a turn in this sync.
    taken: BTreeSet<K>,
    /// Who had the last turn.
    last: Option<K>,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        let [ready, failed, taken] = [(); 3].map(|()| BTreeSet::new());
        Turns { ready, failed, taken, last: None }
    }
}

impl<K: Ord + Copy> Turns<K> {
    fn next(&self, most: usize, is_retry: bool) -> BTreeSet<K> {
        let is_retry = is_retry && !self.failed.is_empty();
        let waiting = if is_retry { &self.failed } else { &self.ready };
        self.in_turn(waiting).take(most).copied().collect()
    }

    /// Those after the last that had its turn, and round to it.
    fn in_turn<'a>(&self, all: &'a BTreeSet<K>) -> impl Iterator<Item = &'a K> + use<'a, K> {
        let later = all.range((self.last.map_or(Unbounded, Excluded), Unbounded));
        let earlier = self.last.into_iter().flat_map(|last| all.range(..=last));
        later.chain(earlier)
    }

    fn take(&mut self, due: &BTreeSet<K>, most: usize, is_retry: bool) -> BTreeSet<K> {
        let is_retry = is_retry && !self.failed.is_disjoint(due);
        let few = self.in_turn(due).filter(|key| self.failed.contains(key) == is_retry);
        let few: Vec<K> = few.take(most).copied().collect();
        self.last = few.last().copied().or(self.last);
        self.taken.extend(&few);
        few.into_iter().collect()
    }

    fn replace(&mut self, left: BTreeSet<K>) {
        self.failed.retain(|key| left.contains(key));
        self.ready = left.difference(&self.failed).copied().collect();
    }

    fn note(&mut self, touched: &BTreeSet<K>, left: BTreeSet<K>) {
        for key in touched.difference(&left) {
            self.ready.remove(key);
            self.failed.remove(key);
        }
        self.ready.extend(left.difference(&self.failed));
    }

    fn put_off(&mut self) {
        for key in std::mem::take(&mut self.taken) {
            if self.ready.remove(&key) {
                self.failed.insert(key);
            }
        }
    }
}
