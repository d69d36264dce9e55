//! One Service and its endpoints → the rows that it contributes.
//!
//! Invariant: a function of this one Service, its slices and the facts it is given; that is what
//! makes the cost of a change independent of how many Services there are.

use std::collections::BTreeSet;

use super::front::{Front, Rank, ServiceRows};
use super::topology::{self, Endpoints, Place};
use crate::cluster::endpoints::{self, ByPort};
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
    let fronts = cluster_ips.flat_map(|address| {
        let known = endpoints::merged(slices.iter().copied(), Family::of(address));
        let front = move |port: &ServicePort| {
            let key = ServerKey { address, port: port.port, protocol: port.protocol };
            (key, cluster_ip(key, service, &endpoints_of(port, &known), facts))
        };
        service.ports.iter().map(front)
    });
    ServiceRows {
        rank: Rank { created: service.created, name: name.clone() },
        fronts: fronts.collect(),
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

/// The endpoints of one port.
fn endpoints_of<'a>(port: &ServicePort, known: &ByPort<'a>) -> Endpoints<'a> {
    let found = known.get(&(port.name.clone(), port.protocol));
    let found = found.into_iter().flatten();
    found
        .map(|found| {
            (RealKey { address: found.endpoint.address, port: found.port }, found.endpoint)
        })
        .collect()
}
