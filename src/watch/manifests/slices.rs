//! What an EndpointSlice of a manifest lacks to be served, or has in vain.
//!
//! A controller writes slices that lack nothing; a folder has none.

use serde_json::Value;

use super::labels;
use crate::counted;

/// What it lacks to be of a Service and to be served, and which of its addresses are not.
pub fn lacks(object: &Value) -> Vec<String> {
    let given = object.pointer("/metadata/labels");
    let label = |name| given.and_then(|given| given.get(name)).and_then(Value::as_str);
    if label(labels::HEADLESS).is_some() {
        return Vec::new();
    }
    let mut lacks = Vec::new();
    if label(labels::SERVICE_NAME).is_none_or(str::is_empty) {
        let label = labels::SERVICE_NAME;
        lacks.push(format!("metadata.labels: {label} is missing, so it is of no Service"));
    }
    if list(object, "ports").is_empty() && !list(object, "endpoints").is_empty() {
        lacks.push("ports: none, so its endpoints are not served".to_owned());
    }
    lacks.extend(crowded(list(object, "endpoints")));
    lacks
}

/// Endpoints with several addresses, told once.
fn crowded(endpoints: &[Value]) -> Option<String> {
    let is_crowded = |(_, endpoint): &(usize, &Value)| list(endpoint, "addresses").len() > 1;
    let mut crowded = endpoints.iter().enumerate().filter(is_crowded);
    let (first, _) = crowded.next()?;
    let elsewhere = match crowded.count() {
        0 => String::new(),
        more => format!(", here and in {}", counted::of(more, "more endpoint")),
    };
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

    #[test]
    fn endpoints_that_are_not_served_are_told() {
        let of_slice = |label: &str, endpoints: &[&[&str]], ports: Value| {
            let endpoints: Vec<Value> =
                endpoints.iter().map(|addresses| json!({ "addresses": addresses })).collect();
            let metadata = json!({"labels": {label: "a"}});
            let slice = json!({"metadata": metadata, "endpoints": endpoints, "ports": ports});
            lacks(&slice)
        };
        let (service, http) = (labels::SERVICE_NAME, json!([{"port": 80}]));
        assert_eq!(of_slice(service, &[&["10.0.0.1"]], http.clone()), [""; 0]);
        assert_eq!(of_slice(service, &[], json!([])), [""; 0]);
        assert_eq!(of_slice(labels::HEADLESS, &[&["10.0.0.1", "10.0.0.2"]], json!(null)), [""; 0]);
        let none = "ports: none, so its endpoints are not served";
        assert_eq!(of_slice(service, &[&["10.0.0.1"]], json!([])), [none]);
        let (one, two): (&[_], &[_]) = (&["10.0.0.1"], &["10.0.0.2", "10.0.0.3"]);
        let crowded = |elsewhere: &str| {
            format!(
                "endpoints[1].addresses: only the first is served, as by kube-proxy{elsewhere}; \
                 write an endpoint for each"
            )
        };
        assert_eq!(of_slice(service, &[one, two], http.clone()), [crowded("")]);
        let elsewhere = ", here and in 2 more endpoints";
        assert_eq!(of_slice(service, &[one, two, two, two], http), [crowded(elsewhere)]);
    }
}
