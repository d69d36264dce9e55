//! One Service and its endpoints → the rows that it contributes.
//!
//! Invariant: a function of this one Service, its slices and the facts it is given; that is what
//! makes the cost of a change independent of how many Services there are.

use std::collections::{BTreeMap, BTreeSet};

use super::front::{Front, Rank, ServiceRows};
use super::topology::{self, Endpoints, Place};
use crate::cluster::{EndpointSlice, ObjectName, Service, ServicePort};
use crate::config::Policy;
use crate::model::ipset::{Entry, Member, SetId};
use crate::model::ipvs::{FLAG_MH_PORT, RealKey, RealServer, Server, ServerKey, VirtualServer};
use crate::model::net::{Family, PerFamily, Protocol};

/// What rows depend on besides the Service itself.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The configuration.
    pub policy: &'a Policy,
    /// Zone of this node.
    pub zone: Option<&'a str>,
    /// Families that this host can program; fronts of another ask for nothing.
    pub families: PerFamily<bool>,
}

impl<'a> Facts<'a> {
    fn place(self) -> Place<'a> {
        Place { node: &self.policy.node_name, zone: self.zone }
    }
}

/// The rows of one Service.
pub fn rows(
    name: &ObjectName,
    service: &Service,
    slices: &[&EndpointSlice],
    facts: Facts<'_>,
) -> ServiceRows {
    let families = Family::ALL.into_iter().filter(|family| *facts.families.get(*family));
    let cluster_ips = families.filter_map(|family| *service.cluster_ips.get(family));
    let fronts = cluster_ips
        .flat_map(|address| service.ports.iter().map(move |port| (address, port)))
        .map(|(address, port)| {
            let key = ServerKey { address, port: port.port, protocol: port.protocol };
            (key, cluster_ip(key, service, &endpoints(slices, port, key.family()), facts))
        })
        .collect();
    ServiceRows {
        rank: Rank { created: service.created, name: name.clone() },
        fronts,
        uses_zone: slices.iter().any(|s| s.endpoints.iter().any(|e| !e.zone_hints.is_empty())),
    }
}

/// The front of a cluster IP.
fn cluster_ip(
    key: ServerKey,
    service: &Service,
    endpoints: &Endpoints<'_>,
    facts: Facts<'_>,
) -> Front {
    let chosen: BTreeSet<RealKey> =
        topology::usable(endpoints, service.internal_policy, facts.place()).into_iter().collect();
    let mut entries = vec![
        Entry::of_front(SetId::Servers, &key),
        Entry::of_front(SetId::ClusterIp, &key),
        Entry { set: SetId::IpvsIps, member: Member::Ip(key.address) },
    ];
    if !chosen.is_empty() {
        entries.push(Entry::of_front(SetId::Pass, &key));
    }
    let local = endpoints.iter().filter(|(_, e)| topology::is_local(e, facts.place()));
    entries.extend(local.map(|(real, _)| hairpin(key.protocol, real)));
    Front {
        leaving: endpoints.keys().filter(|real| !chosen.contains(real)).copied().collect(),
        server: Server {
            config: virtual_server(service, facts.policy),
            reals: chosen.into_iter().map(|real| (real, RealServer::weighing(1))).collect(),
        },
        entries,
        address: Some(key.address),
    }
}

/// What lets a local endpoint reach itself through a Service.
fn hairpin(protocol: Protocol, real: &RealKey) -> Entry {
    let member = Member::IpPortIp(real.address, protocol, real.port, real.address);
    Entry { set: SetId::LoopBack, member }
}

fn virtual_server(service: &Service, policy: &Policy) -> VirtualServer {
    // Parity: the reference hashes on the source port too, for `mh` only.
    let scheduler_flags = if &*policy.scheduler == "mh" { FLAG_MH_PORT } else { 0 };
    VirtualServer {
        scheduler: policy.scheduler.clone(),
        scheduler_flags,
        persistence: service.affinity_seconds,
    }
}

/// The endpoints of one port over all slices; of duplicates, one that is not leaving wins.
fn endpoints<'a>(
    slices: &[&'a EndpointSlice],
    port: &ServicePort,
    family: Family,
) -> Endpoints<'a> {
    let mut merged: Endpoints<'a> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.family == family) {
        let targets = slice
            .ports
            .iter()
            .filter(|target| target.name == port.name && target.protocol == port.protocol);
        for target in targets {
            for endpoint in &slice.endpoints {
                let key = RealKey { address: endpoint.address, port: target.port };
                let known = merged.entry(key).or_insert(endpoint);
                if !endpoint.terminating {
                    *known = endpoint;
                }
            }
        }
    }
    merged
}
