//! Guards: which changes of a step may run, given what the steps before it really achieved.
//!
//! A plan assumes that all goes well. When a step fails in part, the changes that rely on the
//! failed part wait for the next sync; all others go on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::entries::front_of;
use super::halfway::Halfway;
use super::mirror::{Mirror, Trust};
use super::step::{Change, Step};
use super::{RealChange, owned};
use crate::desired::Desired;
use crate::desired::foundation::IPV6_FORWARDING;
use crate::model::ipset::{Entry, Member, SetId};
use crate::model::iptables::{ChainKey, Rules};
use crate::model::ipvs::{Server, ServerKey};
use crate::model::net::Family;
use crate::model::tables::Tables;

/// The step without the changes whose prerequisites are not met; nothing if none is left.
pub fn admit(step: Step, desired: &Desired, mirror: &Mirror) -> Option<Step> {
    if mirror.trust() < needed(&step) {
        return None;
    }
    let (wanted, seen) = (desired.tables(), &mirror.tables);
    let step = match step {
        Step::Settings(changes) => Step::Settings(keep(changes, |change| {
            change.key != IPV6_FORWARDING || others_are_set(wanted, seen)
        })),
        Step::Rules(change) if shuts_out(wanted, seen, change.family) => return None,
        // Entries are the proof of what is ours, so they outlive what could not be removed.
        Step::Sets(changes) => Step::Sets(keep(changes, |change| {
            change.to.is_some() || !seen.entries.iter().any(|entry| entry.key() == change.key)
        })),
        Step::Device(_) | Step::Rules(_) | Step::Flows(_) => step,
        Step::Chains(changes) => {
            Step::Chains(keep(changes, |change| may_delete(seen, &change.key)))
        }
        Step::Entries(changes) => Step::Entries(keep(changes, |change| match change.to {
            Some(()) => may_add(wanted, mirror, &change.key),
            None => may_remove(desired, seen, &change.key),
        })),
        Step::Servers(changes) => Step::Servers(keep(changes, |change| match change.to {
            // Ownership must be provable before there is something to own.
            Some(_) => seen.lists(SetId::Servers, &change.key),
            // A port that lets traffic pass without a server would reach a host process.
            None => {
                !seen.lists(SetId::Pass, &change.key) && is_shielded(wanted, mirror, &change.key)
            }
        })),
        Step::Reals(changes) => {
            let unready = unready(wanted, mirror, &changes);
            let bereft = bereft(wanted, mirror, &changes);
            Step::Reals(keep(changes, |change| {
                let server = &change.key.0;
                let exists =
                    seen.servers.contains_key(server) && owned::server(desired, seen, server);
                let waits = if is_live(change) { &unready } else { &bereft };
                exists && !waits.contains(server)
            }))
        }
        Step::Addresses(changes) => Step::Addresses(keep(changes, |change| {
            change.to.is_none() || may_bind(wanted, mirror, change.key)
        })),
    };
    (!step.is_empty()).then_some(step)
}

/// What the mirror has to be relied on for, to carry out a step.
fn needed(step: &Step) -> Trust {
    match step {
        Step::Settings(_) | Step::Sets(_) | Step::Device(_) | Step::Rules(_) | Step::Chains(_) => {
            Trust::Everything
        }
        Step::Entries(_) | Step::Addresses(_) | Step::Servers(_) => Trust::Rows,
        Step::Reals(_) | Step::Flows(_) => Trust::Servers,
    }
}

/// Whether every setting but IPv6 forwarding is as wanted.
///
/// One of them keeps the host's default route when forwarding comes on.
fn others_are_set(wanted: &Tables, seen: &Tables) -> bool {
    let mut others = wanted.settings.iter().filter(|(path, _)| *path != IPV6_FORWARDING);
    others.all(|(path, value)| seen.settings.get(path) == Some(value))
}

/// Whether the rules would refuse a front that clients reach now and may go on reaching.
fn shuts_out(wanted: &Tables, seen: &Tables, family: Family) -> bool {
    let fronts = wanted
        .entries
        .iter()
        .filter(|entry| entry.set == SetId::Pass && entry.key().family == family)
        .filter(|entry| !seen.entries.contains(entry))
        .filter_map(front_of);
    let is_reached = |front: ServerKey| {
        seen.addresses.contains(&front.address)
            && seen.servers.get(&front).is_some_and(Server::is_serving)
    };
    fronts.into_iter().any(is_reached)
}

/// Deleting a chain must not take rules with it that are in force.
fn may_delete(seen: &Tables, chain: &ChainKey) -> bool {
    let rules = seen.rulesets.get(&chain.family).map(|ruleset| ruleset.table(chain.table));
    let is_idle = |rules: &Rules| {
        rules.chains.get(&chain.name).is_some_and(Vec::is_empty) && !rules.leads_to(&chain.name)
    };
    rules.is_some_and(is_idle)
}

