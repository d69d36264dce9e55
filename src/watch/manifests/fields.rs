//! Fields of the objects of a folder, and what is said of a field that no API has.
//!
//! An API server drops such a field, and kubectl warns of it; a folder has nobody who does.
//! Invariant: a field that any version of the API has is known here, whether it is read or not.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::Value;

use crate::cluster::Kind;
use crate::counted;
use crate::spelling::{distance, nearest};

/// Fields of metadata (`k8s.io/apimachinery`, `meta/v1`); labels and annotations hold any name.
const METADATA: [&str; 16] = [
    "metadata.annotations",
    "metadata.clusterName",
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

/// Fields of a Service (`core/v1`); a list is written with the items in it.
const SERVICE: [&str; 34] = [
    "spec.allocateLoadBalancerNodePorts",
    "spec.clusterIP",
    "spec.clusterIPs",
    "spec.externalIPs",
    "spec.externalName",
    "spec.externalTrafficPolicy",
    "spec.healthCheckNodePort",
    "spec.internalTrafficPolicy",
    "spec.ipFamilies",
    "spec.ipFamily",
    "spec.ipFamilyPolicy",
    "spec.loadBalancerClass",
    "spec.loadBalancerIP",
    "spec.loadBalancerSourceRanges",
    "spec.ports[].appProtocol",
    "spec.ports[].name",
    "spec.ports[].nodePort",
    "spec.ports[].port",
    "spec.ports[].protocol",
    "spec.ports[].targetPort",
    "spec.publishNotReadyAddresses",
    "spec.selector",
    "spec.sessionAffinity",
    "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
    "spec.topologyKeys",
    "spec.trafficDistribution",
    "spec.type",
    "status.conditions",
    "status.loadBalancer.ingress[].hostname",
    "status.loadBalancer.ingress[].ip",
    "status.loadBalancer.ingress[].ipMode",
    "status.loadBalancer.ingress[].ports[].error",
    "status.loadBalancer.ingress[].ports[].port",
    "status.loadBalancer.ingress[].ports[].protocol",
];

/// Fields of an EndpointSlice (`discovery.k8s.io/v1`).
const ENDPOINT_SLICE: [&str; 16] = [
    "addressType",
    "endpoints[].addresses",
    "endpoints[].conditions.ready",
    "endpoints[].conditions.serving",
    "endpoints[].conditions.terminating",
    "endpoints[].deprecatedTopology",
    "endpoints[].hints.forNodes[].name",
    "endpoints[].hints.forZones[].name",
    "endpoints[].hostname",
    "endpoints[].nodeName",
    "endpoints[].targetRef",
    "endpoints[].zone",
    "ports[].appProtocol",
    "ports[].name",
    "ports[].port",
    "ports[].protocol",
];

/// Fields of Endpoints (`core/v1`).
const ENDPOINTS: [&str; 12] = [
    "subsets[].addresses[].hostname",
    "subsets[].addresses[].ip",
    "subsets[].addresses[].nodeName",
    "subsets[].addresses[].targetRef",
    "subsets[].notReadyAddresses[].hostname",
    "subsets[].notReadyAddresses[].ip",
    "subsets[].notReadyAddresses[].nodeName",
    "subsets[].notReadyAddresses[].targetRef",
    "subsets[].ports[].appProtocol",
    "subsets[].ports[].name",
    "subsets[].ports[].port",
    "subsets[].ports[].protocol",
];

/// Fields of a Node (`core/v1`), but for what is below those that mean nothing here.
const NODE: [&str; 26] = [
    "spec.configSource",
    "spec.externalID",
    "spec.podCIDR",
    "spec.podCIDRs",
    "spec.podPreemptionPolicy",
    "spec.providerID",
    "spec.taints[].effect",
    "spec.taints[].key",
    "spec.taints[].timeAdded",
    "spec.taints[].value",
    "spec.unschedulable",
    "status.addresses[].address",
    "status.addresses[].type",
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

/// Fields of an object of a kind that no API has, each once, with what was probably meant.
pub fn unknown(kind: Kind, object: &Value) -> Vec<String> {
    let fields: &[&str] = match kind {
        Kind::Service => &SERVICE,
        Kind::EndpointSlice => &ENDPOINT_SLICE,
        Kind::Endpoints => &ENDPOINTS,
        Kind::Node => &NODE,
        Kind::ServiceCidr => &SERVICE_CIDR,
    };
    let known = [&["apiVersion", "kind"], &METADATA[..], fields].concat();
    let mut found = BTreeMap::new();
    collect(&Place { path: String::new(), shown: String::new() }, object, &known, &mut found);
    found.into_values().map(Unknown::in_words).collect()
}

/// Fields that no API has, by their paths in the tables.
type Found = BTreeMap<String, Unknown>;

/// Where such a field is; whoever wrote a list may have given it to each of a thousand items.
struct Unknown {
    /// The first place.
    shown: String,
    /// What to do there.
    remedy: Option<String>,
    /// In how many other items of lists it is.
    more: usize,
}

impl Unknown {
    fn in_words(self) -> String {
        let places = counted::elsewhere(self.more, "place");
        let remedy = self.remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
        format!("{}: no such field{places}{remedy}", self.shown)
    }
}

/// Where a value is: as the tables have it, and with the places in lists.
struct Place {
    path: String,
    shown: String,
}

impl Place {
    fn field(&self, name: &str) -> Place {
        let join = |above: &str| match above {
            "" => name.to_owned(),
            _ => format!("{above}.{name}"),
        };
        Place { path: join(&self.path), shown: join(&self.shown) }
    }

    fn item(&self, index: usize) -> Place {
        Place { path: format!("{}[]", self.path), shown: format!("{}[{index}]", self.shown) }
    }

    /// What of the path of a field is below this place.
    fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.path.as_str() {
            "" => Some(path),
            above => path.strip_prefix(above)?.strip_prefix('.'),
        }
    }

    /// Whether a path is on the way to this place.
    fn is_below(&self, path: &str) -> bool {
        let rest = self.path.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }
}

/// Finds fields that are not known.
fn collect(place: &Place, value: &Value, known: &[&str], found: &mut Found) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(&place.item(index), item, known, found);
            }
        }
        Value::Object(fields) => {
            let names = names_below(place, known);
            for (name, value) in fields.iter().filter(|_| !names.is_empty()) {
                let field = place.field(name);
                if names.contains(&name.as_str()) {
                    collect(&field, value, known, found);
                    continue;
                }
                match found.entry(field.path) {
                    Entry::Occupied(mut first) => first.get_mut().more += 1,
                    Entry::Vacant(first) => {
                        let meant = meant(place, name, known);
                        let meant = meant.map(|meant| format!("did you mean {meant}?"));
                        let remedy = meant.or_else(|| wrapped(place, value, &names));
                        first.insert(Unknown { shown: field.shown, remedy, more: 0 });
                    }
                }
            }
        }
        _ => {}
    }
}

