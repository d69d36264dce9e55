//! What the engine tells of what it has programmed.

use std::net::IpAddr;
use std::time::Instant;

use super::Engine;
use crate::cluster::ObjectName;
use crate::desired::idle;
use crate::model::ipset::SetId;
use crate::model::ipvs::ServerKey;
use crate::model::observed::Standing;
use crate::reconcile::view::{Idle, Oddity, View};

/// Fronts and drains in one part, about. Cost: unoptimized, a part took the loop 0.7 ms, and
/// 3.5 ms where no front had an endpoint; all of 10,000 fronts at once took it 29 ms.
const PART: usize = 500;

impl Engine {
    /// What is programmed at this moment, from the front after this one on, or the first.
    pub fn view(&self, after: Option<ServerKey>, now: Instant) -> View {
        let mut view = View::default();
        let mut owners = self.desired.owners(after);
        while view.fronts.len() + view.drains.len() < PART
            && let Some((key, name, kind)) = owners.next()
        {
            view.fronts.push((*key, name.clone(), kind));
            view.drains.extend(self.drains.time_left(*key, now));
            let (there, wanted) = (&self.mirror.tables, self.desired.tables());
            view.servers.extend(there.servers.get(key).map(|server| (*key, server.clone())));
            view.wanted.extend(wanted.servers.get(key).map(|server| (*key, server.clone())));
            if let Some(oddity) = self.oddity(key) {
                view.oddities.insert(*key, oddity);
                if !view.idle.contains_key(name) && self.is_to_be_explained(name, oddity) {
                    view.idle.extend(self.idle(name).map(|idle| (name.clone(), idle)));
                }
            }
        }
        view.rest = owners.next().and(view.fronts.last()).map(|(key, ..)| *key);
        let (there, wanted) = (&self.mirror.tables, self.desired.tables());
        let ips = view.fronts.iter().map(|(key, ..)| key.address);
        let is_unbound =
            |ip: &IpAddr| wanted.addresses.contains_key(ip) && !there.addresses.contains_key(ip);
        view.unbound = ips.filter(is_unbound).collect();
        view.standing = self.standing(&view);
        view.iptables.clone_from(&self.host.iptables);
        view.iptables_version = self.host.iptables_version;
        view.audits = self.pace.audits(now);
        view.lacks_foundation = !self.founded.unwrap_or(self.has_synced);
        view
    }

    /// What the fronts of a part rely on, as last seen or made; with the last part, all else.
    fn standing(&self, part: &View) -> Standing {
        let there = &self.mirror.tables;
        let addresses = part.fronts.iter().map(|(key, ..)| key.address);
        let addresses = addresses.filter(|ip| there.addresses.contains_key(ip)).collect();
        if part.rest.is_some() {
            return Standing { addresses, ..Standing::default() };
        }
        let wanted = self.desired.tables();
        let sets = there.sets.keys().filter(|key| wanted.sets.contains_key(key));
        Standing {
            device: there.device && wanted.device,
            addresses,
            sets: sets.map(|key| (*key, Some(there.entries.of(*key).len()))).collect(),
            rulesets: self.mirror.sure_rulesets(),
        }
    }

    /// Whether a front does not serve everybody.
    fn oddity(&self, key: &ServerKey) -> Option<Oddity> {
        let tables = self.desired.tables();
        let is_idle = || tables.servers.get(key).is_none_or(|server| server.reals.is_empty());
        match key {
            key if self.unclaimed.as_ref().is_some_and(|rows| rows.concerns(key)) => {
                Some(Oddity::Unread)
            }
            _ if is_idle() => Some(Oddity::Idle),
            key if tables.lists(SetId::NoLocalEndpoints, key) => Some(Oddity::Elsewhere),
            _ => None,
        }
    }

    /// Whether it takes the Service with its slices to say why a front does not serve everybody.
    ///
    /// Cost: they are copied, thousands of endpoints maybe; where all name their nodes, which
    /// takes nanoseconds to see, there is nothing more to tell of endpoints on other nodes.
    fn is_to_be_explained(&self, name: &ObjectName, oddity: Oddity) -> bool {
        let endpoints = || self.store.endpoints_of(name).flat_map(|slice| &slice.endpoints);
        match oddity {
            Oddity::Unread => false,
            Oddity::Idle => true,
            Oddity::Elsewhere => endpoints().any(idle::names_no_node),
        }
    }

    fn idle(&self, name: &ObjectName) -> Option<Idle> {
        let service = self.store.service(name)?.clone();
        Some(Idle { service, slices: self.store.endpoints_of(name).cloned().collect() })
    }
}

#[cfg(test)]
mod tests;
