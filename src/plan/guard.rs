//! Guards: which changes of a step may run, given what the steps before it really achieved.
//!
//! A plan assumes that all goes well. When a step fails in part, the changes that rely on the
//! failed part wait for the next sync; all others go on.

use super::front_of;
use super::mirror::Mirror;
use super::step::{Change, Step};
use crate::desired::Desired;
use crate::model::ipset::{Entry, Member, SetId};
use crate::model::ipvs::Server;
use crate::model::net::Family;

/// The step without the changes whose prerequisites are not met.
pub fn admit(step: Step, desired: &Desired, mirror: &Mirror) -> Step {
    let seen = &mirror.tables;
    match step {
        Step::Servers(changes) => Step::Servers(keep(changes, |change| {
            // Ownership must be provable before there is something to own.
            change.to.is_none() || seen.lists(SetId::Servers, &change.key)
        })),
        Step::Reals(changes) => {
            Step::Reals(keep(changes, |change| seen.servers.contains_key(&change.key.0)))
        }
        Step::Addresses(changes) => Step::Addresses(keep(changes, |change| {
            let proof = Entry { set: SetId::IpvsIps, member: Member::Ip(change.key) };
            let family = Family::of(change.key);
            let rules = desired.tables().rulesets.get(&family);
            let is_guarded = rules.is_some_and(|rules| mirror.holds(family, rules));
            change.to.is_none() || (seen.device && is_guarded && seen.entries.contains(&proof))
        })),
        Step::Entries(changes) => Step::Entries(keep(changes, |change| match change.to {
            Some(()) => may_add(&change.key, mirror),
            None => may_remove(&change.key, mirror),
        })),
        Step::Settings(_) | Step::Sets(_) | Step::Device(_) | Step::Rules(_) => step,
    }
}

/// An entry needs its set; one that lets traffic pass needs a server to pass to.
fn may_add(entry: &Entry, mirror: &Mirror) -> bool {
    let seen = &mirror.tables;
    let answers = match (entry.set, front_of(entry)) {
        (SetId::Pass, Some(front)) => seen.servers.get(&front).is_some_and(Server::is_serving),
        _ => true,
    };
    seen.sets.contains_key(&entry.key()) && answers
}

/// A proof of ownership stays as long as what it proves.
fn may_remove(entry: &Entry, mirror: &Mirror) -> bool {
    let seen = &mirror.tables;
    match (entry.set, entry.member, front_of(entry)) {
        (SetId::Servers | SetId::ClusterIp, _, Some(front)) => !seen.servers.contains_key(&front),
        (SetId::IpvsIps, Member::Ip(address), _) => !seen.addresses.contains(&address),
        _ => true,
    }
}

fn keep<K, V>(
    changes: Vec<Change<K, V>>,
    allowed: impl Fn(&Change<K, V>) -> bool,
) -> Vec<Change<K, V>> {
    changes.into_iter().filter(allowed).collect()
}
