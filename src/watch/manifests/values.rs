//! Values of a Service that an API server would refuse: names that no field of theirs may hold, and
//! fields that mean nothing with its type, or without the controllers of a cluster.
//!
//! What an API server sends has been checked, and a newer one may know more names than are known
//! here; so only manifests are checked. Invariant: nothing here keeps an object from being served.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::labels::ANNOTATIONS;
use super::spec::{BALANCED, TYPES, field, is_reached_by_name, list, text};
use super::types;
use crate::cluster::field::{address, unknown_name};
use crate::cluster::objects::mismatch;
use crate::cluster::{Kind, Reason, Service};

/// Fields of the spec that decide what is programmed, their values, and what stands in for others.
const DECISIVE: [(&str, &[&str], &str); 2] = [
    ("type", &TYPES, "ClusterIP is used"),
    ("sessionAffinity", &["None", "ClientIP"], "None is used"),
];

/// Fields of the spec that decide nothing here, and their values.
const IDLE: [(&str, &[&str]); 2] = [
    ("ipFamilyPolicy", &["SingleStack", "PreferDualStack", "RequireDualStack"]),
    ("trafficDistribution", &["PreferClose", "PreferSameZone", "PreferSameNode"]),
];

/// Annotations of which the first that is given counts.
struct Choice {
    names: [&'static str; 2],
    /// What counts no more where it cannot be used.
    with_it: &'static [&'static str],
}

/// What annotations of a Service choose; ours come first.
const CHOICES: [Choice; 2] = [
    Choice { names: [ANNOTATIONS[0], ANNOTATIONS[2]], with_it: &ANNOTATIONS },
    Choice { names: [ANNOTATIONS[1], ANNOTATIONS[3]], with_it: &[ANNOTATIONS[1], ANNOTATIONS[3]] },
];

/// The object with defaults in the place of values that cannot be used, and what is told of these.
pub fn with_defaults(kind: Kind, object: &Value) -> (Cow<'_, Value>, Vec<Reason>) {
    let mut usable = Cow::Borrowed(object);
    let mut reasons = Vec::new();
    for (field, names, instead) in DECISIVE.into_iter().filter(|_| kind == Kind::Service) {
        if let Some(given) = unknown_value(object, field, names) {
            let path = format!("spec.{field}");
            reasons.push(Reason::Defaulted(unknown_name(&path, given, names, instead)));
            usable.to_mut()["spec"][field] = Value::Null;
        }
    }
    for choice in CHOICES.iter().filter(|_| kind == Kind::Service) {
        reasons.extend(leave_out_values(choice, object, &mut usable));
    }
    (usable, reasons)
}

/// Leaves out annotations that hold no text, and says so of the one that would count: it takes
/// along what an unknown text in its place would.
fn leave_out_values(
    choice: &Choice,
    object: &Value,
    usable: &mut Cow<'_, Value>,
) -> Option<Reason> {
    let given = object.pointer("/metadata/annotations").and_then(Value::as_object)?;
    let is_given = |value: &Value| !value.is_null() && value.as_str() != Some("");
    let in_use = choice.names.iter().find(|name| given.get(**name).is_some_and(is_given));
    let fault = in_use.and_then(|name| Some((name, not_text(given.get(*name)?)?)));
    let wrong = choice.names.iter().filter(|name| given.get(**name).and_then(not_text).is_some());
    let mut left_out: Vec<&str> = wrong.copied().collect();
    if fault.is_some() {
        left_out.extend(choice.with_it);
    }
    for name in left_out.into_iter().filter(|name| given.contains_key(*name)) {
        usable.to_mut()["metadata"]["annotations"][name] = Value::Null;
    }
    fault.map(|(name, fault)| {
        Reason::Defaulted(format!("metadata.annotations[{name}]: {fault}; the default is used"))
    })
}

/// What a value is that stands in place of text.
fn not_text(value: &Value) -> Option<String> {
    Option::<String>::deserialize(value).err().map(|error| mismatch(&error))
}

