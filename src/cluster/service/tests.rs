//! Cases of Service parsing, each a fragment of JSON and what becomes of it.

use serde_json::{Value, json};

use super::*;
use crate::cluster::Kind;
use crate::model::net::Protocol;
use crate::testing::objects::reasons;

/// Parses a Service with a usable spec that the fields given replace.
pub(super) fn parse_with(fields: Value) -> Parsed {
    let mut spec = json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]});
    merge(&mut spec, fields);
    parse_object(json!({"metadata": {"name": "web"}, "spec": spec}))
}

pub(super) fn parse_object(object: Value) -> Parsed {
    objects::read(Kind::Service, &object.to_string()).unwrap().parsed
}

fn merge(spec: &mut Value, fields: Value) {
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
}

pub(super) fn service(parsed: Parsed) -> Service {
    match parsed.object {
        Some(Object::Service(service)) => service,
        other => panic!("not a Service: {other:?}, {:?}", parsed.reasons),
    }
}

#[test]
fn a_complete_service_reads_without_complaint() {
    let parsed = parse_object(json!({
        "metadata": {"name": "web", "creationTimestamp": "2026-11-21T03:38:11Z"},
        "spec": {
            "clusterIP": "10.0.0.1",
            "clusterIPs": ["10.0.0.1", "fd00::0001"],
            "ipFamilies": ["IPv4", "IPv6"],
            "ports": [
                {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": "dns",
                    "nodePort": 30053},
                {"name": "dns-tcp", "port": 53},
            ],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "internalTrafficPolicy": "Local",
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "externalIPs": ["192.0.2.1", "2001:db8::1"],
            "loadBalancerSourceRanges": ["198.51.100.0/24"],
            "healthCheckNodePort": 30790,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}]}},
    }));
    assert_eq!(parsed.reasons, []);
    let port = |name: &str, protocol, node_port| ServicePort {
        name: name.into(),
        protocol,
        port: 53,
        node_port,
    };
    let expected = Service {
        scheduling: Default::default(),
        created: Some(1_795_232_291),
        cluster_ips: PerFamily {
            v4: Some("10.0.0.1".parse().unwrap()),
            v6: Some("fd00::1".parse().unwrap()),
        },
        ports: vec![port("dns", Protocol::Udp, Some(30_053)), port("dns-tcp", Protocol::Tcp, None)],
        affinity_seconds: Some(60),
        internal_policy: TrafficPolicy::Local,
        external_policy: TrafficPolicy::Local,
        external_ips: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        load_balancer_ips: vec!["192.0.2.2".parse().unwrap()],
        source_ranges: vec!["198.51.100.0/24".parse().unwrap()],
        health_check_port: Some(30_790),
    };
    assert_eq!(service(parsed), expected);
}

#[test]
fn services_that_mean_nothing_here_are_ignored_without_a_reason() {
    for fields in [
        json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        json!({"clusterIP": "None"}),
        json!({"clusterIP": ""}),
        json!({"clusterIP": null}),
        json!({"type": "ExternalName"}),
    ] {
        assert_eq!(parse_with(fields.clone()), Parsed::default(), "{fields}");
    }
    let labels = json!({"service.kubernetes.io/service-proxy-name": ""});
    let foreign = json!({"metadata": {"name": "web", "labels": labels},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}});
    assert_eq!(parse_object(foreign), Parsed::default());
}

#[test]
fn cluster_ips_are_taken_by_family() {
    for (fields, v4, v6) in [
        (json!({"clusterIP": "010.0.0.1"}), Some("10.0.0.1"), None),
        (json!({"clusterIP": "fd00::1"}), None, Some("fd00::1")),
        (json!({"clusterIPs": ["10.0.0.1", "fd00::1"]}), Some("10.0.0.1"), Some("fd00::1")),
        (
            json!({"clusterIPs": ["fd00::1", "10.0.0.1"], "ipFamilies": ["IPv6", "IPv4"]}),
            Some("10.0.0.1"),
            Some("fd00::1"),
        ),
    ] {
        let parsed = parse_with(fields.clone());
        assert_eq!(parsed.reasons, [], "{fields}");
        let found = service(parsed).cluster_ips;
        let text = |address: Option<IpAddr>| address.map(|address| address.to_string());
        assert_eq!((text(found.v4).as_deref(), text(found.v6).as_deref()), (v4, v6), "{fields}");
    }
}

