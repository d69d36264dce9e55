//! Slim API types: the few fields of each kind that the data plane reads.
//!
//! First step of parsing: [`read`] takes the JSON of one object to its name and parsed value.
//! Both sources, API server and manifests, come through here.
//! Invariant: null stands for absent everywhere, unknown fields and enum values are no errors,
//! and an object that cannot be read but can be named is rejected, not lost.

mod in_parts;
mod place;

use serde::{Deserialize, Deserializer};

pub use self::place::{in_words, mismatch};

use super::{Kind, ObjectName, Parsed, Reason, endpoints, node, service, service_cidr};

/// An object as read from its JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Its name; objects of namespaced kinds without a namespace are in `default`.
    pub name: ObjectName,
    /// Its resource version; empty in manifests.
    pub version: String,
    /// What the data plane makes of it.
    pub parsed: Parsed,
}

/// Reads one object of a kind; an error means that it does not even tell its name.
pub fn read(kind: Kind, json: &str) -> Result<Read, serde_json::Error> {
    let typed = match kind {
        Kind::Service => serde_json::from_str(json)
            .map(|object: Service| named(kind, &object.metadata, service::parse(&object))),
        Kind::EndpointSlice => serde_json::from_str(json)
            .or_else(|error| in_parts::slice(json).ok_or(error))
            .map(|object| named(kind, &object.metadata, endpoints::parse_slice(&object))),
        Kind::Endpoints => serde_json::from_str(json)
            .or_else(|error| in_parts::endpoints(json).ok_or(error))
            .map(|object| named(kind, &object.metadata, endpoints::parse_endpoints(&object))),
        Kind::Node => serde_json::from_str(json)
            .map(|object: Node| named(kind, &object.metadata, node::parse(&object))),
        Kind::ServiceCidr => serde_json::from_str(json)
            .map(|object: ServiceCidr| named(kind, &object.metadata, service_cidr::parse(&object))),
    };
    match typed {
        Ok(read) if read.name.name.is_empty() => {
            Err(serde::de::Error::custom("metadata.name is missing"))
        }
        Ok(read) => Ok(read),
        Err(error) => reject(kind, json, error),
    }
}

/// What a slice comes to that was read already; none if it does not tell its name.
pub fn of_slice(object: &EndpointSlice) -> Option<Read> {
    let parsed = endpoints::parse_slice(object);
    let read = named(Kind::EndpointSlice, &object.metadata, parsed);
    (!read.name.name.is_empty()).then_some(read)
}

fn named(kind: Kind, metadata: &Metadata, parsed: Parsed) -> Read {
    let namespace = if kind.is_namespaced() { metadata.namespace_or_default() } else { "" };
    let name = ObjectName::new(namespace, &metadata.name);
    Read { name, version: metadata.resource_version.clone(), parsed }
}

/// An object that does not parse as its kind, if it can be named at all.
fn reject(kind: Kind, json: &str, error: serde_json::Error) -> Result<Read, serde_json::Error> {
    match serde_json::from_str::<Named>(json) {
        Ok(object) if !object.metadata.name.is_empty() => {
            let error = place::in_words(json, &error);
            let reason = Reason::Rejected(format!("does not read as {}: {error}", one(kind)));
            let parsed = Parsed { reasons: vec![reason], ..Parsed::default() };
            Ok(named(kind, &object.metadata, parsed))
        }
        _ => Err(error),
    }
}

/// A kind with the article that fits.
fn one(kind: Kind) -> String {
    match kind {
        Kind::Endpoints => kind.to_string(),
        Kind::EndpointSlice => format!("an {kind}"),
        Kind::Service | Kind::Node | Kind::ServiceCidr => format!("a {kind}"),
    }
}

/// The metadata that matters.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// The name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The namespace, empty for kinds without.
    #[serde(deserialize_with = "or_default")]
    pub namespace: String,
    /// The version that a watch can continue from.
    #[serde(deserialize_with = "or_default")]
    pub resource_version: String,
    /// When it was created, RFC 3339.
    pub creation_timestamp: Option<String>,
    /// When its deletion was asked for.
    pub deletion_timestamp: Option<String>,
    /// The labels that matter.
    #[serde(deserialize_with = "or_default")]
    pub labels: Labels,
    /// The annotations that matter.
    #[serde(deserialize_with = "or_default")]
    pub annotations: Annotations,
}

