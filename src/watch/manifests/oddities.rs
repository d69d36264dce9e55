//! What is odd about a manifest, although nothing is wrong with it: fields that no API has, names
//! and values without effect, and what the object lacks to have any.
//!
//! An API server would refuse some of these, and it or a controller would set others; a folder has
//! nobody who does.
//! Invariant: nothing here keeps an object from being programmed.

use std::net::IpAddr;

use serde_json::Value;

use super::{fields, labels, ports, slices, spec, values};
use crate::cluster::field::{cidr, unknown_name};
use crate::cluster::{Kind, Parsed};

/// Types of the addresses of a Node (`core/v1`); the first two are those that count.
const ADDRESS_TYPES: [&str; 5] =
    ["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"];

/// What is odd about an object of a kind, each with its field; some of it depends on what is served.
pub fn of(kind: Kind, object: &Value, parsed: &Parsed) -> Vec<String> {
    let mut oddities = fields::unknown(kind, object);
    oddities.extend(labels::unknown(kind, object));
    if labels::other_proxy(kind, object).is_some() {
        // What it lacks is for others to say.
        return oddities;
    }
    oddities.extend(ports::ambiguous(kind, object));
    match kind {
        Kind::Service => {
            oddities.extend(values::without_effect(object, spec::served(parsed)));
            oddities.extend(lack_of_service(object));
        }
        Kind::EndpointSlice => oddities.extend(slices::lacks(object, parsed)),
        Kind::Node => oddities.extend(unknown_address_types(object)),
        Kind::ServiceCidr => {
            oddities.extend(lack_of_ranges(object));
            oddities.extend(host_bits(object));
        }
        Kind::Endpoints => {}
    }
    oddities
}

/// What a Service lacks to be served.
fn lack_of_service(object: &Value) -> Vec<String> {
    let is_empty = |value: &Value| match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        value => value.is_null(),
    };
    let has = |name| spec::field(object, name).is_some_and(|value| !is_empty(value));
    if spec::is_reached_by_name(object) {
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

/// What a ServiceCIDR lacks to tell of any range.
fn lack_of_ranges(object: &Value) -> Option<String> {
    let ranges = object.pointer("/spec/cidrs").and_then(Value::as_array);
    ranges.is_none_or(Vec::is_empty).then(|| {
        "spec.cidrs: none, so no address is refused because of it; write a range such as \
         10.96.0.0/12"
            .to_owned()
    })
}

/// Ranges that are written as an address in them.
fn host_bits(object: &Value) -> impl Iterator<Item = String> {
    let ranges = object.pointer("/spec/cidrs").and_then(Value::as_array).into_iter().flatten();
    ranges.enumerate().filter_map(|(index, text)| {
        let (field, text) = (format!("spec.cidrs[{index}]"), text.as_str()?.trim());
        let range = cidr(&field, text).ok()?;
        let address: IpAddr = text.split_once('/')?.0.parse().ok()?;
        (address.to_canonical() != range.addr()).then(|| {
            format!(
                "{field}: {text} is an address in a range, which no API server takes; the range \
                 {range} is used"
            )
        })
    })
}

/// Addresses of a Node by types that are none, and so do not count.
fn unknown_address_types(object: &Value) -> impl Iterator<Item = String> {
    let addresses = object.pointer("/status/addresses").and_then(Value::as_array);
    addresses.into_iter().flatten().enumerate().filter_map(|(index, address)| {
        let field = format!("status.addresses[{index}].type");
        match address.get("type").and_then(Value::as_str).unwrap_or_default() {
            "" => Some(format!("{field}: missing, so the address is not used; write InternalIP")),
            given if ADDRESS_TYPES.contains(&given) => None,
            given => Some(unknown_name(field, given, &ADDRESS_TYPES, "the address is not used")),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::objects;

    fn of(kind: Kind, object: &Value) -> Vec<String> {
        let read = objects::read(kind, &object.to_string());
        super::of(kind, object, &read.map(|read| read.parsed).unwrap_or_default())
    }

    #[test]
    fn fields_that_no_api_has_are_named_with_what_was_meant() {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "a", "label": {}, "labels": {"anything": "x"}},
            "spec": {
                "clusterIP": "10.96.0.1",
                "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodeport": 30000}],
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
            "ports": [{"port": 80}],
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
    fn nodes_and_ranges_are_read_as_strictly() {
        let node = json!({
            "metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"podCIDRS": ["10.244.1.0/24"], "taints": [{"keys": "x"}]},
            "status": {
                "adresses": [], "conditions": [{"anything": 1}], "nodeInfo": {"anything": 1},
                "addresses": [{"type": "InternalIp", "address": "192.0.2.1"},
                    {"type": "Hostname", "address": "n"}, {"address": "192.0.2.2"}],
            },
        });
        assert_eq!(
            of(Kind::Node, &node),
            [
                "spec.podCIDRS: no such field; did you mean podCIDRs?",
                "spec.taints[0].keys: no such field; did you mean key?",
                "status.adresses: no such field; did you mean addresses?",
                "status.addresses[0].type: \"InternalIp\" is not one of InternalIP, ExternalIP, \
                 Hostname, InternalDNS, ExternalDNS; the address is not used; did you mean \
                 InternalIP?",
                "status.addresses[2].type: missing, so the address is not used; write InternalIP",
            ]
        );
        let ranges = json!({"metadata": {"nam": "k"}, "spec": {"cidr": ["10.96.0.0/12"]}});
        assert_eq!(
            of(Kind::ServiceCidr, &ranges),
            [
                "metadata.nam: no such field; did you mean name?",
                "spec.cidr: no such field; did you mean cidrs?",
                "spec.cidrs: none, so no address is refused because of it; write a range such as \
                 10.96.0.0/12",
            ]
        );
        let good = json!({"spec": {"cidrs": ["10.96.0.0/12"]}, "status": {"conditions": []}});
        assert_eq!(of(Kind::ServiceCidr, &good), [""; 0]);
    }

    #[test]
    fn a_range_that_is_written_as_an_address_is_told() {
        let of_ranges = |ranges: Value| of(Kind::ServiceCidr, &json!({"spec": {"cidrs": ranges}}));
        let good =
            json!(["10.96.0.0/12", "fd00:10::/108", "010.96.0.0/12", "nonsense", "0.0.0.0/0"]);
        assert_eq!(of_ranges(good), [""; 0], "what is none is rejected");
        assert_eq!(
            of_ranges(json!(["10.96.0.1/12", "fd00::10/108"])),
            [
                "spec.cidrs[0]: 10.96.0.1/12 is an address in a range, which no API server takes; \
                 the range 10.96.0.0/12 is used",
                "spec.cidrs[1]: fd00::10/108 is an address in a range, which no API server takes; \
                 the range fd00::/108 is used",
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
