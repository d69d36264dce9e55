//! Changes the host, one step at a time: settings, sets, rules, entries.
//!
//! The device is in [`super::device`], addresses are in [`super::addresses`], servers are in [`super::servers`].
//! Invariant: every change of a step is tried, and each has an outcome of its own; removing what
//! is gone and adding what is there already are successes.

use std::collections::BTreeMap;

use super::{LinuxKernel, convert, refused};
use crate::kernel::ipset::{NewSet, Room};
use crate::kernel::iptables::Printed;
use crate::kernel::ipvs::Timeout;
use crate::kernel::{Error, Failure};
use crate::model::ipset::{Entry, Member, SetKey, SetSpec};
use crate::model::iptables::ChainKey;
use crate::plan;
use crate::plan::step::{Change, RulesChange, Step};

/// What a change does to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    /// It is no longer wanted.
    Remove,
    /// It is wanted.
    Add,
}

impl Direction {
    /// What a change does.
    pub fn of<K, V>(change: &Change<K, V>) -> Self {
        match change.to {
            None => Direction::Remove,
            Some(_) => Direction::Add,
        }
    }
}

impl LinuxKernel {
    /// Carries out a step.
    pub(super) fn apply_step(&mut self, step: &Step) -> Vec<Failure> {
        let failures = self.apply_all(step);
        self.printed = Printed::default();
        failures
    }

    fn apply_all(&mut self, step: &Step) -> Vec<Failure> {
        match step {
            Step::Settings(changes) => each(changes, |change| self.apply_setting(change)),
            Step::Sets(changes) => each(changes, |change| self.apply_set(change)),
            Step::Device(true) => each(&[()], |()| self.create_device()),
            Step::Device(false) => each(&[()], |()| self.delete_device()),
            Step::Rules(change) => each(&[change], |change| self.apply_rules(change)),
            Step::Chains(changes) => each(changes, |change| self.delete_chain(&change.key)),
            Step::Entries(changes) => self.apply_entries(changes),
            Step::Servers(changes) => self.apply_servers(changes),
            Step::Reals(changes) => self.apply_reals(changes),
            Step::Addresses(changes) => self.apply_addresses(changes),
            Step::Flows(changes) => self.remove_flows(changes),
            Step::Leftovers(changes) => each(changes, |change| self.remove_leftover(change.key)),
        }
    }

    fn apply_setting(&mut self, change: &Change<String, String>) -> Result<(), Error> {
        let Some(value) = &change.to else { return Ok(()) };
        match convert::timeout(&change.key) {
            Some(timeout) => self.set_timeout(timeout, value),
            None => Ok(self.sysctl.write(&change.key, value)?),
        }
    }

    fn set_timeout(&mut self, timeout: Timeout, seconds: &str) -> Result<(), Error> {
        let message = self.ipvs.commands().set_timeout(timeout, seconds.parse().unwrap_or(0));
        let outcomes = self.ipvs.execute([message]).into_iter().collect::<Result<(), _>>();
        outcomes.map_err(|cause| refused("set", "IPVS time-outs", cause))
    }

    fn apply_set(&mut self, change: &Change<SetKey, SetSpec>) -> Result<(), Error> {
        let name = change.key.name();
        let new_set = |spec: SetSpec| NewSet {
            name,
            kind: spec.kind,
            family: change.key.family,
            room: spec
                .maxelem
                .zip(spec.hashsize())
                .map(|(maxelem, hashsize)| Room { maxelem, hashsize }),
        };
        let (operation, outcome) = match (change.from, change.to) {
            (_, None) => {
                let destroyed = self.ipset.destroy(name);
                return destroyed.map_err(|cause| self.kept_set("destroy set", change.key, cause));
            }
            (None, Some(spec)) => ("create set", self.ipset.create(&new_set(spec))),
            (Some(_), Some(spec)) => ("replace set", self.ipset.replace(&new_set(spec))),
        };
        outcome.map_err(|cause| Error::Set { operation, key: name.to_owned(), cause })
    }

    fn apply_rules(&mut self, change: &RulesChange) -> Result<(), Error> {
        let family = change.family;
        let loaded = self.tools.restore(&mut self.runner, family, &change.payload);
        loaded.map_err(|cause| Error::Rules {
            operation: "load rules of",
            key: family.to_string(),
            cause: Box::new(cause),
        })
    }

    fn delete_chain(&mut self, chain: &ChainKey) -> Result<(), Error> {
        let input = plan::iptables::deletion(chain);
        let deleted = self.tools.restore(&mut self.runner, chain.family, &input);
        deleted.map_err(|cause| self.kept_chain(chain, cause))
    }

    /// Entries go set by set, many of them in one message.
    fn apply_entries(&mut self, changes: &[Change<Entry, ()>]) -> Vec<Failure> {
        let mut groups: BTreeMap<(SetKey, Direction), (Vec<usize>, Vec<Member>)> = BTreeMap::new();
        for (index, change) in changes.iter().enumerate() {
            let group = (change.key.key(), Direction::of(change));
            let (indices, members) = groups.entry(group).or_default();
            indices.push(index);
            members.push(change.key.member);
        }
        let mut failures = Vec::new();
        for ((set, direction), (indices, members)) in groups {
            let (operation, outcomes) = match direction {
                Direction::Remove => ("remove entry", self.ipset.delete(set.name(), &members)),
                Direction::Add => ("add entry", self.ipset.add(set.name(), &members)),
            };
            failures.extend(indices.into_iter().zip(outcomes).filter_map(|(index, outcome)| {
                let cause = outcome.err()?;
                let key = changes[index].key.to_string();
                Some(Failure { index, error: Error::Set { operation, key, cause } })
            }));
        }
        failures
    }
}

/// The failures of changes that are made one by one.
fn each<C>(changes: &[C], mut apply: impl FnMut(&C) -> Result<(), Error>) -> Vec<Failure> {
    let outcomes = changes.iter().map(&mut apply).enumerate();
    outcomes.filter_map(|(index, outcome)| Some(Failure { index, error: outcome.err()? })).collect()
}
