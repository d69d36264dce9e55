//! Guards: which changes of a step may run, given what the steps before it really achieved.
//!
//! A plan assumes that all goes well. When a step fails in part, the changes that rely on the
//! failed part wait for the next sync; all others go on.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::entries::front_of;
use super::halfway::Halfway;
use super::mirror::{Mirror, Trust};
use super::step::{Change, Step};
use super::unclaimed::Unclaimed;
use super::{AddressChange, RealChange, ServerChange, owned};
use crate::desired::Desired;
use crate::desired::foundation::IPV6_FORWARDING;
use crate::model::ipset::{Entry, Member, SetId};
use crate::model::iptables::{ChainKey, Rules};
use crate::model::ipvs::ServerKey;
use crate::model::link::Binding;
use crate::model::net::{Family, PerFamily};
use crate::model::sysctl::is_tuning;
use crate::model::tables::Tables;

/// The step without the changes whose prerequisites are not met; nothing if none is left.
///
/// Nothing waits for rows to go that stay as nobody known asks for them.
pub fn admit(
    step: Step,
    desired: &Desired,
    mirror: &Mirror,
    unclaimed: Option<&Unclaimed>,
) -> Option<Step> {
    if mirror.trust() < needed(&step) {
        return None;
    }
    let step = Guard::new(desired, mirror, unclaimed).admitted(step)?;
    (!step.is_empty()).then_some(step)
}

/// What the mirror has to be relied on for, to carry out a step.
fn needed(step: &Step) -> Trust {
    match step {
        Step::Settings(_)
        | Step::Sets(_)
        | Step::Device(_)
        | Step::Rules(_)
        | Step::Chains(_)
        | Step::Leftovers(_) => Trust::Everything,
        Step::Entries(_) | Step::Addresses(_) | Step::Servers(_) => Trust::Rows,
        Step::Reals(_) | Step::Flows(_) => Trust::Servers,
    }
}

/// What the changes of one step are held against.
struct Guard<'a> {
    desired: &'a Desired,
    wanted: &'a Tables,
    mirror: &'a Mirror,
    seen: &'a Tables,
    halfway: Halfway<'a>,
    /// Whether the rules of a family are in force: compared once, not for each change.
    has_rules: PerFamily<OnceCell<bool>>,
}

impl<'a> Guard<'a> {
    fn new(desired: &'a Desired, mirror: &'a Mirror, unclaimed: Option<&'a Unclaimed>) -> Self {
        let wanted = desired.tables();
        let halfway = Halfway::new(wanted, mirror).beside(unclaimed);
        let has_rules = PerFamily::default();
        Guard { desired, wanted, mirror, seen: &mirror.tables, halfway, has_rules }
    }

    fn admitted(&self, step: Step) -> Option<Step> {
        Some(match step {
            Step::Settings(changes) => Step::Settings(keep(changes, |change| {
                change.key != IPV6_FORWARDING || self.others_are_set()
            })),
            Step::Rules(change) if self.shuts_out(change.family) => return None,
            // Entries are the proof of what is ours, so they outlive what could not be removed.
            Step::Sets(changes) => Step::Sets(keep(changes, |change| {
                change.to.is_some() || self.seen.entries.of(change.key).is_empty()
            })),
            Step::Device(_) | Step::Rules(_) | Step::Flows(_) | Step::Leftovers(_) => step,
            Step::Chains(changes) => {
                Step::Chains(keep(changes, |change| self.may_delete(&change.key)))
            }
            Step::Entries(changes) => Step::Entries(keep(changes, |change| match change.to {
                Some(()) => self.may_add(&change.key),
                None => self.may_remove(&change.key),
            })),
            Step::Servers(changes) => Step::Servers(keep(changes, |it| self.may_change(it))),
            Step::Reals(changes) => Step::Reals(self.reals(changes)),
            Step::Addresses(changes) => {
                Step::Addresses(keep(changes, |change| match change.takes_away() {
                    true => self.keeps_what_is_there(change),
                    false => self.may_bind(change.key),
                }))
            }
        })
    }

