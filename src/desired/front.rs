//! Fronts: one (address, port, protocol) with all its rows, and who may have it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::Cause;
use crate::cluster::ObjectName;
use crate::model::ipset::Entry;
use crate::model::ipvs::{RealKey, Server, ServerKey};
use crate::model::net::{Family, PerFamily};
use crate::model::small_map::SmallMap;

/// The four kinds of service addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// A cluster IP.
    ClusterIp,
    /// One of `spec.externalIPs`.
    ExternalIp,
    /// An address of a load balancer.
    LoadBalancer,
    /// A port of the node's own addresses.
    NodePort,
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressKind::ClusterIp => "cluster IP",
            AddressKind::ExternalIp => "external IP",
            AddressKind::LoadBalancer => "load balancer",
            AddressKind::NodePort => "node port",
        })
    }
}

/// All rows of one front; the Service that wins the front provides them whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Front {
    /// What kind of address it is.
    pub kind: AddressKind,
    /// The virtual server with its real servers.
    pub server: Arc<Server>,
    /// Entries of sets, each once; one that several fronts name is there once in all.
    pub entries: Box<[Entry]>,
    /// The address to bind, if the front binds one.
    pub address: Option<IpAddr>,
    /// Known endpoints that take no new connections; they drain with the long deadline.
    pub leaving: Box<[RealKey]>,
}

impl Front {
    /// Whether a real server is an endpoint that is known, whether it takes connections or not.
    pub fn knows(&self, real: &RealKey) -> bool {
        self.server.reals.contains_key(real) || self.leaving.contains(real)
    }
}

/// What one Service asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRows {
    /// Who wins where Services meet.
    pub rank: Rank,
    /// Its fronts.
    pub fronts: SmallMap<ServerKey, Front>,
    /// Its health check, if it has one.
    pub health: Option<HealthCheck>,
    /// The scheduler that it names itself.
    pub scheduler: Option<Arc<str>>,
    /// What of it has endpoints, and none of them where its policies want them.
    pub away: Away<bool>,
    /// What of it is not programmed, or otherwise than asked for, and why.
    pub rejected: Vec<(Cause, String)>,
    /// Whether the rows depend on the zone of this node.
    pub uses_zone: bool,
    /// Whether the rows depend on the addresses of this host, other than those of its fronts.
    pub uses_host: bool,
}

/// Services that have endpoints, but none on this node although a policy wants them here (spec
/// 1.8): whether one is such a Service, or how many are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Away<T> {
    /// Under the internal traffic policy.
    pub internal: PerFamily<T>,
    /// Under the external one.
    pub external: PerFamily<T>,
}

impl Away<usize> {
    /// Counts a Service, or no longer.
    pub(super) fn exchange(&mut self, old: Away<bool>, new: Away<bool>) {
        for family in Family::ALL {
            for (count, old, new) in [
                (&mut self.internal, old.internal, new.internal),
                (&mut self.external, old.external, new.external),
            ] {
                let count = count.get_mut(family);
                *count = *count + usize::from(*new.get(family)) - usize::from(*old.get(family));
            }
        }
    }
}

/// What a Service tells a load balancer about this node (spec 10.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheck {
    /// Port that answers.
    pub port: u16,
    /// Distinct addresses of ready endpoints on this node.
    pub local_endpoints: usize,
}

/// Order of claims on a front: the smallest wins, on every node alike.
///
/// Older before younger, then by namespace and name. Manifests have no time: the name decides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Creation, seconds since the epoch.
    pub created: Option<i64>,
    /// The Service.
    pub name: ObjectName,
}