impl Metadata {
    /// The namespace of an object of a namespaced kind.
    pub fn namespace_or_default(&self) -> &str {
        if self.namespace.is_empty() { "default" } else { &self.namespace }
    }
}

/// The labels that matter; all others are skipped without an allocation.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Labels {
    /// Another proxy serves this Service.
    #[serde(rename = "service.kubernetes.io/service-proxy-name")]
    pub service_proxy_name: Option<String>,
    /// Endpoints of a headless Service.
    #[serde(rename = "service.kubernetes.io/headless")]
    pub headless: Option<String>,
    /// The Service that a slice belongs to.
    #[serde(rename = "kubernetes.io/service-name")]
    pub service_name: Option<String>,
    /// The zone of a node.
    #[serde(rename = "topology.kubernetes.io/zone")]
    pub zone: Option<String>,
}

/// The annotations that matter: ours, those that kube-router reads, and that of the control plane.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Annotations {
    /// How new connections are spread.
    #[serde(rename = "ipvs.kube-ipvs-proxy.io/scheduler")]
    pub scheduler: Option<String>,
    /// Flags of that scheduler.
    #[serde(rename = "ipvs.kube-ipvs-proxy.io/scheduler-flags")]
    pub scheduler_flags: Option<String>,
    /// How new connections are spread, to kube-router.
    #[serde(rename = "kube-router.io/service.scheduler")]
    pub router_scheduler: Option<String>,
    /// Flags of that scheduler.
    #[serde(rename = "kube-router.io/service.schedflags")]
    pub router_scheduler_flags: Option<String>,
    /// When a pod or its Service changed in the way that these endpoints tell of.
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub trigger_time: Option<String>,
}

/// Any object, as far as its name.
#[derive(Debug, Deserialize)]
struct Named {
    metadata: Metadata,
}

/// `v1` Service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// What is asked for.
    #[serde(deserialize_with = "or_default")]
    pub spec: ServiceSpec,
    /// What became of it.
    #[serde(deserialize_with = "or_default")]
    pub status: ServiceStatus,
}

/// What a Service asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    pub r#type: Option<String>,
    /// The first cluster IP, `None` for headless Services.
    #[serde(rename = "clusterIP", deserialize_with = "or_default")]
    pub cluster_ip: String,
    /// All cluster IPs, in the order of `ip_families`.
    #[serde(rename = "clusterIPs", deserialize_with = "or_default")]
    pub cluster_ips: Vec<String>,
    /// `IPv4` or `IPv6` per cluster IP.
    #[serde(deserialize_with = "or_default")]
    pub ip_families: Vec<String>,
    /// Ports.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<ServicePort>,
    /// `ClientIP` or `None`.
    pub session_affinity: Option<String>,
    /// How long a client sticks to an endpoint.
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// `Cluster` or `Local`.
    pub internal_traffic_policy: Option<String>,
    /// `Cluster` or `Local`.
    pub external_traffic_policy: Option<String>,
    /// Addresses that somebody else routes to the nodes.
    #[serde(rename = "externalIPs", deserialize_with = "or_default")]
    pub external_ips: Vec<String>,
    /// Who may use the addresses of load balancers.
    #[serde(deserialize_with = "or_default")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Where load balancers ask a node for local endpoints.
    pub health_check_node_port: Option<i64>,
}

/// What became of a Service.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// What its load balancer reports.
    #[serde(deserialize_with = "or_default")]
    pub load_balancer: LoadBalancerStatus,
}

/// What a load balancer reports.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// Where it takes connections.
    #[serde(deserialize_with = "or_default")]
    pub ingress: Vec<Ingress>,
}

/// Where a load balancer takes connections.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ingress {
    /// Its address; empty if it has a hostname alone.
    #[serde(deserialize_with = "or_default")]
    pub ip: String,
    /// `VIP` or `Proxy`; absence means `VIP`.
    pub ip_mode: Option<String>,
}

/// One port of a Service.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// The port on the service address.
    pub port: Option<i64>,
    /// The port on the addresses of every node.
    pub node_port: Option<i64>,
}

/// Settings of session affinity.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SessionAffinityConfig {
    /// Settings of affinity by client address.
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpConfig>,
}

