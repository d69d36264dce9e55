//! Clients of every kind at every front: what becomes of them at each instant of a sync.
//!
//! Whoever is served before a sync and after it is served at each instant between, by the same way;
//! nobody else is served, lost, or led to a process of the host, unless before or after it too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use kube_ipvs_proxy::model::ipset::{Entry, Member, SetId};
use kube_ipvs_proxy::model::ipvs::{RealKey, ServerKey};
use kube_ipvs_proxy::model::net::Family;
use kube_ipvs_proxy::model::tables::Tables;
use kube_ipvs_proxy::plan::step::Step;
use kube_ipvs_proxy::testing::fake_kernel::{FakeKernel, Faults};

use crate::check::{Verdict, that};
use crate::cluster;
use crate::host;
use crate::packet::{Client, Fate, Host, Reader, Rules};

/// Who asks, besides the node itself: a pod, an endpoint of this node, somebody whom most source
/// ranges allow, somebody whom none does.
const OTHERS: [[&str; 4]; 2] = [
    ["10.244.0.100", "10.244.0.2", "198.18.0.7", "203.0.113.99"],
    ["fd00:244::100", "fd00:244::2", "fd00:18::7", "2001:db8:dead::9"],
];

/// A client at a front, with what becomes of it.
struct Case {
    client: Client,
    front: ServerKey,
    before: Fate,
    /// As before, had the rules been those that come into force.
    restored: Fate,
    /// Whether a restriction of the front goes.
    is_lifted: bool,
    after: Fate,
    /// Whether other rules come into force, which may masquerade fewer clients.
    rules_change: bool,
    /// Whether nobody but the node came through before.
    was_shut: bool,
}

/// All of them during a sync.
pub struct Clients<'a> {
    cases: Vec<Case>,
    rules: BTreeMap<Family, Rc<Rules>>,
    addresses: &'a BTreeSet<IpAddr>,
    /// What the sync led to.
    reached: &'a Tables,
    /// Whether changes may have failed.
    may_fail: bool,
}

impl<'a> Clients<'a> {
    /// Clients of the fronts of either side that the history may touch.
    pub fn new(
        before: &Tables,
        after: &Tables,
        history: &[Step],
        kernel: &'a FakeKernel,
        reader: &mut Reader,
    ) -> Result<Self, String> {
        let addresses = &kernel.host.addresses;
        let (old, new) = (reader.read_all(before)?, reader.read_all(after)?);
        let before_it = instant(before, &old, addresses);
        let after_it = instant(after, &new, addresses);
        let fronts: BTreeSet<&ServerKey> =
            before.servers.keys().chain(after.servers.keys()).collect();
        let restored = instant(before, &new, addresses);
        let (before_it, restored, after_it) = (&before_it, &restored, &after_it);
        let is_touched = |front: &ServerKey| history.iter().any(|step| may_touch(step, front));
        let fronts = fronts.into_iter();
        let fronts = fronts.filter(|front| !host::is_foreign(front) && is_touched(front));
        let cases = fronts.flat_map(|front| {
            let family = front.family();
            let rules_change = before.rulesets.get(&family) != after.rulesets.get(&family);
            let was_shut =
                before_it.fate(Client::Other(others(family)[0]), *front) == Fate::Refused;
            clients(family).map(move |client| Case {
                client,
                front: *front,
                before: before_it.fate(client, *front),
                restored: restored.fate(client, *front),
                is_lifted: is_lifted(before, after, front),
                after: after_it.fate(client, *front),
                rules_change,
                was_shut,
            })
        });
        let cases = cases.collect();
        let may_fail = !matches!(kernel.faults, Faults::None);
        Ok(Clients { cases, rules: old, addresses, reached: &kernel.tables, may_fail })
    }

    /// Looks at those whom the operation touches while it is carried out.
    pub fn look_meanwhile(&self, before: &Tables, operation: &Step) -> Verdict {
        let Step::Servers(changes) = operation else { return Ok(()) };
        let Some(change) = changes.iter().find(|change| change.is_of_scheduler()) else {
            return Ok(());
        };
        let instant = instant(before, &self.rules, self.addresses);
        self.judge(&Host { unscheduled: Some(change.key), ..instant }, operation)
    }

    /// Looks at those whom the operation may have touched.
    pub fn look(&mut self, now: &Tables, operation: &Step, reader: &mut Reader) -> Verdict {
        if matches!(operation, Step::Rules(_)) {
            self.rules = reader.read_all(now)?;
        }
        self.judge(&instant(now, &self.rules, self.addresses), operation)
    }

    fn judge(&self, instant: &Host<'_>, operation: &Step) -> Verdict {
        for case in self.cases.iter().filter(|case| may_touch(operation, &case.front)) {
            let now = instant.fate(case.client, case.front);
            let Case { client, front, before, after, .. } = case;
            let is_fair = is_fair(*before, now, *after)
                || is_by_rules(case, now)
                || self.cannot_meet_itself(case, now)
                || self.is_not_ours_yet(case, now)
                || self.could_not_be_shut(case, now);
            that(is_fair, || {
                format!("{client:?} to {front}: {now:?}, before {before:?}, to be {after:?}")
            })?;
        }
        Ok(())
    }

    /// Whether a client may reach itself, and the entry for that could not be added.
    ///
    /// All other clients are served meanwhile: to hold the endpoint back would cost each of them.
    fn cannot_meet_itself(&self, case: &Case, now: Fate) -> bool {
        let Client::Other(address) = case.client else { return false };
        let server = self.reached.servers.get(&case.front);
        let mut reals = server.into_iter().flat_map(|server| server.reals.keys());
        let is_refused = |real: &RealKey| {
            let member = Member::IpPortIp(address, case.front.protocol, real.port, address);
            let entry = Entry { set: SetId::LoopBack, member };
            real.address == address && !self.reached.entries.contains(&entry)
        };
        now == Fate::Lost && reals.any(is_refused)
    }

