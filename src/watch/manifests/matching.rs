//! Whether the objects of a folder match each other: slices their Services, ports their names, and
//! the Nodes this one.
//!
//! A cluster has controllers that see to that; a folder has nobody.
//! Invariant: nothing here keeps an object from being programmed.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{EndpointPort, EndpointSlice, Kind, Object, ObjectName, Parsed, Service};

/// The objects that count, by kind and name.
pub type Objects<'a> = BTreeMap<Kind, BTreeMap<&'a ObjectName, &'a Parsed>>;

/// What does not match: the kind and name of the object, and what is odd about it.
pub fn mismatches(objects: &Objects<'_>, node_name: &str) -> Vec<(Kind, ObjectName, String)> {
    let mut found = Vec::new();
    for (kind, name, slice) in slices(objects) {
        let mismatch = match service_of(objects, slice) {
            Found::Missing => Some(format!("there is no Service {}", slice.service)),
            Found::NotServed => None,
            Found::Served(service) => unmatched_ports(slice, service),
        };
        found.extend(mismatch.map(|mismatch| (kind, name.clone(), mismatch)));
    }
    let missing = ports_without_slice(objects);
    found.extend(missing.into_iter().map(|(name, odd)| (Kind::Service, name, odd)));
    found.extend(missing_node(objects, node_name));
    found.dedup();
    found
}

enum Found<'a> {
    Missing,
    /// It is there, and nothing to the data plane: headless, say, or rejected.
    NotServed,
    Served(&'a Service),
}

fn service_of<'a>(objects: &Objects<'a>, slice: &EndpointSlice) -> Found<'a> {
    let found = objects.get(&Kind::Service).and_then(|services| services.get(&slice.service));
    match found.map(|parsed| &parsed.object) {
        None => Found::Missing,
        Some(Some(Object::Service(service))) => Found::Served(service),
        Some(_) => Found::NotServed,
    }
}

fn slices<'a>(
    objects: &Objects<'a>,
) -> impl Iterator<Item = (Kind, &'a ObjectName, &'a EndpointSlice)> {
    let all = objects
        .iter()
        .flat_map(|(kind, of_kind)| of_kind.iter().map(|(name, parsed)| (*kind, *name, *parsed)));
    all.flat_map(|(kind, name, parsed)| {
        let slices: &[EndpointSlice] = match &parsed.object {
            Some(Object::EndpointSlice(slice)) => std::slice::from_ref(slice),
            Some(Object::Endpoints(slices)) => slices,
            _ => &[],
        };
        slices.iter().map(move |slice| (kind, name, slice))
    })
}

/// Ports that no port of the Service has the name and protocol of.
fn unmatched_ports(slice: &EndpointSlice, service: &Service) -> Option<String> {
    let is_matched = |port: &&EndpointPort| {
        let mut ports = service.ports.iter();
        ports.any(|other| other.name == port.name && other.protocol == port.protocol)
    };
    let unmatched: Vec<String> = slice
        .ports
        .iter()
        .filter(|port| !is_matched(port))
        .map(|port| in_words(&port.name, &port.protocol))
        .collect();
    let there = service.ports.iter().map(|port| in_words(&port.name, &port.protocol));
    (!unmatched.is_empty()).then(|| {
        let (ports, there) = (unmatched.join(", "), there.collect::<Vec<_>>().join(", "));
        format!("ports: Service {} has no port {ports}, but {there}", slice.service)
    })
}