/// Settings of affinity by client address.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpConfig {
    /// How long a client sticks.
    pub timeout_seconds: Option<i64>,
}

/// `discovery.k8s.io/v1` EndpointSlice.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// Its metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(deserialize_with = "or_default")]
    pub address_type: String,
    /// Ports of all its endpoints.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<EndpointPort>,
    /// Endpoints.
    #[serde(deserialize_with = "or_default")]
    pub endpoints: Vec<Endpoint>,
}

/// A port of a slice or of a subset.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// The name of the service port that it serves.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// The port number.
    pub port: Option<i64>,
    /// Why it does not read, in place of all the above.
    #[serde(skip)]
    pub fault: Option<String>,
}

/// One endpoint of a slice.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Interchangeable addresses; the first one counts.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Its conditions.
    #[serde(deserialize_with = "or_default")]
    pub conditions: Conditions,
    /// The node that it runs on.
    pub node_name: Option<String>,
    /// Whom it should serve.
    #[serde(deserialize_with = "or_default")]
    pub hints: Hints,
    /// Why it does not read, in place of all the above.
    #[serde(skip)]
    pub fault: Option<String>,
}

/// Conditions of an endpoint; absent ones have defaults of their own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Takes new connections.
    pub ready: Option<bool>,
    /// Answers.
    pub serving: Option<bool>,
    /// Its pod is being deleted.
    pub terminating: Option<bool>,
}

/// Whom an endpoint should serve.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hints {
    /// Zones.
    #[serde(deserialize_with = "or_default")]
    pub for_zones: Vec<HintName>,
    /// Nodes.
    #[serde(deserialize_with = "or_default")]
    pub for_nodes: Vec<HintName>,
}

/// The zone or node of a hint.
#[derive(Debug, Deserialize)]
pub struct HintName {
    /// Its name.
    pub name: String,
}

/// `v1` Endpoints.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Endpoints {
    /// Its metadata; the name is that of the Service.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// Addresses grouped by the ports that they serve.
    #[serde(deserialize_with = "or_default")]
    pub subsets: Vec<Subset>,
}

/// Addresses that serve the same ports.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// Addresses that take connections.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<EndpointAddress>,
    /// Addresses that do not.
    #[serde(deserialize_with = "or_default")]
    pub not_ready_addresses: Vec<EndpointAddress>,
    /// Ports.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<EndpointPort>,
}

/// One address of a subset.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointAddress {
    /// The address.
    #[serde(deserialize_with = "or_default")]
    pub ip: String,
    /// The node that it is on.
    pub node_name: Option<String>,
    /// Why it does not read, in place of all the above.
    #[serde(skip)]
    pub fault: Option<String>,
}

/// `v1` Node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// What it is set to.
    #[serde(deserialize_with = "or_default")]
    pub spec: NodeSpec,
    /// What it reports.
    #[serde(deserialize_with = "or_default")]
    pub status: NodeStatus,
}

/// What a Node is set to.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// The first range of its pods.
    #[serde(rename = "podCIDR", deserialize_with = "or_default")]
    pub pod_cidr: String,
    /// The ranges of its pods.
    #[serde(rename = "podCIDRs", deserialize_with = "or_default")]
    pub pod_cidrs: Vec<String>,
    /// Taints.
    #[serde(deserialize_with = "or_default")]
    pub taints: Vec<Taint>,
}

/// One taint of a Node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Taint {
    /// Its key.
    #[serde(deserialize_with = "or_default")]
    pub key: String,
}

/// What a Node reports.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Its addresses of all types.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<NodeAddress>,
}

/// One address of a Node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname` and others.
    #[serde(deserialize_with = "or_default")]
    pub r#type: String,
    /// The address.
    #[serde(deserialize_with = "or_default")]
    pub address: String,
}

/// `networking.k8s.io/v1` ServiceCIDR.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceCidr {
    /// Its metadata.
    #[serde(deserialize_with = "or_default")]
    pub metadata: Metadata,
    /// What is asked for.
    #[serde(deserialize_with = "or_default")]
    pub spec: ServiceCidrSpec,
}

/// Ranges that service addresses are allocated from.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceCidrSpec {
    /// The ranges.
    #[serde(deserialize_with = "or_default")]
    pub cidrs: Vec<String>,
}

/// Null is what some writers leave where there is nothing.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