    fn reals(&self, changes: Vec<RealChange>) -> Vec<RealChange> {
        // Cost: changes of one server follow each other, so each server is looked at once.
        let mut servers: Vec<ServerKey> = changes.iter().map(|change| change.key.0).collect();
        servers.dedup();
        let exists = |server: &ServerKey| {
            self.seen.servers.contains_key(server) && owned::server(self.desired, self.seen, server)
        };
        let may_grow = |server: ServerKey| (server, self.may_grow(&server));
        let standing: BTreeMap<ServerKey, bool> =
            servers.iter().copied().filter(exists).map(may_grow).collect();
        let bereft = self.bereft(&servers, &changes);
        keep(changes, |change| {
            let server = &change.key.0;
            let may_grow = standing.get(server);
            may_grow
                .is_some_and(|may| if is_live(change) { *may } else { !bereft.contains(server) })
        })
    }

    /// Whether every setting but IPv6 forwarding and those that only tune is as wanted.
    ///
    /// One of them keeps the host's default route when forwarding comes on.
    fn others_are_set(&self) -> bool {
        let mut others = self.wanted.settings.iter();
        others.all(|(path, value)| {
            let is_other = *path != IPV6_FORWARDING && !is_tuning(path);
            !is_other || self.seen.settings.get(path) == Some(value)
        })
    }

    /// Whether the rules would refuse a front that clients reach now and may go on reaching.
    fn shuts_out(&self, family: Family) -> bool {
        if self.mirror.filters(family) {
            return false;
        }
        let fronts = self
            .wanted
            .entries
            .of_both(SetId::Pass)
            .filter(|entry| entry.key().family == family)
            .filter(|entry| !self.seen.entries.contains(entry))
            .filter_map(|entry| front_of(&entry));
        let is_reached = |front: ServerKey| {
            self.seen.addresses.contains_key(&front.address) && self.seen.serves(&front)
        };
        fronts.into_iter().any(is_reached)
    }

    /// Deleting a chain must not take rules with it that are in force.
    fn may_delete(&self, chain: &ChainKey) -> bool {
        let rules = self.seen.rulesets.get(&chain.family).map(|ruleset| ruleset.table(chain.table));
        let is_idle = |rules: &Rules| {
            rules.chains.get(&chain.name).is_some_and(Vec::is_empty) && !rules.leads_to(&chain.name)
        };
        rules.is_some_and(is_idle)
    }

    /// An entry needs its set, and what it counts on.
    fn may_add(&self, entry: &Entry) -> bool {
        let set = self.seen.sets.get(&entry.key());
        // The rules of the reference let pass whatever these sets name.
        let opens_by_itself = |front: &ServerKey| {
            SetId::FRONTS.contains(&entry.set)
                && !self.seen.serves(front)
                && !self.is_shielded(front)
        };
        let is_ready = match (entry.set, front_of(entry)) {
            (SetId::Pass, Some(front)) => self.may_open(&front),
            (_, Some(front)) if opens_by_itself(&front) => false,
            _ => self.halfway.may_treat(entry),
        };
        set.is_some_and(|set| set.kind == entry.set.spec().kind) && is_ready
    }

    /// A virtual server needs its proof, and one that goes must be shut.
    fn may_change(&self, change: &ServerChange) -> bool {
        let front = &change.key;
        match change.to {
            // Ownership must be provable before there is something to own.
            Some(_) => {
                self.seen.lists(SetId::Servers, front)
                    && (!change.is_of_scheduler() || self.is_held(front.address))
            }
            // A port that lets traffic pass without a server would reach a host process.
            None => !self.seen.lists(SetId::Pass, front) && self.is_shielded(front),
        }
    }

    /// A front that the filter keeps shut needs all rules; one that it does not is open already.
    fn may_open(&self, front: &ServerKey) -> bool {
        let family = front.family();
        let is_ready = self.is_guarded(family) && !self.halfway.masquerades_wrongly(front);
        // Cost: whether there is a filter is looked for in the rules.
        (is_ready || !self.mirror.filters(family)) && self.halfway.may_open(front)
    }