/// What has no effect, or another one than its writer may think, each with its field.
pub fn without_effect(object: &Value, served: Option<&Service>) -> Vec<String> {
    let idle = IDLE.into_iter().filter_map(|(field, names)| {
        let given = unknown_value(object, field, names)?;
        Some(unknown_name(format_args!("spec.{field}"), given, names, "it has no effect here"))
    });
    let mut told: Vec<String> = idle.collect();
    told.extend(types::contradictions(object, served));
    if is_reached_by_name(object) {
        return told;
    }
    let given = text(object, "type").unwrap_or(TYPES[0]);
    if TYPES.contains(&given) {
        told.extend(alien_to(given, object, served));
    }
    told.extend(unassigned_address(object));
    told.extend(balancer_without_address(object));
    told
}

/// An address that is asked for: nobody but a controller of load balancers gives it to the Service.
fn unassigned_address(object: &Value) -> Option<String> {
    let name = "spec.loadBalancerIP";
    let asked = match address(name, text(object, "loadBalancerIP")?) {
        Ok(asked) => asked,
        Err(reason) => return Some(format!("{reason}; nothing is served at it")),
    };
    let is_asked = |text: &Value| text.as_str().is_some_and(|text| address("", text) == Ok(asked));
    if list(object, "externalIPs").iter().any(is_asked) {
        return None;
    }
    let given = ingress(object).iter().filter(|one| one.get("ip").is_some_and(is_asked));
    let modes: Vec<_> = given.map(|one| one.get("ipMode").and_then(Value::as_str)).collect();
    if modes.is_empty() {
        return Some(format!(
            "{name}: {asked} is not served, as no controller gives it to the Service; to have it \
             served, write status.loadBalancer.ingress: [{{ip: {asked}}}]"
        ));
    }
    // That another mode is none is told with the ingress.
    modes.iter().all(|mode| *mode == Some("Proxy")).then(|| {
        format!(
            "{name}: {asked} is not served, as its ipMode in status.loadBalancer.ingress is Proxy; \
             to have it served, write VIP"
        )
    })
}

/// A load balancer that is asked for, by class or by type alone.
fn balancer_without_address(object: &Value) -> Option<String> {
    // The address that is asked for is told of already; one of externalIPs may be all that is meant.
    let is_told = text(object, "loadBalancerIP").is_some();
    if is_told || !ingress(object).is_empty() || !list(object, "externalIPs").is_empty() {
        return None;
    }
    let asking = match text(object, "loadBalancerClass") {
        _ if text(object, "type") != Some(BALANCED) => return None,
        Some(class) => format!("spec.loadBalancerClass: \"{class}\""),
        None => format!("spec.type: {BALANCED}"),
    };
    Some(format!(
        "{asking} gives the Service no address of a load balancer, as no controller reads \
         manifests; to have one served, write status.loadBalancer.ingress with its ip"
    ))
}

fn ingress(object: &Value) -> &[Value] {
    let ingress = object.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    ingress.map(Vec::as_slice).unwrap_or_default()
}

/// Fields that mean nothing, or something else, with this type.
fn alien_to(given: &str, object: &Value, served: Option<&Service>) -> Vec<String> {
    let mut told = Vec::new();
    if given == TYPES[0] {
        told.extend(served.into_iter().flat_map(alien_node_ports));
        told.extend(alien_policy(object));
    }
    if given != BALANCED {
        told.extend(alien_ranges(given, object));
    }
    told.extend(alien_health_check(given, object));
    told
}

/// Node ports that are open, which an API server would have taken out.
fn alien_node_ports(served: &Service) -> impl Iterator<Item = String> {
    let ports = served.ports.iter().filter_map(|port| Some((port.node_port?, port.protocol)));
    ports.map(|(number, protocol)| {
        format!(
            "spec.ports: node port {number}/{protocol} is open all the same, although types \
             NodePort and LoadBalancer alone have node ports"
        )
    })
}

