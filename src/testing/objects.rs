//! Builders of cluster objects, as the updates that a source would send.

use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{
    Endpoint, EndpointPort, EndpointSlice, Hints, Kind, Node, Object, ObjectName, Parsed, Reason,
    Scheduling, Service, ServicePort, TrafficPolicy, Update,
};
use crate::config::{
    Conntrack, DetectLocal, DrainTimeouts, IpvsTimeouts, NodePortAddresses, Policy, VipBinding,
};
use crate::model::ipvs::{FLAGS, RealKey, ServerKey};
use crate::model::net::{Family, PerFamily, Protocol};

/// The node that tests run on.
pub const NODE: &str = "node-1";

/// A name written `namespace/name`; without a slash there is no namespace.
pub fn name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    ObjectName::new(namespace, name)
}

/// An address.
///
/// # Panics
///
/// If the text is none.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("tests write valid addresses")
}

/// A front written `tcp 10.96.0.1:80`.
///
/// # Panics
///
/// If the text is none.
pub fn front(text: &str) -> ServerKey {
    let (protocol, socket) = text.split_once(' ').expect("a protocol and an address");
    let RealKey { address, port } = real(socket);
    ServerKey { address, port, protocol: self::protocol(protocol) }
}

/// A real server written `10.244.1.1:8080`.
///
/// # Panics
///
/// If the text is none.
pub fn real(text: &str) -> RealKey {
    let socket: std::net::SocketAddr = text.parse().expect("tests write valid socket addresses");
    RealKey { address: socket.ip(), port: socket.port() }
}

fn protocol(text: &str) -> Protocol {
    let named = Protocol::ALL.into_iter().find(|protocol| protocol.to_string() == text);
    named.expect("tests write valid protocols")
}

/// A port of a Service, written like that of a slice or with a node port, `tcp 80:30080`.
fn service_port(text: &str) -> ServicePort {
    let (front, node_port) = match text.split_once(':') {
        Some((front, node_port)) => (front, Some(node_port.parse().expect("a node port"))),
        None => (text, None),
    };
    let (name, protocol, port) = port(front);
    ServicePort { name, protocol, port, node_port }
}

/// A port written `http tcp 80`, or `tcp 80` if it has no name.
fn port(text: &str) -> (Arc<str>, Protocol, u16) {
    let mut words: Vec<&str> = text.split(' ').collect();
    let number = words.pop().and_then(|word| word.parse().ok()).expect("a port number");
    let protocol = protocol(words.pop().unwrap_or_default());
    (words.pop().unwrap_or_default().into(), protocol, number)
}

/// A policy with the defaults of the flags and a cluster CIDR per family; connection tracking is
/// left alone.
pub fn policy() -> Policy {
    let cidr = |text: &str| text.parse().ok();
    Policy {
        node_name: NODE.into(),
        scheduler: "rr".into(),
        masquerade_all: false,
        masquerade_bit: 14,
        detect_local: DetectLocal::ClusterCidr(PerFamily {
            v4: cidr("10.244.0.0/16"),
            v6: cidr("fd00:244::/32"),
        }),
        service_cidrs: Vec::new(),
        node_port_addresses: NodePortAddresses::All,
        strict_arp: false,
        excluded: Vec::new(),
        removes_leftovers: false,
        ipvs_estimation: false,
        ipvs_timeouts: IpvsTimeouts::default(),
        drain_timeouts: DrainTimeouts::default(),
        conntrack: Conntrack::default(),
        vip_binding: VipBinding::Address,
    }
}

/// A Service under construction.
#[derive(Debug, Clone)]
pub struct ServiceBuilder {
    name: ObjectName,
    service: Service,
}

/// A Service of a name written `namespace/name`, with cluster IPs and ports such as
/// `http tcp 80`, `tcp 80` or, with a node port, `tcp 80:30080`.
pub fn service(text: &str, cluster_ips: &[&str], ports: &[&str]) -> ServiceBuilder {
    let mut service = Service::default();
    for address in cluster_ips.iter().map(|text| ip(text)) {
        *service.cluster_ips.get_mut(Family::of(address)) = Some(address);
    }
    service.ports = ports.iter().map(|text| service_port(text)).collect();
    ServiceBuilder { name: name(text), service }
}

impl ServiceBuilder {
    /// Created at this second.
    pub fn created(mut self, at: i64) -> Self {
        self.service.created = Some(at);
        self
    }

    /// With `ClientIP` affinity of so many seconds.
    pub fn affinity(mut self, seconds: u32) -> Self {
        self.service.affinity_seconds = Some(seconds);
        self
    }

    /// With a scheduler and its flags.
    pub fn scheduling(mut self, scheduler: Option<&str>, flags: &[&str]) -> Self {
        let flags = FLAGS.into_iter().filter(|(name, ..)| flags.contains(name)).collect();
        let scheduling = Scheduling { scheduler: scheduler.map(Arc::from), flags };
        self.service.scheduling = Some(Box::new(scheduling));
        self
    }

