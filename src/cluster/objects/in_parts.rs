//! Slices and Endpoints of which an endpoint does not read: the others do.
//!
//! Parsing stops at the first value of a wrong type, so what follows it is read on its own here.
//! Cost: only where the whole did not read.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Endpoint, EndpointAddress, EndpointSlice, Endpoints, place};

/// A slice whose endpoints read one by one; none if something else is wrong with it.
pub fn slice(json: &str) -> Option<EndpointSlice> {
    let mut object: Value = serde_json::from_str(json).ok()?;
    let Value::Array(endpoints) = object.get_mut("endpoints")?.take() else { return None };
    let mut slice = EndpointSlice::deserialize(object).ok()?;
    let faulty = |fault| Endpoint { fault: Some(fault), ..Endpoint::default() };
    slice.endpoints = endpoints.iter().map(|value| read(value).unwrap_or_else(faulty)).collect();
    slice.endpoints.iter().any(|endpoint| endpoint.fault.is_some()).then_some(slice)
}

/// Endpoints whose addresses read one by one; none if something else is wrong with them.
pub fn endpoints(json: &str) -> Option<Endpoints> {
    let mut object: Value = serde_json::from_str(json).ok()?;
    let subsets = object.get_mut("subsets")?.as_array_mut()?;
    let lists: Vec<[Vec<EndpointAddress>; 2]> = subsets
        .iter_mut()
        .map(|subset| ["addresses", "notReadyAddresses"].map(|list| addresses(subset, list)))
        .collect();
    let mut endpoints = Endpoints::deserialize(object).ok()?;
    let is_faulty = |address: &EndpointAddress| address.fault.is_some();
    let explains = lists.iter().flatten().flatten().any(is_faulty);
    for (subset, [ready, not_ready]) in endpoints.subsets.iter_mut().zip(lists) {
        (subset.addresses, subset.not_ready_addresses) = (ready, not_ready);
    }
    explains.then_some(endpoints)
}

/// Takes the addresses out of a subset; what is no list stays.
fn addresses(subset: &mut Value, list: &str) -> Vec<EndpointAddress> {
    let Some(Value::Array(values)) = subset.get_mut(list) else { return Vec::new() };
    let values = std::mem::take(values);
    let faulty = |fault| EndpointAddress { fault: Some(fault), ..EndpointAddress::default() };
    values.iter().map(|value| read(value).unwrap_or_else(faulty)).collect()
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