#[test]
fn a_family_that_is_none_costs_no_address() {
    let parsed = parse_with(json!({"clusterIPs": ["10.0.0.1", "fd00::1"],
        "ipFamilies": ["IPv4", "ipv6"]}));
    let reason = "spec.ipFamilies[1]: \"ipv6\" is not IPv4 or IPv6; the family of the address is \
                  used; did you mean IPv6?";
    assert_eq!(parsed.reasons, [Reason::Defaulted(reason.to_owned())]);
    assert_eq!(service(parsed).cluster_ips.v6, Some("fd00::1".parse().unwrap()));
}

#[test]
fn one_bad_field_costs_only_its_part() {
    let cases = [
        (
            json!({"ports": [{"port": 80}, {"port": 0, "name": "b"}]}),
            "spec.ports[1].port: 0 is not between 1 and 65535",
        ),
        (
            json!({"ports": [{"port": 80}, {"port": 81, "protocol": "ICMP"}]}),
            "spec.ports[1].protocol: \"ICMP\" is not TCP, UDP or SCTP; the port is not served",
        ),
        (
            json!({"ports": [{"port": 80}, {"port": 80, "name": "again"}]}),
            "spec.ports: 80/tcp is there twice",
        ),
        (
            json!({"clusterIPs": ["10.0.0.1", "fd00::zz"]}),
            "spec.clusterIPs[1]: \"fd00::zz\" is not an IP address",
        ),
        (
            json!({"clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
            "spec.clusterIPs: 10.0.0.2 is a second address of the family of 10.0.0.1",
        ),
        (
            json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4"]}),
            "spec.clusterIPs[1]: fd00::1 has no family in spec.ipFamilies",
        ),
        (
            json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv4"]}),
            "spec.clusterIPs[1]: fd00::1 is not of the family IPv4",
        ),
        (
            json!({"internalTrafficPolicy": "Nearest"}),
            "spec.internalTrafficPolicy: \"Nearest\" is not Cluster or Local; Cluster is used",
        ),
    ];
    for (fields, reason) in cases {
        let parsed = parse_with(fields.clone());
        assert_eq!(reasons(&parsed), [reason], "{fields}");
        let service = service(parsed);
        assert_eq!(service.ports.len(), 1, "{fields}");
        assert_eq!(service.cluster_ips.v4, Some("10.0.0.1".parse().unwrap()), "{fields}");
        assert_eq!(service.cluster_ips.v6, None, "{fields}");
        assert_eq!(service.internal_policy, TrafficPolicy::Cluster, "{fields}");
    }
}

#[test]
fn a_service_without_any_usable_address_or_port_is_rejected_whole() {
    for (fields, reason) in [
        (json!({"clusterIP": "web"}), "spec.clusterIP: \"web\" is not an IP address"),
        (json!({"clusterIP": "127.0.0.1"}), "spec.clusterIP: 127.0.0.1 is a loopback address"),
        (json!({"ports": [{}]}), "spec.ports[0].port: a port without a number is not supported"),
    ] {
        let parsed = parse_with(fields.clone());
        assert_eq!((&parsed.object, reasons(&parsed)), (&None, vec![reason]), "{fields}");
    }
}

#[test]
fn affinity_defaults_and_is_bounded() {
    let config = |seconds: Value| json!({"clientIP": {"timeoutSeconds": seconds}});
    for (affinity, config, expected, is_rejected) in [
        (json!("None"), config(json!(60)), None, false),
        (json!(null), json!(null), None, false),
        (json!("clientip"), json!(null), None, false),
        (json!("ClientIP"), json!(null), Some(10_800), false),
        (json!("ClientIP"), json!({}), Some(10_800), false),
        (json!("ClientIP"), json!({"clientIP": null}), Some(10_800), false),
        (json!("ClientIP"), config(json!(null)), Some(10_800), false),
        (json!("ClientIP"), config(json!(86_400)), Some(86_400), false),
        (json!("ClientIP"), config(json!(0)), Some(10_800), true),
        (json!("ClientIP"), config(json!(86_401)), Some(10_800), true),
        (json!("ClientIP"), config(json!(-1)), Some(10_800), true),
    ] {
        let fields = json!({"sessionAffinity": affinity, "sessionAffinityConfig": config});
        let parsed = parse_with(fields.clone());
        assert_eq!(!parsed.reasons.is_empty(), is_rejected, "{fields}");
        assert_eq!(service(parsed).affinity_seconds, expected, "{fields}");
    }
}

#[test]
fn an_unreadable_creation_time_is_named() {
    let parsed = parse_object(json!({"metadata": {"name": "web", "creationTimestamp": "today"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}}));
    let reason = "metadata.creationTimestamp: \"today\" is not an RFC 3339 time; the Service counts as the oldest";
    assert_eq!(reasons(&parsed), [reason]);
    assert_eq!(service(parsed).created, None);
}
