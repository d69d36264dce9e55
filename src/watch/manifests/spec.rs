//! The spec of a Service as a manifest has it, and what came of it.
//!
//! Shared by all that tell what is odd about Services. Invariant: what is of another type than it
//! should be counts as absent; that is told elsewhere.

use serde_json::Value;

use crate::cluster::{Object, Parsed, Service};

/// Types of a Service; without one, the first is meant.
pub const TYPES: [&str; 4] = ["ClusterIP", "NodePort", BALANCED, "ExternalName"];

/// The type that has a load balancer.
pub const BALANCED: &str = "LoadBalancer";

/// A field of the spec.
pub fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.get("spec")?.get(name)
}

/// A text of the spec; an empty one is how Go writers may leave it out.
pub fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    field(object, name)?.as_str().filter(|text| !text.is_empty())
}

/// A list of the spec; what is none is empty.
pub fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    field(object, name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The address that counts first, and the field that it is in.
pub fn first_address(object: &Value) -> Option<(&'static str, &str)> {
    match list(object, "clusterIPs").first() {
        Some(first) => Some(("spec.clusterIPs[0]", first.as_str()?)),
        None => Some(("spec.clusterIP", text(object, "clusterIP")?)),
    }
}

/// What is served of a Service, if anything is.
pub fn served(parsed: &Parsed) -> Option<&Service> {
    match &parsed.object {
        Some(Object::Service(service)) => Some(service),
        _ => None,
    }
}

/// Whether a Service has no address of its own: that it is not served says enough.
pub fn is_reached_by_name(object: &Value) -> bool {
    is_elsewhere(object) || first_address(object).is_some_and(|(_, address)| address == "None")
}

/// Whether a Service is but a name for something elsewhere.
pub fn is_elsewhere(object: &Value) -> bool {
    text(object, "type") == Some("ExternalName")
}