fn alien_policy(object: &Value) -> Option<String> {
    let policy = text(object, "externalTrafficPolicy")?;
    list(object, "externalIPs").is_empty().then(|| {
        format!(
            "spec.externalTrafficPolicy: {policy} has no effect with type ClusterIP and without \
             externalIPs; Cluster is used"
        )
    })
}

fn alien_ranges(given: &str, object: &Value) -> Option<String> {
    (!list(object, "loadBalancerSourceRanges").is_empty()).then(|| {
        format!(
            "spec.loadBalancerSourceRanges: type {given} has no load balancer; nobody is kept out \
             but from addresses in status.loadBalancer.ingress"
        )
    })
}

fn alien_health_check(given: &str, object: &Value) -> Option<String> {
    let number = field(object, "healthCheckNodePort")?.as_i64().filter(|number| *number != 0)?;
    let is_asked = given == BALANCED && text(object, "externalTrafficPolicy") == Some("Local");
    (!is_asked).then(|| {
        format!(
            "spec.healthCheckNodePort: {number} is not served: that takes type LoadBalancer and \
             externalTrafficPolicy Local"
        )
    })
}

/// What a field holds that is none of the names; values of a wrong type are told elsewhere.
fn unknown_value<'a>(object: &'a Value, field: &str, names: &[&str]) -> Option<&'a str> {
    text(object, field).filter(|given| !names.contains(given))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::spec::served;
    use super::*;
    use crate::cluster::objects;

    fn service(spec: Value) -> Value {
        let usual = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
        let mut service = json!({"metadata": {"name": "a"}, "spec": usual});
        for (name, value) in spec.as_object().unwrap() {
            service["spec"][name] = value.clone();
        }
        service
    }

    fn without_effect(object: &Value) -> Vec<String> {
        let parsed = objects::read(Kind::Service, &object.to_string()).unwrap().parsed;
        super::without_effect(object, served(&parsed))
    }

    #[test]
    fn a_default_takes_the_place_of_a_name_that_is_none() {
        for (field, given, told) in [
            (
                "sessionAffinity",
                "ClientIp",
                "spec.sessionAffinity: \"ClientIp\" is not None or ClientIP; None is used; did you \
                 mean ClientIP?",
            ),
            (
                "type",
                "Nodeport",
                "spec.type: \"Nodeport\" is not ClusterIP, NodePort, LoadBalancer or ExternalName; \
                 ClusterIP is used; did you mean NodePort?",
            ),
        ] {
            let given = service(json!({field: given}));
            let (usable, reasons) = with_defaults(Kind::Service, &given);
            assert_eq!(reasons, [Reason::Defaulted(told.to_owned())]);
            assert_eq!(*usable, service(json!({field: null})));
        }
        let good = json!({"type": "NodePort", "sessionAffinity": "ClientIP"});
        for good in [service(good), service(json!({"type": "", "sessionAffinity": 7})), json!({})] {
            assert_eq!(with_defaults(Kind::Service, &good), (Cow::Borrowed(&good), vec![]));
        }
    }

    #[test]
    fn an_annotation_that_is_no_text_leaves_the_default() {
        let [scheduler, flags, router_scheduler, router_flags] = ANNOTATIONS;
        for (given, left, told) in [
            (
                json!({scheduler: 5, flags: "sh-port", "a": 1}),
                json!({scheduler: null, flags: null, "a": 1}),
                &["scheduler]: the number 5 in place of text; the default is used"][..],
            ),
            (
                json!({scheduler: true, router_scheduler: "sh"}),
                json!({scheduler: null, router_scheduler: null}),
                &["scheduler]: the truth value true in place of text; the default is used"],
            ),
            (
                json!({scheduler: "sh", flags: ["sh-port"], router_flags: "sh-fallback"}),
                json!({scheduler: "sh", flags: null, router_flags: null}),
                &["scheduler-flags]: a list in place of text; the default is used"],
            ),
            (
                json!({scheduler: "sh", router_scheduler: 5}),
                json!({scheduler: "sh", router_scheduler: null}),
                &[],
            ),
            (json!({scheduler: "sh", flags: null}), json!({scheduler: "sh", flags: null}), &[]),
        ] {
            let object = |given: Value| json!({"metadata": {"name": "a", "annotations": given}});
            let given = object(given);
            let (usable, reasons) = with_defaults(Kind::Service, &given);
            assert_eq!(*usable, object(left));
            let reasons: Vec<_> = reasons.iter().map(Reason::text).collect();
            let ours = "metadata.annotations[ipvs.kube-ipvs-proxy.io/";
            let told: Vec<_> = told.iter().map(|told| format!("{ours}{told}")).collect();
            assert_eq!(reasons, told);
        }
    }

    #[test]
    fn values_without_effect_are_told() {
        let object = service(json!({"ipFamilyPolicy": "SingleStack ", "type": "ClusterIP",
            "trafficDistribution": "Nearby"}));
        assert_eq!(
            without_effect(&object),
            [
                "spec.ipFamilyPolicy: \"SingleStack \" is not SingleStack, PreferDualStack or \
                 RequireDualStack; it has no effect here; did you mean SingleStack?",
                "spec.trafficDistribution: \"Nearby\" is not PreferClose, PreferSameZone or \
                 PreferSameNode; it has no effect here",
            ]
        );
    }

    #[test]
    fn fields_that_mean_nothing_with_the_type_are_told() {
        let all = |kind: &str| {
            service(json!({"type": kind, "ports": [{"port": 80, "nodePort": 30080}],
                "externalTrafficPolicy": "Local", "healthCheckNodePort": 30790,
                "loadBalancerSourceRanges": ["10.0.0.0/8"]}))
        };
        for (kind, fields) in [
            (
                "ClusterIP",
                &[
                    "ports: node port 30080/tcp is open",
                    "externalTrafficPolicy: Local has no effect",
                    "loadBalancerSourceRanges: type ClusterIP",
                    "healthCheckNodePort: 30790 is not served",
                ][..],
            ),
            (
                "NodePort",
                &["loadBalancerSourceRanges: type NodePort", "healthCheckNodePort: 30790"],
            ),
            ("LoadBalancer", &["type: LoadBalancer gives the Service no address"]),
            ("ExternalName", &["clusterIP: 10.96.0.1 is not served"]),
            // Its own fault is told, and what it should have been is not known.
            ("Nodeport", &[]),
        ] {
            let told = without_effect(&all(kind));
            assert_eq!(told.len(), fields.len(), "{told:?}");
            for (told, field) in told.iter().zip(fields) {
                assert!(told.starts_with(&format!("spec.{field}")), "{told}");
            }
        }
        let outside = json!({"externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local"});
        assert_eq!(without_effect(&service(outside)), [""; 0]);
        let unset = json!({"externalTrafficPolicy": "", "healthCheckNodePort": 0,
            "ports": [{"port": 80, "nodePort": 0}], "loadBalancerSourceRanges": []});
        assert_eq!(without_effect(&service(unset)), [""; 0]);
        let headless = json!({"clusterIP": "None", "healthCheckNodePort": 30790});
        assert_eq!(without_effect(&service(headless)), [""; 0]);
    }

    #[test]
    fn node_ports_that_are_open_are_told_and_no_others() {
        let two = |one: Value, other: Value| json!({"ports": [one, other]});
        let port = |port: i64, node_port: i64| json!({"port": port, "nodePort": node_port});
        let addresses = |given: &[&str]| json!({"clusterIPs": given, "ports": [port(80, 30080)]});
        for (spec, open) in [
            (json!({"ports": [port(80, 30080)]}), &["30080/tcp"][..]),
            (json!({"ports": [port(80, 99999)]}), &[]),
            (json!({"ports": [port(80, -1)]}), &[]),
            (json!({"ports": [port(99999, 30080)]}), &[]),
            (json!({"ports": [{"port": 80, "nodePort": 30080, "protocol": "tcp"}]}), &[]),
            (two(port(80, 30080), port(81, 30080)), &["30080/tcp"]),
            (two(port(80, 30080), port(80, 30081)), &["30080/tcp"]),
            (two(port(80, 30080), port(81, 30081)), &["30080/tcp", "30081/tcp"]),
            (json!({"clusterIP": null, "ports": [port(80, 30080)]}), &[]),
            (addresses(&["nonsense", "10.96.0.1"]), &["30080/tcp"]),
            (addresses(&["nonsense"]), &[]),
        ] {
            let told = without_effect(&service(spec.clone()));
            let told: Vec<_> = told.iter().filter(|told| told.contains(" is open ")).collect();
            let begins = |(told, port): (&&String, &&str)| {
                told.starts_with(&format!("spec.ports: node port {port} is open all the same"))
            };
            assert_eq!(told.len(), open.len(), "{spec}: {told:?}");
            assert!(told.iter().zip(open).all(begins), "{spec}: {told:?}");
        }
    }

    #[test]
    fn addresses_of_load_balancers_that_nobody_assigns_are_told() {
        let told = |spec: Value, ingress: Value| {
            let mut object = service(spec);
            object["status"]["loadBalancer"]["ingress"] = ingress;
            without_effect(&object)
        };
        let asked = |address: &str| json!({"type": "LoadBalancer", "loadBalancerIP": address});
        let not_served = "spec.loadBalancerIP: 192.0.2.9 is not served, as no controller gives it \
                          to the Service; to have it served, write \
                          status.loadBalancer.ingress: [{ip: 192.0.2.9}]";
        let others = json!([{"hostname": "lb.example"}, {"ip": "192.0.2.8"}]);
        for ingress in [json!(null), json!([]), others] {
            assert_eq!(told(asked("192.0.2.9"), ingress), [not_served]);
        }
        assert_eq!(told(asked("FD00:0::9"), json!([{"ip": "fd00::9"}])), [""; 0]);
        let outside = json!({"type": "LoadBalancer", "loadBalancerIP": "192.0.2.9",
            "externalIPs": ["192.0.2.9"]});
        assert_eq!(told(outside, json!(null)), [""; 0], "it is served");
        let in_mode = |mode: &str| json!({"ip": "192.0.2.9", "ipMode": mode});
        assert_eq!(
            told(asked("192.0.2.9"), json!([in_mode("Proxy")])),
            ["spec.loadBalancerIP: 192.0.2.9 is not served, as its ipMode in \
              status.loadBalancer.ingress is Proxy; to have it served, write VIP"]
        );
        for ingress in [json!([in_mode("VIP")]), json!([in_mode("Proxy"), in_mode("VIP")])] {
            assert_eq!(told(asked("192.0.2.9"), ingress), [""; 0]);
        }
        let unknown = json!([in_mode("Vip")]);
        assert_eq!(told(asked("192.0.2.9"), unknown), [""; 0], "the mode itself is rejected");
        assert_eq!(
            told(asked("lb"), json!([{"ip": "192.0.2.9"}])),
            ["spec.loadBalancerIP: \"lb\" is not an IP address; nothing is served at it"]
        );
        let headless = json!({"clusterIP": "None", "loadBalancerIP": "192.0.2.9"});
        assert_eq!(told(headless, json!(null)), [""; 0]);
    }

    #[test]
    fn load_balancers_that_nobody_sees_to_are_told() {
        let kind = json!({"type": "LoadBalancer"});
        let class = json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/lb"});
        for (spec, asking) in [
            (kind, "spec.type: LoadBalancer"),
            (class, "spec.loadBalancerClass: \"example.com/lb\""),
        ] {
            let mut object = service(spec);
            assert_eq!(
                without_effect(&object),
                [format!(
                    "{asking} gives the Service no address of a load balancer, as no controller \
                     reads manifests; to have one served, write status.loadBalancer.ingress with \
                     its ip"
                )]
            );
            let mut outside = object.clone();
            outside["spec"]["externalIPs"] = json!(["192.0.2.1"]);
            assert_eq!(without_effect(&outside), [""; 0]);
            object["status"]["loadBalancer"]["ingress"] = json!([{"ip": "192.0.2.9"}]);
            assert_eq!(without_effect(&object), [""; 0]);
        }
    }
}