    /// Whether a port of the host's own address is to be a front, and its proof could not be added.
    fn is_not_ours_yet(&self, case: &Case, now: Fate) -> bool {
        let is_known = self.reached.lists(SetId::Servers, &case.front);
        now == Fate::Host && self.addresses.contains(&case.front.address) && !is_known
    }

    /// Whether a front that goes, and that is open to everybody, could not be shut before its
    /// address comes back for another front.
    ///
    /// To hold the address back would cost the clients of that one.
    fn could_not_be_shut(&self, case: &Case, now: Fate) -> bool {
        let front = &case.front;
        let is_open = self.may_fail
            && self.reached.lists(SetId::Pass, front)
            && !self.reached.lists(SetId::LoadBalancerFw, front);
        let comes_back = (case.before, case.after) == (Fate::Elsewhere, Fate::Refused);
        is_open && comes_back && matches!(now, Fate::Served { .. })
    }
}

fn clients(family: Family) -> impl Iterator<Item = Client> {
    others(family).map(Client::Other).into_iter().chain([Client::Node])
}

fn others(family: Family) -> [IpAddr; 4] {
    let [v4, v6] = OTHERS;
    let others = if family == Family::V4 { v4 } else { v6 };
    others.map(|text| text.parse().expect("an address"))
}

fn instant<'a>(
    tables: &'a Tables,
    rules: &'a BTreeMap<Family, Rc<Rules>>,
    addresses: &'a BTreeSet<IpAddr>,
) -> Host<'a> {
    Host {
        tables,
        rules,
        addresses,
        is_local: |real: &RealKey| cluster::is_local(real.address),
        is_pod: cluster::is_pod,
        unscheduled: None,
    }
}

/// Whether it is the doing of rules that come into force.
///
/// Clients may be seen as before or as after it for a moment. Where they are masqueraded no longer,
/// no order of rows could keep the endpoint that relied on it; where they are dropped no longer,
/// they hear as little from endpoints of other nodes until these, or the front, go. Where they are
/// refused what was shut to all others, it was because somebody damaged the rules, and lasts until
/// the front opens. What a restriction that goes forbids, and damaged rules did not enforce, is
/// forbidden until it has gone.
fn is_by_rules(case: &Case, now: Fate) -> bool {
    let was_masqueraded = matches!(case.before, Fate::Served { masqueraded: true, .. });
    let is_masqueraded = matches!(case.after, Fate::Served { masqueraded: true, .. });
    case.rules_change
        && match now {
            Fate::Served { .. } => reaches_a_pod(case.before) || reaches_a_pod(case.after),
            Fate::Lost => was_masqueraded && !is_masqueraded || case.before == Fate::Dropped,
            Fate::Refused => case.was_shut,
            Fate::Dropped => case.is_lifted && case.restored == Fate::Dropped,
            _ => false,
        }
}

fn is_fair(before: Fate, now: Fate, after: Fate) -> bool {
    let served = |fate| matches!(fate, Fate::Served { .. });
    match now {
        Fate::Refused | Fate::Dropped | Fate::Elsewhere => !(served(before) && served(after)),
        Fate::Delayed => true,
        Fate::Lost | Fate::Host => now == before || now == after,
        // Whoever is let in meanwhile is treated as those who were in already.
        Fate::Served { .. } if before == Fate::Dropped && served(after) => true,
        Fate::Served { kept, masqueraded } => {
            let has = |which: fn(Fate) -> bool| which(before) || which(after);
            // Answers get lost where clients keep their address.
            let has_kept = has(|fate| matches!(fate, Fate::Served { kept: true, .. } | Fate::Lost));
            let has_masqueraded =
                has(|fate| matches!(fate, Fate::Served { masqueraded: true, .. }));
            has(reaches_a_pod)
                && (has_kept || !kept)
                // In its last moment a front may already be masqueraded as its successor is to be.
                && (has_masqueraded || !masqueraded || !served(after))
        }
    }
}

fn is_lifted(before: &Tables, after: &Tables, front: &ServerKey) -> bool {
    [SetId::LoadBalancerFw, SetId::NoLocalEndpoints]
        .into_iter()
        .any(|set| before.lists(set, front) && !after.lists(set, front))
}

fn reaches_a_pod(fate: Fate) -> bool {
    matches!(fate, Fate::Served { .. } | Fate::Lost)
}

/// Whether the operation may change what becomes of clients of the front.
fn may_touch(operation: &Step, front: &ServerKey) -> bool {
    match operation {
        Step::Settings(_)
        | Step::Sets(_)
        | Step::Chains(_)
        | Step::Flows(_)
        | Step::Leftovers(_) => false,
        Step::Device(_) => true,
        Step::Rules(change) => change.family == front.family(),
        Step::Servers(changes) => changes.iter().any(|change| change.key == *front),
        Step::Reals(changes) => changes.iter().any(|change| change.key.0 == *front),
        Step::Addresses(changes) => changes.iter().any(|change| change.key == front.address),
        Step::Entries(changes) => changes.iter().any(|change| match change.key.member {
            Member::IpPortIp(..) if change.key.set == SetId::LoopBack => true,
            Member::IpPort(address, protocol, port)
            | Member::IpPortIp(address, protocol, port, _)
            | Member::IpPortNet(address, protocol, port, _) => {
                ServerKey { address, port, protocol } == *front
            }
            Member::Ip(address) => address == front.address,
            Member::Net(_) => true,
            Member::Port(_, port) => port == front.port,
        }),
    }
}
