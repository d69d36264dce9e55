//! Why a front has no endpoint to give, or not to everybody: for who asks what is programmed.
//!
//! Invariant: nothing here decides what is programmed; it tells what `topology` came to.

use super::service::endpoints_of;
use super::topology::{self, Endpoints};
use crate::cluster::endpoints::{self, PortEndpoint};
use crate::cluster::{EndpointSlice, Service, ServicePort};
use crate::model::ipvs::ServerKey;

/// What is told of a front whose policy asks for endpoints of this node, and that has others only.
pub const ELSEWHERE: &str =
    "endpoints are on other nodes only, so clients from outside the cluster are dropped";

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
    let mut all = known.into_iter().flatten();
    match all.any(|PortEndpoint { endpoint, .. }| topology::is_usable(endpoint)) {
        true => "no ready endpoint is on this node, as the traffic policy Local asks".to_owned(),
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
    use crate::cluster::{Endpoint, Object, Parsed, Update};
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
}
