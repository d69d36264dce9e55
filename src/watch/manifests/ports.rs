//! Names of ports: what matches the ports of a Service to those of its slices.
//!
//! An API server sees to it that they tell the ports of an object apart; a folder has nobody.
//! Invariant: nothing here keeps a port from being served.

use serde_json::Value;

use super::spec;
use crate::cluster::Kind;

/// A port as far as it is matched, and where it is.
struct Port<'a> {
    field: String,
    /// The empty one where it is missing; none where it is no text, which is told elsewhere.
    name: Option<&'a str>,
    protocol: &'a str,
}

/// Names that are missing, or there twice, among the ports of an object.
pub fn ambiguous(kind: Kind, object: &Value) -> Vec<String> {
    match kind {
        Kind::Service if spec::is_reached_by_name(object) => Vec::new(),
        Kind::Service => {
            let ports = ports("spec.ports", object.pointer("/spec/ports"));
            let mut told: Vec<String> = unnamed(&ports).collect();
            told.extend(repeated(&named(ports), "both get the same endpoints"));
            told
        }
        Kind::EndpointSlice => {
            let ports = ports("ports", object.get("ports"));
            repeated(&ports, "a port of the Service gets the endpoints of both").collect()
        }
        Kind::Endpoints => {
            let subsets = object.get("subsets").and_then(Value::as_array).into_iter().flatten();
            let of_subset = |(index, subset): (usize, &Value)| {
                let ports = ports(&format!("subsets[{index}].ports"), subset.get("ports"));
                unnamed(&ports).collect::<Vec<_>>()
            };
            subsets.enumerate().flat_map(of_subset).collect()
        }
        Kind::Node | Kind::ServiceCidr => Vec::new(),
    }
}

fn ports<'a>(field: &str, ports: Option<&'a Value>) -> Vec<Port<'a>> {
    let ports = ports.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |port: &'a Value, name| port.get(name).and_then(Value::as_str);
    let read = |(index, port): (usize, &'a Value)| Port {
        field: format!("{field}[{index}]"),
        name: match port.get("name") {
            None | Some(Value::Null) => Some(""),
            Some(name) => name.as_str(),
        },
        protocol: text(port, "protocol").unwrap_or("TCP"),
    };
    ports.iter().enumerate().map(read).collect()
}

fn named(ports: Vec<Port<'_>>) -> Vec<Port<'_>> {
    ports.into_iter().filter(|port| port.name != Some("")).collect()
}

/// Only a port that is alone needs no name.
fn unnamed(ports: &[Port<'_>]) -> impl Iterator<Item = String> {
    let unnamed = ports.iter().filter(|port| ports.len() > 1 && port.name == Some(""));
    unnamed.map(|Port { field, .. }| {
        format!(
            "{field}.name: missing beside other ports, so that names do not tell them apart; give \
             each port a name, the same in the Service and its endpoints"
        )
    })
}

/// Ports with the name of an earlier one, and what that means unless the protocols differ.
fn repeated(ports: &[Port<'_>], meaning: &str) -> impl Iterator<Item = String> {
    let repeats = ports.iter().enumerate().filter_map(|(index, port)| {
        let name = port.name?;
        let alike = || ports[..index].iter().filter(|other| other.name == Some(name));
        let same = alike().find(|other| other.protocol == port.protocol);
        Some((port, name, same.or_else(|| alike().next())?))
    });
    repeats.map(move |(Port { field, protocol, .. }, name, other)| {
        let given = match name {
            "" => format!("missing, as that of {} is", other.field),
            name => format!("\"{name}\" is that of {}, too", other.field),
        };
        let meaning = match other.protocol == *protocol {
            true => meaning,
            false => "no API server takes that, though the protocols tell them apart here",
        };
        format!("{field}.name: {given}; {meaning}; give each port a name of its own")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of_service(ports: Value) -> Vec<String> {
        ambiguous(Kind::Service, &json!({"spec": {"ports": ports}}))
    }

    #[test]
    fn only_a_port_that_is_alone_needs_no_name() {
        let missing = |field: &str| {
            format!(
                "{field}.name: missing beside other ports, so that names do not tell them apart; \
                 give each port a name, the same in the Service and its endpoints"
            )
        };
        assert_eq!(of_service(json!([{"port": 80}])), [""; 0]);
        assert_eq!(of_service(json!([{"port": 80, "name": 8}, {"name": true}])), [""; 0]);
        let no_texts = json!([{"port": 80, "name": 8}, {"port": 81, "name": 8}]);
        assert_eq!(of_service(no_texts), [""; 0], "that is told elsewhere");
        let headless = json!({"clusterIP": "None", "ports": [{"port": 80}, {"port": 81}]});
        assert_eq!(ambiguous(Kind::Service, &json!({"spec": headless})), [""; 0]);
        assert_eq!(
            of_service(json!([{"port": 80}, {"port": 81, "name": "b"}, {"port": 82, "name": ""}])),
            [missing("spec.ports[0]"), missing("spec.ports[2]")]
        );
        let subsets = json!([{"ports": [{"port": 1}]}, {"ports": [{"port": 1, "name": "a"}, {}]}]);
        assert_eq!(
            ambiguous(Kind::Endpoints, &json!({"subsets": subsets})),
            [missing("subsets[1].ports[1]")]
        );
    }

    #[test]
    fn names_that_are_there_twice_are_told_with_what_comes_of_it() {
        let dns = |protocol: &str| json!({"port": 53, "name": "dns", "protocol": protocol});
        let api_server = "spec.ports[1].name: \"dns\" is that of spec.ports[0], too; no API server \
                          takes that, though the protocols tell them apart here; give each port a \
                          name of its own";
        assert_eq!(of_service(json!([dns("UDP"), dns("TCP")])), [api_server]);
        assert_eq!(
            of_service(json!([dns("TCP"), {"port": 54, "name": "x"}, {"port": 55, "name": "dns"}])),
            ["spec.ports[2].name: \"dns\" is that of spec.ports[0], too; both get the same \
              endpoints; give each port a name of its own"]
        );
        let blank = |port: u16| json!({"port": port, "name": " "});
        assert_eq!(of_service(json!([blank(53), blank(54)])).len(), 1, "a blank is a text");
        let slice = |ports: Value| ambiguous(Kind::EndpointSlice, &json!({"ports": ports}));
        assert_eq!(
            slice(json!([{"port": 80}, {"port": 81, "name": ""}])),
            ["ports[1].name: missing, as that of ports[0] is; a port of the Service gets the \
              endpoints of both; give each port a name of its own"]
        );
        assert_eq!(slice(json!([{"port": 80}, {"port": 81, "name": "b"}])), [""; 0]);
        assert_eq!(slice(json!(null)), [""; 0]);
    }
}
