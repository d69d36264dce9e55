//! What the cluster says: parsed once at the edge into typed values, no API object kept.
//!
//! ```text
//! JSON ──objects──▶ slim API types ──service, endpoints, node, service_cidr──▶ Parsed ──▶ Store
//! ```
//! [`store::Store`] folds [`Update`]s and tells which Services they touch.
//! Invariant: no I/O; a value that cannot be used is rejected with a reason, never an error.

pub mod endpoints;
pub mod field;
mod names;
pub mod node;
pub mod objects;
pub mod service;
pub mod service_cidr;
pub mod store;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

use crate::model::ipvs::Flag;
use crate::model::net::{Family, PerFamily, Protocol};

/// Namespace and name of an object; the namespace is empty for kinds that have none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name within it.
    pub name: Arc<str>,
}

impl ObjectName {
    /// The name of an object in a namespace.
    pub fn new(namespace: &str, name: &str) -> Self {
        ObjectName { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Service as far as the data plane cares (spec 1.2 and 1.3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Creation, seconds since the epoch; manifests have none. Decides who wins a front.
    pub created: Option<i64>,
    /// Cluster IP per family; a family without one is not served at any address (spec 1.2).
    pub cluster_ips: PerFamily<Option<IpAddr>>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Seconds of `ClientIP` session affinity.
    pub affinity_seconds: Option<u32>,
    /// Who may serve clients in the cluster.
    pub internal_policy: TrafficPolicy,
    /// Who may serve clients of the other kinds of addresses; `Cluster` where there are none.
    pub external_policy: TrafficPolicy,
    /// `spec.externalIPs`, of both families.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of `status.loadBalancer.ingress` that are to be served here (`ipMode` VIP).
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use the load-balancer addresses; nobody of a family without a range is kept out.
    pub source_ranges: Vec<IpNet>,
    /// Port on which this node tells whether it has local endpoints.
    pub health_check_port: Option<u16>,
    /// How its connections are spread, if it says so itself; few do.
    pub scheduling: Option<Box<Scheduling>>,
}

/// What a Service says itself of how its connections are spread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// Kernel name of its scheduler, one of [`crate::model::ipvs::SCHEDULERS`].
    pub scheduler: Option<Arc<str>>,
    /// Its flags, if it names any; those of its scheduler, if it names one.
    pub flags: Vec<Flag>,
}

impl Service {
    /// Whether it has any address but the cluster IP.
    pub fn is_reachable_from_outside(&self) -> bool {
        let has_node_port = self.ports.iter().any(|port| port.node_port.is_some());
        has_node_port || !self.external_ips.is_empty() || !self.load_balancer_ips.is_empty()
    }

    /// The scheduler that it names itself.
    pub fn scheduler(&self) -> Option<&Arc<str>> {
        self.scheduling.as_ref()?.scheduler.as_ref()
    }

    /// The scheduler flags that it names itself.
    pub fn scheduler_flags(&self) -> &[Flag] {
        self.scheduling.as_ref().map_or(&[], |scheduling| &scheduling.flags)
    }
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Port name; empty when the Service has one unnamed port.
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port on the service address.
    pub port: u16,
    /// Port on the addresses of every node.
    pub node_port: Option<u16>,
}

/// A traffic policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Every endpoint may serve.
    #[default]
    Cluster,
    /// Only endpoints of this node may serve.
    Local,
}

/// A slice of the endpoints of a Service (spec 1.5), or one subset of core/v1 Endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The Service it belongs to.
    pub service: ObjectName,
    /// Family of its addresses.
    pub family: Family,
    /// Ports, matched to those of the Service by name and protocol.
    pub ports: Vec<EndpointPort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port that endpoints of a slice listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPort {
    /// Port name.
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port number on the endpoint.
    pub port: u16,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address, the first the slice lists.
    pub address: IpAddr,
    /// Whether it takes new connections.
    pub ready: bool,
    /// Whether it still answers.
    pub serving: bool,
    /// Whether its pod is being deleted.
    pub terminating: bool,
    /// The node it runs on.
    pub node: Option<Arc<str>>,
    /// Whom it should serve. Cost: boxed, as most endpoints of most clusters have none.
    pub hints: Option<Box<Hints>>,
}

/// Whom an endpoint should serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Zones, `hints.forZones`.
    pub zones: Box<[Arc<str>]>,
    /// Nodes, `hints.forNodes`.
    pub nodes: Box<[Arc<str>]>,
}

