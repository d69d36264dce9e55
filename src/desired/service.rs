//! One Service and its endpoints → the rows that it contributes.
//!
//! Invariant: a function of this one Service, its slices and the facts it is given; that is what
//! makes the cost of a change independent of how many Services there are.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::BitOr;

use super::Cause;
use super::front::{AddressKind, Away, Front, HealthCheck, Rank, ServiceRows};
use super::topology::{self, Endpoints, Place};
use crate::cluster::endpoints::{self, ByPort, PortEndpoint};
use crate::cluster::{EndpointSlice, ObjectName, Service, ServicePort, TrafficPolicy};
use crate::config::Policy;
use crate::model::ipset::{Entry, Member, SetId};
use crate::model::ipvs::{
    FLAG_MH_PORT, Flag, RealKey, RealServer, Server, ServerKey, VirtualServer,
};
use crate::model::net::{Family, PerFamily, Protocol};
use std::sync::Arc;

/// What rows depend on besides the Service itself.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The configuration.
    pub policy: &'a Policy,
    /// Zone of this node.
    pub zone: Option<&'a str>,
    /// Families that this host can program; fronts of another ask for nothing.
    pub families: PerFamily<bool>,
    /// Addresses of the host on other devices than ours.
    pub host_addresses: &'a BTreeSet<IpAddr>,
    /// Those of them on which node ports answer.
    pub node_addresses: &'a BTreeSet<IpAddr>,
    /// Schedulers that the kernel was asked for and does not have.
    pub lacking: &'a BTreeSet<Arc<str>>,
}

impl<'a> Facts<'a> {
    fn place(self) -> Place<'a> {
        Place { node: &self.policy.node_name, zone: self.zone }
    }

    fn can(self, address: &IpAddr) -> bool {
        *self.families.get(Family::of(*address)) && !self.policy.excludes(address)
    }
}

/// The rows of one Service.
pub fn rows(
    name: &ObjectName,
    service: &Service,
    slices: &[&EndpointSlice],
    facts: Facts<'_>,
) -> ServiceRows {
    let known = Family::ALL.map(|family| endpoints::merged(slices.iter().copied(), family));
    let mut fronts = Vec::new();
    for port in &service.ports {
        let [v4, v6] = known.each_ref().map(|known| endpoints_of(port, known));
        for spot in spots(service, port, facts) {
            let endpoints = match spot.key.family() {
                Family::V4 => v4,
                Family::V6 => v6,
            };
            fronts.push((spot.key, front(service, spot, endpoints, facts)));
        }
    }
    ServiceRows {
        rank: Rank { created: service.created, name: name.clone() },
        // Order: the first kind of address that names a front has it.
        fronts: fronts.into_iter().collect(),
        health: health_check(service, slices, facts),
        scheduler: service.scheduler().cloned(),
        away: away(service, &known, facts),
        rejected: rejected(service, facts),
        uses_zone: slices.iter().any(|s| s.endpoints.iter().any(|e| !e.zone_hints().is_empty())),
        uses_host: service.is_reachable_from_outside(),
    }
}

/// Whether most of what starts on a node needs the Service first: the API server's, and DNS.
///
/// Distributions name their cluster DNS differently; its port and namespace are the same.
pub fn is_urgent(name: &ObjectName, service: &Service) -> bool {
    match (&*name.namespace, &*name.name) {
        ("default", "kubernetes") => true,
        ("kube-system", _) => service.ports.iter().any(|port| port.port == 53),
        _ => false,
    }
}

/// Where clients find one port of a Service, and what kind of address that is.
#[derive(Debug, Clone, Copy)]
struct Spot {
    key: ServerKey,
    kind: AddressKind,
}

