//! Why a front has no endpoint to give, or not to everybody: for who asks what is programmed.
//!
//! Invariant: nothing here decides what is programmed; it tells what `topology` came to.

use super::service::endpoints_of;
use super::topology::{self, Endpoints};
use crate::cluster::endpoints::{self, PortEndpoint};
use crate::cluster::{Endpoint, EndpointSlice, Service, ServicePort};
use crate::model::ipvs::ServerKey;

/// What is told of a front whose policy asks for endpoints of this node, and that has others only.
pub const ELSEWHERE: &str =
    "endpoints are on other nodes only, so clients from outside the cluster are dropped";

/// The same, with what keeps endpoints from being of this node.
pub fn elsewhere(service: &Service, slices: &[&EndpointSlice], key: &ServerKey) -> String {
    let by_port = endpoints::merged(slices.iter().copied(), key.family());
    let ports = service.ports.iter().filter(|port| is_of(port, key));
    let nowhere = nowhere(ports.flat_map(|port| endpoints_of(port, &by_port)));
    format!("{ELSEWHERE}{nowhere}")
}

/// Whether an endpoint does not say on which node it is.
pub fn names_no_node(endpoint: &Endpoint) -> bool {
    endpoint.node.as_deref().unwrap_or_default().is_empty()
}

/// What is told besides where usable endpoints do not say on which node they are: whoever wrote
/// their slice has forgotten it.
fn nowhere<'a>(endpoints: impl Iterator<Item = &'a PortEndpoint<'a>>) -> String {
    let usable = endpoints.map(|found| found.endpoint).filter(|e| topology::is_usable(e));
    match usable.filter(|endpoint| names_no_node(endpoint)).count() {
        0 => String::new(),
        1 => "; 1 endpoint names no node (nodeName), so it counts as on another".to_owned(),
        number => {
            format!("; {number} endpoints name no node (nodeName), so they count as on others")
        }
    }
}

/// Why a front of a Service has no endpoint that takes new connections.
pub fn why(service: &Service, slices: &[&EndpointSlice], key: &ServerKey) -> String {
    if slices.is_empty() {
        return "no EndpointSlice or Endpoints of the Service".to_owned();
    }
    let family = key.family();
    let by_port = endpoints::merged(slices.iter().copied(), family);
    if by_port.is_empty() {
        return format!("no {family} endpoint");
    }
    let ports = service.ports.iter().filter(|port| is_of(port, key));
    let known: Vec<&Endpoints<'_>> = ports.map(|port| endpoints_of(port, &by_port)).collect();
    let number: usize = known.iter().map(|endpoints| endpoints.len()).sum();
    if number == 0 {
        return "no slice has a port of this name and protocol".to_owned();
    }
    let unready = match number {
        1 => "its one endpoint is not ready".to_owned(),
        _ => format!("none of {number} endpoints is ready"),
    };
    let all = || known.iter().copied().flatten();
    match all().any(|PortEndpoint { endpoint, .. }| topology::is_usable(endpoint)) {
        true => format!(
            "no ready endpoint is on this node, as the traffic policy Local asks{}",
            nowhere(all())
        ),
        false => unready,
    }
}

/// Whether a front is one of a port, on the service's addresses or on the node's.
fn is_of(port: &ServicePort, key: &ServerKey) -> bool {
    let is_number = port.port == key.port || port.node_port == Some(key.port);
    port.protocol == key.protocol && is_number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Object, Parsed, Update};
    use crate::testing::objects::*;

    fn slice(ports: &[&str], endpoints: &[Endpoint]) -> EndpointSlice {
        match slice_applied("default/web", ports, endpoints) {
            Update::Applied(_, _, Parsed { object: Some(Object::EndpointSlice(slice)), .. }) => {
                slice
            }
            other => panic!("{other:?}"),
        }
    }

    fn web() -> Service {
        match service("default/web", &["10.96.0.1", "fd00::1"], &["tcp 80"]).applied() {
            Update::Applied(_, _, Parsed { object: Some(Object::Service(service)), .. }) => service,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_reason_is_told_apart() {
        let service = web();
        let unready = Endpoint { ready: false, serving: false, ..endpoint("10.244.1.1") };
        let at = |key: &str, slices: &[EndpointSlice]| {
            why(&service, &slices.iter().collect::<Vec<_>>(), &front(key))
        };
        let [v4, v6] = ["tcp 10.96.0.1:80", "tcp [fd00::1]:80"];
        assert_eq!(at(v4, &[]), "no EndpointSlice or Endpoints of the Service");
        let ready = [slice(&["tcp 8080"], &[endpoint("10.244.1.1")])];
        assert_eq!(at(v6, &ready), "no IPv6 endpoint");
        assert_eq!(
            at(v4, &[slice(&["udp 53"], &[endpoint("10.244.1.1")])]),
            "no slice has a port of this name and protocol"
        );
        assert_eq!(at(v4, &[slice(&["tcp 8080"], &[unready])]), "its one endpoint is not ready");
        assert!(at(v4, &ready).starts_with("no ready endpoint is on this node"));
    }

    #[test]
    fn endpoints_that_name_no_node_are_counted() {
        let on = |node: Option<&str>, address| Endpoint {
            node: node.map(Into::into),
            ..endpoint(address)
        };
        let [nowhere, unnamed, away] =
            [on(None, "10.244.1.1"), on(Some(""), "10.244.1.2"), on(Some("node-2"), "10.244.1.3")];
        let unready = Endpoint { ready: false, serving: false, ..on(None, "10.244.1.4") };
        let (service, key) = (web(), front("tcp 10.96.0.1:80"));
        for (endpoints, told) in [
            (vec![away.clone()], ""),
            (
                vec![away.clone(), nowhere.clone(), unready],
                "; 1 endpoint names no node (nodeName), so it counts as on another",
            ),
            (
                vec![away, nowhere, unnamed],
                "; 2 endpoints name no node (nodeName), so they count as on others",
            ),
        ] {
            let slice = slice(&["tcp 8080"], &endpoints);
            let idle = "no ready endpoint is on this node, as the traffic policy Local asks";
            assert_eq!(why(&service, &[&slice], &key), format!("{idle}{told}"));
            assert_eq!(elsewhere(&service, &[&slice], &key), format!("{ELSEWHERE}{told}"));
        }
    }
}