impl Endpoint {
    /// Zones it should serve.
    pub fn zone_hints(&self) -> &[Arc<str>] {
        self.hints.as_ref().map_or(&[], |hints| &hints.zones)
    }

    /// Nodes it should serve.
    pub fn node_hints(&self) -> &[Arc<str>] {
        self.hints.as_ref().map_or(&[], |hints| &hints.nodes)
    }
}

/// This node, as the cluster knows it (spec 1.9).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Internal addresses, then external ones.
    pub addresses: Vec<IpAddr>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// `spec.podCIDRs`
    pub pod_cidrs: Vec<IpNet>,
    /// Deletion timestamp set, or tainted `ToBeDeletedByClusterAutoscaler`.
    pub is_leaving: bool,
}

/// The kinds of objects that are listed and watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Endpoints, where slices are missing or not wanted.
    Endpoints,
    /// The own `v1` Node.
    Node,
    /// `networking.k8s.io/v1` ServiceCIDR.
    ServiceCidr,
}

impl Kind {
    /// Every kind; each source lists all of them, those that it does not have as empty.
    pub const ALL: [Kind; 5] =
        [Kind::Service, Kind::EndpointSlice, Kind::Endpoints, Kind::Node, Kind::ServiceCidr];

    /// The name of the kind in the API.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::Endpoints => "Endpoints",
            Kind::Node => "Node",
            Kind::ServiceCidr => "ServiceCIDR",
        }
    }

    /// Group and version of the kind in the API.
    pub fn api_version(self) -> &'static str {
        match self {
            Kind::Service | Kind::Endpoints | Kind::Node => "v1",
            Kind::EndpointSlice => "discovery.k8s.io/v1",
            Kind::ServiceCidr => "networking.k8s.io/v1",
        }
    }

    /// Whether its objects live in namespaces.
    pub fn is_namespaced(self) -> bool {
        match self {
            Kind::Service | Kind::EndpointSlice | Kind::Endpoints => true,
            Kind::Node | Kind::ServiceCidr => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The usable form of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A Service.
    Service(Service),
    /// A slice.
    EndpointSlice(EndpointSlice),
    /// An Endpoints object: one slice per subset and family, replaced as a whole.
    Endpoints(Vec<EndpointSlice>),
    /// The own Node.
    Node(Node),
    /// Ranges that service addresses are allocated from.
    ServiceCidr(Vec<IpNet>),
}

/// Why an object is not programmed as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It, or a part of it, is not programmed.
    Rejected(String),
    /// A default is in the place of a value that cannot be used.
    Defaulted(String),
}

impl Reason {
    /// The reason in words for the owner of the object.
    pub fn text(&self) -> &str {
        match self {
            Reason::Rejected(text) | Reason::Defaulted(text) => text,
        }
    }
}

/// What became of an API object at the edge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The usable part; none if nothing of it matters to the data plane.
    pub object: Option<Object>,
    /// Why it is not programmed as it says, each naming the field and what it holds.
    pub reasons: Vec<Reason>,
    /// Of endpoints: when the change was caused that led to what they are now. The store takes it
    /// out, as it is no part of what an object is. Cost: boxed, as few updates have one.
    pub triggered: Option<Box<SystemTime>>,
}

/// One word from a source about the cluster.
///
/// A (re)list is `ListStarted`, any number of `Applied`, `ListDone`; what was not applied between
/// is gone. A list that ends as `ListIncomplete` lacks objects that were never told of. Updates of
/// one kind are in order; kinds are independent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// A list of this kind begins; everything known stays until it is done.
    ListStarted(Kind),
    /// An object was added or changed.
    Applied(Kind, ObjectName, Parsed),
    /// An object was deleted.
    Deleted(Kind, ObjectName),
    /// The list has ended, but a part of what there is has never been read: what was told of once
    /// and was not named is gone, and there may be more than was ever told of.
    ListIncomplete(Kind),
    /// The list is complete: what it did not name is gone.
    ListDone(Kind),
}

impl Update {
    /// The kind of object that it tells of; none for the bounds of a list.
    pub fn object(&self) -> Option<Kind> {
        match self {
            Update::Applied(kind, ..) | Update::Deleted(kind, _) => Some(*kind),
            Update::ListStarted(_) | Update::ListIncomplete(_) | Update::ListDone(_) => None,
        }
    }
}
