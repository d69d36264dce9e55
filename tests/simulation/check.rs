//! What must hold: at every instant of a sync, and once the world has settled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube_ipvs_proxy::desired::foundation::IPV6_FORWARDING;
use kube_ipvs_proxy::model::conntrack::Flow;
use kube_ipvs_proxy::model::ipset::{Entry, Member, SetId};
use kube_ipvs_proxy::model::iptables::{ChainKey, Ruleset};
use kube_ipvs_proxy::model::ipvs::{Server, ServerKey};
use kube_ipvs_proxy::model::net::Family;
use kube_ipvs_proxy::model::sysctl::is_tuning;
use kube_ipvs_proxy::model::tables::Tables;
use kube_ipvs_proxy::plan::step::Step;
use kube_ipvs_proxy::testing::fake_kernel::FakeKernel;
use kube_ipvs_proxy::testing::operation;

use crate::clients::Clients;
use crate::host;
use crate::packet::Reader;

/// All is well, or what is wrong.
pub type Verdict = Result<(), String>;

/// Fails with the text if the condition does not hold.
pub fn that(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Replays the operations of a sync and looks at the host before and after each of them, on the
/// way to what is wanted, or to what is there after it.
///
/// Nothing is promised to clients (without a host to ask on) where rows were damaged by others and
/// their repair fails.
pub fn every_instant(
    before: &Tables,
    history: &[Step],
    [wanted, after]: [&Tables; 2],
    host: Option<&FakeKernel>,
    reader: &mut Reader,
) -> Verdict {
    let mut state = before.clone();
    let clients = host.map(|host| Clients::new(before, after, history, host, reader));
    let mut clients = clients.transpose()?;
    let mut exposed_before = exposed(before);
    for operation in history {
        let at = |error| format!("after {}: {error}", operation.to_string().trim_end());
        order(&state, operation, wanted).map_err(at)?;
        if let Some(clients) = &clients {
            clients.look_meanwhile(&state, operation).map_err(at)?;
        }
        operation::perform(&mut state, operation)?;
        let exposed_now = exposed(&state);
        let newly = exposed_now.difference(&exposed_before).next();
        that(newly.is_none(), || at(format!("{newly:?} passes without a live real server")))?;
        if let Some(clients) = &mut clients {
            clients.look(&state, operation, reader).map_err(at)?;
        }
        exposed_before = exposed_now;
    }
    Ok(())
}

/// Make before break, and proof before property.
fn order(state: &Tables, operation: &Step, wanted: &Tables) -> Verdict {
    match operation {
        Step::Addresses(changes) => {
            for address in changes.iter().filter(|c| c.to.is_some()).map(|c| c.key) {
                let family = Family::of(address);
                let proof = Entry { set: SetId::IpvsIps, member: Member::Ip(address) };
                let [there, wanted] = [state, wanted].map(|tables| tables.rulesets.get(&family));
                let has_rules =
                    there.zip(wanted).is_some_and(|(there, wanted)| there.has_effect_of(wanted));
                that(has_rules, || format!("{address} bound before the rules"))?;
                that(state.entries.contains(&proof), || format!("{address} bound unproven"))?;
            }
        }
        Step::Servers(changes) => {
            for change in changes.iter().filter(|change| change.to.is_some()) {
                let is_noted = state.lists(SetId::Servers, &change.key);
                that(is_noted, || format!("{} added unproven", change.key))?;
            }
        }
        Step::Entries(changes) => {
            for change in changes {
                entry(state, &change.key, change.to.is_some())?;
            }
        }
        Step::Settings(changes) => {
            for change in changes.iter().filter(|change| change.key == IPV6_FORWARDING) {
                let matters = |path: &str| path != change.key && !is_tuning(path);
                let mut others = wanted.settings.iter().filter(|(path, _)| matters(path));
                let are_set = others.all(|(path, value)| state.settings.get(path) == Some(value));
                that(are_set, || "forwarding before router advertisements are safe".into())?;
            }
        }
        Step::Sets(_)
        | Step::Device(_)
        | Step::Rules(_)
        | Step::Chains(_)
        | Step::Reals(_)
        | Step::Flows(_)
        | Step::Leftovers(_) => {}
    }
    Ok(())
}

fn entry(state: &Tables, entry: &Entry, is_added: bool) -> Verdict {
    let Member::IpPort(address, protocol, port) = entry.member else { return Ok(()) };
    let front = ServerKey { address, port, protocol };
    match (entry.set, is_added) {
        (SetId::Servers, false) => that(!state.servers.contains_key(&front), || {
            format!("{front} is there and no longer in the journal")
        }),
        _ => Ok(()),
    }
}

/// Fronts that traffic may pass to though nothing live is there.
fn exposed(tables: &Tables) -> BTreeSet<ServerKey> {
    let passing = tables.entries.iter().filter(|entry| entry.set == SetId::Pass);
    let fronts = passing.filter_map(|entry| match entry.member {
        Member::IpPort(address, protocol, port) => Some(ServerKey { address, port, protocol }),
        _ => None,
    });
    fronts.filter(|front| !tables.serves(front)).collect()
}

/// Rows of Services that differ between two desired tables.
pub fn distance(old: &Tables, new: &Tables) -> usize {
    let nothing = BTreeMap::new();
    let of = |tables: &Tables, key| tables.servers.get(key).cloned();
    let keys: BTreeSet<_> = old.servers.keys().chain(new.servers.keys()).collect();
    let servers = keys.into_iter().map(|key| {
        let (old, new) = (of(old, key), of(new, key));
        let config = old.as_ref().map(|s| &s.config) != new.as_ref().map(|s| &s.config);
        let [old, new] = [&old, &new].map(|s| s.as_ref().map_or(&nothing, |s| &s.reals));
        let reals: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        usize::from(config) + reals.iter().filter(|real| old.get(real) != new.get(real)).count()
    });
    let addresses: BTreeSet<_> = old.addresses.keys().chain(new.addresses.keys()).collect();
    servers.sum::<usize>()
        + old.entries.symmetric_difference(&new.entries).count()
        + addresses.iter().filter(|ip| old.addresses.get(ip) != new.addresses.get(ip)).count()
}

/// Whether draining real servers may still be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drains {
    /// They may.
    MayGoOn,
    /// They must be gone.
    AreOver,
}

