//! Which UDP flows are stale: of a front of ours, and answered by none of its real servers.
//!
//! Connection tracking remembers where a client's packets went and keeps that alive with each
//! packet, be it to a pod that is gone, to where the address led before it was a front, or to the
//! refusal of a front that had no endpoint. Removing the flow lets the next packet choose anew.
//!
//! Invariant: a flow to anything but a front of ours is never stale. What the kernel holds decides,
//! not what is wanted: a real server that could not be removed keeps its flows.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::entries::front_of;
use super::owned;
use super::step::{Change, Step};
use crate::desired::Desired;
use crate::model::conntrack::Flow;
use crate::model::ipset::SetId;
use crate::model::ipvs::ServerKey;
use crate::model::net::{Family, PerFamily, Protocol};
use crate::model::tables::Tables;

/// Fronts whose flows are to be looked at, because their rows have changed since the last look.
#[derive(Debug, Default)]
pub struct Flows {
    owed: PerFamily<Owed>,
}

#[derive(Debug, Default)]
enum Owed {
    /// Every front of ours: nobody looked yet, and much may have happened before us.
    #[default]
    All,
    /// These.
    Some(BTreeSet<ServerKey>),
}

impl Flows {
    /// Takes in a step that was carried out, or tried; the tables are as they are after it.
    pub fn note(&mut self, step: &Step, seen: &Tables) {
        match step {
            Step::Servers(changes) => self.owe(changes.iter().map(|change| change.key)),
            Step::Reals(changes) => self.owe(changes.iter().map(|change| change.key.0)),
            Step::Entries(changes) => {
                let admissions = changes.iter().filter(|change| change.key.set == SetId::Pass);
                self.owe(admissions.filter_map(|change| front_of(&change.key)));
            }
            Step::Addresses(changes) => {
                self.owe(changes.iter().flat_map(|change| fronts_on(seen, change.key)));
            }
            Step::Settings(_)
            | Step::Sets(_)
            | Step::Device(_)
            | Step::Rules(_)
            | Step::Chains(_)
            | Step::Flows(_)
            | Step::Leftovers(_) => {}
        }
    }

    /// The fronts of a family that are to be looked at now.
    pub fn due(&self, desired: &Desired, family: Family, seen: &Tables) -> BTreeSet<ServerKey> {
        match self.owed.get(family) {
            Owed::Some(fronts) => fronts.clone(),
            Owed::All => {
                let ours = seen.servers.keys().filter(|key| owned::server(desired, seen, key));
                ours.filter(|key| is_udp(key) && key.family() == family).copied().collect()
            }
        }
    }

    /// The fronts of a family were looked at; those in doubt are looked at again.
    pub fn settle(&mut self, family: Family, doubted: &BTreeSet<ServerKey>) {
        let doubted = doubted.iter().filter(|key| is_udp(key) && key.family() == family);
        *self.owed.get_mut(family) = Owed::Some(doubted.copied().collect());
    }

    /// Nobody can look for now: what is owed is everything, for no list may grow for ever.
    pub fn owe_all(&mut self, family: Family) {
        *self.owed.get_mut(family) = Owed::All;
    }

    fn owe(&mut self, fronts: impl Iterator<Item = ServerKey>) {
        for front in fronts.filter(is_udp) {
            if let Owed::Some(owed) = self.owed.get_mut(front.family()) {
                owed.insert(front);
            }
        }
    }
}

/// The step that removes what is stale among the flows to these fronts.
pub fn removal(flows: &[Flow], fronts: &BTreeSet<ServerKey>, seen: &Tables) -> Step {
    let is_answered = |flow: &Flow| {
        let server = seen.servers.get(&flow.front());
        server.is_some_and(|server| server.reals.contains_key(&flow.real()))
    };
    let of_ours = flows.iter().filter(|flow| fronts.contains(&flow.front()));
    let stale = of_ours.filter(|flow| !is_answered(flow));
    Step::Flows(stale.map(|flow| Change::remove(*flow, ())).collect())
}

/// The servers on an address.
fn fronts_on(seen: &Tables, address: IpAddr) -> impl Iterator<Item = ServerKey> {
    seen.servers.range(ServerKey::all_on(address)).map(|(key, _)| *key)
}

fn is_udp(front: &ServerKey) -> bool {
    front.protocol == Protocol::Udp
}