/// Every place of one port, in the families of this host.
fn spots(service: &Service, port: &ServicePort, facts: Facts<'_>) -> Vec<Spot> {
    let spot = |kind, address: IpAddr, number| Spot {
        key: ServerKey { address, port: number, protocol: port.protocol },
        kind,
    };
    let cluster = Family::ALL.into_iter().filter_map(|family| *service.cluster_ips.get(family));
    let cluster = cluster.map(|ip| spot(AddressKind::ClusterIp, ip, port.port));
    // Parity: the other kinds are there in the families that the Service has a cluster IP of.
    let is_served = |ip: &&IpAddr| service.cluster_ips.get(Family::of(**ip)).is_some();
    let external = service.external_ips.iter().filter(is_served);
    let external = external.map(|ip| spot(AddressKind::ExternalIp, *ip, port.port));
    let balancer = service.load_balancer_ips.iter().filter(is_served);
    let balancer = balancer.map(|ip| spot(AddressKind::LoadBalancer, *ip, port.port));
    let node = port.node_port.into_iter().flat_map(|number| {
        let addresses = facts.node_addresses.iter().filter(is_served);
        addresses.map(move |ip| spot(AddressKind::NodePort, *ip, number))
    });
    let all = cluster.chain(external).chain(balancer).chain(node);
    all.filter(|spot| facts.can(&spot.key.address)).collect()
}

/// All rows of one front.
fn front(service: &Service, spot: Spot, endpoints: &Endpoints<'_>, facts: Facts<'_>) -> Front {
    let Spot { key, kind } = spot;
    let choice = Choice::of(service, kind, endpoints, facts.place());
    let binds = kind != AddressKind::NodePort && !facts.host_addresses.contains(&key.address);
    let mut entries = vec![Entry::of_front(SetId::Servers, &key)];
    entries.extend(kind_entries(service, spot, facts));
    if binds {
        entries.push(Entry { set: SetId::IpvsIps, member: Member::Ip(key.address) });
    }
    if !choice.reals.is_empty() {
        entries.push(Entry::of_front(SetId::Pass, &key));
    }
    if choice.is_for_the_cluster_only {
        entries.push(Entry::of_front(SetId::NoLocalEndpoints, &key));
    }
    // Clients that are let through to other nodes keep their addresses. One may be the endpoint
    // itself, asking at a node port of this node: its own packets would come back to it.
    let is_chosen =
        |found: &PortEndpoint<'_>| choice.reals.binary_search(&topology::real(found)).is_ok();
    let can_meet_itself = |found: &&PortEndpoint<'_>| {
        topology::is_local(found.endpoint, facts.place())
            || choice.is_for_the_cluster_only && is_chosen(found)
    };
    let own = endpoints.iter().filter(can_meet_itself).map(topology::real);
    entries.extend(own.map(|real| hairpin(key.protocol, real)));
    entries.sort_unstable();
    entries.dedup();
    Front {
        kind,
        leaving: endpoints.iter().filter(|found| !is_chosen(found)).map(topology::real).collect(),
        server: Arc::new(Server {
            config: virtual_server(service, facts),
            reals: choice.reals.into_iter().map(|real| (real, RealServer::weighing(1))).collect(),
        }),
        entries: entries.into(),
        address: binds.then_some(key.address),
    }
}

/// The endpoints of a front.
struct Choice {
    /// Those that take new connections, ascending.
    reals: Vec<RealKey>,
    /// No endpoint runs here although one should: only clients in the cluster may use the others.
    is_for_the_cluster_only: bool,
}

impl Choice {
    fn of(service: &Service, kind: AddressKind, known: &Endpoints<'_>, place: Place<'_>) -> Self {
        let usable = |policy| topology::usable(known, policy, place);
        if kind == AddressKind::ClusterIp {
            return Choice {
                reals: usable(service.internal_policy),
                is_for_the_cluster_only: false,
            };
        }
        let reals = usable(service.external_policy);
        match service.external_policy {
            TrafficPolicy::Local if reals.is_empty() => {
                let reals = usable(TrafficPolicy::Cluster);
                Choice { is_for_the_cluster_only: !reals.is_empty(), reals }
            }
            TrafficPolicy::Local | TrafficPolicy::Cluster => {
                Choice { reals, is_for_the_cluster_only: false }
            }
        }
    }
}

