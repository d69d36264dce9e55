//! Fields of the objects of a folder, and what is said of a field that no API has.
//!
//! An API server drops such a field, and kubectl warns of it; a folder has nobody who does.
//! Invariant: a field that any version of the API has is known here, whether it is read or not.

use serde_json::Value;

use crate::cluster::Kind;
use crate::spelling::nearest;

/// Fields of metadata (`k8s.io/apimachinery`, `meta/v1`); labels and annotations hold any name.
const METADATA: [&str; 15] = [
    "metadata.annotations",
    "metadata.creationTimestamp",
    "metadata.deletionGracePeriodSeconds",
    "metadata.deletionTimestamp",
    "metadata.finalizers",
    "metadata.generateName",
    "metadata.generation",
    "metadata.labels",
    "metadata.managedFields",
    "metadata.name",
    "metadata.namespace",
    "metadata.ownerReferences",
    "metadata.resourceVersion",
    "metadata.selfLink",
    "metadata.uid",
];

/// Fields of a Service (`core/v1`); lists are written as their items.
const SERVICE: [&str; 32] = [
    "spec.allocateLoadBalancerNodePorts",
    "spec.clusterIP",
    "spec.clusterIPs",
    "spec.externalIPs",
    "spec.externalName",
    "spec.externalTrafficPolicy",
    "spec.healthCheckNodePort",
    "spec.internalTrafficPolicy",
    "spec.ipFamilies",
    "spec.ipFamilyPolicy",
    "spec.loadBalancerClass",
    "spec.loadBalancerIP",
    "spec.loadBalancerSourceRanges",
    "spec.ports.appProtocol",
    "spec.ports.name",
    "spec.ports.nodePort",
    "spec.ports.port",
    "spec.ports.protocol",
    "spec.ports.targetPort",
    "spec.publishNotReadyAddresses",
    "spec.selector",
    "spec.sessionAffinity",
    "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
    "spec.topologyKeys",
    "spec.trafficDistribution",
    "spec.type",
    "status.conditions",
    "status.loadBalancer.ingress.hostname",
    "status.loadBalancer.ingress.ip",
    "status.loadBalancer.ingress.ipMode",
    "status.loadBalancer.ingress.ports",
    "status.loadBalancer.ingress.error",
];

/// Fields of an EndpointSlice (`discovery.k8s.io/v1`).
const ENDPOINT_SLICE: [&str; 16] = [
    "addressType",
    "endpoints.addresses",
    "endpoints.conditions.ready",
    "endpoints.conditions.serving",
    "endpoints.conditions.terminating",
    "endpoints.deprecatedTopology",
    "endpoints.hints.forNodes.name",
    "endpoints.hints.forZones.name",
    "endpoints.hostname",
    "endpoints.nodeName",
    "endpoints.targetRef",
    "endpoints.zone",
    "ports.appProtocol",
    "ports.name",
    "ports.port",
    "ports.protocol",
];

/// Fields of Endpoints (`core/v1`).
const ENDPOINTS: [&str; 12] = [
    "subsets.addresses.hostname",
    "subsets.addresses.ip",
    "subsets.addresses.nodeName",
    "subsets.addresses.targetRef",
    "subsets.notReadyAddresses.hostname",
    "subsets.notReadyAddresses.ip",
    "subsets.notReadyAddresses.nodeName",
    "subsets.notReadyAddresses.targetRef",
    "subsets.ports.appProtocol",
    "subsets.ports.name",
    "subsets.ports.port",
    "subsets.ports.protocol",
];

/// Fields of a Node (`core/v1`), but for what is below those that mean nothing here.
const NODE: [&str; 26] = [
    "spec.configSource",
    "spec.externalID",
    "spec.podCIDR",
    "spec.podCIDRs",
    "spec.podPreemptionPolicy",
    "spec.providerID",
    "spec.taints.effect",
    "spec.taints.key",
    "spec.taints.timeAdded",
    "spec.taints.value",
    "spec.unschedulable",
    "status.addresses.address",
    "status.addresses.type",
    "status.allocatable",
    "status.capacity",
    "status.conditions",
    "status.config",
    "status.daemonEndpoints",
    "status.declaredFeatures",
    "status.features",
    "status.images",
    "status.nodeInfo",
    "status.phase",
    "status.runtimeHandlers",
    "status.volumesAttached",
    "status.volumesInUse",
];

/// Fields of a ServiceCIDR (`networking.k8s.io/v1`).
const SERVICE_CIDR: [&str; 2] = ["spec.cidrs", "status.conditions"];

/// Fields of an object of a kind that no API has, each with what was probably meant.
pub fn unknown(kind: Kind, object: &Value) -> Vec<String> {
    let fields: &[&str] = match kind {
        Kind::Service => &SERVICE,
        Kind::EndpointSlice => &ENDPOINT_SLICE,
        Kind::Endpoints => &ENDPOINTS,
        Kind::Node => &NODE,
        Kind::ServiceCidr => &SERVICE_CIDR,
    };
    let known = [fields, &METADATA, &["apiVersion", "kind"]].concat();
    let mut found = Vec::new();
    collect("", "", object, &known, &mut found);
    found
}

/// Finds fields that are not known; `shown` is the path of the value with the places in lists.
fn collect(path: &str, shown: &str, value: &Value, known: &[&str], found: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(path, &format!("{shown}[{index}]"), item, known, found);
            }
        }
        Value::Object(fields) => {
            let names = names_below(path, known);
            for (name, value) in fields.iter().filter(|_| !names.is_empty()) {
                let (path, shown) = (join(path, name), join(shown, name));
                match names.contains(&name.as_str()) {
                    true => collect(&path, &shown, value, known, found),
                    false => found.push(no_such_field(&shown, name, &names)),
                }
            }
        }
        _ => {}
    }
}

fn no_such_field(shown: &str, name: &str, names: &[&str]) -> String {
    match nearest(name, names) {
        Some(nearest) => format!("{shown}: no such field; did you mean {nearest}?"),
        None => format!("{shown}: no such field"),
    }
}

/// Names of the fields right below a path; none of what holds any.
fn names_below<'a>(path: &str, known: &[&'a str]) -> Vec<&'a str> {
    let below = |field: &&'a str| match path {
        "" => Some(*field),
        _ => field.strip_prefix(path)?.strip_prefix('.'),
    };
    let name = |rest: &'a str| rest.split('.').next().unwrap_or(rest);
    known.iter().filter_map(below).map(name).collect()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
