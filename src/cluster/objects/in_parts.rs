//! Slices of which an endpoint does not read: the others do.
//!
//! Parsing stops at the first value of a wrong type, so what follows it is read on its own here.
//! Cost: only where the whole did not read.

use serde::Deserialize;
use serde_json::Value;

use super::{Endpoint, EndpointSlice, place};

/// A slice whose endpoints read one by one; none if something else is wrong with it.
pub fn slice(json: &str) -> Option<EndpointSlice> {
    let mut object: Value = serde_json::from_str(json).ok()?;
    let Value::Array(endpoints) = object.get_mut("endpoints")?.take() else { return None };
    let mut slice = EndpointSlice::deserialize(object).ok()?;
    slice.endpoints = endpoints.iter().map(endpoint).collect();
    slice.endpoints.iter().any(|endpoint| endpoint.fault.is_some()).then_some(slice)
}

fn endpoint(value: &Value) -> Endpoint {
    let json = value.to_string();
    serde_json::from_str(&json).unwrap_or_else(|error| {
        let fault = place::in_words(&json, &error);
        // What is wrong with the endpoint itself is told without a field.
        let dot = if fault.starts_with(':') { "" } else { "." };
        Endpoint { fault: Some(format!("{dot}{fault}")), ..Endpoint::default() }
    })
}
