//! Endpoints: slices and core/v1 Endpoints to parsed values, and their union (spec 1.5).
//!
//! Called by [`super::objects::read`]; [`merged`] is what `desired` reads of all the slices of a
//! Service. Invariant: an endpoint or port that cannot be used costs itself, never its slice.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::field::{self, Reasons};
use super::{Endpoint, EndpointPort, EndpointSlice, Hints, Object, ObjectName, Parsed, objects};
use crate::model::net::{Family, Protocol};

/// One endpoint as it serves one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortEndpoint<'a> {
    /// The port that it listens on.
    pub port: u16,
    /// The endpoint.
    pub endpoint: &'a Endpoint,
}

impl PortEndpoint<'_> {
    fn key(&self) -> (IpAddr, u16) {
        (self.endpoint.address, self.port)
    }
}

/// The endpoints of one family per service port, by port name and protocol.
pub type ByPort<'a> = BTreeMap<(Arc<str>, Protocol), Vec<PortEndpoint<'a>>>;

/// The union of a Service's slices of one family: sorted, each address and port once.
///
/// Of duplicates the first counts, unless a later one does not terminate: then that one.
/// Slices come in the order of their names, so that every node decides alike.
pub fn merged<'a>(
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    family: Family,
) -> ByPort<'a> {
    let mut by_port = ByPort::new();
    for slice in slices.into_iter().filter(|slice| slice.family == family) {
        for port in &slice.ports {
            let endpoints = by_port.entry((port.name.clone(), port.protocol)).or_default();
            endpoints.extend(
                slice.endpoints.iter().map(|endpoint| PortEndpoint { port: port.port, endpoint }),
            );
        }
    }
    for endpoints in by_port.values_mut() {
        keep_one_of_each(endpoints);
    }
    by_port.retain(|_, endpoints| !endpoints.is_empty());
    by_port
}

/// Parity: the reference sorts by text; here the numbers decide, the order is as stable.
fn keep_one_of_each(endpoints: &mut Vec<PortEndpoint<'_>>) {
    endpoints.sort_by_key(PortEndpoint::key);
    endpoints.dedup_by(|later, kept| {
        let is_duplicate = later.key() == kept.key();
        if is_duplicate && !later.endpoint.terminating {
            *kept = *later;
        }
        is_duplicate
    });
}

/// Parses an EndpointSlice.
pub fn parse_slice(object: &objects::EndpointSlice) -> Parsed {
    let labels = &object.metadata.labels;
    let service = labels.service_name.as_deref().filter(|name| !name.is_empty());
    let (Some(service), None) = (service, &labels.headless) else {
        return Parsed::default();
    };
    let family = match object.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        // Parity: names are for others than proxies, and nothing is wrong with them.
        "FQDN" => return Parsed::default(),
        other => {
            let (names, instead) = (["IPv4", "IPv6"], "the slice is not served");
            let mut reasons = Reasons::default();
            reasons.reject(field::unknown_name("addressType", other, &names, instead));
            return Parsed { reasons: reasons.0, ..Parsed::default() };
        }
    };
    let mut reasons = Reasons::default();
    let endpoints = object.endpoints.iter().enumerate();
    let slice = EndpointSlice {
        service: service_of(&object.metadata, service),
        family,
        ports: ports("ports", &object.ports, &mut reasons),
        endpoints: reasons
            .usable(endpoints.map(|(index, endpoint)| parse_endpoint(index, endpoint, family))),
    };
    let triggered = triggered(&object.metadata);
    Parsed { object: Some(Object::EndpointSlice(slice)), reasons: reasons.0, triggered }
}

fn parse_endpoint(
    index: usize,
    endpoint: &objects::Endpoint,
    family: Family,
) -> Result<Endpoint, String> {
    if let Some(fault) = &endpoint.fault {
        return Err(format!("endpoints[{index}]{fault}; the endpoint is not served"));
    }
    let field = format_args!("endpoints[{index}].addresses");
    let Some(text) = endpoint.addresses.first() else {
        return Err(format!("{field}: empty"));
    };
    let address = field::address(format_args!("{field}[0]"), text)?;
    if Family::of(address) != family {
        return Err(format!("{field}[0]: {address} is not of the slice's addressType {family}"));
    }
    let conditions = &endpoint.conditions;
    Ok(Endpoint {
        address,
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name.as_deref().map(Into::into),
        hints: hints(&endpoint.hints),
    })
}