    /// A proof of ownership stays as long as what it proves, and an entry as long as clients need it.
    fn may_remove(&self, entry: &Entry) -> bool {
        let is_idle = match (entry.set, entry.member, front_of(entry)) {
            // A server that is left to others needs no proof any more.
            (_, _, Some(front)) if self.desired.excludes(&front.address) => true,
            (SetId::Servers, _, Some(front)) => !self.seen.servers.contains_key(&front),
            // After a takeover the journal has to name the server before these sets may not, and
            // until other rules are in force they let clients of a bound address pass.
            (set, _, Some(front)) if SetId::FRONTS.contains(&set) => {
                let is_reached = self.wanted.servers.contains_key(&front)
                    && self.seen.addresses.contains_key(&front.address);
                let is_noted = self.seen.lists(SetId::Servers, &front);
                (is_noted || !self.seen.servers.contains_key(&front))
                    && (!is_reached || self.is_guarded(front.family()))
            }
            (SetId::IpvsIps, Member::Ip(address), _) => !self.seen.addresses.contains_key(&address),
            _ => true,
        };
        is_idle && self.halfway.may_untreat(entry)
    }

    /// Whether a port that is left without a server reaches no host process: the filter is in force,
    /// or the address is not ours to keep.
    fn is_shielded(&self, front: &ServerKey) -> bool {
        let address = front.address;
        let is_ours =
            self.wanted.addresses.contains_key(&address) || owned::address(self.seen, address);
        let is_bound = self.seen.addresses.contains_key(&address) && is_ours;
        !is_bound || self.is_guarded(front.family())
    }

    /// Whether the rules of a family are in force.
    fn is_guarded(&self, family: Family) -> bool {
        let rules = || self.wanted.rulesets.get(&family);
        let are_in_force = || rules().is_some_and(|rules| self.mirror.holds(family, rules));
        *self.has_rules.get(family).get_or_init(are_in_force)
    }

    /// Whether refusals by the kernel itself are held back at the address.
    fn is_held(&self, address: IpAddr) -> bool {
        let hold = Entry { set: SetId::Hold, member: Member::Ip(address) };
        self.seen.entries.contains(&hold) && self.is_guarded(Family::of(address))
    }

    /// No address may be live before its rules, and without the proof that it is ours.
    fn may_bind(&self, address: IpAddr) -> bool {
        let proof = Entry { set: SetId::IpvsIps, member: Member::Ip(address) };
        self.seen.device
            && self.is_guarded(Family::of(address))
            && self.seen.entries.contains(&proof)
    }

    /// Whether what is to be left of how an address is bound is there indeed.
    fn keeps_what_is_there(&self, change: &AddressChange) -> bool {
        let there = self.seen.addresses.get(&change.key).copied().unwrap_or(Binding::NOTHING);
        change.to.is_none_or(|left| there.covers(left))
    }

    /// Whether clients of the server are treated as new real servers call for.
    fn may_grow(&self, server: &ServerKey) -> bool {
        // Cost: most servers serve already, and rules are compared word by word.
        (self.seen.serves(server) || self.is_guarded(server.family()))
            && self.halfway.may_grow(server)
    }

    /// Servers that let traffic pass and that the changes would leave without a live real server.
    ///
    /// It happens when the new real servers could not be added: the old ones are kept until then.
    fn bereft(&self, servers: &[ServerKey], changes: &[RealChange]) -> BTreeSet<ServerKey> {
        let lowered: BTreeSet<_> =
            changes.iter().filter(|change| !is_live(change)).map(|change| change.key).collect();
        let loses_all = |key: &ServerKey| {
            let reals = self.seen.servers.get(key).into_iter().flat_map(|server| &server.reals);
            let mut live = reals.filter(|(_, value)| value.weight > 0);
            live.all(|(real, _)| lowered.contains(&(*key, *real)))
        };
        let may_pass_unseen = self.mirror.trust() < Trust::Rows;
        let passes = |key: &ServerKey| {
            may_pass_unseen
                || [self.wanted, self.seen].iter().any(|tables| tables.lists(SetId::Pass, key))
        };
        servers.iter().copied().filter(|key| passes(key) && loses_all(key)).collect()
    }
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