/// The entries that the rules for a kind of address go by (spec 4.4).
fn kind_entries(service: &Service, spot: Spot, facts: Facts<'_>) -> Vec<Entry> {
    let Spot { key, kind } = spot;
    let is_local = service.external_policy == TrafficPolicy::Local;
    let of_front = |set| Entry::of_front(set, &key);
    match (kind, is_local) {
        (AddressKind::ClusterIp, _) => {
            let health = service.health_check_port.map(|port| Entry {
                set: SetId::HealthCheckNodePort,
                member: Member::Port(key.family(), port),
            });
            [of_front(SetId::ClusterIp)].into_iter().chain(health).collect()
        }
        (AddressKind::ExternalIp, false) => vec![of_front(SetId::ExternalIp)],
        (AddressKind::ExternalIp, true) => vec![of_front(SetId::ExternalIpLocal)],
        (AddressKind::LoadBalancer, _) => {
            let mut entries = vec![of_front(SetId::LoadBalancer)];
            entries.extend(is_local.then(|| of_front(SetId::LoadBalancerLocal)));
            entries.extend(source_entries(service, &key, facts));
            entries
        }
        (AddressKind::NodePort, _) => {
            let [any, local] = node_port_sets(key.protocol);
            let entry = |set| Entry { set, member: node_port_member(&key) };
            let local = is_local.then(|| entry(local));
            [entry(any)].into_iter().chain(local).collect()
        }
    }
}

/// Who may use a load-balancer front; nothing if everybody may.
fn source_entries(service: &Service, key: &ServerKey, facts: Facts<'_>) -> Vec<Entry> {
    let ranges = service.source_ranges.iter();
    let ranges = ranges.filter(|range| Family::of(range.addr()) == key.family());
    let ranges: Vec<_> = ranges.collect();
    if ranges.is_empty() {
        return Vec::new();
    }
    let ServerKey { address, port, protocol } = *key;
    let member = |range| Member::IpPortNet(address, protocol, port, range);
    let allowed = ranges
        .iter()
        .map(|range| Entry { set: SetId::LoadBalancerSourceCidr, member: member(**range) });
    // The node's own connections to a bound address come from that very address.
    let has_node = facts.host_addresses.iter().any(|ip| ranges.iter().any(|r| r.contains(ip)));
    let own = has_node.then_some(Entry {
        set: SetId::LoadBalancerSourceIp,
        member: Member::IpPortIp(address, protocol, port, address),
    });
    let firewall = Entry::of_front(SetId::LoadBalancerFw, key);
    allowed.chain(own).chain([firewall]).collect()
}

/// Under which policies the Service wants endpoints of this node where it has others alone.
fn away(service: &Service, known: &[ByPort<'_>; 2], facts: Facts<'_>) -> Away<bool> {
    let is_local = |policy| policy == TrafficPolicy::Local;
    let (internal, external) =
        (is_local(service.internal_policy), is_local(service.external_policy));
    let mut away = Away::default();
    if !internal && !external {
        return away;
    }
    for (family, known) in Family::ALL.into_iter().zip(known) {
        let is_served = service.cluster_ips.get(family).is_some_and(|address| facts.can(&address));
        let mut ports = service.ports.iter().map(|port| endpoints_of(port, known));
        if is_served && ports.any(|port| topology::are_all_elsewhere(port, facts.place())) {
            *away.internal.get_mut(family) = internal;
            *away.external.get_mut(family) = external;
        }
    }
    away
}

/// What the Service tells a load balancer about this node.
fn health_check(
    service: &Service,
    slices: &[&EndpointSlice],
    facts: Facts<'_>,
) -> Option<HealthCheck> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|e| e.ready && topology::is_local(e, facts.place()));
    let local: BTreeSet<IpAddr> = ready.map(|endpoint| endpoint.address).collect();
    // A pod of two families is in a slice of each.
    let of = |family| local.iter().filter(|ip| Family::of(**ip) == family).count();
    let local_endpoints = of(Family::V4).max(of(Family::V6));
    service.health_check_port.map(|port| HealthCheck { port, local_endpoints })
}

/// The sets of node ports of a protocol: all, and those of the local policy.
fn node_port_sets(protocol: Protocol) -> [SetId; 2] {
    match protocol {
        Protocol::Tcp => [SetId::NodePortTcp, SetId::NodePortLocalTcp],
        Protocol::Udp => [SetId::NodePortUdp, SetId::NodePortLocalUdp],
        Protocol::Sctp => [SetId::NodePortSctp, SetId::NodePortLocalSctp],
    }
}