/// Ports of Services for which none of their slices has one.
fn ports_without_slice(objects: &Objects<'_>) -> Vec<(ObjectName, String)> {
    let mut offered: BTreeMap<&ObjectName, BTreeSet<_>> = BTreeMap::new();
    // The control plane writes slices without ports for Services without endpoints.
    for (_, _, slice) in slices(objects).filter(|(_, _, slice)| !slice.ports.is_empty()) {
        let ports = slice.ports.iter().map(|port| (port.name.clone(), port.protocol));
        offered.entry(&slice.service).or_default().extend(ports);
    }
    let mut found = Vec::new();
    for (name, parsed) in objects.get(&Kind::Service).into_iter().flatten() {
        let (Some(Object::Service(service)), Some(offered)) = (&parsed.object, offered.get(name))
        else {
            continue;
        };
        for port in &service.ports {
            if !offered.contains(&(port.name.clone(), port.protocol)) {
                let port = in_words(&port.name, &port.protocol);
                found.push(((*name).clone(), format!("spec.ports: no slice has a port {port}")));
            }
        }
    }
    found
}

/// A Node as it is named, where there are Nodes and none is this one.
fn missing_node(objects: &Objects<'_>, node_name: &str) -> Option<(Kind, ObjectName, String)> {
    let nodes = objects.get(&Kind::Node)?;
    let name = ObjectName::new("", node_name);
    let names: Vec<String> = nodes.keys().map(ToString::to_string).collect();
    (!names.is_empty() && !nodes.contains_key(&name)).then(|| {
        let names = names.join(", ");
        let odd = format!("not among the Nodes {names}: see --hostname-override");
        (Kind::Node, name, odd)
    })
}

fn in_words(name: &str, protocol: &impl std::fmt::Display) -> String {
    match name {
        "" => format!("without a name ({protocol})"),
        name => format!("{name} ({protocol})"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::objects;

    fn found(objects: &[(Kind, Value)]) -> Vec<String> {
        let read = |(kind, json): &(Kind, Value)| {
            let read = objects::read(*kind, &json.to_string()).unwrap();
            (*kind, read.name, read.parsed)
        };
        let read: Vec<_> = objects.iter().map(read).collect();
        let mut all = Objects::new();
        for (kind, name, parsed) in &read {
            all.entry(*kind).or_default().insert(name, parsed);
        }
        let lines = mismatches(&all, "node-1").into_iter();
        lines.map(|(kind, name, odd)| format!("{kind} {name}: {odd}")).collect()
    }

    fn service(ports: &Value) -> (Kind, Value) {
        let spec = json!({"clusterIP": "10.96.0.1", "ports": ports});
        (Kind::Service, json!({"metadata": {"name": "web"}, "spec": spec}))
    }

    fn slice(service: &str, ports: &Value) -> (Kind, Value) {
        let labels = json!({"kubernetes.io/service-name": service});
        let metadata = json!({"name": "web-1", "labels": labels});
        let object = json!({"metadata": metadata, "addressType": "IPv4", "ports": ports});
        (Kind::EndpointSlice, object)
    }

    #[test]
    fn what_matches_is_not_mentioned() {
        let node = |name: &str| (Kind::Node, json!({"metadata": {"name": name}}));
        let port = json!([{"name": "http", "port": 80}]);
        let all = [service(&port), slice("web", &port), node("node-1"), node("node-2")];
        assert_eq!(found(&all), [""; 0]);
        assert_eq!(found(&[service(&port)]), [""; 0], "a Service may have no slice");
        assert_eq!(found(&[service(&port), slice("web", &json!([]))]), [""; 0], "or an empty one");
        assert_eq!(
            found(&[node("node-2")]),
            ["Node node-1: not among the Nodes node-2: see --hostname-override"]
        );
    }

    #[test]
    fn slices_without_a_service_and_ports_without_a_match_are_named() {
        let port = |name: &str| json!([{"name": name, "port": 80}]);
        assert_eq!(
            found(&[service(&port("http")), slice("wbe", &port("http"))]),
            ["EndpointSlice default/web-1: there is no Service default/wbe"]
        );
        assert_eq!(
            found(&[service(&port("http")), slice("web", &port(""))]),
            [
                "EndpointSlice default/web-1: ports: Service default/web has no port without a \
                 name (tcp), but http (tcp)",
                "Service default/web: spec.ports: no slice has a port http (tcp)",
            ]
        );
    }
}
