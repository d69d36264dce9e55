//! Whether the objects of a folder match each other: slices their Services, ports their names, and
//! the Nodes this one.
//!
//! A cluster has controllers that see to that; a folder has nobody.
//! Invariant: nothing here keeps an object from being programmed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::cluster::{
    Endpoint, EndpointPort, EndpointSlice, Kind, Object, ObjectName, Parsed, Service,
};

/// The objects that count, by kind and name.
pub type Objects<'a> = BTreeMap<Kind, BTreeMap<&'a ObjectName, &'a Parsed>>;

/// What does not match: the kind and name of an object, and what is odd about it.
pub type Mismatch = (Kind, ObjectName, String);

/// What two objects contradict each other in, whatever else there may be.
pub fn contradictions(objects: &Objects<'_>) -> Vec<Mismatch> {
    of_slices(objects, |slice, found| match found {
        Found::Served(service) => unmatched_ports(slice, service),
        Found::Missing | Found::NotServed => None,
    })
}

/// What objects lack, if these are all that there are.
pub fn lacks(objects: &Objects<'_>, node_name: &str) -> Vec<Mismatch> {
    let mut lacks = beside_slices(objects);
    lacks.extend(of_slices(objects, |slice, found| match found {
        Found::Missing => Some(missing_service(objects, &slice.service)),
        Found::Served(_) | Found::NotServed => None,
    }));
    let missing = ports_without_slice(objects);
    lacks.extend(missing.into_iter().map(|(name, odd)| (Kind::Service, name, odd)));
    lacks.extend(missing_node(objects, node_name));
    lacks
}

/// What is told of slices and Endpoints that count, with the Service of each; once of each object.
fn of_slices<'a>(
    objects: &Objects<'a>,
    tell: impl Fn(&EndpointSlice, Found<'a>) -> Option<String>,
) -> Vec<Mismatch> {
    let told = counted(objects).filter_map(|(kind, name, slice)| {
        Some((kind, name.clone(), tell(slice, service_of(objects, slice))?))
    });
    let mut told: Vec<Mismatch> = told.collect();
    told.dedup();
    told
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

/// That there is no Service of a name, and where there is one, if only one can be meant.
fn missing_service(objects: &Objects<'_>, name: &ObjectName) -> String {
    let services = objects.get(&Kind::Service).into_iter().flatten();
    let alike: Vec<_> = services.filter(|(other, _)| other.name == name.name).collect();
    let meant = match alike[..] {
        [(other, _)] => format!(", but {other}; metadata.namespace must be that of the Service"),
        _ => String::new(),
    };
    format!("there is no Service {name}{meant}")
}

/// The slices of each Service that has some; Endpoints do not count beside them.
type ByService<'a> = BTreeMap<&'a ObjectName, Vec<(&'a ObjectName, &'a EndpointSlice)>>;

fn by_service<'a>(objects: &Objects<'a>) -> ByService<'a> {
    let mut by_service = ByService::new();
    for (_, name, slice) in slices(objects).filter(|(kind, ..)| *kind == Kind::EndpointSlice) {
        by_service.entry(&slice.service).or_default().push((name, slice));
    }
    by_service
}

/// What counts of slices and Endpoints.
fn counted<'a>(
    objects: &Objects<'a>,
) -> impl Iterator<Item = (Kind, &'a ObjectName, &'a EndpointSlice)> {
    let by_service = by_service(objects);
    slices(objects).filter(move |(kind, _, slice)| {
        *kind == Kind::EndpointSlice || !by_service.contains_key(&slice.service)
    })
}

/// Endpoints that do not count, and have an address that the slices of the Service have not: who
/// keeps both accounts of a cluster in a folder loses nothing.
fn beside_slices(objects: &Objects<'_>) -> Vec<(Kind, ObjectName, String)> {
    let by_service = by_service(objects);
    let odd = |slice: &EndpointSlice| {
        let slices = by_service.get(&slice.service)?;
        let Found::Served(_) = service_of(objects, slice) else { return None };
        let served: BTreeSet<_> = slices.iter().flat_map(|(_, slice)| addresses(slice)).collect();
        let lost = addresses(slice).find(|address| !served.contains(address))?;
        let (other, _) = slices.first()?;
        Some(format!(
            "{lost} is not served, as Endpoints do not count beside an EndpointSlice of the same \
             Service, {other}; move it there, or remove one of both"
        ))
    };
    let of_endpoints = slices(objects).filter(|(kind, ..)| *kind == Kind::Endpoints);
    let told: BTreeMap<_, _> = of_endpoints
        .filter_map(|(kind, name, slice)| Some(((kind, name.clone()), odd(slice)?)))
        .collect();
    told.into_iter().map(|((kind, name), odd)| (kind, name, odd)).collect()
}

fn addresses(slice: &EndpointSlice) -> impl Iterator<Item = SocketAddr> {
    let at = |endpoint: &Endpoint| {
        let address = endpoint.address;
        slice.ports.iter().map(move |port| SocketAddr::new(address, port.port))
    };
    slice.endpoints.iter().flat_map(at)
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
    for (_, _, slice) in counted(objects).filter(|(_, _, slice)| !slice.ports.is_empty()) {
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
        let lines = contradictions(&all).into_iter().chain(lacks(&all, "node-1"));
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

    #[test]
    fn endpoints_that_do_not_count_beside_a_slice_are_named() {
        let port = json!([{"name": "http", "port": 80}]);
        let (kind, mut slice) = slice("web", &port);
        slice["endpoints"] = json!([{"addresses": ["10.0.0.1"]}]);
        let found_beside = |spec: Value, addresses: Value, ports: Value| {
            let subsets = json!([{"addresses": addresses, "ports": ports}]);
            let endpoints = json!({"metadata": {"name": "web"}, "subsets": subsets});
            let service = json!({"metadata": {"name": "web"}, "spec": spec});
            found(&[(Kind::Service, service), (kind, slice.clone()), (Kind::Endpoints, endpoints)])
        };
        let spec = json!({"clusterIP": "10.96.0.1", "ports": port});
        let [one, two] =
            [json!([{"ip": "10.0.0.1"}]), json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}])];
        assert_eq!(found_beside(spec.clone(), one, port.clone()), [""; 0], "nothing is lost");
        let lost = "Endpoints default/web: 10.0.0.2:80 is not served, as Endpoints do not count \
                    beside an EndpointSlice of the same Service, default/web-1; move it there, or \
                    remove one of both";
        assert_eq!(found_beside(spec.clone(), two.clone(), port.clone()), [lost]);
        let other = json!([{"name": "other", "port": 80}]);
        assert_eq!(found_beside(spec, two.clone(), other), [lost], "its ports do not matter");
        assert_eq!(found_beside(json!({"clusterIP": "None"}), two, port.clone()), [""; 0]);
    }

    #[test]
    fn a_service_of_the_name_in_another_namespace_is_offered() {
        let port = json!([{"name": "http", "port": 80}]);
        let in_namespace = |namespace: &str| {
            let (kind, mut service) = service(&port);
            service["metadata"]["namespace"] = json!(namespace);
            (kind, service)
        };
        let missing = "EndpointSlice default/web-1: there is no Service default/web";
        let one = [in_namespace("shop"), slice("web", &port)];
        let meant = ", but shop/web; metadata.namespace must be that of the Service";
        assert_eq!(found(&one), [format!("{missing}{meant}")]);
        let two = [in_namespace("shop"), in_namespace("test"), slice("web", &port)];
        assert_eq!(found(&two), [missing]);
    }
}