/// An entry needs its set, and what it counts on.
fn may_add(wanted: &Tables, mirror: &Mirror, entry: &Entry) -> bool {
    let seen = &mirror.tables;
    let set = seen.sets.get(&entry.key());
    let halfway = Halfway { wanted, seen };
    // The rules of the reference let pass whatever these sets name.
    let opens_by_itself = |front: &ServerKey| {
        SetId::FRONTS.contains(&entry.set)
            && !seen.servers.get(front).is_some_and(Server::is_serving)
            && !is_shielded(wanted, mirror, front)
    };
    let is_ready = match (entry.set, front_of(entry)) {
        (SetId::Pass, front) => front.is_some_and(|front| halfway.may_open(&front)),
        (_, Some(front)) if opens_by_itself(&front) => false,
        _ => halfway.may_treat(entry),
    };
    set.is_some_and(|set| set.kind == entry.set.spec().kind) && is_ready
}

/// A proof of ownership stays as long as what it proves, and an entry as long as clients need it.
fn may_remove(desired: &Desired, seen: &Tables, entry: &Entry) -> bool {
    let wanted = desired.tables();
    let is_idle = match (entry.set, entry.member, front_of(entry)) {
        // A server that is left to others needs no proof any more.
        (_, _, Some(front)) if desired.excludes(&front.address) => true,
        (SetId::Servers, _, Some(front)) => !seen.servers.contains_key(&front),
        // After a takeover the journal has to name the server before these sets may not.
        (set, _, Some(front)) if SetId::FRONTS.contains(&set) => {
            !seen.servers.contains_key(&front) || seen.lists(SetId::Servers, &front)
        }
        (SetId::IpvsIps, Member::Ip(address), _) => !seen.addresses.contains(&address),
        _ => true,
    };
    is_idle && Halfway { wanted, seen }.may_untreat(entry)
}

/// Whether a port that is left without a server reaches no host process: the filter is in force,
/// or the address is not ours to keep.
fn is_shielded(wanted: &Tables, mirror: &Mirror, front: &ServerKey) -> bool {
    let (seen, address) = (&mirror.tables, front.address);
    let is_ours = wanted.addresses.contains(&address) || owned::address(seen, address);
    let is_bound = seen.addresses.contains(&address) && is_ours;
    !is_bound || is_guarded(wanted, mirror, front.family())
}

/// Whether the rules of a family are in force.
fn is_guarded(wanted: &Tables, mirror: &Mirror, family: Family) -> bool {
    wanted.rulesets.get(&family).is_some_and(|rules| mirror.holds(family, rules))
}

/// No address may be live before its rules, and without the proof that it is ours.
fn may_bind(wanted: &Tables, mirror: &Mirror, address: IpAddr) -> bool {
    let seen = &mirror.tables;
    let proof = Entry { set: SetId::IpvsIps, member: Member::Ip(address) };
    let is_guarded = is_guarded(wanted, mirror, Family::of(address));
    seen.device && is_guarded && seen.entries.contains(&proof)
}

/// Servers whose clients are not yet treated as new real servers call for.
fn unready(wanted: &Tables, mirror: &Mirror, changes: &[RealChange]) -> BTreeSet<ServerKey> {
    let growing = changes.iter().filter(|change| is_live(change)).map(|change| change.key.0);
    let growing: BTreeSet<ServerKey> = growing.collect();
    let halfway = Halfway { wanted, seen: &mirror.tables };
    let is_ready = |front: &ServerKey| {
        let server = mirror.tables.servers.get(front);
        let has_rules = is_guarded(wanted, mirror, front.family());
        (has_rules || server.is_some_and(Server::is_serving)) && halfway.may_grow(front)
    };
    growing.into_iter().filter(|front| !is_ready(front)).collect()
}

/// Servers that let traffic pass and that the changes would leave without a live real server.
///
/// It happens when the new real servers could not be added: the old ones are kept until then.
fn bereft(wanted: &Tables, mirror: &Mirror, changes: &[RealChange]) -> BTreeSet<ServerKey> {
    let seen = &mirror.tables;
    let lowered: BTreeSet<_> =
        changes.iter().filter(|change| !is_live(change)).map(|change| change.key).collect();
    let loses_all = |key: &ServerKey| {
        let reals = seen.servers.get(key).into_iter().flat_map(|server| &server.reals);
        let mut live = reals.filter(|(_, value)| value.weight > 0);
        live.all(|(real, _)| lowered.contains(&(*key, *real)))
    };
    let may_pass_unseen = mirror.trust() < Trust::Rows;
    let passes = |key: &ServerKey| {
        may_pass_unseen || [wanted, seen].iter().any(|tables| tables.lists(SetId::Pass, key))
    };
    let passing = changes.iter().map(|change| change.key.0).filter(passes);
    passing.collect::<BTreeSet<_>>().into_iter().filter(loses_all).collect()
}

/// Whether the real server takes connections after the change.
fn is_live(change: &RealChange) -> bool {
    change.to.is_some_and(|value| value.weight > 0)
}

fn keep<K, V>(
    changes: Vec<Change<K, V>>,
    allowed: impl Fn(&Change<K, V>) -> bool,
) -> Vec<Change<K, V>> {
    changes.into_iter().filter(allowed).collect()
}