fn hints(hints: &objects::Hints) -> Option<Box<Hints>> {
    let names =
        |hints: &[objects::HintName]| hints.iter().map(|h| h.name.as_str().into()).collect();
    let hints = Hints { zones: names(&hints.for_zones), nodes: names(&hints.for_nodes) };
    (hints != Hints::default()).then(|| hints.into())
}

/// Parses core/v1 Endpoints: a slice per subset and family that has addresses.
pub fn parse_endpoints(object: &objects::Endpoints) -> Parsed {
    if object.metadata.labels.headless.is_some() {
        return Parsed::default();
    }
    let service = service_of(&object.metadata, &object.metadata.name);
    let mut reasons = Reasons::default();
    let mut slices = Vec::new();
    for (index, subset) in object.subsets.iter().enumerate() {
        let path = format!("subsets[{index}]");
        let ports = ports(&format!("{path}.ports"), &subset.ports, &mut reasons);
        let endpoints = addresses(&path, subset, &mut reasons);
        slices.extend(Family::ALL.into_iter().filter_map(|family| {
            let is_of_family = |endpoint: &&Endpoint| Family::of(endpoint.address) == family;
            let endpoints: Vec<_> = endpoints.iter().filter(is_of_family).cloned().collect();
            let (service, ports) = (service.clone(), ports.clone());
            (!endpoints.is_empty()).then_some(EndpointSlice { service, family, ports, endpoints })
        }));
    }
    let triggered = triggered(&object.metadata);
    Parsed { object: Some(Object::Endpoints(slices)), reasons: reasons.0, triggered }
}

/// When the change was caused that the control plane tells of; it need not say.
fn triggered(metadata: &objects::Metadata) -> Option<Box<SystemTime>> {
    let time = metadata.annotations.trigger_time.as_deref()?.parse::<jiff::Timestamp>();
    time.ok().map(|time| Box::new(time.into()))
}

/// The endpoints of a subset; this API knows neither termination nor hints.
fn addresses(path: &str, subset: &objects::Subset, reasons: &mut Reasons) -> Vec<Endpoint> {
    let lists = [
        (format!("{path}.addresses"), &subset.addresses, true),
        (format!("{path}.notReadyAddresses"), &subset.not_ready_addresses, false),
    ];
    let all = lists.iter().flat_map(|(path, addresses, ready)| {
        addresses.iter().enumerate().map(move |(index, address)| {
            if let Some(fault) = &address.fault {
                return Err(format!("{path}[{index}]{fault}; the endpoint is not served"));
            }
            Ok(Endpoint {
                address: field::address(format_args!("{path}[{index}].ip"), &address.ip)?,
                ready: *ready,
                serving: *ready,
                terminating: false,
                node: address.node_name.as_deref().map(Into::into),
                hints: None,
            })
        })
    });
    reasons.usable(all)
}

/// Ports of a slice or subset; a missing name is the empty one, as the API server defaults it.
fn ports(path: &str, ports: &[objects::EndpointPort], reasons: &mut Reasons) -> Vec<EndpointPort> {
    reasons.usable(ports.iter().enumerate().map(|(index, port)| {
        if let Some(fault) = &port.fault {
            return Err(format!("{path}[{index}]{fault}; the port is not served"));
        }
        let protocol = port.protocol.as_deref();
        Ok(EndpointPort {
            name: port.name.as_str().into(),
            protocol: field::protocol(format_args!("{path}[{index}].protocol"), protocol)?,
            port: field::port(format_args!("{path}[{index}].port"), port.port)?,
        })
    }))
}

fn service_of(metadata: &objects::Metadata, name: &str) -> ObjectName {
    ObjectName::new(metadata.namespace_or_default(), name)
}

#[cfg(test)]
mod tests;
