//! What is odd about a manifest, although nothing is wrong with it: fields that no API has, and
//! what the object lacks to have any effect.
//!
//! An API server would refuse the first, or set the second; a folder has nobody who does.
//! Invariant: nothing here keeps an object from being programmed.

use serde_json::{Map, Value};

use super::values;
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

/// What is odd about an object of a kind, each with its field.
pub fn of(kind: Kind, object: &Value) -> Vec<String> {
    let fields: &[&str] = match kind {
        Kind::Service => &SERVICE,
        Kind::EndpointSlice => &ENDPOINT_SLICE,
        Kind::Endpoints => &ENDPOINTS,
        // Much of them is of no interest here.
        Kind::Node | Kind::ServiceCidr => return Vec::new(),
    };
    let known = [fields, &METADATA, &["apiVersion", "kind"]].concat();
    let mut oddities = Vec::new();
    unknown("", "", object, &known, &mut oddities);
    match kind {
        Kind::Service => {
            oddities.extend(values::without_effect(object));
            oddities.extend(lack_of_service(object));
        }
        Kind::EndpointSlice => oddities.extend(lack_of_slice(object)),
        _ => {}
    }
    oddities
}

/// Finds fields that are not known; `shown` is the path of the value with the places in lists.
fn unknown(path: &str, shown: &str, value: &Value, known: &[&str], found: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                unknown(path, &format!("{shown}[{index}]"), item, known, found);
            }
        }
        Value::Object(fields) => {
            let names = names_below(path, known);
            for (name, value) in fields.iter().filter(|_| !names.is_empty()) {
                let (path, shown) = (join(path, name), join(shown, name));
                match names.contains(&name.as_str()) {
                    true => unknown(&path, &shown, value, known, found),
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

/// What a Service lacks to be served.
fn lack_of_service(object: &Value) -> Vec<String> {
    let spec = object.get("spec").and_then(Value::as_object);
    let field = |name| spec.and_then(|spec: &Map<String, Value>| spec.get(name));
    let is_empty = |value: &Value| match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        value => value.is_null(),
    };
    let has = |name| field(name).is_some_and(|value| !is_empty(value));
    let is_elsewhere = field("type").and_then(Value::as_str) == Some("ExternalName");
    let is_headless = field("clusterIP").and_then(Value::as_str) == Some("None");
    if is_elsewhere || is_headless {
        return Vec::new();
    }
    let mut lacks = Vec::new();
    if !has("clusterIP") && !has("clusterIPs") {
        let reason = "missing, so the Service is not served: no API server allocates one";
        lacks.push(format!("spec.clusterIP: {reason}"));
    }
    if !has("ports") {
        lacks.push("spec.ports: none, so the Service is not served".to_owned());
    }
    lacks
}

/// What a slice lacks to be of a Service.
fn lack_of_slice(object: &Value) -> Option<String> {
    let labels = object.pointer("/metadata/labels");
    let label = |name| labels.and_then(|labels| labels.get(name)).and_then(Value::as_str);
    let is_of_service = label("kubernetes.io/service-name").is_some_and(|name| !name.is_empty());
    let is_headless = label("service.kubernetes.io/headless").is_some();
    (!is_of_service && !is_headless).then(|| {
        "metadata.labels: kubernetes.io/service-name is missing, so it is of no Service".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_no_api_has_are_named_with_what_was_meant() {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "a", "label": {}, "labels": {"anything": "x"}},
            "spec": {
                "clusterIP": "10.96.0.1",
                "ports": [{"port": 80}, {"port": 81, "nodeport": 30000}],
                "selector": {"app": "x"},
                "externalTraficPolicy": "Local",
                "colour": "blue",
            },
        });
        assert_eq!(
            of(Kind::Service, &service),
            [
                "metadata.label: no such field; did you mean labels?",
                "spec.colour: no such field",
                "spec.externalTraficPolicy: no such field; did you mean externalTrafficPolicy?",
                "spec.ports[1].nodeport: no such field; did you mean nodePort?",
            ]
        );
        let slice = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "a"}},
            "endpoints": [{"adresses": ["10.0.0.1"], "conditions": {"redy": true}}],
        });
        assert_eq!(
            of(Kind::EndpointSlice, &slice),
            [
                "endpoints[0].adresses: no such field; did you mean addresses?",
                "endpoints[0].conditions.redy: no such field; did you mean ready?",
            ]
        );
    }

    #[test]
    fn what_an_object_lacks_is_named() {
        let lacking = of(Kind::Service, &json!({"spec": {"clusterIP": ""}}));
        assert!(lacking[0].starts_with("spec.clusterIP: missing"), "{lacking:?}");
        assert!(lacking[1].starts_with("spec.ports: none"), "{lacking:?}");
        for spec in [json!({"clusterIP": "None"}), json!({"type": "ExternalName"})] {
            assert_eq!(of(Kind::Service, &json!({ "spec": spec })), [""; 0]);
        }
        let slice = of(Kind::EndpointSlice, &json!({"metadata": {"name": "a"}}));
        assert!(slice[0].contains("kubernetes.io/service-name is missing"), "{slice:?}");
    }
}