/// Kernel: a bitmap of ports cannot tell SCTP apart, so those are kept by address.
fn node_port_member(key: &ServerKey) -> Member {
    match key.protocol {
        Protocol::Tcp | Protocol::Udp => Member::Port(key.family(), key.port),
        Protocol::Sctp => Member::IpPort(key.address, key.protocol, key.port),
    }
}

/// What lets an endpoint reach itself through a Service.
fn hairpin(protocol: Protocol, real: RealKey) -> Entry {
    let member = Member::IpPortIp(real.address, protocol, real.port, real.address);
    Entry { set: SetId::LoopBack, member }
}

fn virtual_server(service: &Service, facts: Facts<'_>) -> VirtualServer {
    let own = service.scheduler();
    let usable = own.filter(|name| !facts.lacking.contains(*name));
    let scheduler = usable.unwrap_or(&facts.policy.scheduler).clone();
    // Flags are meant for the scheduler next to them, not for one that takes its place.
    let own_flags = service.scheduler_flags();
    let are_used = usable == own && own_flags.iter().all(|flag| is_of(flag, &scheduler));
    let flags = own_flags.iter().filter(|_| are_used).map(|(.., bit)| bit);
    // Parity: the reference hashes on the source port too, for `mh` only.
    let default_flags = if &*scheduler == "mh" { FLAG_MH_PORT } else { 0 };
    VirtualServer {
        scheduler,
        scheduler_flags: flags.copied().reduce(BitOr::bitor).unwrap_or(default_flags),
        persistence: service.affinity_seconds,
    }
}

fn is_of((_, of, _): &Flag, scheduler: &str) -> bool {
    of.is_none_or(|of| of == scheduler)
}

/// Flags without a scheduler next to them that the default scheduler, which is used, has not.
fn misplaced_flags(service: &Service, default: &str) -> Option<(Cause, String)> {
    if service.scheduler().is_some() {
        return None;
    }
    let flags = service.scheduler_flags().iter();
    let misplaced = flags.filter(|flag| !is_of(flag, default)).map(|(name, ..)| *name);
    let misplaced: Vec<&str> = misplaced.collect();
    let reason = format!(
        "the scheduler {default}, which is used as the Service names none, has no flag {}; the \
         flags of the Service are not used: name the scheduler of the flags in \
         metadata.annotations[ipvs.kube-ipvs-proxy.io/scheduler]",
        misplaced.join(" or ")
    );
    (!misplaced.is_empty()).then_some((Cause::Defaulted, reason))
}

/// What of a Service this node cannot do, or was told to leave to others.
fn rejected(service: &Service, facts: Facts<'_>) -> Vec<(Cause, String)> {
    let own = service.scheduler().into_iter();
    let lacking = own.filter(|name| facts.lacking.contains(*name)).map(|name| {
        let default = &facts.policy.scheduler;
        let reason = format!(
            "the kernel has no scheduler {name}, {default} is used: load ip_vs_{name}: \
             modprobe ip_vs_{name}"
        );
        (Cause::Scheduler, reason)
    });
    let cluster =
        Family::ALL.into_iter().filter_map(|family| service.cluster_ips.get(family).as_ref());
    let addresses = cluster.chain(&service.external_ips).chain(&service.load_balancer_ips);
    let excluded = addresses.filter(|address| facts.policy.excludes(address));
    let excluded = excluded.map(|address| {
        let reason = format!("{address} is in --ipvs-exclude-cidrs, so left to others");
        (Cause::Excluded, reason)
    });
    let misplaced = misplaced_flags(service, &facts.policy.scheduler);
    lacking.chain(misplaced).chain(excluded).collect()
}

/// The endpoints of one port.
pub(super) fn endpoints_of<'a, 'e>(port: &ServicePort, known: &'a ByPort<'e>) -> &'a Endpoints<'e> {
    known.get(&(port.name.clone(), port.protocol)).map_or(&[], Vec::as_slice)
}