/// What to do with a field that only wraps fields of the place that it is at.
fn wrapped(place: &Place, value: &Value, names: &[&str]) -> Option<String> {
    let fields = value.as_object().filter(|fields| !fields.is_empty())?;
    let are_of_place = fields.keys().all(|name| names.contains(&name.as_str()));
    let level = match place.shown.as_str() {
        "" => "at the top level",
        above => &format!("in {above}"),
    };
    are_of_place.then(|| format!("what is in it belongs {level}"))
}

/// What was probably meant by a name at a place: a field of the same place, unless that is merely
/// near and another place has the very name; else the nearest of any, of those that are as near the
/// one that is least deep.
fn meant(place: &Place, name: &str, known: &[&str]) -> Option<String> {
    // The field that a value is in is not what is missing in it.
    let paths = known.iter().flat_map(|path| ways(path)).filter(|path| !place.is_below(path));
    let depth = |path: &str| path.matches('.').count();
    let path = paths.min_by_key(|path| (distance(name, last(path)), depth(path)))?;
    // Who writes a field one level off does not leave out levels of another branch.
    let is_at_hand = place.below(path).is_some() || depth(path) <= depth(&place.field(name).path);
    let is_there = name == last(path) && is_at_hand;
    if let Some(near) = nearest(name, &names_below(place, known))
        && (!is_there || distance(name, near) == 0)
    {
        return Some(near.to_owned());
    }
    nearest(name, &[last(path)])?;
    Some(match place.below(path) {
        _ if !path.contains('.') => format!("{path} at the top level"),
        Some(rest) if !place.path.is_empty() => format!("{}.{rest}", place.shown),
        _ => path.to_owned(),
    })
}

