//! What an EndpointSlice of a manifest lacks to be served, or has in vain.
//!
//! A controller writes slices that lack nothing; a folder has none.

use serde_json::Value;

use super::labels;
use crate::cluster::{Object, Parsed};
use crate::counted;

/// What it lacks to be of a Service and to be served, and which of its addresses are not.
pub fn lacks(object: &Value, parsed: &Parsed) -> Vec<String> {
    let given = object.pointer("/metadata/labels");
    let label = |name| given.and_then(|given| given.get(name)).and_then(Value::as_str);
    if label(labels::HEADLESS).is_some() {
        return Vec::new();
    }
    if label(labels::SERVICE_NAME).is_none_or(str::is_empty) {
        let label = labels::SERVICE_NAME;
        return vec![format!("metadata.labels: {label} is missing, so it is of no Service")];
    }
    let endpoints = list(object, "endpoints");
    let odd = match &parsed.object {
        // What is rejected is told elsewhere.
        None => named(object, parsed),
        Some(_) if list(object, "ports").is_empty() => (!endpoints.is_empty())
            .then(|| "ports: none, so its endpoints are not served".to_owned()),
        Some(Object::EndpointSlice(slice)) if !slice.ports.is_empty() => crowded(endpoints, parsed),
        Some(_) => None,
    };
    odd.into_iter().collect()
}

/// A slice of names, which nothing but its type keeps from being served.
fn named(object: &Value, parsed: &Parsed) -> Option<String> {
    let is_named = object.get("addressType").and_then(Value::as_str) == Some("FQDN");
    (is_named && parsed.reasons.is_empty()).then(|| {
        "addressType: FQDN, so its endpoints are not served, as by kube-proxy; write their \
         addresses, with IPv4 or IPv6"
            .to_owned()
    })
}

/// Endpoints with several addresses, told once.
fn crowded(endpoints: &[Value], parsed: &Parsed) -> Option<String> {
    let is_rejected = |index| {
        let field = format!("endpoints[{index}]");
        parsed.reasons.iter().any(|reason| reason.text().starts_with(&field))
    };
    let is_crowded = |(index, endpoint): &(usize, &Value)| {
        list(endpoint, "addresses").len() > 1 && !is_rejected(*index)
    };
    let mut crowded = endpoints.iter().enumerate().filter(is_crowded);
    let (first, _) = crowded.next()?;
    let elsewhere = counted::elsewhere(crowded.count(), "endpoint");
    Some(format!(
        "endpoints[{first}].addresses: only the first is served, as by kube-proxy{elsewhere}; \
         write an endpoint for each"
    ))
}

/// What is no list is empty; that is told elsewhere.
fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::{Kind, objects};
    use crate::watch::manifests::oddities;

    /// What is told of a slice.
    fn told(label: &str, family: &str, endpoints: &[&[&str]], ports: Value) -> Vec<String> {
        let endpoints: Vec<Value> =
            endpoints.iter().map(|addresses| json!({ "addresses": addresses })).collect();
        let metadata = json!({"name": "a-1", "labels": {label: "a"}});
        let slice = json!({"metadata": metadata, "addressType": family, "endpoints": endpoints,
            "ports": ports});
        let read = objects::read(Kind::EndpointSlice, &slice.to_string()).unwrap();
        oddities::of(Kind::EndpointSlice, &slice, &read.parsed)
    }

    fn crowded(index: usize, elsewhere: &str) -> String {
        format!(
            "endpoints[{index}].addresses: only the first is served, as by kube-proxy{elsewhere}; \
             write an endpoint for each"
        )
    }

    const NO_PORTS: &str = "ports: none, so its endpoints are not served";
    const ONE: &[&str] = &["10.0.0.1"];
    const TWO: &[&str] = &["10.0.0.2", "10.0.0.3"];

    #[test]
    fn endpoints_that_are_not_served_are_told() {
        let of_slice = |label: &str, endpoints: &[&[&str]], ports: Value| {
            told(label, "IPv4", endpoints, ports)
        };
        let (service, http) = (labels::SERVICE_NAME, json!([{"port": 80}]));
        assert_eq!(of_slice(service, &[ONE], http.clone()), [""; 0]);
        assert_eq!(of_slice(service, &[], json!([])), [""; 0]);
        assert_eq!(of_slice(labels::HEADLESS, &[TWO], json!(null)), [""; 0]);
        assert_eq!(of_slice(service, &[ONE], json!([])), [NO_PORTS]);
        assert_eq!(of_slice(service, &[ONE], json!(null)), [NO_PORTS]);
        assert_eq!(of_slice(service, &[ONE, TWO], http.clone()), [crowded(1, "")]);
        let elsewhere = ", here and in 2 more endpoints";
        assert_eq!(of_slice(service, &[ONE, TWO, TWO, TWO], http), [crowded(1, elsewhere)]);
    }

    #[test]
    fn endpoints_that_are_rejected_are_not_told_as_served() {
        let (service, http) = (labels::SERVICE_NAME, json!([{"port": 80}]));
        assert_eq!(told(service, "IPv4", &[TWO], json!(80)), [""; 0], "it does not read");
        assert_eq!(told(service, "IPv4", &[TWO], json!([{"port": 0}])), [""; 0]);
        assert_eq!(told(service, "IPv3", &[TWO], http.clone()), [""; 0]);
        let misfit: &[&str] = &["fd00::1", "10.0.0.1"];
        assert_eq!(told(service, "IPv4", &[misfit, TWO], http.clone()), [crowded(1, "")]);
        let nobody = told("app", "IPv4", &[TWO], json!([]));
        assert!(nobody.len() == 1 && nobody[0].contains("service-name is missing"), "{nobody:?}");
    }

    #[test]
    fn names_are_told_not_to_be_served() {
        let names: &[&str] = &["a.example", "b.example"];
        let of_slice = |label: &str| told(label, "FQDN", &[names], json!([{"port": 443}]));
        assert_eq!(
            of_slice(labels::SERVICE_NAME),
            ["addressType: FQDN, so its endpoints are not served, as by kube-proxy; write their \
              addresses, with IPv4 or IPv6"]
        );
        assert_eq!(of_slice(labels::HEADLESS), [""; 0]);
        assert!(of_slice("app")[0].contains("service-name is missing"));
    }
}
