//! One operation on the rows of a host, refused where the real kernel refuses it.
//!
//! An operation is a [`Step`] of a single change. Invariant: a refused operation changes nothing.

use std::net::IpAddr;
use std::sync::Arc;

use super::restore;
use crate::model::ipset::{Entry, Member, SetKey, SetSpec};
use crate::model::iptables::Rules;
use crate::model::ipvs::{RealKey, RealServer, Server, ServerKey, VirtualServer};
use crate::model::leftover::Leftover;
use crate::model::link::Binding;
use crate::model::net::Family;
use crate::model::tables::Tables;
use crate::plan::iptables;
use crate::plan::step::{Change, Step};

/// Why an operation was refused.
pub type Refusal = String;

/// The operations of a step, in their order.
pub fn split(step: &Step) -> Vec<Step> {
    fn each<K: Clone, V: Clone>(
        changes: &[Change<K, V>],
        wrap: fn(Vec<Change<K, V>>) -> Step,
    ) -> Vec<Step> {
        changes.iter().map(|change| wrap(vec![change.clone()])).collect()
    }
    match step {
        Step::Settings(changes) => each(changes, Step::Settings),
        Step::Sets(changes) => each(changes, Step::Sets),
        Step::Device(_) | Step::Rules(_) => vec![step.clone()],
        Step::Chains(changes) => each(changes, Step::Chains),
        Step::Entries(changes) => each(changes, Step::Entries),
        Step::Servers(changes) => each(changes, Step::Servers),
        Step::Reals(changes) => each(changes, Step::Reals),
        Step::Addresses(changes) => each(changes, Step::Addresses),
        Step::Flows(changes) => each(changes, Step::Flows),
        Step::Leftovers(changes) => each(changes, Step::Leftovers),
    }
}

/// Carries out one operation.
pub fn perform(tables: &mut Tables, operation: &Step) -> Result<(), Refusal> {
    match operation {
        Step::Settings(changes) => changes.iter().try_for_each(|change| {
            let value = change.to.clone().ok_or("a setting cannot be removed")?;
            tables.settings.insert(change.key.clone(), value);
            Ok(())
        }),
        Step::Sets(changes) => changes.iter().try_for_each(|change| set(tables, change)),
        Step::Device(present) => {
            tables.device = *present;
            tables.addresses.retain(|_, binding| {
                binding.address &= *present;
                *binding != Binding::NOTHING
            });
            Ok(())
        }
        Step::Rules(change) => restore(tables, change.family, &change.payload),
        Step::Chains(changes) => changes.iter().try_for_each(|change| {
            restore(tables, change.key.family, &iptables::deletion(&change.key))
        }),
        Step::Entries(changes) => changes.iter().try_for_each(|change| entry(tables, change)),
        Step::Servers(changes) => changes.iter().try_for_each(|change| server(tables, change)),
        Step::Reals(changes) => changes.iter().try_for_each(|change| real(tables, change)),
        // Not among the tables.
        Step::Flows(_) => Ok(()),
        Step::Leftovers(changes) => {
            changes.iter().try_for_each(|change| leftover(tables, change.key))
        }
        Step::Addresses(changes) => changes.iter().try_for_each(|change| match change.to {
            Some(to) if to.address && !tables.device => {
                Err(format!("{}: no such device", change.key))
            }
            _ => {
                bind(tables, change);
                Ok(())
            }
        }),
    }
}

/// Does what the change asks for, and no more, whatever else is there.
fn bind(tables: &mut Tables, change: &Change<IpAddr, Binding>) {
    let there = tables.addresses.get(&change.key).copied().unwrap_or(Binding::NOTHING);
    let from = change.from.unwrap_or(Binding::NOTHING);
    let to = change.to.unwrap_or(Binding::NOTHING);
    let binding = Binding {
        address: if from.address == to.address { there.address } else { to.address },
        route: if from.route == to.route { there.route } else { to.route },
    };
    match binding == Binding::NOTHING {
        true => tables.addresses.remove(&change.key),
        false => tables.addresses.insert(change.key, binding),
    };
}

fn restore(tables: &mut Tables, family: Family, payload: &str) -> Result<(), Refusal> {
    let there = tables.rulesets.get(&family).cloned().unwrap_or_default();
    let loaded = restore::restore(&there, payload)?;
    let sets = tables.sets.keys().map(|key| key.name()).collect();
    let has_iptables_mode = tables.leftovers.contains(&Leftover::Chains(family));
    restore::check_references(&loaded, &sets, has_iptables_mode)?;
    // A family without anything of ours is not read as one with an empty ruleset.
    match loaded.is_empty() {
        true => tables.rulesets.remove(&family),
        false => tables.rulesets.insert(family, loaded),
    };
    Ok(())
}

