//! Fields of a Service that contradict its type or each other.
//!
//! Called by [`super::values`]. Invariant: nothing here keeps an object from being programmed.

use serde_json::Value;

use super::spec::{BALANCED, TYPES, field, first_address, is_elsewhere, list, text};
use crate::cluster::Service;
use crate::cluster::field::address;
use crate::model::net::Family;

/// What contradicts the type, each with its field; of a type that is none nobody knows.
pub fn contradictions(object: &Value, served: Option<&Service>) -> Vec<String> {
    let given = text(object, "type").unwrap_or(TYPES[0]);
    if !TYPES.contains(&given) {
        return Vec::new();
    }
    let mut told = Vec::new();
    if is_elsewhere(object) {
        told.extend(addresses_elsewhere(object));
    } else {
        told.extend(second_first(object, served));
        told.extend(misspelt_none(object));
        told.extend(reached_by_name(given, object));
        told.extend(alien_name(given, object));
    }
    if given != BALANCED {
        told.extend(alien_class(given, object));
    }
    told.extend(idle_affinity(object));
    told
}

/// Addresses of a Service that is a name elsewhere; an API server takes its ports, and so is no
/// word said of them.
fn addresses_elsewhere(object: &Value) -> Vec<String> {
    let cluster_ip = first_address(object).filter(|(_, address)| *address != "None");
    let mut told: Vec<String> = Vec::new();
    told.extend(cluster_ip.map(|(field, address)| {
        format!("{field}: {address} is not served with type ExternalName")
    }));
    if !list(object, "externalIPs").is_empty() {
        told.push("spec.externalIPs: none is served with type ExternalName".to_owned());
    }
    told
}

/// A first address beside a list that begins with another: what an edit of one of them leaves.
fn second_first(object: &Value, served: Option<&Service>) -> Option<String> {
    let given = text(object, "clusterIP")?;
    let first = list(object, "clusterIPs").first()?.as_str()?;
    let is_same = match (address("", given), address("", first)) {
        (Ok(given), Ok(first)) => given == first,
        _ => given == first,
    };
    let is_served = served
        .zip(address("", given).ok())
        .is_some_and(|(service, given)| *service.cluster_ips.get(Family::of(given)) == Some(given));
    match (is_same, is_served) {
        (true, _) => None,
        (false, true) => Some(format!(
            "spec.clusterIP: {given} is not the first of spec.clusterIPs, {first}; it is served \
             all the same, as all of the list counts"
        )),
        (false, false) => Some(format!(
            "spec.clusterIP: {given} is not spec.clusterIPs[0], {first}, which counts"
        )),
    }
}

fn misspelt_none(object: &Value) -> Option<String> {
    let (field, given) = first_address(object)?;
    let is_misspelt = given != "None" && given.trim().eq_ignore_ascii_case("None");
    is_misspelt.then(|| format!("{field}: \"{given}\" is no address; did you mean None?"))
}

/// A type that promises clients from outside to a Service without an address.
fn reached_by_name(given: &str, object: &Value) -> Option<String> {
    let (field, _) = first_address(object).filter(|(_, address)| *address == "None")?;
    (given != TYPES[0]).then(|| {
        format!("{field}: None with type {given}, which no API server takes; nothing is served")
    })
}

fn alien_name(given: &str, object: &Value) -> Option<String> {
    let name = text(object, "externalName")?;
    Some(format!("spec.externalName: \"{name}\" has no effect with type {given}"))
}

fn alien_class(given: &str, object: &Value) -> Option<String> {
    let class = text(object, "loadBalancerClass")?;
    Some(format!(
        "spec.loadBalancerClass: \"{class}\" has no effect with type {given}, which has no load \
         balancer"
    ))
}