/// A path, and those of the fields that it leads through; the top one first.
fn ways(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
    ends.map(|end| path[..end].trim_end_matches("[]"))
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Names of the fields right below a place; none of what holds any.
fn names_below<'a>(place: &Place, known: &[&'a str]) -> Vec<&'a str> {
    let name = |rest: &'a str| rest.split('.').next().unwrap_or(rest).trim_end_matches("[]");
    known.iter().filter_map(|path| place.below(path)).map(name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_at_the_wrong_level_is_told_where_it_belongs() {
        for (kind, object, told) in [
            (
                Kind::Service,
                json!({"metadata": {"externalTrafficPolicy": "Local"}}),
                "metadata.externalTrafficPolicy: no such field; did you mean \
                 spec.externalTrafficPolicy?",
            ),
            (Kind::Service, json!({"ports": []}), "ports: no such field; did you mean spec.ports?"),
            (
                Kind::Service,
                json!({"spec": {"ports": [{"port": 80, "selector": {}}]}}),
                "spec.ports[0].selector: no such field; did you mean spec.selector?",
            ),
            (
                Kind::Service,
                json!({"spec": {"nodePort": 30080}}),
                "spec.nodePort: no such field; did you mean spec.ports[].nodePort?",
            ),
            (
                Kind::Service,
                json!({"spec": {"ports": [{"port": 80}, {"ports": 81}]}}),
                "spec.ports[1].ports: no such field; did you mean port?",
            ),
            (
                Kind::Service,
                json!({"spec": {"namespase": "a"}}),
                "spec.namespase: no such field; did you mean metadata.namespace?",
            ),
            (
                Kind::EndpointSlice,
                json!({"endpoints": [], "conditions": {"ready": true}}),
                "conditions: no such field; did you mean endpoints[].conditions?",
            ),
            (
                Kind::EndpointSlice,
                json!({"endpoints": [{}, {"ready": true}]}),
                "endpoints[1].ready: no such field; did you mean endpoints[1].conditions.ready?",
            ),
            (
                Kind::EndpointSlice,
                json!({"metadata": {"addressType": "IPv4"}}),
                "metadata.addressType: no such field; did you mean addressType at the top level?",
            ),
            (
                Kind::Endpoints,
                json!({"subsets": [{"ip": "10.0.0.1"}]}),
                "subsets[0].ip: no such field; did you mean subsets[0].addresses[].ip?",
            ),
            (
                Kind::Node,
                json!({"addresses": []}),
                "addresses: no such field; did you mean status.addresses?",
            ),
            (
                Kind::ServiceCidr,
                json!({"cidrs": []}),
                "cidrs: no such field; did you mean spec.cidrs?",
            ),
            (Kind::Service, json!({"spec": {"colour": 1}}), "spec.colour: no such field"),
            (Kind::Service, json!({"spec": {"spec": {}}}), "spec.spec: no such field"),
        ] {
            assert_eq!(unknown(kind, &object), [told]);
        }
    }

    #[test]
    fn the_very_name_elsewhere_is_nearer_than_a_similar_one() {
        for (name, meant) in [
            ("loadBalancer", "status.loadBalancer"),
            ("port", "spec.ports[].port"),
            ("Type", "type"),
        ] {
            let told = format!("spec.{name}: no such field; did you mean {meant}?");
            assert_eq!(unknown(Kind::Service, &json!({"spec": {name: 1}})), [told]);
        }
    }

    #[test]
    fn what_wraps_fields_of_its_place_is_told_where_they_belong() {
        for (kind, object, told) in [
            (
                Kind::EndpointSlice,
                json!({"spec": {"addressType": "IPv4", "endpoints": [], "ports": []}}),
                "spec: no such field; what is in it belongs at the top level",
            ),
            (
                Kind::Service,
                json!({"spec": {"spec": {"clusterIP": "10.96.0.1"}}}),
                "spec.spec: no such field; what is in it belongs in spec",
            ),
            (
                Kind::EndpointSlice,
                json!({"spec": {"ports": [], "replicas": 1}}),
                "spec: no such field",
            ),
        ] {
            assert_eq!(unknown(kind, &object), [told]);
        }
    }

    #[test]
    fn a_field_of_each_item_of_a_list_is_told_once() {
        let topology = json!({"kubernetes.io/hostname": "n"});
        let beta = json!({"addresses": ["10.0.0.1"], "topology": topology, "nodname": "n"});
        let mut endpoints = vec![json!({"addresses": ["10.0.0.1"]})];
        endpoints.extend(vec![beta; 1_000]);
        endpoints.push(json!({"conditions": {"topology": {}}}));
        assert_eq!(
            unknown(Kind::EndpointSlice, &json!({"endpoints": endpoints})),
            [
                "endpoints[1001].conditions.topology: no such field",
                "endpoints[1].nodname: no such field, here and in 999 more places; did you mean \
                 nodeName?",
                "endpoints[1].topology: no such field, here and in 999 more places",
            ]
        );
    }

    #[test]
    fn fields_that_only_some_versions_have_are_fields() {
        let ports = json!([{"port": 80, "protocol": "TCP", "error": "x"}]);
        let object = json!({"metadata": {"clusterName": ""}, "spec": {"ipFamily": "IPv4"},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ports": ports}]}}});
        assert_eq!(unknown(Kind::Service, &object), [""; 0]);
        let misplaced = json!({"status": {"loadBalancer": {"ingress": [{"error": "x"}]}}});
        assert_eq!(
            unknown(Kind::Service, &misplaced),
            ["status.loadBalancer.ingress[0].error: no such field; did you mean \
              status.loadBalancer.ingress[0].ports[].error?"]
        );
    }

    #[test]
    fn what_does_not_look_as_it_should_has_no_fields() {
        let odd = json!({"spec": {"ports": {"port": 80}}, "metadata": [{"name": "a"}]});
        assert_eq!(unknown(Kind::Service, &odd), [""; 0], "its type is told elsewhere");
    }
}