    /// With internal traffic policy Local.
    pub fn local(mut self) -> Self {
        self.service.internal_policy = TrafficPolicy::Local;
        self
    }

    /// With external traffic policy Local.
    pub fn external_local(mut self) -> Self {
        self.service.external_policy = TrafficPolicy::Local;
        self
    }

    /// With external IPs.
    pub fn external_ips(mut self, addresses: &[&str]) -> Self {
        self.service.external_ips = addresses.iter().map(|text| ip(text)).collect();
        self
    }

    /// With load-balancer addresses.
    pub fn load_balancer_ips(mut self, addresses: &[&str]) -> Self {
        self.service.load_balancer_ips = addresses.iter().map(|text| ip(text)).collect();
        self
    }

    /// With ranges that may use the load-balancer addresses.
    ///
    /// # Panics
    ///
    /// If a text is no range.
    pub fn source_ranges(mut self, ranges: &[&str]) -> Self {
        let ranges = ranges.iter().map(|text| text.parse().expect("tests write valid ranges"));
        self.service.source_ranges = ranges.collect();
        self
    }

    /// With a health check node port.
    pub fn health_check_port(mut self, port: u16) -> Self {
        self.service.health_check_port = Some(port);
        self
    }

    /// The Service alone.
    pub fn build(self) -> Service {
        self.service
    }

    /// The update that applies it.
    pub fn applied(self) -> Update {
        applied(Kind::Service, self.name, Object::Service(self.service))
    }
}

/// An endpoint that is ready, on some other node.
pub fn endpoint(address: &str) -> Endpoint {
    Endpoint {
        address: ip(address),
        ready: true,
        serving: true,
        terminating: false,
        node: Some("elsewhere".into()),
        hints: None,
    }
}

/// The same on this node.
pub fn on_node(mut endpoint: Endpoint) -> Endpoint {
    endpoint.node = Some(NODE.into());
    endpoint
}

/// The same, but it takes no connections.
pub fn unready(mut endpoint: Endpoint) -> Endpoint {
    endpoint.ready = false;
    endpoint.serving = false;
    endpoint
}

/// The same while its pod is being deleted: it still answers.
pub fn terminating(mut endpoint: Endpoint) -> Endpoint {
    endpoint.ready = false;
    endpoint.terminating = true;
    endpoint
}

/// The same with a zone hint.
pub fn hinted(mut endpoint: Endpoint, zone: &str) -> Endpoint {
    let zones = [zone.into()].into();
    endpoint.hints = Some(Hints { zones, ..Hints::default() }.into());
    endpoint
}

/// The slice `NAME-slice` of the Service `NAME`; its family is that of its first endpoint.
pub fn slice(service: &str, ports: &[&str], endpoints: &[Endpoint]) -> EndpointSlice {
    let ports = ports.iter().map(|text| port(text));
    EndpointSlice {
        service: name(service),
        family: endpoints.first().map_or(Family::V4, |endpoint| Family::of(endpoint.address)),
        ports: ports.map(|(name, protocol, port)| EndpointPort { name, protocol, port }).collect(),
        endpoints: endpoints.to_vec(),
    }
}

/// The update that applies [`slice`].
pub fn slice_applied(service: &str, ports: &[&str], endpoints: &[Endpoint]) -> Update {
    let slice = slice(service, ports, endpoints);
    applied(Kind::EndpointSlice, name(&format!("{service}-slice")), Object::EndpointSlice(slice))
}

/// The update that applies this node in a zone, with pod CIDRs.
pub fn node_applied(zone: Option<&str>, pod_cidrs: &[&str]) -> Update {
    let cidrs = pod_cidrs.iter().filter_map(|text| text.parse().ok());
    let node = Node { zone: zone.map(Arc::from), pod_cidrs: cidrs.collect(), ..Node::default() };
    applied(Kind::Node, name(NODE), Object::Node(node))
}

/// The update that applies an object of which nothing is rejected.
pub fn applied(kind: Kind, name: ObjectName, object: Object) -> Update {
    Update::Applied(kind, name, Parsed { object: Some(object), ..Parsed::default() })
}

/// Why an object is not programmed as it says, in words.
pub fn reasons(parsed: &Parsed) -> Vec<&str> {
    parsed.reasons.iter().map(Reason::text).collect()
}

/// The updates of first lists with these objects: afterwards the store is complete.
pub fn listed(updates: impl IntoIterator<Item = Update>) -> Vec<Update> {
    let started = Kind::ALL.into_iter().map(Update::ListStarted);
    let done = Kind::ALL.into_iter().map(Update::ListDone);
    started.chain(updates).chain(done).collect()
}