/// How long clients stick, where they do not.
fn idle_affinity(object: &Value) -> Option<String> {
    let config = field(object, "sessionAffinityConfig")?.as_object()?;
    let is_off = matches!(text(object, "sessionAffinity"), None | Some("None"));
    (is_off && !config.is_empty()).then(|| {
        "spec.sessionAffinityConfig: has no effect without sessionAffinity: ClientIP".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::spec::served;
    use super::*;
    use crate::cluster::{Kind, objects};

    fn told(spec: &Value) -> Vec<String> {
        let object = json!({"metadata": {"name": "a"}, "spec": spec});
        let parsed = objects::read(Kind::Service, &object.to_string()).unwrap().parsed;
        contradictions(&object, served(&parsed))
    }

    #[test]
    fn an_address_that_is_not_the_first_of_the_list_is_told() {
        let both = |one: &str, first: &str| json!({"clusterIP": one, "clusterIPs": [first]});
        assert_eq!(
            told(&both("10.96.77.50", "10.96.77.5")),
            ["spec.clusterIP: 10.96.77.50 is not spec.clusterIPs[0], 10.96.77.5, which counts"]
        );
        assert_eq!(told(&both("None", "10.96.77.5")).len(), 1);
        for (one, first) in [("fd00:0::1", "FD00::1"), ("None", "None"), ("", "10.96.77.5")] {
            assert_eq!(told(&both(one, first)), [""; 0]);
        }
        assert_eq!(told(&json!({"clusterIP": "10.96.77.5", "clusterIPs": []})), [""; 0]);
    }

    #[test]
    fn an_address_that_is_further_on_in_the_list_is_told_to_be_served() {
        let told = |list: &[&str], ports: Value| {
            told(&json!({"clusterIP": "10.96.0.14", "clusterIPs": list, "ports": ports}))
        };
        let ports = || json!([{"port": 80}]);
        assert_eq!(
            told(&["fd00::1", "010.96.0.14"], ports()),
            ["spec.clusterIP: 10.96.0.14 is not the first of spec.clusterIPs, fd00::1; it is \
              served all the same, as all of the list counts"]
        );
        for (list, ports) in [
            // It is rejected as a second one of its family.
            (["10.96.0.1", "10.96.0.14"], ports()),
            (["fd00::1", "10.96.0.1"], ports()),
            (["fd00::1", "10.96.0.14"], json!([])),
        ] {
            let first = list[0];
            assert_eq!(
                told(&list, ports),
                [format!(
                    "spec.clusterIP: 10.96.0.14 is not spec.clusterIPs[0], {first}, which counts"
                )]
            );
        }
    }

    #[test]
    fn what_contradicts_the_type_is_told() {
        let affinity = json!({"clientIP": {"timeoutSeconds": 5}});
        for (spec, expected) in [
            (
                json!({"type": "ExternalName", "clusterIP": "10.96.0.1", "externalName": "a.example",
                    "externalIPs": ["192.0.2.1"], "ports": [{"port": 80}]}),
                &[
                    "spec.clusterIP: 10.96.0.1 is not served with type ExternalName",
                    "spec.externalIPs: none is served with type ExternalName",
                ][..],
            ),
            (
                json!({"type": "NodePort", "clusterIP": "None"}),
                &[
                    "spec.clusterIP: None with type NodePort, which no API server takes; nothing is \
                   served",
                ],
            ),
            (
                json!({"externalName": "a.example"}),
                &["spec.externalName: \"a.example\" has no effect with type ClusterIP"],
            ),
            (
                json!({"type": "NodePort", "loadBalancerClass": "example.com/lb"}),
                &["spec.loadBalancerClass: \"example.com/lb\" has no effect with type NodePort, \
                   which has no load balancer"],
            ),
            (
                json!({"sessionAffinity": "None", "sessionAffinityConfig": affinity}),
                &["spec.sessionAffinityConfig: has no effect without sessionAffinity: ClientIP"],
            ),
            (
                json!({"clusterIP": "none"}),
                &["spec.clusterIP: \"none\" is no address; did you mean None?"],
            ),
            (json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": affinity}), &[]),
            (json!({"sessionAffinity": "ClientIp", "sessionAffinityConfig": affinity}), &[]),
            (json!({"sessionAffinityConfig": null, "clusterIP": "None"}), &[]),
            (json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/lb"}), &[]),
            (json!({"type": "ExternalName", "clusterIP": "None", "ports": [{"port": 80}]}), &[]),
            (json!({"type": "Nodeport", "externalName": "a.example"}), &[]),
        ] {
            assert_eq!(told(&spec), expected, "{spec}");
        }
    }
}