fn leftover(tables: &mut Tables, leftover: Leftover) -> Result<(), Refusal> {
    let rulesets = tables.rulesets.get(&leftover.family()).into_iter();
    let leads_there =
        |nat: &Rules| nat.chains.values().flatten().any(|rule| rule.contains("-j KUBE-SVC-"));
    if rulesets.flat_map(|ruleset| ruleset.tables.values()).any(leads_there) {
        return Err(format!("{leftover}: in use by a rule"));
    }
    tables.leftovers.remove(&leftover);
    Ok(())
}

fn set(tables: &mut Tables, change: &Change<SetKey, SetSpec>) -> Result<(), Refusal> {
    let key = change.key;
    let there = tables.sets.get(&key);
    match (change.to, there) {
        (Some(wanted), Some(there)) if there.kind != wanted.kind => {
            Err(format!("{key}: set exists with another type"))
        }
        (Some(wanted), Some(there)) if change.from.is_none() && *there != wanted => {
            Err(format!("{key}: set exists with other options"))
        }
        (Some(wanted), _) if wanted.maxelem.is_some_and(|most| held(tables, key) > most) => {
            Err(format!("{key}: set is full"))
        }
        (Some(wanted), _) => {
            tables.sets.insert(key, wanted);
            Ok(())
        }
        (None, _)
            if tables.rulesets.values().any(|rules| restore::refers_to(rules, key.name())) =>
        {
            Err(format!("{key}: set is in use by a rule"))
        }
        (None, _) => {
            tables.sets.remove(&key);
            tables.entries.clear(key);
            Ok(())
        }
    }
}

fn held(tables: &Tables, key: SetKey) -> u32 {
    u32::try_from(tables.entries.of(key).len()).unwrap_or(u32::MAX)
}

fn entry(tables: &mut Tables, change: &Change<Entry, ()>) -> Result<(), Refusal> {
    let entry = change.key;
    let Some(spec) = tables.sets.get(&entry.key()) else {
        return Err(format!("{entry}: no such set"));
    };
    if spec.kind != entry.set.spec().kind || entry.member.kind() != spec.kind {
        return Err(format!("{entry}: not an entry of this type"));
    }
    match change.to {
        Some(()) if tables.entries.contains(&entry) => {}
        Some(()) if refuses(&entry.member) => {
            return Err(format!("{entry}: the prefix length is not one that the set takes"));
        }
        Some(()) if spec.maxelem.is_some_and(|most| held(tables, entry.key()) >= most) => {
            return Err(format!("{entry}: set is full"));
        }
        Some(()) => {
            tables.entries.insert(entry);
        }
        None => {
            tables.entries.remove(&entry);
        }
    }
    Ok(())
}

/// Kernel: a hash of networks has no place for the network of all addresses.
fn refuses(member: &Member) -> bool {
    match member {
        Member::Net(net) | Member::IpPortNet(.., net) => net.prefix_len() == 0,
        Member::Ip(_) | Member::IpPort(..) | Member::IpPortIp(..) | Member::Port(..) => false,
    }
}

fn server(tables: &mut Tables, change: &Change<ServerKey, VirtualServer>) -> Result<(), Refusal> {
    let key = change.key;
    match (&change.from, &change.to, tables.servers.get_mut(&key)) {
        (None, Some(config), None) => {
            let server = Server { config: config.clone(), reals: [].into() };
            tables.servers.insert(key, server.into());
        }
        (None, Some(config), Some(there)) if there.config == *config => {}
        (None, Some(_), Some(_)) => return Err(format!("{key}: virtual server exists")),
        (Some(_), Some(config), Some(there)) => {
            Arc::make_mut(there).config = config.clone();
        }
        (Some(_), Some(_), None) => return Err(format!("{key}: no such virtual server")),
        (_, None, _) => {
            tables.servers.remove(&key);
        }
    }
    Ok(())
}

fn real(
    tables: &mut Tables,
    change: &Change<(ServerKey, RealKey), RealServer>,
) -> Result<(), Refusal> {
    let (key, real) = change.key;
    let Some(server) = tables.servers.get_mut(&key) else {
        return match change.to {
            Some(_) => Err(format!("{key}: no such virtual server")),
            None => Ok(()),
        };
    };
    match (change.from, change.to, server.reals.get(&real)) {
        (None, Some(value), there) if there.is_none_or(|there| *there == value) => {
            Arc::make_mut(server).reals.insert(real, value);
        }
        (Some(_), Some(value), Some(_)) => {
            Arc::make_mut(server).reals.insert(real, value);
        }
        (None, Some(_), _) => return Err(format!("{key} > {real}: real server exists")),
        (Some(_), Some(_), None) => return Err(format!("{key} > {real}: no such real server")),
        (_, None, _) => {
            Arc::make_mut(server).reals.remove(&real);
        }
    }
    Ok(())
}
