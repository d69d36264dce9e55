//! Slices and Endpoints of which an endpoint or a port does not read: the others do.
//!
//! Parsing stops at the first value of a wrong type, so what follows it is read on its own here.
//! Cost: only where the whole did not read.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Endpoint, EndpointAddress, EndpointPort, EndpointSlice, Endpoints, Subset, place};

/// A slice whose endpoints and ports read one by one; none if something else is wrong with it.
pub fn slice(json: &str) -> Option<EndpointSlice> {
    let mut object: Value = serde_json::from_str(json).ok()?;
    let faulty = |fault| Endpoint { fault: Some(fault), ..Endpoint::default() };
    let endpoints = items(&mut object, "endpoints", faulty);
    let ports = ports(&mut object);
    let explains = endpoints.iter().any(|endpoint| endpoint.fault.is_some()) || is_faulty(&ports);
    let rest = EndpointSlice::deserialize(object).ok()?;
    explains.then_some(EndpointSlice { endpoints, ports, ..rest })
}

/// Endpoints whose addresses and ports read one by one; none if something else is wrong with them.
pub fn endpoints(json: &str) -> Option<Endpoints> {
    let mut object: Value = serde_json::from_str(json).ok()?;
    let subsets = object.get_mut("subsets")?.as_array_mut()?.iter_mut();
    let subsets: Vec<Subset> = subsets.map(subset).collect();
    let explains = subsets.iter().any(|subset| {
        let mut addresses = subset.addresses.iter().chain(&subset.not_ready_addresses);
        addresses.any(|address| address.fault.is_some()) || is_faulty(&subset.ports)
    });
    let rest = Endpoints::deserialize(object).ok()?;
    explains.then_some(Endpoints { subsets, ..rest })
}

/// Takes all out of a subset, but for what is no list.
fn subset(value: &mut Value) -> Subset {
    let faulty = |fault| EndpointAddress { fault: Some(fault), ..EndpointAddress::default() };
    Subset {
        addresses: items(value, "addresses", faulty),
        not_ready_addresses: items(value, "notReadyAddresses", faulty),
        ports: ports(value),
    }
}

/// Takes the ports out of a slice or a subset.
fn ports(object: &mut Value) -> Vec<EndpointPort> {
    let faulty = |fault| EndpointPort { fault: Some(fault), ..EndpointPort::default() };
    items(object, "ports", faulty)
}

fn is_faulty(ports: &[EndpointPort]) -> bool {
    ports.iter().any(|port| port.fault.is_some())
}

/// Takes a list out of an object, and reads its items one by one; what is no list stays.
fn items<T: DeserializeOwned>(
    object: &mut Value,
    list: &str,
    faulty: impl Fn(String) -> T,
) -> Vec<T> {
    let Some(Value::Array(values)) = object.get_mut(list) else { return Vec::new() };
    let values = std::mem::take(values);
    values.iter().map(|value| read(value).unwrap_or_else(&faulty)).collect()
}

/// What a value reads as, or why it does not, from its place on.
fn read<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    let json = value.to_string();
    serde_json::from_str(&json).map_err(|error| {
        let fault = place::in_words(&json, &error);
        // What is wrong with the value itself is told without a field.
        let dot = if fault.starts_with(':') { "" } else { "." };
        format!("{dot}{fault}")
    })
}