/// The host holds what is wanted, and of others what it held.
pub fn converged(kernel: &FakeKernel, wanted: &Tables, drains: Drains) -> Verdict {
    let there = &kernel.tables;
    let mut addresses = there.addresses.clone();
    addresses.remove(&host::foreign_address());
    that(addresses == wanted.addresses, || format!("addresses: {addresses:?}"))?;
    that(there.entries == wanted.entries, || {
        let difference: Vec<_> = there.entries.symmetric_difference(&wanted.entries).collect();
        format!("entries: {difference:?}")
    })?;
    that(there.sets == wanted.sets, || "sets".into())?;
    that(rulesets(kernel, drains) == wanted.rulesets, || "rules".into())?;
    that(there.device == wanted.device, || "device".into())?;
    that(
        wanted.settings.iter().all(|(path, value)| there.settings.get(path) == Some(value)),
        || "settings".into(),
    )?;
    flows(kernel, wanted)?;
    servers(there, wanted, drains)
}

/// The host holds what is wanted, next to what may be wanted by what cannot be read.
pub fn includes(kernel: &FakeKernel, wanted: &Tables) -> Verdict {
    // What says that no endpoint is here, or that all are, may be wrong.
    let is_sure = |entry: &Entry| {
        let is_judgement = [
            SetId::NoLocalEndpoints,
            SetId::LoadBalancerLocal,
            SetId::NodePortLocalTcp,
            SetId::NodePortLocalUdp,
            SetId::NodePortLocalSctp,
        ];
        !is_judgement.contains(&entry.set)
    };
    let there = &kernel.tables;
    let missing = wanted.entries.difference(&there.entries).find(is_sure);
    that(missing.is_none(), || format!("entry: {missing:?}"))?;
    let missing = wanted.addresses.iter().find(|(ip, to)| there.addresses.get(ip) != Some(to));
    that(missing.is_none(), || format!("address: {missing:?}"))?;
    let lacks = |(key, server): &(&ServerKey, &Arc<Server>)| {
        there.servers.get(key).is_none_or(|there| {
            let mut reals = server.reals.iter();
            there.config != server.config || reals.any(|(k, real)| there.reals.get(k) != Some(real))
        })
    };
    let missing = wanted.servers.iter().find(lacks);
    that(missing.is_none(), || format!("server: {missing:?}"))
}

/// No UDP flow to a front that is served goes where no real server of the front is.
fn flows(kernel: &FakeKernel, wanted: &Tables) -> Verdict {
    let is_stale = |flow: &&Flow| {
        let server = wanted.servers.get(&flow.front());
        server.is_some_and(|there| there.is_serving() && !there.reals.contains_key(&flow.real()))
    };
    let stale: Vec<&Flow> = kernel.flows.iter().filter(is_stale).collect();
    that(stale.is_empty(), || format!("stale flows: {stale:?}"))
}

/// The rulesets without empty chains that may be there still: those that others hold, and, until
/// the next audit, those that could not be deleted.
fn rulesets(kernel: &FakeKernel, drains: Drains) -> BTreeMap<Family, Ruleset> {
    let mut rulesets = kernel.tables.rulesets.clone();
    for (family, ruleset) in &mut rulesets {
        for (table, rules) in &mut ruleset.tables {
            rules.chains.retain(|name, lines| {
                let key = ChainKey { family: *family, table: *table, name: name.clone() };
                let may_stay = drains == Drains::MayGoOn || kernel.held_chains.contains(&key);
                !(lines.is_empty() && may_stay)
            });
        }
    }
    rulesets.retain(|_, ruleset| !ruleset.is_empty());
    rulesets
}

fn servers(there: &Tables, wanted: &Tables, drains: Drains) -> Verdict {
    let mut ours = there.servers.clone();
    ours.retain(|key, _| !host::is_foreign(key));
    for (key, server) in &mut ours {
        let reals = wanted.servers.get(key).map(|server| server.reals.clone()).unwrap_or_default();
        let may_drain = drains == Drains::MayGoOn && key.protocol.drains();
        Arc::make_mut(server)
            .reals
            .retain(|real, value| !(may_drain && value.weight == 0 && !reals.contains_key(real)));
    }
    that(ours == wanted.servers, || format!("servers: {ours:?}, wanted {:?}", wanted.servers))
}
